"""The columns that a table of methods can have."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from statistics import fmean
from typing import Literal

from petlbench.core.catalog import Catalog
from petlbench.core.errors import InputError, unknown_name
from petlbench.data.tasks.base import metric_of
from petlbench.metrics.efficiency import pme, ppe
from petlbench.metrics.metric import Metric
from petlbench.report.cells import mebibytes, millions_cell, number_cell
from petlbench.report.context import Context, Line
from petlbench.report.document import Cell, Column
from petlbench.report.tasks import equal_weights
from petlbench.results.journal import CONTINUED
from petlbench.results.stored import Stored
from petlbench.results.table import Spread

DATASETS = "datasets"
"""Stands for one column a dataset."""

OPTIONAL: Mapping[str, Sequence[str]] = {
    name: ("best_val", "last_val") if name == "last" else (name,)
    for name in (
        *("gap", "last", "time", "hours", "search_hours", "disk", "trials", "test_reads"),
        *("parameters", "learnable_published", "reserved", "process", "resident", "latency"),
    )
}
"""What `--columns` takes, and the columns that each stands for."""

_NEGATIVE = "the average is below zero, where less efficiency would look like more"
_MEMORY_FIGURES = {"reserved": "reserved", "process": "process", "resident": "resident, host"}

_Make = Callable[[Line, Context], Cell]


Maker = tuple[Column, _Make]
"""A column and how its cells are made."""


def find_metric(catalog: Catalog, name: str) -> Metric:
    """The metric of a report.

    Raises:
        InputError: When there is none of that name, or it is no fraction.
    """
    metric = metric_of(name, catalog)
    if metric.unit != "%":
        raise InputError(
            f"the metric '{name}' is in {metric.unit}, and tables show scores in percent",
            hint="choose another one of petlbench list metrics",
            kind="unknown_metric",
        )
    return metric


def make_columns(keys: Iterable[str], context: Context) -> list[Maker]:
    """Give the columns of the given keys, and those that the results call for.

    Raises:
        InputError: When a key names no column.
    """
    makers: list[Maker] = []
    for key in dict.fromkeys(part for name in keys for part in OPTIONAL.get(name, (name,))):
        if key in _FAMILIES:
            makers += _FAMILIES[key](context)
        elif key in _MAKERS:
            makers.append(_MAKERS[key])
        else:
            raise unknown_name("column", key, {*OPTIONAL, *_MAKERS, *_FAMILIES})
    return makers


def _datasets(context: Context) -> list[Maker]:
    makers: list[Maker] = []
    groups = {task.key: group.title for group in context.grid.groups for task in group.tasks}
    for name in context.grid.datasets:
        title, marks = context.grid.titles[name], context.flagged.get(name)
        heading = f"{title} ({', '.join(marks)})" if marks else title
        # Beside a suite's many tasks, the caption says what their figures are.
        column = Column(name, heading, "" if groups else "%", context.metric.direction, groups.get(name, ""), rank=1)
        makers.append((column, lambda line, each, name=name: each.cell(line, name)))  # type: ignore[misc]
    return makers


def _averages(context: Context) -> list[Maker]:
    makers = [(Column("average", "average", "%", context.metric.direction), lambda line, c: c.averages[line.key])]
    clean = context.clean_datasets
    if clean and len(clean) < len(context.grid.datasets):
        column = Column("average_without_shortcuts", "average without shortcuts", "%", context.metric.direction)
        makers.append((column, lambda line, c: c.average_of(line, equal_weights(c.clean_datasets))))
    return makers


def _suite_averages(context: Context) -> list[Maker]:
    """The means of a suite over the tasks that any row has."""
    makers: list[Maker] = []
    for each in context.grid.suite_averages:
        column, weights = each.column(context.metric.direction), each.weights
        makers.append((column, lambda line, c, weights=weights: c.average_of(line, weights)))  # type: ignore[misc]
    return makers


def _memory(context: Context) -> list[Maker]:
    """Peak memory of the step; and beside it what preloading takes, where some row preloads."""
    makers = [_bytes_column("memory", "memory", context.figure)]
    if any(run.config["preload"] for line in context.grid.lines for run in line.all_runs):
        makers.append(_bytes_column("preloading_memory", "memory, preloading", context.figure, "preload"))
        makers.append((Column("cache", "feature cache", "MiB", rank=5), _cache))
    return makers


_FAMILIES: Mapping[str, Callable[[Context], list[Maker]]] = {
    DATASETS: _datasets,
    "average": _averages,
    "suite_averages": _suite_averages,
    "memory": _memory,
}


def _bytes_column(key: str, title: str, figure: str, phase: str | None = None) -> Maker:
    def make(line: Line, context: Context) -> Cell:
        size = line.memory(figure, phase)
        if not line.all_runs:
            return Cell(text="–", reason="no finished run")
        reason = f"'{figure}' is not measured on {line.all_runs[0].config['device']}"
        return mebibytes(size, "nothing is preloaded" if phase else reason)

    column = Column(key, title, "MiB", "lower", rank=2) if phase is None else Column(key, title, "MiB", rank=5)
    return (column, make)


def _cache(line: Line, _context: Context) -> Cell:
    runs = [run for run in line.all_runs if run.config["preload"]]
    if not runs:
        return Cell(text="–", reason="nothing is preloaded" if line.all_runs else "no finished run")
    return mebibytes(_cache_bytes(runs), "its size is not known")


def _cache_bytes(runs: Iterable[Stored]) -> int | None:
    """Bytes of the features of a row's largest dataset, as its runs recorded them; None where they did not."""
    features = [run.document.get("data", {}).get("features") or {} for run in runs]
    return max((int(size) for each in features if (size := each.get("bytes")) is not None), default=None)


def _learnable(name: str) -> _Make:
    def make(line: Line, _context: Context) -> Cell:
        ratios = [run.document["parameters"][name] for run in line.all_runs if run.document.get("parameters")]
        share = 100 * fmean(ratios) if ratios else None
        return number_cell(share, 2 if share is not None and share >= 1 else 3, "no finished run")

    return make


def _ppe(line: Line, context: Context) -> Cell:
    average, ratios = context.averages[line.key], line.figures("learnable_ratio")
    if average.value is None or not ratios:
        return Cell(text="–", reason="it depends on the average, which is missing")
    if average.value < 0:
        return Cell(text="–", reason=_NEGATIVE)
    return number_cell(ppe(average.value, 100 * fmean(ratios) / 100))


def _pme(line: Line, context: Context) -> Cell:
    average, memory = context.averages[line.key], line.memory(context.figure)
    if context.reference is None:
        return Cell(text="–", reason=context.missing_reference)
    if average.value is None or memory is None:
        return Cell(text="–", reason="it depends on average and memory, of which one is missing")
    if average.value < 0:
        return Cell(text="–", reason=_NEGATIVE)
    return number_cell(pme(average.value, memory / context.reference))


def _front(line: Line, context: Context) -> Cell:
    return number_cell(context.fronts.get(line.key), 0, "average, memory, parameters or time is missing")


def _mean(values: Iterable[float | None], factor: float, reason: str) -> Cell:
    spread = Spread.of(values)
    return number_cell(None if spread is None else factor * spread.mean, 1, reason)


def _gap(line: Line, context: Context) -> Cell:
    scores = [[run.score(context.metric.name, split) for split in ("val", "test")] for run in line.all_runs]
    gaps = [None if val is None or test is None else 100 * (val - test) for val, test in scores]
    return _mean(gaps, 1, "no finished run")


def _of_epoch(run: Stored, context: Context, which: Literal["best", "last"]) -> float | None:
    curve = run.document.get("curve") or []
    epoch = run.document.get("best_epoch") if which == "best" else len(curve)
    return next((point.get(f"val_{context.metric.name}") for point in curve if point.get("epoch") == epoch), None)


def _validation(which: Literal["best", "last"]) -> _Make:
    return lambda line, context: _mean((_of_epoch(run, context, which) for run in line.all_runs), 100, "no curve")


def _time(per: float, digits: int) -> _Make:
    return lambda line, _: number_cell(None if line.seconds is None else line.seconds / per, digits, "no finished run")


def _search_hours(line: Line, context: Context) -> Cell:
    trials = [trial for trial in context.trials if trial.method == line.method]
    if not trials:
        return Cell(text="–", reason="no trial of a search is stored")
    seconds = sum(run.seconds("run") for run in [*trials, *line.all_runs])
    return number_cell(seconds / 3600, 3)


def _test_reads(line: Line, context: Context) -> Cell:
    mine = {run.run_id for run in line.all_runs}
    readings = [read for read in context.reads if read.get("run_id") in mine and CONTINUED not in read]
    count = len(readings) if context.reads else None
    return number_cell(count, 0, "there is no log of test reads")


def _disk(line: Line, _context: Context) -> Cell:
    if not line.all_runs:
        return Cell(text="–", reason="no finished run")
    preloaded = [run for run in line.all_runs if run.config["preload"]]
    cache = _cache_bytes(preloaded) if preloaded else 0
    folders = [run.folder.iterdir() for run in line.all_runs if run.folder is not None]
    if cache is None or not folders:
        return Cell(text="–", reason="the size of the cache or of the run's folder is not known")
    sizes = [sum(file.stat().st_size for file in files if file.is_file()) for files in folders]
    return mebibytes(cache + max(sizes))


def _parameters(line: Line, _context: Context) -> Cell:
    return number_cell(line.parameters, 0, "no finished run")


def _millions(line: Line, of: Callable[[Stored], int | None], reason: str) -> Cell:
    """The mean over datasets of a number of parameters, in millions."""
    counts = [[count for run in runs if (count := of(run)) is not None] for runs in line.runs.values()]
    means = [fmean(each) for each in counts if each]
    return millions_cell(fmean(means) if means else None, reason if line.all_runs else "no finished run")


def _with_head(line: Line, _context: Context) -> Cell:
    return _millions(line, lambda run: _counted(run)[0], "not counted")


def _without_head(line: Line, _context: Context) -> Cell:
    return _millions(line, lambda run: _counted(run)[1], "its head was not counted apart")


def _counted(run: Stored) -> tuple[int | None, int | None]:
    """What a run learns, with and without its head; None for what it has not counted."""
    parameters = run.document.get("parameters") or {}
    learnable, head = parameters.get("learnable"), parameters.get("head")
    return learnable, None if learnable is None or head is None else learnable - head


def _latency(line: Line, _context: Context) -> Cell:
    return _mean(line.figures("inference_latency"), 1000, "not measured")


_MAKERS: Mapping[str, Maker] = {
    maker[0].key: maker
    for maker in (
        (Column("learnable", "learnable", "%", "lower", rank=2), _learnable("ratio")),
        (Column("learnable_published", "learnable, as its paper counts", "%"), _learnable("ratio_published")),
        (
            Column("parameters", "learnable parameters", "", "lower"),
            _parameters,
        ),
        (Column("without_head", "without head", "M", "lower", "learnable"), _without_head),
        (Column("with_head", "with head", "M", "lower", "learnable"), _with_head),
        (Column("ppe", "PPE", "", "higher", rank=3), _ppe),
        (Column("pme", "PME", "", "higher", rank=3), _pme),
        (Column("front", "front", rank=4), _front),
        (Column("gap", "validation less test", "points"), _gap),
        (Column("best_val", "validation, best epoch", "%"), _validation("best")),
        (Column("last_val", "validation, last epoch", "%"), _validation("last")),
        (Column("time", "time of a run", "s", "lower"), _time(1, 1)),
        (Column("hours", "device hours, one run", "h", "lower"), _time(3600, 4)),
        (Column("search_hours", "device hours, search and runs", "h", "lower"), _search_hours),
        (Column("trials", "trials"), lambda line, context: number_cell(context.tried.get(line.method, 0), 0)),
        (Column("test_reads", "test reads"), _test_reads),
        (Column("disk", "disk", "MiB", "lower"), _disk),
        (
            Column("latency", "latency", "ms", "lower"),
            _latency,
        ),
        *(_bytes_column(name, title, name) for name, title in _MEMORY_FIGURES.items()),
    )
}

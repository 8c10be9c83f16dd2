"""The runs of a page: a table of one row each, figures to explore them, curves by dataset, confusion matrices."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from petlbench.core.catalog import Catalog
from petlbench.report.document import Axis, Figure, Series
from petlbench.report.look import Look
from petlbench.results.stored import Stored, flat
from petlbench.results.table import Spread, mean_curve

_SHOWN_SETTINGS = 8  # columns of settings that differ between runs
_NAMED_SETTINGS = 3  # settings in the name of a group
_MOST = 40  # lines of one plot and matrices of one dataset: more cannot be told apart
_PERCENT = 100.0
# What is no setting here.
_NAMES = {"method", "dataset", "seed", "split_seed"}


@dataclass(frozen=True)
class _Measure:
    """A figure of a run that can be compared: its axis, its name in the results table, and how it is shown."""

    axis: Axis
    figure: str
    factor: float = 1
    digits: int = 2

    def of(self, run: Stored) -> float | None:
        """The figure in the axis' unit; None where the run has none."""
        value = run.figure(self.figure)
        return None if value is None else value * self.factor


_MEASURES = (
    _Measure(Axis("auc", "test AUC", "%", "linear", "higher"), "test_auc", 100),
    _Measure(Axis("auc_by_group", "test AUC by group", "%", "linear", "higher"), "test_auc_by_group", 100),
    _Measure(Axis("val_auc", "validation AUC", "%", "linear", "higher"), "val_auc", 100),
    _Measure(Axis("accuracy", "test accuracy", "%", "linear", "higher"), "test_accuracy", 100),
    _Measure(Axis("parameters", "learnable parameters", "%", "log", "lower"), "learnable_ratio", 100, 3),
    _Measure(Axis("memory", "peak memory, allocated", "MiB", "log", "lower"), "memory_allocated", 2**-20, 1),
    _Measure(Axis("reserved", "peak memory, reserved", "MiB", "log", "lower"), "memory_reserved", 2**-20, 1),
    _Measure(Axis("process", "peak memory, process", "MiB", "log", "lower"), "memory_process", 2**-20, 1),
    _Measure(Axis("time", "time of preloading, training and evaluation", "s", "log", "lower"), "seconds_run", 1, 1),
    _Measure(Axis("ppe", "PPE", "%", "linear", "higher"), "ppe", 100),
    _Measure(Axis("pme", "PME", "%", "linear", "higher"), "pme", 100),
)
_AUC, _VALIDATION = _MEASURES[0], _MEASURES[2]


@dataclass(frozen=True)
class Group:
    """Finished runs that differ in their seeds alone.

    Args:
        title: The method's title, with the settings that tell it from other groups of the method on the dataset.
        method: The method's name.
        dataset: The dataset's title.
        source: Where its peak memory comes from; empty where there is none.
        runs: The runs.
    """

    title: str
    method: str
    dataset: str
    source: str
    runs: tuple[Stored, ...]

    def spread(self, measure: _Measure) -> Spread | None:
        """Mean and deviation over seeds; None where no run has the figure."""
        return Spread.of(map(measure.of, self.runs))

    def mean(self, measure: _Measure) -> float | None:
        """The mean over seeds; None where no run has the figure."""
        spread = self.spread(measure)
        return None if spread is None else spread.mean


def in_order(documents: Sequence[Mapping[str, Any]], look: Look) -> list[Mapping[str, Any]]:
    """Runs in the order of their methods, which is that of tables and colours; else in their own."""
    return sorted(documents, key=lambda document: look.place(Stored(document).method))


def describe_runs(documents: Sequence[Mapping[str, Any]], look: Look) -> dict[str, Any]:
    """Make the table of all runs: ``columns`` and ``rows``, of which each cell is a number, a text or None."""
    runs = [Stored(document) for document in documents]
    measures = [measure for measure in _MEASURES if any(measure.of(run) is not None for run in runs)]
    settings = [_flat(run.config) for run in runs]
    varied = _varied(settings)[:_SHOWN_SETTINGS]
    columns: list[dict[str, Any]] = [
        {"title": "method"},
        {"title": "dataset"},
        {"title": "seed", "digits": 0},
        {"title": "status"},
        *({"title": each.axis.heading, "better": each.axis.better, "digits": each.digits} for each in measures),
        *({"title": name} for name in ("memory source", *varied, "run")),
    ]
    rows = [
        [
            look.title(run.method),
            _dataset(run, look),
            run.config.get("seed"),
            run.status,
            *(measure.of(run) for measure in measures),
            _source(run) or None,
            *(setting.get(name) for name in varied),
            run.run_id,
        ]
        for run, setting in zip(runs, settings, strict=True)
    ]
    return {"columns": columns, "rows": rows}


def group_runs(documents: Sequence[Mapping[str, Any]], look: Look) -> list[Group]:
    """Put finished runs that differ in their seeds alone together, in the order in which they first appear."""
    members: dict[tuple[str, str, str, str], list[Stored]] = {}
    for run in map(Stored, documents):
        if run.finished:
            config = {key: value for key, value in run.config.items() if key not in {"seed", "split_seed"}}
            setting = json.dumps(config, sort_keys=True, default=str)
            members.setdefault((run.method, _dataset(run, look), _source(run), setting), []).append(run)
    configs = {key: _flat(runs[0].config) for key, runs in members.items()}
    groups = []
    for key, runs in members.items():
        method, dataset, source, _ = key
        varied = _varied([other for each, other in configs.items() if each[:2] == key[:2]])
        words = ", ".join(f"{name} {configs[key].get(name)}" for name in varied[:_NAMED_SETTINGS])
        title = look.title(method)
        groups.append(Group(f"{title} ({words})" if words else title, method, dataset, source, tuple(runs)))
    return sorted(groups, key=lambda group: look.place(group.method))


def run_figures(groups: Sequence[Group], look: Look) -> list[Figure]:
    """Plot every group of runs: one figure a dataset and source of memory, and one of the averages of all datasets."""
    by_dataset = [
        _scatter(f"{dataset}{f', memory: {source}' if source else ''}", members, look)
        for (dataset, source), members in _by(groups, "dataset", "source").items()
    ]
    return [*_average(groups, look), *by_dataset]


def curve_figures(groups: Sequence[Group]) -> list[Figure]:
    """Plot the epochs of every dataset: mean over seeds, with a band from the lowest to the highest seed."""
    figures = []
    for (dataset,), members in _by(groups, "dataset").items():
        shown = _best([group for group in members if any(map(_curve, group.runs))])
        entries = (entry for group in shown for run in group.runs for entry in _curve(run))
        names = dict.fromkeys(name for entry in entries for name in entry if name != "epoch")
        axes = [Axis("epoch", "epoch"), *map(_curve_axis, names)]
        if shown and names:
            y = next((name for name in ("val_auc", "val_loss", "train_loss") if name in names), next(iter(names)))
            series = [Series(_key(group, shown), group.title, _mean_curve(group, list(names))) for group in shown]
            caption = "Mean over seeds; the band reaches from the lowest to the highest."
            if len(shown) < len(members):
                caption += f" The {len(shown)} of {len(members)} with the best validation AUC."
            figures.append(Figure(f"curves-{dataset}", "lines", dataset, axes, "epoch", y, series, caption=caption))
    return figures


def confusion_figures(groups: Sequence[Group]) -> list[Figure]:
    """Confusion matrices of the test split, summed over seeds, for each group."""
    axes = [Axis("predicted", "predicted class"), Axis("true", "true class")]
    figures = []
    for (dataset,), members in _by(groups, "dataset").items():
        for group in _best([member for member in members if any(map(_confusion, member.runs))]):
            matrices = [matrix for run in group.runs if (matrix := _confusion(run))]
            sums = ([sum(cells) for cells in zip(*rows, strict=True)] for rows in zip(*matrices, strict=True))
            values = {str(number): row for number, row in enumerate(sums)}
            labels = [str(name) for name in group.runs[0].document.get("data", {}).get("classes") or ()]
            fits = len(labels) == len(values)
            series = [Series(group.method, group.title, values, labels=labels if fits else list(values))]
            figures.append(Figure.of(dataset, "matrix", group.title, axes, series))
    return figures


def _scatter(title: str, groups: Sequence[Group], look: Look) -> Figure:
    measures = [measure for measure in _MEASURES if any(group.spread(measure) for group in groups)]
    series = [
        Series(
            method,
            look.title(method),
            {measure.axis.key: [group.mean(measure) for group in members] for measure in measures},
            labels=[_label(group) for group in members],
        )
        for (method,), members in _by(groups, "method").items()
    ]
    return _explorer(title, measures, series)


def _average(groups: Sequence[Group], look: Look) -> Iterator[Figure]:
    """Average each method over the datasets, where it has exactly one group on every one; memory is of one source."""
    datasets = dict.fromkeys(group.dataset for group in groups)
    if len(datasets) < 2 or len({group.source for group in groups}) > 1:
        return
    series, left_out = [], []
    for (method,), members in _by(groups, "method").items():
        if {group.dataset for group in members} != set(datasets) or len(members) > len(datasets):
            left_out.append(look.title(method))
            continue
        spreads = {each.axis.key: Spread.of(group.mean(each) for group in members) for each in _MEASURES}
        values = {key: [each.mean if each and each.count == len(members) else None] for key, each in spreads.items()}
        title = look.title(method)
        series.append(Series(method, title, values, labels=[f"{title}, average of {len(datasets)} datasets"]))
    if series:
        measures = [each for each in _MEASURES if any(line.values[each.axis.key][0] is not None for line in series)]
        missing = f"Not on every dataset, or with more than one setting: {', '.join(left_out)}." if left_out else ""
        yield _explorer(f"average of {len(datasets)} datasets", measures, series, missing)


def _explorer(title: str, measures: Sequence[_Measure], series: Sequence[Series], caption: str = "") -> Figure:
    keys = [measure.axis.key for measure in measures]
    y = next((key for key in ("auc", "val_auc") if key in keys), keys[0] if keys else "")
    x = next((key for key in ("memory", "parameters", "time") if key in keys), y)
    size = next((key for key in ("parameters", "time") if key in keys and key != x), None)
    axes = [measure.axis for measure in measures]
    return Figure(f"runs-{title}", "scatter", title, axes, x, y, series, size=size, caption=caption)


def _label(group: Group) -> str:
    auc = group.spread(_AUC)
    label = f"{group.title}: {len(group.runs)} seed" + ("s" if len(group.runs) > 1 else "")
    label += "" if auc is None else f", test AUC {auc.mean:.2f} %"
    return label if auc is None or auc.std is None else f"{label} ± {auc.std:.2f}"


def _mean_curve(group: Group, names: Sequence[str]) -> dict[str, list[float | None]]:
    curves = [_curve(run) for run in group.runs]
    epochs = sorted({entry["epoch"] for curve in curves for entry in curve if "epoch" in entry})
    values: dict[str, list[float | None]] = {"epoch": [float(epoch) for epoch in epochs]}
    for name in names:
        bands = mean_curve(curves, name, _curve_factor(name))
        rows = [bands.get(epoch, (None, None, None)) for epoch in epochs]
        keys = (name, f"{name}_low", f"{name}_high") if len(curves) > 1 else (name,)
        values |= {key: [row[column] for row in rows] for column, key in enumerate(keys)}
    return values


def _best(groups: Sequence[Group]) -> list[Group]:
    """Those with the best validation AUC, where they are too many; in their own order."""
    best = set(map(id, sorted(groups, key=lambda group: -(group.mean(_VALIDATION) or 0))[:_MOST]))
    return [group for group in groups if id(group) in best]


def _by(groups: Sequence[Group], *names: str) -> dict[tuple[str, ...], list[Group]]:
    members: dict[tuple[str, ...], list[Group]] = {}
    for group in groups:
        members.setdefault(tuple(getattr(group, name) for name in names), []).append(group)
    return members


def _key(group: Group, groups: Sequence[Group]) -> str:
    """The method, which has a colour of its own; the title, where several groups of it are in one plot."""
    return group.method if sum(each.method == group.method for each in groups) == 1 else group.title


def _curve_axis(name: str) -> Axis:
    """A quantity of an epoch: scores in percent, as everywhere on the page."""
    kind, _, score = name.partition("_")
    split = {"val": "validation", "train": "training"}.get(kind, kind)
    entry = Catalog().entries("metric").get(score)
    title = f"{split} {score if entry is None else entry.title}" if score else name
    return Axis(name, title.replace("_", " "), "%" if _curve_factor(name) == _PERCENT else "")


def _curve_factor(name: str) -> float:
    entry = Catalog().entries("metric").get(name.partition("_")[2])
    return _PERCENT if entry is not None and entry.card.get("unit", "%") == "%" else 1.0


def _dataset(run: Stored, look: Look) -> str:
    return str(run.document.get("data", {}).get("title") or look.title(run.dataset))


def _source(run: Stored) -> str:
    return str((run.document.get("memory") or {}).get("source") or "")


def _curve(run: Stored) -> Sequence[Mapping[str, Any]]:
    return run.document.get("curve") or ()


def _confusion(run: Stored) -> list[list[int]] | None:
    matrix = run.document["metrics"].get("test", {}).get("confusion_matrix")
    return matrix if isinstance(matrix, list) else None


def _varied(settings: Sequence[Mapping[str, Any]]) -> list[str]:
    """Names of settings that do not have the same value everywhere."""
    names = dict.fromkeys(name for setting in settings for name in setting)
    return [name for name in names if name not in _NAMES and len({str(each.get(name)) for each in settings}) > 1]


def _flat(config: Mapping[str, Any]) -> dict[str, Any]:
    """The settings by name; one that is inside says enough: training.lr is known as lr."""
    return {name.removeprefix("training.").replace("_settings.", ".", 1): each for name, each in flat(config).items()}

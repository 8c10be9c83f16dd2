"""Tables of a study: what it reached, what failed, and what it would take."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from petlbench.cli.output import print_report_table, print_table, say
from petlbench.core.units import MISSING, mebibytes, readable_size, seconds, value_text
from petlbench.report.alignment import align
from petlbench.report.cells import MIB, rounded
from petlbench.report.document import Cell, Column, Row, Table, table_of
from petlbench.results.stored import dataset_names

if TYPE_CHECKING:
    from petlbench.results.table import Spread
    from petlbench.study.forecast.preview import Preview
    from petlbench.study.status import RunState
    from petlbench.study.summary import CellSummary, Summary


def print_summary(summary: Summary, retry: str) -> None:
    """Print the table of a study, what is missing in it, and the command that tries it again."""
    names = dataset_names(summary.status.datasets)
    print_report_table(_scores(summary, names))
    for dataset, cell in summary.best.items():
        say(f"best on {names[dataset]}, by validation AUC: {cell.method}")
    _print_states("cannot be had", summary.unsupported(), names)
    unfinished = summary.unfinished()
    _print_states("not finished", unfinished, names)
    for note in summary.notes:
        say(f"note: {note}")
    if unfinished:
        say(f"to try them again: {retry}")


def print_searches(searches: Sequence[Mapping[str, Any]]) -> None:
    """Print what searches would try, one a method and dataset."""
    rows = [
        [search["method"], search["dataset"], str(search["trials"]), _space(search["space"]), search["error"] or ""]
        for search in searches
    ]
    print_table("searches", ["method", "dataset", "trials>", "searched", "why not"], rows)


def _space(space: Mapping[str, Any] | None) -> str:
    if space is None:
        return MISSING
    shown = [
        f"{name.partition('.')[2]} {', '.join(map(value_text, values))}"
        if isinstance(values, list)
        else f"{name.partition('.')[2]} {value_text(values['low'])} to {value_text(values['high'])}"
        for name, values in space["searched"].items()
    ]
    return "; ".join(shown)


def print_previews(name: str, previews: Sequence[Preview]) -> None:
    """Print what the runs of a study would take, for each method and dataset."""
    names = dataset_names(preview.dataset for preview in previews)
    columns = [
        Column("method", "method"),
        Column("dataset", "dataset", numeric=False),
        Column("finished", "finished"),
        Column("predicted", "predicted, MiB"),
        Column("seconds", "a run"),
        Column("cache", "feature cache"),
        Column("refused", "will not do", numeric=False),
    ]
    rows = [
        [
            preview.method,
            f"{names[preview.dataset]}{f', {preview.part}' if preview.part else ''}",
            f"{preview.finished}/{preview.runs}",
            mebibytes(preview.peak),
            seconds(preview.seconds),
            MISSING if preview.preloaded.bytes is None else readable_size(preview.preloaded.bytes),
            preview.refusal or "; ".join(preview.problems),
        ]
        for preview in previews
    ]
    if not any(row[-1] for row in rows):
        columns, rows = columns[:-1], [row[:-1] for row in rows]
    print_report_table(table_of("main", f"study {name}: dry run", columns, rows, _caption(previews)))


def _scores(summary: Summary, names: Mapping[str, str]) -> Table:
    datasets = summary.status.datasets
    columns = [
        *(Column(dataset, names[dataset], "%") for dataset in datasets),
        Column("learnable", "learnable", "%", rank=1),
        Column("memory", "memory", "MiB", rank=1),
    ]
    rows = []
    for method in summary.status.methods:
        by_dataset = {dataset: summary.cell(method, dataset) for dataset in datasets}
        cells = {dataset: _auc(cell) for dataset, cell in by_dataset.items()}
        cells["learnable"] = _over(by_dataset.values(), "ratio", 100, 3)
        cells["memory"] = _over(by_dataset.values(), "allocated", 1 / MIB, 1)
        rows.append(Row(method, method, cells))
    sources = sorted({source for cell in summary.cells for source in cell.memory_sources})
    caption = "Test AUC, mean ± sample standard deviation over runs; of a single run with its 95 % interval."
    if sources:
        caption += f" Memory: allocated by a training step ({', '.join(sources)})."
    few = {names[cell.dataset]: cell.few_validation for cell in summary.cells if cell.few_validation}
    notes = [f"{name}: too few validation images to choose the epoch by, {count}." for name, count in few.items()]
    return align(Table("main", f"study {summary.name}", columns, rows, caption, notes))


def _caption(previews: Sequence[Preview]) -> str:
    due = [(preview, preview.runs - preview.finished) for preview in previews if preview.refusal is None]
    estimate = sum(preview.seconds * runs for preview, runs in due if preview.seconds is not None)
    unknown = sum(runs for preview, runs in due if preview.seconds is None)
    cached = sum(preview.preloaded.bytes or 0 for preview in previews)
    parts = [f"{sum(runs for _, runs in due)} runs to carry out"]
    if estimate:
        parts.append(f"{seconds(estimate)} one after another by earlier runs")
    if unknown:
        parts.append(f"{unknown} runs of which no earlier one tells the time")
    if cached:
        parts.append(f"features take up to {readable_size(cached)}; methods that keep the same share them")
    return "; ".join(parts)


def _print_states(title: str, states: Sequence[RunState], names: Mapping[str, str]) -> None:
    """Print why runs are missing; the seeds of a combination that have the same reason share a line."""
    reasons: dict[tuple[str, str, str, str], list[int]] = {}
    for state in states:
        reason = state.error["message"] if state.error is not None else ""
        key = (state.planned.method, names[state.planned.dataset], state.status, reason)
        reasons.setdefault(key, []).append(state.planned.seed)
    if reasons:
        rows = [
            [method, dataset, ", ".join(map(str, seeds)), status, reason]
            for (method, dataset, status, reason), seeds in reasons.items()
        ]
        columns = [Column(name, name, numeric=False) for name in ("method", "dataset", "seeds", "status", "why")]
        print_report_table(table_of("states", title, columns, rows))


def _auc(cell: CellSummary) -> Cell:
    """The test AUC in percent, with its deviation over runs or the interval of the only one."""
    if cell.auc is None:
        return Cell(text=MISSING)
    mean, std = 100 * cell.auc.mean, None if cell.auc.std is None else 100 * cell.auc.std
    low, high = (None, None) if cell.interval is None else (100 * bound for bound in cell.interval)
    text = rounded(mean, std, low, high)
    if low is not None and std is None:
        text += f" ({low:.1f} to {high:.1f})"
    part = "" if cell.is_whole else f" ({cell.auc.count} of {cell.wanted})"
    return Cell(mean, f"{text}{part}", low, high, std)


def _over(cells: Iterable[CellSummary], name: str, factor: float, digits: int) -> Cell:
    """A figure that most datasets share: one value, or the smallest and the largest."""
    spreads: list[Spread] = [value for cell in cells if (value := getattr(cell, name)) is not None]
    values = sorted(factor * spread.mean for spread in spreads)
    texts = list(dict.fromkeys(f"{value:,.{digits}f}" for value in values))
    if not texts:
        return Cell(text=MISSING)
    return Cell(values[-1], texts[0] if len(texts) == 1 else f"{texts[0]} to {texts[-1]}")

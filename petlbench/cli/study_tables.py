"""Tables of a study: what it reached, what failed, and what it would take."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from petlbench.cli.output import print_report_table, print_table, say
from petlbench.core.units import MISSING, mebibytes, percent, readable_size, seconds, value_text
from petlbench.report.document import Column, Table, table_of
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
        Column("method", "method"),
        *(Column(dataset, names[dataset]) for dataset in datasets),
        Column("learnable", "learnable", "%"),
        Column("memory", "memory", "MiB"),
    ]
    rows = []
    for method in summary.status.methods:
        cells = [summary.cell(method, dataset) for dataset in datasets]
        ratio = _over(cells, "ratio", lambda value: percent(value, 3))
        memory = _over(cells, "allocated", lambda value: mebibytes(round(value)))
        rows.append([method, *map(_auc, cells), ratio, memory])
    sources = sorted({source for cell in summary.cells for source in cell.memory_sources})
    caption = "test AUC in %, mean ± sample standard deviation over runs"
    if sources:
        caption += f"; allocated by a training step ({', '.join(sources)})"
    return table_of("main", f"study {summary.name}", columns, rows, caption)


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


def _auc(cell: CellSummary) -> str:
    if cell.auc is None:
        return MISSING
    spread = f" ± {percent(cell.auc.std)}" if cell.auc.std is not None else ""
    part = "" if cell.is_whole else f" ({cell.auc.count} of {cell.wanted})"
    return f"{percent(cell.auc.mean)}{spread}{part}"


def _over(cells: Sequence[CellSummary], name: str, shown: Callable[[float], str]) -> str:
    """A figure that most datasets share: one value, or the smallest and the largest."""
    spreads: list[Spread] = [value for cell in cells if (value := getattr(cell, name)) is not None]
    texts = list(dict.fromkeys(shown(spread.mean) for spread in sorted(spreads, key=lambda spread: spread.mean)))
    return MISSING if not texts else texts[0] if len(texts) == 1 else f"{texts[0]} – {texts[-1]}"

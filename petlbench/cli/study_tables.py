"""Tables of a study: what it reached, what failed, and what it would take."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from petlbench.cli.output import MISSING, mebibytes, percent, print_table, seconds
from petlbench.core.units import readable_size
from petlbench.results.names import dataset_names

if TYPE_CHECKING:
    from petlbench.results.table import Spread
    from petlbench.study.forecast.preview import Preview
    from petlbench.study.status import RunState
    from petlbench.study.summary import CellSummary, Summary

__all__ = ["print_previews", "print_summary"]


def print_summary(summary: Summary, retry: str) -> None:
    """Print the table of a study, and what is missing in it.

    Args:
        summary: The study.
        retry: The command that tries what failed again.
    """
    datasets, methods = summary.board.datasets, summary.board.methods
    names = dataset_names(datasets)
    rows = []
    for method in methods:
        cells = [summary.cell(method, dataset) for dataset in datasets]
        rows.append([method, *map(_auc, cells), _over(cells, "ratio", _ratio), _over(cells, "allocated", _memory)])
    sources = sorted({source for cell in summary.cells for source in cell.memory_sources})
    headings = ["method", *(f"{names[dataset]}>" for dataset in datasets), "learnable, %>", "memory, MiB>"]
    caption = "test AUC in %, mean ± sample standard deviation over seeds"
    if sources:
        caption += f"; allocated by a training step ({', '.join(sources)})"
    print_table(f"study {summary.name}", headings, rows, caption=caption)
    for dataset, cell in summary.best.items():
        print(f"best on {names[dataset]}, by validation AUC: {cell.method}")
    _print_states("cannot be had", summary.unsupported(), names)
    unfinished = summary.unfinished()
    _print_states("not finished", unfinished, names)
    for note in summary.notes:
        print(f"note: {note}")
    if unfinished:
        print(f"to try them again: {retry}")


def print_previews(name: str, previews: Sequence[Preview]) -> None:
    """Print what a study would take.

    Args:
        name: The study.
        previews: What its runs would take, for each method and dataset.
    """
    names = dataset_names(one.dataset for one in previews)
    rows = [
        [
            one.method,
            names[one.dataset],
            f"{one.finished}/{one.runs}",
            mebibytes(one.peak),
            seconds(one.seconds),
            MISSING if one.preloaded.bytes is None else readable_size(one.preloaded.bytes),
            one.refusal or "; ".join(one.problems),
        ]
        for one in previews
    ]
    headings = ["method", "dataset", "finished>", "predicted, MiB>", "a run>", "feature cache>", "will not do"]
    if not any(row[-1] for row in rows):
        headings, rows = headings[:-1], [row[:-1] for row in rows]
    print_table(f"study {name}: dry run", headings, rows, caption=_caption(previews))


def _caption(previews: Sequence[Preview]) -> str:
    left = [(one, one.runs - one.finished) for one in previews if one.refusal is None]
    known = sum(one.seconds * runs for one, runs in left if one.seconds is not None)
    unknown = sum(runs for one, runs in left if one.seconds is None)
    cached = sum(one.preloaded.bytes or 0 for one in previews)
    told = [f"{sum(runs for _, runs in left)} runs to carry out"]
    if known:
        told.append(f"{seconds(known)} one after another by earlier runs")
    if unknown:
        told.append(f"{unknown} runs of which no earlier one tells the time")
    if cached:
        told.append(f"features take up to {readable_size(cached)}; methods that keep the same share them")
    return "; ".join(told)


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
        print_table(title, ["method", "dataset", "seeds", "status", "why"], rows)


def _auc(cell: CellSummary) -> str:
    if cell.auc is None:
        return MISSING
    spread = f" ± {percent(cell.auc.std)}" if cell.auc.std is not None else ""
    part = "" if cell.is_whole else f" ({cell.auc.count} of {cell.wanted})"
    return f"{percent(cell.auc.mean)}{spread}{part}"


def _over(cells: Sequence[CellSummary], name: str, shown: Callable[[float], str]) -> str:
    """A figure that most datasets share: one value, or the smallest and the largest."""
    spreads: list[Spread] = [value for cell in cells if (value := getattr(cell, name)) is not None]
    texts = list(dict.fromkeys(shown(spread.mean) for spread in sorted(spreads, key=lambda one: one.mean)))
    return MISSING if not texts else texts[0] if len(texts) == 1 else f"{texts[0]} – {texts[-1]}"


def _ratio(value: float) -> str:
    return percent(value, 3)


def _memory(value: float) -> str:
    return mebibytes(round(value))

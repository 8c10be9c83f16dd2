"""From the runs of a row to its numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from statistics import stdev
from typing import TYPE_CHECKING

from petlbench.report.document import Cell, Column, Mark, Row

if TYPE_CHECKING:
    from petlbench.statistics.verdict import Cell as Judged

MIB = 2**20
FEW_POSITIVES = "too few positives for the interval to hold"
NORMAL = 1.96
"""Half an interval of 95 % of the normal distribution, in standard deviations."""


def score_cell(judged: Judged | None, *, expected: int | None, reason: str, few_validation: int = 0) -> Cell:
    """The cell of a row on a dataset, in percent: what the statistics say of its runs, or why there are none.

    ``few_validation`` is the number of validation images, where it is too small to choose an epoch by.
    """
    if judged is None:
        return Cell(text=reason.partition(":")[0], reason=reason)
    std, low, high = (None if x is None else 100 * x for x in (judged.std, judged.low, judged.high))
    flags: tuple[str, ...] = (FEW_POSITIVES,) if judged.few else ()
    if few_validation:
        flags += (f"too few validation images to choose the epoch by, {few_validation}",)
    if expected is not None and judged.runs < expected:
        flags += (f"{judged.runs} of {expected} runs",)
    if judged.low is not None and judged.note:
        flags += (judged.note,)
    return Cell(100 * judged.mean, rounded(100 * judged.mean, std, low, high), low, high, std, flags=flags)


def average_cell(
    cells: Mapping[str, Cell], weights: Mapping[str, float], by_repeat: Sequence[float], titles: Mapping[str, str]
) -> Cell:
    """The weighted mean of a row over datasets, in percent; empty where a dataset has no figure.

    Its deviation is that of ``by_repeat``: the mean over datasets of each seed and split that all of them have.
    """
    missing = [titles[name] for name, cell in cells.items() if cell.value is None]
    if missing or not cells:
        return Cell(text="–", reason=f"no figure on {', '.join(missing)}" if missing else "no dataset")
    mean = math.fsum(weights[name] * (cell.value or 0.0) for name, cell in cells.items())
    std = stdev(by_repeat) if len(by_repeat) > 1 else None
    if std is None and all(cell.low is not None and cell.high is not None for cell in cells.values()):
        # Datasets share no image, so their errors are independent.
        half = math.hypot(*(weights[n] * ((cell.high or 0.0) - (cell.low or 0.0)) for n, cell in cells.items())) / 2
        return Cell(mean, rounded(mean, None, mean - half, mean + half))
    return Cell(mean, rounded(mean, std), std=std)


def number_cell(value: float | None, digits: int = 2, reason: str = "") -> Cell:
    """A number with so many decimals, or an empty cell with its reason."""
    return Cell(text="–", reason=reason) if value is None else Cell(value, f"{value:,.{digits}f}")


def millions_cell(count: float | None, reason: str = "") -> Cell:
    """A number in millions with three digits, or an empty cell with its reason."""
    return Cell(text="–", reason=reason) if count is None else Cell(count / 1e6, f"{count / 1e6:.3g}")


def mebibytes(size: int | None, reason: str = "") -> Cell:
    """A number of bytes in MiB, or an empty cell with its reason."""
    return number_cell(None if size is None else size / MIB, 1, reason)


def mark_best(cells: Sequence[Cell], better: str | None) -> list[Cell]:
    """Mark the best and the second of some cells; what is shown alike is marked alike, a figure alone is not."""
    sign = {"higher": -1.0, "lower": 1.0}.get(better or "")
    order = sorted((sign * cell.value, cell.text) for cell in cells if cell.value is not None) if sign else []
    texts = list(dict.fromkeys(text for _, text in order))
    if len(order) < 2:
        return list(cells)
    two: Sequence[Mark] = ("best", "second")
    marks: Mapping[str, Mark] = dict(zip(texts, two, strict=False))
    return [replace(cell, mark=marks.get(cell.text, "")) if cell.value is not None else cell for cell in cells]


def mark_rows(rows: Sequence[Row], columns: Sequence[Column]) -> list[Row]:
    """The rows with the best and the second of each column marked, and a dash where a cell is missing."""
    marked = {
        column.key: mark_best([row.cells.get(column.key, Cell(text="–")) for row in rows], column.better)
        for column in columns
    }
    return [
        replace(row, cells={key: cells[number] for key, cells in marked.items()}) for number, row in enumerate(rows)
    ]


def rounded(value: float, std: float | None, low: float | None = None, high: float | None = None) -> str:
    """A number rounded by its uncertainty; where none is known, to two decimals as in the papers."""
    from petlbench.statistics.rounding import round_by_uncertainty, with_uncertainty

    if std is not None:
        return with_uncertainty(value, std) if std > 0 else f"{value:.2f} ± 0.00"
    if low is not None and high is not None and high > low:
        return round_by_uncertainty(value, (high - low) / (2 * NORMAL))
    return f"{value:.2f}"

"""One unit and one number of decimals a column, whatever its cells were rounded to alone."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from statistics import fmean

from petlbench.report.cells import NORMAL
from petlbench.report.document import Cell, Column, Row, Table
from petlbench.statistics.rounding import decimals_of

_NUMBER = re.compile(r"[+-]?[\d,]+(?:\.(\d+))?(?: ± [\d,]+(?:\.\d+)?)?")
_RANGE = re.compile(r"[+-]?[\d,]+(?:\.(\d+))? to [+-]?[\d,]+(?:\.\d+)?")
# From this many MiB on a column is shown in GiB, and below one all of it in KiB.
_MANY, _STEP = 10_000, 1024
_MOST = 4  # decimals


def align(table: Table, decimals: int | None = None) -> Table:
    """The table with one unit and one number of decimals in each column; numbers themselves stay as they are.

    Where cells have deviations or intervals, the decimals are those that their mean leaves; else those of the cell that
    has most.

    Args:
        table: A table.
        decimals: Decimals of the columns whose cells have deviations or intervals; None to let these decide.
    """
    if table.has_print:
        return table
    columns, rows = [], list(table.rows)
    for column in table.columns:
        cells = [table.cell(row, column) for row in table.rows]
        own, texts = align_cells(column, cells, decimals) if column.numeric else (column, cells)
        columns.append(own)
        rows = [_with(row, column.key, cell) for row, cell in zip(rows, texts, strict=True)]
    return replace(table, columns=columns, rows=rows)


def _with(row: Row, key: str, cell: Cell) -> Row:
    return replace(row, cells={**row.cells, key: cell}) if row.cells.get(key, cell) != cell else row


def align_cells(column: Column, cells: Sequence[Cell], decimals: int | None = None) -> tuple[Column, list[Cell]]:
    """A column of numbers with its cells, in one unit and with one number of decimals; see `align`."""
    matches = {number: match for number, cell in enumerate(cells) if (match := _match(cell))}
    said = [cell for cell in cells if cell.value is not None or _is_range(cell)]
    if not matches or len(matches) < len(said):
        return column, list(cells)
    places = [len(match[1] or "") for match in matches.values()]
    deviations = [each for number in matches if (each := _deviation(cells[number])) is not None]
    count = min(_MOST, max(places))
    if deviations:
        own = decimals_of(fmean(deviations))
        count = decimals if decimals is not None else count if own is None else min(_MOST, max(0, own))
    unit, factor = _unit(column, [abs(cells[number].value or 0.0) for number in matches])
    if unit:
        column, count = replace(column, shown_unit=unit), max(count, 2) if unit == "GiB" else 1
    return column, [
        replace(cell, text=_text(cell, count, factor)) if number in matches else cell
        for number, cell in enumerate(cells)
    ]


def _match(cell: Cell) -> re.Match[str] | None:
    if _is_range(cell):
        return _RANGE.fullmatch(cell.text)
    return None if cell.value is None else _NUMBER.fullmatch(cell.text)


def _is_range(cell: Cell) -> bool:
    return cell.value is None and cell.low is not None and cell.high is not None


def _deviation(cell: Cell) -> float | None:
    """The standard deviation of a cell, or that of a normal distribution with its interval."""
    if cell.std is not None:
        return cell.std
    return None if cell.low is None or cell.high is None else (cell.high - cell.low) / (2 * NORMAL)


def _unit(column: Column, values: Sequence[float]) -> tuple[str, float]:
    """The unit that a column of MiB is shown in, and what its numbers are multiplied by; empty for its own."""
    most = max(values)
    if column.unit != "MiB" or not (most >= _MANY or 0 < most < 1):
        return "", 1.0
    return ("GiB", 1 / _STEP) if most >= _MANY else ("KiB", float(_STEP))


def _text(cell: Cell, decimals: int, factor: float) -> str:
    sign = "+" if cell.text.startswith("+") or " to +" in cell.text else ""
    if _is_range(cell):
        return f"{_number(cell.low, decimals, sign)} to {_number(cell.high, decimals, sign)}"
    text = _number((cell.value or 0.0) * factor, decimals, sign)
    return f"{text} ± {_number(cell.std, decimals)}" if cell.std is not None and " ± " in cell.text else text


def _number(value: float | None, decimals: int, sign: str = "") -> str:
    text = f"{value or 0.0:{sign},.{decimals}f}"
    return text if text.strip("+-0.,") else text.lstrip("+-")

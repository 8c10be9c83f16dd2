"""A table as CSV: numbers as they are, unrounded, for other programs."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator, Sequence

from petlbench.report.document import Cell, Column, Row, Table

__all__ = ["render"]

_PARTS: Sequence[tuple[str, Callable[[Cell], object]]] = (
    ("", lambda cell: cell.value),
    ("_std", lambda cell: cell.std),
    ("_low", lambda cell: cell.low),
    ("_high", lambda cell: cell.high),
    ("_reason", lambda cell: cell.reason),
    ("_flags", lambda cell: "; ".join(cell.flags)),
)


def render(table: Table) -> str:
    """Write a table.

    Every column has its number under its key; standard deviation, interval, the reason of empty cells and flags stand
    under KEY_std, KEY_low, KEY_high, KEY_reason and KEY_flags where some row has one.

    Args:
        table: The table.
    """
    columns = [part for column in table.columns for part in _parts(table, column)]
    written = io.StringIO()
    writer = csv.writer(written, lineterminator="\n")
    writer.writerow([_text(table.row_title), "title", "kind", *(name for name, _ in columns)])
    for row in table.rows:
        writer.writerow([_text(row.key), _text(row.title), row.kind, *(_text(read(row)) for _, read in columns)])
    return written.getvalue()


def _parts(table: Table, column: Column) -> Iterator[tuple[str, Callable[[Row], object]]]:
    for suffix, read in _PARTS:
        if suffix == "" and not column.numeric:
            yield column.key, lambda row: table.cell(row, column).text
        elif suffix == "" or any(read(table.cell(row, column)) not in (None, "") for row in table.rows):
            yield column.key + suffix, lambda row, read=read: read(table.cell(row, column))  # type: ignore[misc]


def _text(value: object) -> object:
    """Text that a spreadsheet would take for a formula begins with an apostrophe."""
    if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r")):
        return f"'{value}"
    return value

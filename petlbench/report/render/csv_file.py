"""Tables as CSV: numbers as they are, unrounded, for other programs."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator, Mapping, Sequence

from petlbench.report.document import Cell, Column, Document, Row, Table
from petlbench.report.registry import ReportFormat

__all__ = ["CSV", "records", "render_table"]

_PARTS: Sequence[tuple[str, Callable[[Cell], object]]] = (
    ("", lambda cell: cell.value),
    ("_std", lambda cell: cell.std),
    ("_low", lambda cell: cell.low),
    ("_high", lambda cell: cell.high),
    ("_reason", lambda cell: cell.reason),
    ("_flags", lambda cell: "; ".join(cell.flags)),
)


def render(document: Document) -> Mapping[str, str]:
    """Every table of a report by its key, the main one without."""
    return {table.key if number else "": render_table(table) for number, table in enumerate(document.tables)}


CSV = ReportFormat(name="csv", title="CSV", suffix=".csv", render=render)


def records(table: Table) -> tuple[list[str], list[list[object]]]:
    """The headings and the rows of a table as plain values.

    Every column has its number under its key; standard deviation, interval, the reason of empty cells and flags stand
    under KEY_std, KEY_low, KEY_high, KEY_reason and KEY_flags where some row has one.
    """
    columns = [part for column in table.columns for part in _parts(table, column)]
    rows = [[row.key, row.title, row.kind, *(read(row) for _, read in columns)] for row in table.rows]
    return [table.row_title, "title", "kind", *(name for name, _ in columns)], rows


def render_table(table: Table) -> str:
    """One table, with the columns of `records`."""
    headings, rows = records(table)
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow([_text(headings[0]), *headings[1:]])
    writer.writerows([_text(value) for value in row] for row in rows)
    return stream.getvalue()


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

"""For other programs: tables as CSV with numbers as they are, unrounded; all of a report as JSON."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping

from petlbench.report.document import Table
from petlbench.report.formats import Document, ReportFormat

__all__ = ["CSV", "JSON", "render_table"]


def _csv(document: Document) -> Mapping[str, str]:
    """Every table of a report by its key, the main one without."""
    return {table.key if number else "": render_table(table) for number, table in enumerate(document.tables)}


def _json(document: Document) -> str:
    return json.dumps(document.plain(), indent=1, allow_nan=False) + "\n"


CSV = ReportFormat(name="csv", title="CSV", suffix=".csv", render=_csv)
JSON = ReportFormat(name="json", title="JSON", suffix=".json", render=_json)


def render_table(table: Table) -> str:
    """One table, with the columns of its `records`."""
    headings, rows = table.records()
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow([_text(headings[0]), *headings[1:]])
    writer.writerows([_text(value) for value in row] for row in rows)
    return stream.getvalue()


def _text(value: object) -> object:
    """Text that a spreadsheet would take for a formula begins with an apostrophe."""
    if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r")):
        return f"'{value}"
    return value

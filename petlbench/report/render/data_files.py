"""For other programs: tables as CSV with numbers as they are, unrounded; all of a report as JSON."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping

from petlbench.core.errors import InputError
from petlbench.core.text import csv_cell
from petlbench.report.document import Table
from petlbench.report.formats import Document, ReportFormat, one_line


def _csv(document: Document) -> Mapping[str, str]:
    if not document.tables:
        raise InputError(
            f"the report '{document.name}' has no table of these results",
            hint="choose another format, for example --format html or png",
            kind="no_table",
        )
    return {table.key if number else "": render_table(table) for number, table in enumerate(document.tables)}


CSV = ReportFormat(name="csv", title="CSV", suffix=".csv", render=_csv)
JSON = ReportFormat(
    name="json", title="JSON", suffix=".json", render=lambda d: json.dumps(d.plain(), indent=1, allow_nan=False) + "\n"
)


def render_table(table: Table) -> str:
    """One table, with the columns of its `records`."""
    headings, rows = table.records()
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(map(_text, headings))
    writer.writerows([_text(value) for value in row] for row in rows)
    return stream.getvalue()


def _text(value: object) -> object:
    return csv_cell(one_line(value)) if isinstance(value, str) else value

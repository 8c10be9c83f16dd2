"""A report in Markdown, as GitHub and Pandoc read it."""

from __future__ import annotations

import re
from collections.abc import Iterable

from petlbench.report.document import Cell, Row, Table
from petlbench.report.formats import Document, ReportFormat, one_line

_SPECIAL = re.compile(r"([\\`*_\[\]|~#$])")


def render(document: Document) -> str:
    """Write a whole report."""
    parts = [f"# {escape(document.title)}", *map(escape, document.paragraphs)]
    parts += [part for table in document.tables for part in (f"## {escape(table.title)}", render_table(table))]
    if document.notes:
        parts += ["## Notes", _list(document.notes)]
    if document.source:
        parts.append(f"Source: {escape(document.source)}")
    return "\n\n".join(parts) + "\n"


MARKDOWN = ReportFormat(name="md", title="Markdown", suffix=".md", render=render)


def render_table(table: Table) -> str:
    """Write a table with its caption and notes; a group of columns stands in each heading."""
    titles = (f"{each.group}: {each.heading}" if each.group else each.heading for each in table.columns)
    headings = [escape(table.row_title), *map(escape, titles)]
    rules = [":--", *("--:" if column.numeric else ":--" for column in table.columns)]
    lines = [_line(headings), _line(rules), *(_line(_cells(table, row)) for row in table.rows)]
    parts = ["\n".join(lines)]
    if table.caption:
        parts.append(escape(table.caption))
    if table.notes:
        parts.append(_list(table.notes))
    if table.commands:
        parts += ["What fills the empty cells:", "\n".join(["```sh", *map(one_line, table.commands), "```"])]
    return "\n\n".join(parts)


def escape(text: str) -> str:
    """Take every character for itself."""
    return _SPECIAL.sub(r"\\\1", one_line(text)).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _cells(table: Table, row: Row) -> Iterable[str]:
    title = escape(row.title)
    yield f"*{title}*" if row.kind == "baseline" else title
    for column in table.columns:
        yield _marked(table.cell(row, column))


def _marked(cell: Cell) -> str:
    text = escape(cell.text)
    text += " †" if cell.flags and text else ""
    return {"best": f"**{text}**", "second": f"<u>{text}</u>"}.get(cell.mark, text)


def _line(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _list(texts: Iterable[str]) -> str:
    return "\n".join(f"- {escape(text)}" for text in texts)

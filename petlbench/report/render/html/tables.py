"""The tables of a report as HTML that can be read without any script."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator, Sequence
from itertools import groupby

from petlbench.report.document import Cell, Column, Row, Table

__all__ = ["table_parts"]


def table_parts(table: Table) -> Iterator[str]:
    """Write a table with what stands above and below it."""
    reasons = _Reasons()
    title = html.escape(table.title)
    yield f'<section class="table" id="{html.escape(f"table-{table.key}")}"><h2>{title}</h2>'
    yield f'<p class="caption">{html.escape(table.caption)}</p>'
    yield f'<div class="scroll" tabindex="0" role="region" aria-label="{title}"><table class="sortable">'
    yield f"<thead>{_groups(table.columns)}<tr>"
    yield f'<th scope="col">{html.escape(table.row_title)}</th>'
    yield from (_heading(column) for column in table.columns)
    yield "</tr></thead>"
    for kind in ("method", "baseline"):
        rows = [row for row in table.rows if row.kind == kind]
        if rows:
            yield f'<tbody class="{kind}">'
            yield from (_row(table, row, reasons) for row in rows)
            yield "</tbody>"
    yield "</table></div>"
    yield from reasons.parts()
    yield from (f'<p class="note">{html.escape(note)}</p>' for note in table.notes)
    if table.commands:
        lines = "\n".join(map(html.escape, table.commands))
        yield f'<p class="note">What fills the empty cells:</p><pre class="note"><code>{lines}</code></pre>'
    yield "</section>"


class _Reasons:
    """Why cells are empty: each reason once, by number."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}

    def number(self, reason: str) -> int:
        return self._numbers.setdefault(reason, len(self._numbers) + 1)

    def parts(self) -> Iterator[str]:
        if self._numbers:
            items = "".join(f"<li>{html.escape(reason)}</li>" for reason in self._numbers)
            yield f'<p class="note">Empty cells:</p><ol class="note reasons">{items}</ol>'


def _groups(columns: Sequence[Column]) -> str:
    """The row of headings that span columns, where there are any."""
    if not any(column.group for column in columns):
        return ""
    spans = []
    for group, members in groupby(columns, key=lambda column: column.group):
        name = ' class="group"' if group else ""
        spans.append(f'<th colspan="{len(list(members))}"{name} scope="colgroup">{html.escape(group)}</th>')
    return f'<tr class="groups"><td></td>{"".join(spans)}</tr>'


def _heading(column: Column) -> str:
    kind = ' class="number"' if column.numeric else ""
    better = f' data-better="{column.better}"' if column.better else ""
    return f'<th scope="col"{kind}{better}>{html.escape(column.heading)}</th>'


def _row(table: Table, row: Row, reasons: _Reasons) -> str:
    cells = "".join(_cell(table.cell(row, column), column, reasons) for column in table.columns)
    return f'<tr><th scope="row">{html.escape(row.title)}</th>{cells}</tr>'


def _cell(cell: Cell, column: Column, reasons: _Reasons) -> str:
    kind = " ".join(filter(None, ["number" if column.numeric else "", cell.mark]))
    name = f' class="{kind}"' if kind else ""
    value = "" if cell.value is None else f' data-value="{cell.value!r}"'
    return f"<td{name}{value}>{_content(cell, reasons)}</td>"


def _content(cell: Cell, reasons: _Reasons) -> str:
    if cell.reason and not cell.text:
        return f'<abbr title="{html.escape(cell.reason)}">–</abbr><sup>{reasons.number(cell.reason)}</sup>'
    text = html.escape(cell.text) or "–"
    if cell.picture:
        picture = f'<img alt="" src="data:image/jpeg;base64,{html.escape(cell.picture)}">'
        text = f"{picture}<br>{text}" if cell.text else picture
    text = {"best": f"<strong>{text}</strong>", "second": f"<u>{text}</u>"}.get(cell.mark, text)
    flags = "".join(f' <span class="flag">{html.escape(flag)}</span>' for flag in cell.flags)
    if cell.low is None or cell.high is None:
        return text + flags
    places = _places(cell.text)
    ends = f"{cell.low:.{places}f} to {cell.high:.{places}f}"
    return f'{text}{flags} <small class="interval">{ends}</small>'


def _places(text: str) -> int:
    """Digits behind the point of the first number in a text: an interval is rounded as its value is."""
    match = re.search(r"\d+(?:\.(\d+))?", text)
    return len(match.group(1) or "") if match else 2

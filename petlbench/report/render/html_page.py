"""A report as one HTML page that needs no other file and no network: tables to sort, plots to explore, every run."""

from __future__ import annotations

import base64
import gzip
import html
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from importlib.resources import files
from itertools import groupby
from typing import Any

from petlbench.core.text import printable, with_minus
from petlbench.report.document import Cell, Column, Figure, Row, Table
from petlbench.report.formats import Document, ReportFormat, one_line
from petlbench.report.look import Look
from petlbench.report.render.figure_files import drawn
from petlbench.report.render.html.runs import (
    confusion_figures,
    curve_figures,
    describe_runs,
    group_runs,
    in_order,
    run_figures,
)

# Nothing is fetched, whatever a page's data or code would like.
_POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:; "
    "base-uri 'none'; form-action 'none'"
)
_SCRIPTS = ("dom.js", "packing.js", "table.js", "plot.js", "panel.js", "runs.js", "facets.js", "main.js")
_DRAWING_WIDTH = 178.0  # millimetres
_COMMA = '<sup class="flag">,</sup>'
_FEW_WORDS = 20  # characters that a cell of text keeps on one line
_CHUNK = 100  # runs whose details are unpacked together


def render(document: Document) -> str:
    """A report as one page; the same report makes the same page.

    Its tables can be read without any script. The plots need plotly's code, 4.8 MB, which stands in the page compressed
    to 2 MB and is unpacked when the page is opened; so are the details of runs, when one is asked for.
    """
    return "".join(f"{part}\n" for part in _parts(document))


HTML = ReportFormat(name="html", title="HTML", suffix=".html", render=render, is_text=False)


def _parts(document: Document) -> Iterator[str]:
    document = replace(document, runs=in_order(document.runs, document.look))
    title = _escape(document.title)
    yield "<!doctype html>"
    yield '<html lang="en"><head><meta charset="utf-8">'
    yield f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
    yield '<meta name="viewport" content="width=device-width, initial-scale=1">'
    yield '<meta name="generator" content="petlbench"><meta name="referrer" content="no-referrer">'
    yield f"<title>{title}</title><style>{_asset('page.css')}</style></head><body>"
    yield '<a class="skip" href="#content">to the content</a>'
    yield f'<header><h1>{title}</h1><div id="page-tools"></div></header><main id="content">'
    if document.verdict:
        yield f'<p class="verdict">{_escape(with_minus(document.verdict))}</p>'
    yield from (f"<p>{_escape(paragraph)}</p>" for paragraph in document.paragraphs)
    yield from _figures(document, first=True)
    for table in document.tables:
        yield from _table(table)
    yield from _figures(document, first=False)
    yield from _notes(document)
    yield from _settings(document)
    yield from _places(document)
    yield "<noscript><p>Plots, sorting, filters and the details of runs need JavaScript.</p></noscript></main>"
    yield f'<script type="application/json" id="data">{as_json(rounded(_data(document)))}</script>'
    yield f'<script type="application/json" id="details">{as_json(_details(document.runs))}</script>'
    yield f'<script type="text/plain" id="plotly">{pack(_plotly())}</script>'
    code = "\n".join(_asset(name) for name in _SCRIPTS)
    yield f'<script>(() => {{\n"use strict";\n{code}\n}})();</script></body></html>'


def _settings(document: Document) -> Iterator[str]:
    settings = {"source": document.source, **document.settings}
    items = "".join(
        f"<div><dt>{_escape(str(key))}</dt><dd>{_escape(_text(value))}</dd></div>"
        for key, value in settings.items()
        if value not in (None, "", (), [], {})
    )
    if items:
        summary = "<summary>Settings and source</summary>"
        yield f'<details class="settings">{summary}<dl class="about">{items}</dl></details>'


def _notes(document: Document) -> Iterator[str]:
    if document.notes:
        yield '<ul class="notes">' + "".join(f"<li>{_escape(note)}</li>" for note in document.notes) + "</ul>"


def _escape(text: str) -> str:
    return html.escape(one_line(text))


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, Sequence) and all(isinstance(item, str) for item in value):
        return ", ".join(value)
    return json.dumps(value, ensure_ascii=False, default=str)


def _table(table: Table) -> Iterator[str]:
    """Write a table, which can be read without any script, with what stands above and below it."""
    reasons: dict[str, int] = {}  # why cells are empty, and what there is to know of others: each once, by number
    title = _escape(table.title)
    facets = f' data-facets="{html.escape(json.dumps(dict(table.facets)))}"' if table.facets else ""
    yield f'<section class="table" id="{_escape(f"table-{table.key}")}"{facets}><h2>{title}</h2>'
    yield f'<p class="caption">{_escape(table.caption)}</p>'
    yield f'<div class="scroll" tabindex="0" role="region" aria-label="{title}"><table class="sortable">'
    yield f"<thead>{_groups(table.columns)}<tr>"
    yield f'<th scope="col">{_escape(table.row_title)}</th>'
    yield from (_heading(column) for column in table.columns)
    yield "</tr></thead>"
    for kind in ("method", "baseline"):
        rows = [row for row in table.rows if row.kind == kind]
        if rows:
            yield f'<tbody class="{kind}">'
            yield from (_row(table, row, reasons) for row in rows)
            yield "</tbody>"
    yield "</table></div>"
    if reasons:
        items = "".join(f"<li>{_escape(reason)}</li>" for reason in reasons)
        yield f'<ol class="note reasons" aria-label="notes on cells">{items}</ol>'
    yield from (f'<p class="note">{_escape(note)}</p>' for note in table.notes)
    if table.commands:
        lines = "\n".join(map(_escape, table.commands))
        yield f'<p class="note">What fills the empty cells:</p><pre class="note"><code>{lines}</code></pre>'
    yield "</section>"


def _groups(columns: Sequence[Column]) -> str:
    """The row of headings that span columns, where there are any."""
    if not any(column.group for column in columns):
        return ""
    spans = []
    for group, members in groupby(columns, key=lambda column: column.group):
        name = ' class="group"' if group else ""
        spans.append(f'<th colspan="{len(list(members))}"{name} scope="colgroup">{_escape(group)}</th>')
    return f'<tr class="groups"><td></td>{"".join(spans)}</tr>'


def _heading(column: Column) -> str:
    kind = ' class="number"' if column.numeric else ""
    better = f' data-better="{column.better}"' if column.better else ""
    return f'<th scope="col"{kind}{better}>{_escape(column.heading)}</th>'


def _row(table: Table, row: Row, reasons: dict[str, int]) -> str:
    cells = "".join(_cell(table.cell(row, column), column, reasons) for column in table.columns)
    return f'<tr><th scope="row">{_escape(row.title)}</th>{cells}</tr>'


def _cell(cell: Cell, column: Column, reasons: dict[str, int]) -> str:
    form = "number" if column.numeric else "words" if len(cell.text) > _FEW_WORDS else ""
    kind = " ".join(filter(None, [form, cell.mark]))
    name = f' class="{kind}"' if kind else ""
    value = "" if cell.value is None else f' data-value="{cell.value!r}"'
    return f"<td{name}{value}>{_content(cell, reasons)}</td>"


def _content(cell: Cell, reasons: dict[str, int]) -> str:
    if cell.reason and not cell.text:
        return f'<abbr title="{_escape(cell.reason)}">–</abbr>{_mark(f"Empty: {cell.reason}", reasons)}'
    text = _escape(with_minus(cell.text)) or "–"
    if cell.picture:
        picture = f'<img alt="" src="data:image/jpeg;base64,{_escape(cell.picture)}">'
        text = f"{picture}<br>{text}" if cell.text else picture
    text = {"best": f"<strong>{text}</strong>", "second": f"<u>{text}</u>"}.get(cell.mark, text)
    flags = _COMMA.join(_mark(flag, reasons) for flag in cell.flags)
    if cell.value is None or cell.low is None or cell.high is None:
        return text + flags
    figure = re.search(r"\d+(?:\.(\d+))?", cell.text)  # an interval is rounded as its value is
    places = len(figure.group(1) or "") if figure else 2
    ends = with_minus(f"{cell.low:.{places}f} to {cell.high:.{places}f}")
    return f'{text}{flags} <small class="interval">{ends}</small>'


def _mark(text: str, notes: dict[str, int]) -> str:
    """A raised number that leads to a note below the table, which takes no room in the cell."""
    number = notes.setdefault(text, len(notes) + 1)
    return f'<sup class="flag" title="{_escape(text)}">{number}</sup>'


def _figures(document: Document, *, first: bool) -> Iterator[str]:
    """Where the code puts the first figure, or the others; those that it cannot make are drawn here."""
    figures = list(enumerate(document.figures))
    for number, figure in figures[:1] if first else figures[1:]:
        heading = f"<h2>{_escape(figure.title)}</h2>"
        drawing = _drawing(figure, document.look) if figure.kind == "ranks" else ""
        yield f'<section class="figure" id="figure-{number}">{heading}{drawing}</section>'


def _places(document: Document) -> Iterator[str]:
    """Where the code puts what it makes of runs and further figures."""
    places = {
        "details-figures": "ROC and precision-recall curves",
        "curves": "Training",
        "confusion": "Confusion matrices",
    }
    for key, title in {"explore": "Explore the runs", **places}.items():
        yield f'<section id="{key}" hidden><h2>{title}</h2></section>'
    yield f'<section id="runs" {"" if document.runs else "hidden"}><h2>Runs</h2></section>'


def _drawing(figure: Figure, look: Look) -> str:
    svg = drawn(figure, ".svg", replace(look, width=_DRAWING_WIDTH)).decode()
    # Without its white ground, which would be a box on a dark page, and without names that other figures have too.
    image = re.sub(r'<g id="patch_1">.*?</g>', "", svg[svg.index("<svg") :], count=1, flags=re.DOTALL)
    image = re.sub(r' id="[a-z0-9]+_\d+"', "", image)
    return f'<figure class="drawn">{image}<figcaption>{_escape(figure.caption)}</figcaption></figure>'


def _data(document: Document) -> Mapping[str, Any]:
    look = document.look
    groups = group_runs(document.runs, look)
    kinds = {figure.kind for figure in document.figures}
    has_curves = any(figure.x == "epoch" for figure in document.figures)
    return {
        "figures": [_plain(figure, look) for figure in document.figures],
        "details": [_plain(figure, look) for figure in document.details()],
        "explore": [_plain(figure, look) for figure in run_figures(groups, look)],
        "curves": [] if has_curves else [_plain(figure, look) for figure in curve_figures(groups)],
        "confusion": [] if "matrix" in kinds else [_plain(figure, look) for figure in confusion_figures(groups)],
        "runs": describe_runs(document.runs, look),
    }


def _plain(figure: Figure, look: Look) -> dict[str, Any]:
    figure = look.dress(figure)
    axes = [{**asdict(axis), "heading": axis.heading} for axis in figure.axes]
    return {**asdict(figure), "axes": axes}


def _details(runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """All that is stored of each run, compressed some at a time; curves by column, which is shorter."""
    details = [rounded(run) for run in runs]
    for run in details:
        curve = run.get("curve") or []
        names = dict.fromkeys(name for entry in curve for name in entry)
        run["curve"] = {name: [entry.get(name) for entry in curve] for name in names}
    starts = range(0, len(runs), _CHUNK)
    chunks = [pack(json.dumps(details[start : start + _CHUNK], separators=(",", ":"))) for start in starts]
    return {"size": _CHUNK, "chunks": chunks}


def _plotly() -> str:
    from plotly.offline import get_plotlyjs

    return str(get_plotlyjs())


def _asset(name: str) -> str:
    return files("petlbench.report.render.html").joinpath(name).read_text(encoding="utf-8")


_DIGITS = 6
# What would end the script element, start a comment in it, or end a line of JavaScript that older readers take it for.
_ESCAPES = {ord(character): f"\\u{ord(character):04x}" for character in "<>&\u2028\u2029"}


def as_json(value: Any) -> str:
    """JSON that can stand in a script element, whatever its texts are."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False).translate(_ESCAPES)


def pack(text: str) -> str:
    """Compress a text to base64 of gzip, which browsers unpack themselves; the same text gives the same characters."""
    return base64.b64encode(gzip.compress(text.encode(), mtime=0)).decode("ascii")


def rounded(value: Any) -> Any:
    """Plain values with six significant digits, which is more than a page shows; no NaN and no infinity."""
    if isinstance(value, float):
        return float(f"{value:.{_DIGITS}g}") if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): rounded(item) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [rounded(item) for item in value]
    if value is None or isinstance(value, int):
        return value
    return "\n".join(map(printable, str(value).split("\n")))

"""A report in LaTeX with booktabs: a fragment for a paper, or a whole document that compiles as it is."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from itertools import groupby
from textwrap import TextWrapper, wrap

from petlbench.report.document import Cell, Column, Figure, Row, Table
from petlbench.report.formats import Document, ReportFormat, one_line
from petlbench.report.look import WIDTH
from petlbench.report.render.figure_files import drawn

PREAMBLE = (
    r"\usepackage[utf8]{inputenc}",
    r"\usepackage[T1]{fontenc}",
    r"\IfFileExists{lmodern.sty}{\usepackage{lmodern}}{}",
    r"\usepackage{textcomp}",
    r"\usepackage{booktabs}",
    r"\usepackage{graphicx}",
)
"""What a document needs that takes in a fragment."""

_COMMANDS = (
    r"\textbackslash \textasciitilde \textasciicircum \textless \textgreater \textbar \textquotedbl \textasciigrave "
    r"\textendash \textemdash \textdagger \ldots"
)
_SYMBOLS = r"\pm \times \cdot \geq \leq \approx \rightarrow \mu \kappa - ^2 ^3"
_ESCAPED = {
    **{char: rf"\{char}" for char in "{}$&%#_"},
    **{char: f"{command}{{}}" for char, command in zip('\\~^<>|"`–—†…', _COMMANDS.split(), strict=True)},
    **{char: f"${symbol}$" for char, symbol in zip("±×·≥≤≈→µκ−²³", _SYMBOLS.split(), strict=True)},
    **dict(zip("“”’‘", ("``", "''", "'", "`"), strict=True)),
}
# Two hyphens would become a dash.
_DASHES = re.compile(r"-(?=-)")
# Characters of a line of a heading; figures with their deviation are about as wide.
_WIDEST = 14
_MINUS = re.compile(r"(?<![\w-])-(?=\d)")
# Of a character of eight points, and of the gap on each side of a column, in millimetres.
_CHARACTER, _GAP, _TABCOLSEP = 1.4, 1.05, 3
# What fits on a page beside a caption.
_MOST_ROWS = 40
# Characters of a line of running text in the file.
_TEXT_WIDTH = 110
# Beyond so many columns headings stand upright, and deviations below their figures.
_MOST_COLUMNS = 16
_DEVIATION = " ± "
_FLAG = "†"
# What T1 has glyphs for: Latin-1, and some letters beyond.
_LAST_GLYPH = 0xFF
_FURTHER_GLYPHS = frozenset("ŁłŒœıŠšŽžŸ")


def render(document: Document) -> str:
    r"""Write the tables as a fragment that a paper takes in with ``\input``; what its preamble needs stands on top."""
    needs = [f"%   {line}" for line in PREAMBLE]
    if document.figures:
        needs.append("% and the figures that petlbench report writes beside it when --output names a folder or a file")
    return "\n".join([*_head(document, "this file needs:"), *needs, *_body(document)]) + "\n"


def render_document(document: Document) -> str:
    """Write a whole document."""
    top = [r"\documentclass[10pt,a4paper]{article}", r"\usepackage[margin=2cm]{geometry}", *PREAMBLE]
    notes = [_notes([escape(note) for note in document.notes])] if document.notes else []
    title = [r"\begin{document}", rf"\section*{{{escape(document.title)}}}"]
    return "\n".join([*_head(document), *top, *title, *_body(document), *notes, r"\end{document}"]) + "\n"


def figure_files(document: Document) -> dict[str, bytes]:
    """The figures that the text takes in, as PDF by the names of their files."""
    names = _figure_names(document)
    return {f"{name}.pdf": drawn(each, ".pdf", document.look) for name, each in names.items()}


LATEX = ReportFormat(name="latex", title="LaTeX", suffix=".tex", render=render, beside=figure_files)
# Not NAME.tex: compiling that would write over a figure in NAME.pdf.
LATEX_DOCUMENT = ReportFormat(
    name="latex_document",
    title="LaTeX, a whole document",
    suffix="-document.tex",
    render=render_document,
    beside=figure_files,
)


def render_table(table: Table, label: str, width: float = WIDTH) -> str:
    """Write one table; a long one goes on in others.

    One that is wider than ``width`` in millimetres goes on below, with the titles of its rows again: type that is made
    smaller is below what publishers take. One of very many columns is made smaller all the same, as suites are.
    """
    pages = [table.rows[first : first + _MOST_ROWS] for first in range(0, len(table.rows), _MOST_ROWS)] or [[]]
    title = escape(table.title)
    captions = [[rf"\caption{{{title}. {escape(table.caption)}}}", rf"\label{{{label}}}"]]
    captions += [[r"\addtocounter{table}{-1}", rf"\caption{{{title}, continued.}}"] for _ in pages[1:]]
    notes = [*map(escape, table.notes), *(rf"\texttt{{{escape(command)}}}" for command in table.commands)]
    below: list[list[str]] = [*([] for _ in pages[1:]), [_notes(notes)] if notes else []]
    floats = zip(pages, captions, below, strict=True)
    is_wide = len(table.columns) > _MOST_COLUMNS
    lines = []
    for rows, top, bottom in floats:
        part = replace(table, rows=rows)
        body = _shrunk(part) if is_wide else _side_by_side(part, width)
        lines += [r"\begin{table}[htbp]", r"\centering", r"\setlength{\belowcaptionskip}{4pt}", *top]
        lines += [*body, *bottom, r"\end{table}"]
    return "\n".join(lines)


def _shrunk(table: Table) -> list[str]:
    layout = "l" + "".join("c" if column.numeric else "l" for column in table.columns)
    return [
        r"\setlength{\tabcolsep}{2.5pt}",
        r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%",
        *_tabular(layout, _upright_headings(table), _rows(table, _two_lines)),
        "}",
    ]


def _side_by_side(table: Table, width: float) -> list[str]:
    """The table in type of eight points; in several, one below the other, where it is too wide for one."""
    lines = [rf"\footnotesize\setlength{{\tabcolsep}}{{{_TABCOLSEP}pt}}"]
    for number, columns in enumerate(_fitting(table, width)):
        part = replace(table, columns=columns)
        layout = "l" + "".join("r" if column.numeric else "l" for column in columns)
        lines += [r"\par\smallskip"] if number else []
        lines += _tabular(f"@{{}}{layout}@{{}}", _headings(part), _rows(part, _one_line))
    return lines


def _tabular(layout: str, headings: Sequence[str], rows: Sequence[str]) -> list[str]:
    rule = [rf"\begin{{tabular}}{{{layout}}}", r"\toprule", *headings, r"\midrule"]
    return [*rule, *rows, r"\bottomrule", r"\end{tabular}"]


def _fitting(table: Table, width: float) -> list[list[Column]]:
    """The columns in as many parts as it takes for each to fit."""
    titles = _width_of([*wrap(table.row_title, _WIDEST), *(row.title for row in table.rows)])
    parts: list[list[Column]] = [[]]
    used = titles
    for column in table.columns:
        unit = column.shown_unit or column.unit
        heading = [*wrap(column.title, _WIDEST), *([f"({unit})"] if unit else [])]
        texts = (table.cell(row, column) for row in table.rows)
        own = _width_of([*heading, *(cell.text + (_FLAG if cell.flags else "") for cell in texts)])
        if parts[-1] and used + own > width:
            parts.append([])
            used = titles
        parts[-1].append(column)
        used += own
    return parts


def _width_of(texts: Iterable[str]) -> float:
    """Of a column with these lines, its gaps included, in millimetres."""
    return _CHARACTER * max(map(len, texts), default=0) + 2 * _GAP


def _figure_names(document: Document) -> dict[str, Figure]:
    """The figures by names that LaTeX and every file system take."""
    stem = document.look.files or document.name
    bare = [re.sub(r"[^A-Za-z0-9-]+", "-", f"{stem}-{figure.key}") for figure in document.figures]
    names = [name if bare.count(name) == 1 else f"{name}-{n}" for n, name in enumerate(bare, 1)]
    return dict(zip(names, document.figures, strict=True))


def _figure(name: str, figure: Figure, width: float) -> str:
    caption = f"{escape(figure.title)}. {escape(figure.caption)}".strip()
    lines = [r"\begin{figure}[htbp]", r"\centering", rf"\includegraphics[width={width:g}mm]{{{name}}}"]
    return "\n".join([*lines, rf"\caption{{{caption}}}", rf"\label{{fig:{name}}}", r"\end{figure}"])


def escape(text: str) -> str:
    """Take every character for itself; one that pdfLaTeX has no glyph for becomes its nearest, or a question mark."""
    return _DASHES.sub("-{}", "".join(_escaped(char) for char in one_line(text) if char.isprintable()))


def _escaped(char: str) -> str:
    if char in _ESCAPED:
        return _ESCAPED[char]
    if ord(char) <= _LAST_GLYPH or char in _FURTHER_GLYPHS:
        return char
    nearest = unicodedata.normalize("NFKD", char).encode("ascii", "ignore").decode()
    return "".join(_ESCAPED.get(letter, letter) for letter in nearest) or "?"


def _head(document: Document, more: str = "") -> list[str]:
    line = f"% {one_line(document.title)}, by petlbench report {one_line(document.name)}"
    return [line, f"% {more}"] if more else [line]


def _body(document: Document) -> list[str]:
    names = [re.sub(r"[^A-Za-z0-9-]+", "-", f"{document.name}-{table.key}") for table in document.tables]
    # Keys of other scripts may leave nothing that tells them apart.
    labels = [f"tab:{name}" if names.count(name) == 1 else f"tab:{name}-{n}" for n, name in enumerate(names, 1)]
    # A line's end behind a hyphen would become a space.
    filler = TextWrapper(_TEXT_WIDTH, break_on_hyphens=False, break_long_words=False)
    paragraphs = (filler.fill(escape(paragraph)) for paragraph in document.paragraphs)
    width = document.look.width
    tables = (render_table(table, label, width) for table, label in zip(document.tables, labels, strict=True))
    figures = (_figure(name, figure, width) for name, figure in _figure_names(document).items())
    return [f"\n{part}" for part in (*paragraphs, *tables, *figures)]


def _rows(table: Table, lines_of: Callable[[Table, Row], Iterable[str]]) -> list[str]:
    lines: list[str] = []
    for kind, rows in groupby(table.rows, key=lambda row: row.kind):
        if lines and kind == "baseline":
            lines.append(r"\midrule")
        lines += [line for row in rows for line in lines_of(table, row)]
    return lines


def _one_line(table: Table, row: Row) -> Iterable[str]:
    yield _line([_row_title(row), *(_marked(table.cell(row, column)) for column in table.columns)])


def _two_lines(table: Table, row: Row) -> Iterable[str]:
    """The figures of a row, and below them in small print their deviations, where it has any."""
    parts = [table.cell(row, column).text.partition(_DEVIATION) for column in table.columns]
    cells = [replace(table.cell(row, each), text=text) for each, (text, _, _) in zip(table.columns, parts, strict=True)]
    yield _line([_row_title(row), *map(_marked, cells)])
    if any(deviation for _, _, deviation in parts):
        small = [rf"\scriptsize{{}}{escape(f'±{deviation}')}" if deviation else "" for _, _, deviation in parts]
        yield r"\noalign{\vskip-1.5pt}" + _line(["", *small])


def _row_title(row: Row) -> str:
    title = escape(row.title)
    return rf"\emph{{{title}}}" if row.kind == "baseline" else title


def _marked(cell: Cell) -> str:
    text = escape(_MINUS.sub("−", cell.text))
    text += r"\textdagger{}" if cell.flags and text else ""
    return {"best": rf"\textbf{{{text}}}", "second": rf"\underline{{{text}}}"}.get(cell.mark, text)


def _upright_headings(table: Table) -> list[str]:
    """Groups on a line of their own; below them titles with their units, read from the bottom up."""
    columns = table.columns
    lines = [_group_line(columns)] if any(column.group for column in columns) else []
    titles = [
        escape(f"{each.title} ({unit})" if (unit := each.shown_unit or each.unit) else each.title) for each in columns
    ]
    turned = [rf"\rotatebox{{90}}{{{t}}}" if each.numeric else t for each, t in zip(columns, titles, strict=True)]
    return [*lines, _line([escape(table.row_title), *turned])]


def _headings(table: Table) -> list[str]:
    """Groups on a line of their own; below them titles with their units, cut into short lines that end together."""
    columns = table.columns
    lines = [_group_line(columns)] if any(column.group for column in columns) else []
    units = ([f"({unit})"] if (unit := each.shown_unit or each.unit) else [] for each in columns)
    stacks = [[*wrap(column.title, _WIDEST), *unit] for column, unit in zip(columns, units, strict=True)]
    stacks.insert(0, wrap(table.row_title, _WIDEST))
    height = max(map(len, stacks))
    padded = [[*[""] * (height - len(stack)), *stack] for stack in stacks]
    return [*lines, *(_line(map(escape, parts)) for parts in zip(*padded, strict=True))]


def _group_line(columns: Sequence[Column]) -> str:
    """Headings above several columns, each with a rule below it."""
    spans, rules, at = [""], [], 2
    for title, members in groupby(columns, key=lambda column: column.group):
        width = len(list(members))
        spans.append(rf"\multicolumn{{{width}}}{{c}}{{{escape(title)}}}")
        if title:
            rules.append(rf"\cmidrule(lr){{{at}-{at + width - 1}}}")
        at += width
    return _line(spans) + " " + " ".join(rules)


def _line(cells: Iterable[str]) -> str:
    return " & ".join(cells) + r" \\"


def _notes(notes: Sequence[str]) -> str:
    return r"\par\smallskip\raggedright\footnotesize " + r" \\ ".join(notes) + r"\par"

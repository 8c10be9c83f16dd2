"""A report in LaTeX with booktabs: a fragment for a paper, or a whole document that compiles as it is."""

from __future__ import annotations

import re
from collections.abc import Sequence
from textwrap import TextWrapper

from petlbench.report.document import Figure, Table
from petlbench.report.formats import Document, ReportFormat, one_line
from petlbench.report.look import WIDTH
from petlbench.report.render.figure_files import drawn
from petlbench.report.render.latex_panels import Panel, panels
from petlbench.report.render.latex_text import escape

PREAMBLE = (
    r"\usepackage[utf8]{inputenc}",
    r"\usepackage[T1]{fontenc}",
    r"\IfFileExists{lmodern.sty}{\usepackage{lmodern}}{}",
    r"\usepackage{textcomp}",
    r"\usepackage{booktabs}",
    r"\usepackage{graphicx}",
)
"""What a document needs that takes in a fragment."""

# What fits on a page beside a caption.
_MOST_ROWS = 40
# What LNCS' page of 193 mm leaves beside a caption of four lines and a line of notes, in millimetres.
_PAGE = 165.0
_STACKED = "Columns go on below."
# Characters of a line of running text in the file.
_TEXT_WIDTH = 110


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

    Type that is made smaller is below what publishers take. A table that is wider than ``width`` in millimetres goes on
    below, with the titles of its rows again.
    """
    pages = [table.rows[first : first + _MOST_ROWS] for first in range(0, len(table.rows), _MOST_ROWS)] or [[]]
    floats = [each for rows in pages for each in _floats(panels(table, rows, width))]
    title, caption = escape(table.title), escape(table.caption)
    if any(len(each) > 1 for each in floats):
        caption = f"{caption} {_STACKED}".strip()
    captions = [[rf"\caption{{{title}. {caption}}}", rf"\label{{{label}}}"]]
    captions += [[r"\addtocounter{table}{-1}", rf"\caption{{{title}, continued.}}"] for _ in floats[1:]]
    notes = [*map(escape, table.notes), *(rf"\texttt{{{escape(command)}}}" for command in table.commands)]
    below: list[list[str]] = [*([] for _ in floats[1:]), [_notes(notes)] if notes else []]
    lines = []
    for parts, top, bottom in zip(floats, captions, below, strict=True):
        first, *others = (each.lines for each in parts)
        lines += [r"\begin{table}[htbp]", r"\centering", r"\setlength{\belowcaptionskip}{4pt}", *top, r"\footnotesize"]
        lines += [*first, *(line for each in others for line in (r"\par\bigskip", *each))]
        lines += [*bottom, r"\end{table}"]
    return "\n".join(lines)


def _floats(parts: Sequence[Panel]) -> list[list[Panel]]:
    """Panels one below the other, as many together as a page has room for."""
    floats: list[list[Panel]] = [[]]
    for panel in parts:
        if floats[-1] and sum(each.height for each in (*floats[-1], panel)) > _PAGE:
            floats.append([])
        floats[-1].append(panel)
    return floats


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


def _notes(notes: Sequence[str]) -> str:
    return r"\par\smallskip\raggedright\footnotesize " + r" \\ ".join(notes) + r"\par"

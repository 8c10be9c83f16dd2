"""Reports as files, in every format."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from petlbench.core.errors import InputError, unknown_name
from petlbench.core.files import check_writable, write_atomically
from petlbench.report.document import Document

__all__ = ["FORMATS", "as_text", "check_output", "parse_formats", "write_report"]

FORMATS: Mapping[str, str] = {
    "md": ".md",
    "csv": ".csv",
    "latex": ".tex",
    "json": ".json",
    "html": ".html",
    "png": ".png",
    "pdf": ".pdf",
    "svg": ".svg",
}
"""Every format and the ending of its files."""

_FIGURES = ("png", "pdf", "svg")


def parse_formats(text: str | None, output: Path | None) -> list[str]:
    """Read the formats that are wanted; where none is named, the output file's ending says it.

    Args:
        text: Names with commas between them, or None.
        output: Where to, or None.

    Returns:
        The formats, each once; none for a table on the terminal.

    Raises:
        InputError: When one is not known.
    """
    if text is None:
        endings = {ending: name for name, ending in FORMATS.items()}
        return [endings[output.suffix.lower()]] if output is not None and output.suffix.lower() in endings else []
    known = {**{name: name for name in FORMATS}, "markdown": "md", "tex": "latex"}
    names = [name.strip().lower() for name in text.split(",") if name.strip()]
    for name in names:
        if name not in known:
            raise unknown_name("format", name, FORMATS, hint=f"known: {', '.join(FORMATS)}")
    return list(dict.fromkeys(known[name] for name in names))


def check_output(formats: Sequence[str], output: Path | None) -> None:
    """Check before anything is computed that the formats can go where they are wanted.

    Args:
        formats: As `parse_formats` gives them.
        output: A file or a folder; None for standard output.

    Raises:
        InputError: When they cannot.
    """
    if output is None:
        files = [name for name in formats if name in (*_FIGURES, "html")]
        if files or len(formats) > 1:
            raise InputError(
                f"--format {','.join(formats)}: this goes to files, and there is no --output",
                hint="name a folder with --output, or a file with the format's ending",
                kind="usage",
            )
        return
    if output.suffix and not output.is_dir() and len(formats) > 1:
        raise InputError(
            f"--output {output} is one file, but {len(formats)} formats are wanted",
            hint="name a folder",
            kind="usage",
        )
    check_writable(output.parent if _is_file(output) else output, what="folder of reports")


def as_text(document: Document, name: str, *, standalone: bool = False) -> str:
    """A report in a format of text.

    Args:
        document: The report.
        name: ``md``, ``csv`` (the main table), ``latex`` or ``json``.
        standalone: Whether LaTeX is a whole document rather than a fragment.
    """
    from petlbench.report.render import csv_file, latex, markdown

    if name == "md":
        return markdown.render(document)
    if name == "latex":
        return latex.render_document(document) if standalone else latex.render(document)
    if name == "csv":
        return csv_file.render(document.tables[0]) if document.tables else ""
    return json.dumps(document.plain(), indent=1, allow_nan=False) + "\n"


def write_report(document: Document, formats: Sequence[str], output: Path, *, standalone: bool = False) -> list[Path]:
    """Write a report to files, each as a whole.

    One format goes to the file that is named; several, or a folder, to NAME.md, NAME.csv (and NAME-TABLE.csv for
    further tables), NAME.tex, NAME.json, NAME.html and NAME.png (NAME-FIGURE.png where there are several figures).
    A LaTeX document is called NAME-document.tex: compiling NAME.tex would write over a figure in NAME.pdf.

    Args:
        document: The report.
        formats: The formats.
        output: A file or a folder.
        standalone: Whether LaTeX is a whole document rather than a fragment.

    Returns:
        The files.

    Raises:
        InputError: When a format has nothing to show.
    """
    folder, stem = (output.parent, output.stem) if _is_file(output) else (output, document.name)
    folder.mkdir(parents=True, exist_ok=True)
    stems = {"latex": f"{stem}-document"} if standalone and not _is_file(output) else {}
    return [
        file
        for name in formats
        for file in _write(document, name, folder, stems.get(name, stem), standalone=standalone)
    ]


def _write(document: Document, name: str, folder: Path, stem: str, *, standalone: bool) -> Iterator[Path]:
    if name in _FIGURES:
        yield from _draw(document, folder, stem, FORMATS[name])
        return
    file = folder / f"{stem}{FORMATS[name]}"
    if name == "html":
        from petlbench.report.render.html.page import render

        render(document, file)
    elif name == "csv":
        yield from _write_tables(document, folder, stem)
        return
    else:
        _put(file, as_text(document, name, standalone=standalone))
    yield file


def _draw(document: Document, folder: Path, stem: str, ending: str) -> Iterator[Path]:
    from petlbench.report.render.figures import draw

    if not document.figures:
        raise InputError(
            f"the report '{document.name}' has no figure of these results",
            hint="choose another format, for example --format md",
            kind="no_figure",
        )
    for figure in document.figures:
        file = folder / (
            f"{stem}{ending}" if len(document.figures) == 1 else f"{stem}-{figure.key.replace('/', '-')}{ending}"
        )
        draw(figure, file)
        yield file


def _write_tables(document: Document, folder: Path, stem: str) -> Iterator[Path]:
    from petlbench.report.render import csv_file

    for number, table in enumerate(document.tables):
        file = folder / (f"{stem}.csv" if number == 0 else f"{stem}-{table.key}.csv")
        _put(file, csv_file.render(table))
        yield file


def _put(file: Path, text: str) -> None:
    with write_atomically(file) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _is_file(output: Path) -> bool:
    return bool(output.suffix) and not output.is_dir()

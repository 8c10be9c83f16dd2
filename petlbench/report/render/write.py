"""Reports as files, in the formats of the catalogue."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from petlbench.core.catalog import Catalog
from petlbench.core.errors import InputError, unknown_name
from petlbench.core.files import check_writable, write_atomically
from petlbench.report.document import Document
from petlbench.report.registry import ReportFormat

__all__ = ["check_output", "parse_formats", "write_report"]


def parse_formats(text: str | None, output: Path | None, catalog: Catalog) -> list[ReportFormat]:
    """Read names of formats; where none is named, the output file's ending says it.

    Args:
        text: Names with commas between them, or endings of files, such as ``md`` or ``tex``; or None.
        output: Where to, or None.
        catalog: The catalogues.

    Returns:
        The formats, each once; none for tables on the terminal.

    Raises:
        InputError: When a format is unknown, or no format has the file's ending.
    """
    entries = catalog.entries("format")
    # Shipped ones come last, and take the place of a user's with the same ending.
    by_ending = {
        str(entry.card.get("suffix", "")).removeprefix("."): entry.name
        for entry in sorted(entries.values(), key=lambda entry: entry.shipped)
    }
    if text is not None:
        by_title = {entry.title.lower(): entry.name for entry in entries.values()}
        by_key = by_ending | by_title | {name: name for name in entries}
        keys = [key for part in text.split(",") if (key := part.strip().lower())]
        for key in keys:
            if key not in by_key:
                raise unknown_name("format", key, entries, hint=f"known: {', '.join(entries)}")
        return [catalog.load("format", name, ReportFormat) for name in dict.fromkeys(by_key[key] for key in keys)]
    if output is None or not _is_file(output):
        return []
    ending = output.suffix.lower().removeprefix(".")
    if ending not in by_ending:
        raise InputError(
            f"--output {output}: no format of reports ends in '{output.suffix}'",
            hint=f"choose one with --format: {', '.join(entries)}",
            kind="bad_setting",
        )
    return [catalog.load("format", by_ending[ending], ReportFormat)]


def check_output(formats: Sequence[ReportFormat], output: Path | None) -> None:
    """Check before anything is computed that the formats can go where they are to go.

    Args:
        formats: As `parse_formats` gives them.
        output: A file or a folder; None for standard output.

    Raises:
        InputError: When they cannot.
    """
    if output is None:
        if len(formats) > 1 or not all(each.is_text for each in formats):
            raise InputError(
                f"--format {','.join(each.name for each in formats)}: this goes to files, and there is no --output",
                hint="name a folder with --output, or a file with the format's ending",
                kind="usage",
            )
        return
    if _is_file(output) and len(formats) > 1:
        raise InputError(
            f"--output {output} is one file, but {len(formats)} formats are to go there",
            hint="name a folder",
            kind="usage",
        )
    check_writable(output.parent if _is_file(output) else output, what="folder of reports")


def write_report(document: Document, formats: Sequence[ReportFormat], output: Path) -> list[Path]:
    """Write a report to files, each as a whole.

    One format goes to the file that is named; several, or a folder, to the report's name with each format's suffix,
    such as NAME.md. A format of several files names them NAME-PART, such as NAME-TABLE.csv and NAME-FIGURE.png.

    Returns:
        The files.

    Raises:
        InputError: When a format has nothing to show.
    """
    folder = output.parent if _is_file(output) else output
    folder.mkdir(parents=True, exist_ok=True)
    return [file for each in formats for file in _write(document, each, output)]


def _write(document: Document, each: ReportFormat, output: Path) -> Iterator[Path]:
    main = output.with_suffix(each.ending) if _is_file(output) else output / f"{document.name}{each.suffix}"
    for part, content in each.parts(document).items():
        file = main.with_name(f"{main.stem}-{part}{main.suffix}") if part else main
        with write_atomically(file) as temporary:
            temporary.write_bytes(content.encode() if isinstance(content, str) else content)
        yield file


def _is_file(output: Path) -> bool:
    return bool(output.suffix) and not output.is_dir()

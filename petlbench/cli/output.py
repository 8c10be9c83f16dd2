"""Tables for people and one JSON document for machines."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from petlbench.core.errors import InputError
from petlbench.core.text import shown

if TYPE_CHECKING:
    from rich.text import Text

    from petlbench.core.catalog import Catalog
    from petlbench.report.document import Table
    from petlbench.report.formats import Document, ReportFormat

# Columns of a table that goes to no terminal.
_UNBOUNDED = 160
_STYLES = {"best": "bold", "second": "underline"}


@dataclass(frozen=True)
class Target:
    """Where a report goes: files, or standard output.

    Args:
        formats: Its formats; none for tables.
        output: A file or a folder; None for standard output.
    """

    formats: Sequence[ReportFormat]
    output: Path | None

    @classmethod
    def parse(cls, formats: str | None, output: Path | None, catalog: Catalog) -> Target:
        """Read the options ``--format`` and ``--output``.

        Raises:
            InputError: When a format is unknown, or cannot go there.
        """
        from petlbench.report.formats import check_output, parse_formats

        parsed = parse_formats(formats, output, catalog)
        check_output(parsed, output)
        return cls(parsed, output)

    def write(self, document: Document) -> list[Path]:
        """Write the report to its files, in Markdown where no format is named; none for standard output."""
        if self.output is None:
            return []
        from petlbench.report.formats import write_report
        from petlbench.report.render.markdown import MARKDOWN

        return write_report(document, self.formats or [MARKDOWN], self.output)

    def text(self, document: Document) -> str | None:
        """What standard output gets instead of tables; None where that is nothing."""
        return self.formats[0].text(document) if self.formats and self.output is None else None


def say(text: str, *, err: bool = False, end: str = "\n") -> None:
    """Print lines for people: what would steer the terminal is made visible, and passwords are left out."""
    print(shown(text), file=sys.stderr if err else sys.stdout, end=end)


def print_json(document: Mapping[str, Any]) -> None:
    """Print one JSON document on standard output."""
    print(json.dumps(document, indent=1, allow_nan=False))


def print_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[str | Text]], *, caption: str = "") -> None:
    """Print a table.

    Args:
        title: Stands above it.
        columns: Headings; one that ends in ``>`` is aligned to the right.
        rows: Cells; one that is a text of rich keeps its style.
        caption: Stands below it.
    """
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    heading = Text(shown(title))
    table = Table(title=heading, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False, title_style="bold")
    for column in columns:
        right = column.endswith(">")
        table.add_column(Text(shown(column.rstrip(">"))), justify="right" if right else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(shown(str(cell)), cell.style if isinstance(cell, Text) else "") for cell in row))
    console = Console(highlight=False, width=_width())
    console.print(table)
    if caption:
        console.print(Text(shown(caption), style="dim"))


def print_document(document: Document) -> None:
    """Print a report: its tables, the names of its figures, its notes and its source."""
    for table in document.tables:
        print_report_table(table)
    if document.figures:
        say(f"figures: {', '.join(figure.title for figure in document.figures)} (--format png --output DIR)")
    for note in document.notes:
        say(f"- {note}")
    if document.source:
        say(f"source: {document.source}")


def print_report_table(table: Table) -> None:
    """Print a table of a report, with its caption, its notes and its commands."""
    from rich.text import Text

    rows = [
        [
            Text(row.title, "italic" if row.kind == "baseline" else ""),
            *(Text(cell.text + (" †" if cell.flags else ""), _STYLES.get(cell.mark, "")) for cell in cells),
        ]
        for row in table.rows
        for cells in ([table.cell(row, column) for column in table.columns],)
    ]
    caption = "\n".join([table.caption, *(f"- {note}" for note in table.notes)]).strip()
    print_table(table.title, [table.row_title, *_headings(table)], rows, caption=caption)
    if table.commands:
        # Not in the caption, which is folded: this is to be copied.
        say("\n".join(["what fills the empty cells:", *(f"  {command}" for command in table.commands)]))


def _headings(table: Table) -> list[str]:
    """Headings; the title of a group stands above the first of its columns."""
    headings, last = [], ""
    for column in table.columns:
        group = f"{column.group}:\n" if column.group != last else "\n" if column.group else ""
        headings.append(f"{group}{column.heading}{'>' if column.numeric else ''}")
        last = column.group
    return headings


def check_file(file: Path, option: str, endings: Collection[str] = ()) -> None:
    """Check that a file can be written and has one of the endings, if any, before anything is computed."""
    if endings and file.suffix.lower() not in endings:
        raise InputError(
            f"{option} {file}: figures are not written as '{file.suffix}'",
            hint=f"end it in {', '.join(endings)}",
            kind="bad_setting",
        )
    if file.is_dir() or not file.parent.is_dir() or not os.access(file.parent, os.W_OK | os.X_OK):
        raise InputError(
            f"{option} {file}: no file can be written there", hint="give a folder that exists", kind="not_writable"
        )


def _width() -> int | None:
    """The terminal's own width; in a file or a pipe, where nothing has one, room for a whole row."""
    return None if sys.stdout.isatty() or "COLUMNS" in os.environ else _UNBOUNDED


def print_facts(title: str, facts: Mapping[str, str]) -> None:
    """Print names and values, one a line."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    heading = Text(shown(title))
    table = Table(title=heading, title_justify="left", title_style="bold", box=box.SIMPLE, show_header=False)
    for name, value in facts.items():
        table.add_row(Text(shown(name)), Text(shown(value)))
    Console(highlight=False, width=_width()).print(table)


def shortened(text: str) -> str:
    """An address as a table shows it: ``arXiv 2403.07576`` for arXiv's, without the scheme for others."""
    return text.replace("https://arxiv.org/abs/", "arXiv ").removeprefix("https://")

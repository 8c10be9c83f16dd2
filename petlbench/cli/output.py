"""Tables for people and one JSON document for machines."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from petlbench.core.errors import InputError
from petlbench.core.text import first_few, shown

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

    from petlbench.cli.table_layout import Layout
    from petlbench.core.catalog import Catalog
    from petlbench.report.document import Column, Table
    from petlbench.report.formats import Document, ReportFormat

# Columns of a table that goes to no terminal.
_UNBOUNDED = 160
# Where a report's table has more, it goes on below, rather than that the last ones are hidden.
_MOST_COLUMNS = 12
# Figures that are named below a report.
_MOST_FIGURES = 4
# Rows that nobody reads on a screen: they are drawn without styles, and as wide as they are.
_MANY = 1000
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

    def deliver(self, document: Document, *, json: bool, in_parts: bool = False) -> None:
        """Write the report to its files and say which, as JSON with all of it; or print it where there are none."""
        files = self.write(document)
        text = self.text(document)
        if json:
            print_json({**document.plain(), "files": [str(file) for file in files]})
        elif files:
            say("\n".join(str(file) for file in files))
        elif text is not None:
            say(text, end="")
        else:
            print_document(document, in_parts=in_parts)


def say(text: str, *, err: bool = False, end: str = "\n") -> None:
    """Print lines for people: what would steer the terminal is made visible, and passwords are left out."""
    print(shown(text), file=sys.stderr if err else sys.stdout, end=end)


def print_json(document: Mapping[str, Any]) -> None:
    """Print one JSON document on standard output."""
    print(json.dumps(document, indent=1, allow_nan=False))


def print_table(
    title: str,
    columns: Sequence[str],
    rows: Iterable[Sequence[str | Text]],
    *,
    caption: str = "",
    ranks: Sequence[int] = (),
    whole: str = "--json",
    groups: Sequence[str] = (),
) -> None:
    """Print a table; where a terminal has no room for all of its columns, some are left out and named below.

    Args:
        title: Stands above it.
        columns: Headings; one that ends in ``>`` is aligned to the right.
        rows: Cells; one that is a text of rich keeps its style.
        caption: Stands below it.
        ranks: What leaves first: the column with the greatest number, of equal ones the last; all equal without it.
        whole: The options that show every column.
        groups: What stands above several columns side by side, one text a column.
    """
    from rich.console import Console
    from rich.text import Text

    from petlbench.cli.table_layout import Layout, plain_lines

    rows, groups = list(rows), [*groups] or [""] * len(columns)
    if len(rows) > _MANY:
        lines = plain_lines(columns, rows, groups)
        print("\n".join([shown(title), *lines, *([shown(caption)] if caption else [])]))
        return
    cells = [[Text(shown(str(cell)), cell.style if isinstance(cell, Text) else "") for cell in row] for row in rows]
    layout = Layout(columns, cells, groups)
    console = Console(highlight=False, width=_width())
    kept = list(range(len(columns)))
    if _width() is not None:
        console = Console(highlight=False, width=max(console.width, layout.width))  # a file is as wide as it must be
    elif layout.width > console.width:
        kept = layout.fitting(console.width, ranks)
    _print_layout(console, title, layout.only(kept))
    if len(kept) < len(columns):
        names = [_hidden(columns, index, groups) for index in range(len(columns)) if index not in kept]
        count = "1 column" if len(names) == 1 else f"{len(names)} columns"
        caption = f"{caption}\n{count} hidden: {whole} ({'; '.join(names)})".strip()
    if caption:
        console.print(Text(shown(caption), style="dim"))


def _hidden(columns: Sequence[str], index: int, groups: Sequence[str]) -> str:
    """What a column is called that is not there; with what would stand above it, where another has its heading, too."""
    name = columns[index].rstrip(">")
    return f"{name} {groups[index]}".rstrip() if columns.count(columns[index]) > 1 else name


def _print_layout(console: Console, title: str, layout: Layout) -> None:
    """Print a table below its title; what stands above several columns is put in front of their headings."""
    from rich.text import Text

    table, above = layout.rendered(console.width)
    console.print(Text(shown(title), style="bold"))
    if not above:
        console.print(table)
        return
    with console.capture() as capture:
        console.print(table)
    first, rest = capture.get().split("\n", 1)
    print(f"{first}\n{above}\n{rest}", end="")


def print_document(document: Document, *, in_parts: bool = False) -> None:
    """Print a report: what it comes to, its text, its tables, the names of its figures, its notes and its source."""
    if document.verdict:
        say(f"{document.verdict}\n")
    for paragraph in document.paragraphs:
        say(f"{paragraph}\n")
    for number, table in enumerate(filter(_is_text, document.tables)):
        if number:
            say("")
        print_report_table(table, in_parts=in_parts)
    if document.figures:
        titles = first_few([figure.title for figure in document.figures], _MOST_FIGURES, "; ")
        say(f"figures: {titles} (--format png --output DIR)")
    for note in document.notes:
        say(f"- {note}")
    if document.source:
        say(f"source: {document.source}")


def _is_text(table: Table) -> bool:
    """Whether a table says anything but with pictures, which are for pages."""
    cells = [cell for row in table.rows for cell in row.cells.values()]
    return any(cell.text for cell in cells) or not any(cell.picture for cell in cells)


def print_report_table(table: Table, *, in_parts: bool = False) -> None:
    """Print a table of a report, with its caption, its notes and its commands.

    Args:
        table: The table.
        in_parts: Whether it goes on below where its columns have no room, rather than that some are left out; a table
            of very many columns always does.
    """
    caption = "\n".join([table.caption, *(f"- {note}" for note in table.notes)]).strip()
    *parts, last = _parts(table) if in_parts or len(table.columns) > _MOST_COLUMNS else [table]
    for part in parts:
        print_table(part.title, _headings(part), _rows(part), groups=_groups(part))
    ranks, whole = [0, *(column.rank for column in last.columns)], "--columns all or --json"
    rows, groups = _rows(last), _groups(last)
    print_table(last.title, _headings(last), rows, caption=caption, ranks=ranks, whole=whole, groups=groups)
    if table.commands:
        # Not in the caption, which is folded: this is to be copied.
        say("\n".join(["what fills the empty cells:", *(f"  {command}" for command in table.commands)]))


def _parts(table: Table) -> list[Table]:
    """The table; or several with some of its columns each, groups together, where it has too many for a line."""
    parts = table.parts(lambda columns: _fits(table, columns))
    titles = [table.title, *(f"{table.title}, continued" for _ in parts[1:])]
    return [replace(table, title=title, columns=columns) for title, columns in zip(titles, parts, strict=True)]


def _fits(table: Table, columns: Sequence[Column]) -> bool:
    """Whether some columns of a table fit on a line."""
    from petlbench.cli.table_layout import Layout

    part = replace(table, columns=columns)
    return Layout(_headings(part), _rows(part), _groups(part)).width <= line_width()


def _rows(table: Table) -> list[list[Text]]:
    from rich.text import Text

    return [
        [
            Text(row.title, "italic" if row.kind == "baseline" else ""),
            *(Text(cell.text + (" †" if cell.flags else ""), _STYLES.get(cell.mark, "")) for cell in cells),
        ]
        for row in table.rows
        for cells in ([table.cell(row, column) for column in table.columns],)
    ]


def _headings(table: Table) -> list[str]:
    return [table.row_title, *(f"{column.heading}{'>' if column.numeric else ''}" for column in table.columns)]


def _groups(table: Table) -> list[str]:
    return ["", *(column.group for column in table.columns)]


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


def line_width() -> int:
    """The characters of a line of standard output."""
    from rich.console import Console

    return Console(width=_width()).width


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

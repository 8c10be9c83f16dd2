"""Tables for people and one JSON document for machines."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from petlbench.core.errors import InputError
from petlbench.core.text import shown

if TYPE_CHECKING:
    from rich.table import Table as RichTable
    from rich.text import Text

    from petlbench.core.catalog import Catalog
    from petlbench.report.document import Column, Table
    from petlbench.report.formats import Document, ReportFormat

# Columns of a table that goes to no terminal.
_UNBOUNDED = 160
# Characters between two columns, the line that a box draws there included.
_GAP = 3
# A longer word is a path, and may be broken.
_LONGEST_WORD = 48
# Where a report's table has more, it goes on below, rather than that the last ones are hidden.
_MOST_COLUMNS = 12
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
) -> None:
    """Print a table; where a terminal has no room for all of its columns, some are left out and named below.

    Args:
        title: Stands above it.
        columns: Headings; one that ends in ``>`` is aligned to the right.
        rows: Cells; one that is a text of rich keeps its style.
        caption: Stands below it.
        ranks: What leaves first: the column with the greatest number, of equal ones the last; all equal without it.
        whole: The options that show every column.
    """
    from rich.console import Console
    from rich.text import Text

    rows = list(rows)
    if len(rows) > _MANY:
        lines = _plain_table(title, columns, [[shown(str(cell)) for cell in row] for row in rows])
        print("\n".join([*lines, shown(caption)] if caption else lines))
        return
    cells = [[Text(shown(str(cell)), cell.style if isinstance(cell, Text) else "") for cell in row] for row in rows]
    console = Console(highlight=False, width=_width())
    kept = list(range(len(columns)))
    # A number or an id that is broken in two is read wrongly. The first column names the rows.
    while len(kept) > 1 and (least := _least_width(*_only(kept, columns, cells))) > console.width:
        if _width() is not None:
            console = Console(highlight=False, width=least)  # a file is as wide as it must be
            break
        kept.remove(max(kept[1:], key=lambda index: (ranks[index] if ranks else 0, index)))
    console.print(_rich_table(title, *_only(kept, columns, cells), console.width))
    if len(kept) < len(columns):
        names = [" ".join(column.rstrip(">").split()) for index, column in enumerate(columns) if index not in kept]
        count = "1 column" if len(names) == 1 else f"{len(names)} columns"
        caption = f"{caption}\n{count} hidden: {whole} ({'; '.join(names)})".strip()
    if caption:
        console.print(Text(shown(caption), style="dim"))


def _only(
    kept: Sequence[int], columns: Sequence[str], rows: Sequence[Sequence[Text]]
) -> tuple[list[str], list[list[Text]]]:
    """Some columns of a table, by their positions: headings and cells."""
    return [columns[index] for index in kept], [[row[index] for index in kept] for row in rows]


def _plain_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """The lines of a table as rich draws it where there is room: rich takes milliseconds a row, for which many wait."""
    from rich.cells import cell_len

    headings = [shown(column.rstrip(">")) for column in columns]
    texts = [headings, *rows]
    widths = [max(cell_len(text) for text in column) for column in zip(*texts, strict=True)]
    between = " " * _GAP

    def line(cells: Sequence[str]) -> str:
        padded = []
        for column, width, cell in zip(columns, widths, cells, strict=True):
            blanks = " " * (width - cell_len(cell))
            padded.append(blanks + cell if column.endswith(">") else cell + blanks)
        return f" {between.join(padded)} "

    total = sum(widths) + _GAP * (len(widths) - 1)
    yield from (shown(title).ljust(total + 2), " " * (total + 2), line(headings), f" {'─' * total} ")
    yield from map(line, rows)
    yield " " * (total + 2)


def _least_width(columns: Sequence[str], rows: Sequence[Sequence[Text]]) -> int:
    """The fewest characters that a table of these columns takes without a broken word or number."""
    return sum(_GAP + _widths(column, [row[index].plain for row in rows])[0] for index, column in enumerate(columns))


def _widths(column: str, texts: Sequence[str]) -> tuple[int, int]:
    """The least characters of a column, and those of its longest line: only words may stand on lines of their own."""
    from rich.cells import cell_len

    heading = column.rstrip(">")
    lines = [line for text in texts for line in text.splitlines()]
    longest = max(map(cell_len, (*lines, *heading.splitlines())), default=1)
    numbers = lines if column.endswith(">") else []
    words = [min(cell_len(word), _LONGEST_WORD) for line in (*lines, heading) for word in line.split()]
    return max((*map(cell_len, numbers), *words, 1)), longest


def _rich_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[Text]], width: int) -> RichTable:
    """A table in which every column has its least width, and the first ones what is left."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    heading = Text(shown(title))
    table = Table(title=heading, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False, title_style="bold")
    spare = width - _least_width(columns, rows)
    for index, column in enumerate(columns):
        least, longest = _widths(column, [row[index].plain for row in rows])
        more = max(0, min(spare, longest - least))
        spare -= more
        justify: Literal["left", "right"] = "right" if column.endswith(">") else "left"
        table.add_column(Text(shown(column.rstrip(">"))), justify=justify, overflow="fold", width=least + more)
    for row in rows:
        table.add_row(*row[: len(columns)])
    return table


def print_document(document: Document, *, in_parts: bool = False) -> None:
    """Print a report: what it comes to, its text, its tables, the names of its figures, its notes and its source."""
    if document.verdict:
        say(f"{document.verdict}\n")
    for paragraph in document.paragraphs:
        say(f"{paragraph}\n")
    for table in document.tables:
        cells = [cell for row in table.rows for cell in row.cells.values()]
        if any(cell.text for cell in cells) or not any(cell.picture for cell in cells):  # pictures are for pages
            print_report_table(table, in_parts=in_parts)
    if document.figures:
        say(f"figures: {', '.join(figure.title for figure in document.figures)} (--format png --output DIR)")
    for note in document.notes:
        say(f"- {note}")
    if document.source:
        say(f"source: {document.source}")


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
        print_table(part.title, [part.row_title, *_headings(part)], _rows(part))
    ranks = [0, *(column.rank for column in last.columns)]
    headings, whole = [last.row_title, *_headings(last)], "--columns all or --json"
    print_table(last.title, headings, _rows(last), caption=caption, ranks=ranks, whole=whole)
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
    from rich.console import Console

    part = replace(table, columns=columns)
    return _least_width([table.row_title, *_headings(part)], _rows(part)) <= Console(width=_width()).width


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

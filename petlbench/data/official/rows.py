"""The forms of the tables that come with a release: CSV, other separated text, lists, JSON and Excel, read as rows."""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from petlbench.core.errors import InputError
from petlbench.core.text import printable
from petlbench.core.user_files import read_bytes, read_json
from petlbench.data.readers.csv_file import read_lines
from petlbench.data.readers.list_file import read_list

_JSON_LIMIT = 64 << 20
"""Bytes of a JSON file: of the longest in use, of 25,000 images, two million."""
_NO_LABEL = 10**18
# What openpyxl raises over a damaged file, when it opens one and when it comes to a row; XML's errors are SyntaxErrors.
_BROKEN_EXCEL = (
    *(OSError, EOFError, LookupError, ValueError, TypeError, AttributeError, RuntimeError, SyntaxError),
    *(zipfile.BadZipFile, zlib.error),
)
EXCEL_SUFFIXES = frozenset((".xlsx", ".xlsm"))


@dataclass(frozen=True)
class Row:
    """One row of a table.

    Args:
        file: The table.
        line: Its line, from 1; of an Excel sheet its row.
        cells: The text of each cell, stripped, by column.
    """

    file: Path
    line: int
    cells: Mapping[str, str]

    @property
    def place(self) -> str:
        """File and line, or entry, as errors name them."""
        return f"{self.file}, {'entry' if self.file.suffix == '.json' else 'line'} {self.line}"

    def first_of(self, columns: str) -> str:
        """Return the cell of the first of some columns, written with | between, that the table has."""
        return next(self.cells[name] for name in columns.split("|") if name in self.cells)

    def wrong(self, message: str) -> InputError:
        """Return the error for a row that has to be corrected."""
        return InputError(f"{self.place}: {message}", hint="correct or remove the row", kind="bad_table")


def read_rows(
    file: Path,
    *,
    required: Sequence[str] = (),
    columns: Sequence[str] = (),
    separator: str = ",",
    sheet: str | None = None,
) -> list[Row]:
    """Read a table.

    Args:
        file: Separated text in UTF-8; or, by its ending, an Excel file, or a JSON object of texts and numbers.
        required: Columns that must be there; of several with | between, one.
        columns: The names of the columns of a file without a header; a first line that repeats them is a header.
        separator: The character between cells; not for Excel. A blank makes it a list: see `read_list`.
        sheet: The sheet of an Excel file; None for the first.

    Returns:
        The rows, without empty ones.

    Raises:
        InputError: When the file or the sheet is absent or cannot be read, a required column lacks or stands twice,
            or a row has more or fewer cells than the header.
    """
    lines = ((line, cells) for line, cells in _lines(file, separator, sheet, len(columns)) if any(cells))
    first = next(lines, None)
    if first is None:
        raise InputError(f"the table {file} is empty", kind="bad_table")
    header = list(columns) or first[1]
    _check_header(file, header, required)
    rows = [] if first[1] == header else [_row(file, header, *first)]
    return rows + [_row(file, header, line, cells) for line, cells in lines]


def read_header(file: Path, separator: str = ",") -> list[str]:
    """Return the cells of a text file's first line; none where there is none."""
    return next((cells for _, cells in _lines(file, separator, None)), [])


def _lines(file: Path, separator: str, sheet: str | None, columns: int = 0) -> Iterator[tuple[int, list[str]]]:
    """Yield (line, stripped cells)."""
    if file.suffix.lower() in EXCEL_SUFFIXES:
        yield from _excel_lines(file, sheet)
    elif file.suffix == ".json":
        yield from _json_lines(file)
    elif " " in separator:
        yield from read_list(file, columns, separator)
    else:
        for line, cells in read_lines(file, separator):
            yield line, [cell.strip() for cell in cells]


def _json_lines(file: Path) -> Iterator[tuple[int, list[str]]]:
    """Yield (entry, [name, whole number]) of an object."""
    for number, (key, value) in enumerate(read_json(file, what="table", limit=_JSON_LIMIT).items(), start=1):
        if type(value) is not int or abs(value) >= _NO_LABEL:
            raise InputError(
                f"{file}, entry {number}: '{printable(key)[:80]}' has no whole number, but a {type(value).__name__}",
                hint="the file is one object of image paths and class numbers",
                kind="bad_table",
            )
        yield number, [key, str(value)]


def _excel_lines(file: Path, sheet: str | None) -> Iterator[tuple[int, list[str]]]:
    try:
        import openpyxl
        from openpyxl.utils.exceptions import InvalidFileException
    except ModuleNotFoundError as error:
        raise InputError(
            f"{file} is an Excel file, and openpyxl, which reads them, is not installed",
            hint="pip install 'petlbench[excel]'",
            kind="missing_package",
        ) from error
    content = io.BytesIO(read_bytes(file, what="table"))
    try:
        with closing(openpyxl.load_workbook(content, read_only=True, data_only=True)) as book:
            yield from _sheet_lines(file, book, sheet)
    except (*_BROKEN_EXCEL, InvalidFileException) as error:
        text = printable(str(error) or type(error).__name__)
        raise InputError(f"{file} cannot be read as an Excel file: {text}", kind="bad_table") from error


def _sheet_lines(file: Path, book: Any, sheet: str | None) -> Iterator[tuple[int, list[str]]]:
    title = sheet if sheet is not None else book.sheetnames[0]
    if title not in book.sheetnames:
        raise InputError(f"{file} has no sheet '{title}'; it has: {', '.join(book.sheetnames)}", kind="bad_table")
    width = 0
    for line, row in enumerate(book[title].iter_rows(values_only=True), start=1):
        cells = [_text(value) for value in row]
        while cells and not cells[-1]:
            cells.pop()
        # Excel keeps no empty cells at the end of a row: what is short of the header's length is empty.
        width = width or len(cells)
        yield line, cells + [""] * (width - len(cells))


def _text(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value).strip()


def _check_header(file: Path, header: Sequence[str], required: Sequence[str]) -> None:
    for names in required:
        there = [name for name in header if name in names.split("|")]
        if not there:
            raise InputError(
                f"{file} has no column '{names}'; it has: {', '.join(header)}",
                hint="is it the file of the official release, unchanged?",
                kind="missing_column",
            )
        if len(there) > len(set(there)):
            raise InputError(f"{file} has the column '{there[0]}' twice", kind="bad_table")


def _row(file: Path, header: Sequence[str], line: int, cells: Sequence[str]) -> Row:
    row = Row(file, line, dict(zip(header, cells, strict=False)))
    if len(cells) != len(header):
        raise row.wrong(f"the row has {len(cells)} cells, but there are {len(header)} columns: {', '.join(header)}")
    return row

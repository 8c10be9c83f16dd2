"""Rows of the tables that come with datasets: CSV and other separated text, and Excel."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from petlbench.core.errors import InputError
from petlbench.data.readers.csv_file import read_lines

__all__ = ["Row", "read_header", "read_rows"]

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
        """File and line, as errors name them."""
        return f"{self.file}, line {self.line}"


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
        file: Separated text in UTF-8, or an Excel file by its ending.
        required: Columns that must be there.
        columns: The names of the columns of a file without a header; a first line that repeats them is a header.
        separator: The character between cells; not for Excel. With a blank, several are as good as one.
        sheet: The sheet of an Excel file; None for the first.

    Returns:
        The rows, without empty ones.

    Raises:
        InputError: When the file or the sheet is absent or cannot be read, a required column lacks or stands twice,
            or a row has more or fewer cells than the header.
    """
    lines = ((line, cells) for line, cells in _lines(file, separator, sheet) if any(cells))
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


def _lines(file: Path, separator: str, sheet: str | None) -> Iterator[tuple[int, list[str]]]:
    """Yield (line, stripped cells)."""
    if not file.is_file():
        raise InputError(f"the table {file} does not exist", kind="missing_file")
    if file.suffix.lower() in EXCEL_SUFFIXES:
        yield from _excel_lines(file, sheet)
        return
    for line, cells in read_lines(file, separator):
        stripped = [cell.strip() for cell in cells]
        yield line, [cell for cell in stripped if cell] if separator.isspace() else stripped


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
    try:
        book = openpyxl.load_workbook(file, read_only=True, data_only=True)
    except (OSError, KeyError, ValueError, zipfile.BadZipFile, InvalidFileException) as error:
        raise InputError(f"{file} cannot be read as an Excel file: {error}", kind="bad_table") from error
    with closing(book):
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
    for name in required:
        if name not in header:
            raise InputError(
                f"{file} has no column '{name}'; it has: {', '.join(header)}",
                hint="is it the file of the official release, unchanged?",
                kind="missing_column",
            )
        if list(header).count(name) > 1:
            raise InputError(f"{file} has the column '{name}' twice", kind="bad_table")


def _row(file: Path, header: Sequence[str], line: int, cells: Sequence[str]) -> Row:
    if len(cells) != len(header):
        raise InputError(
            f"{file}, line {line}: the row has {len(cells)} cells, but there are {len(header)} columns: "
            f"{', '.join(header)}",
            hint="correct or remove the row",
            kind="bad_table",
        )
    return Row(file, line, dict(zip(header, cells, strict=True)))

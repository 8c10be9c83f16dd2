"""The parts of a report before it takes a form: tables and figures as plain data, which every format draws from.

Nothing here knows Markdown, LaTeX, HTML or matplotlib. Numbers are numbers, and every cell carries beside its number
the text that all formats show, so that no two formats round differently.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any, Literal

Mark = Literal["", "best", "second"]
Better = Literal["higher", "lower"] | None
FigureKind = Literal["scatter", "lines", "bars", "matrix", "ranks", "intervals"]


@dataclass(frozen=True)
class Cell:
    """One cell.

    Args:
        value: The number, in its column's unit; None where there is none.
        text: What is shown, plain text of any characters; each format escapes it.
        low: Lower bound of an interval around the value.
        high: Its upper bound.
        std: Standard deviation over seeds and splits.
        mark: Whether it is the best or the second of its column.
        reason: Why there is no value, in words; empty where there is one.
        flags: What the reader should know of it, such as ``few`` or ``2 of 3 seeds``; short plain texts.
        picture: A JPEG in base64 that a page shows beside the text; empty for none.
    """

    value: float | None = None
    text: str = ""
    low: float | None = None
    high: float | None = None
    std: float | None = None
    mark: Mark = ""
    reason: str = ""
    flags: tuple[str, ...] = ()
    picture: str = ""


_PARTS: Sequence[tuple[str, Callable[[Cell], object]]] = (
    ("", lambda cell: cell.value),
    ("_std", lambda cell: cell.std),
    ("_low", lambda cell: cell.low),
    ("_high", lambda cell: cell.high),
    ("_reason", lambda cell: cell.reason),
    ("_flags", lambda cell: "; ".join(cell.flags)),
)


@dataclass(frozen=True)
class _Quantity:
    """What a column or an axis shows: its stable name, what it is called, and its unit, empty for none."""

    key: str
    title: str
    unit: str = ""

    @property
    def heading(self) -> str:
        """Title and unit."""
        return f"{self.title}, {self.unit}" if self.unit else self.title


@dataclass(frozen=True)
class Column(_Quantity):
    """A column; its key is the CSV's heading and the key of cells.

    Args:
        better: Which end is good; None where neither is.
        group: A heading above several columns side by side, such as ``published``; empty for none.
        numeric: Whether its cells are numbers, which are aligned to the right.
        rank: Where a line has no room for all, columns of the greatest rank leave first, and of equal ones the last.
        shown_unit: The unit of what is shown, where it is another one than that of the numbers; empty for the same.
    """

    better: Better = None
    group: str = ""
    numeric: bool = True
    rank: int = 0
    shown_unit: str = ""

    @property
    def heading(self) -> str:
        """Title and unit, as it is shown."""
        unit = self.shown_unit or self.unit
        return f"{self.title}, {unit}" if unit else self.title


@dataclass(frozen=True)
class Row:
    """A row.

    Args:
        key: Its stable name, most often a method's.
        title: What stands in front of it.
        cells: Its cells by column; a column without one is empty.
        kind: ``method``, or ``baseline`` for standing rows, which are never marked and stand below a line.
        runs: Ids of the runs that it is made from.
    """

    key: str
    title: str
    cells: Mapping[str, Cell]
    kind: Literal["method", "baseline"] = "method"
    runs: tuple[str, ...] = ()


@dataclass(frozen=True)
class Table:
    """A table.

    Args:
        key: Its stable name within the report; files of several tables are named by it.
        title: Stands above it.
        columns: Columns from left to right, without that of the rows' titles.
        rows: Rows from top to bottom.
        caption: What holds for all of it: settings, sources of figures, what is bold.
        notes: Sentences below it, such as why cells are empty.
        row_title: Heading of the column of the rows' titles.
        commands: What would fill the empty cells, each a command to be run as it stands.
        has_print: Whether figures of papers are in it, whose decimals are the papers'.
        facets: What it is a table of, such as ``{"dataset": "ISIC 2018"}``, by which a page of many can be filtered.
    """

    key: str
    title: str
    columns: Sequence[Column]
    rows: Sequence[Row]
    caption: str = ""
    notes: Sequence[str] = ()
    row_title: str = "method"
    commands: Sequence[str] = ()
    has_print: bool = False
    facets: Mapping[str, str] = field(default_factory=dict)

    def cell(self, row: Row, column: Column) -> Cell:
        """The cell of a row and a column; an empty one where there is none."""
        return row.cells.get(column.key, Cell())

    def parts(self, fits: Callable[[Sequence[Column]], bool]) -> list[list[Column]]:
        """The columns in as many parts as it takes for each to fit a line.

        Args:
            fits: Whether columns have room beside one another. A group that has room on a line is not cut.
        """
        parts: list[list[Column]] = [[]]
        for _, group in groupby(enumerate(self.columns), key=lambda each: each[1].group or each[0]):
            columns = [column for _, column in group]
            if parts[-1] and not fits([*parts[-1], *columns]) and fits(columns):
                parts.append([])
            for column in columns:
                if parts[-1] and not fits([*parts[-1], column]):
                    parts.append([])
                parts[-1].append(column)
        return parts

    def records(self) -> tuple[list[str], list[list[object]]]:
        """The headings and the rows as plain values.

        Every column has its number under its key; standard deviation, interval, the reason of empty cells and flags
        stand under KEY_std, KEY_low, KEY_high, KEY_reason and KEY_flags where some row has one.
        """
        columns = [part for column in self.columns for part in self._parts(column)]
        rows = [[row.key, row.title, row.kind, *(read(row) for _, read in columns)] for row in self.rows]
        return [self.row_title, "title", "kind", *(name for name, _ in columns)], rows

    def _parts(self, column: Column) -> Iterator[tuple[str, Callable[[Row], object]]]:
        for suffix, read in _PARTS:
            if suffix == "" and not column.numeric:
                yield column.key, lambda row: self.cell(row, column).text
            elif suffix == "" or any(read(self.cell(row, column)) not in (None, "") for row in self.rows):
                yield column.key + suffix, lambda row, read=read: read(self.cell(row, column))  # type: ignore[misc]


def table_of(
    key: str, title: str, columns: Sequence[Column], rows: Iterable[Sequence[Cell | str]], caption: str = ""
) -> Table:
    """A table of rows that are given in the order of their columns, of which the first is that of the rows' titles."""
    first, *others = columns
    keys = [column.key for column in others]
    cells = [[Cell(text=cell) if isinstance(cell, str) else cell for cell in row] for row in rows]
    lines = [Row(row[0].text, row[0].text, dict(zip(keys, row[1:], strict=True))) for row in cells]
    return Table(key, title, others, lines, caption, row_title=first.heading)


@dataclass(frozen=True)
class Axis(_Quantity):
    """What a figure shows in one direction, or can show; its key is the name of the values in every series.

    Args:
        scale: ``linear`` or ``log``.
        better: Which end is good; None where neither is.
    """

    scale: Literal["linear", "log"] = "linear"
    better: Better = None


@dataclass(frozen=True)
class Series:
    """Values that belong together: a line, or points of one colour.

    Args:
        key: Its stable name, most often a method's.
        title: As the legend shows it.
        values: Numbers by axis, all equally many; an axis' interval stands under ``KEY_low`` and ``KEY_high``. Of a
            ``matrix``: one list a row, under ``0``, ``1`` and so on.
        labels: One text a point, or none at all.
        role: ``data``; ``reference`` for what is there to compare with, such as a diagonal or a published figure.
        place: Which of the colours and marks it has, from 0; None where a `Look` has not given it one yet.
    """

    key: str
    title: str
    values: Mapping[str, Sequence[float | None]]
    labels: Sequence[str] = ()
    role: Literal["data", "reference"] = "data"
    place: int | None = None


@dataclass(frozen=True)
class Figure:
    """A figure.

    Args:
        key: Its stable name within the report; files are named by it.
        kind: ``scatter``, ``lines``, ``bars``, ``matrix`` (labels are those of rows and columns), ``ranks`` (critical
            difference: values ``rank``) or ``intervals`` (one line a series, its value with low and high).
        title: Stands above it.
        axes: All axes that its series have values of; a page lets its reader choose among them.
        x: Key of the axis to the right; of bars, the axis of their labels, which need no values there.
        y: Key of the axis upwards.
        series: The data.
        size: Key of the axis that the size of points stands for; None for points of one size.
        caption: What holds for all of it.
        marks: Further plain facts, such as ``{"critical_difference": 1.2}``. ``line``: a value at which a line is
            drawn, on the axis of the figure's values. ``stacked``: bars of one label stand on one another.
            ``from_zero``: that axis begins at zero.
    """

    key: str
    kind: FigureKind
    title: str
    axes: Sequence[Axis]
    x: str
    y: str
    series: Sequence[Series]
    size: str | None = None
    caption: str = ""
    marks: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(
        cls, key: str, kind: FigureKind, title: str, axes: Sequence[Axis], series: Sequence[Series], **more: Any
    ) -> Figure:
        """A figure whose first axis goes to the right and whose second goes upwards."""
        return cls(key, kind, title, axes, axes[0].key, axes[1].key, series, **more)

    def axis(self, key: str) -> Axis:
        """The axis of a key."""
        return next(axis for axis in self.axes if axis.key == key)

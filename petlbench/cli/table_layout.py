"""How a table stands in a terminal: how wide its columns are, and what stands above several of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from typing import TYPE_CHECKING, Literal

from petlbench.core.text import all_shown, shown

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text

# Characters between two columns, the line that a box draws there included.
_GAP = 2
# A longer word is a path, and may be broken.
_LONGEST_WORD = 48
# What names a row stands on one line up to this length.
_LONGEST_NAME = 24


@dataclass(frozen=True)
class Layout:
    """A table's columns and cells.

    Args:
        columns: Headings; one that ends in ``>`` is aligned to the right. The first column names the rows.
        rows: Cells.
        groups: What stands above several columns side by side, one text a column; empty for nothing.
    """

    columns: Sequence[str]
    rows: Sequence[Sequence[Text]]
    groups: Sequence[str]

    def only(self, kept: Sequence[int]) -> Layout:
        """The columns at these positions."""
        columns, groups = ([texts[index] for index in kept] for texts in (self.columns, self.groups))
        return Layout(columns, [[row[index] for index in kept] for row in self.rows], groups)

    @property
    def width(self) -> int:
        """The fewest characters of a line without a broken word, number or name."""
        return sum(self._least) + _GAP * len(self._least)

    def fitting(self, width: int, ranks: Sequence[int]) -> list[int]:
        """The positions of the columns that a line of so many characters has room for; the first one always.

        A number or an id that is broken in two is read wrongly, so that columns leave whole: those of the greatest rank
        first, of equal ones the last. One that left comes back where there is room for it all the same.
        """
        kept = list(range(len(self.columns)))
        gone: list[int] = []
        while len(kept) > 1 and self.only(kept).width > width:
            gone.append(max(kept[1:], key=lambda index: (ranks[index] if ranks else 0, index)))
            kept.remove(gone[-1])
        for index in reversed(gone):
            more = sorted([*kept, index])
            kept = more if self.only(more).width <= width else kept
        return kept

    def rendered(self, width: int) -> tuple[Table, str]:
        """The table, whose first columns get what is left of the width; and the line above its headings, if any."""
        from rich import box
        from rich.table import Table
        from rich.text import Text

        widths = self._widths(width)
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, _GAP - 1, 0, 0))
        for column, characters in zip(self.columns, widths, strict=True):
            justify: Literal["left", "right"] = "right" if column.endswith(">") else "left"
            table.add_column(Text(_heading(column)), justify=justify, overflow="fold", width=characters)
        for row in self.rows:
            table.add_row(*row)
        return table, self._group_line(widths)

    @cached_property
    def _sizes(self) -> list[tuple[int, int, int]]:
        """The characters of each column: at least, for all lines of its cells, and for its heading on one line."""
        texts = [[row[index].plain for row in self.rows] for index in range(len(self.columns))]
        names = [text for text in texts[0] if len(text) <= _LONGEST_NAME]
        whole = [cells if column.endswith(">") else [] for column, cells in zip(self.columns, texts, strict=True)]
        whole[0] = [*whole[0], *names]
        return [_sizes(*each) for each in zip(self.columns, texts, whole, strict=True)]

    @cached_property
    def _least(self) -> list[int]:
        """The least characters of each column; the last of a group makes room for what stands above the group."""
        from rich.cells import cell_len

        least = [size for size, *_ in self._sizes]
        for title, members in self._spans():
            span = sum(least[index] for index in members) + _GAP * (len(members) - 1)
            least[members[-1]] += max(0, cell_len(title) - span)
        return least

    def _widths(self, width: int) -> list[int]:
        """The characters of each column: what is left goes to lines of cells before it goes to headings."""
        spare, widths = width - self.width, list(self._least)
        for wish in (1, 2):
            while spare > 0 and (narrow := [at for at, sizes in enumerate(self._sizes) if sizes[wish] > widths[at]]):
                widths[max(narrow, key=lambda at: self._sizes[at][wish] / widths[at])] += 1
                spare -= 1
        return widths

    def _spans(self) -> Iterator[tuple[str, list[int]]]:
        """Groups with the positions of their columns."""
        for title, members in groupby(range(len(self.groups)), key=lambda index: self.groups[index]):
            if title:
                yield title, list(members)

    def _group_line(self, widths: Sequence[int]) -> str:
        """The line above the headings; empty where there are no groups."""
        line = ""
        for title, members in self._spans():
            start = 1 + sum(widths[: members[0]]) + _GAP * members[0]
            span = sum(widths[index] for index in members) + _GAP * (len(members) - 1)
            line = line.ljust(start) + (f" {title} ".center(span, "─") if span > len(title) + 3 else title)
        return line


def plain_lines(columns: Sequence[str], rows: Iterable[Sequence[object]], groups: Sequence[str]) -> Iterator[str]:
    """A table as rich draws it where there is room: rich takes milliseconds a row, for which many wait.

    Arguments are those of `Layout`, with cells of any kind, which are shown without a style.
    """
    from rich.cells import cell_len

    above = [f"{group}: " if group else "" for group in groups]
    headings = [group + _heading(column) for group, column in zip(above, columns, strict=True)]
    aligned, formats, total = [], [], _GAP * (len(columns) - 1)
    for column, *texts in zip(columns, headings, *rows, strict=True):
        cells = all_shown([*map(str, texts)])
        pad, sign = (str.rjust, "") if column.endswith(">") else (str.ljust, "-")
        if "".join(cells).isascii():
            width = max(map(len, cells))
            aligned.append(cells)
            formats.append(f"%{sign}{width}s")
        else:  # some characters take two places, and some none
            sizes = [*map(cell_len, cells)]
            width = max(sizes)
            aligned.append([pad(cell, width + len(cell) - size) for cell, size in zip(cells, sizes, strict=True)])
            formats.append("%s")
        total += width
    heading, *lines = map(f" {(' ' * _GAP).join(formats)} ".__mod__, zip(*aligned, strict=True))
    yield from (" " * (total + 2), heading, f" {'─' * total} ", *lines, " " * (total + 2))


def _heading(column: str) -> str:
    return shown(column.rstrip(">"))


def _sizes(column: str, texts: Sequence[str], whole: Sequence[str]) -> tuple[int, int, int]:
    """The characters of a column at least, where only words may stand on lines of their own, and those it could use."""
    from rich.cells import cell_len

    heading = column.rstrip(">")
    lines = [line for text in texts for line in text.splitlines()]
    words = [min(cell_len(word), _LONGEST_WORD) for line in (*lines, heading) for word in line.split()]
    unbroken = [cell_len(line) for text in whole for line in text.splitlines()]
    least, longest = max(*unbroken, *words, 1, 1), max(map(cell_len, lines), default=1)
    return least, longest, max(longest, cell_len(heading))

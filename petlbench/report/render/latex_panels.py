"""A table in LaTeX as panels in type of eight points, each of which has all rows and as many columns as fit a line."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby, zip_longest
from textwrap import wrap

from petlbench.core.text import with_minus
from petlbench.report.document import Cell, Column, Row, Table
from petlbench.report.render.latex_text import BOLD, escape, width_of

# Characters of a line of a heading; figures with their deviation are about as wide.
_WIDEST = 14
# Beyond so many columns headings stand upright, and deviations below their figures.
_MOST_COLUMNS = 16
# From one line to the next, and what rules and gaps above and below take, in millimetres.
_LINE, _RULES = 3.35, 7.0
_POINT = 25.4 / 72.27  # millimetres
_DEVIATION = " ± "
_FLAG = "†"


@dataclass(frozen=True)
class Panel:
    """Some columns of a table.

    Args:
        lines: Its LaTeX.
        height: In millimetres.
    """

    lines: Sequence[str]
    height: float


@dataclass(frozen=True)
class _Form:
    """How columns are set.

    Args:
        gap: Room on each side of a column, in points.
        align: Where numbers stand in their columns.
        split: The lines of a cell.
        headings: The LaTeX of headings.
        extent: Width and height of a heading, in millimetres.
    """

    gap: float
    align: str
    split: Callable[[Cell], Sequence[Cell]]
    headings: Callable[[Table], Sequence[str]]
    extent: Callable[[Column], tuple[float, float]]

    def width(self, table: Table, column: Column) -> float:
        """How wide a column is with its gaps, in millimetres."""
        cells = (part for row in table.rows for part in self.split(table.cell(row, column)))
        return max([self.extent(column)[0], *map(_cell_width, cells)]) + 2 * self.gap * _POINT

    def panel(self, table: Table) -> Panel:
        """A table whose columns fit a line."""
        layout = "l" + "".join(self.align if column.numeric else "l" for column in table.columns)
        groups = [_group_line(table.columns)] if any(column.group for column in table.columns) else []
        body: list[str] = []
        for kind, rows in groupby(table.rows, key=lambda row: row.kind):
            body += [r"\midrule"] if body and kind == "baseline" else []
            body += [line for row in rows for line in self._row(table, row)]
        lines = [
            rf"\setlength{{\tabcolsep}}{{{self.gap:g}pt}}",
            rf"\begin{{tabular}}{{@{{}}{layout}@{{}}}}",
            r"\toprule",
        ]
        lines += [*groups, *self.headings(table), r"\midrule", *body, r"\bottomrule", r"\end{tabular}"]
        heading = max((self.extent(column)[1] for column in table.columns), default=_LINE)
        return Panel(lines, _RULES + heading + _LINE * (len(groups) + len(body)))

    def _row(self, table: Table, row: Row) -> Iterable[str]:
        stacks = [self.split(table.cell(row, column)) for column in table.columns]
        first, *below = zip_longest(*stacks, fillvalue=Cell()) if stacks else [()]
        yield _line([_row_title(row), *map(_marked, first)])
        yield from (r"\noalign{\vskip-1.5pt}" + _line(["", *map(_marked, cells)]) for cells in below)


def panels(table: Table, rows: Sequence[Row], width: float) -> list[Panel]:
    """Some rows of a table in as many panels as the whole table takes for none to be wider than ``width`` millimetres.

    Headings of groups stay in one panel where a line has room for it.
    """
    form = _UPRIGHT if len(table.columns) > _MOST_COLUMNS else _LEVEL
    titles = max(map(width_of, [*_stack(table.row_title), *(row.title for row in table.rows)]))
    room = width - titles
    widths = {column.key: form.width(table, column) for column in table.columns}
    parts = table.parts(lambda columns: _total(columns, widths) <= room)
    return [form.panel(replace(table, columns=columns, rows=rows)) for columns in parts]


def _total(columns: Sequence[Column], widths: Mapping[str, float]) -> float:
    """How wide columns are together; the heading of a group may be wider than they."""
    groups = groupby(columns, key=lambda column: column.group)
    return sum(max(width_of(title), sum(widths[each.key] for each in members)) for title, members in groups)


def _cell_width(cell: Cell) -> float:
    return width_of(cell.text + (_FLAG if cell.flags else "")) * (BOLD if cell.mark == "best" else 1)


def _whole(cell: Cell) -> Sequence[Cell]:
    return [cell]


def _two_lines(cell: Cell) -> Sequence[Cell]:
    """The figure, and below it its deviation, where it has one."""
    text, _, deviation = cell.text.partition(_DEVIATION)
    return [replace(cell, text=text), *([Cell(text=f"±{deviation}")] if deviation else [])]


def _row_title(row: Row) -> str:
    title = escape(row.title)
    return rf"\emph{{{title}}}" if row.kind == "baseline" else title


def _marked(cell: Cell) -> str:
    text = escape(with_minus(cell.text))
    text += r"\textdagger{}" if cell.flags and text else ""
    return {"best": rf"\textbf{{{text}}}", "second": rf"\underline{{{text}}}"}.get(cell.mark, text)


def _stack(title: str) -> list[str]:
    """A title in short lines, about equally long."""
    lines = wrap(title, _WIDEST) or [""]
    narrower = (wrap(title, most, break_long_words=False) for most in range(1, _WIDEST))
    return next((each for each in narrower if len(each) == len(lines)), lines)


def _heading(column: Column) -> list[str]:
    """The lines of a column's title, and its unit in one of its own."""
    unit = column.shown_unit or column.unit
    return [*_stack(column.title), *([f"({unit})"] if unit else [])]


def _extent(lines: Sequence[str]) -> tuple[float, float]:
    return max(map(width_of, lines)), _LINE * len(lines)


def _level_extent(column: Column) -> tuple[float, float]:
    return _extent(_heading(column))


def _level_headings(table: Table) -> list[str]:
    """Titles with their units, cut into short lines that end together."""
    stacks = [_stack(table.row_title), *(_heading(column) for column in table.columns)]
    height = max(map(len, stacks))
    padded = [[*[""] * (height - len(stack)), *stack] for stack in stacks]
    return [_line(map(escape, parts)) for parts in zip(*padded, strict=True)]


def _upright_extent(column: Column) -> tuple[float, float]:
    if not column.numeric:
        return _extent([column.heading])
    width, height = _extent(_heading(column))
    return height, width


def _upright_headings(table: Table) -> list[str]:
    """Titles with their units, read from the bottom up; those above words lie."""
    turned = [_turned(column) if column.numeric else escape(column.heading) for column in table.columns]
    return [_line([escape(table.row_title), *turned])]


def _turned(column: Column) -> str:
    lines = r"\\".join(map(escape, _heading(column)))
    return rf"\rotatebox{{90}}{{\begin{{tabular}}{{@{{}}l@{{}}}}{lines}\end{{tabular}}}}"


def _group_line(columns: Sequence[Column]) -> str:
    """Headings above several columns, each with a rule below it."""
    spans, rules, at = [""], [], 2
    for title, members in groupby(columns, key=lambda column: column.group):
        width = len(list(members))
        spans.append(rf"\multicolumn{{{width}}}{{c}}{{{escape(title)}}}")
        if title:
            rules.append(rf"\cmidrule(lr){{{at}-{at + width - 1}}}")
        at += width
    return _line(spans) + " " + " ".join(rules)


def _line(cells: Iterable[str]) -> str:
    return " & ".join(cells) + r" \\"


_LEVEL = _Form(3, "r", _whole, _level_headings, _level_extent)
_UPRIGHT = _Form(2, "c", _two_lines, _upright_headings, _upright_extent)

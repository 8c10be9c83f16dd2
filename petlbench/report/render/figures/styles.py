"""How series are told apart, in colour and in grey, and how axes and legends stand."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from textwrap import fill
from typing import TYPE_CHECKING, Any, cast

from petlbench.core.plotting import COLOURS, HATCHES, LINES, MARKERS, plain
from petlbench.report.document import Axis, Figure, Series
from petlbench.report.look import NARROW

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Sheet


_HANDLE = 6  # characters of a legend's mark and the gap beside it


@dataclass(frozen=True)
class Style:
    """Colour, marker, line and hatch of one series."""

    colour: str
    marker: str
    line: Any
    hatch: str


def styles(figure: Figure) -> Iterator[tuple[Series, Style]]:
    """Yield every series with its style; what is there to compare with is grey."""
    for number, series in enumerate(figure.series):
        if series.role == "reference":
            yield series, Style("0.45", "", (0, (4, 2)), "")
            continue
        place = number if series.place is None else series.place
        yield series, Style(*(kind[place % len(kind)] for kind in (COLOURS, MARKERS, LINES, HATCHES)))


def numbers(values: Sequence[float | None]) -> list[float]:
    """Values with NaN, which is not drawn, where there is none."""
    return [math.nan if value is None else float(value) for value in values]


def spread(series: Series, key: str) -> tuple[list[float], list[float], list[float]]:
    """Values on an axis, their lower and their upper ends, each (N,); NaN where there is none.

    Without an interval the ends are the values themselves.
    """
    values = numbers(series.values[key])
    low, high = (
        [value if math.isnan(end) else end for value, end in zip(values, ends, strict=True)]
        for ends in (numbers(series.values.get(f"{key}_{end}", values)) for end in ("low", "high"))
    )
    return values, low, high


def whiskers(series: Series, key: str) -> list[list[float]] | None:
    """How far the interval reaches below and above each value: two lists of N lengths; None where none has any."""
    values, low, high = spread(series, key)
    down = [value - end for value, end in zip(values, low, strict=True)]
    up = [end - value for value, end in zip(values, high, strict=True)]
    return [down, up] if any(length > 0 for length in (*down, *up)) else None


def prepare_axis(axes: Axes, direction: str, axis: Axis) -> None:
    """Label an axis and scale it."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    # A heading that is longer than a narrow figure is goes on in a second line.
    characters = int(sheet_of(axes).get_figwidth() * 14)
    axes.set(**{f"{direction}label": fill(plain(axis.heading, 80), characters)})
    ruler = axes.xaxis if direction == "x" else axes.yaxis
    if axis.scale == "log":
        axes.set(**{f"{direction}scale": "log"})
        low, high = sorted(axes.get_xlim() if direction == "x" else axes.get_ylim())
        ruler.set_major_locator(LogLocator(subs=(1.0,) if high > low * 1e3 else (1.0, 2.0, 5.0)))
        ruler.set_major_formatter(FuncFormatter(_short))
        ruler.set_minor_formatter(NullFormatter())


def heed_marks(axes: Axes, figure: Figure, direction: str) -> None:
    """Heed the marks of an axis, ``x`` or ``y``: draw ``line`` across at its value, let ``from_zero`` begin at zero."""
    if (value := figure.marks.get("line")) is not None:
        draw = axes.axvline if direction == "x" else axes.axhline
        draw(value, color="0.45", linewidth=0.8, linestyle="--", zorder=0)
    if figure.marks.get("from_zero"):
        axes.set(**{f"{direction}lim": (0, None)})


def sheet_of(axes: Axes) -> Sheet:
    """The whole figure that axes stand in; ours have no figures within figures."""
    return cast("Sheet", axes.figure)


def place_legend(axes: Axes, few: int = 4) -> None:
    """Put the legend where it covers no data: inside the axes while it has few entries, else outside of them."""
    handles, labels = axes.get_legend_handles_labels()
    if len(labels) <= few:
        axes.legend(loc="best")
    else:
        sheet_of(axes).legend(handles, labels, **outside(axes, labels))


def outside(axes: Axes, labels: Sequence[str]) -> dict[str, Any]:
    """Where a legend stands outside of its axes: beside them, or below where the figure is narrow."""
    from matplotlib import rcParams

    inches = sheet_of(axes).get_figwidth()
    if inches >= NARROW / 25.4:
        return {"loc": "outside right upper"}
    per_line = inches * 72 / (0.5 * float(rcParams["font.size"]))  # characters
    ncols = max(1, int(per_line / (max(map(len, labels), default=1) + _HANDLE)))
    return {"loc": "outside lower center", "ncols": ncols, "columnspacing": 1.0, "labelspacing": 0.6}


def _short(value: float, _position: int | None = None) -> str:
    """1,500,000 as 1.5M."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if abs(value) >= size:
            return f"{value / min(size, 1e3 if letter == 'k' else size):g}{letter}"
    return f"{value:g}"

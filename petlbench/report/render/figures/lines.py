"""Lines with bands: curves, budgets, memory over resolution, calibration."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from petlbench.core.plotting import plain
from petlbench.report.document import Figure
from petlbench.report.render.figures.styles import heed_marks, numbers, place_legend, prepare_axis, spread, styles

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["draw_lines"]

_MARKS = 10  # markers on a line, and ticks at the places of values; more would hide it


def draw_lines(axes: Axes, figure: Figure) -> None:
    """Draw one line a series, with a band where its values have intervals.

    The mark ``square`` gives both axes the same scale, as a calibration plot has it.
    """
    from matplotlib.ticker import FixedLocator, MaxNLocator

    for series, style in styles(figure):
        x = numbers(series.values[figure.x])
        y, low, high = spread(series, figure.y)
        axes.plot(
            x,
            y,
            label=plain(series.title),
            color=style.colour,
            linestyle=style.line,
            marker=style.marker,
            markevery=max(1, math.ceil(len(x) / _MARKS)),
        )
        if low != y or high != y:
            axes.fill_between(x, low, high, color=style.colour, alpha=0.15, linewidth=0)
    prepare_axis(axes, "x", figure.axis(figure.x))
    prepare_axis(axes, "y", figure.axis(figure.y))
    places = sorted({x for series in figure.series for x in series.values[figure.x] if x is not None})
    if all(float(x).is_integer() for x in places):
        axes.xaxis.set_major_locator(
            FixedLocator(places) if len(places) <= _MARKS else MaxNLocator("auto", integer=True)
        )
    heed_marks(axes, figure, "y")
    if figure.marks.get("square"):
        axes.set_aspect("equal", adjustable="box")
    if len(figure.series) > 1:
        place_legend(axes)

"""Points of two quantities, a third as their size, and those that no other point beats."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from petlbench.core.plotting import plain
from petlbench.report.document import Axis, Figure
from petlbench.report.render.figures.names import Dot, place_names
from petlbench.report.render.figures.styles import Style, numbers, prepare_axis, sheet_of, spread, styles
from petlbench.statistics.ranks import fronts

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.lines import Line2D

__all__ = ["draw_scatter", "pareto_front"]

_SMALLEST, _LARGEST, _EQUAL = 14.0, 190.0, 34.0  # areas of dots, in square points
_NARROW = 5  # inches; a legend has no room beside a figure that is narrower


def draw_scatter(axes: Axes, figure: Figure) -> None:
    """Draw points with their names, the front of the best, and a legend of sizes."""
    areas = Areas(figure)
    points = _points(figure, areas)
    whiskers = _draw_intervals(axes, figure)
    for dot, style, _ in points:
        axes.scatter(
            [dot.x],
            [dot.y],
            s=dot.area,
            color=style.colour,
            marker=style.marker or "x",
            alpha=0.85,
            linewidth=0.6,
            edgecolor="black" if style.marker else None,
            zorder=3,
        )
    prepare_axis(axes, "x", figure.axis(figure.x))
    prepare_axis(axes, "y", figure.axis(figure.y))
    axes.margins(0.12)
    front = _draw_front(axes, figure, [dot for dot, _, role in points if role == "data"])
    _draw_legend(axes, figure, areas, front)
    place_names(axes, [dot for dot, *_ in points], [*front, *whiskers])


def pareto_front(x: Sequence[float], y: Sequence[float], x_better: str | None, y_better: str | None) -> list[int]:
    """Find the points that no other point beats in one direction without losing in the other.

    Args:
        x: Values, (N,).
        y: Values, (N,).
        x_better: Which end is good, ``higher`` or ``lower``; None where neither is.
        y_better: The same of ``y``.

    Returns:
        Positions in the order of ``x``; none where a direction has no good end.
    """
    if x_better is None or y_better is None:
        return []
    x_sign, y_sign = (-1 if better == "higher" else 1 for better in (x_better, y_better))
    costs = {place: (x_sign * x[place], y_sign * y[place]) for place in range(len(x))}
    front = [place for place, number in fronts(costs).items() if number == 1]
    distinct = {costs[place]: place for place in reversed(front)}  # of equal points the first
    return sorted(distinct.values(), key=lambda place: x[place])


class Areas:
    """Areas of dots by the figure's ``size``: they grow with its logarithm on a logarithmic axis, else with itself."""

    def __init__(self, figure: Figure) -> None:
        self.axis: Axis | None = figure.axis(figure.size) if figure.size else None
        self._is_log = self.axis is not None and self.axis.scale == "log"
        key = figure.size or ""
        values = [value for each in figure.series for value in numbers(each.values.get(key, ())) if self._fits(value)]
        self._low, self._high = (min(values), max(values)) if values else (0.0, 0.0)

    def of(self, value: float | None) -> float:
        """The area of a value in square points; that of a plain dot where there is none."""
        if value is None or self._high <= self._low or not self._fits(value):
            return _EQUAL
        low, high, here = (math.log(end) if self._is_log else end for end in (self._low, self._high, value))
        return _SMALLEST + (_LARGEST - _SMALLEST) * (here - low) / (high - low)

    def examples(self) -> list[float]:
        """The smallest value, the largest and one between them; none where all dots are of one size."""
        if self._high <= self._low:
            return []
        middle = math.sqrt(self._low * self._high) if self._is_log else (self._low + self._high) / 2
        return [self._low, middle, self._high]

    def _fits(self, value: float) -> bool:
        return not math.isnan(value) and (value > 0 or not self._is_log)


def _draw_legend(axes: Axes, figure: Figure, areas: Areas, front: list[Line2D]) -> None:
    sheet = sheet_of(axes)
    examples = areas.examples()
    dots = [axes.scatter([], [], s=areas.of(size), color="0.75", edgecolor="black", linewidth=0.6) for size in examples]
    texts = [f"{size:,.0f}" if size >= 1000 else f"{size:.3g}" for size in examples] + ["Pareto front"] * len(front)
    if not texts:
        return
    is_wide = sheet.get_figwidth() > _NARROW
    sheet.legend(
        [*dots, *front],
        texts,
        title=plain(areas.axis.heading) if areas.axis and examples else None,
        loc="outside right upper" if is_wide else "outside lower center",
        ncols=1 if is_wide else len(texts),
        labelspacing=1.2,
    )


def _points(figure: Figure, areas: Areas) -> list[tuple[Dot, Style, str]]:
    """The dots with their styles and roles."""
    points: list[tuple[Dot, Style, str]] = []
    for series, style in styles(figure):
        sizes = series.values.get(figure.size or "", [None] * len(series.values[figure.x]))
        places = zip(numbers(series.values[figure.x]), numbers(series.values[figure.y]), sizes, strict=True)
        for number, (x, y, size) in enumerate(places):
            if not (math.isnan(x) or math.isnan(y)):
                name = series.labels[number] if series.labels else series.title
                points.append((Dot(plain(name, 28), x, y, areas.of(size)), style, series.role))
    return points


def _draw_intervals(axes: Axes, figure: Figure) -> list[Line2D]:
    lines = []
    for series, style in styles(figure):
        (x, left, right), (y, low, high) = spread(series, figure.x), spread(series, figure.y)
        for place in range(len(x)):
            for across, up in (((left, right), (y, y)), ((x, x), (low, high))):
                ends = [values[place] for values in (*across, *up)]
                if not any(map(math.isnan, ends)) and ends != [x[place]] * 2 + [y[place]] * 2:
                    lines += axes.plot(ends[:2], ends[2:], color=style.colour, linewidth=0.7)
    return lines


def _draw_front(axes: Axes, figure: Figure, dots: Sequence[Dot]) -> list[Line2D]:
    """Draw what can be had at most at each place: a staircase, since nothing lies between two methods."""
    x_better, y_better = figure.axis(figure.x).better, figure.axis(figure.y).better
    x, y = [dot.x for dot in dots], [dot.y for dot in dots]
    front = pareto_front(x, y, x_better, y_better)
    if len(front) < 2:
        return []
    return list(
        axes.plot(
            [x[place] for place in front],
            [y[place] for place in front],
            color="0.55",
            linewidth=1,
            linestyle="--",
            drawstyle="steps-post" if x_better == "lower" else "steps-pre",
            zorder=1,
        )
    )

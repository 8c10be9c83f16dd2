"""Points of two quantities, a third as their size, those that no other point beats, and names beside them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from textwrap import fill
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from petlbench.core.plotting import plain
from petlbench.report.document import Figure
from petlbench.report.render.figures.styles import Style, numbers, outside, prepare_axis, sheet_of, spread, styles
from petlbench.statistics.ranks import fronts

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Normalize
    from matplotlib.lines import Line2D

_SMALLEST, _LARGEST, _EQUAL = 14.0, 190.0, 34.0  # areas of dots, in square points
_DISTANCES = (2.0, 7.0, 13.0, 20.0, 28.0, 38.0)  # points from the dot's edge
_DIRECTIONS = 16
_HEADING = 22  # characters on a line of the legend's title
_COVERED = 10.0
_LEAD = 10.0  # points from which on a thin line joins name and dot

# A rectangle: its lower left and its upper right corner, in points from the lower left corner of the figure.
_Box = list[float]


def draw_scatter(axes: Axes, figure: Figure) -> None:
    """Draw points with their names, the front of the best, and a legend of sizes."""
    sizes = _sizes(figure)
    points = _points(figure, sizes)
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
    _draw_legend(axes, figure, sizes, front)
    place_names(axes, [dot for dot, *_ in points], [*front, *whiskers])


def pareto_front(x: Sequence[float], y: Sequence[float], x_better: str | None, y_better: str | None) -> list[int]:
    """Positions of the points, (N,), that no other point beats in one direction without losing in the other.

    They are in the order of ``x``. ``x_better`` and ``y_better`` say which end is good, ``higher`` or ``lower``; where
    one is None, there is no front.
    """
    if x_better is None or y_better is None:
        return []
    x_sign, y_sign = (-1 if better == "higher" else 1 for better in (x_better, y_better))
    costs = {place: (x_sign * x[place], y_sign * y[place]) for place in range(len(x))}
    front = [place for place, number in fronts(costs).items() if number == 1]
    distinct = {costs[place]: place for place in reversed(front)}  # of equal points the first
    return sorted(distinct.values(), key=lambda place: x[place])


def _sizes(figure: Figure) -> Normalize | None:
    """Where values of the figure's ``size`` lie between the smallest, 0, and the largest, 1; None where all are one."""
    from matplotlib.colors import LogNorm, Normalize

    if figure.size is None:
        return None
    is_log = figure.axis(figure.size).scale == "log"
    values = [value for series in figure.series for value in numbers(series.values.get(figure.size, ()))]
    ends = [value for value in values if value > 0 or (value <= 0 and not is_log)]  # none of NaN
    return (LogNorm if is_log else Normalize)(min(ends), max(ends)) if len(set(ends)) > 1 else None


def _area(value: float | None, sizes: Normalize | None) -> float:
    """The area of a dot in square points; that of a plain one where there is no value."""
    share = math.nan if value is None or sizes is None else float(np.ma.filled(sizes(value), math.nan))
    return _EQUAL if math.isnan(share) else _SMALLEST + (_LARGEST - _SMALLEST) * share


def _draw_legend(axes: Axes, figure: Figure, sizes: Normalize | None, front: list[Line2D]) -> None:
    """Explain the smallest dot, the largest and one between them, and the front."""
    examples = [] if sizes is None else [float(sizes.inverse(share)) for share in (0, 0.5, 1)]
    dots = [
        axes.scatter([], [], s=_area(size, sizes), color="0.75", edgecolor="black", linewidth=0.6) for size in examples
    ]
    texts = [f"{size:,.0f}" if size >= 1000 else f"{size:.3g}" for size in examples] + ["Pareto front"] * len(front)
    if texts:
        where = {"labelspacing": 1.2, **outside(axes, texts)}
        heading = plain(figure.axis(figure.size).heading) if figure.size and examples else ""
        title = heading if "ncols" in where else fill(heading, _HEADING)
        sheet_of(axes).legend([*dots, *front], texts, title=title or None, **where)


def _points(figure: Figure, sizes: Normalize | None) -> list[tuple[Dot, Style, str]]:
    points: list[tuple[Dot, Style, str]] = []
    for series, style in styles(figure):
        others = series.values.get(figure.size or "", [None] * len(series.values[figure.x]))
        places = zip(numbers(series.values[figure.x]), numbers(series.values[figure.y]), others, strict=True)
        for number, (x, y, size) in enumerate(places):
            if not (math.isnan(x) or math.isnan(y)):
                name = series.labels[number] if series.labels else series.title
                points.append((Dot(plain(name, 28), x, y, _area(size, sizes)), style, series.role))
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


@dataclass(frozen=True)
class Dot:
    """A dot and its name; its place is in data units, its area in square points."""

    name: str
    x: float
    y: float
    area: float

    @property
    def radius(self) -> float:
        """In points."""
        return math.sqrt(self.area) / 2


def place_names(axes: Axes, dots: Sequence[Dot], lines: Sequence[Line2D] = ()) -> None:
    """Write the name of each dot at the nearest place that no dot and no line covers, or at the least crowded one.

    Packages that place labels either stop after a time, and draw another figure each time, or keep their distance in
    data units, which logarithmic axes distort; this one looks at places in points. The axes' limits are final.
    """
    sheet = sheet_of(axes)
    sheet.draw_without_rendering()  # only now the axes are in their place
    scale = sheet.dpi / 72
    centres = [(float(x) / scale, float(y) / scale) for x, y in (axes.transData.transform((d.x, d.y)) for d in dots)]
    covered = [_around(*centre, 2 * dot.radius, 2 * dot.radius) for centre, dot in zip(centres, dots, strict=True)]
    for line in lines:  # its parts as boxes two points thick
        corners = np.asarray(line.get_transform().transform_path(line.get_path()).vertices) / scale
        ends = pairwise(corners.tolist())
        covered += [[min(a, c) - 1, min(b, d) - 1, max(a, c) + 1, max(b, d) + 1] for (a, b), (c, d) in ends]
    inside = [float(end) / scale for end in axes.get_window_extent().extents]
    for dot, centre in zip(dots, centres, strict=True):
        name = axes.annotate(
            dot.name,
            (dot.x, dot.y),
            (0, 0),
            textcoords="offset points",
            ha="center",
            va="center",
            zorder=4,
        )
        extent = name.get_window_extent()
        width, height = extent.width / scale, extent.height / scale
        places = list(_places(dot, width, height))
        boxes = [_around(centre[0] + x, centre[1] + y, width, height) for x, y, _ in places]
        # Square points that are covered, or outside, weigh far more than points of distance.
        outside = _overlaps(boxes, boxes).diagonal() - _overlaps(boxes, [inside])[:, 0]
        costs = _COVERED * (_overlaps(boxes, covered).sum(axis=1) + 4 * outside) + [distance for *_, distance in places]
        nearest = int(costs.argmin())
        x, y, distance = places[nearest]
        covered.append(boxes[nearest])
        name.set_position((x, y))
        if distance > _LEAD:
            # A thin line joins the dot with the nearest edge of its name.
            edge = math.copysign(max(abs(x) - width / 2, 0.0), x), math.copysign(max(abs(y) - height / 2, 0.0), y)
            arrow = {"arrowstyle": "-", "color": "0.6", "linewidth": 0.5, "shrinkA": 0, "shrinkB": dot.radius}
            axes.annotate("", (dot.x, dot.y), edge, textcoords="offset points", arrowprops=arrow)


def _around(x: float, y: float, width: float, height: float) -> _Box:
    return [x - width / 2, y - height / 2, x + width / 2, y + height / 2]


def _overlaps(boxes: Sequence[_Box], others: Sequence[_Box]) -> NDArray[np.float64]:
    """Square points that each box (rows) has in common with each other one (columns)."""
    first, second = np.array(boxes)[:, None], np.array(others)[None]
    sides = np.minimum(first[..., 2:], second[..., 2:]) - np.maximum(first[..., :2], second[..., :2])
    return np.asarray(sides.clip(0).prod(axis=-1))


def _places(dot: Dot, width: float, height: float) -> Iterator[tuple[float, float, float]]:
    """Where a name could stand: its centre relative to the dot's, and its distance; the nearest first."""
    for distance in _DISTANCES:
        for step in range(_DIRECTIONS):
            angle = 2 * math.pi * step / _DIRECTIONS
            away = dot.radius + distance
            yield math.cos(angle) * (away + width / 2), math.sin(angle) * (away + height / 2), distance

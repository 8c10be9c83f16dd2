"""Names beside dots, where they cover neither dots nor one another."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from petlbench.report.render.figures.styles import sheet_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.lines import Line2D

__all__ = ["Dot", "place_names"]

_SIZE = 7  # points
_DISTANCES = (2.0, 7.0, 13.0, 20.0, 28.0, 38.0)  # points from the dot's edge
_DIRECTIONS = 16
_COVERED = 10.0
_LEAD = 10.0  # points from which on a thin line joins name and dot

# A rectangle: its lower left and its upper right corner, in points from the lower left corner of the figure.
_Box = list[float]


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
    """Write the name of each dot at the nearest place that is free, or else at the least crowded one.

    Packages that place labels either stop after a time, and draw another figure each time, or keep their distance in
    data units, which logarithmic axes distort; this one looks at places in points.

    Args:
        axes: Their limits are final.
        dots: The dots; names keep off all of them.
        lines: Lines that names keep off too; their parts run along the axes.
    """
    sheet = sheet_of(axes)
    sheet.draw_without_rendering()  # only now the axes are in their place
    scale = sheet.dpi / 72
    centres = [_points(axes, dot, scale) for dot in dots]
    covered = [_around(*centre, 2 * dot.radius, 2 * dot.radius) for centre, dot in zip(centres, dots, strict=True)]
    covered += [segment for line in lines for segment in _segments(line, scale)]
    inside = [float(end) / scale for end in axes.get_window_extent().extents]
    for dot, centre in zip(dots, centres, strict=True):
        name = axes.annotate(
            dot.name,
            (dot.x, dot.y),
            (0, 0),
            textcoords="offset points",
            ha="center",
            va="center",
            fontsize=_SIZE,
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


def _points(axes: Axes, dot: Dot, scale: float) -> tuple[float, float]:
    x, y = axes.transData.transform((dot.x, dot.y))
    return float(x) / scale, float(y) / scale


def _segments(line: Line2D, scale: float) -> Iterator[_Box]:
    """The parts of a line as boxes two points thick."""
    corners = np.asarray(line.get_transform().transform_path(line.get_path()).vertices) / scale
    for (x0, y0), (x1, y1) in pairwise(corners.tolist()):
        yield [min(x0, x1) - 1, min(y0, y1) - 1, max(x0, x1) + 1, max(y0, y1) + 1]

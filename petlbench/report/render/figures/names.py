"""Names beside dots, where they cover neither dots nor one another."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

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


@dataclass(frozen=True)
class Dot:
    """A dot and its name.

    Args:
        name: What it is called.
        x: In data units.
        y: In data units.
        area: In square points.
    """

    name: str
    x: float
    y: float
    area: float

    @property
    def radius(self) -> float:
        """In points."""
        return math.sqrt(self.area) / 2


@dataclass(frozen=True)
class _Box:
    """A rectangle in points from the lower left corner of the figure."""

    x0: float
    y0: float
    x1: float
    y1: float

    @classmethod
    def around(cls, x: float, y: float, width: float, height: float) -> _Box:
        return cls(x - width / 2, y - height / 2, x + width / 2, y + height / 2)

    @property
    def area(self) -> float:
        return (self.x1 - self.x0) * (self.y1 - self.y0)

    def overlap(self, other: _Box) -> float:
        width = min(self.x1, other.x1) - max(self.x0, other.x0)
        height = min(self.y1, other.y1) - max(self.y0, other.y0)
        return width * height if width > 0 and height > 0 else 0.0


@dataclass(frozen=True)
class _Place:
    """Where a name could stand: its centre relative to the dot's, the box it fills and its distance from the dot."""

    x: float
    y: float
    box: _Box
    distance: float

    def cost(self, taken: Sequence[_Box], room: _Box) -> float:
        """Square points that are covered, or outside, weigh far more than points of distance."""
        covered = sum(self.box.overlap(other) for other in taken)
        return _COVERED * (covered + 4 * (self.box.area - self.box.overlap(room))) + self.distance


def place_names(axes: Axes, dots: Sequence[Dot], lines: Sequence[Line2D] = ()) -> None:
    """Write the name of each dot at the nearest place that is free, or else at the least crowded one.

    Packages that place labels either stop after a time, and draw another figure each time, or keep their distance in
    data units, which logarithmic axes distort; this one looks at places in points.

    Args:
        axes: Their limits are final.
        dots: The dots.
        lines: Lines that names keep off; their parts run along the axes.
    """
    sheet = sheet_of(axes)
    sheet.draw_without_rendering()  # only now the axes are in their place
    scale = sheet.dpi / 72
    centres = [_points(axes, dot, scale) for dot in dots]
    taken = [_Box.around(*centre, 2 * dot.radius, 2 * dot.radius) for centre, dot in zip(centres, dots, strict=True)]
    taken += [segment for line in lines for segment in _segments(line, scale)]
    room = _Box(*(float(end) / scale for end in axes.get_window_extent().extents))
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
        candidates = _candidates(dot, centre, extent.width / scale, extent.height / scale)
        free = min(candidates, key=lambda place: place.cost(taken, room))
        taken.append(free.box)
        name.set_position((free.x, free.y))
        if free.distance > _LEAD:
            _lead(axes, dot, free)


def _lead(axes: Axes, dot: Dot, place: _Place) -> None:
    """Join a dot with the nearest edge of a name that stands far from it."""
    half_width, half_height = (place.box.x1 - place.box.x0) / 2, (place.box.y1 - place.box.y0) / 2
    x = math.copysign(max(abs(place.x) - half_width, 0.0), place.x)
    y = math.copysign(max(abs(place.y) - half_height, 0.0), place.y)
    arrow = {"arrowstyle": "-", "color": "0.6", "linewidth": 0.5, "shrinkA": 0, "shrinkB": dot.radius}
    axes.annotate("", (dot.x, dot.y), (x, y), textcoords="offset points", arrowprops=arrow)


def _candidates(dot: Dot, centre: tuple[float, float], width: float, height: float) -> Iterator[_Place]:
    """Places around a dot, the nearest first and of those the one on the right."""
    for distance in _DISTANCES:
        for step in range(_DIRECTIONS):
            angle = 2 * math.pi * step / _DIRECTIONS
            away = dot.radius + distance
            x, y = math.cos(angle) * (away + width / 2), math.sin(angle) * (away + height / 2)
            yield _Place(x, y, _Box.around(centre[0] + x, centre[1] + y, width, height), distance)


def _points(axes: Axes, dot: Dot, scale: float) -> tuple[float, float]:
    x, y = axes.transData.transform((dot.x, dot.y))
    return float(x) / scale, float(y) / scale


def _segments(line: Line2D, scale: float) -> Iterator[_Box]:
    """The parts of a line as boxes two points thick."""
    import numpy as np

    corners = np.asarray(line.get_transform().transform_path(line.get_path()).vertices) / scale
    for (x0, y0), (x1, y1) in pairwise(corners.tolist()):
        yield _Box(min(x0, x1) - 1, min(y0, y1) - 1, max(x0, x1) + 1, max(y0, y1) + 1)

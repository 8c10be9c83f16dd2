"""The critical-difference diagram.

Source: J. Demšar, "Statistical Comparisons of Classifiers over Multiple Data Sets", JMLR 7 (2006), figure 1.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from petlbench.core.plotting import plain
from petlbench.report.document import Figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["draw_ranks"]

_STEP = 0.5  # between two names, in the unit of the figure's height
_BAR = 0.22  # between two bars that join what cannot be told apart


def draw_ranks(axes: Axes, figure: Figure) -> None:
    """Draw mean ranks on a line, with bars that join methods whose ranks cannot be told apart.

    Of the figure's marks, ``cliques`` holds the keys (or, of a single series, the labels) of those that are joined.
    """
    ranks = _ranks(figure)
    cliques = [[ranks[key][1] for key in clique if key in ranks] for clique in figure.marks.get("cliques", ())]
    cliques = [clique for clique in cliques if len(clique) > 1]
    last = max(2, math.ceil(max(rank for _, rank in ranks.values())))
    depth = 0.35 + _BAR * len(cliques)
    in_order = sorted(ranks.values(), key=lambda pair: pair[1])
    half = math.ceil(len(in_order) / 2)
    _draw_line(axes, last)
    for row, (name, rank) in enumerate(in_order[:half]):
        _draw_name(axes, name, rank, 1, depth + _STEP * row)
    for row, (name, rank) in enumerate(reversed(in_order[half:])):
        _draw_name(axes, name, rank, last, depth + _STEP * row)
    for row, clique in enumerate(cliques):
        height = 0.3 + _BAR * row
        axes.plot([min(clique) - 0.04, max(clique) + 0.04], [height, height], color="black", linewidth=2.5)
    _draw_difference(axes, figure.marks.get("critical_difference"))
    axes.set_ylim(depth + _STEP * half, -1.3)
    margin = (last - 1) * 0.35
    axes.set_xlim(1 - margin, last + margin)
    axes.set_axis_off()


def _ranks(figure: Figure) -> dict[str, tuple[str, float]]:
    """Name and rank of each by key."""
    ranks = {}
    for series in figure.series:
        for number, rank in enumerate(series.values["rank"]):
            label = series.labels[number] if series.labels else ""
            if rank is not None:
                ranks[label or series.key] = (label or series.title, float(rank))
    return ranks


def _draw_line(axes: Axes, last: int) -> None:
    axes.plot([1, last], [0, 0], color="black", linewidth=0.8)
    for rank in range(1, last + 1):
        axes.plot([rank, rank], [0, -0.12], color="black", linewidth=0.8)
        axes.text(rank, -0.2, str(rank), ha="center", va="bottom", fontsize=7)


def _draw_name(axes: Axes, name: str, rank: float, side: float, height: float) -> None:
    """Lead a line from a rank down and out to its name, beyond the first rank or beyond the last."""
    is_left = side == 1
    away, align = (-0.08, "right") if is_left else (0.08, "left")
    axes.plot([rank, rank, side + away], [0, height, height], color="0.3", linewidth=0.7)
    axes.text(side + 2 * away, height, f"{plain(name)} ({rank:.2f})", ha=align, va="center", fontsize=7)


def _draw_difference(axes: Axes, difference: float | None) -> None:
    if difference is None:
        return
    axes.errorbar([1 + difference / 2], [-0.85], xerr=difference / 2, color="black", capsize=3, elinewidth=1)
    axes.text(1 + difference / 2, -0.95, f"critical difference {difference:.2f}", ha="center", va="bottom", fontsize=7)

"""Painters of figures, one a kind: lines, bars, intervals, confusion matrices, critical differences."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from petlbench.core.plotting import plain
from petlbench.report.document import Figure
from petlbench.report.render.figures.styles import (
    heed_marks,
    numbers,
    place_legend,
    prepare_axis,
    sheet_of,
    spread,
    styles,
    whiskers,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MARKS = 10  # markers on a line, and ticks at the places of values; more would hide it
_MOST_SLANTED = 25  # labels; more of them stand upright
_STEP = 0.5  # between two names, in the unit of the figure's height
_DARK = 0.75  # share of a row whose shade takes white type
_BAR = 0.22  # between two bars that join what cannot be told apart


def draw_lines(axes: Axes, figure: Figure) -> None:
    """Draw one line a series, with a band where its values have intervals.

    The mark ``square`` gives both axes the same scale, as a calibration plot has it.
    """
    from matplotlib.ticker import FixedLocator, MaxNLocator, NullLocator

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
    are_whole = all(float(x).is_integer() for x in places)
    if are_whole and len(places) <= _MARKS:
        axes.xaxis.set_major_locator(FixedLocator(places))
        axes.xaxis.set_minor_locator(NullLocator())
    elif are_whole and figure.axis(figure.x).scale == "linear":
        axes.xaxis.set_major_locator(MaxNLocator("auto", integer=True))
    heed_marks(axes, figure, "y")
    if figure.marks.get("square"):
        axes.set_aspect("equal", adjustable="box")
    if len(figure.series) > 1:
        place_legend(axes)


def draw_bars(axes: Axes, figure: Figure) -> None:
    """Draw upright bars for each label, one a series, side by side or stacked; without labels, one for each series."""
    labels = next((list(series.labels) for series in figure.series if series.labels), [])
    stacked = bool(figure.marks.get("stacked"))
    side_by_side = len(figure.series) if labels and not stacked else 1
    width = 0.8 / side_by_side
    tops = [0.0] * len(labels)
    for number, (series, style) in enumerate(styles(figure)):
        heights = numbers(series.values[figure.y])
        start = number * width - 0.4 + width / 2 if side_by_side > 1 else 0 if labels else number
        places = [start + step for step in range(len(heights))]
        axes.bar(
            places,
            heights,
            width,
            bottom=tops if stacked else None,
            label=plain(series.title),
            color=style.colour,
            hatch=style.hatch,
            edgecolor="white",
            linewidth=0.5,
        )
        axes.errorbar(
            places, heights, yerr=whiskers(series, figure.y), fmt="none", ecolor="black", elinewidth=0.8, capsize=2
        )
        tops = [top + height for top, height in zip(tops, heights, strict=False)]
    _write_labels(axes, labels or [series.title for series in figure.series])
    prepare_axis(axes, "y", figure.axis(figure.y))
    heed_marks(axes, figure, "y")
    if labels and len(figure.series) > 1:
        place_legend(axes, few=0)


def _write_labels(axes: Axes, labels: Sequence[str]) -> None:
    axes.set_xticks(range(len(labels)), [plain(label, 24) for label in labels])
    if sum(map(len, labels)) > sheet_of(axes).get_figwidth() * 11:
        angle = 35 if len(labels) <= _MOST_SLANTED else 90
        axes.tick_params("x", rotation=angle)
        for text in axes.get_xticklabels():
            text.set(ha="right" if angle < 90 else "center", rotation_mode="anchor" if angle < 90 else "default")


def draw_intervals(axes: Axes, figure: Figure) -> None:
    """Draw each value of the figure's ``x`` as a point with its interval, the first on top."""
    names: list[str] = []
    for series, style in styles(figure):
        values, low, high = spread(series, figure.x)
        for number, value in enumerate(values):
            row = len(names)
            axes.plot([low[number], high[number]], [row, row], color=style.colour, solid_capstyle="butt")
            axes.plot([value], [row], color=style.colour, marker=style.marker or "|", linestyle="none")
            names.append(series.labels[number] if series.labels else series.title)
    axes.set_yticks(range(len(names)), [plain(name) for name in names])
    axes.set_ylim(len(names) - 0.5, -0.5)
    heed_marks(axes, figure, "x")
    prepare_axis(axes, "x", figure.axis(figure.x))
    axes.grid(axis="y", color="0.92", linewidth=0.6)
    axes.set_axisbelow(True)


def draw_matrix(axes: Axes, figure: Figure) -> None:
    """Draw counts as numbers, on shades of what share of its row each is."""
    import numpy as np

    series = figure.series[0]
    counts = np.array([series.values[str(row)] for row in range(len(series.values))], dtype=np.float64)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for (row, column), count in np.ndenumerate(counts):
        colour = "white" if shares[row, column] > _DARK else "black"
        axes.text(column, row, f"{count:,.0f}", ha="center", va="center", color=colour)
    labels = [plain(label, 18) for label in series.labels] or [str(row) for row in range(len(counts))]
    axes.set_xticks(range(len(labels)), labels, rotation=35, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(labels)), labels)
    axes.set_xlabel(plain(figure.axis(figure.x).heading, 80))
    axes.set_ylabel(plain(figure.axis(figure.y).heading, 80))
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    bar = axes.figure.colorbar(image, ax=axes, shrink=0.8)
    bar.set_label("share of the true class")
    bar.outline.set_visible(False)


def draw_ranks(axes: Axes, figure: Figure) -> None:
    """Draw mean ranks on a line, with bars that join methods whose ranks cannot be told apart.

    Source: J. Demšar, "Statistical Comparisons of Classifiers over Multiple Data Sets", JMLR 7 (2006), figure 1.
    Of the figure's marks, ``cliques`` holds the keys of those that are joined.
    """
    ranks = {
        series.key: (series.title, float(rank))
        for series in figure.series
        for rank in series.values["rank"]
        if rank is not None
    }
    cliques = [[ranks[key][1] for key in clique if key in ranks] for clique in figure.marks.get("cliques", ())]
    cliques = [clique for clique in cliques if len(clique) > 1]
    last = max(2, math.ceil(max(rank for _, rank in ranks.values())))
    depth = 0.35 + _BAR * len(cliques)
    in_order = sorted(ranks.values(), key=lambda pair: pair[1])
    half = math.ceil(len(in_order) / 2)
    axes.plot([1, last], [0, 0], color="black", linewidth=0.8)
    for mark in range(1, last + 1):
        axes.plot([mark, mark], [0, -0.12], color="black", linewidth=0.8)
        axes.text(mark, -0.2, str(mark), ha="center", va="bottom")
    for row, (name, rank) in enumerate(in_order[:half]):
        _draw_name(axes, name, rank, 1, depth + _STEP * row)
    for row, (name, rank) in enumerate(reversed(in_order[half:])):
        _draw_name(axes, name, rank, last, depth + _STEP * row)
    for row, clique in enumerate(cliques):
        height = 0.3 + _BAR * row
        axes.plot([min(clique) - 0.04, max(clique) + 0.04], [height, height], color="black", linewidth=2.5)
    if (gap := figure.marks.get("critical_difference")) is not None:
        axes.errorbar([1 + gap / 2], [-0.85], xerr=gap / 2, color="black", capsize=3, elinewidth=1)
        axes.text(1 + gap / 2, -0.95, f"critical difference {gap:.2f}", ha="center", va="bottom")
    axes.set_ylim(depth + _STEP * half, -1.3)
    margin = (last - 1) * 0.35
    axes.set_xlim(1 - margin, last + margin)
    axes.set_axis_off()


def _draw_name(axes: Axes, name: str, rank: float, side: float, height: float) -> None:
    """Lead a line from a rank down and out to its name, beyond the first rank or beyond the last."""
    is_left = side == 1
    away, align = (-0.08, "right") if is_left else (0.08, "left")
    axes.plot([rank, rank, side + away], [0, height, height], color="0.3", linewidth=0.7)
    axes.text(side + 2 * away, height, f"{plain(name)} ({rank:.2f})", ha=align, va="center")

"""Bars with intervals, and values with intervals one below the other."""

from __future__ import annotations

from typing import TYPE_CHECKING

from petlbench.core.plotting import plain
from petlbench.report.document import Figure
from petlbench.report.render.figures.looks import looks, numbers, place_legend, prepare_axis, sheet_of, spread, whiskers

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["draw_bars", "draw_intervals"]


def draw_bars(axes: Axes, figure: Figure) -> None:
    """Draw a group of upright bars for each label, one bar a series; without labels, one bar for each series.

    Args:
        axes: Where.
        figure: What; the height is its ``y``.
    """
    labelled = [one.labels for one in figure.series if one.labels]
    labels = list(labelled[0]) if labelled else [one.title for one in figure.series]
    width = 0.8 / len(figure.series) if labelled else 0.8
    for number, (one, look) in enumerate(looks(figure)):
        start = number * width - 0.4 + width / 2 if labelled else number
        heights = numbers(one.values[figure.y])
        places = [start + step for step in range(len(heights))]
        axes.bar(
            places,
            heights,
            width,
            label=plain(one.title),
            color=look.colour,
            hatch=look.hatch,
            edgecolor="white",
            linewidth=0.5,
        )
        axes.errorbar(
            places, heights, yerr=whiskers(one, figure.y), fmt="none", ecolor="black", elinewidth=0.8, capsize=2
        )
    axes.set_xticks(range(len(labels)), [plain(label, 24) for label in labels])
    if sum(map(len, labels)) > sheet_of(axes).get_figwidth() * 11:
        axes.tick_params("x", rotation=35)
        for text in axes.get_xticklabels():
            text.set(ha="right", rotation_mode="anchor")
    prepare_axis(axes, "y", figure.axis(figure.y))
    if labelled and len(figure.series) > 1:
        place_legend(axes, few=0)


def draw_intervals(axes: Axes, figure: Figure) -> None:
    """Draw each value as a point with its interval, the first on top.

    Args:
        axes: Where.
        figure: What; the value is its ``x``. Its mark ``zero`` is drawn as a line.
    """
    names: list[str] = []
    for one, look in looks(figure):
        values, low, high = spread(one, figure.x)
        for number, value in enumerate(values):
            row = len(names)
            axes.plot([low[number], high[number]], [row, row], color=look.colour, solid_capstyle="butt")
            axes.plot([value], [row], color=look.colour, marker=look.marker or "|", linestyle="none")
            names.append(one.labels[number] if one.labels else one.title)
    axes.set_yticks(range(len(names)), [plain(name) for name in names])
    axes.set_ylim(len(names) - 0.5, -0.5)
    if (zero := figure.marks.get("zero")) is not None:
        axes.axvline(zero, color="0.45", linewidth=0.8, linestyle="--", zorder=0)
    prepare_axis(axes, "x", figure.axis(figure.x))
    axes.grid(axis="y", color="0.92", linewidth=0.6)
    axes.set_axisbelow(True)

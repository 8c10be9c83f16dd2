"""Bars with intervals, and values with intervals one below the other."""

from __future__ import annotations

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

__all__ = ["draw_bars", "draw_intervals"]

_MOST_SLANTED = 25  # labels; more of them stand upright


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

"""Confusion matrices."""

from __future__ import annotations

from typing import TYPE_CHECKING

from petlbench.core.plotting import plain
from petlbench.report.document import Figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["draw_matrix"]


def draw_matrix(axes: Axes, figure: Figure) -> None:
    """Draw counts as numbers, on shades of what share of its row each is."""
    import numpy as np

    series = figure.series[0]
    counts = np.array([series.values[str(row)] for row in range(len(series.values))], dtype=np.float64)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for (row, column), count in np.ndenumerate(counts):
        colour = "white" if shares[row, column] > 0.55 else "black"
        axes.text(column, row, f"{count:,.0f}", ha="center", va="center", color=colour, fontsize=7)
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

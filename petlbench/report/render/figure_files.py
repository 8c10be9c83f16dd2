"""The figures of a report as files that go into a paper: PNG, PDF or SVG, by the file's ending."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from petlbench.core.errors import InputError
from petlbench.core.plotting import figure_file
from petlbench.report.document import Document, Figure
from petlbench.report.registry import ReportFormat
from petlbench.report.render.figures.bars import draw_bars, draw_intervals
from petlbench.report.render.figures.lines import draw_lines
from petlbench.report.render.figures.matrix import draw_matrix
from petlbench.report.render.figures.ranks import draw_ranks
from petlbench.report.render.figures.scatter import draw_scatter

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["PDF", "PNG", "SVG", "draw", "drawn"]

_PAINTERS: Mapping[str, Callable[[Axes, Figure], None]] = {
    "scatter": draw_scatter,
    "lines": draw_lines,
    "bars": draw_bars,
    "intervals": draw_intervals,
    "matrix": draw_matrix,
    "ranks": draw_ranks,
}
# Inches. A column of IEEE's journals is 3.5 wide and the page 7.16; Springer's page is 4.8.
_WIDTHS = {1: 3.4, 2: 7.0}
_STYLE: Any = {
    "font.size": 8,
    "axes.linewidth": 0.6,
    "axes.titlesize": 8,
    "axes.labelsize": 8,
    "axes.titlelocation": "left",
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "legend.fontsize": 7,
    "legend.title_fontsize": 7,
    "legend.frameon": False,
    "lines.linewidth": 1.2,
    "lines.markersize": 4.5,
    "hatch.linewidth": 0.6,
    "figure.constrained_layout.use": True,
    "savefig.bbox": "standard",
    "savefig.dpi": 300,
}


def draw(figure: Figure, file: Path, *, columns: Literal[1, 2] = 2) -> None:
    """Draw a figure to a file, whole or not at all; the same figure makes the same file.

    A paper's caption stands below its figure, so title and caption are not drawn.

    Args:
        figure: What is drawn.
        file: Where to; its ending, ``.png``, ``.pdf`` or ``.svg``, decides the format. Its folder exists.
        columns: Columns of a paper's page that it is wide: 3.4 or 7.0 inches.
    """
    width = _WIDTHS[columns]
    with figure_file(file, (width, _height(figure, width)), _STYLE) as sheet:
        axes = sheet.add_subplot()
        if any(value is not None for series in figure.series for values in series.values.values() for value in values):
            _PAINTERS[figure.kind](axes, figure)
        else:
            axes.set_axis_off()
            axes.text(0.5, 0.5, "no values yet", ha="center", va="center", transform=axes.transAxes)


def drawn(figure: Figure, suffix: str) -> bytes:
    """What `draw` writes to a file of that ending."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / f"figure{suffix}"
        draw(figure, file)
        return file.read_bytes()


def _render(document: Document, suffix: str) -> Mapping[str, bytes]:
    figures = document.figures
    if not figures:
        raise InputError(
            f"the report '{document.name}' has no figure of these results",
            hint="choose another format, for example --format md",
            kind="no_figure",
        )
    return {figure.key if len(figures) > 1 else "": drawn(figure, suffix) for figure in figures}


PNG = ReportFormat(name="png", title="PNG", suffix=".png", render=partial(_render, suffix=".png"), is_text=False)
PDF = ReportFormat(name="pdf", title="PDF", suffix=".pdf", render=partial(_render, suffix=".pdf"), is_text=False)
SVG = ReportFormat(name="svg", title="SVG", suffix=".svg", render=partial(_render, suffix=".svg"), is_text=False)


def _height(figure: Figure, width: float) -> float:
    """Inches that a figure of this width needs."""
    points = sum(max(1, len(series.labels)) for series in figure.series)
    if figure.kind == "matrix":
        return 0.8 + 0.22 * max(5, points)
    if figure.kind in {"intervals", "ranks"}:
        return 0.6 + 0.17 * max(3, points)
    return 2.7 if width < 5 else 3.4

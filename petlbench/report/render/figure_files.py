"""The figures of a report as files that go into a paper: PNG, PDF or SVG, by the file's ending."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from petlbench.core.errors import InputError
from petlbench.core.plotting import figure_file
from petlbench.report.document import Figure
from petlbench.report.formats import Document, ReportFormat
from petlbench.report.render.figures.painters import draw_bars, draw_intervals, draw_lines, draw_matrix, draw_ranks
from petlbench.report.render.figures.scatter import draw_scatter

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_PAINTERS: Mapping[str, Callable[[Axes, Figure], None]] = {
    "scatter": draw_scatter,
    "lines": draw_lines,
    "bars": draw_bars,
    "intervals": draw_intervals,
    "matrix": draw_matrix,
    "ranks": draw_ranks,
}
_WIDTH = 7.0  # inches: the page of IEEE's journals is 7.16 wide
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


def draw(figure: Figure, file: Path) -> None:
    """Draw a figure to a file, whole or not at all; the same figure makes the same file.

    The file's ending, ``.png``, ``.pdf`` or ``.svg``, decides the format; its folder exists. A paper's caption stands
    below its figure, so title and caption are not drawn.
    """
    with figure_file(file, (_WIDTH, _height(figure)), _STYLE) as sheet:
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


def _height(figure: Figure) -> float:
    points = sum(max(1, len(series.labels)) for series in figure.series)
    if figure.kind == "matrix":
        return 0.8 + 0.22 * max(5, points)
    if figure.kind in {"intervals", "ranks"}:
        return 0.6 + 0.17 * max(3, points)
    return 3.4

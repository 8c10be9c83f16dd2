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
from petlbench.report.look import NARROW, Look
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
_MILLIMETRES = 25.4  # of an inch
_STYLE: Any = {
    "axes.linewidth": 0.6,
    "axes.titlelocation": "left",
    "legend.frameon": False,
    "lines.linewidth": 1.2,
    "lines.markersize": 4.5,
    "hatch.linewidth": 0.6,
    "figure.constrained_layout.use": True,
    "savefig.bbox": "standard",
    "savefig.dpi": 300,
}
_TYPE = (
    *("font.size", "axes.titlesize", "axes.labelsize", "xtick.labelsize", "ytick.labelsize"),
    *("legend.fontsize", "legend.title_fontsize"),
)


def draw(figure: Figure, file: Path, look: Look | None = None) -> None:
    """Draw a figure to a file, whole or not at all; the same figure makes the same file.

    The file's ending, ``.png``, ``.pdf`` or ``.svg``, decides the format; its folder exists. A paper's caption stands
    below its figure, so title and caption are not drawn. All type has the size of the look's font.
    """
    look = look or Look.of()
    figure, style = look.dress(figure), _STYLE | dict.fromkeys(_TYPE, look.font)
    with figure_file(file, (look.width / _MILLIMETRES, _height(figure, look)), style) as sheet:
        axes = sheet.add_subplot()
        if any(value is not None for series in figure.series for values in series.values.values() for value in values):
            _PAINTERS[figure.kind](axes, figure)
        else:
            axes.set_axis_off()
            axes.text(0.5, 0.5, "no values yet", ha="center", va="center", transform=axes.transAxes)


def drawn(figure: Figure, suffix: str, look: Look | None = None) -> bytes:
    """What `draw` writes to a file of that ending."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / f"figure{suffix}"
        draw(figure, file, look)
        return file.read_bytes()


def _render(document: Document, suffix: str) -> Mapping[str, bytes]:
    figures = document.figures
    if not figures:
        raise InputError(
            f"the report '{document.name}' has no figure of these results",
            hint="choose another format, for example --format md",
            kind="no_figure",
        )
    return {figure.key if len(figures) > 1 else "": drawn(figure, suffix, document.look) for figure in figures}


PNG = ReportFormat(name="png", title="PNG", suffix=".png", render=partial(_render, suffix=".png"), is_text=False)
PDF = ReportFormat(name="pdf", title="PDF", suffix=".pdf", render=partial(_render, suffix=".pdf"), is_text=False)
SVG = ReportFormat(name="svg", title="SVG", suffix=".svg", render=partial(_render, suffix=".svg"), is_text=False)


def _height(figure: Figure, look: Look) -> float:
    """In inches: by the number of lines of what has lines, else by the width, with room for a legend below."""
    points, line = sum(max(1, len(series.labels)) for series in figure.series), look.font / 72
    if figure.kind == "matrix":
        return 0.8 + 2 * line * max(5, points)
    if figure.kind in {"intervals", "ranks"}:
        return 0.6 + 1.5 * line * max(3, points)
    if look.width >= NARROW:
        return max(2.2, 0.6 * look.width / _MILLIMETRES)
    entries = 4 if figure.kind == "scatter" else len(figure.series)
    return 0.8 * look.width / _MILLIMETRES + 1.6 * line * (entries if len(figure.series) > 1 else 0)

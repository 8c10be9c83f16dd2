"""What all figures have in common: colours, marks, and files that are whole and the same each time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from petlbench.core.files import write_atomically
from petlbench.core.text import printable

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#A65628", "#9467BD", "#999933")
"""Colours that people tell apart who see no red or no green: M. Okabe and K. Ito, "Color universal design" (2008).

In the place of their black, and beyond, are three that stand out from white and from nearly black pages alike. Nine
colours and ten marks have no common factor: ninety series differ in one of the two.
"""

MARKERS = "osD^vPX*<>"
LINES: tuple[Any, ...] = ("-", "--", "-.", ":", (0, (5, 1)), (0, (3, 1, 1, 1, 1, 1)))
HATCHES = ("", "///", "...", "xxx", "\\\\\\")

FORMATS: Mapping[str, Mapping[str, None]] = {".png": {}, ".pdf": {"CreationDate": None}, ".svg": {"Date": None}}
"""Endings of figure files, each with what its format calls the time of writing: it is left out, so that the same
figure makes the same file."""

# Type 42 puts the fonts themselves into a PDF; the salt makes the names inside an SVG the same each time.
STYLE: Any = {
    "pdf.fonttype": 42,
    "svg.hashsalt": "petlbench",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "savefig.bbox": "tight",
    "savefig.dpi": 200,
}


@contextmanager
def figure_file(file: Path, inches: tuple[float, float], style: Mapping[str, Any] | None = None) -> Iterator[Figure]:
    """Give a figure to draw on; when the block ends well it is written, whole or not at all.

    Args:
        file: Where to; its ending is one of `FORMATS`, its folder exists.
        inches: Width and height.
        style: matplotlib's settings that differ from `STYLE`.
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure

    suffix = file.suffix.lower()
    settings: Any = {**STYLE, **(style or {})}
    with mpl.rc_context(settings):
        figure = Figure(figsize=inches)
        yield figure
        with write_atomically(file) as temporary:
            figure.savefig(temporary, format=suffix[1:], metadata=dict(FORMATS[suffix]))


def plain(text: str, longest: int = 40) -> str:
    """Keep matplotlib from reading formulas into a name, and long names from taking the figure."""
    text = printable(text)
    short = text if len(text) <= longest else text[: longest - 1] + "…"
    return short.replace("$", r"\$")

"""The figures of an audit, as SVG that takes its text colour from the page around it."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from petlbench.audit.baselines import Baseline
from petlbench.audit.confounders import Confound
from petlbench.audit.findings import TOO_EASY
from petlbench.core.plotting import COLOURS, HATCHES, plain

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["draw_baselines", "draw_confound", "draw_strengths"]

# Black, the last, would not be seen on a dark page.
_COLOURS = (*COLOURS[:-1], "#999999")
_HATCHES = HATCHES[:4]
# Stands for the page's text colour, and is no colour of the figures.
_INK = "#010203"
_STYLE: Any = {
    "svg.hashsalt": "petlbench",
    "font.size": 9,
    "text.color": _INK,
    "axes.edgecolor": _INK,
    "axes.labelcolor": _INK,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "hatch.color": "white",
}


def draw_baselines(baselines: Sequence[Baseline]) -> str:
    """Draw the AUC of each baseline with its interval; those that do not look at the picture are squares."""
    shown = [one for one in baselines if one.auc is not None]
    with _canvas((7.0, 1.1 + 0.32 * len(shown))) as (axes, svg):
        for row, one in enumerate(shown):
            auc, low, high = one.auc or 0.0, one.low or 0.0, one.high or 0.0
            colour = _COLOURS[0] if one.looks else _COLOURS[1]
            axes.plot([low, high], [row, row], color=colour, linewidth=2)
            axes.plot([auc], [row], marker="o" if one.looks else "s", color=colour, linestyle="none")
        axes.axvline(TOO_EASY, color=_INK, linewidth=0.8, linestyle="--")
        axes.set_yticks(range(len(shown)), [plain(one.name) for one in shown])
        axes.set_ylim(len(shown) - 0.5, -0.5)
        axes.set_xlim(min([0.45, *(one.low or 0.0 for one in shown)]), 1.005)
        axes.set_xlabel("cross-validated AUC with its 95 % interval")
    return svg.text


def draw_strengths(confounds: Sequence[Confound]) -> str:
    """Draw Cramér's V of every column."""
    with _canvas((7.0, 1.1 + 0.28 * len(confounds))) as (axes, svg):
        axes.barh(range(len(confounds)), [one.cramers_v for one in confounds], color=_COLOURS[0], height=0.6)
        axes.set_yticks(range(len(confounds)), [plain(one.column) for one in confounds])
        axes.set_ylim(len(confounds) - 0.5, -0.5)
        axes.set_xlim(0, 1)
        axes.set_xlabel("Cramér's V of the column with the class")
    return svg.text


def draw_confound(confound: Confound, classes: Sequence[str]) -> str:
    """Draw for each class which share of its images has which value of a column."""
    totals = [max(1, sum(row[label] for row in confound.counts)) for label in range(len(classes))]
    with _canvas((7.0, 1.1 + 0.3 * len(classes))) as (axes, svg):
        left = [0.0] * len(classes)
        for number, (name, counts) in enumerate(zip(confound.rows, confound.counts, strict=True)):
            widths = [count / total for count, total in zip(counts, totals, strict=True)]
            axes.barh(
                range(len(classes)),
                widths,
                left=left,
                label=plain(name),
                color=_COLOURS[number % len(_COLOURS)],
                hatch=_HATCHES[number // len(_COLOURS) % len(_HATCHES)],
                height=0.7,
            )
            left = [start + width for start, width in zip(left, widths, strict=True)]
        axes.set_yticks(range(len(classes)), [plain(name) for name in classes])
        axes.set_ylim(len(classes) - 0.5, -0.5)
        axes.set_xlim(0, 1)
        axes.set_xlabel("share of the class")
        axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1), frameon=False)
    return svg.text


class _Svg:
    text = ""


@contextmanager
def _canvas(inches: tuple[float, float]) -> Iterator[tuple[Axes, _Svg]]:
    """Give axes to draw on; when the block has ended, the text of the figure is there."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    svg = _Svg()
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=inches)
        figure.patch.set_alpha(0)
        axes = figure.add_subplot()
        axes.patch.set_alpha(0)
        yield axes, svg
        file = io.StringIO()
        figure.savefig(file, format="svg", bbox_inches="tight", metadata={"Date": None})
    drawn = file.getvalue()
    svg.text = drawn[drawn.index("<svg") :].replace(_INK, "currentColor")

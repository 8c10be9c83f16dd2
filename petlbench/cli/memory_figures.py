"""The figures of ``petlbench memory``."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from petlbench.core.errors import InputError
from petlbench.core.plotting import COLOURS, FORMATS, HATCHES, LINES, MARKERS, figure_file

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from petlbench.study.forecast.memory import Row

__all__ = ["check_figure_file", "draw_curves", "draw_parts"]

_PARTS = ("parameters", "gradients", "optimizer", "activations", "other")
_GIB = 2**30


def check_figure_file(file: Path) -> None:
    """Check that a figure can be written to a file, before anything is computed.

    Raises:
        InputError: When its ending is that of no format, or its folder cannot be written to.
    """
    if file.suffix.lower() not in FORMATS:
        raise InputError(
            f"--figure {file}: figures are not written as '{file.suffix}'",
            hint=f"end it in {', '.join(FORMATS)}",
            kind="bad_setting",
        )
    if file.is_dir() or not file.parent.is_dir() or not os.access(file.parent, os.W_OK | os.X_OK):
        raise InputError(
            f"--figure {file}: no file can be written there", hint="give a folder that exists", kind="not_writable"
        )


def draw_curves(file: Path, rows: Sequence[Row], name: str, budget: int | None) -> None:
    """Draw memory over what is varied, one line a method.

    Args:
        file: Where to; `check_figure_file` has passed it.
        rows: What was predicted.
        name: What is varied.
        budget: Bytes, drawn as a line; or None.

    Raises:
        InputError: When there is nothing to draw.
    """
    shown = _shown(rows)
    kind, device = _kind(shown[0])
    with figure_file(file, (7.0, 4.2)) as figure:
        axes = figure.add_subplot()
        methods = list(dict.fromkeys(row.run.method for row in shown))
        for number, method in enumerate(methods):
            _draw_curve(axes, [row for row in shown if row.run.method == method], name, number)
        if budget is not None:
            axes.axhline(budget / _GIB, color="0.4", linewidth=1)
            axes.annotate("budget", (1, budget / _GIB), xycoords=("axes fraction", "data"), ha="right", va="bottom")
        axes.set_ylim(bottom=0)
        axes.set_xlabel(name)
        axes.set_ylabel(f"{kind} memory, GiB")
        axes.set_title(f"Predicted {kind} memory of a training step on {device}", loc="left")
        columns = 1 + (len(methods) - 1) // 16
        axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1), frameon=False, ncols=columns)


def draw_parts(file: Path, rows: Sequence[Row]) -> None:
    """Draw what the peak of each method is made of, one bar a method.

    Args:
        file: Where to; `check_figure_file` has passed it.
        rows: What was predicted.

    Raises:
        InputError: When there is nothing to draw.
    """
    shown = _shown(rows)
    _, device = _kind(shown[0])
    with figure_file(file, (7.0, 1.6 + 0.28 * len(shown))) as figure:
        axes = figure.add_subplot()
        left = [0.0] * len(shown)
        for part, colour, hatch in zip(_PARTS, COLOURS, HATCHES, strict=False):
            widths = [_parts_of(row).get(part, 0) / _GIB for row in shown]
            axes.barh(
                range(len(shown)),
                widths,
                left=left,
                label=part,
                color=colour,
                hatch=hatch,
                edgecolor="white",
                height=0.7,
            )
            left = [start + width for start, width in zip(left, widths, strict=True)]
        axes.set_yticks(range(len(shown)), [row.run.method for row in shown])
        axes.set_ylim(len(shown) - 0.5, -0.5)
        axes.set_xlabel("allocated memory, GiB")
        axes.set_title(f"Predicted allocated memory at the peak of a training step on {device}", loc="left")
        axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1), frameon=False)


def _shown(rows: Sequence[Row]) -> list[Row]:
    shown = [row for row in rows if row.memory is not None]
    if not shown:
        raise InputError(
            f"--figure: there is nothing to draw: {rows[0].refused}", hint="leave it out", kind="no_figure"
        )
    return shown


def _kind(row: Row) -> tuple[str, str]:
    """The figure that is drawn, and the device."""
    is_cuda = row.memory is not None and row.memory.process is not None
    return ("process", "CUDA") if is_cuda else ("allocated", "the CPU")


def _draw_curve(axes: Axes, rows: Sequence[Row], name: str, number: int) -> None:
    points: list[tuple[Any, float]] = [(row.run.varied[name], (row.figure or 0) / _GIB) for row in rows]
    if all(isinstance(value, int | float) for value, _ in points):
        points.sort()
    axes.plot(
        [value for value, _ in points],
        [size for _, size in points],
        label=rows[0].run.method,
        color=COLOURS[number % len(COLOURS)],
        marker=MARKERS[number % len(MARKERS)],
        linestyle=LINES[number // len(COLOURS) % len(LINES)],
        markersize=5,
    )


def _parts_of(row: Row) -> dict[str, int]:
    return row.memory.parts or {} if row.memory is not None else {}

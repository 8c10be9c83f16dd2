"""Learning curves: what validation and training said after every epoch."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

from petlbench.report.context import Context
from petlbench.report.document import Axis, Figure, Series
from petlbench.report.grid import Line
from petlbench.results.stored import Stored

__all__ = ["curve_figures"]

_CAPTION = "A line is the mean over runs, its band from the lowest to the highest run. The test split is not in it."


def curve_figures(context: Context) -> list[Figure]:
    """Draw one figure a dataset and figure of the curve: validation score, training loss.

    Args:
        context: The results.
    """
    figures = []
    for name in context.grid.datasets:
        for key, title, unit, factor in (
            (f"val_{context.metric.name}", f"validation {context.metric.title}", "%", 100.0),
            ("train_loss", "training loss", "nats", 1.0),
        ):
            series = [found for line in context.grid.lines if (found := _series(line, name, key, factor)) is not None]
            if series:
                axes = (Axis("epoch", "epoch"), Axis(key, title, unit))
                heading = f"{context.grid.titles[name]}: {title}"
                figures.append(Figure(f"{name}-{key}", "lines", heading, axes, "epoch", key, series, caption=_CAPTION))
    return figures


def _series(line: Line, dataset: str, key: str, factor: float) -> Series | None:
    points: dict[int, list[float]] = {}
    for epoch, value in _points(line.runs.get(dataset, ()), key):
        points.setdefault(epoch, []).append(factor * value)
    if not points:
        return None
    epochs = sorted(points)
    return Series(
        line.key,
        line.title,
        {
            "epoch": [float(epoch) for epoch in epochs],
            key: [fmean(points[epoch]) for epoch in epochs],
            f"{key}_low": [min(points[epoch]) for epoch in epochs],
            f"{key}_high": [max(points[epoch]) for epoch in epochs],
        },
    )


def _points(runs: Sequence[Stored], key: str) -> list[tuple[int, float]]:
    curves = (one.document.get("curve") or () for one in runs)
    return [(int(p["epoch"]), float(p[key])) for curve in curves for p in curve if p.get(key) is not None]

"""Learning curves: what validation and training said after every epoch."""

from __future__ import annotations

from petlbench.report.context import Context, Line
from petlbench.report.document import Axis, Figure, Series
from petlbench.report.formats import Document
from petlbench.report.inputs import ReportInputs
from petlbench.report.selection import check_alike, check_cells
from petlbench.report.spec import ReportKind
from petlbench.results.table import mean_curve

_CAPTION = "A line is the mean over runs, its band from the lowest to the highest run. The test split is not in it."


def build(inputs: ReportInputs) -> Document:
    """Draw one figure for each dataset and quantity: validation score, training loss."""
    check_alike(inputs.finished)
    check_cells(inputs.finished, lambda run: run.method)
    return inputs.document(figures=_figures(inputs.context))


CURVES = ReportKind(name="curves", title="Learning curves", build=build)


def _figures(context: Context) -> list[Figure]:
    figures = []
    for name in context.grid.datasets:
        for key, title, unit, factor in (
            (f"val_{context.metric.name}", f"validation {context.metric_title}", "%", 100.0),
            ("train_loss", "training loss", "nats", 1.0),
        ):
            series = [curve for line in context.grid.lines if (curve := _series(line, name, key, factor)) is not None]
            if series:
                axes = (Axis("epoch", "epoch"), Axis(key, title, unit))
                heading = f"{context.grid.titles[name]}: {title}"
                figures.append(Figure.of(f"{name}-{key}", "lines", heading, axes, series, caption=_CAPTION))
    return figures


def _series(line: Line, dataset: str, key: str, factor: float) -> Series | None:
    bands = mean_curve((run.document.get("curve") or () for run in line.runs.get(dataset, ())), key, factor)
    if not bands:
        return None
    mean, low, high = (list(values) for values in zip(*bands.values(), strict=True))
    values = {"epoch": list(map(float, bands)), key: mean, f"{key}_low": low, f"{key}_high": high}
    return Series(line.key, line.title, values)

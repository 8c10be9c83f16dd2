"""What a clinic asks: sensitivity at a threshold chosen on validation, precision, and whether probabilities hold."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from statistics import fmean, stdev
from typing import TYPE_CHECKING

from petlbench.report.cells import rounded
from petlbench.report.context import Context
from petlbench.report.document import Axis, Cell, Column, Figure, Row, Series, Table
from petlbench.report.evidence import predictions_of
from petlbench.report.grid import Line
from petlbench.report.request import Material
from petlbench.results.stored import Stored

if TYPE_CHECKING:
    from petlbench.statistics.clinical import ClassMetrics, Estimate

__all__ = ["clinical_tables"]

_MEASURES = (
    Column("sensitivity", "sensitivity", "%", "higher"),
    Column("specificity", "specificity", "%"),
    Column("average_precision", "average precision", "%", "higher"),
    Column("brier", "Brier score", "", "lower"),
    Column("ece", "calibration error", "", "lower"),
)


def clinical_tables(context: Context, material: Material) -> tuple[list[Table], list[Figure]]:
    """Make one table and one calibration plot a dataset.

    Args:
        context: The results.
        material: What the report is made from.
    """
    tables: list[Table] = []
    figures: list[Figure] = []
    material.progress.phase("predictions", sum(len(line.all_runs) for line in context.grid.lines))
    for name in context.grid.datasets:
        found = [(line, _by_run(line.runs.get(name, ()), material)) for line in context.grid.lines]
        known = [(line, by_run) for line, by_run in found if by_run]
        if known:
            classes = _classes(known[0][0], name)
            tables.append(_table(name, context.grid.titles[name], known, classes, material))
            figures += _plots(name, context.grid.titles[name], known, classes)
    return tables, figures


def _by_run(runs: Sequence[Stored], material: Material) -> list[list[ClassMetrics]]:
    """The metrics of every class, run by run."""
    from petlbench.statistics.clinical import clinical

    found = []
    for one in runs:
        val, test = (predictions_of(one, split) for split in ("val", "test"))
        if val is not None and test is not None:
            found.append(clinical(val, test, material.card.specificity))
        material.progress.advance()
    return found


def _classes(line: Line, dataset: str) -> list[str]:
    return [str(name) for name in line.runs[dataset][0].document.get("data", {}).get("classes") or ()]


def _table(
    key: str,
    title: str,
    found: Sequence[tuple[Line, list[list[ClassMetrics]]]],
    classes: Sequence[str],
    material: Material,
) -> Table:
    columns = [Column("positives", "positives"), *_MEASURES]
    rows = [row for line, by_run in found for row in _rows(line, by_run, classes)]
    caption = (
        "Test split, every class against the rest. The threshold of a run is the one that gives a specificity of "
        f"{100 * material.card.specificity:g} % on its validation split; the specificity in the table is what it gives "
        "on test images. Mean ± standard deviation over runs; with one run, the digits are those of its interval."
    )
    return Table(key, f"{material.card.title}: {title}", columns, rows, caption)


def _rows(line: Line, by_run: list[list[ClassMetrics]], classes: Sequence[str]) -> Iterator[Row]:
    for position, first in enumerate(by_run[0]):
        mine = [metrics[position] for metrics in by_run]
        name = classes[first.index] if first.index < len(classes) else str(first.index)
        flags = ("too few positives for the interval to hold",) if first.few else ()
        cells = {"positives": Cell(first.positives, str(first.positives), flags=flags)}
        for column in _MEASURES:
            factor = 100.0 if column.unit == "%" else 1.0
            cells[column.key] = _cell([_estimate(one, column.key) for one in mine], factor)
        yield Row(f"{line.key} {name}", f"{line.title}, {name}", cells)


def _estimate(one: ClassMetrics, key: str) -> Estimate:
    found: Estimate = one.calibration.ece if key == "ece" else getattr(one, key)
    return found


def _cell(estimates: Sequence[Estimate], factor: float) -> Cell:
    values = [factor * one.value for one in estimates if one.value is not None]
    if not values:
        return Cell(text="–", reason="undefined: a class is missing from the split")
    bounds = [
        (factor * one.low, factor * one.high) for one in estimates if one.low is not None and one.high is not None
    ]
    low, high = (fmean(side) for side in zip(*bounds, strict=True)) if bounds else (None, None)
    std = stdev(values) if len(values) > 1 else None
    text = rounded(fmean(values), std, low, high)
    return Cell(fmean(values), text, low, high, std)


def _plots(
    key: str, title: str, found: Sequence[tuple[Line, list[list[ClassMetrics]]]], classes: Sequence[str]
) -> Iterator[Figure]:
    """One calibration plot a class: the first run of each row."""
    axes = (Axis("predicted", "predicted probability"), Axis("observed", "observed share"))
    for position, first in enumerate(found[0][1][0]):
        name = classes[first.index] if first.index < len(classes) else str(first.index)
        diagonal = Series("diagonal", "calibrated", {"predicted": [0.0, 1.0], "observed": [0.0, 1.0]}, role="reference")
        series = [diagonal, *(_calibration(line, by_run[0][position]) for line, by_run in found)]
        caption = "The first run of each row. A point is a bin of test images, with its 95 % interval."
        heading = f"Calibration: {title}, {name}"
        yield Figure(
            f"{key}-{first.index}",
            "lines",
            heading,
            axes,
            "predicted",
            "observed",
            series,
            caption=caption,
            marks={"square": True},
        )


def _calibration(line: Line, one: ClassMetrics) -> Series:
    bins = [each for each in one.calibration.bins if each.count]
    values: dict[str, list[float | None]] = {
        "predicted": [each.predicted for each in bins],
        "observed": [each.observed for each in bins],
        "observed_low": [each.low for each in bins],
        "observed_high": [each.high for each in bins],
    }
    return Series(line.key, line.title, values, tuple(f"{each.count} images" for each in bins))

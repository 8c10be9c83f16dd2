"""What a clinic asks: sensitivity at a threshold chosen on validation, precision, and whether probabilities hold."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from petlbench.data.tasks.base import TaskType
from petlbench.report.cells import FEW_POSITIVES, rounded
from petlbench.report.context import Line
from petlbench.report.document import Axis, Cell, Column, Figure, Row, Series, Table
from petlbench.report.formats import Document
from petlbench.report.inputs import ReportInputs
from petlbench.report.selection import check_alike, check_cells
from petlbench.report.spec import ReportKind
from petlbench.results.stored import Stored
from petlbench.results.table import Spread

if TYPE_CHECKING:
    from petlbench.statistics.clinical import ClassMetrics, Estimate

__all__ = ["CLINICAL", "class_name", "estimate_cell"]

_MEASURES = (
    Column("sensitivity", "sensitivity", "%", "higher"),
    Column("specificity", "specificity", "%"),
    Column("average_precision", "average precision", "%", "higher"),
    Column("brier", "Brier score", "", "lower"),
    Column("ece", "calibration error", "", "lower"),
)


# The metrics of every class of every run of a row.
_Measured = Sequence[tuple[Line, "list[list[ClassMetrics]]"]]


def build(inputs: ReportInputs) -> Document:
    """Make one table and one calibration plot a dataset."""
    check_alike(inputs.finished)
    check_cells(inputs.finished, lambda run: run.method)
    grid = inputs.context.grid
    tables: list[Table] = []
    figures: list[Figure] = []
    inputs.progress.phase("predictions", sum(len(line.all_runs) for line in grid.lines))
    for name in grid.datasets:
        measured = [(line, by_run) for line in grid.lines if (by_run := _by_run(line.runs.get(name, ()), inputs))]
        if measured:
            data = measured[0][0].runs[name][0].document.get("data", {})
            classes = [str(each) for each in data.get("classes") or ()]
            tables.append(_table(name, grid.titles[name], measured, classes, inputs))
            figures += _plots(name, grid.titles[name], measured, classes)
    return inputs.document(tables, figures)


CLINICAL = ReportKind(name="clinical", title="Clinical metrics", build=build, by_group=True)


def _by_run(runs: Sequence[Stored], inputs: ReportInputs) -> list[list[ClassMetrics]]:
    """The metrics of every class, run by run."""
    from petlbench.statistics.clinical import clinical

    metrics: list[list[ClassMetrics]] = []
    for run in runs:
        task = inputs.catalog.load("task", run.document.get("data", {}).get("task", "multiclass"), TaskType)
        val, test = (inputs.predictions(run, split) for split in ("val", "test"))
        if val is not None and test is not None:
            metrics.append(clinical(val, test, inputs.card.specificity, task=task))
        inputs.progress.advance()
    return [by_class for by_class in metrics if by_class]


def _table(key: str, title: str, measured: _Measured, classes: Sequence[str], inputs: ReportInputs) -> Table:
    columns = [Column("positives", "positives"), *_MEASURES]
    rows = [row for line, by_run in measured for row in _rows(line, by_run, classes)]
    caption = (
        "Test split, every class against the rest. The threshold of a run is the one that gives a specificity of "
        f"{100 * inputs.card.specificity:g} % on its validation split; the specificity in the table is what it gives "
        "on test images. Mean ± standard deviation over runs; with one run, the digits are those of its interval."
    )
    return Table(key, f"{inputs.card.title}: {title}", columns, rows, caption)


def _rows(line: Line, by_run: list[list[ClassMetrics]], classes: Sequence[str]) -> Iterator[Row]:
    for position, first in enumerate(by_run[0]):
        name = class_name(first.index, classes)
        flags = (FEW_POSITIVES,) if first.few else ()
        cells = {"positives": Cell(first.positives, str(first.positives), flags=flags)}
        for column in _MEASURES:
            factor = 100.0 if column.unit == "%" else 1.0
            cells[column.key] = estimate_cell([getattr(metrics[position], column.key) for metrics in by_run], factor)
        yield Row(f"{line.key} {name}", f"{line.title}, {name}", cells)


def class_name(index: int, classes: Sequence[str]) -> str:
    """What a class is called, where its name is known."""
    return classes[index] if index < len(classes) else str(index)


def estimate_cell(estimates: Sequence[Estimate], factor: float) -> Cell:
    """The mean of an estimate over runs, with its spread or, of a single run, its interval."""
    spread, *bounds = (
        Spread.of(None if value is None else factor * value for value in values)
        for values in zip(*((each.value, each.low, each.high) for each in estimates), strict=True)
    )
    if spread is None:
        return Cell(text="–", reason="undefined: a class is missing from the split")
    low, high = (None if bound is None else bound.mean for bound in bounds)
    return Cell(spread.mean, rounded(spread.mean, spread.std, low, high), low, high, spread.std)


def _plots(key: str, title: str, measured: _Measured, classes: Sequence[str]) -> Iterator[Figure]:
    """One calibration plot a class: the first run of each row."""
    axes = (Axis("predicted", "predicted probability"), Axis("observed", "observed share"))
    for position, first in enumerate(measured[0][1][0]):
        diagonal = Series("diagonal", "calibrated", {"predicted": [0.0, 1.0], "observed": [0.0, 1.0]}, role="reference")
        series = [diagonal, *(_calibration(line, by_run[0][position]) for line, by_run in measured)]
        caption = "The first run of each row. A point is a bin of test images, with its 95 % interval."
        heading = f"Calibration: {title}, {class_name(first.index, classes)}"
        marks = {"square": True}
        yield Figure.of(f"{key}-{first.index}", "lines", heading, axes, series, caption=caption, marks=marks)


def _calibration(line: Line, metrics: ClassMetrics) -> Series:
    bins = metrics.bins
    values: dict[str, list[float | None]] = {
        "predicted": [bin_.predicted for bin_ in bins],
        "observed": [bin_.observed for bin_ in bins],
        "observed_low": [bin_.low for bin_ in bins],
        "observed_high": [bin_.high for bin_ in bins],
    }
    return Series(line.key, line.title, values, tuple(f"{bin_.count} images" for bin_ in bins))

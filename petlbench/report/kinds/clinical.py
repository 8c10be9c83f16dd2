"""What a clinic asks: sensitivity at a threshold chosen on validation, precision, true probabilities, net benefit."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Literal

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


_MEASURES = (
    Column("sensitivity", "sensitivity", "%", "higher"),
    Column("specificity", "specificity", "%"),
    Column("average_precision", "average precision", "%", "higher"),
    Column("brier", "Brier score", "", "lower"),
    Column("ece", "calibration error", "", "lower"),
)
_CALIBRATION = {"ece": "calibration error", "loss": "log loss", "brier": "Brier score"}
# Of the thresholds of a decision curve, which are this many between 0 and 1, those that its table has.
_STEPS = 100
_TABULATED = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
# Below this the line of acting on every image ends, so that the others can be told apart.
_LEAST_BENEFIT = -0.05


# The metrics of every class of every run of a row.
_Measured = Sequence[tuple[Line, "list[list[ClassMetrics]]"]]


def build(inputs: ReportInputs) -> Document:
    """Make the tables of each dataset, and of each of its classes a calibration plot and a decision curve."""
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
            title = grid.titles[name]
            tables.append(_table(name, title, measured, classes, inputs))
            tables += _calibration_table(name, title, measured)
            tables.append(_decision_table(name, title, measured, classes))
            figures += _plots(name, title, measured, classes)
            figures += _decision_curves(name, title, measured, classes)
    return inputs.document(tables, figures)


CLINICAL = ReportKind(name="clinical", title="Clinical metrics", build=build, by_group=True)


def _by_run(runs: Sequence[Stored], inputs: ReportInputs) -> list[list[ClassMetrics]]:
    """The metrics of every class, run by run."""
    from petlbench.statistics.clinical import clinical

    metrics: list[list[ClassMetrics]] = []
    for run in runs:
        task = inputs.catalog.load("task", run.document.get("data", {}).get("task", "multiclass"), TaskType)
        val, test = (inputs.predictions(run.calibrated(), split) for split in ("val", "test"))
        if val is not None and test is not None:
            thresholds = _thresholds(*inputs.card.thresholds)
            metrics.append(clinical(val, test, inputs.card.specificity, thresholds=thresholds, task=task))
        inputs.progress.advance()
    return [by_class for by_class in metrics if by_class]


def _thresholds(first: float, last: float) -> list[float]:
    return [step / _STEPS for step in range(1, _STEPS) if first <= step / _STEPS <= last]


def _table(key: str, title: str, measured: _Measured, classes: Sequence[str], inputs: ReportInputs) -> Table:
    columns = [Column("positives", "positives"), *_MEASURES]
    rows = [row for line, by_run in measured for row in _rows(line, by_run, classes)]
    caption = (
        "Test split, every class against the rest. The threshold of a run is the one that gives a specificity of "
        f"{100 * inputs.card.specificity:g} % on its validation split; the specificity in the table is what it gives "
        "on test images. Mean ± standard deviation over runs; with one run, the digits are those of its interval. "
        "Where a run has fitted a temperature, its probabilities are those that this gives."
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


def _calibration_table(key: str, title: str, measured: _Measured) -> Iterator[Table]:
    """What temperatures have changed on the test split; no table where no run has fitted one."""
    rows = []
    for line, _ in measured:
        fits = [run.calibration for run in line.runs[key] if run.calibration is not None]
        if fits:
            cells = {"temperature": _mean_cell([fit["temperature"] for fit in fits])}
            for name in _CALIBRATION:
                for when in ("before", "after"):
                    values = [fit["figures"]["test"][when][name] for fit in fits if "test" in fit["figures"]]
                    cells[f"{name}_{when}"] = _mean_cell(values)
            rows.append(Row(line.key, line.title, cells, runs=tuple(run.run_id for run in line.runs[key])))
    if rows:
        columns = [Column("temperature", "temperature")]
        columns += [
            Column(f"{name}_{when}", when, better="lower", group=heading)
            for name, heading in _CALIBRATION.items()
            for when in ("before", "after")
        ]
        caption = (
            "Logits are divided by a temperature that was fitted on the validation split (Guo et al. 2017). On the "
            "test split: calibration error and Brier score are means over classes, each against the rest; log loss "
            "is in nats. Mean ± standard deviation over runs."
        )
        yield Table(f"{key}-calibration", f"Before and after calibration: {title}", columns, rows, caption)


def _mean_cell(values: Sequence[float | None]) -> Cell:
    spread = Spread.of(values)
    if spread is None:
        return Cell(text="–", reason="undefined on the test split")
    text = f"{spread.mean:.3f}" if spread.std is None else rounded(spread.mean, spread.std)
    return Cell(spread.mean, text, std=spread.std)


def _decision_table(key: str, title: str, measured: _Measured, classes: Sequence[str]) -> Table:
    """The net benefit of each row at some thresholds; below those of each class, that of acting on all and on none."""
    curve = measured[0][1][0][0].decision
    points = [number for number, point in enumerate(curve) if point.threshold in _TABULATED] or [0]
    columns = [Column(f"{curve[number].threshold:g}", f"at {curve[number].threshold:g}") for number in points]

    def row(key: str, title: str, cells: Iterable[Cell], kind: Literal["method", "baseline"] = "method") -> Row:
        return Row(key, title, {column.key: cell for column, cell in zip(columns, cells, strict=True)}, kind)

    rows = []
    for position, first in enumerate(measured[0][1][0]):
        name = class_name(first.index, classes)
        for line, by_run in measured:
            models = [[run[position].decision[number].model for run in by_run] for number in points]
            rows.append(
                row(f"{line.key} {name}", f"{line.title}, {name}", (estimate_cell(each, 1.0) for each in models))
            )
        everyone = [Cell(value := first.decision[number].treat_all, f"{value:.3f}") for number in points]
        rows.append(row(f"all {name}", f"treat all, {name}", everyone, "baseline"))
        rows.append(row(f"none {name}", f"treat none, {name}", [Cell(0.0, "0")] * len(points), "baseline"))
    caption = (
        "Test split, every class against the rest: TP/N - FP/N t/(1 - t), in true positives an image, where an image "
        "with a probability of at least t is called positive (Vickers and Elkin 2006). Mean ± standard deviation over "
        "runs; with one run, the digits are those of its interval."
    )
    return Table(f"{key}-decision", f"Net benefit: {title}", columns, rows, caption)


def _decision_curves(key: str, title: str, measured: _Measured, classes: Sequence[str]) -> Iterator[Figure]:
    """One decision curve a class: the first run of each row, beside acting on every image and on none."""
    axes = (Axis("threshold", "threshold probability"), Axis("benefit", "net benefit"))
    for position, first in enumerate(measured[0][1][0]):
        curve = first.decision
        places = [point.threshold for point in curve]
        everyone = [point.treat_all if point.treat_all >= _LEAST_BENEFIT else None for point in curve]
        series = [
            Series("all", "treat all", {"threshold": places, "benefit": everyone}, role="reference"),
            Series("none", "treat none", {"threshold": places, "benefit": [0.0] * len(curve)}, role="reference"),
        ]
        for line, by_run in measured:
            benefits = [point.model.value for point in by_run[0][position].decision]
            series.append(Series(line.key, line.title, {"threshold": places, "benefit": benefits}))
        caption = (
            f"The first run of each row, on the test split, at thresholds from {places[0]:g} to {places[-1]:g}. The "
            f"line of treating all ends where it falls below {_LEAST_BENEFIT:g}."
        )
        heading = f"Decision curve: {title}, {class_name(first.index, classes)}"
        yield Figure.of(f"{key}-decision-{first.index}", "lines", heading, axes, series, caption=caption)

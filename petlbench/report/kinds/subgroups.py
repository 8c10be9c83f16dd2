"""Methods on subgroups of a test split (sex, site, age): each subgroup's scores, and the gap from best to worst."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING

from petlbench.core.errors import InputError, unknown_name
from petlbench.core.text import printable
from petlbench.data.attributes import NOT_STATED, Attribute, value_order
from petlbench.data.tasks.base import TaskType
from petlbench.metrics.intervals import FEW
from petlbench.report.cells import rounded
from petlbench.report.context import Line
from petlbench.report.document import Axis, Cell, Column, Figure, Row, Series, Table
from petlbench.report.formats import Document
from petlbench.report.inputs import ReportInputs
from petlbench.report.kinds.clinical import class_name, estimate_cell
from petlbench.report.selection import check_alike, check_cells
from petlbench.report.spec import ReportKind, Unit
from petlbench.results.predictions import Predictions, read_predictions
from petlbench.results.stored import Stored

if TYPE_CHECKING:
    from petlbench.statistics.subgroups import SubgroupMetrics

_SEVERAL = "several"
"""The subgroup of a patient whose images are of different ones."""

_SCORES = (
    Column("auc", "AUC", "%", "higher"),
    Column("sensitivity", "sensitivity", "%", "higher"),
    Column("specificity", "specificity", "%", "higher"),
    Column("ece", "calibration error", "", "lower"),
)
_COLUMNS = (Column("count", "n"), Column("prevalence", "prevalence", "%"), *_SCORES)
_GAP_COLUMNS = (
    Column("best", "best", numeric=False),
    Column("worst", "worst", numeric=False),
    Column("gap", "gap", "points", "lower"),
    Column("interval", "95 % interval", "points", numeric=False),
    Column("by_chance", "expected by chance", "points"),
    Column("verdict", "verdict", numeric=False),
)
_LEVEL = 0.95
_TOO_FEW = f"fewer than {FEW} of a class are left"


@dataclass(frozen=True)
class _Measured:
    """A class against the rest in each subgroup, one entry a run.

    Args:
        line: The row of the report.
        index: The class.
        by_subgroup: What was measured.
    """

    line: Line
    index: int
    by_subgroup: Mapping[str, Sequence[SubgroupMetrics]]

    def title(self, classes: Sequence[str]) -> str:
        """The method, and the class where there are several."""
        return f"{self.line.title}, {class_name(self.index, classes)}" if len(classes) != 2 else self.line.title

    @property
    def compared(self) -> dict[str, Sequence[SubgroupMetrics]]:
        """The subgroups that are large enough to be compared."""
        return {
            name: runs
            for name, runs in self.by_subgroup.items()
            if name not in (NOT_STATED, _SEVERAL) and not any(each.metrics.few or each.auc is None for each in runs)
        }


def build(inputs: ReportInputs) -> Document:
    """Make two tables and a figure for each dataset and column.

    Raises:
        InputError: When no column is named, or none of the runs has it.
    """
    check_alike(inputs.finished)
    check_cells(inputs.finished, lambda run: run.method)
    grid, columns = inputs.context.grid, [Attribute.parse(text) for text in inputs.request.by or inputs.card.by]
    _check_columns(columns, grid.all_runs)
    tables: list[Table] = []
    figures: list[Figure] = []
    inputs.progress.phase("predictions", len(columns) * len(grid.all_runs))
    for name in grid.datasets:
        runs = [run for line in grid.lines for run in line.runs.get(name, ())]
        classes = [str(each) for each in (runs[0].document.get("data", {}).get("classes") or ())] if runs else []
        for column in columns:
            subgroups = _subgroups(column, runs)
            order = list(dict.fromkeys([*subgroups.values(), _SEVERAL, NOT_STATED]))
            measured = [
                each for line in grid.lines for each in _measure(line, line.runs.get(name, ()), subgroups, inputs)
            ]
            if measured:
                key, heading = f"{name}-{column.name}", f"{grid.titles[name]} by {printable(column.name)}"
                tables.append(_table(key, heading, measured, order, (inputs, classes)))
                tables.append(_gaps(key, heading, measured, classes))
                figures.append(_figure(key, heading, measured, order, classes))
    if not tables:
        message = "no run has predictions of classes or labels, which subgroups are measured by"
        hint = "runs from an MLflow store have none, and neither has regression"
        raise InputError(message, hint=hint, kind="no_results")
    return inputs.document(tables, figures, _notes(columns, grid.all_runs))


SUBGROUPS = ReportKind(name="subgroups", title="Subgroups", build=build, by_group=True)


def _check_columns(columns: Sequence[Attribute], runs: Sequence[Stored]) -> None:
    present = {name for run in runs for name in run.attributes}
    if not present:
        raise InputError(
            "no run keeps what its dataset's table says of its images beside label and group",
            hint="give the dataset as a table with such columns, and run again (--rerun where a result stands)",
            kind="no_attributes",
        )
    if not columns:
        names = ", ".join(sorted(map(printable, present)))
        raise InputError("no column makes subgroups", hint=f"--by names some of {names}", kind="usage")
    for column in columns:
        if column.name not in present:
            raise unknown_name("column of --by", column.name, present)


def _subgroups(column: Attribute, runs: Sequence[Stored]) -> dict[str, str]:
    """The subgroup of each image of the runs' validation and test splits, by its id."""
    values: dict[str, str] = {}
    for run in runs:
        values |= run.attributes.get(column.name, {})
    images = sorted(values, key=lambda image: value_order(values[image]))
    return dict(zip(images, column.subgroups([values[image] for image in images]), strict=True))


def _measure(
    line: Line, runs: Sequence[Stored], subgroups: Mapping[str, str], inputs: ReportInputs
) -> Iterator[_Measured]:
    """What is measured of each class, over the runs of a row that have predictions."""
    from petlbench.statistics.subgroups import measure_subgroup

    by_class: dict[int, dict[str, list[SubgroupMetrics]]] = {}
    numbers: dict[str, int] = {}
    for run in runs:
        task = inputs.catalog.load("task", run.document.get("data", {}).get("task", "multiclass"), TaskType)
        val, test = (inputs.predictions(run.calibrated(), split) for split in ("val", "test"))
        if val is None or test is None:
            continue
        for name, part in _parts(test, _of_predictions(run, test, subgroups, inputs.request.unit)):
            for index, metrics in measure_subgroup(val, part, inputs.card.specificity, task, numbers).items():
                by_class.setdefault(index, {}).setdefault(name, []).append(metrics)
        inputs.progress.advance()
    for index, by_subgroup in by_class.items():
        yield _Measured(line, index, by_subgroup)


def _of_predictions(run: Stored, test: Predictions, subgroups: Mapping[str, str], unit: Unit) -> list[str]:
    """The subgroup of each prediction: that of its image; of a group, the one that its images are in."""
    if unit == "image" or run.predictions_file is None or (images := read_predictions(run.predictions_file)) is None:
        return [subgroups.get(image, NOT_STATED) for image in test.image_ids]
    stated: dict[str, set[str]] = {name: set() for name in images.units}
    for image, name in zip(images.image_ids, images.units, strict=True):
        stated[name] |= {subgroups[image]} if image in subgroups else set()
    return [
        NOT_STATED if not stated[name] else min(stated[name]) if len(stated[name]) == 1 else _SEVERAL
        for name in test.units
    ]


def _parts(test: Predictions, names: Sequence[str]) -> Iterator[tuple[str, Predictions]]:
    for name in dict.fromkeys(names):
        yield name, test.part([row for row, own in enumerate(names) if own == name])


def _table(
    key: str, title: str, measured: Sequence[_Measured], order: Sequence[str], facts: tuple[ReportInputs, Sequence[str]]
) -> Table:
    inputs, classes = facts
    rows = [
        Row(f"{each.line.key} {each.index} {name}", f"{each.title(classes)}: {printable(name)}", _cells(runs))
        for each in measured
        for name in order
        if (runs := each.by_subgroup.get(name))
    ]
    what = "images" if inputs.request.unit == "image" else "groups"
    caption = (
        f"Test split, n {what}. The threshold of a run is the one that gives a specificity of "
        f"{100 * inputs.card.specificity:g} % on its whole validation split. Mean over runs. Too few: {_TOO_FEW}."
    )
    return Table(key, title, _COLUMNS, rows, caption, row_title="method and subgroup")


def _cells(runs: Sequence[SubgroupMetrics]) -> dict[str, Cell]:
    from petlbench.statistics.clinical import Estimate

    count, share = round(fmean(each.count for each in runs)), 100 * fmean(each.prevalence for each in runs)
    cells = {"count": Cell(count, f"{count:,}"), "prevalence": Cell(share, f"{share:.1f}")}
    if any(each.metrics.few or each.auc is None for each in runs):
        return {**cells, **{column.key: Cell(text="too few", reason=_TOO_FEW) for column in _SCORES}}
    aucs = [(each.auc.value, each.auc.interval(_LEVEL) or {}) for each in runs if each.auc is not None]
    estimates = {"auc": [Estimate(value, bounds.get("low"), bounds.get("high")) for value, bounds in aucs]}
    estimates |= {column.key: [getattr(each.metrics, column.key) for each in runs] for column in _SCORES[1:]}
    factors = {column.key: 100.0 if column.unit == "%" else 1.0 for column in _SCORES}
    return {**cells, **{name: estimate_cell(values, factors[name]) for name, values in estimates.items()}}


def _gaps(key: str, title: str, measured: Sequence[_Measured], classes: Sequence[str]) -> Table:
    rows = []
    for each in measured:
        runs = tuple(run.run_id for run in each.line.all_runs)
        rows.append(Row(f"{each.line.key} {each.index}", each.title(classes), _gap_cells(each), runs=runs))
    caption = (
        "Gap: AUC of the best subgroup less that of the worst, among those that are large enough. The interval holds "
        "for all pairs of subgroups at once, since the best and the worst are picked by what is compared; it is about "
        "other images or patients of the same runs. By chance: the gap that is expected between subgroups of these "
        "sizes with equal true scores. A gap that is not shown may still be there."
    )
    return Table(f"{key}-gap", f"{title}: the gap", _GAP_COLUMNS, rows, caption)


def _gap_cells(measured: _Measured) -> dict[str, Cell]:
    from petlbench.statistics.subgroups import find_gap

    scores = {name: [each.auc for each in runs if each.auc] for name, runs in measured.compared.items()}
    gap = find_gap(scores, level=_LEVEL)
    if gap is None:
        reason = f"fewer than two subgroups are large enough: in the others {_TOO_FEW}"
        return {column.key: Cell(text="–", reason=reason) for column in _GAP_COLUMNS[:-1]} | {
            "verdict": Cell(text="too few", reason=reason)
        }
    value, low, high = 100 * gap.value, 100 * gap.low, 100 * gap.high
    return {
        "best": Cell(text=printable(gap.best)),
        "worst": Cell(text=printable(gap.worst)),
        "gap": Cell(value, rounded(value, None, low, high), low, high),
        "interval": Cell(text=f"{low:.1f} to {high:.1f}"),
        "by_chance": Cell(100 * gap.by_chance, f"{100 * gap.by_chance:.1f}"),
        "verdict": Cell(text="gap" if gap.low > 0 else "no gap shown"),
    }


def _figure(
    key: str, title: str, measured: Sequence[_Measured], order: Sequence[str], classes: Sequence[str]
) -> Figure:
    series = []
    for each in measured:
        for name in order:
            if name in each.compared:
                cell, heading = _cells(each.by_subgroup[name])["auc"], f"{each.title(classes)}: {printable(name)}"
                values = {"auc": [cell.value], "auc_low": [cell.low], "auc_high": [cell.high]}
                series.append(Series(f"{each.line.key} {each.index} {name}", heading, values))
    axes = (Axis("auc", "AUC", "%"), Axis("row", "method and subgroup"))
    return Figure.of(key, "intervals", title, axes, series, caption="With 95 % intervals; those of runs are averaged.")


def _notes(columns: Sequence[Attribute], runs: Sequence[Stored]) -> list[str]:
    absent = [run.run_id for run in runs if not {column.name for column in columns} <= run.attributes.keys()]
    if not absent:
        return []
    shown = ", ".join(absent[:3]) + (", …" if len(absent) > 3 else "")
    return [f"{len(absent)} of {len(runs)} runs keep no such column, so that their images are '{NOT_STATED}': {shown}."]

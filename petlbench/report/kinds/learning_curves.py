"""Score by number of labels: what each method reaches on the test split from few labelled images to all of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean

from petlbench.core.errors import InputError
from petlbench.report.cells import mark_rows, score_cell
from petlbench.report.context import Context, Line, scored
from petlbench.report.document import Axis, Cell, Column, Figure, Row, Series, Table
from petlbench.report.formats import Document
from petlbench.report.inputs import ReportInputs
from petlbench.report.kinds.methods import describe_settings
from petlbench.report.selection import check_alike, check_cells, common_settings
from petlbench.report.spec import ReportKind
from petlbench.results.stored import Stored
from petlbench.statistics.comparison import Evidence

_PART = ("shots", "train_fraction")
_UNITS = {"images": "labelled training images", "groups": "labelled training groups"}
_BAND = "A point is the mean over runs (draws and seeds), its band from the lowest to the highest of them."
_NEEDED = (
    "Labels at which the mean curve of the row's method reaches, and from there on keeps, what the column's method has "
    "with most labels: between two points interpolated over the logarithm of their number, never beyond the points. "
    "A reading of means: it has no interval."
)


def build(inputs: ReportInputs) -> Document:
    """Make for each dataset the figure and the table of scores by labels, and of the labels that reach a score.

    Raises:
        InputError: When the results are of one share of the labels only, or of settings that no table may mix.
    """
    context = inputs.context
    check_alike(inputs.finished, but=_PART)
    points = [_points(line, name, context) for line in context.grid.lines for name in context.grid.datasets]
    curves = {(each.line.key, each.dataset): each for each in points if each.runs}
    if all(len(curve.runs) < 2 for curve in curves.values()):
        raise InputError(
            f"the results in {inputs.request.results} are of one number of labels for each method and dataset",
            hint="petlbench bench with --train-fraction 0.05,0.1,0.25,0.5,1 --draw 0,1,2 runs more",
            kind="no_results",
        )
    tables, figures = [], []
    for name in context.grid.datasets:
        mine = [curve for (_, dataset), curve in curves.items() if dataset == name]
        unit = "groups" if all(curve.has_groups for curve in mine) else "images"
        figures.append(_figure(name, mine, unit, context))
        tables += [_scores(name, mine, unit, context), _needed(name, mine, unit, context)]
    return inputs.document(tables, figures, _notes(inputs.finished))


LEARNING_CURVES = ReportKind(name="learning_curves", title="Score by number of labels", build=build)


@dataclass(frozen=True)
class _Curve:
    """The runs of a row on a dataset by the part of the training split that they had, the least labels first."""

    line: Line
    dataset: str
    runs: Mapping[str, Sequence[Stored]]

    @property
    def all_runs(self) -> list[Stored]:
        """The runs of all points."""
        return [run for runs in self.runs.values() for run in runs]

    @property
    def has_groups(self) -> bool:
        """Whether all of them say how many groups they were trained on."""
        return all(_labels(run, "groups") is not None for run in self.all_runs)

    def labels(self, unit: str) -> list[float | None]:
        """The mean number of labels of each point."""
        return [_mean(_labels(run, unit) for run in runs) for runs in self.runs.values()]

    def scores(self, context: Context, function: Callable[[Sequence[float]], float] = fmean) -> list[float | None]:
        """The mean, or another function, of each point's scores in percent; None where there are none."""
        by_point = [[run.score(context.metric.name) for run in runs] for runs in self.runs.values()]
        values = [[100 * score for score in scores if score is not None] for scores in by_point]
        return [function(scores) if scores else None for scores in values]


def _points(line: Line, dataset: str, context: Context) -> _Curve:
    by_part: dict[str, list[Stored]] = {}
    for run in line.runs.get(dataset, ()):
        if run.score(context.metric.name) is not None and _labels(run, "images") is not None:
            by_part.setdefault(run.part, []).append(run)
    for part, runs in by_part.items():
        check_cells(runs, lambda _, title=f"{line.title}, {part or 'all labels'},": title)  # type: ignore[misc]
    size = {part: _mean(_labels(run, "images") for run in runs) or 0 for part, runs in by_part.items()}
    return _Curve(line, dataset, {part: by_part[part] for part in sorted(by_part, key=lambda part: size[part])})


def _labels(run: Stored, unit: str) -> int | None:
    """Images, or groups, that a run was trained on; None where it does not say."""
    count = (run.document.get("data", {}).get(unit) or {}).get("train")
    return int(count) if count else None


def _mean(values: Iterable[float | None]) -> float | None:
    numbers = [value for value in values if value is not None]
    return fmean(numbers) if numbers else None


def _figure(dataset: str, curves: Sequence[_Curve], unit: str, context: Context) -> Figure:
    units = ("groups", "images") if unit == "groups" else ("images",)
    score = Axis("score", context.metric_title, "%", better=context.metric.direction)
    axes = (*(Axis(each, _UNITS[each], scale="log") for each in units), score)
    series = []
    for curve in curves:
        ends = {f"score{end}": curve.scores(context, how) for end, how in (("", fmean), ("_low", min), ("_high", max))}
        labels = {each: curve.labels(each) for each in units}
        series.append(Series(curve.line.key, curve.line.title, {**labels, **ends}, [*map(_title, curve.runs)]))
    title = f"{context.grid.titles[dataset]}: {context.metric_title} by labels"
    return Figure(f"{dataset}-labels", "lines", title, axes, unit, "score", series, caption=_BAND)


def _title(part: str) -> str:
    return part or "all"


def _scores(dataset: str, curves: Sequence[_Curve], unit: str, context: Context) -> Table:
    parts: dict[str, list[float | None]] = {}
    for curve in curves:
        for part, count in zip(curve.runs, curve.labels(unit), strict=True):
            parts.setdefault(part, []).append(count)
    sizes = {part: _mean(counts) or 0 for part, counts in parts.items()}
    columns = [
        Column(_key(part), f"{_title(part)} ({sizes[part]:,.0f} {unit})", "%", context.metric.direction)
        for part in sorted(parts, key=lambda part: sizes[part])
    ]
    rows = [_row(curve, context) for curve in curves]
    settings = describe_settings(common_settings([run for curve in curves for run in curve.all_runs]))
    caption = (
        f"{context.metric_title} of the test split, mean ± standard deviation over draws and seeds. "
        f"Setting: {settings}. Best bold, second underlined."
    )
    title = f"{context.grid.titles[dataset]}: score by labels"
    return Table(f"{dataset}-scores", title, columns, mark_rows(rows, columns), caption)


def _key(part: str) -> str:
    return part.replace(" ", "_").replace("%", "percent") or "all"


def _row(curve: _Curve, context: Context) -> Row:
    records = [
        record
        for part, runs in curve.runs.items()
        for run in runs
        if (record := scored(run, part, curve.dataset, context.metric, context.predictions)) is not None
    ]
    evidence = Evidence(records, context.metric)
    judged = {part: evidence.cell(part, curve.dataset) for part in curve.runs}
    cells = {_key(part): score_cell(cell, expected=None, reason="not run") for part, cell in judged.items()}
    return curve.line.row(cells)


def _needed(dataset: str, curves: Sequence[_Curve], unit: str, context: Context) -> Table:
    goals = {curve.line.key: goal for curve in curves if (goal := curve.scores(context)[-1]) is not None}
    titles = {curve.line.key: curve.line.title for curve in curves}
    columns = [Column(key, f"{titles[key]} ({goal:.1f} %)", unit) for key, goal in goals.items()]
    rows = [
        curve.line.row({key: _needed_cell(curve, goal, unit, context) for key, goal in goals.items()})
        for curve in curves
    ]
    title = f"{context.grid.titles[dataset]}: {unit} to reach what another method has with most labels"
    return Table(f"{dataset}-needed", title, columns, rows, _NEEDED)


def _needed_cell(curve: _Curve, goal: float, unit: str, context: Context) -> Cell:
    pairs = zip(curve.labels(unit), curve.scores(context), strict=True)
    sign = 1 if context.metric.direction == "higher" else -1
    points = [(labels, sign * score) for labels, score in pairs if labels is not None and score is not None]
    needed = labels_needed(points, sign * goal)
    if needed is None:
        return Cell(text=f"> {points[-1][0]:,.0f}", reason=f"not reached with {points[-1][0]:,.0f} {unit}")
    sign_of = "≤ " if needed == points[0][0] else ""
    return Cell(needed, f"{sign_of}{needed:,.0f}")


def labels_needed(points: Sequence[tuple[float, float]], goal: float) -> float | None:
    """The number of labels from which on a curve is at or above a score; None where its last point is below.

    Between two points it is interpolated over the logarithm of their numbers; at the first one it may be fewer.

    Args:
        points: Number of labels and score, in the order of the numbers; the higher score is the better one.
        goal: The score.
    """
    if not points or points[-1][1] < goal:
        return None
    for (fewer, below), (more, above) in reversed([*pairwise(points)]):
        if below < goal <= above:
            share = (goal - below) / (above - below)
            return math.exp(math.log(fewer) + share * (math.log(more) - math.log(fewer)))
    return points[0][0]


def _notes(runs: Sequence[Stored]) -> list[str]:
    """What the reader should know of the draws."""
    official = {bool((run.document.get("data", {}).get("drawn") or {}).get("official")) for run in runs if run.part}
    if official == {True}:
        return ["The draws are the release's own."]
    return ["Some draws are the release's own, others petlbench's."] if len(official) == 2 else []

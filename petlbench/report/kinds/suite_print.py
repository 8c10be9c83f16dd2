"""Tables of scores that others have: as they are printed, where print does not follow from itself, and beside ours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from petlbench.core.text import as_sentence
from petlbench.metrics.metric import Metric
from petlbench.report.cells import mark_rows, millions_cell
from petlbench.report.context import Context, Line
from petlbench.report.document import Cell, Column, Row, Table
from petlbench.report.published_scores import contradictions, differences
from petlbench.report.scores import ScoreRow, ScoreTable
from petlbench.report.tasks import Average, Groups, averages, tasks_of
from petlbench.results.stored import Stored

_UNKNOWN = "not known"
_ABOUT = (
    Column("source", "source", numeric=False),
    Column("normalize", "normalised", numeric=False),
    Column("epoch", "epoch", numeric=False),
    Column("without_head", "learnable without head", "M", "lower"),
)
_MEANS = "Means are computed from the scores shown: of the groups' means, and of all tasks."
_MARKED = "Best bold, second underlined."
_UNMARKED = "Rows are of several protocols, so that none is marked as the best."
_SEVERAL = "A dagger: another source prints another figure for the same runs; a table below has both."
_PRINTED = "printed_"


def scores_table(title: str, scores: ScoreTable, groups: Groups, metric: Metric) -> Table:
    """The scores of others, with averages computed from them; and the averages that are printed, where some are."""
    rows, means = scores.rows, averages(groups, scores.tasks)
    flags = _flags(rows)
    cells = [_cells(row, groups, means, flags) for row in rows]
    columns = [column for column in _ABOUT if any(column.key in each for each in cells)]
    columns += [*_score_columns(groups, means, metric), *_printed_columns(rows, groups)]
    lines = [Row(row.key, row.title, each) for row, each in zip(rows, cells, strict=True)]
    caption = f"{as_sentence(metric.title)} in percent. {_MEANS}"
    missing = [task.heading for task in tasks_of(groups) if task.key not in scores.tasks]
    notes = [f"No row has a score on {', '.join(missing)}: averages are over the other tasks."] if missing else []
    notes += [_SEVERAL] if flags else []
    marked, words = (mark_rows(lines, columns), _MARKED) if scores.is_of_one_protocol else (lines, _UNMARKED)
    return Table("main", title, columns, marked, f"{caption} {words}", notes, has_print=any(row.texts for row in rows))


def differences_table(scores: ScoreTable, groups: Groups) -> Table:
    """The printed averages that do not follow from the scores beside them."""
    columns = [
        Column("source", "source", numeric=False),
        Column("average", "average", numeric=False),
        Column("computed", "computed"),
        Column("printed", "printed"),
        Column("rounding", "rounding explains it", numeric=False),
    ]
    headings = _headings(groups)
    rows = []
    for each in differences(scores.rows, groups):
        printed = each.row.printed[each.key]
        cells = {
            "source": Cell(text=each.row.source),
            "average": Cell(text=headings[each.key]),
            "computed": Cell(each.computed, each.rounded),
            "printed": Cell(float(printed), printed),
            "rounding": Cell(text="yes" if each.is_rounding else "no"),
        }
        rows.append(Row(f"{each.row.key} {each.key}", each.row.title, cells))
    caption = (
        "Computed: from the printed scores, rounded as the average is. Rounding: of the scores and of the average."
    )
    return Table(
        "differences", "Printed averages that differ from their scores", columns, rows, caption, has_print=True
    )


def contradictions_table(scores: ScoreTable, groups: Groups) -> Table:
    """The figures that two sources print otherwise for the same runs."""
    columns = [
        Column("figure", "figure", numeric=False),
        *(Column(f"{part}_{name}", name, numeric=name == "figure") for part in "ab" for name in ("source", "figure")),
    ]
    headings = _headings(groups)
    rows = []
    for each in contradictions(scores.rows):
        cells = {"figure": Cell(text=headings[each.key])}
        for part, row, text in zip("ab", each.rows, each.texts, strict=True):
            cells |= {f"{part}_source": Cell(text=row.source), f"{part}_figure": Cell(float(text), text)}
        rows.append(Row(f"{each.rows[0].key} {each.key}", each.rows[0].title, cells))
    return Table("contradictions", "Figures that contradict each other", columns, rows, has_print=True)


def beside_print(main: Table, context: Context, scores: ScoreTable) -> Table:
    """The rows of a suite's table, each above what is printed of its method.

    A difference stands below a printed row only where backbone, image size, normalisation and the epoch that is
    reported are the same.
    """
    groups, means = context.grid.groups, context.grid.suite_averages
    keys = [*(task.key for task in tasks_of(groups)), *(each.key for each in means)]
    flags, ours = _flags(scores.rows), {row.key: row for row in main.rows}
    rows: list[Row] = []
    reasons: dict[str, list[str]] = {}
    for line in context.grid.lines:
        printed = [row for row in scores.rows if row.method == line.published and row.scores]
        if not printed or not line.all_runs:
            continue
        own = {key: replace(ours[line.key].cells.get(key, Cell()), mark="") for key in keys}
        rows.append(Row(line.key, f"{line.title}, ours", own | _about(line, ours[line.key])))
        for row in printed:
            theirs = _cells(row, groups, means, flags)
            rows.append(Row(row.key, f"{row.title}, printed", theirs))
            if reason := _why_apart(line.all_runs[0], row, scores):
                reasons.setdefault(reason, []).append(f"{row.title} ({row.source})")
            else:
                rows.append(Row(f"{row.key} difference", "ours less printed", _less(own, theirs, keys)))
    notes = [f"No difference from {', '.join(titles)}: {reason}." for reason, titles in reasons.items()]
    notes += [_SEVERAL.partition(";")[0] + "."] if flags else []
    columns = [*_ABOUT, *_score_columns(groups, means, context.metric)]
    printed_setting = f"Printed: {scores.backbone} at {scores.image_size} pixels."
    caption = f"{_MEANS} {printed_setting} Two figures compare only where their protocols are the same."
    return Table("print", "Ours beside print", columns, rows, caption, notes, has_print=True)


def _headings(groups: Groups) -> dict[str, str]:
    """What tasks and averages are called, by key."""
    means = {each.key: f"mean of {each.title}" for each in averages(groups)}
    return {task.key: task.heading for task in tasks_of(groups)} | means


def _score_columns(groups: Groups, means: Sequence[Average], metric: Metric) -> list[Column]:
    better = metric.direction
    tasks = [Column(task.key, task.heading, "", better, group.title) for group in groups for task in group.tasks]
    return [*tasks, *(each.column(better) for each in means)]


def _printed_columns(rows: Sequence[ScoreRow], groups: Groups) -> list[Column]:
    means = [each for each in averages(groups) if any(each.key in row.printed for row in rows)]
    return [Column(f"{_PRINTED}{each.key}", each.title, group="printed mean") for each in means]


def _flags(rows: Sequence[ScoreRow]) -> dict[tuple[str, str], str]:
    """What else is printed of a figure, by row and column."""
    flags = {}
    for each in contradictions(rows):
        for row, (other, text) in zip(each.rows, zip(each.rows[::-1], each.texts[::-1], strict=True), strict=True):
            flags[row.key, each.key] = f"{text} in {other.source}"
    return flags


def _cells(
    row: ScoreRow, groups: Groups, means: Sequence[Average], flags: Mapping[tuple[str, str], str]
) -> dict[str, Cell]:
    """A row as cells; what nobody says of any row has none."""
    cells = row.cells(groups, means)
    cells |= {f"{_PRINTED}{key}": Cell(float(text), text) for key, text in row.printed.items()}
    for (key, column), flag in flags.items():
        place = column if column in row.scores else f"{_PRINTED}{column}"
        if key == row.key and place in cells:
            cells[place] = replace(cells[place], flags=(flag,))
    if row.learnable is not None:
        cells["without_head"] = millions_cell(row.learnable)
    if row.source:
        about = {"source": row.source, "normalize": row.normalize, "epoch": row.epoch}
        cells |= {key: Cell(text=text or _UNKNOWN) for key, text in about.items()}
    return cells


def _about(line: Line, row: Row) -> dict[str, Cell]:
    run = line.all_runs[0]
    texts = {"source": "ours", "normalize": _normalization(run), "epoch": _epoch(run)}
    learnable = {key: cell for key, cell in row.cells.items() if key == "without_head"}
    return {key: Cell(text=text) for key, text in texts.items()} | learnable


def _why_apart(run: Stored, row: ScoreRow, scores: ScoreTable) -> str:
    """In what a run and a printed row differ of what makes figures comparable; empty for nothing."""
    pairs = {
        "backbone": (scores.backbone, str(run.value("backbone"))),
        "image size": (str(scores.image_size), str(run.value("image_size"))),
        "normalisation": (row.normalize, _normalization(run)),
        "epoch": (row.epoch, _epoch(run)),
    }
    return ", ".join(
        f"{name} {theirs or _UNKNOWN}, ours {ours}" for name, (theirs, ours) in pairs.items() if theirs != ours
    )


def _normalization(run: Stored) -> str:
    """What a run's images were fed with, as ``--normalize`` names it."""
    from petlbench.data.views import named_normalization

    fed = run.document.get("data", {}).get("normalization")
    if fed is None:
        return str(run.value("normalize"))
    mean, std = tuple(fed["mean"]), tuple(fed["std"])
    for name in ("imagenet", "half", "none", "clip"):
        if (named := named_normalization(name)).mean == mean and named.std == std:
            return name
    return ",".join(f"{number:g}" for number in (*mean, *std))


def _epoch(run: Stored) -> str:
    """Which epoch of a run is reported."""
    is_last = run.value("training.select") == "last" or run.value("train_on") == "train+val"
    return "last" if is_last else "best on validation"


def _less(ours: Mapping[str, Cell], theirs: Mapping[str, Cell], keys: Sequence[str]) -> dict[str, Cell]:
    """The differences of the figures that both have, in points."""
    cells = {}
    for key in keys:
        own, printed = ours.get(key, Cell()).value, theirs.get(key, Cell()).value
        if own is None or printed is None:
            cells[key] = Cell(text="–", reason="one of the two is missing")
        else:
            cells[key] = Cell(own - printed, f"{own - printed:+.2f}")
    return cells

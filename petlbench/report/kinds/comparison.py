"""Rows compared with one of them: effect, interval, and whether the runs can tell the two apart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from petlbench.core.errors import unknown_name
from petlbench.core.text import as_sentence
from petlbench.report.cells import FEW_POSITIVES
from petlbench.report.context import Context, Line
from petlbench.report.document import Axis, Cell, Column, Figure, Row, Series, Table
from petlbench.report.inputs import ReportInputs
from petlbench.report.kinds.verdict import verdict_of
from petlbench.statistics.verdict import Comparison

if TYPE_CHECKING:
    from petlbench.statistics.ranks import RankTests
    from petlbench.statistics.verdict import Average


# Each comparison reads the predictions of its runs: more than this takes minutes, so it is done on request only.
_MOST_RUNS = 600

_ELSEWHERE = "on other datasets of this kind"
_COLUMNS = (
    Column("effect", "effect", "points", group="on these datasets"),
    Column("interval", "95 % interval", "points", group="on these datasets"),
    Column("p_better", "P(better)", group="on these datasets", rank=2),
    Column("verdict", "verdict", group="on these datasets", numeric=False),
    Column("detectable", "smallest separable", "points", group="on these datasets", rank=3),
    Column("elsewhere_interval", "95 % interval", "points", group=_ELSEWHERE, rank=1),
    Column("elsewhere_verdict", "verdict", group=_ELSEWHERE, numeric=False, rank=1),
)


def compare_lines(inputs: ReportInputs, context: Context) -> tuple[list[Table], list[Figure], list[str], str]:
    """Tables, figures and notes that compare every row with one of them, and what they come to in a sentence.

    All are empty where there is nothing to compare.

    Raises:
        InputError: When the row to compare with is not there.
    """
    lines = [line for line in context.grid.lines if line.all_runs]
    if len(lines) < 2:
        return [], [], [], ""
    runs = sum(len(line.all_runs) for line in lines)
    if runs > _MOST_RUNS and inputs.request.against is None:
        note = f"Rows are not compared: the predictions of {runs:,} runs would be read. --against METHOD does it."
        return [], [], [note], ""
    base = _base(inputs, context, lines)
    inputs.progress.phase("comparing", len(lines) - 1)
    rows, comparisons = [], dict[str, Comparison]()
    for line in lines:
        if line.key != base.key:
            average = context.evidence.average(line.key, base.key)
            if average is not None:
                rows.append(line.row(_cells(average)))
                comparisons[line.key] = average.here
            inputs.progress.advance()
    ranks, notes = _ranks(context, lines, base)
    if not rows:
        return [], ranks, notes, ""
    title = f"Compared with {base.title}"
    caption = _caption(base, context)
    notes_below = [_EXPLAINED, *_table_notes(rows)]
    table = Table("comparison", title, _columns(rows), rows, caption, notes_below, row_title="method")
    verdict = verdict_of(context, lines, base, comparisons)
    return [table], [_figure(title, rows, f"{caption} Lines: 95 % intervals."), *ranks], notes, verdict


def _columns(rows: Sequence[Row]) -> list[Column]:
    """The columns of a comparison; what says nothing of any row leaves a narrow line before all others."""
    last = 1 + max(column.rank for column in _COLUMNS)
    is_said = any(row.cells["elsewhere_interval"].low is not None for row in rows)
    return [replace(each, rank=last) if each.group == _ELSEWHERE and not is_said else each for each in _COLUMNS]


def _base(inputs: ReportInputs, context: Context, lines: Sequence[Line]) -> Line:
    """The row to compare with: the one that was asked for, the report's own, or the one with the best average."""
    by_key = {line.key: line for line in lines}
    against = inputs.request.against
    if against is not None and against not in by_key:
        raise unknown_name("row to compare with", against, by_key)
    key = against or inputs.card.against
    if key in by_key:
        return by_key[key]
    return max(lines, key=lambda line: (context.averages[line.key].value or 0.0, len(line.all_runs)))


def _cells(average: Average) -> dict[str, Cell]:
    here, elsewhere = average.here, average.elsewhere
    return {
        "effect": _effect(here),
        "interval": _interval(here),
        "p_better": _probability(here),
        "verdict": Cell(text=here.verdict, reason=here.note),
        "detectable": _points(here.detectable, here, ""),
        "elsewhere_interval": _interval(elsewhere),
        "elsewhere_verdict": Cell(text=elsewhere.verdict, reason=elsewhere.note),
    }


def _effect(comparison: Comparison) -> Cell:
    low, high = (None if bound is None else 100 * bound for bound in (comparison.low, comparison.high))
    flags = (FEW_POSITIVES,) if comparison.few else ()
    return replace(_points(comparison.effect, comparison), low=low, high=high, flags=flags)


def _interval(comparison: Comparison) -> Cell:
    if comparison.low is None or comparison.high is None:
        return Cell(text="–", reason=comparison.note or comparison.verdict)
    low, high = (_points(bound, comparison).text for bound in (comparison.low, comparison.high))
    return Cell(text=f"{low} to {high}", low=100 * comparison.low, high=100 * comparison.high)


def _probability(comparison: Comparison) -> Cell:
    if comparison.p_better is None:
        return Cell(text="–", reason=comparison.note or comparison.verdict)
    share = min(max(comparison.p_better, 0.0), 1.0)
    text = "> 0.999" if share > 0.999 else "< 0.001" if share < 0.001 else f"{share:.3f}"
    return Cell(share, text)


def _points(value: float | None, comparison: Comparison, sign: str = "+") -> Cell:
    """A difference in points of a percent, rounded by its standard error."""
    from petlbench.statistics.rounding import round_by_uncertainty

    if value is None:
        return Cell(text="–", reason=comparison.note)
    if comparison.error:
        text = round_by_uncertainty(100 * value, 100 * comparison.error)
        return Cell(100 * value, f"+{text}" if sign and value > 0 else text)
    return Cell(100 * value, f"{100 * value:{sign}.2f}")


_EXPLAINED = (
    "The variance adds up that of images (groups where there are some), seeds and splits; on other datasets that of "
    "datasets too. P(better): probability that the row is the better one. Smallest separable: a smaller effect could "
    "not have been told from none with so many runs. 'too few': nothing says what another seed or dataset would give."
)


def _caption(base: Line, context: Context) -> str:
    score = as_sentence(context.metric_title)
    return f"{score} of a row less that of {base.title}, mean over the datasets that both have."


def _table_notes(rows: Sequence[Row]) -> list[str]:
    titles: dict[str, list[str]] = {}
    for row in rows:
        for key in ("verdict", "elsewhere_verdict"):
            if row.cells[key].reason:
                titles.setdefault(row.cells[key].reason, []).append(row.title)
    return [f"{', '.join(dict.fromkeys(names))}: {reason}." for reason, names in titles.items()]


def _figure(title: str, rows: Sequence[Row], caption: str) -> Figure:
    effects = [(row, row.cells["effect"]) for row in rows]
    series = [
        Series(row.key, row.title, {"effect": [cell.value], "effect_low": [cell.low], "effect_high": [cell.high]})
        for row, cell in effects
    ]
    axes = (Axis("effect", "effect", "points"), Axis("row", "method"))
    return Figure.of("comparison", "intervals", title, axes, series, caption=caption, marks={"line": 0})


def _ranks(context: Context, lines: Sequence[Line], base: Line) -> tuple[list[Figure], list[str]]:
    """Tests by rank over datasets: what they say, and a diagram where that shows something."""
    from petlbench.statistics.ranks import rank_tests

    scores: dict[str, dict[str, float]] = {}
    for line in lines:
        cells = {name: context.evidence.cell(line.key, name) for name in context.grid.datasets}
        scores[line.key] = {name: cell.mean for name, cell in cells.items() if cell is not None}
    tests = rank_tests(scores, base.key, direction=context.metric.direction)
    if tests is None:
        return [], []
    titles = {line.key: line.title for line in lines}
    notes = [tests.text]
    if tests.can_say:
        p_values = ", ".join(f"{titles[key]} {p:.2g}" for key, p in tests.p_values.items())
        notes = [f"{tests.text} Each row's p against {base.title}, after that correction: {p_values}."]
    return ([_diagram(tests, titles)] if tests.diagram else []), notes


def _diagram(tests: RankTests, titles: dict[str, str]) -> Figure:
    series = [Series(key, titles[key], {"rank": [rank]}) for key, rank in tests.mean_ranks.items()]
    axes = (Axis("rank", "mean rank", better="lower"), Axis("row", "method"))
    marks = {"critical_difference": tests.critical_difference, "cliques": [list(clique) for clique in tests.cliques]}
    return Figure.of("ranks", "ranks", "Mean ranks over datasets", axes, series, caption=tests.text, marks=marks)

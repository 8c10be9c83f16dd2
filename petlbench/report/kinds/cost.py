"""The figure of each row's average score against what it costs."""

from __future__ import annotations

from collections.abc import Sequence

from petlbench.core.errors import InputError
from petlbench.report.cells import MIB
from petlbench.report.context import Context, Line
from petlbench.report.document import Axis, Figure, Series
from petlbench.report.inputs import ReportInputs
from petlbench.report.kinds.papers import PaperTable

_AXES = (
    Axis("memory", "peak memory of a training step", "MiB", "log", "lower"),
    Axis("parameters", "learnable parameters", "%", "log", "lower"),
    Axis("time", "time of preloading, training and evaluation", "s", "log", "lower"),
)
_TITLES = {axis.key: axis.title for axis in _AXES}
_OTHER = {"memory": "parameters", "parameters": "memory", "time": "memory"}
_COST = "memory"


def cost_figures(inputs: ReportInputs) -> list[Figure]:
    """The figure of each row's average against a cost, of which another is the size of its point.

    There is none where no row has both, unless a cost is asked for.

    Raises:
        InputError: When no row has the cost that is asked for.
    """
    context, x = inputs.context, inputs.request.x
    score = Axis("score", f"{context.metric_title}, average", "%", "linear", context.metric.direction)
    series = [point for line in context.grid.lines if (point := _point(line, context)) is not None]
    placed = [point for point in series if point.values[x or _COST] != [None]]
    if x is not None and not placed:
        raise InputError(
            f"--x {x}: no row has an average score and {x}, so nothing can be drawn",
            hint=f"cells of the table without a figure say why; other costs are {', '.join(_OTHER)}",
            kind="no_figure",
        )
    if not placed:
        return []
    return [scatter((score, *_AXES), x or _COST, series, _caption(context, x or _COST))]


def printed_cost_figure(table: PaperTable, inputs: ReportInputs) -> Figure:
    """The same of a paper's printed table.

    Raises:
        InputError: When the cost is one that papers do not print.
    """
    titles, x = inputs.titles, inputs.request.x or _COST
    if x == "time":
        raise InputError(
            "--x time: papers print no times of runs", hint="choose --x memory or --x parameters", kind="bad_setting"
        )
    score = Axis("score", "AUC, average", "%", "linear", "higher")
    memory = Axis("memory", "memory", "MB", "log", "lower")
    names = {"score": "avg_auc", "memory": "memory", "parameters": "params"}
    series = []
    for row in table.rows:
        title = titles.get(row.key, row.key)
        values = {axis: [row.printed.get(name)] for axis, name in names.items()}
        series.append(Series(row.key, title, values, (title,)))
    caption = f"{table.paper.title}: {table.description}. All figures are printed ones."
    return scatter((score, memory, _AXES[1]), x, series, caption)


def scatter(axes: Sequence[Axis], x: str, series: Sequence[Series], caption: str) -> Figure:
    """Points of a score and a cost, with the front of those that no other beats in both."""
    title, marks = "Score against cost", {"pareto": True}
    return Figure("tradeoff", "scatter", title, axes, x, "score", series, _OTHER[x], caption, marks)


def _caption(context: Context, x: str) -> str:
    sources = {str((run.document.get("memory") or {}).get("source")) for run in context.grid.all_runs}
    figure = f"the {context.figure} peak of a training step, measured on {' and '.join(sorted(sources))}"
    return (
        f"Test score with its standard deviation over runs. Memory: {figure}; parameters are counted, times measured. "
        f"Size of a point: {_TITLES[_OTHER[x]]}. Dashed: what no other row beats in both."
    )


def _point(line: Line, context: Context) -> Series | None:
    average, memory, ratios = context.averages[line.key], line.memory(context.figure), line.figures("learnable_ratio")
    if average.value is None or not ratios:
        return None
    spread = average.std or 0.0
    values: dict[str, list[float | None]] = {
        "score": [average.value],
        "score_low": [average.value - spread],
        "score_high": [average.value + spread],
        "memory": [None if memory is None else memory / MIB],
        "parameters": [100 * sum(ratios) / len(ratios)],
        "time": [line.seconds],
    }
    return Series(line.key, line.title, values, (line.title,))

"""Score against what it costs, one point a row."""

from __future__ import annotations

from collections.abc import Sequence

from petlbench.core.errors import InputError
from petlbench.report.cells import MIB
from petlbench.report.context import Context, Line
from petlbench.report.document import Axis, Figure, Series
from petlbench.report.formats import Document
from petlbench.report.inputs import ReportInputs
from petlbench.report.kinds.methods import main_table
from petlbench.report.kinds.papers import PaperTable
from petlbench.report.spec import ReportKind

_AXES = (
    Axis("memory", "peak memory of a training step", "MiB", "log", "lower"),
    Axis("parameters", "learnable parameters", "%", "log", "lower"),
    Axis("time", "time of a run", "s", "log", "lower"),
)
_OTHER = {"memory": "parameters", "parameters": "memory", "time": "memory"}


def build(inputs: ReportInputs) -> Document:
    """Make a table, and the figure of each row's average against a cost; the size of a point is another cost."""
    main = main_table(inputs)
    return inputs.document([main], [_figure(inputs.context, inputs.request.x or "memory", main.caption)])


def _figure(context: Context, x: str, caption: str) -> Figure:
    score = Axis("score", f"{context.metric_title}, average", "%", "linear", context.metric.direction)
    series = [point for line in context.grid.lines if (point := _point(line, context)) is not None]
    return _scatter((score, *_AXES), x, series, caption)


def _paper_figure(table: PaperTable, inputs: ReportInputs) -> Figure:
    titles, x = inputs.titles, inputs.request.x or "memory"
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
    return _scatter((score, memory, _AXES[1]), x, series, caption)


def _scatter(axes: Sequence[Axis], x: str, series: Sequence[Series], caption: str) -> Figure:
    title, marks = "Score against cost", {"pareto": True}
    return Figure("tradeoff", "scatter", title, axes, x, "score", series, _OTHER[x], caption, marks)


TRADEOFF = ReportKind(
    name="tradeoff", title="Score against cost", build=build, by_group=True, printed_figure=_paper_figure
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

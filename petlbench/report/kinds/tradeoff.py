"""Score against what it costs, one point a row."""

from __future__ import annotations

from collections.abc import Mapping

from petlbench.report.cells import MIB
from petlbench.report.context import Context, memory_of, parameters_of, seconds_of
from petlbench.report.document import Axis, Document, Figure, Series
from petlbench.report.grid import Line
from petlbench.report.inputs import ReportInputs
from petlbench.report.kinds.methods import main_table
from petlbench.report.kinds.papers import PaperTable
from petlbench.report.registry import ReportKind

__all__ = ["TRADEOFF"]

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
    score = Axis("score", f"{context.metric.title}, average", "%", "linear", context.metric.direction)
    series = [point for line in context.grid.lines if (point := _point(line, context)) is not None]
    return Figure(
        "tradeoff",
        "scatter",
        "Score against cost",
        (score, *_AXES),
        x,
        "score",
        series,
        _OTHER[x],
        caption,
        {"pareto": True},
    )


def _paper_figure(table: PaperTable, titles: Mapping[str, str]) -> Figure:
    score = Axis("score", "AUC, average", "%", "linear", "higher")
    memory = Axis("memory", "memory", "MB", "log", "lower")
    series = [
        Series(
            row.key,
            titles.get(row.key, row.key),
            {
                "score": [row.printed["avg_auc"]],
                "memory": [row.printed["memory"]],
                "parameters": [row.printed.get("params")],
            },
            (titles.get(row.key, row.key),),
        )
        for row in table.rows
    ]
    axes = (score, memory, _AXES[1])
    caption = f"{table.title}: {table.description}. All figures are printed ones."
    return Figure(
        "tradeoff",
        "scatter",
        "Score against cost",
        axes,
        "memory",
        "score",
        series,
        "parameters",
        caption,
        {"pareto": True},
    )


TRADEOFF = ReportKind(name="tradeoff", title="Score against cost", build=build, printed_figure=_paper_figure)


def _point(line: Line, context: Context) -> Series | None:
    average, memory, seconds = context.averages[line.key], memory_of(line, context.figure), seconds_of(line)
    if average.value is None or parameters_of(line) is None:
        return None
    ratios = [run.document["parameters"]["ratio"] for run in line.all_runs if run.document.get("parameters")]
    spread = average.std or 0.0
    values: dict[str, list[float | None]] = {
        "score": [average.value],
        "score_low": [average.value - spread],
        "score_high": [average.value + spread],
        "memory": [None if memory is None else memory / MIB],
        "parameters": [100 * sum(ratios) / len(ratios)],
        "time": [seconds],
    }
    return Series(line.key, line.title, values, (line.title,))

"""Score against what it costs, one point a row."""

from __future__ import annotations

from petlbench.report.cells import MIB
from petlbench.report.context import Context, memory_of, parameters_of, seconds_of
from petlbench.report.document import Axis, Figure, Series
from petlbench.report.grid import Line
from petlbench.report.kinds.papers import PaperTable

__all__ = ["AXES", "paper_figure", "tradeoff_figure"]

AXES = (
    Axis("memory", "peak memory of a training step", "MiB", "log", "lower"),
    Axis("parameters", "learnable parameters", "%", "log", "lower"),
    Axis("time", "time of a run", "s", "log", "lower"),
)
"""What a score can be weighed against."""

_OTHER = {"memory": "parameters", "parameters": "memory", "time": "memory"}


def tradeoff_figure(context: Context, x: str, caption: str) -> Figure:
    """Draw the average of each row against a cost; the size of a point is another cost.

    Args:
        context: The results.
        x: The cost to the right.
        caption: The settings.
    """
    score = Axis("score", f"{context.metric.title}, average", "%", "linear", context.metric.direction)
    series = [found for line in context.grid.lines if (found := _point(line, context)) is not None]
    return Figure(
        "tradeoff",
        "scatter",
        "Score against cost",
        (score, *AXES),
        x,
        "score",
        series,
        _OTHER[x],
        caption,
        {"pareto": True},
    )


def paper_figure(table: PaperTable, titles: dict[str, str]) -> Figure:
    """Draw what a paper prints.

    Args:
        table: The paper's table.
        titles: What methods are called, by name.
    """
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
    axes = (score, memory, AXES[1])
    caption = f"{table.title}: {table.said}. All figures are printed ones."
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


def _point(line: Line, context: Context) -> Series | None:
    average, memory, seconds = context.averages[line.key], memory_of(line, context.figure), seconds_of(line)
    if average.value is None or parameters_of(line) is None:
        return None
    ratios = [one.document["parameters"]["ratio"] for one in line.all_runs if one.document.get("parameters")]
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

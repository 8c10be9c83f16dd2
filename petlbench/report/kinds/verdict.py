"""What a comparison of rows comes to, in a sentence that stands above everything else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from petlbench.report.context import Context, Line
from petlbench.statistics.verdict import Comparison


def verdict_of(context: Context, lines: Sequence[Line], base: Line, comparisons: Mapping[str, Comparison]) -> str:
    """The sentence on the row that takes least memory of those that are not behind the one compared with.

    Args:
        context: What is known of the rows.
        lines: The rows.
        base: The row that the others are compared with.
        comparisons: Each other row less the base, by key.
    """
    rows = [line for line in lines if line.key in comparisons]
    judged = [line for line in rows if comparisons[line.key].verdict != "too few"]
    if not judged:
        return "One seed does not tell methods apart: with two seeds or more each they are compared." if rows else ""
    level = [line for line in judged if not _is_behind(comparisons[line.key])]
    if not level:
        first = max(judged, key=lambda line: comparisons[line.key].p_better or 0.0)
        return f"Every other row is behind {base.title}; nearest is {first.title} at {_effect(comparisons[first.key])}."
    sparing = min(level, key=lambda line: _memory(line, context))
    share = _share(sparing, base, context)
    comparison = comparisons[sparing.key]
    how = "is not separable from" if comparison.verdict == "not separable" else "is ahead of"
    return f"{sparing.title} {how} {base.title}{share}: {_effect(comparison)}."


def _is_behind(comparison: Comparison) -> bool:
    return comparison.verdict == "separable" and (comparison.p_better or 0.0) < 0.5


def _memory(line: Line, context: Context) -> float:
    memory = line.memory(context.figure)
    return float("inf") if memory is None else float(memory)


def _share(line: Line, base: Line, context: Context) -> str:
    mine, its = line.memory(context.figure), base.memory(context.figure)
    if not mine or not its:
        return ""
    share = f"{100 * mine / its:.2g} % of" if mine < its else f"{mine / its:.1f} times"
    return f" at {share} the memory of its training step"


def _effect(comparison: Comparison) -> str:
    text = f"{100 * comparison.effect:+.1f} points"
    if comparison.low is None or comparison.high is None:
        return text
    return f"{text}, 95 % interval {100 * comparison.low:+.1f} to {100 * comparison.high:+.1f}"

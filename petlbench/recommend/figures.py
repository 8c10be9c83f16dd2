"""A race as figures: scores against the hours spent with who was dropped when, and what tells the methods apart."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from petlbench.metrics.metric import Metric
from petlbench.recommend.contest import Outcome
from petlbench.recommend.tuned import Difference
from petlbench.report.document import Axis, Figure, Series
from petlbench.sweep.search import TrialFacts

_Z = 1.96


def race_figure(outcome: Outcome, metric: Metric) -> Figure:
    """The best score so far of every method against the hours spent, with its interval of 95 %, and who was dropped."""
    axes = (
        Axis("hours", "hours spent", "h"),
        Axis("score", f"best validation {metric.title} so far", "%", better="higher"),
    )
    lines: dict[str, list[tuple[float, float, float]]] = {}
    for hours, trial in _spent(outcome):
        if trial.value is None:
            continue
        points = lines.setdefault(outcome.standing.entrant(trial).candidate.arm, [])
        before = [each[1:] for each in points[-1:]]
        best = max([*before, (100 * trial.value, outcome.standing.deviation(trial))])
        # A step, and no slope: the score was the old one until this trial.
        points += [(hours, *each) for each in dict.fromkeys([*before, best])]
    drops = dict(_drops(outcome))
    titles = {arm: f"{arm}, dropped at {drops[arm]:.2g} h" if arm in drops else arm for arm in lines}
    series = [Series(arm, titles[arm], _values(points)) for arm, points in lines.items()]
    caption = "Bands are intervals of 95 % over draws of validation images. "
    caption += "A method is dropped while the interval of its difference to the leader is below zero."
    return Figure.of("race", "lines", "The race", axes, series, caption=caption)


def _values(points: Sequence[tuple[float, float, float]]) -> dict[str, list[float]]:
    return {
        "hours": [hours for hours, _, _ in points],
        "score": [score for _, score, _ in points],
        "score_low": [max(0.0, score - _Z * deviation) for _, score, deviation in points],
        "score_high": [min(100.0, score + _Z * deviation) for _, score, deviation in points],
    }


def _spent(outcome: Outcome) -> Iterator[tuple[float, TrialFacts]]:
    """Every trial that says what it trained, with the hours spent when it ended."""
    seconds = sum(cost.spent for cost in outcome.costs.values())
    for trial in outcome.trials:
        seconds += trial.seconds or 0.0
        if trial.params:
            yield seconds / 3600, trial


def _drops(outcome: Outcome) -> Iterator[tuple[str, float]]:
    """The methods that were dropped for good, with the hours spent then."""
    left, trials = set(outcome.standing.excluded(outcome.trials)), list[TrialFacts]()
    for hours, trial in _spent(outcome):
        trials.append(trial)
        if trial.value is None or not left:
            continue
        for arm in sorted(left.intersection(outcome.standing.excluded(trials))):
            left.discard(arm)
            yield arm, hours


def differences_figure(rivals: Mapping[str, Difference], metric: Metric, best: str) -> Figure | None:
    """Every method's difference to the recommended one with its interval; None where there is no other."""
    if not rivals:
        return None
    axes = (
        Axis("difference", f"difference in {metric.title}", "points", better="higher"),
        Axis("row", "method"),
    )
    series = [
        Series(
            arm,
            arm,
            {
                "difference": [100 * pair.effect],
                "difference_low": [100 * pair.low],
                "difference_high": [100 * pair.high],
            },
        )
        for arm, pair in sorted(rivals.items(), key=lambda item: -item[1].effect)
    ]
    caption = f"{metric.title} less that of {best}, each with the best of its settings: over images, which are paired, "
    caption += "seeds, and settings that were not tried. An interval that holds zero tells none apart."
    return Figure.of(
        "differences", "intervals", "Who is told apart", axes, series, caption=caption, marks={"line": 0.0}
    )

"""A race as figures: what a reader sees of scores, hours and who was dropped."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, cast

import pytest

from petlbench.metrics.classification import AUC
from petlbench.recommend.contest import Outcome
from petlbench.recommend.costs import Cost
from petlbench.recommend.figures import differences_figure, race_figure
from petlbench.recommend.tuned import Difference
from petlbench.sweep.search import TrialFacts


class Standing:
    """Drops a method once three trials have ended."""

    def entrant(self, trial: TrialFacts) -> Any:
        return SimpleNamespace(candidate=SimpleNamespace(arm=trial.params["arm"]))

    def deviation(self, trial: TrialFacts) -> float:
        return 2.0

    def excluded(self, trials: Sequence[TrialFacts]) -> dict[str, float]:
        return {"linear": -0.2} if len(trials) > 2 else {}


def trial(arm: str, value: float | None) -> TrialFacts:
    return TrialFacts(0, "finished" if value else "failed", {"arm": arm}, value, seconds=360.0)


def test_a_line_is_the_best_so_far_against_all_hours_and_says_when_it_was_dropped() -> None:
    trials = [trial("lora", 0.8), trial("linear", 0.6), trial("lora", 0.7), trial("lora", None), trial("lora", 0.99)]
    costs = {"lora": Cost(360, 300, 400, measuring=180, preload=180)}
    outcome = SimpleNamespace(trials=trials, costs=costs, standing=Standing())
    figure = race_figure(cast("Outcome", outcome), AUC)
    lora, linear = figure.series
    # Measuring and features are spent before the first trial, and a failed one takes its time.
    assert lora.values["hours"] == pytest.approx([0.2, 0.4, 0.6, 0.6])
    assert lora.values["score"] == pytest.approx([80, 80, 80, 99])
    assert lora.values["score_low"] == pytest.approx([76.08, 76.08, 76.08, 95.08])
    assert lora.values["score_high"] == pytest.approx([83.92, 83.92, 83.92, 100])
    assert (lora.title, linear.title) == ("lora", "linear, dropped at 0.4 h")


def test_differences_are_drawn_the_best_first() -> None:
    rivals = {
        "linear": Difference(-0.1, -0.2, -0.01, 0.05),
        "full": Difference(-0.01, -0.03, 0.01, 0.01),
    }
    figure = differences_figure(rivals, AUC, "lora")
    assert figure is not None
    assert [series.title for series in figure.series] == ["full", "linear"]
    assert figure.series[1].values["difference_low"] == pytest.approx([-20])
    assert differences_figure({}, AUC, "lora") is None

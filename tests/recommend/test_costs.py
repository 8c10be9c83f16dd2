"""What runs take: predicted from two epochs, corrected by trials, and counted against the hours."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from petlbench.core.config import RunConfig
from petlbench.recommend.contest import Contest
from petlbench.recommend.costs import Cost, Epoch, _cost, expected_seconds
from petlbench.recommend.field import Standing
from petlbench.sweep.search import TrialFacts


class ByNumber:
    """Says of a trial that it is of the arm that its parameters name; the best trial is the last one of each."""

    def entrant(self, trial: TrialFacts) -> Any:
        return SimpleNamespace(candidate=SimpleNamespace(arm=trial.params["arm"]))

    def best_trials(self, trials: list[TrialFacts]) -> dict[str, TrialFacts]:
        return {trial.params["arm"]: trial for trial in trials if trial.value is not None}

    def result(self, trial: TrialFacts) -> Any:
        return SimpleNamespace(timing={"total": trial.seconds or 0.0, "preload": 0.0})


def trial(arm: str, seconds: float | None, value: float | None = 0.5, status: str = "finished") -> TrialFacts:
    return TrialFacts(0, status, {"arm": arm}, value, seconds=seconds)


def run(epochs: int, share: float = 1.0) -> RunConfig:
    return cast("RunConfig", SimpleNamespace(training=SimpleNamespace(epochs=epochs), train_fraction=share))


def test_the_first_epoch_counts_once_and_the_last_one_for_all_others() -> None:
    # Reading 1 s, features 5 s, epochs of 3 and 2 s, a last validation and writing 0.5 s.
    timing = {"total": 11.5, "preload": 5.0, "data": 1.0, "train": 3.6, "evaluate": 1.8}
    cost = _cost(timing, Epoch(1.4, 0.6), run(2), run(20))
    assert cost.seconds == pytest.approx(5.5 + 18 * 2.0)
    assert cost.low < cost.seconds < cost.high
    assert (cost.measuring, cost.preload, cost.features) == (5.5, 6.0, 0.0)


def test_few_steps_stand_for_many_and_validation_for_itself() -> None:
    # A tenth of the images: steps take ten times as long, validation, which saw all of its images, does not.
    timing = {"total": 11.5, "start": 4.0, "preload": 2.0, "train": 3.6, "evaluate": 1.8}
    cost = _cost(timing, Epoch(1.4, 0.6), run(2, 0.05), run(20, 0.5))
    assert cost.seconds == pytest.approx(5.5 + 2 * 9 * 1.4 + 18 * (10 * 1.4 + 0.6))
    assert cost.features == pytest.approx(9 * 2.0)
    assert cost.spent == 11.5


def test_an_epoch_is_told_by_when_its_phases_began() -> None:
    moments = [("preloading", 0.0), ("epoch 1/2", 1.0), ("validation", 4.0), ("done", 5.0)]
    moments += [("epoch 2/2", 6.0), ("validation", 8.0), ("done", 8.5), ("measuring prediction", 9.0)]
    assert Epoch.last(moments) == (2.0, 0.5)
    # After a kill the mean epoch counts.
    assert Epoch.last(moments[5:]) is None
    assert Epoch.last([]) is None
    assert Epoch.mean({"train": 3.6, "evaluate": 1.8}, 2) == pytest.approx((1.8, 0.6))


def test_trials_say_better_what_a_run_takes() -> None:
    costs = {"lora": Cost(10, 8, 12), "full": Cost(40, 30, 50)}
    trials = [trial("lora", 14.0), trial("lora", 16.0), trial("full", 3.0, value=None, status="failed")]
    assert expected_seconds(costs, cast("Standing", ByNumber()), trials) == {"lora": 15.0, "full": 40}


def contest(hours: float) -> Contest:
    card = SimpleNamespace(finalist_seeds=[0, 1, 2], finalists=2)
    field, standing = cast("Any", SimpleNamespace(card=card)), cast("Standing", ByNumber())
    costs = {"lora": Cost(10, 8, 12, measuring=1), "full": Cost(40, 30, 50)}
    return Contest(field, standing, hours, 1000, cast("Any", None), cast("Any", None), costs=costs)


@pytest.mark.parametrize(
    ("seconds", "out"),
    [
        # 1 s of measuring and 20 s of trials are spent; 60 s are kept for the seeds and the test of the best ones.
        (122, set()),
        (120, {"full"}),
        (90, {"lora", "full"}),
    ],
)
def test_a_method_that_fits_no_more_leaves_the_time_to_cheaper_ones(seconds: float, out: set[str]) -> None:
    trials = [trial("lora", 10.0), trial("lora", 10.0), trial("full", None, value=None, status="failed")]
    trials[0] = trial("other", 10.0, value=0.4)
    race = contest(seconds)
    race.costs["other"] = Cost(1000, 900, 1100)
    assert race._unaffordable(trials) - {"other"} == out


def test_what_is_under_way_is_counted_as_it_is_expected() -> None:
    under_way = trial("full", None, value=None, status="running")
    assert contest(80)._unaffordable([]) == set()
    assert contest(80)._unaffordable([under_way]) == {"full"}


def test_a_measured_run_that_is_a_trial_is_not_counted_twice() -> None:
    timing = {"total": 6.5, "preload": 1.0}
    whole, part = (_cost(timing, Epoch(1.4, 0.6), run(2), long) for long in (run(2), run(20)))
    assert whole.seconds == whole.measuring == 5.5
    assert (whole.spent, part.spent) == (0.0, 6.5)

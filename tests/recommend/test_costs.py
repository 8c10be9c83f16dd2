"""What runs take: predicted from two epochs, corrected by trials, and counted against the hours."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from petlbench.recommend.contest import Contest
from petlbench.recommend.costs import _ONCE_FOR_ALL, Cost, _cost, expected_seconds
from petlbench.recommend.field import Standing
from petlbench.results.result import Result
from petlbench.sweep.search import TrialFacts


class ByNumber:
    """Says of a trial that it is of the arm that its parameters name; the best trial is the last one of each."""

    def entrant(self, trial: TrialFacts) -> Any:
        return SimpleNamespace(candidate=SimpleNamespace(arm=trial.params["arm"]))

    def best_trials(self, trials: list[TrialFacts]) -> dict[str, TrialFacts]:
        return {trial.params["arm"]: trial for trial in trials if trial.value is not None}


def trial(arm: str, seconds: float | None, value: float | None = 0.5, status: str = "finished") -> TrialFacts:
    return TrialFacts(0, status, {"arm": arm}, value, seconds=seconds)


def measured(**timing: float) -> Result:
    return cast("Result", SimpleNamespace(timing=timing, curve=[{}, {}]))


def test_the_first_epoch_counts_once_and_the_last_one_for_all_others() -> None:
    # Reading 1 s, features 5 s, epochs of 3 and 2 s, a last validation and writing 0.5 s.
    cost = _cost(measured(total=11.5, preload=5.0, train=3.6, evaluate=1.8), last_epoch=2.0, further=18)
    assert cost.seconds == pytest.approx(6.5 + 18 * 2.0)
    assert cost.low < cost.seconds < cost.high
    assert (cost.measuring, cost.preload) == (6.5, 5.0)


def test_what_is_done_once_is_no_part_of_a_run() -> None:
    # Imports 4 s, reading 8 s: a later run reads nothing, and finds all that is imported.
    timing = {"total": 20.0, "start": 4.0, "preload": 1.0, "data": 8.0, "train": 4.0, "evaluate": 1.0}
    first = _cost(measured(**timing), last_epoch=2.0, further=10, once=_ONCE_FOR_ALL)
    assert first.seconds == pytest.approx(7.0 + 10 * 2.0)
    assert first.spent == 20.0
    later = _cost(measured(**{**timing, "start": 0.0, "data": 0.5, "total": 8.5}), last_epoch=2.0, further=10)
    assert later.seconds == pytest.approx(7.5 + 10 * 2.0)


def test_after_a_kill_the_mean_epoch_counts() -> None:
    cost = _cost(measured(total=6.5, train=3.6, evaluate=1.8), last_epoch=None, further=10)
    assert cost.seconds == pytest.approx(6.5 + 10 * (1.8 + 0.6))


def test_trials_say_better_what_a_run_takes() -> None:
    costs = {"lora": Cost(10, 8, 12), "full": Cost(40, 30, 50)}
    trials = [trial("lora", 14.0), trial("lora", 16.0), trial("full", 3.0, value=None, status="failed")]
    assert expected_seconds(costs, cast("Standing", ByNumber()), trials) == {"lora": 15.0, "full": 40}


def contest(hours: float) -> Contest:
    card = SimpleNamespace(finalist_seeds=[0, 1, 2], finalists=2)
    field, standing = cast("Any", SimpleNamespace(card=card)), cast("Standing", ByNumber())
    costs = {"lora": Cost(10, 8, 12, measuring=1), "full": Cost(40, 30, 50)}
    return Contest(field, standing, hours, cast("Any", None), cast("Any", None), costs=costs)


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
    whole, part = (_cost(measured(total=6.5, preload=1.0), last_epoch=2.0, further=n) for n in (0, 18))
    assert whole.seconds == whole.measuring == 5.5
    assert (whole.spent, part.spent) == (0.0, 6.5)

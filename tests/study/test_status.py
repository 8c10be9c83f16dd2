"""How long a study still takes: from finished runs of the same method and dataset, and from nothing else."""

from __future__ import annotations

import pytest

from petlbench.results.result import Result
from petlbench.study.grid import PlannedRun
from petlbench.study.status import RunState, StudyStatus
from tests.study.acting import acted_result


@pytest.fixture
def states(plans: list[PlannedRun]) -> list[RunState]:
    return [RunState(planned) for planned in plans]


def timed(planned: PlannedRun, seconds: float) -> Result:
    assert planned.config is not None
    return acted_result(planned.config, timing={"total": seconds})


def test_nothing_is_known_before_a_run_is_finished(states: list[RunState]) -> None:
    assert StudyStatus(states).seconds_left(1) == (None, len(states))


def test_time_left_is_that_of_finished_runs_of_the_same_place(states: list[RunState]) -> None:
    states[0].status, states[0].result = "finished", timed(states[0].planned, 10.0)
    board = StudyStatus(states)
    assert board.seconds_left(1) == (10.0, len(states) - 2)
    assert board.seconds_left(2) == (5.0, len(states) - 2)
    states[1].status, states[1].epoch = "running", 1
    assert board.seconds_left(1) == (5.0, len(states) - 2)
    states[1].status = "failed"
    assert board.seconds_left(1) == (None, len(states) - 2)

"""One job in this process: what is told, and what is left."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from petlbench.results.folder import RunFolder
from petlbench.study.executors.job import Action, Ended, EpochDone, Event, PhaseBegan
from petlbench.study.executors.run_job import perform
from tests.study.executors.conftest import MakeJob
from tests.study.executors.watching import journal, stored


def go_on(event: Event) -> Action:
    return Action.GO_ON


def test_a_run_tells_its_phases_and_its_epochs_and_then_it_is_finished(make_job: MakeJob) -> None:
    job, events = make_job(), list[Event]()

    def note(event: Event) -> Action:
        events.append(event)
        return Action.GO_ON

    ended = perform(job, note)
    assert (ended.status, ended.error, ended.attempts) == ("finished", None, 1)
    assert ended.seconds > 0
    phases = [event.name for event in events if isinstance(event, PhaseBegan)]
    assert phases[-1] == "measuring prediction"
    assert {"epoch 1/2", "epoch 2/2", "test"} <= set(phases)
    assert [event.entry for event in events if isinstance(event, EpochDone)] == stored(job).curve
    # A second time it is looked at, and not trained again.
    assert perform(job, go_on).status == "finished"
    assert len(journal(job, "ended")) == 1


def test_a_pruned_run_has_the_epochs_that_it_had(make_job: MakeJob) -> None:
    job = make_job(epochs=3)
    ended = perform(job, lambda event: Action.PRUNE if isinstance(event, EpochDone) else Action.GO_ON)
    assert ended.status == stored(job).status == "pruned"
    assert len(stored(job).curve) == 1


@pytest.mark.parametrize("spent", [pytest.param(0.0, marks=pytest.mark.slow), 100.0])
def test_a_run_stops_itself_when_its_time_is_over(make_job: MakeJob, spent: float) -> None:
    job = make_job(epochs=1000, trouble="slow", timeout=spent or 3.0)
    ended = perform(job, go_on, spent=spent)
    assert ended.status == stored(job).status == "timeout"
    assert ended.error is not None
    assert f"{job.timeout:g} s" in ended.error["message"]
    assert (len(stored(job).curve) > 0) == (spent == 0)


def test_a_run_that_another_process_works_on_is_busy(make_job: MakeJob) -> None:
    job = make_job()
    with RunFolder(job.options.output, job.config.run_id).locked():
        ended = perform(job, go_on)
    assert ended.status == "busy"
    assert ended.error is not None
    assert ended.error["kind"] == "already_running"
    assert perform(job, go_on).status == "finished"


@pytest.mark.parametrize(
    ("trouble", "status", "kind"),
    [pytest.param("raise", "failed", "exception", marks=pytest.mark.slow), ("memory", "oom", "oom")],
)
def test_what_goes_wrong_in_a_run_is_in_its_result(make_job: MakeJob, trouble: str, status: str, kind: str) -> None:
    job = make_job(trouble=trouble)
    ended = perform(job, go_on)
    assert ended.status == stored(job).status == status
    assert ended.error == stored(job).error
    assert ended.error is not None
    assert ended.error["kind"] == kind


def test_wrong_data_fail_the_run_and_leave_nothing(make_job: MakeJob, tmp_path: Path) -> None:
    job = make_job()
    job = replace(job, config=job.config.model_copy(update={"dataset": str(tmp_path / "nowhere")}))
    ended = perform(job, go_on)
    assert ended.status == "failed"
    assert ended.error is not None
    assert "nowhere" in ended.error["message"]
    assert set(ended.error) >= {"kind", "message", "hint"}
    assert not (job.options.output / job.config.run_id).exists()


def test_a_catalogue_that_is_not_there_fails_the_run(make_job: MakeJob, tmp_path: Path) -> None:
    ended = perform(replace(make_job(), options=replace(make_job().options, catalogs=(tmp_path / "nowhere",))), go_on)
    assert isinstance(ended, Ended)
    assert ended.status == "failed"


@pytest.mark.slow
def test_an_interrupted_run_goes_on_from_its_last_epoch(make_job: MakeJob) -> None:
    job = make_job(epochs=3)

    def interrupt(event: Event) -> Action:
        if isinstance(event, EpochDone) and event.entry["epoch"] == 2:
            raise KeyboardInterrupt
        return Action.GO_ON

    assert perform(job, interrupt).status == stored(job).status == "interrupted"
    assert perform(job, go_on).status == "finished"
    assert [line["epoch"] for line in journal(job, "started")] == [0, 2]
    assert len(stored(job).curve) == 3

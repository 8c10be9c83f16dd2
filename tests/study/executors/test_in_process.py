"""Jobs one after the other in this process."""

from __future__ import annotations

import pytest

from petlbench.core.catalog import Catalog
from petlbench.study.executors.job import Ended, EpochDone, Event, ExecutorOptions, Job, Started, open_executor
from tests.study.executors.conftest import MakeJob
from tests.study.executors.watching import Watcher, journal, lazily, stored


def test_jobs_are_asked_for_when_there_is_room_and_not_before(make_job: MakeJob, watcher: Watcher) -> None:
    jobs, asked = [make_job(seed, epochs=1) for seed in range(2)], list[int]()
    ended_when_asked = []

    def note(job: Job, event: Event) -> None:
        if isinstance(event, Started):
            ended_when_asked.append(len(watcher.endings()))
            assert asked[-1] == job.config.seed

    watcher.react = note
    open_executor("local", ExecutorOptions(workers=0), Catalog()).run(lazily(jobs, asked, gaps=1), watcher)
    assert asked == [0, 1]
    assert ended_when_asked == [0, 1]
    assert [ended.status for ended in watcher.endings()] == ["finished", "finished"]
    for job in jobs:
        kinds = watcher.kinds(job)
        assert (kinds[0], kinds[-1], kinds.count("EpochDone")) == ("Started", "Ended", 1)


def test_a_fault_of_the_watcher_is_not_recorded_as_one_of_the_run(make_job: MakeJob, watcher: Watcher) -> None:
    job = make_job()

    def fail(_: Job, event: Event) -> None:
        if isinstance(event, EpochDone):
            raise RuntimeError("the study's database is gone")

    watcher.react = fail
    with pytest.raises(RuntimeError, match="database is gone"):
        open_executor("local", ExecutorOptions(workers=0), Catalog()).run(iter([job]), watcher)
    assert stored(job).status == "interrupted"
    open_executor("local", ExecutorOptions(workers=0), Catalog()).run(iter([job]), Watcher())
    assert [line["epoch"] for line in journal(job, "started")] == [0, 1]
    assert stored(job).status == "finished"


@pytest.mark.slow
def test_an_interrupt_is_told_and_raised(make_job: MakeJob, watcher: Watcher) -> None:
    jobs, asked = [make_job(seed) for seed in range(2)], list[int]()

    def stop(_: Job, event: Event) -> None:
        if isinstance(event, EpochDone):
            raise KeyboardInterrupt

    watcher.react = stop
    with pytest.raises(KeyboardInterrupt):
        open_executor("local", ExecutorOptions(workers=0), Catalog()).run(lazily(jobs, asked), watcher)
    assert asked == [0]
    assert [ended.status for ended in watcher.endings()] == ["interrupted"]
    assert stored(jobs[0]).status == "interrupted"


@pytest.mark.slow
def test_one_run_that_fails_does_not_stop_the_others(make_job: MakeJob, watcher: Watcher) -> None:
    jobs = [make_job(trouble="memory"), make_job(epochs=1)]
    open_executor("local", ExecutorOptions(workers=0), Catalog()).run(iter(jobs), watcher)
    assert [ended.status for ended in watcher.endings()] == ["oom", "finished"]
    assert isinstance(watcher.of(jobs[1])[-1], Ended)

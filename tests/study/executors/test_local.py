"""Jobs in worker processes: killed, hung, stopped and left alone by their driver."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from petlbench.core.catalog import Catalog
from petlbench.core.errors import RunError
from petlbench.results.folder import RunFolder
from petlbench.study.executors.job import Ended, EpochDone, Event, ExecutorOptions, Job, Started, open_executor
from petlbench.study.executors.local import LocalExecutor
from petlbench.study.executors.worker import WorkerProcess
from tests.study.executors.conftest import MakeJob
from tests.study.executors.watching import Watcher, journal, lazily, stored


def epoch(event: Event) -> int | None:
    return event.entry["epoch"] if isinstance(event, EpochDone) else None


def worker_pid(job: Job) -> int:
    """The process that works on a job, or did so last."""
    return int(journal(job, "started")[-1]["pid"])


def is_free(job: Job) -> bool:
    """Whether no process works on a job."""
    try:
        with RunFolder(job.options.output, job.config.run_id).locked():
            return True
    except RunError:
        return False


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def wait_until(condition: Callable[[], bool], seconds: float = 60) -> bool:
    limit = time.monotonic() + seconds
    while not condition() and time.monotonic() < limit:
        time.sleep(0.05)
    return condition()


def test_a_killed_worker_costs_at_most_one_epoch_and_the_others_nothing(make_job: MakeJob, watcher: Watcher) -> None:
    """One pair of workers for much at once, because starting them takes longer than all that they do."""
    killed, pruned, busy, broken = (
        make_job(0, epochs=4),
        make_job(1, epochs=3),
        make_job(2),
        make_job(3, trouble="raise"),
    )
    # What is run again although a result stands is so once: the second attempt goes on.
    killed = replace(killed, options=replace(killed.options, rerun=True))
    jobs, asked = [killed, pruned, busy, broken], list[int]()
    victims = []

    def react(job: Job, event: Event) -> None:
        if job is killed and epoch(event) == 2 and not victims:
            victims.append(worker_pid(job))
            os.kill(victims[0], signal.SIGKILL)

    watcher.react = react
    watcher.prune = {pruned.config.run_id: 1}
    with RunFolder(busy.options.output, busy.config.run_id).locked():
        LocalExecutor(1).run(lazily(jobs, asked, gaps=1), watcher)
    assert asked == [0, 1, 2, 3]
    assert [ended.status for ended in watcher.endings()] == ["finished", "pruned", "busy", "failed"]
    assert [ended.attempts for ended in watcher.endings()] == [2, 1, 1, 1]
    starts, epochs = journal(killed, "started"), [line["epoch"] for line in journal(killed, "epoch")]
    assert starts[0]["pid"] == victims[0] != starts[1]["pid"]
    assert [line["epoch"] for line in starts] == [0, 2]
    assert sorted(set(epochs)) == [1, 2, 3, 4]
    assert len(journal(killed, "ended")) == 1
    assert len(stored(killed).curve) == 4
    assert stored(pruned).status == "pruned"
    assert not is_alive(starts[1]["pid"])


@pytest.mark.slow
def test_two_workers_work_at_the_same_time_and_give_the_same_results_as_none(
    make_job: MakeJob, watcher: Watcher, tmp_path: Path
) -> None:
    jobs = [make_job(seed, epochs=3, trouble="slow") for seed in range(4)]
    open_executor("local", ExecutorOptions(workers=2), Catalog()).run(iter(jobs), watcher)
    results = [stored(job) for job in jobs]
    assert [result.status for result in results] == ["finished"] * 4
    running, most = set[int](), 0
    for job, event in watcher.heard:
        running = running | {job.config.seed} if isinstance(event, Started) else running
        running = running - {job.config.seed} if isinstance(event, Ended) else running
        most = max(most, len(running))
    assert most == 2
    assert len({line["pid"] for job in jobs for line in journal(job, "started")}) == 2
    (tmp_path / "results").rename(tmp_path / "in_processes")
    open_executor("local", ExecutorOptions(workers=0), Catalog()).run(iter(jobs), Watcher())
    assert [stored(job).metrics for job in jobs] == [result.metrics for result in results]


@pytest.mark.slow
def test_a_run_that_kills_its_worker_again_and_again_is_given_up(make_job: MakeJob, watcher: Watcher) -> None:
    deadly, good = make_job(trouble="die"), make_job()
    LocalExecutor(1).run(iter([deadly, good]), watcher)
    given_up, finished = watcher.endings()
    assert (given_up.status, given_up.attempts, finished.status) == ("failed", 3, "finished")
    error = stored(deadly).error
    assert error == given_up.error
    assert error is not None
    assert error["kind"] == "worker_died"
    assert "signal 9 (SIGKILL): often the kernel, for lack of memory" in error["message"]
    assert Path(error["hint"].rpartition(" ")[2]).parent == deadly.options.output / ".work"


@pytest.mark.slow
def test_a_run_that_hangs_is_killed_and_the_next_one_is_not_kept(
    make_job: MakeJob, watcher: Watcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("petlbench.study.executors.pool._GRACE", 1.0)
    hanging, good = make_job(trouble="hang", timeout=15.0), make_job(timeout=600.0)
    LocalExecutor(1).run(iter([hanging, good]), watcher)
    late, finished = watcher.endings()
    assert (late.status, finished.status) == ("timeout", "finished")
    assert late.seconds == pytest.approx(16.0, abs=3)
    assert stored(hanging).status == "timeout"
    # It hangs where the module is tried, before the journal has a line of it: no process of this one is left at all.
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    assert not [child for child in children if is_alive(int(child))]


@pytest.mark.slow
def test_an_interrupt_stops_all_workers_and_their_runs_can_go_on(make_job: MakeJob, watcher: Watcher) -> None:
    jobs = [make_job(seed, epochs=500, trouble="slow") for seed in range(2)]

    def stop(job: Job, event: Event) -> None:
        if epoch(event) == 2:
            raise KeyboardInterrupt

    watcher.react = stop
    with pytest.raises(KeyboardInterrupt):
        LocalExecutor(2).run(iter(jobs), watcher)
    assert [ended.status for ended in watcher.endings()] == ["interrupted"] * 2
    assert {stored(job).status for job in jobs if (job.options.output / job.config.run_id).exists()} == {"interrupted"}
    assert not any(is_alive(line["pid"]) for job in jobs for line in journal(job, "started"))
    assert any(RunFolder(job.options.output, job.config.run_id).checkpoint.exists() for job in jobs)


@pytest.mark.slow
def test_a_worker_that_is_told_to_stop_by_others_is_replaced(make_job: MakeJob, watcher: Watcher) -> None:
    job, told = make_job(epochs=4, trouble="slow"), []

    def react(_: Job, event: Event) -> None:
        if epoch(event) == 2 and not told:
            told.append(worker_pid(job))
            os.kill(told[0], signal.SIGTERM)

    watcher.react = react
    LocalExecutor(1).run(iter([job]), watcher)
    assert [(ended.status, ended.attempts) for ended in watcher.endings()] == [("finished", 2)]
    assert len(stored(job).curve) == 4


@pytest.mark.slow
def test_workers_that_cannot_start_stop_the_study_and_not_its_runs(
    make_job: MakeJob, watcher: Watcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", [])
    job = make_job()
    with pytest.raises(Exception, match="worker-0 cannot be started: it ended by itself with exit status 1") as refused:
        LocalExecutor(1).run(iter([job]), watcher)
    assert "ModuleNotFoundError" in refused.value.hint
    assert not (job.options.output / job.config.run_id).exists()


DRIVER = """
import pickle, sys
from pathlib import Path
from petlbench.core.catalog import Catalog
from petlbench.study.executors.job import ExecutorOptions, open_executor
from petlbench.study.executors.job import Action
from petlbench.core.interrupt import install_handlers

install_handlers()
jobs = pickle.loads(Path(sys.argv[1]).read_bytes())
open_executor("local", ExecutorOptions(workers=2), Catalog()).run(iter(jobs), lambda job, event: Action.GO_ON)
"""


@pytest.fixture
def driver(make_job: MakeJob, tmp_path: Path) -> tuple[subprocess.Popen[bytes], list[Job]]:
    """A driver in a process of its own, with two long runs under way."""
    import pickle

    jobs = [make_job(seed, epochs=2000, trouble="slow") for seed in range(2)]
    (tmp_path / "jobs").write_bytes(pickle.dumps(jobs))
    process = subprocess.Popen([sys.executable, "-c", DRIVER, str(tmp_path / "jobs")], stderr=subprocess.PIPE)
    assert wait_until(lambda: all(journal(job, "epoch") for job in jobs), 400)
    return process, jobs


@pytest.mark.slow
def test_workers_end_with_a_driver_that_is_killed(driver: tuple[subprocess.Popen[bytes], list[Job]]) -> None:
    process, jobs = driver
    pids = [worker_pid(job) for job in jobs]
    assert all(is_alive(pid) for pid in pids)
    process.kill()
    process.communicate()
    assert wait_until(lambda: not any(is_alive(pid) for pid in pids), 10)
    # Nothing keeps the next driver from them; a process that is gone may give its files free a moment later.
    assert wait_until(lambda: all(is_free(job) for job in jobs), 10)
    assert all(RunFolder(job.options.output, job.config.run_id).checkpoint.exists() for job in jobs)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_the_driver_ends_the_runs_in_order(
    driver: tuple[subprocess.Popen[bytes], list[Job]], number: signal.Signals
) -> None:
    process, jobs = driver
    pids = [worker_pid(job) for job in jobs]
    process.send_signal(number)
    _, said = process.communicate(timeout=60)
    assert said.strip().endswith(b"KeyboardInterrupt")
    assert not any(is_alive(pid) for pid in pids)
    assert [stored(job).status for job in jobs] == ["interrupted", "interrupted"]


def test_how_a_process_ended_is_said_in_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("petlbench.study.executors.worker.sys.executable", "/bin/false")
    process = WorkerProcess("worker-0")
    process.start(tmp_path / "log")
    assert process.receive() == "ended by itself with exit status 1"
    assert process.last_words() == ""
    process.finish()
    assert not (tmp_path / "log").exists()

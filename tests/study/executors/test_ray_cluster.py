"""Jobs on a Ray cluster that loses a node."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import pytest

from petlbench.core.catalog import Catalog
from petlbench.core.errors import InputError
from petlbench.study.executors.job import Ended, EpochDone, Event, ExecutorOptions, Job, Started, open_executor
from tests.study.executors.conftest import MakeJob
from tests.study.executors.watching import Watcher, journal, lazily, stored

os.environ.setdefault("RAY_worker_niceness", "0")
pytestmark = [pytest.mark.slow, pytest.mark.needs("ray")]

T = TypeVar("T")


def epoch(event: Event) -> int | None:
    return event.entry["epoch"] if isinstance(event, EpochDone) else None


def patiently(start: Callable[[], T]) -> T:
    """Start a node, again where a busy machine does not start it within the 30 seconds that Ray gives it."""
    for _ in range(3):
        with suppress(Exception):
            return start()
    return start()


@pytest.fixture
def cluster() -> Iterator[Any]:
    """Two nodes that each have room for one run; the driver is on the first."""
    import ray
    from ray.cluster_utils import Cluster

    size = {"num_cpus": 1, "object_store_memory": 80_000_000, "include_dashboard": False}
    found = patiently(lambda: Cluster(initialize_head=True, head_node_args=size))
    patiently(lambda: found.add_node(**size))
    found.wait_for_nodes()
    yield found
    ray.shutdown()
    found.shutdown()


@pytest.mark.short
def test_two_nodes_have_a_job_each(cluster: Any, make_job: MakeJob, watcher: Watcher) -> None:
    jobs, (node,) = [make_job(seed, trouble="slow") for seed in range(2)], cluster.worker_nodes
    on_second = {}

    def react(job: Job, event: Event) -> None:
        if epoch(event) == 1:
            on_second[job.config.seed] = _works_on(node, job)

    watcher.react = react
    open_executor("ray", ExecutorOptions(workers=2, address=cluster.address), Catalog()).run(iter(jobs), watcher)
    assert [ended.status for ended in watcher.endings()] == ["finished"] * 2
    assert sorted(on_second.values()) == [False, True]
    assert [stored(job).status for job in jobs] == ["finished"] * 2


def test_a_node_that_is_lost_costs_no_run_and_none_is_finished_twice(
    cluster: Any, make_job: MakeJob, watcher: Watcher
) -> None:
    jobs, asked = [make_job(seed, epochs=4, trouble="slow") for seed in range(6)], list[int]()
    lost, (node,) = list[Job](), cluster.worker_nodes

    def react(job: Job, event: Event) -> None:
        if len(watcher.endings()) >= 2 and epoch(event) == 2 and not lost and _works_on(node, job):
            lost.append(job)
            cluster.remove_node(node, allow_graceful=False)

    watcher.react = react
    open_executor("ray", ExecutorOptions(workers=8, address=cluster.address), Catalog()).run(
        lazily(jobs, asked), watcher
    )
    assert len(lost) == 1
    assert asked == list(range(6))
    assert [ended.status for ended in watcher.endings()] == ["finished"] * 6
    assert [len(journal(job, "ended")) for job in jobs] == [1] * 6
    assert [len(stored(job).curve) for job in jobs] == [4] * 6
    ended = next(event for event in watcher.of(lost[0]) if isinstance(event, Ended))
    assert ended.attempts == 2
    assert [line["epoch"] for line in journal(lost[0], "started")] == [0, 2]


def _works_on(node: Any, job: Job) -> bool:
    """Whether the process that works on a job was started by a node's raylet."""
    pid, raylet = journal(job, "started")[-1]["pid"], node.all_processes["raylet"][0].process.pid
    parent = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1]
    return bool(int(parent) == raylet)


@pytest.fixture
def local_cluster() -> Iterator[None]:
    """One that several executors use, because starting one takes long."""
    import ray

    size = {"num_cpus": 2, "object_store_memory": 80_000_000, "include_dashboard": False}
    patiently(lambda: ray.init("local", log_to_driver=False, **size))
    yield
    ray.shutdown()


def test_what_goes_wrong_on_a_cluster_is_what_goes_wrong_here(
    local_cluster: None, make_job: MakeJob, watcher: Watcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("petlbench.study.executors.pool._GRACE", 1.0)
    oom, pruned, killed = make_job(trouble="memory"), make_job(1, epochs=3), make_job(2, epochs=4)
    deadly, hanging = make_job(trouble="die"), make_job(trouble="hang", timeout=20.0)
    watcher.prune = {pruned.config.run_id: 1}
    victims = []

    def react(job: Job, event: Event) -> None:
        if job is killed and epoch(event) == 2 and not victims:
            victims.append(int(journal(job, "started")[-1]["pid"]))
            os.kill(victims[0], signal.SIGKILL)

    watcher.react = react
    open_executor("ray", ExecutorOptions(workers=2), Catalog()).run(
        iter([oom, pruned, killed, deadly, hanging]), watcher
    )
    endings = {job.config.run_id: event for job, event in watcher.heard if isinstance(event, Ended)}
    ended = [endings[job.config.run_id] for job in (oom, pruned, killed, deadly, hanging)]
    assert [ending.status for ending in ended] == ["oom", "pruned", "finished", "failed", "timeout"]
    assert [ending.attempts for ending in ended] == [1, 1, 2, 3, 1]
    for job in (oom, pruned, killed, deadly, hanging):
        assert stored(job).status == endings[job.config.run_id].status
    assert (stored(deadly).error or {})["kind"] == "worker_died"
    assert [line["epoch"] for line in journal(killed, "started")] == [0, 2]


def test_an_interrupt_stops_the_runs_which_can_go_on(local_cluster: None, make_job: MakeJob, watcher: Watcher) -> None:
    jobs = [make_job(seed, epochs=500, trouble="slow") for seed in range(2)]

    def stop(job: Job, event: Event) -> None:
        if epoch(event) == 3:
            raise KeyboardInterrupt

    watcher.react = stop
    with pytest.raises(KeyboardInterrupt):
        open_executor("ray", ExecutorOptions(workers=2), Catalog()).run(iter(jobs), watcher)
    assert [ended.status for ended in watcher.endings()] == ["interrupted"] * 2
    begun = [job for job in jobs if journal(job, "started")]
    assert [stored(job).status for job in begun] == ["interrupted"] * len(begun)
    assert any(isinstance(event, Started) for _, event in watcher.heard)


def test_more_than_a_machine_has_is_refused(local_cluster: None, make_job: MakeJob, watcher: Watcher) -> None:
    with pytest.raises(InputError, match="no node of the Ray cluster has 64 CPU"):
        open_executor("ray", ExecutorOptions(workers=1, cpus=64), Catalog()).run(iter([make_job()]), watcher)


def test_a_cluster_that_does_not_answer_is_named(make_job: MakeJob, watcher: Watcher) -> None:
    with pytest.raises(InputError, match="127.0.0.1:9"):
        open_executor("ray", ExecutorOptions(workers=1, address="127.0.0.1:9"), Catalog()).run(
            iter([make_job()]), watcher
        )

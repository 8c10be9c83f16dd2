"""The Ray executor: many GPUs and many machines. The driver hands out jobs, Ray finds the room."""

from __future__ import annotations

import itertools
import logging
import os
import pickle
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from petlbench.core.errors import InputError, RunError
from petlbench.results.result import FILE
from petlbench.study.executors.job import Action, Ended, Event, Executor, ExecutorCard, ExecutorOptions, Job, On
from petlbench.study.executors.pool import LOOK_UP, Attempts, Pool, Work
from petlbench.study.executors.ray_worker import EventQueue, Message, TaskInput, carry_out, same_handlers

# Results go through files, and Ray's store of objects holds next to nothing: 100 MB, about the least that it takes.
_OBJECT_STORE = 100_000_000
# What a run on another machine is to find as it is here.
_PASSED_ON = ("PETLBENCH_", "MLFLOW_", "OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "CUBLAS_WORKSPACE_CONFIG")
# Seconds in which Ray must have ended a task that it was told to end.
_END = 30.0
# Seconds in which a cluster must take a connection.
_KNOCK = 20.0

_logger = logging.getLogger(__name__)


@dataclass(eq=False, kw_only=True)
class _Flight(Work):
    """One attempt at a job, in Ray's hands."""

    attempt_id: str
    task: Any
    events: Any

    def answer(self, action: Action) -> None:
        self.events.answer.remote(self.attempt_id, action.value)

    def interrupt(self) -> bool:
        import ray

        ray.cancel(self.task, force=False)
        return True

    def kill(self) -> None:
        import ray

        ray.cancel(self.task, force=True)
        ray.wait([self.task], timeout=_END, fetch_local=False)

    def explain(self, reason: str) -> tuple[str, RunError]:
        hint = "petlbench of this version must be installed on every node, with the same Python"
        message = f"a run cannot be started on the Ray cluster: its worker {reason}"
        return "look at the node: memory, disk, and Ray's logs", RunError(message, hint=hint, kind="worker_died")

    def last_words(self) -> str:
        """How a task ended that is over without an ending of its run: its worker or its node was lost."""
        import ray

        try:
            ray.get(self.task)
        except ray.exceptions.RayError as error:
            return f"was lost ({type(error).__name__}: {_gist(error)})"
        return "ended without a word"


class RayExecutor(Pool[_Flight]):
    """Carries out jobs as Ray tasks; a task whose worker or node is lost is begun again elsewhere.

    Runs go on from their checkpoints, and results are found, where all nodes see the output folder under one path.

    Raises:
        InputError: When Ray is not installed.
    """

    card = ExecutorCard(name="ray", title="Ray")
    is_local = False

    @classmethod
    def open(cls, options: ExecutorOptions) -> Executor:
        """Return an executor that connects to the cluster when it runs."""
        return cls(options)

    def __init__(self, options: ExecutorOptions) -> None:
        super().__init__()
        _import_ray()
        self._workers = options.workers
        self._address = options.address
        self._needs = {name: amount for name, amount in (("CPU", options.cpus), ("GPU", options.gpus)) if amount > 0}
        self._attempt_ids = map(str, itertools.count())
        self._pending: Any = None

    def run(self, jobs: Iterator[Job | None], on: On) -> None:
        """Carry out jobs until there are no more; see `Executor.run`."""
        ray = _import_ray()
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        with _cluster(self._address):
            self._check_room()
            # The event queue is started beside the driver, so that no other node takes it with it.
            here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
            self._events = ray.remote(EventQueue).options(num_cpus=0, scheduling_strategy=here).remote()
            self._task = ray.remote(carry_out).options(
                num_cpus=self._needs.get("CPU", 0),
                num_gpus=self._needs.get("GPU", 0),
                max_retries=0,  # they are counted here, as for local workers
                scheduling_strategy="SPREAD",
            )
            super().run(jobs, on)

    def _close(self) -> None:
        self._busy, self._pending = [], None

    def _begin(self, attempts: Attempts) -> None:
        if attempts.count == 0 and attempts.job.config.device == "cuda" and "GPU" not in self._needs:
            message = "--executor ray: the runs are to use CUDA, and Ray hides all GPUs from a run that asks for none"
            raise InputError(message, hint="add --gpus-per-run 1, or a fraction of it", kind="no_room")
        attempt_id = next(self._attempt_ids)
        job = pickle.dumps(_with_whole_paths(attempts.next_job))
        environment = {name: value for name, value in os.environ.items() if name.startswith(_PASSED_ON)}
        task_input = TaskInput(attempt_id, job, attempts.spent, os.getcwd(), environment)
        task = self._task.remote(task_input, self._events)
        self._busy.append(_Flight(attempts=attempts, attempt_id=attempt_id, task=task, events=self._events))

    def _news(self, timeout: float) -> Iterator[tuple[_Flight, Event | str]]:
        import ray

        if self._pending is None:
            self._pending = self._events.collect.remote(LOOK_UP)
        flights = {flight.task: flight for flight in self._busy}
        over, _ = ray.wait([self._pending, *flights], num_returns=1, timeout=max(timeout, 0.0), fetch_local=False)
        tasks = [task for task in over if task != self._pending]
        by_id = {flight.attempt_id: flight for flight in self._busy}
        messages: list[Message] = []
        if over:  # those that were asked for, and those that came meanwhile
            pending, self._pending = self._pending, None
            messages = ray.get(pending) + (ray.get(self._events.collect.remote(0)) if tasks else [])
        for attempt_id, message in messages:
            flight, event = by_id.get(attempt_id), pickle.loads(message)  # noqa: S301 - a run's own
            if flight is not None and flight in self._busy:  # else it is from an attempt that was given up
                yield flight, _as_seen_here(flight.attempts.job, event) if isinstance(event, Ended) else event
        for flight in [flights[task] for task in tasks]:
            if flight in self._busy:  # it is over, and has not said how
                yield flight, flight.last_words()

    def _has_room(self) -> bool:
        room = max(_room(self._needs), 1)  # what the living nodes have room for, and one that lets a cluster grow
        return len(self._busy) < (min(room, self._workers) if self._workers else room)

    def _check_room(self) -> None:
        if _room(self._needs):
            return
        resources = " and ".join(f"{amount:g} {name}" for name, amount in self._needs.items())
        message = f"no node of the Ray cluster has {resources} for a run"
        if self._address is None:
            raise InputError(message, hint="ask for less with --cpus-per-run and --gpus-per-run", kind="no_room")
        _logger.warning("%s; waiting for one that has", message)


def _import_ray() -> Any:
    # Nothing is reported to Ray's makers.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # Ray's own default is 15: beside anything else a run would stand still, and its times would say nothing.
    os.environ.setdefault("RAY_worker_niceness", "0")
    try:
        import ray
    except ImportError as error:
        raise InputError(
            "--executor ray: Ray is not installed", hint="pip install 'petlbench[ray]'", kind="missing_extra"
        ) from error
    return ray


@contextmanager
def _cluster(address: str | None) -> Iterator[None]:
    """Connect to a cluster, or start one on this machine; a connection that is there already is used and left."""
    ray = _import_ray()
    if ray.is_initialized():
        yield
        return
    quiet = {"log_to_driver": False, "logging_level": logging.ERROR}
    try:
        with same_handlers():
            if address is None:
                ray.init("local", include_dashboard=False, object_store_memory=_OBJECT_STORE, **quiet)
            else:
                # Ray itself would try for minutes, and says less about it.
                host, _, port = address.rpartition("://")[2].rpartition(":")
                if host and port.isdigit():
                    socket.create_connection((host.strip("[]"), int(port)), timeout=_KNOCK).close()
                ray.init(address, **quiet)
    except Exception as error:  # of many kinds
        if address is None:
            message = f"Ray does not start on this machine: {_gist(error)}"
            hint = "try again when the machine is less busy, or use --workers"
            raise RunError(message, hint=hint, kind="no_cluster") from error
        message = f"no Ray cluster answers at {address}: {_gist(error)}"
        hint = "start one with 'ray start --head', and give its HOST:PORT with --ray-address"
        raise InputError(message, hint=hint, kind="no_cluster") from error
    try:
        yield
    finally:
        ray.shutdown()


def _room(needs: Mapping[str, float]) -> int:
    """How many runs the living nodes can take at once."""
    import ray

    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    return sum(int(min((node.get(name, 0) / amount for name, amount in needs.items()), default=1)) for node in nodes)


def _with_whole_paths(job: Job) -> Job:
    """The job as it means the same in another working folder."""
    options = job.options
    folders = {name: getattr(options, name).absolute() for name in ("output", "data_root", "cache_dir")}
    catalogs = tuple(folder.absolute() for folder in options.catalogs)
    return replace(job, options=replace(options, **folders, catalogs=catalogs))


def _as_seen_here(job: Job, ended: Ended) -> Ended:
    """A run that has finished where its result cannot be seen has not finished."""
    folder: Path = job.options.output / job.config.run_id
    if ended.status != "finished" or (folder / FILE).exists():
        return ended
    error = {
        "kind": "not_shared",
        "message": f"the run has finished on another machine, but {folder} is not here",
        "hint": "put --output on a file system that all nodes see under the same path",
    }
    return Ended("failed", error)


def _gist(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]

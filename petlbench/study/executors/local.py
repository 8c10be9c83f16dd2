"""The local executor: worker processes on this machine."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import wait
from typing import Any

from petlbench.core.errors import InputError, RunError
from petlbench.core.interrupt import check_interrupt
from petlbench.study.executors.base import Executor, ExecutorCard, ExecutorOptions
from petlbench.study.executors.in_process import InProcessExecutor
from petlbench.study.executors.job import Ended, EpochDone, Event, Job, Started
from petlbench.study.executors.job_source import Source
from petlbench.study.executors.process import LostWorker, WorkerProcess
from petlbench.study.executors.retries import GRACE, Attempts, On, without_errors

__all__ = ["LocalExecutor"]

# Importing torch takes seconds. On a busy machine that has its packages on a network, this is still long.
_START_LIMIT = 600.0
_MOST_STARTS = 3
# A signal that Python drops is looked for so often, in seconds.
_LOOK_UP = 1.0


@dataclass
class _Slot:
    """Room for one worker process.

    Args:
        name: The worker's name.
        cores: Its share of the cores; empty for no share.
        environment: Variables that are set for it.
        process: The worker; None before its first job, and when it was lost.
        failed_starts: How many processes in a row ended before they began with a run.
    """

    name: str
    cores: tuple[int, ...] = ()
    environment: dict[str, str] = field(default_factory=dict)
    process: WorkerProcess | None = None
    failed_starts: int = 0

    def open(self, attempts: Attempts) -> WorkerProcess:
        """The worker, which is started where there is none."""
        if self.process is None:
            folder = attempts.job.options.output / ".work"
            folder.mkdir(parents=True, exist_ok=True)
            log = folder / f"{self.name}-of-{os.getpid()}.log"
            self.process = WorkerProcess(self.name, log, cores=self.cores, environment=self.environment)
        return self.process

    def close(self) -> None:
        """End the worker, which has nothing to do."""
        if self.process is not None:
            self.process.finish()
            self.process = None

    def kill(self) -> None:
        """End the worker at once."""
        if self.process is not None:
            self.process.kill()
            self.process = None


@dataclass(eq=False)
class _Work:
    """A job in the hands of a worker."""

    slot: _Slot
    process: WorkerProcess
    attempts: Attempts
    start_limit: float

    @property
    def job(self) -> Job:
        return self.attempts.job

    @property
    def is_overdue(self) -> bool:
        """Whether the worker neither began nor ended in the time that it has."""
        deadline = self.start_limit if self.attempts.began is None else self.attempts.deadline
        return deadline is not None and time.monotonic() > deadline


class LocalExecutor(Executor):
    """Carries out jobs in worker processes; each is kept for many runs, and replaced when it dies.

    Args:
        workers: How many.
        devices: CUDA devices as CUDA_VISIBLE_DEVICES names them, one for each worker in turn; empty for those that are
            there.
    """

    card = ExecutorCard(name="local", title="worker processes")

    @classmethod
    def open(cls, options: ExecutorOptions) -> Executor:
        """Return an executor with so many workers; with none of them, this process does the work."""
        return cls(options.workers, options.devices) if options.workers else InProcessExecutor()

    def __init__(self, workers: int = 1, devices: Sequence[str] = ()) -> None:
        if os.name != "posix":
            message = f"--workers {workers}: worker processes need Linux or macOS"
            raise InputError(message, hint="use --workers 0, which works in this process", kind="unsupported")
        devices = devices or _cuda_devices()
        shares = [()] * workers if devices else _shares_of_cores(workers)
        self._slots = [
            _Slot(
                name=f"worker-{number}",
                cores=shares[number],
                environment={"CUDA_VISIBLE_DEVICES": devices[number % len(devices)]} if devices else {},
            )
            for number in range(workers)
        ]
        self._busy: list[_Work] = []

    def run(self, jobs: Iterator[Job | None], on: On) -> None:
        """Carry out jobs until there are no more; see `Executor.run`."""
        source = Source(jobs)
        try:
            while self._go_on(source, on):
                check_interrupt()
        except BaseException:
            self._stop(on)
            raise
        finally:
            self._close()

    def _go_on(self, source: Source, on: On) -> bool:
        """Hand out one job at most and take what the workers say; false when all is done."""
        idle = self._idle()
        job = source.take() if idle else None
        if job is not None:
            self._hand_over(idle[0], Attempts(job))
        if not self._busy and source.exhausted:
            return False
        for work in self._wait(source.wait if self._idle() and not source.exhausted else _LOOK_UP):
            source.hurry()
            self._listen(work, on)
        for work in [work for work in self._busy if work.is_overdue]:
            source.hurry()
            self._end_overdue(work, on)
        return True

    def _idle(self) -> list[_Slot]:
        busy = [work.slot.name for work in self._busy]
        return [slot for slot in self._slots if slot.name not in busy]

    def _hand_over(self, slot: _Slot, attempts: Attempts) -> None:
        process = slot.open(attempts)
        self._busy.append(_Work(slot, process, attempts, time.monotonic() + _START_LIMIT))
        process.send((attempts.next_job, attempts.spent))

    def _wait(self, timeout: float) -> list[_Work]:
        """Wait for workers that say something, or have died."""
        by_pipe: dict[Any, _Work] = {work.process.pipe: work for work in self._busy}
        return [by_pipe[pipe] for pipe in wait(list(by_pipe), max(timeout, 0.0))]

    def _listen(self, work: _Work, on: On) -> None:
        """Take one message of a worker, so that none of them keeps the others waiting."""
        try:
            message = work.process.receive()
        except LostWorker:
            self._replace(work, work.process.explain_end(), on)
            return
        if isinstance(message, Ended) and message.status == "interrupted":
            self._replace(work, "was asked by a signal to stop", on)  # by someone else: this is not `_stop`
        elif isinstance(message, Ended):
            self._end(work, work.attempts.ended(message), on)
        else:
            self._pass_on(work, message, on)

    @staticmethod
    def _pass_on(work: _Work, event: Event, on: On) -> None:
        if isinstance(event, Started):
            work.slot.failed_starts = 0
        work.attempts.hear(event)
        action = on(work.job, event)
        if isinstance(event, EpochDone):
            work.process.send(action)

    def _end(self, work: _Work, ended: Ended, on: On) -> None:
        self._busy.remove(work)
        on(work.job, ended)

    def _replace(self, work: _Work, reason: str, on: On) -> None:
        """Go on, on a new worker, with a job whose worker is lost; or give it up."""
        attempts, slot = work.attempts, work.slot
        log, said = work.process.log, work.process.last_words()
        slot.kill()
        if attempts.began is None:
            slot.failed_starts += 1
        if slot.failed_starts >= _MOST_STARTS:
            message = f"{slot.name} cannot be started: it {reason}"
            self._end(work, attempts.interrupt(message), on)
            raise RunError(message, hint=said or f"its log is {log}", kind="worker_died")
        hint = f"fewer --workers or a smaller --batch-size take less memory; its log is {log}"
        if (ended := attempts.lose(reason, hint)) is not None:
            self._end(work, ended, on)
        else:
            self._busy.remove(work)
            self._hand_over(slot, attempts)

    def _end_overdue(self, work: _Work, on: On) -> None:
        if work.attempts.began is None:
            self._replace(work, f"was not ready after {_START_LIMIT:g} s", on)
            return
        work.slot.kill()
        self._end(work, work.attempts.time_out(), on)

    def _stop(self, on: On) -> None:
        """Tell the workers to stop, and give them some time to write what they know."""
        on = without_errors(on)
        for work in [*self._busy]:
            if work.process.is_gone:
                self._end(work, work.attempts.interrupt(), on)
            else:
                work.process.interrupt()
        limit = time.monotonic() + GRACE
        while self._busy and time.monotonic() < limit:
            for work in self._wait(limit - time.monotonic()):
                self._listen_for_end(work, on)
        for work in [*self._busy]:
            work.slot.kill()
            self._end(work, work.attempts.interrupt(), on)

    def _listen_for_end(self, work: _Work, on: On) -> None:
        try:
            message = work.process.receive()
        except LostWorker:
            work.slot.kill()
            self._end(work, work.attempts.interrupt(), on)
            return
        if isinstance(message, Ended):
            self._end(work, work.attempts.ended(message), on)
        elif isinstance(message, Started):  # it was still starting when it was told to stop
            work.attempts.begin()
            work.process.interrupt()

    def _close(self) -> None:
        """End the workers; those that are busy still are so because even `_stop` was stopped."""
        for work in self._busy:
            work.slot.kill()
        self._busy = []
        for slot in self._slots:
            slot.close()


def _cuda_devices() -> list[str]:
    """The CUDA devices that this process may use, where there are several."""
    import torch

    count = torch.cuda.device_count()
    if count < 2:
        return []
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    return named.split(",")[:count] if named else [str(number) for number in range(count)]


def _shares_of_cores(workers: int) -> list[tuple[int, ...]]:
    """Cut the cores of this process into equal shares; empty ones where there are more workers than cores."""
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    size = len(cores) // workers
    return [tuple(cores[number * size : (number + 1) * size]) for number in range(workers)]

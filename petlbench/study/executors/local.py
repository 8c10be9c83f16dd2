"""The executors of this machine: worker processes, or no process but this one."""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import wait
from typing import Any

from petlbench.core.errors import InputError, RunError, Stopped
from petlbench.core.interrupt import check_interrupt
from petlbench.run.parts import KeptParts
from petlbench.study.executors.job import Action, Event, Executor, ExecutorCard, ExecutorOptions, Job, On, Started
from petlbench.study.executors.pool import Attempts, Pool, Source, Work
from petlbench.study.executors.run_job import perform
from petlbench.study.executors.worker import WorkerProcess, clean_up


class InProcessExecutor(Executor):
    """Carries out one job after the other in this process."""

    card = ExecutorCard(name="in_process", title="this process")

    def run(self, jobs: Iterator[Job | None], on: On) -> None:
        """Carry out jobs until there are no more; see `Executor.run`."""
        source, kept_parts = Source(jobs), KeptParts()
        with _few_to_collect():
            while not source.exhausted:
                check_interrupt()
                job = source.take()
                if job is not None:
                    _carry_out(job, on, kept_parts)
                elif not source.exhausted:
                    time.sleep(source.wait)


@contextmanager
def _few_to_collect() -> Iterator[None]:
    """Leave what was imported out of garbage collection: to look at it after each run takes longer than a small run."""
    if gc.get_freeze_count():  # somebody else's decision
        yield
        return
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def _carry_out(job: Job, on: On, kept_parts: KeptParts) -> None:
    raised: list[Exception] = []

    def tell(event: Event) -> Action:
        try:
            return on(job, event)
        except Exception as error:  # a fault of whoever watches is none of the run, and is not recorded as one
            raised.append(error)
            raise Stopped("interrupted", "stopped together with its study") from error

    attempts = Attempts(job)
    on(job, Started("this process"))
    attempts.begin()
    ended = attempts.ended(perform(job, tell, kept_parts=kept_parts))
    clean_up()
    if raised:
        raise raised[0]
    on(job, ended)
    if ended.status == "interrupted":
        raise KeyboardInterrupt


@dataclass(eq=False, kw_only=True)
class _Work(Work):
    start_limit = 600.0  # importing torch is slow on a busy machine that has its packages on a network
    worker: WorkerProcess
    is_interrupted: bool = False

    def answer(self, action: Action) -> None:
        self.worker.send(action)

    def interrupt(self) -> bool:
        self.is_interrupted = True
        return self.worker.interrupt()

    def kill(self) -> None:
        self.worker.kill()

    let_go = kill

    def explain(self, reason: str) -> tuple[str, RunError]:
        log, words = f"its log is {self.worker.log}", self.worker.last_words()
        message = f"{self.worker.name} cannot be started: it {reason}"
        hint = f"fewer --workers or a smaller --batch-size take less memory; {log}"
        return hint, RunError(message, hint=words or log, kind="worker_died")

    def receive(self) -> Event | str:
        """Take one message, so that no worker keeps the others waiting; of one that is gone how it ended."""
        message = self.worker.receive()
        if isinstance(message, Started) and self.is_interrupted:  # it was still starting when it was told to stop
            self.worker.interrupt()
        return message


class LocalExecutor(Pool[_Work]):
    """Carries out jobs in worker processes; each is kept for many runs, and replaced when it dies.

    Workers take the CUDA devices that are there in turn.
    """

    card = ExecutorCard(name="local", title="worker processes")

    @classmethod
    def open(cls, options: ExecutorOptions) -> Executor:
        """Return an executor with so many workers; with none of them, this process does the work."""
        return cls(options.workers) if options.workers else InProcessExecutor()

    def __init__(self, workers: int = 1) -> None:
        if os.name != "posix":
            message = f"--workers {workers}: worker processes need Linux or macOS"
            raise InputError(message, hint="use --workers 0, which works in this process", kind="unsupported")
        super().__init__()
        devices = _cuda_devices()
        cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") and not devices else []
        size = len(cores) // workers  # none where there are more workers than cores
        shares = [tuple(cores[number * size : (number + 1) * size]) for number in range(workers)]
        turns = [{"CUDA_VISIBLE_DEVICES": name} for name in devices] or [{}]
        self._workers = [
            WorkerProcess(f"worker-{number}", share, turns[number % len(turns)]) for number, share in enumerate(shares)
        ]

    def _idle(self) -> list[WorkerProcess]:
        busy = [work.worker for work in self._busy]
        return [worker for worker in self._workers if worker not in busy]

    def _has_room(self) -> bool:
        return bool(self._idle())

    def _begin(self, attempts: Attempts) -> None:
        worker, folder = self._idle()[0], attempts.job.options.output / ".work"
        folder.mkdir(parents=True, exist_ok=True)
        worker.start(folder / f"{worker.name}-of-{os.getpid()}.log")
        self._busy.append(_Work(attempts=attempts, worker=worker))
        worker.send((attempts.next_job, attempts.spent))

    def _news(self, timeout: float) -> Iterator[tuple[_Work, Event | str]]:
        by_pipe: dict[Any, _Work] = {work.worker.pipe: work for work in self._busy}
        for pipe in wait(list(by_pipe), max(timeout, 0.0)):
            yield by_pipe[pipe], by_pipe[pipe].receive()

    def _close(self) -> None:
        """End the workers; those that are busy still are so because even `_stop` was stopped."""
        for work in self._busy:
            work.kill()
        self._busy = []
        for worker in self._workers:
            worker.finish()


def _cuda_devices() -> list[str]:
    """The CUDA devices that this process may use, where there are several."""
    import torch

    count = torch.cuda.device_count()
    if count < 2:
        return []
    names = os.environ.get("CUDA_VISIBLE_DEVICES")
    return names.split(",")[:count] if names else [str(number) for number in range(count)]

"""The local executor: worker processes on this machine."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import wait
from typing import Any

from petlbench.core.errors import InputError, RunError
from petlbench.study.executors.base import Executor, ExecutorCard, ExecutorOptions
from petlbench.study.executors.in_process import InProcessExecutor
from petlbench.study.executors.job import Action, Event, Started
from petlbench.study.executors.pool import Pool, Work
from petlbench.study.executors.process import LostWorker, WorkerProcess
from petlbench.study.executors.retries import Attempts

__all__ = ["LocalExecutor"]


@dataclass
class _Slot:
    """Room for one worker process, which is None before its first job, and when it was lost."""

    name: str
    cores: tuple[int, ...] = ()
    environment: dict[str, str] = field(default_factory=dict)
    process: WorkerProcess | None = None

    def open(self, attempts: Attempts) -> WorkerProcess:
        """The worker, which is started where there is none."""
        if self.process is None:
            folder = attempts.job.options.output / ".work"
            folder.mkdir(parents=True, exist_ok=True)
            log = folder / f"{self.name}-of-{os.getpid()}.log"
            self.process = WorkerProcess(self.name, log, cores=self.cores, environment=self.environment)
        return self.process

    def kill(self) -> None:
        """End the worker at once."""
        if self.process is not None:
            self.process.kill()
            self.process = None


@dataclass(eq=False, kw_only=True)
class _Work(Work):
    start_limit = 600.0  # importing torch is slow on a busy machine that has its packages on a network
    slot: _Slot
    process: WorkerProcess
    is_interrupted: bool = False

    def answer(self, action: Action) -> None:
        self.process.send(action)

    def interrupt(self) -> bool:
        self.is_interrupted = True
        if not self.process.is_gone:
            self.process.interrupt()
        return not self.process.is_gone

    def kill(self) -> None:
        self.slot.kill()

    let_go = kill

    def explain(self, reason: str) -> tuple[str, RunError]:
        log, words = f"its log is {self.process.log}", self.process.last_words()
        message = f"{self.slot.name} cannot be started: it {reason}"
        hint = f"fewer --workers or a smaller --batch-size take less memory; {log}"
        return hint, RunError(message, hint=words or log, kind="worker_died")

    def receive(self) -> Event | str:
        """Take one message, so that no worker keeps the others waiting; of one that is gone how it ended."""
        try:
            message: Event = self.process.receive()
        except LostWorker:
            return self.process.explain_end()
        if isinstance(message, Started) and self.is_interrupted:  # it was still starting when it was told to stop
            self.process.interrupt()
        return message


class LocalExecutor(Pool[_Work]):
    """Carries out jobs in worker processes; each is kept for many runs, and replaced when it dies.

    Workers take CUDA devices in turn, as CUDA_VISIBLE_DEVICES names them; without any names, those that are there.
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
        super().__init__()
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

    def _idle(self) -> list[_Slot]:
        busy = [work.slot.name for work in self._busy]
        return [slot for slot in self._slots if slot.name not in busy]

    def _has_room(self) -> bool:
        return bool(self._idle())

    def _begin(self, attempts: Attempts) -> None:
        slot = self._idle()[0]
        process = slot.open(attempts)
        self._busy.append(_Work(attempts=attempts, slot=slot, process=process))
        process.send((attempts.next_job, attempts.spent))

    def _news(self, timeout: float) -> Iterator[tuple[_Work, Event | str]]:
        by_pipe: dict[Any, _Work] = {work.process.pipe: work for work in self._busy}
        for pipe in wait(list(by_pipe), max(timeout, 0.0)):
            yield by_pipe[pipe], by_pipe[pipe].receive()

    def _close(self) -> None:
        """End the workers; those that are busy still are so because even `_stop` was stopped."""
        for work in self._busy:
            work.kill()
        self._busy = []
        for slot in self._slots:
            if slot.process is not None:
                slot.process.finish()
                slot.process = None


def _cuda_devices() -> list[str]:
    """The CUDA devices that this process may use, where there are several."""
    import torch

    count = torch.cuda.device_count()
    if count < 2:
        return []
    names = os.environ.get("CUDA_VISIBLE_DEVICES")
    return names.split(",")[:count] if names else [str(number) for number in range(count)]


def _shares_of_cores(workers: int) -> list[tuple[int, ...]]:
    """Cut the cores of this process into equal shares; empty ones where there are more workers than cores."""
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    size = len(cores) // workers
    return [tuple(cores[number * size : (number + 1) * size]) for number in range(workers)]

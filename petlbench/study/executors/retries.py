"""The attempts at one job: how many there were, how long they took, and what is said when the last one is lost."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from petlbench.core.errors import RunError
from petlbench.results.result import Status
from petlbench.run.failure import describe_failure, record_ending
from petlbench.study.executors.job import Action, Ended, EpochDone, Event, Job, Started
from petlbench.study.executors.run_job import timeout_error

__all__ = ["GRACE", "MOST_ATTEMPTS", "Attempts", "On"]

On = Callable[[Job, Event], Action]
"""Who is told what happens."""

MOST_ATTEMPTS = 3
"""A run whose worker dies is begun again so often, the first time included."""

GRACE = 30.0
"""Seconds that a run which was told to stop has to write what it knows; then its worker is killed."""


@dataclass(eq=False)
class Attempts:
    """The attempts at one job.

    Args:
        count: How many were begun.
        spent: Seconds that the ended ones took.
        began: When the one under way began, on the monotonic clock; None where none is.
        left_checkpoint: Whether one of them has finished an epoch.
        failed_starts: How many workers in a row were lost before they began with the run.
    """

    job: Job
    count: int = 0
    spent: float = 0.0
    began: float | None = None
    left_checkpoint: bool = False
    failed_starts: int = 0

    @property
    def next_job(self) -> Job:
        """The job as the next attempt is to do it: a run that is done anew is so once, and then goes on."""
        if not self.left_checkpoint:
            return self.job
        return replace(self.job, options=replace(self.job.options, rerun=False))

    def begin(self) -> None:
        """A worker has begun with the run."""
        self.failed_starts = 0
        self.count += 1
        self.began = time.monotonic()

    def hear(self, event: Event) -> None:
        """Take note of what a worker tells."""
        if isinstance(event, Started):
            self.begin()
        elif isinstance(event, EpochDone):
            self.left_checkpoint = True

    def end(self) -> None:
        """The attempt under way, if there is one, is over."""
        if self.began is not None:
            self.spent += time.monotonic() - self.began
            self.began = None

    @property
    def deadline(self) -> float | None:
        """When the worker is killed, on the monotonic clock: some time after the run should have stopped itself."""
        if self.job.timeout is None or self.began is None:
            return None
        return self.began - self.spent + self.job.timeout + GRACE

    def ended(self, ended: Ended) -> Ended:
        """The ending that a worker told, with what only the executor knows."""
        self.end()
        return replace(ended, seconds=self.spent, attempts=self.count)

    def lose(self, reason: str, hint: str) -> Ended | None:
        """Say how a run ended whose worker was lost, and the next step for the user; None where it is begun again."""
        self.end()
        if self.job.timeout is not None and self.spent >= self.job.timeout:
            return self.time_out()
        if self.count < MOST_ATTEMPTS:
            return None
        times = f"{self.count} times" if self.count > 1 else "once"
        message = f"the process that worked on this run was lost {times}; the last {reason}"
        return self._record("failed", {"kind": "worker_died", "message": message, "hint": hint})

    def time_out(self) -> Ended:
        """Record that the run took longer than it may, and did not stop by itself."""
        return self._record("timeout", timeout_error(self.job.timeout or 0.0))

    def interrupt(self, message: str = "stopped by the user") -> Ended:
        """The ending of a run that was stopped before it could say more."""
        error = {"kind": "interrupted", "message": message, "hint": "the same command goes on from here"}
        return self.ended(Ended("interrupted", error))

    def _record(self, status: Status, error: dict[str, str]) -> Ended:
        self.end()
        try:
            result = record_ending(self.job.config, self.job.options.output, status, error, seconds=self.spent)
        except RunError as refused:
            busy = describe_failure(refused, self.job.config).error
            return self.ended(Ended("busy" if refused.kind == "already_running" else status, busy))
        except Exception as failure:  # a full disk, say: the study goes on, and is told
            return self.ended(Ended(status, describe_failure(failure, self.job.config).error))
        return self.ended(Ended(result.status, result.error))

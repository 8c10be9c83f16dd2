"""The loop of the executors that have several runs under way: jobs go out while there is room, events come in.

Each job has several attempts; what is said when the last one is lost stands here too.
"""

from __future__ import annotations

import math
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import ClassVar, Generic, TypeVar

from petlbench.core.errors import RunError
from petlbench.core.interrupt import check_interrupt
from petlbench.results.result import Status
from petlbench.run.failure import describe_failure, record_ending
from petlbench.study.executors.job import Action, Ended, EpochDone, Event, Executor, Job, On, Started
from petlbench.study.executors.run_job import timeout_error

LOOK_UP = 1.0
"""A signal that Python drops is looked for so often, in seconds; and so is a job where there was none."""

# A run whose worker dies is begun again so often, the first time included; and so many workers in a row may be lost
# before they began with it.
_MOST_ATTEMPTS = _MOST_STARTS = 3
# Seconds that a run which was told to stop has to write what it knows; then its worker is killed.
_GRACE = 30.0


class Source:
    """An iterator of jobs that may say "nothing now"."""

    def __init__(self, jobs: Iterator[Job | None]) -> None:
        self._jobs = jobs
        self._next = 0.0
        self.exhausted = False

    @property
    def wait(self) -> float:
        """Seconds until there is any use in asking; 0 for now."""
        return min(max(self._next - time.monotonic(), 0.0), LOOK_UP)

    def take(self) -> Job | None:
        """The next job; None where there is none, now or ever."""
        if self.exhausted or self.wait > 0:
            return None
        try:
            job = next(self._jobs)
        except StopIteration:
            self.exhausted = True
            return None
        if job is None:
            self._next = time.monotonic() + LOOK_UP
        return job

    def hurry(self) -> None:
        """Something has happened, so that there may be a job now where there was none."""
        self._next = 0.0


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
        return self.began - self.spent + self.job.timeout + _GRACE

    def ended(self, ended: Ended) -> Ended:
        """The ending that a worker told, with what only the executor knows."""
        self.end()
        return replace(ended, seconds=self.spent, attempts=self.count)

    def lose(self, reason: str, hint: str) -> Ended | None:
        """Say how a run ended whose worker was lost, and the next step for the user; None where it is begun again."""
        self.end()
        if self.job.timeout is not None and self.spent >= self.job.timeout:
            return self.time_out()
        if self.count < _MOST_ATTEMPTS:
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
        except Exception as failure:  # a full disk, say: the study goes on, and is told
            is_busy = isinstance(failure, RunError) and failure.kind == "already_running"
            return self.ended(Ended("busy" if is_busy else status, describe_failure(failure, self.job.config).error))
        return self.ended(Ended(result.status, result.error))


@dataclass(eq=False, kw_only=True)
class Work(ABC):
    """A job in the hands of a worker, which must begin with it in so many seconds."""

    start_limit: ClassVar[float] = math.inf
    attempts: Attempts
    sent: float = field(default_factory=time.monotonic)

    @property
    def is_overdue(self) -> bool:
        """Whether the worker neither began nor ended in the time that it has."""
        deadline = self.sent + self.start_limit if self.attempts.began is None else self.attempts.deadline
        return deadline is not None and time.monotonic() > deadline

    @abstractmethod
    def answer(self, action: Action) -> None:
        """Tell the worker what its run is to do after an epoch."""

    @abstractmethod
    def interrupt(self) -> bool:
        """Ask the worker to stop; false where it is gone."""

    @abstractmethod
    def kill(self) -> None:
        """End the worker at once."""

    def let_go(self) -> None:  # noqa: B027 - not every worker is ours to end
        """Wait no longer for a worker that is lost, or that was asked to stop."""

    @abstractmethod
    def explain(self, reason: str) -> tuple[str, RunError]:
        """The next step for the user where the worker was lost; and the error where none can be started."""


W = TypeVar("W", bound=Work)


class Pool(Executor, Generic[W]):
    """An executor that has several runs under way."""

    def __init__(self) -> None:
        self._busy: list[W] = []

    def run(self, jobs: Iterator[Job | None], on: On) -> None:
        """Carry out jobs until there are no more; see `Executor.run`."""
        source = Source(jobs)
        try:
            while self._go_on(source, on):
                check_interrupt()
        except BaseException:
            self._stop(_without_errors(on))
            raise
        finally:
            self._close()

    @abstractmethod
    def _has_room(self) -> bool:
        """Whether a worker is free."""

    @abstractmethod
    def _begin(self, attempts: Attempts) -> None:
        """Give a free worker a job."""

    @abstractmethod
    def _news(self, timeout: float) -> Iterator[tuple[W, Event | str]]:
        """Wait so many seconds at most, and yield what workers say; of a lost one how it was lost."""

    @abstractmethod
    def _close(self) -> None:
        """Give back what the workers held."""

    def _go_on(self, source: Source, on: On) -> bool:
        """Hand out one job at most and take what the workers say; false when all is done."""
        has_room = self._has_room()
        job = source.take() if has_room else None
        if job is not None:
            self._begin(Attempts(job))
        if not self._busy and source.exhausted:
            return False
        for work, news in self._news(source.wait if has_room and not source.exhausted else LOOK_UP):
            source.hurry()
            self._hear(work, news, on)
        for work in [work for work in self._busy if work.is_overdue]:
            source.hurry()
            if work.attempts.began is None:
                self._lose(work, f"was not ready after {work.start_limit:g} s", on)
            else:
                work.kill()
                self._end(work, work.attempts.time_out(), on)
        return True

    def _hear(self, work: W, news: Event | str, on: On) -> None:
        if isinstance(news, str):
            self._lose(work, news, on)
        elif not isinstance(news, Ended):
            work.attempts.hear(news)
            action = on(work.attempts.job, news)
            if isinstance(news, EpochDone):
                work.answer(action)
        elif news.status == "interrupted":  # by someone else: this is not `_stop`
            self._lose(work, "was asked by a signal to stop", on)
        else:
            self._end(work, work.attempts.ended(news), on)

    def _lose(self, work: W, reason: str, on: On) -> None:
        """Go on, on another worker, with a job whose worker is lost; or give it up."""
        attempts = work.attempts
        hint, no_start = work.explain(reason)
        work.let_go()
        attempts.failed_starts += attempts.began is None
        if attempts.failed_starts >= _MOST_STARTS:
            self._end(work, attempts.interrupt(no_start.message), on)
            raise no_start
        if (ended := attempts.lose(reason, hint)) is not None:
            self._end(work, ended, on)
        else:
            self._busy.remove(work)
            self._begin(attempts)

    def _end(self, work: W, ended: Ended, on: On) -> None:
        self._busy.remove(work)
        on(work.attempts.job, ended)

    def _stop(self, on: On) -> None:
        """Tell the workers to stop, and give them some time to write what they know."""
        for work in [work for work in self._busy if not work.interrupt()]:
            self._end(work, work.attempts.interrupt(), on)
        limit = time.monotonic() + _GRACE
        while self._busy and time.monotonic() < limit:
            for work, news in self._news(limit - time.monotonic()):
                if isinstance(news, Ended):
                    self._end(work, work.attempts.ended(news), on)
                elif isinstance(news, str):
                    self._give_up(work, on)
                else:
                    work.attempts.hear(news)
        for work in [*self._busy]:
            self._give_up(work, on)

    def _give_up(self, work: W, on: On) -> None:
        work.let_go()
        self._end(work, work.attempts.interrupt(), on)


def _without_errors(on: On) -> On:
    """Tell what happens while an executor is stopping already: an error of the one who is told changes nothing then."""

    def tell(job: Job, event: Event) -> Action:
        with suppress(Exception):
            on(job, event)
        return Action.GO_ON

    return tell

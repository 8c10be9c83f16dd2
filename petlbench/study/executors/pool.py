"""The loop of the executors that have several runs under way: jobs go out while there is room, events come in."""

from __future__ import annotations

import math
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import ClassVar, Generic, TypeVar

from petlbench.core.errors import RunError
from petlbench.core.interrupt import check_interrupt
from petlbench.study.executors.base import Executor
from petlbench.study.executors.job import Action, Ended, EpochDone, Event, Job
from petlbench.study.executors.retries import GRACE, Attempts, On

__all__ = ["LOOK_UP", "Pool", "Source", "Work"]

LOOK_UP = 1.0
"""A signal that Python drops is looked for so often, in seconds; and so is a job where there was none."""

_MOST_STARTS = 3


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
        limit = time.monotonic() + GRACE
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

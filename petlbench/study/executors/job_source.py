"""The jobs of an executor, asked for one at a time and only when there is room for one."""

from __future__ import annotations

import time
from collections.abc import Iterator

from petlbench.study.executors.job import Job

__all__ = ["Source"]

_ASK_AGAIN = 1.0


class Source:
    """An iterator that may say "nothing now".

    Args:
        jobs: The iterator.
    """

    def __init__(self, jobs: Iterator[Job | None]) -> None:
        self._jobs = jobs
        self._next = 0.0
        self.exhausted = False

    @property
    def wait(self) -> float:
        """Seconds until there is any use in asking; 0 for now."""
        return min(max(self._next - time.monotonic(), 0.0), _ASK_AGAIN)

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
            self._next = time.monotonic() + _ASK_AGAIN
        return job

    def hurry(self) -> None:
        """Something has happened, so that there may be a job now where there was none."""
        self._next = 0.0

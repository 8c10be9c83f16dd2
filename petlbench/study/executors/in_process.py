"""The executor that uses no process but this one."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

from petlbench.core.errors import Stopped
from petlbench.core.interrupt import check_interrupt
from petlbench.study.executors.base import Executor, ExecutorCard
from petlbench.study.executors.job import Action, Event, Job, Started
from petlbench.study.executors.pool import Source
from petlbench.study.executors.retries import Attempts
from petlbench.study.executors.run_job import perform
from petlbench.study.executors.worker import clean_up

__all__ = ["InProcessExecutor"]


class InProcessExecutor(Executor):
    """Carries out one job after the other in this process."""

    card = ExecutorCard(name="in_process", title="this process")

    def run(self, jobs: Iterator[Job | None], on: Callable[[Job, Event], Action]) -> None:
        """Carry out jobs until there are no more; see `Executor.run`."""
        source = Source(jobs)
        while not source.exhausted:
            check_interrupt()
            job = source.take()
            if job is not None:
                _carry_out(job, on)
            elif not source.exhausted:
                time.sleep(source.wait)


def _carry_out(job: Job, on: Callable[[Job, Event], Action]) -> None:
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
    ended = attempts.ended(perform(job, tell))
    clean_up()
    if raised:
        raise raised[0]
    on(job, ended)
    if ended.status == "interrupted":
        raise KeyboardInterrupt

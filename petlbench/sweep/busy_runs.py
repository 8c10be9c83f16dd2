"""Carrying out jobs of which another process may have some in hand already."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator

from petlbench.study.executors.base import Executor
from petlbench.study.executors.job import Action, Ended, Event, Job
from petlbench.study.existing import is_worked_on

__all__ = ["run_with_retries"]


def run_with_retries(executor: Executor, jobs: Iterator[Job | None], on: Callable[[Job, Event], Action]) -> None:
    """Carry out jobs, and wait for runs that another process, or another trial of this one, works on.

    A run that is waited for is begun again as soon as nobody works on it: then its result is there and is taken, or it
    goes on where the other one was stopped.

    Args:
        executor: Where runs are carried out.
        jobs: As for the executor.
        on: Told what happens, but for runs that others work on.
    """
    parked: deque[Job] = deque()

    def feed() -> Iterator[Job | None]:
        more = True
        while more or parked:
            for _ in range(len(parked)):
                job = parked.popleft()
                if is_worked_on(job.options.output, job.config.run_id):
                    parked.append(job)
                else:
                    yield job
            job_or_none = next(jobs, _END) if more else None
            if job_or_none is _END:
                more = False
            elif more or parked:
                yield job_or_none  # type: ignore[misc]  # it is not the end

    def on_event(job: Job, event: Event) -> Action:
        if isinstance(event, Ended) and event.status == "busy":
            parked.append(job)
            return Action.GO_ON
        return on(job, event)

    executor.run(feed(), on_event)
    while parked:  # the last ones were found busy after the rest had ended
        executor.run(feed(), on_event)


_END = object()

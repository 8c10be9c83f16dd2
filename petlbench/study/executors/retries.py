"""Jobs whose runs somebody else works on: they are waited for, and begun again."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

from petlbench.results.folder import RunFolder
from petlbench.study.executors.job import Action, Ended, Event, Executor, Job, On


def run_with_retries(executor: Executor, jobs: Iterator[Job | None], on: On) -> None:
    """Carry out jobs, and wait for runs that another process, or another trial of this one, works on.

    A run that is waited for is begun again as soon as nobody works on it: then its result is there and is taken, or it
    goes on where the other one was stopped. Nothing is told of it meanwhile.
    """
    parked: deque[Job] = deque()

    def feed() -> Iterator[Job | None]:
        for job in jobs:
            yield job
            yield from _free(parked)
        while parked:
            yield from _free(parked)
            if parked:
                yield None

    def on_event(job: Job, event: Event) -> Action:
        if isinstance(event, Ended) and event.status == "busy":
            parked.append(job)
            return Action.GO_ON
        return on(job, event)

    executor.run(feed(), on_event)
    while parked:  # the last ones were found busy after the rest had ended
        executor.run(feed(), on_event)


def _free(parked: deque[Job]) -> Iterator[Job]:
    """Take out those that nobody works on any more."""
    for _ in range(len(parked)):
        job = parked.popleft()
        if RunFolder(job.options.output, job.config.run_id).is_locked:
            parked.append(job)
        else:
            yield job

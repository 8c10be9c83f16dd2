"""Someone who watches an executor, and a look at what its jobs left on the disk."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from petlbench.results.journal import read_journal
from petlbench.results.result import Result, read_result
from petlbench.study.executors.job import Action, Ended, EpochDone, Event, Job


@dataclass
class Watcher:
    """Keeps what an executor tells, and answers as it was told to.

    Args:
        react: Called for each event with the job and the event, before it is answered.
        prune: The epoch behind which a run is pruned, by run id.
    """

    react: Callable[[Job, Event], object] = lambda job, event: None
    prune: dict[str, int] = field(default_factory=dict)
    heard: list[tuple[Job, Event]] = field(default_factory=list)

    def __call__(self, job: Job, event: Event) -> Action:
        self.heard.append((job, event))
        self.react(job, event)
        if isinstance(event, EpochDone) and event.entry["epoch"] == self.prune.get(job.config.run_id):
            return Action.PRUNE
        return Action.GO_ON

    def of(self, job: Job) -> list[Event]:
        """The events of a job."""
        return [event for about, event in self.heard if about.config == job.config]

    def endings(self) -> list[Ended]:
        """How the jobs ended, in that order."""
        return [event for _, event in self.heard if isinstance(event, Ended)]

    def kinds(self, job: Job) -> list[str]:
        """The names of a job's events."""
        return [type(event).__name__ for event in self.of(job)]


def stored(job: Job) -> Result:
    """The result of a job that stands on the disk."""
    return read_result(job.options.output / job.config.run_id)


def journal(job: Job, event: str) -> list[dict[str, Any]]:
    """The lines of the journal of one kind about one job."""
    lines = read_journal(job.options.output)
    return [line for line in lines if (line["event"], line["run_id"]) == (event, job.config.run_id)]


def lazily(jobs: list[Job], asked: list[int], gaps: int = 0) -> Iterator[Job | None]:
    """Gives jobs, says "nothing now" so often before each, and notes when it was asked."""
    for job in jobs:
        for _ in range(gaps):
            yield None
        asked.append(job.config.seed)
        yield job

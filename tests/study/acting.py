"""Studies whose runs are not trained: their results are written as if they were, so that a study takes no time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from petlbench.core.catalog import Catalog
from petlbench.core.config import RunConfig
from petlbench.core.errors import RunError
from petlbench.results.folder import RunFolder
from petlbench.results.result import FILE, Memory, Parameters, Result, Status, read_result, write_result
from petlbench.run.record import code_digests
from petlbench.study.executors.job import Action, Ended, EpochDone, Event, Job, Started
from petlbench.study.status import RunState

On = Callable[[Job, Event], Action]


_CATALOG = Catalog()


@cache
def _digests(method: str) -> dict[str, Any]:
    return {"data": "d", "split": "s", "weights": "w", "external": ""} | code_digests(method, _CATALOG)


def acted_result(config: RunConfig, status: Status = "finished", **changes: Any) -> Result:
    """A result that nothing was trained for; its figures follow from the config alone."""
    share = int(config.digest[:8], 16) / 2**32
    error = None if status == "finished" else {"kind": status, "message": f"acted: {status}", "hint": ""}
    values = {
        "metrics": {"val": {"auc": 1 - share / 2}, "test": {"auc": 0.5 + share / 2}} if status == "finished" else {},
        "parameters": Parameters(learnable=10, total=1000, ratio=0.01, ratio_published=0.01),
        "memory": Memory(allocated=1000 + int(1000 * share), reserved=None, process=None, source="cpu"),
        "timing": {"total": 1 + share},
    }
    return Result(
        run_id=config.run_id,
        status=status,
        config=config,
        digests=_digests(config.method),
        error=error,
        **{**values, **changes},
    )


def store(output: Path, result: Result) -> None:
    """Put a result in its place, as a run does."""
    folder = RunFolder(output, result.run_id)
    write_result(folder.new_draft(), result)
    folder.publish()


def _is_finished(folder: RunFolder) -> bool:
    return (folder.final / FILE).exists() and read_result(folder.final).status == "finished"


@dataclass
class Actor:
    """An executor whose runs take no time.

    Args:
        outcome: How a run ends.
        seconds: How long it seems to work.
        before: Called with each job before it begins.
    """

    outcome: Callable[[Job], Status] = lambda job: "finished"
    seconds: float = 0.0
    before: Callable[[Job], object] = lambda job: None
    began: list[str] = field(default_factory=list)
    jobs: list[Job] = field(default_factory=list)

    def run(self, jobs: Iterator[Job | None], on: On) -> None:
        """Act jobs until there are no more."""
        for job in jobs:
            if job is None:
                time.sleep(0.005)
                continue
            self.jobs.append(job)
            self.before(job)
            on(job, Started("an actor"))
            on(job, self._act(job, on))

    def _act(self, job: Job, on: On) -> Ended:
        folder = RunFolder(job.options.output, job.config.run_id)
        try:
            with folder.locked():
                if _is_finished(folder) and not job.options.rerun:
                    return Ended("finished")  # by another driver, between the question and the lock
                status = self.outcome(job)
                self.began.append(job.config.run_id)
                on(job, EpochDone({"epoch": 1}))
                time.sleep(self.seconds)
                result = acted_result(job.config, status)
                store(job.options.output, result)
                return Ended(status, result.error, seconds=self.seconds)
        except RunError as error:
            return Ended("busy", {"kind": error.kind, "message": error.message, "hint": error.hint})


@dataclass
class Notes:
    """Writes down what a driver tells."""

    changes: list[tuple[str, str]] = field(default_factory=list)
    said: list[str] = field(default_factory=list)

    def changed(self, state: RunState) -> None:
        """A run began, went on or ended."""
        self.changes.append((state.title, state.status))

    def say(self, text: str) -> None:
        """Something that the user should know."""
        self.said.append(text)


def at_once(*calls: Callable[[], object]) -> None:
    """Call several functions at the same time; what one of them raises is raised here."""
    raised: list[BaseException] = []

    def guarded(call: Callable[[], object]) -> None:
        try:
            call()
        except BaseException as error:
            raised.append(error)

    threads = [threading.Thread(target=guarded, args=(call,)) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if raised:
        raise raised[0]

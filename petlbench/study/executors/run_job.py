"""ONE job in this process: the code path of every executor."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

from petlbench.core.errors import RunError, Stopped
from petlbench.core.progress import Progress
from petlbench.run.execute import execute
from petlbench.run.failure import describe_failure, record_ending
from petlbench.run.options import RunContext
from petlbench.run.parts import KeptParts
from petlbench.run.resolve import resolve_config
from petlbench.study.executors.job import Action, Ended, EpochDone, Event, Job, PhaseBegan


def perform(
    job: Job, on: Callable[[Event], Action], *, spent: float = 0.0, kept_parts: KeptParts | None = None
) -> Ended:
    """Carry out one run in this process, whatever comes of it.

    Args:
        job: The run.
        on: Told of each phase and each epoch; `Action.PRUNE` after an epoch ends the run there.
        spent: Seconds that earlier attempts took of the run's time.
        kept_parts: What this process keeps between its runs; None to keep nothing.

    Returns:
        How it ended. Where data, weights or settings are wrong, or another process works on the run, nothing of it is
        on the disk; else its result is.
    """
    began = time.perf_counter()
    try:
        context = RunContext(job.options, _EventProgress(on, job.timeout, spent), kept_parts)
        if kept_parts is not None:
            kept_parts.begin_run()
        describe = context.parts.describe_dataset
        result = execute(resolve_config(job.config, context.catalog, job.options.data_root, describe), context)
        ended = Ended(result.status, result.error)
    except (Exception, KeyboardInterrupt, SystemExit) as error:  # a method's SystemExit ends its run, not the study
        ended = _ending(job, error)
    return Ended(ended.status, ended.error, time.perf_counter() - began)


def timeout_error(timeout: float) -> dict[str, str]:
    """What the result of a run says that took longer than it may."""
    return {
        "kind": "timeout",
        "message": f"stopped after {timeout:g} s, the time limit of a run",
        "hint": "give more with --timeout: the run goes on from its last epoch",
    }


class _EventProgress(Progress):
    """Turns what a run tells into events, and stops it where an answer or the clock says so."""

    def __init__(self, on: Callable[[Event], Action], timeout: float | None, spent: float) -> None:
        self._on = on
        self._timeout = timeout
        self._began = time.monotonic() - spent

    def phase(self, name: str, total: int) -> None:
        self._check_time()
        self._on(PhaseBegan(name, total))

    def advance(self, count: int = 1) -> None:
        self._check_time()

    def epoch(self, entry: Mapping[str, Any], score: str) -> None:
        if self._on(EpochDone(dict(entry))) is Action.PRUNE:
            raise Stopped("pruned", f"pruned after epoch {entry['epoch']}")
        self._check_time()

    def say(self, text: str) -> None:
        print(text, file=sys.stderr)  # noqa: T201 - a worker's goes to its log

    def _check_time(self) -> None:
        if self._timeout is not None and time.monotonic() - self._began > self._timeout:
            raise Stopped("timeout", timeout_error(self._timeout)["message"])


def _ending(job: Job, error: BaseException) -> Ended:
    ending = describe_failure(error, job.config)
    if isinstance(error, Stopped | SystemExit):  # before the run could say so itself
        try:
            result = record_ending(job.config, job.options.output, ending.status, ending.error or {})
            return Ended(result.status, result.error)
        except (Exception, KeyboardInterrupt) as failure:
            return _ending(job, failure)
    if isinstance(error, RunError) and error.kind in ("already_running", "oom"):
        return Ended("oom" if error.kind == "oom" else "busy", ending.error)
    return Ended(ending.status, ending.error)

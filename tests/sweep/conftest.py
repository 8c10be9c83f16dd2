"""Searches whose runs cost nothing: an executor that writes the result a formula gives."""

from __future__ import annotations

import itertools
import math
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from petlbench.core.catalog import Catalog
from petlbench.core.entry import Entry
from petlbench.core.request import Request
from petlbench.results.folder import RunFolder
from petlbench.results.result import FILE, Result, read_result, write_result
from petlbench.run.options import RunContext, RunOptions
from petlbench.run.record import code_digests
from petlbench.study.executors.job import Action, Ended, EpochDone, Event, Job, Started
from petlbench.sweep.search import Search, plan_search
from petlbench.sweep.spec import load_sweep

GRID: dict[str, Any] = {
    "title": "Test grid",
    "sampler": "grid",
    "seeds": [0, 1],
    "space": {"training": {"lr": {"low": 1e-4, "high": 1e-1, "log": True, "points": 3}, "weight_decay": [0, 0.1]}},
}
TPE: dict[str, Any] = {
    "title": "Test TPE",
    "trials": 6,
    "published_first": True,
    "space": {"training": {"lr": {"range": "method"}, "weight_decay": [0, 0.1]}},
}


_CATALOG = Catalog()
_NUMBERS = itertools.count()


@cache
def _code(method: str) -> dict[str, Any]:
    return code_digests(method, _CATALOG)


def quality(job: Job) -> float:
    """The best learning rate is 1e-2, and less weight decay is better."""
    training = job.config.training
    return 0.9 - 0.1 * abs(math.log10(training.lr) + 2) - 0.1 * training.weight_decay + 0.001 * job.config.seed


@dataclass
class Scripted:
    """An executor that trains nothing; several may be at work on one folder.

    Args:
        outcome: What a run comes to; by default it finishes.
        before: Called at the start of every run.
        trained: The runs that were carried out, in order.
    """

    outcome: Callable[[Job], Ended] = lambda job: Ended("finished")
    before: Callable[[Job], None] = lambda job: None
    value: Callable[[Job], float | None] = quality
    trained: list[str] = field(default_factory=list)
    epochs: list[tuple[str, int]] = field(default_factory=list)

    def run(self, jobs: Iterator[Job | None], on: Callable[[Job, Event], Action]) -> None:
        for job in jobs:
            if job is None:
                threading.Event().wait(0.01)
            else:
                on(job, self._carry_out(job, on))

    def _carry_out(self, job: Job, on: Callable[[Job, Event], Action]) -> Ended:
        folder = RunFolder(job.options.output, job.config.run_id)
        on(job, Started("scripted"))
        if (folder.final / FILE).exists() and read_result(folder.final).status == "finished":
            return Ended("finished")
        try:
            with folder.locked():
                self.before(job)
                ended = self.outcome(job)
                if ended.status == "finished":
                    ended = self._train(job, on)
                if ended.status != "interrupted":
                    self._write(job, ended, folder)
                return ended
        except Exception as error:
            if getattr(error, "kind", "") == "already_running":
                return Ended("busy")
            raise

    def _train(self, job: Job, on: Callable[[Job, Event], Action]) -> Ended:
        self.trained.append(job.config.run_id)
        for epoch in range(1, job.config.training.epochs + 1):
            self.epochs.append((job.config.run_id, epoch))
            if on(job, EpochDone({"epoch": epoch, "val_auc": self.value(job)})) is Action.PRUNE:
                return Ended("pruned")
        return Ended("finished", seconds=1.0)

    def _write(self, job: Job, ended: Ended, folder: RunFolder) -> None:
        metrics: dict[str, dict[str, Any]] = {}
        if ended.status == "finished":
            metrics = {"val": {"auc": self.value(job), "accuracy": 0.5, "loss": 1.0}}
            if job.options.reveal_test:
                metrics["test"] = {"auc": 0.7, "accuracy": 0.5}
        folder.final.mkdir(parents=True, exist_ok=True)
        status: Any = ended.status
        digests = {"data": "", "split": "", "weights": "", "external": "", **_code(job.config.method)}
        result = Result(run_id=job.config.run_id, status=status, config=job.config, metrics=metrics, digests=digests)
        write_result(folder.final, result)


@pytest.fixture
def make_search(tmp_path: Path) -> Callable[..., Search]:
    """Plan a search for ``linear`` on digits; results go to one folder of the test."""

    name = f"sweep-{next(_NUMBERS)}"  # the storage is one for all tests

    def make(card: dict[str, Any], *, method: str = "linear", timeout: float | None = None, **request: Any) -> Search:
        entry = Entry("sweep", "test", tmp_path / "test.toml", card["title"], card=card)
        request.setdefault("training", {"epochs": 1})
        asked = Request(method, "digits", "petlbench_micro", image_size=32, threads=1, device="cpu", **request)
        options = RunOptions(tmp_path / "results", tmp_path / "data", tmp_path / "cache", tracking_uri="none")
        context = RunContext(options)
        return plan_search(name, load_sweep(entry), asked, context, study_name="test", timeout=timeout)

    return make

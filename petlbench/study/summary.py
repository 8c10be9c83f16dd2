"""A study as a table: what each method reached on each dataset, over its seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from petlbench.results.result import Result
from petlbench.results.stored import Stored
from petlbench.results.table import Repeats, Results, Spread, with_scores
from petlbench.study.status import RunState, StudyStatus


@dataclass(frozen=True)
class CellSummary:
    """One method on one dataset: figures over the finished seeds.

    Args:
        wanted: Number of seeds that the study wants.
        statuses: Number of runs by status.
        auc: Test AUC, a fraction.
        interval: Bounds of its 95 % interval where there is one run, whose spread over runs is not known.
        few_validation: Validation images, where they are too few to choose an epoch by; else 0.
        val_auc: Validation AUC, a fraction.
        ratio: Learnable parameters over all, a fraction.
        allocated: Peak memory of a training step in bytes.
        memory_sources: Where the figures of memory are from.
        seconds: Time of a run.
        refusal: Why the method cannot have this dataset, where it cannot.
    """

    method: str
    dataset: str
    wanted: int
    statuses: dict[str, int]
    auc: Spread | None = None
    val_auc: Spread | None = None
    ratio: Spread | None = None
    allocated: Spread | None = None
    memory_sources: tuple[str, ...] = ()
    ppe: Spread | None = None
    pme: Spread | None = None
    seconds: Spread | None = None
    refusal: str | None = None
    interval: tuple[float, float] | None = None
    few_validation: int = 0

    @property
    def is_whole(self) -> bool:
        """Whether every seed is finished."""
        return self.statuses.get("finished", 0) == self.wanted


@dataclass(frozen=True)
class Summary:
    """A study's results: those of its finished runs by run id, with their scores, and one cell a method and dataset.

    Args:
        is_tracked: Whether MLflow has all of its runs, or is to have none.
    """

    name: str
    status: StudyStatus
    cells: tuple[CellSummary, ...]
    results: Mapping[str, Result]
    notes: tuple[str, ...] = field(default=())
    is_tracked: bool = True

    def cell(self, method: str, dataset: str) -> CellSummary:
        """What one method reached on one dataset."""
        return next(cell for cell in self.cells if (cell.method, cell.dataset) == (method, dataset))

    @property
    def best(self) -> dict[str, CellSummary]:
        """For each dataset the method with the highest mean validation AUC, of those whose seeds are all finished."""
        best: dict[str, tuple[float, CellSummary]] = {}
        for cell in self.cells:
            mean = cell.val_auc.mean if cell.is_whole and cell.val_auc is not None else -1.0
            if mean > best.get(cell.dataset, (-1.0, cell))[0]:
                best[cell.dataset] = mean, cell
        return {dataset: cell for dataset, (_, cell) in best.items()}

    def unfinished(self) -> list[RunState]:
        """The runs that have no finished result and could have one."""
        return [state for state in self.status.states if state.status not in ("finished", "unsupported")]

    def unsupported(self) -> list[RunState]:
        """The combinations that cannot be had."""
        return [state for state in self.status.states if state.status == "unsupported"]

    def document(self) -> dict[str, Any]:
        """The summary as plain values."""
        best = {
            dataset: {
                "method": cell.method,
                "auc": cell.auc and cell.auc.mean,
                "val_auc": cell.val_auc and cell.val_auc.mean,
            }
            for dataset, cell in self.best.items()
        }
        return {
            "study": self.name,
            "runs": [_run(state, self.results.get(state.run_id or "")) for state in self.status.states],
            "cells": [asdict(cell) for cell in self.cells],
            "best": best,
            "notes": list(self.notes),
        }


@dataclass(frozen=True)
class StudyResults(Results):
    """The results of a study, and what each of its parts has come to: one, or as many as a report needs."""

    name: str = ""
    summaries: Sequence[Summary] = ()


def summarize(name: str, status: StudyStatus, output: Path, notes: Sequence[str] = ()) -> Summary:
    """Return the results of a study; PME refers to runs among all results in the output folder."""
    finished = [state.result for state in status.states if state.status == "finished" and state.result is not None]
    results = {result.run_id: result for result in with_scores(finished, output)}
    cells = [_cell(method, dataset, status, results) for dataset in status.datasets for method in status.methods]
    return Summary(name, status, tuple(cells), results, tuple(notes))


def _cell(method: str, dataset: str, status: StudyStatus, results: Mapping[str, Result]) -> CellSummary:
    states = status.cell(method, dataset)
    finished = [results[state.run_id] for state in states if state.run_id is not None and state.run_id in results]
    cell = Repeats(method, dataset, tuple(Stored(result.document()) for result in finished))
    return CellSummary(
        method,
        dataset,
        wanted=len(states),
        statuses=dict(status.counts(states)),
        auc=cell.spread("test_auc"),
        val_auc=cell.spread("val_auc"),
        ratio=cell.spread("learnable_ratio"),
        allocated=cell.spread("memory_allocated"),
        memory_sources=cell.memory_sources,
        ppe=cell.spread("ppe"),
        pme=cell.spread("pme"),
        seconds=cell.spread("seconds_run"),
        interval=_interval(finished),
        few_validation=max((run.few_validation for run in cell.runs), default=0),
        refusal=next((state.planned.refusal for state in states if state.planned.refusal is not None), None),
    )


def _interval(results: Sequence[Result]) -> tuple[float, float] | None:
    """The interval of the test AUC of a single run."""
    interval = results[0].intervals.get("test", {}).get("auc") if len(results) == 1 else None
    return None if interval is None else (interval["low"], interval["high"])


def _run(state: RunState, result: Result | None) -> dict[str, Any]:
    planned = state.planned
    return {
        "run_id": state.run_id,
        "status": None if state.is_open else state.status,
        "method": planned.method,
        "dataset": planned.dataset,
        "seed": planned.seed,
        "draw": planned.draw,
        "metrics": {} if result is None else result.metrics,
        "scores": None if result is None else result.scores.model_dump(mode="json"),
        "error": state.error,
    }

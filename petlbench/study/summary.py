"""A study as a table: what each method reached on each dataset, over its seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from petlbench.results.result import Result
from petlbench.results.stored import Stored
from petlbench.results.table import Repeats, Spread, with_scores
from petlbench.study.status import RunState, StudyStatus

__all__ = ["CellSummary", "Summary", "summarize"]


@dataclass(frozen=True)
class CellSummary:
    """One method on one dataset.

    Args:
        method: Name of the method.
        dataset: The dataset.
        wanted: Number of seeds that the study wants.
        statuses: Number of runs by status.
        auc: Test AUC over the finished seeds, a fraction.
        val_auc: Validation AUC over them.
        ratio: Learnable parameters over all, a fraction.
        allocated: Peak memory of a training step in bytes.
        memory_sources: Where the figures of memory are from.
        ppe: PPE over the seeds.
        pme: PME over the seeds.
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

    @property
    def is_whole(self) -> bool:
        """Whether every seed is finished."""
        return self.statuses.get("finished", 0) == self.wanted


@dataclass(frozen=True)
class Summary:
    """A study's results.

    Args:
        name: The study.
        board: Its runs.
        cells: One for each method and dataset.
        results: Results of the finished runs by run id, with their scores.
        notes: What is to be known of the results.
    """

    name: str
    board: StudyStatus
    cells: tuple[CellSummary, ...]
    results: Mapping[str, Result]
    notes: tuple[str, ...] = field(default=())

    def cell(self, method: str, dataset: str) -> CellSummary:
        """What one method reached on one dataset."""
        return next(one for one in self.cells if (one.method, one.dataset) == (method, dataset))

    @property
    def best(self) -> dict[str, CellSummary]:
        """For each dataset the method with the highest mean validation AUC, of those whose seeds are all finished."""
        found: dict[str, CellSummary] = {}
        for cell in self.cells:
            if not cell.is_whole or cell.val_auc is None:
                continue
            best = found.get(cell.dataset)
            if best is None or best.val_auc is None or cell.val_auc.mean > best.val_auc.mean:
                found[cell.dataset] = cell
        return found

    def unfinished(self) -> list[RunState]:
        """The runs that have no finished result and could have one."""
        return [one for one in self.board.states if one.status not in ("finished", "unsupported")]

    def unsupported(self) -> list[RunState]:
        """The combinations that cannot be had."""
        return [one for one in self.board.states if one.status == "unsupported"]

    def document(self) -> dict[str, Any]:
        """The summary as plain values."""
        best = {
            dataset: {"method": cell.method, "auc": _mean(cell.auc), "val_auc": _mean(cell.val_auc)}
            for dataset, cell in self.best.items()
        }
        return {
            "study": self.name,
            "runs": [_run(state, self.results.get(state.run_id or "")) for state in self.board.states],
            "cells": [asdict(cell) for cell in self.cells],
            "best": best,
            "notes": list(self.notes),
        }


def summarize(name: str, board: StudyStatus, output: Path, notes: Sequence[str] = ()) -> Summary:
    """Sum up a study.

    Args:
        name: The study.
        board: Its runs.
        output: Folder of all results, in which the runs lie that PME refers to.
        notes: What is to be known of the results.
    """
    finished = [state.result for state in board.states if state.status == "finished" and state.result is not None]
    results = {result.run_id: result for result in with_scores(finished, output)}
    cells = [_cell(method, dataset, board, results) for dataset in board.datasets for method in board.methods]
    return Summary(name, board, tuple(cells), results, tuple(notes))


def _cell(method: str, dataset: str, board: StudyStatus, results: Mapping[str, Result]) -> CellSummary:
    states = board.cell(method, dataset)
    finished = [results[state.run_id] for state in states if state.run_id is not None and state.run_id in results]
    cell = Repeats(method, dataset, tuple(Stored(result.document()) for result in finished))
    return CellSummary(
        method,
        dataset,
        wanted=len(states),
        statuses=dict(board.counts(states)),
        auc=cell.spread("test_auc"),
        val_auc=cell.spread("val_auc"),
        ratio=cell.spread("learnable_ratio"),
        allocated=cell.spread("memory_allocated"),
        memory_sources=cell.memory_sources,
        ppe=cell.spread("ppe"),
        pme=cell.spread("pme"),
        seconds=cell.spread("seconds_total"),
        refusal=next((state.planned.refusal for state in states if state.planned.refusal is not None), None),
    )


def _mean(spread: Spread | None) -> float | None:
    return None if spread is None else spread.mean


def _run(state: RunState, result: Result | None) -> dict[str, Any]:
    planned = state.planned
    return {
        "run_id": state.run_id,
        "status": None if state.is_open else state.status,
        "method": planned.method,
        "dataset": planned.dataset,
        "seed": planned.seed,
        "metrics": {} if result is None else result.metrics,
        "scores": None if result is None else result.scores.model_dump(mode="json"),
        "error": state.error,
    }

"""A study as a table: what each method reached on each dataset, over its seeds."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from statistics import fmean, stdev
from typing import Any

from petlbench.results.result import Result
from petlbench.study.status import RunState, StudyStatus

__all__ = ["CellSummary", "Spread", "Summary", "summarize"]


@dataclass(frozen=True)
class Spread:
    """Several values of one figure.

    Args:
        mean: Their mean.
        std: Their sample standard deviation, over n − 1; None for a single one.
        count: How many there are.
    """

    mean: float
    std: float | None
    count: int

    @classmethod
    def of(cls, values: Iterable[float | None]) -> Spread | None:
        """Take mean and deviation of the values that are there; None where there are none."""
        known = [value for value in values if value is not None]
        if not known:
            return None
        return cls(fmean(known), stdev(known) if len(known) > 1 else None, len(known))


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
        notes: What is to be known of the results.
    """

    name: str
    board: StudyStatus
    cells: tuple[CellSummary, ...]
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
            "runs": [_run(state) for state in self.board.states],
            "cells": [asdict(cell) for cell in self.cells],
            "best": best,
            "notes": list(self.notes),
        }


def summarize(name: str, board: StudyStatus, notes: Sequence[str] = ()) -> Summary:
    """Sum up a study.

    Args:
        name: The study.
        board: Its runs.
        notes: What is to be known of the results.
    """
    cells = [_cell(method, dataset, board) for dataset in board.datasets for method in board.methods]
    return Summary(name, board, tuple(cells), tuple(notes))


def _cell(method: str, dataset: str, board: StudyStatus) -> CellSummary:
    states = board.cell(method, dataset)
    results = [one.result for one in states if one.status == "finished" and one.result is not None]
    memories = [result.memory for result in results if result.memory is not None]
    return CellSummary(
        method,
        dataset,
        wanted=len(states),
        statuses=dict(board.counts(states)),
        auc=Spread.of(_auc(result, "test") for result in results),
        val_auc=Spread.of(_auc(result, "val") for result in results),
        ratio=Spread.of(result.parameters.ratio for result in results if result.parameters is not None),
        allocated=Spread.of(memory.allocated for memory in memories),
        memory_sources=tuple(sorted({memory.source for memory in memories})),
        ppe=Spread.of(result.scores.ppe for result in results),
        pme=Spread.of(result.scores.pme for result in results),
        seconds=Spread.of(result.timing.get("total") for result in results),
        refusal=next((one.planned.refusal for one in states if one.planned.refusal is not None), None),
    )


def _auc(result: Result, split: str) -> float | None:
    value = result.metrics.get(split, {}).get("auc")
    return None if value is None else float(value)


def _mean(spread: Spread | None) -> float | None:
    return None if spread is None else spread.mean


def _run(state: RunState) -> dict[str, Any]:
    planned, result = state.planned, state.result if state.status == "finished" else None
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

"""How far each run of a study is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any, Literal

from petlbench.core.progress import Progress
from petlbench.results.result import Result, Status
from petlbench.study.grid import PlannedRun

__all__ = ["FAILED", "RunState", "RunStatus", "StudyObserver", "StudyStatus"]

RunStatus = Status | Literal["waiting", "running", "elsewhere"]

FAILED: frozenset[str] = frozenset({"failed", "oom", "timeout", "pruned"})
"""How a run ends that is not tried again before it is asked for."""

_OPEN = frozenset({"waiting", "running", "elsewhere"})


@dataclass
class RunState:
    """One run of a study, as far as its driver knows.

    Args:
        planned: The combination.
        status: Of its result; or ``waiting``, ``running``, ``elsewhere`` where another process works on it.
        result: Its result, where there is one.
        error: Kind, message and hint, where it did not finish.
        phase: What a running one is doing.
        epoch: Epochs that a running one has done.
    """

    planned: PlannedRun
    status: RunStatus = "waiting"
    result: Result | None = None
    error: dict[str, str] | None = None
    phase: str = ""
    epoch: int = 0

    @property
    def run_id(self) -> str | None:
        """The run's name; None for a combination that cannot be had."""
        return self.planned.config.run_id if self.planned.config is not None else None

    @property
    def epochs(self) -> int:
        """How many epochs the run has in all."""
        return self.planned.config.training.epochs if self.planned.config is not None else 0

    @property
    def is_open(self) -> bool:
        """Whether the driver still waits for it."""
        return self.status in _OPEN

    @property
    def entry(self) -> dict[str, Any]:
        """What the study's file says of it."""
        status = self.result.status if self.is_open and self.result is not None else self.status
        error = self.error["message"] if self.error is not None else None
        ending = None if status in _OPEN else status
        cell = {name: getattr(self.planned, name) for name in ("method", "dataset", "seed")}
        return {**cell, "run_id": self.run_id, "status": ending, "error": error}

    @property
    def outcome(self) -> str:
        """How it ended, in words."""
        return f"{self.status}: {self.error['message']}" if self.error and self.error["message"] else self.status

    @property
    def title(self) -> str:
        """What a person calls the run."""
        return f"{self.planned.method} on {self.planned.dataset}, seed {self.planned.seed}"


class StudyObserver(Progress):
    """Told what happens to the runs of a study; this one keeps silent."""

    def begin(self, status: StudyStatus, at_once: int) -> None:
        """A study begins; its status is kept up to date, and so many runs are carried out at the same time."""

    def changed(self, state: RunState) -> None:
        """A run began, went on or ended."""


class StudyStatus:
    """All runs of a study."""

    def __init__(self, states: Sequence[RunState]) -> None:
        self.states = list(states)
        self._cells: dict[tuple[str, str], list[RunState]] = {}
        for state in self.states:
            self._cells.setdefault((state.planned.method, state.planned.dataset), []).append(state)

    @property
    def methods(self) -> list[str]:
        """Names of the methods, in the order of the study."""
        return list(dict.fromkeys(state.planned.method for state in self.states))

    @property
    def datasets(self) -> list[str]:
        """The datasets, in the order of the study."""
        return list(dict.fromkeys(state.planned.dataset for state in self.states))

    def cell(self, method: str, dataset: str) -> list[RunState]:
        """The runs of one method on one dataset, one a seed."""
        return list(self._cells.get((method, dataset), ()))

    def counts(self, states: Sequence[RunState] | None = None) -> Counter[str]:
        """How many runs have which status."""
        return Counter(state.status for state in (self.states if states is None else states))

    def seconds_left(self, at_once: int) -> tuple[float | None, int]:
        """Return seconds that the study still takes, and the number of open runs of which that is not known.

        It is estimated from finished runs of the same method on the same dataset; None where there are none.
        """
        seconds, unknown = [], 0
        for states in self._cells.values():
            usual, waited_for = _usual_seconds(states), [state for state in states if state.is_open]
            if usual is None:
                unknown += len(waited_for)
            else:
                seconds += [usual * (1 - state.epoch / max(1, state.epochs)) for state in waited_for]
        return (sum(seconds) / max(1, at_once) if seconds else None), unknown


def _usual_seconds(states: Sequence[RunState]) -> float | None:
    """The mean time of the finished ones."""
    seconds = [
        state.result.timing["total"]
        for state in states
        if state.result is not None and state.status == "finished" and "total" in state.result.timing
    ]
    return fmean(seconds) if seconds else None

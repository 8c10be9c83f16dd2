"""How far each run of a study is, and the file that says so: ``studies/<name>.json``."""

from __future__ import annotations

import json
import re
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any, Literal

from petlbench.core.errors import InputError
from petlbench.core.file_lock import locked
from petlbench.core.files import write_atomically
from petlbench.core.progress import Progress
from petlbench.results.result import Result, Status
from petlbench.results.table import STUDY_SCHEMA, read_study
from petlbench.study.planned_run import PlannedRun

RunStatus = Status | Literal["waiting", "running", "elsewhere"]

FAILED: frozenset[str] = frozenset({"failed", "oom", "timeout", "pruned"})
"""How a run ends that is not tried again before it is asked for."""

_CELL = ("method", "dataset", "seed")
# A run's own cell has its draw of few labels besides, which older files do not know.
_DRAW = "draw"
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
        cell = {name: getattr(self.planned, name) for name in _CELL}
        origin = self.planned.origin
        more = {} if origin is None else {"origin": origin.model_dump(mode="json")}
        return {**cell, _DRAW: self.planned.draw, "run_id": self.run_id, "status": ending, "error": error, **more}

    @property
    def outcome(self) -> str:
        """How it ended, in words."""
        return f"{self.status}: {self.error['message']}" if self.error and self.error["message"] else self.status

    @property
    def title(self) -> str:
        """What a person calls the run."""
        draw = f", draw {self.planned.draw}" if self.planned.draw else ""
        return f"{self.planned.method} on {self.planned.dataset}{draw}, seed {self.planned.seed}"


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
    seconds = [
        state.result.timing["total"]
        for state in states
        if state.result is not None and state.status == "finished" and "total" in state.result.timing
    ]
    return fmean(seconds) if seconds else None


def check_study_name(name: str) -> str:
    """Return a study's name if it can name a file.

    Raises:
        InputError: When it cannot.
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
        hint = "use letters, digits, dots, dashes and underscores, such as --study table-2"
        raise InputError(f"--study '{name}' cannot name a study", hint=hint, kind="bad_study")
    return name


def study_file(output: Path, name: str) -> Path:
    """The file that says what a study consists of."""
    return output / "studies" / f"{check_study_name(name)}.json"


def record_runs(
    output: Path,
    name: str,
    runs: Sequence[Mapping[str, Any]],
    *,
    kind: Literal["bench", "sweep"] = "bench",
    more: Mapping[str, Any] | None = None,
) -> list[Mapping[str, Any]]:
    """Write down the runs of a study, and return those that had another config for the same combination.

    These are replaced; all others that the study has stay. Several processes may do so at once.

    Args:
        output: Folder of all results.
        name: The study.
        runs: The runs: ``method``, ``dataset`` as it was asked for, ``seed``, ``run_id`` (None for a combination that
            cannot be had), ``status`` (None where there is no result yet), ``error`` (why it did not finish).
        kind: What the study is, where it is new.
        more: Further entries of the document.
    """
    file = study_file(output, name)
    file.parent.mkdir(parents=True, exist_ok=True)
    with locked(file.with_name(f".{file.name}.lock")):
        created = time.strftime("%Y-%m-%dT%H:%M:%S%z")
        document: dict[str, Any] = {"schema": STUDY_SCHEMA, "name": name, "kind": kind, "created": created}
        document |= {f"{axis}s": [] for axis in (*_CELL, "run")}
        if file.exists():
            document |= read_study(file)
        before, new = ({_cell_of(run): run for run in each} for each in (document["runs"], runs))
        shared = [(old, new[cell]) for cell, old in before.items() if cell in new]
        replaced = [old for old, new in shared if old.get("run_id") is not None and new["run_id"] != old["run_id"]]
        merged = list((before | new).values())
        for axis in _CELL:  # what is new goes behind what was there
            document[f"{axis}s"] = list(dict.fromkeys([*document[f"{axis}s"], *(run[axis] for run in merged)]))
        document |= {"runs": merged, **(more or {})}
        with write_atomically(file) as temporary:
            temporary.write_text(json.dumps(document, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    return replaced


def _cell_of(run: Mapping[str, Any]) -> tuple[Any, ...]:
    return (*(run[name] for name in _CELL), run.get(_DRAW, 0))

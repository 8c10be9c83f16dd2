"""What an executor is given and what it tells: plain data that crosses processes and machines."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Any, Literal

from petlbench.core.config import RunConfig
from petlbench.results.result import Status
from petlbench.run.options import RunOptions

__all__ = ["Action", "Ended", "EpochDone", "Event", "Job", "PhaseBegan", "Started"]


@dataclass(frozen=True)
class Job:
    """One run to be carried out, wherever that is.

    Args:
        config: The run.
        options: Where it reads and writes.
        timeout: Seconds after which the run is stopped; None for no limit.
    """

    config: RunConfig
    options: RunOptions
    timeout: float | None = None


@dataclass(frozen=True)
class Started:
    """A worker begins with the run."""

    worker: str


@dataclass(frozen=True)
class PhaseBegan:
    """A phase begins: what is done, as a progress bar shows it, and how many images or steps it has."""

    name: str
    total: int


@dataclass(frozen=True)
class EpochDone:
    """An epoch is done and its checkpoint written; its point of the curve has ``epoch``, ``val_auc`` and so on."""

    entry: dict[str, Any]


@dataclass(frozen=True)
class Ended:
    """The run ended, for good or for now; its result, where there is one, stands on the disk.

    Args:
        status: As in ``result.json``; or ``busy`` where another process works on the run.
        error: Kind, message and hint, where it did not finish.
        seconds: Time that all attempts took together.
        attempts: How often it was begun by this executor.
    """

    status: Status | Literal["busy"]
    error: dict[str, str] | None = None
    seconds: float = 0.0
    attempts: int = 1


Event = Started | PhaseBegan | EpochDone | Ended


class Action(Enum):
    """What a run is to do after an event; it matters after `EpochDone` only."""

    GO_ON = "go on"
    PRUNE = "prune"

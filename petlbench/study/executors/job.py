"""What an executor is, what it is given and what it tells: one class in one file, found in the catalogue.

Nothing heavy is imported here: a worker process imports this before torch. Jobs and events are plain data that crosses
processes and machines.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from petlbench.core.entry import Card, Kind

if TYPE_CHECKING:
    from petlbench.core.catalog import Catalog
    from petlbench.core.config import RunConfig
    from petlbench.results.result import Status
    from petlbench.run.options import RunOptions


@dataclass(frozen=True)
class Job:
    """One run to be carried out, wherever that is.

    Args:
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


On = Callable[[Job, Event], Action]
"""Who is told what happens."""


@dataclass(frozen=True)
class ExecutorCard(Card):
    """What names an executor: ``card = ExecutorCard(name=..., title=...)`` in its class."""

    kind: ClassVar[Kind] = "executor"


@dataclass(frozen=True)
class ExecutorOptions:
    """How much an executor may use; each takes what concerns it.

    Args:
        workers: How many runs at once, at most; 0 for this process (``local``) or for as many as there is room for.
        address: Of the cluster; None for one on this machine that ends with the study.
        cpus: CPUs of a run on a cluster.
        gpus: GPUs of a run on a cluster; a fraction lets runs share one.
    """

    workers: int = 1
    address: str | None = None
    cpus: float = 1
    gpus: float = 0


class Executor(ABC):
    """Where runs are carried out: this process, processes of this machine, or a cluster."""

    card: ClassVar[ExecutorCard]

    is_local: ClassVar[bool] = True
    """Whether runs find the data where this process does, so that it is looked at before the first of them."""

    @classmethod
    def open(cls, options: ExecutorOptions) -> Executor:
        """Return an executor that is ready to `run`; nothing is started before the first job.

        Raises:
            InputError: When something is missing here that it needs.
        """
        return cls()

    @abstractmethod
    def run(self, jobs: Iterator[Job | None], on: On) -> None:
        """Carry out jobs until there are no more.

        Args:
            jobs: Asked for the next one whenever a worker is free. None means that there is nothing now, and that it
                is to be asked again after the next event or in about a second.
            on: Told what happens; called in the caller's thread, one event at a time.

        Raises:
            KeyboardInterrupt: When the user stops it; runs under way keep their checkpoints.
        """


def open_executor(name: str, options: ExecutorOptions, catalog: Catalog) -> Executor:
    """Return the executor of a name in the catalogue, such as ``local`` or ``ray``.

    Raises:
        InputError: When nothing has that name, or something is missing here that it needs.
    """
    return catalog.load("executor", name, Executor).open(options)  # type: ignore[type-abstract]

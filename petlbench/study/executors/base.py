"""What an executor is: where the runs of a study are carried out; one class in one file, found in the catalogue.

Nothing heavy is imported here: a worker process imports this before torch.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from petlbench.core.entry import Card, Kind

if TYPE_CHECKING:
    from petlbench.core.catalog import Catalog
    from petlbench.study.executors.job import Action, Event, Job

__all__ = ["Executor", "ExecutorCard", "ExecutorOptions", "open_executor"]


@dataclass(frozen=True)
class ExecutorCard(Card):
    """What names an executor: ``card = ExecutorCard(name=..., title=...)`` in its class."""

    kind: ClassVar[Kind] = "executor"


@dataclass(frozen=True)
class ExecutorOptions:
    """How much an executor may use; each takes what concerns it.

    Args:
        workers: How many runs at once, at most; 0 for this process (``local``) or for as many as there is room for.
        devices: CUDA devices that workers take in turn; empty for those that are there.
        address: Of the cluster; None for one on this machine that ends with the study.
        cpus: CPUs of a run on a cluster.
        gpus: GPUs of a run on a cluster; a fraction lets runs share one.
    """

    workers: int = 1
    devices: tuple[str, ...] = ()
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
    def run(self, jobs: Iterator[Job | None], on: Callable[[Job, Event], Action]) -> None:
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

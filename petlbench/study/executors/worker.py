"""A worker process, from the inside: it takes one job after the other from its driver, and ends when that is gone.

Nothing heavy is imported at the top: what must be told to the user's terminal or to torch comes first.
"""

from __future__ import annotations

import faulthandler
import gc
import os
import sys
import threading
import traceback
from collections.abc import Iterable
from multiprocessing.connection import Connection
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

from petlbench.core.interrupt import install_handlers

if TYPE_CHECKING:
    from petlbench.study.executors.job import Action, Event, Job

__all__ = ["clean_up", "main", "pin"]


def main(handle: int, name: str, cores: tuple[int, ...]) -> None:
    """Work for the driver at the other end of a pipe; an empty share of the cores is none."""
    os.set_inheritable(handle, False)  # what a run starts must not hold the pipe open when this process is gone
    faulthandler.enable()
    install_handlers()
    try:
        _Worker(Connection(handle), name, cores).serve()
    except KeyboardInterrupt:
        sys.exit(0)


class _Worker:
    def __init__(self, pipe: Connection, name: str, cores: tuple[int, ...]) -> None:
        self._pipe = pipe
        self._name = name
        self._cores = cores
        self._all_cores = tuple(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else ()
        self._inbox: SimpleQueue[Any] = SimpleQueue()

    def serve(self) -> None:
        """Carry out jobs until a run is interrupted or the driver closes the pipe."""
        from petlbench.study.executors.job import Started
        from petlbench.study.executors.run_job import perform

        threading.Thread(target=self._listen, daemon=True).start()
        while True:
            job, spent = self._inbox.get()
            self._pin(job)
            self._tell(Started(self._name))
            ended = perform(job, self._ask, spent=spent)
            clean_up()
            self._tell(ended)
            if ended.status == "interrupted":
                return

    def _listen(self) -> None:
        """Take what the driver sends; when it is gone, nobody waits for this process any more."""
        while True:
            try:
                self._inbox.put(self._pipe.recv())
            except (EOFError, OSError):
                os._exit(0)
            except BaseException:
                traceback.print_exc()
                os._exit(1)

    def _ask(self, event: Event) -> Action:
        from petlbench.study.executors.job import Action, EpochDone

        self._tell(event)
        if not isinstance(event, EpochDone):
            return Action.GO_ON
        answer: Action = self._inbox.get()
        return answer

    def _tell(self, message: object) -> None:
        try:
            self._pipe.send(message)
        except OSError:  # inside a run this would be taken for a fault of the run
            os._exit(0)

    def _pin(self, job: Job) -> None:
        """Keep to the worker's share of the cores, unless the run's threads need more than that."""
        if self._cores:
            pin(self._cores if len(self._cores) >= job.config.threads else self._all_cores)


def pin(cores: Iterable[int]) -> None:
    """Keep every thread of this process to some cores, where the system can do that."""
    if not hasattr(os, "sched_setaffinity"):
        return
    for thread in Path("/proc/self/task").iterdir():
        try:
            os.sched_setaffinity(int(thread.name), cores)
        except OSError:  # the thread has ended, or the core was taken away: it works all the same
            continue


def clean_up() -> None:
    """Give back what a run held, so that the next one finds the memory that it would find in a process of its own."""
    import torch

    gc.collect()
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        torch.cuda.empty_cache()

"""Work spread over processes of this machine, one a core."""

from __future__ import annotations

import gc
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import TypeVar

from petlbench.core.errors import RunError
from petlbench.core.interrupt import check_interrupt

A = TypeVar("A")
B = TypeVar("B")


class Workers:
    """Calls a function for many items.

    Args:
        pool: The processes that call it; None for this process.
    """

    def __init__(self, pool: ProcessPoolExecutor | None = None) -> None:
        self._pool = pool

    def map(
        self, function: Callable[[A], B], items: Sequence[A], on_done: Callable[[], None] = lambda: None
    ) -> list[B]:
        """Call a function for every item.

        Args:
            function: Found by its name in its module; it and what it returns cross to another process.
            items: What it is called with, one at a time.
            on_done: Told each time that one is done.

        Returns:
            What it returned, in the order of the items.

        Raises:
            RunError: When a process was ended from outside.
        """
        if self._pool is None:
            results = []
            for item in items:
                results.append(function(item))
                check_interrupt()
                on_done()
            return results
        try:
            futures = [self._pool.submit(function, item) for item in items]
            for future in as_completed(futures):
                future.result()
                on_done()
            return [future.result() for future in futures]
        except BrokenProcessPool as error:
            raise RunError(
                "a worker process was ended from outside, perhaps because host memory ran out",
                hint="ask for fewer methods or values at once",
                kind="worker_lost",
            ) from error


@contextmanager
def open_workers(count: int) -> Iterator[Workers]:
    """Start worker processes, which end with the block; where it fails, at once. Below two, this process does the work.

    Open them before threads are started, such as those that draw progress bars.
    """
    if count < 2:
        yield Workers()
        return
    others = set(multiprocessing.active_children())
    # Forked, the workers have all that is imported here already, which takes longer to import than many predictions
    # take to make. Elsewhere forking is not safe, or not possible.
    context = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
    with ProcessPoolExecutor(count, context, initializer=_begin) as pool:
        try:
            pool.submit(os.getpid).result()  # starts the processes
            yield Workers(pool)
        except BaseException:
            for process in set(multiprocessing.active_children()) - others:
                process.terminate()
            pool.shutdown(wait=True, cancel_futures=True)
            raise


def _begin() -> None:
    """Make a new process a worker: it works on one core, and leaves Ctrl-C to the process that started it."""
    import torch

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    torch.set_num_threads(1)
    gc.freeze()  # what was imported stays, and need not be gone through again and again

"""The largest value that a figure took over some time, for figures whose source keeps no peak."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Self

__all__ = ["Sampler"]

# A thread that hangs in the driver must not keep the run from going on.
_PATIENCE = 2.0


class Sampler:
    """Reads a figure over and over in a thread of its own while it is entered.

    The first reading is made before the work begins and the last one after it has ended, however short it is.

    Args:
        read: Gives the figure, or ``None`` where it is not to be had just now. Called from the thread too.
        every: Seconds between two readings.

    Attributes:
        peak: The largest reading; ``None`` where there was none.
    """

    def __init__(self, read: Callable[[], int | None], *, every: float = 0.01) -> None:
        self.peak: int | None = None
        self._read = read
        self._every = every
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._go_on, name="petlbench-memory", daemon=True)

    def __enter__(self) -> Self:
        """Start to read."""
        self._note()
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        """Read for the last time."""
        self._stopped.set()
        self._thread.join(_PATIENCE)
        if not self._thread.is_alive():
            self._note()

    def _go_on(self) -> None:
        while not self._stopped.wait(self._every):
            self._note()

    def _note(self) -> None:
        value = self._read()
        if value is not None:
            self.peak = value if self.peak is None else max(self.peak, value)

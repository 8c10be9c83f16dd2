"""Tasks for a store that may be away: kept in order, carried out when it answers, and never waited for long."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from petlbench.core.text import without_password
from petlbench.results.tracking.store import Store, check_address, choose_address, explain, quiet

_FIRST_PAUSE, _LONGEST_PAUSE = 5.0, 300.0
# After a failure the store is left alone for this many times what the failure took: waiting costs at most a twentieth.
_PAUSE_PER_WAIT = 20.0
# One result with its files over a slow line.
_SECONDS_A_TASK = 300.0
# Between attempts of whoever waits for one task.
_FIRST_RETRY, _LONGEST_RETRY = 0.5, 8.0

# What a store that works says when it will never take a task.
_REFUSALS = ("INVALID_PARAMETER_VALUE", "BAD_REQUEST")

_Value = TypeVar("_Value")


class StoreAwayError(Exception):
    """The store did not answer as long as it was waited for."""


class SendQueue:
    """Tasks for a store, carried out in their order, each until it has worked once.

    A task is done in a thread of its own, since a database's driver may wait without end. Whoever sends waits for it
    so long and no longer; a task that hangs is neither stopped nor begun a second time while it hangs.

    Args:
        store: The store.
        patience: Seconds for which `carry_out` waits for a store that is away, each time it goes away.

    Attributes:
        store: The store.
        error: Why the last attempt failed; None when it did not.
        refusal: The first error for which a task was dropped.
    """

    def __init__(self, store: Store, *, patience: float = 0.0) -> None:
        self.store = store
        self._patience = patience
        self.error: Exception | None = None
        self.refusal: Exception | None = None
        self._tasks: deque[Callable[[], object]] = deque()
        self._thread: threading.Thread | None = None
        self._pause = 0.0
        self._not_before = 0.0

    @property
    def empty(self) -> bool:
        """Whether everything has been sent or refused."""
        return not self._tasks

    @property
    def is_off(self) -> bool:
        """Whether tracking is turned off, so that every task is dropped."""
        return self.store.uri == "none"

    @property
    def place(self) -> str:
        """The store's address without its password."""
        return without_password(self.store.uri)

    @property
    def reason(self) -> str | None:
        """Why the store has not taken everything, as far as it has said so."""
        error = self.refusal or self.error
        return explain(error) if error else None

    def put(self, task: Callable[[], object]) -> None:
        """Add a task behind those that wait; it is done again after a failure half way, which must do no harm."""
        if not self.is_off:
            self._tasks.append(task)

    def send(self, within: float) -> bool:
        """Carry out what waits, in its order, up to the first failure; what takes more seconds goes on by itself.

        Returns:
            Whether everything has been sent.
        """
        began = time.monotonic()
        with quiet():
            if self._tasks and not self._at_work():
                self._begin()
            self._wait(began + within)
            while self._tasks and self.error is None and not self._at_work():  # put there while the thread ended
                self._begin()
                self._wait(began + within)
        self._settle(time.monotonic() - began)
        return self.empty

    def send_if_due(self, within: float) -> None:
        """Do as `send` does, unless the store failed a short while ago; the pauses grow with every failure."""
        if not self._pause or time.monotonic() >= self._not_before:
            self.send(within)

    def carry_out(self, task: Callable[[], _Value], *, otherwise: _Value) -> _Value:
        """Carry out one task, waiting for a store that is away.

        Args:
            task: Done again after a failure half way, so a second time must do no harm.
            otherwise: What is returned where the store refuses the task.

        Returns:
            What the task returned.

        Raises:
            StoreAwayError: When the store does not answer; says why.
        """
        value = [otherwise]

        def keep() -> None:
            value[0] = task()

        self.put(keep)
        until, pause = time.monotonic() + self._patience, _FIRST_RETRY
        while not self.send(_SECONDS_A_TASK):
            if time.monotonic() + pause > until:
                raise StoreAwayError(explain(self.error) if self.error else "it does not answer")
            time.sleep(pause)
            pause = min(2 * pause, _LONGEST_RETRY)
        return value[0]

    def _settle(self, waited: float) -> None:
        if self.empty:
            self._pause = 0.0
            return
        self._pause = min(max(2 * self._pause, _FIRST_PAUSE, _PAUSE_PER_WAIT * waited), _LONGEST_PAUSE)
        self._not_before = time.monotonic() + self._pause

    def _at_work(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def _begin(self) -> None:
        self.error = None
        self._thread = threading.Thread(target=self._work, name="petlbench-tracking", daemon=True)
        self._thread.start()

    def _wait(self, deadline: float) -> None:
        if self._thread is not None:
            self._thread.join(max(deadline - time.monotonic(), 0.0))

    def _work(self) -> None:
        while self._tasks:
            try:
                with self.store.lock():
                    self._tasks[0]()
            except Exception as error:
                if getattr(error, "error_code", None) not in _REFUSALS:
                    self.error = error
                    return
                self.refusal = self.refusal or error
            self._tasks.popleft()


def open_queue(uri: str | None, output: Path, *, patience: float = 0.0) -> SendQueue:
    """The queue of a store; nothing is opened or imported before its first use.

    Args:
        uri: An MLflow tracking URI; ``None`` or empty takes the environment's ``MLFLOW_TRACKING_URI``, else the SQLite
            file ``mlflow.db`` in the output folder; ``"none"`` turns tracking off.
        output: The folder of all results.
        patience: As of `SendQueue`.

    Raises:
        InputError: The URI's scheme is none that MLflow knows (kind ``bad_tracking_uri``), or the driver of a
            PostgreSQL database is missing (``missing_extra``).
    """
    address = choose_address(uri, output)
    if address != "none":
        check_address(address)
    return SendQueue(Store(address, output), patience=patience)

"""Brings one thing after another to a store, and waits for one that is away, but not for ever."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from petlbench.results.tracking.address import check_address, choose_address, without_password
from petlbench.results.tracking.send_queue import Outbox
from petlbench.results.tracking.store import Store, explain, is_refusal, quiet

__all__ = ["Courier", "StoreAwayError", "open_courier"]

# One result with its files over a slow line.
_SECONDS_AN_ACTION = 300.0
_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 8.0

_Found = TypeVar("_Found")


class StoreAwayError(Exception):
    """The store did not answer as long as it was waited for."""


class Courier:
    """Carries out actions upon a store, each until it has worked.

    Args:
        store: The store.
        patience: Seconds for which a store that is away is waited for, each time it goes away.
    """

    def __init__(self, store: Store, patience: float) -> None:
        self.store = store
        self._patience = patience
        self._outbox = Outbox(is_refusal)

    @property
    def place(self) -> str:
        """The store's address without its password."""
        return without_password(self.store.uri)

    @property
    def refusal(self) -> str | None:
        """Why the store would not take something, where that was so."""
        return explain(self._outbox.refusal) if self._outbox.refusal else None

    def bring(self, action: Callable[[], _Found], *, otherwise: _Found) -> _Found:
        """Carry out one action.

        Args:
            action: Done again after a failure half way, so a second time must do no harm.
            otherwise: What is returned where the store refuses the action.

        Returns:
            What the action returned.

        Raises:
            StoreAwayError: When the store does not answer; says why.
        """
        found = [otherwise]

        def guarded() -> None:
            with self.store.lock():
                found[0] = action()

        self._outbox.put(guarded)
        until, pause = time.monotonic() + self._patience, _FIRST_PAUSE
        while not self._send():
            if time.monotonic() + pause > until:
                raise StoreAwayError(explain(self._outbox.error) if self._outbox.error else "it does not answer")
            time.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)
        return found[0]

    def _send(self) -> bool:
        with quiet():
            return self._outbox.send(_SECONDS_AN_ACTION)


def open_courier(uri: str | None, output: Path, *, patience: float) -> Courier | None:
    """Make the courier of a store; nothing is opened yet.

    Args:
        uri: The store's address as `petlbench.results.tracking.open_tracker` takes it.
        output: Folder of all results.
        patience: Seconds for which a store that is away is waited for.

    Returns:
        The courier; None where tracking is turned off.

    Raises:
        InputError: When MLflow knows no such address.
    """
    chosen = choose_address(uri, output)
    if chosen == "none":
        return None
    check_address(chosen)
    return Courier(Store(chosen, output / "mlartifacts"), patience)

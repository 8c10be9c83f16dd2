"""Letters to a store that may be away: kept in order, sent when it answers, and never waited for long."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable

__all__ = ["Outbox"]

_FIRST_PAUSE, _LONGEST_PAUSE = 5.0, 300.0
# After a failure the store is left alone for this many times what the failure took: waiting costs at most a twentieth.
_PAUSE_PER_WAIT = 20.0


class Outbox:
    """Actions upon a store, carried out in their order, each until it has worked once.

    An action is done in a thread of its own, since a database's driver may wait without end. Whoever sends waits for it
    so long and no longer; an action that hangs is neither stopped nor begun a second time while it hangs.

    Args:
        refused: Whether an error means that the store will never take this action; it is dropped then.

    Attributes:
        error: Why the last attempt failed; None when it did not.
        refusal: The first error for which an action was dropped.
    """

    def __init__(self, refused: Callable[[Exception], bool] = lambda error: False) -> None:
        self.error: Exception | None = None
        self.refusal: Exception | None = None
        self._refused = refused
        self._actions: deque[Callable[[], object]] = deque()
        self._thread: threading.Thread | None = None
        self._pause = 0.0
        self._not_before = 0.0

    @property
    def empty(self) -> bool:
        """Whether everything has been sent or refused."""
        return not self._actions

    def put(self, action: Callable[[], object]) -> None:
        """Add an action behind those that wait.

        Args:
            action: Done again after a failure half way, so a second time must do no harm.
        """
        self._actions.append(action)

    def send(self, within: float) -> bool:
        """Carry out what waits, in its order, up to the first failure.

        Args:
            within: Seconds to wait for that; what takes longer goes on by itself.

        Returns:
            Whether everything has been sent.
        """
        began = time.monotonic()
        if not self._at_work():
            self._begin()
        self._wait(began + within)
        while self._actions and self.error is None and not self._at_work():  # put there while the thread came to an end
            self._begin()
            self._wait(began + within)
        self._settle(time.monotonic() - began)
        return self.empty

    def send_if_due(self, within: float) -> bool:
        """Do as `send` does, unless the store failed a short while ago; the pauses grow with every failure.

        Args:
            within: Seconds to wait.

        Returns:
            Whether everything has been sent.
        """
        if self._pause and time.monotonic() < self._not_before:
            return self.empty
        return self.send(within)

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
        while self._actions:
            try:
                self._actions[0]()
            except Exception as error:
                if not self._refused(error):
                    self.error = error
                    return
                self.refusal = self.refusal or error
            self._actions.popleft()

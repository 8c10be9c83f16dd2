"""Stopping on request: a Ctrl-C or a scheduler's SIGTERM that cannot get lost."""

from __future__ import annotations

import signal
import threading
from types import FrameType

_requested = threading.Event()


def install_handlers() -> None:
    """Turn SIGINT and SIGTERM into `KeyboardInterrupt`, and remember that one came."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _handle)


def check_interrupt() -> None:
    """Stop now if that was asked for.

    Python drops an exception that a signal raises inside a destructor or a weak reference's callback, of which
    training has many; so the loop asks again after every step.

    Raises:
        KeyboardInterrupt: When a signal came.
    """
    if _requested.is_set():
        raise KeyboardInterrupt


def _handle(number: int, frame: FrameType | None) -> None:
    _requested.set()
    raise KeyboardInterrupt

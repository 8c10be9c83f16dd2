"""Locks whose files go when they are let go, and what processes that were killed left of them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from filelock import FileLock, Timeout

try:
    import fcntl
except ImportError:  # a system that has no such locks
    fcntl = None  # type: ignore[assignment]

QUESTION = 0.5
"""Seconds to wait for a lock that nobody should hold: whoever asks whether it is held holds it for a moment."""


@contextmanager
def locked(file: Path, seconds: float = -1) -> Iterator[None]:
    """Hold a lock while the block runs; its file is there for so long and no longer.

    Args:
        file: The file; its folder exists.
        seconds: How long another process is waited for; 0 for not at all, and -1 for ever.

    Raises:
        Timeout: When another process holds it.
    """
    with FileLock(file, timeout=seconds):
        try:
            yield
        finally:
            # Whoever waits for the file that is removed here finds that it has no name any more, and asks again.
            with suppress(OSError):
                file.unlink()


def is_held(file: Path) -> bool:
    """Whether a process of this machine, or of another one that shares the disk, holds a lock."""
    if not file.exists():
        return False
    try:
        with locked(file, 0):
            return False
    except Timeout:
        return True


def is_unused(file: BinaryIO) -> bool:
    """Whether no process has locked an open file, as a worker does with its log; not where that cannot be told."""
    if fcntl is None:
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def remove_unheld(folder: Path) -> None:
    """Remove the files of locks in a folder that nobody holds: processes that were killed left them there."""
    for file in folder.glob("*.lock"):
        with suppress(OSError):
            is_held(file)

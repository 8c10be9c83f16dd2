"""Whether another driver is still there: each holds a lock for as long as it lives, and no longer."""

from __future__ import annotations

import socket
import uuid
from pathlib import Path
from typing import Self

from filelock import FileLock, Timeout

__all__ = ["Liveness"]


class Liveness:
    """Says who this driver is, and of another one on this machine whether it is gone.

    The system lets go of a dead process's locks at once, so nobody has to wait for a heartbeat to fail.

    Args:
        output: Folder of all results.
    """

    def __init__(self, output: Path) -> None:
        folder = output.absolute() / ".work" / "drivers"
        folder.mkdir(parents=True, exist_ok=True)
        self._file = folder / f"{uuid.uuid4().hex}.lock"
        self._lock = FileLock(self._file, timeout=0)
        self.mark = f"{socket.gethostname()}:{self._file}"

    def __enter__(self) -> Self:
        """Be there."""
        self._lock.acquire()
        return self

    def __exit__(self, *error: object) -> None:
        """Be gone."""
        self._file.unlink(missing_ok=True)
        self._lock.release()

    def is_gone(self, mark: str) -> bool:
        """Whether the driver of a mark is known to be gone; of one on another machine this cannot be known."""
        host, _, file = mark.partition(":")
        if host != socket.gethostname():
            return False
        if not Path(file).exists():
            return True
        try:
            with FileLock(file, timeout=0):
                return True
        except Timeout:
            return False

"""Which feature sets are in use: locks that end with the process that holds them, however it ends."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Literal

try:
    import fcntl
except ImportError:  # a system that has no such locks
    fcntl = None  # type: ignore[assignment]

USED = "used"
"""The file in a feature set's folder that its users lock, and that dates from the last time that one began."""

# Where there are no locks, a set counts as in use for so many seconds after a process has opened it. What a process
# has open stays readable to it even when it is deleted.
_RECENT = 86_400.0

# To ask whether a set is in use is to lock it for a moment: another one's question is no use.
_TRIES, _PATIENCE = 3, 0.01


def hold(folder: Path) -> BinaryIO:
    """The lock that keeps others from deleting a feature set: an open file, as long as it lives and is not closed.

    The folder is made where it is not there; it is there from now on, whatever others delete.

    Raises:
        OSError: When the folder cannot be made or read.
    """
    while True:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except FileExistsError:  # deleted in the moment in which it was found to be there, or no folder
            if folder.exists() and not folder.is_dir():
                raise
            continue
        try:
            file = _open(folder / USED, "a+b")
        except FileNotFoundError:  # deleted since
            continue
        _lock(file, alone=False)
        if is_in_place(file, folder):
            with contextlib.suppress(OSError):  # in a cache that may only be read
                os.utime(folder / USED)
            return file
        file.close()


@contextmanager
def exclusive(folder: Path) -> Iterator[bool]:
    """Keep processes from a feature set while the block runs; those that want to open it wait.

    Yields:
        Whether it is this process's; false where another one uses the set, or the folder may not be written to.
    """
    try:
        file = (folder / USED).open("a+b")
    except OSError:
        yield False
        return
    with file:
        locked = _lock_alone(file)
        if locked is None:
            locked = _is_old(file)
            file.close()  # where there are no locks, a folder with an open file may be impossible to rename
        elif locked:  # the folder may be another one by now, which others use
            locked = is_in_place(file, folder)
        yield locked


def is_in_place(file: BinaryIO, folder: Path) -> bool:
    """Whether the open file that `hold` returned is still that of the folder."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), (folder / USED).stat())
    except FileNotFoundError:
        return False


def in_use(folder: Path) -> bool:
    """Whether a running process uses a feature set."""
    try:
        file = _open(folder / USED, "r+b")
    except OSError:
        return False
    with file:
        locked = _lock_alone(file)
        return not (_is_old(file) if locked is None else locked)


def last_used(folder: Path) -> float:
    """When a feature set was opened last, in seconds since 1970."""
    for path in (folder / USED, folder):
        with contextlib.suppress(OSError):
            return path.stat().st_mtime
    return 0.0


def _open(path: Path, mode: Literal["a+b", "r+b"]) -> BinaryIO:
    """Open the file to read and write, as locks over a network ask for; to read where the cache may only be read."""
    try:
        return path.open(mode)
    except FileNotFoundError:
        raise
    except OSError:
        return path.open("rb")


def _lock_alone(file: BinaryIO) -> bool | None:
    """Take an open file's exclusive lock if nobody has one; None where there are no locks."""
    for _ in range(_TRIES):
        locked = _lock(file, alone=True)
        if locked is not False:
            return locked
        time.sleep(_PATIENCE)
    return False


def _lock(file: BinaryIO, *, alone: bool) -> bool | None:
    """Lock an open file: alone if nobody else has it, or with others as soon as it can be had."""
    if fcntl is None:
        return None
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB if alone else fcntl.LOCK_SH)
    except (BlockingIOError, PermissionError):
        return False
    except OSError:  # a file system without locks
        return None
    return True


def _is_old(file: BinaryIO) -> bool:
    return time.time() - os.fstat(file.fileno()).st_mtime > _RECENT

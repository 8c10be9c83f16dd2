"""Writing files so that they are whole or absent."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from petlbench.errors import InputError

__all__ = ["check_writable", "write_atomically"]


@contextmanager
def write_atomically(file: Path) -> Iterator[Path]:
    """Give a temporary name to write to; it takes the file's place when the block ends well and goes when it fails.

    Args:
        file: The file to write; its folder exists.
    """
    temporary = file.with_name(f".{file.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        temporary.replace(file)
    finally:
        temporary.unlink(missing_ok=True)


def check_writable(folder: Path) -> None:
    """Check that files can be made in a folder, or that the folder can be made, without leaving anything.

    Args:
        folder: The folder; need not exist.

    Raises:
        InputError: When it cannot be written to.
    """
    existing = folder
    while not existing.exists() and existing != existing.parent:
        existing = existing.parent
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        raise InputError(
            f"the output folder {folder} cannot be written to ({existing} is {_why(existing)})",
            hint="give another one with --output",
            kind="not_writable",
        )


def _why(path: Path) -> str:
    return "a file" if path.is_file() else "read-only for this user"

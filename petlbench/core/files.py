"""Writing files so that they are whole or absent."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from glob import escape
from pathlib import Path
from typing import TYPE_CHECKING

from petlbench.core.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["check_writable", "existing_part", "write_atomically", "write_tensors"]

_ABANDONED = 600  # seconds since the last byte of a temporary file, which no writing pauses for


@contextmanager
def write_atomically(file: Path) -> Iterator[Path]:
    """Give a temporary name to write to; it takes the file's place when the block ends well and goes when it fails.

    What a process that was killed has left of writing the same file goes, too.

    Args:
        file: The file to write; its folder exists.
    """
    temporary = file.with_name(f".{file.name}.{os.getpid()}.tmp")
    _remove_abandoned(file)
    try:
        yield temporary
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        temporary.replace(file)
    finally:
        temporary.unlink(missing_ok=True)


def _remove_abandoned(file: Path) -> None:
    """Remove what killed processes left of this file; other machines may be writing it, so that its age decides."""
    for leftover in file.parent.glob(f".{escape(file.name)}.*.tmp"):
        with suppress(OSError):
            is_ours = re.fullmatch(r"\d+", leftover.name[len(file.name) + 2 : -len(".tmp")])
            if is_ours and time.time() - leftover.lstat().st_mtime > _ABANDONED:
                leftover.unlink()


def write_tensors(file: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write a safetensors file that others may read where they may read other files."""
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    # The library makes its files for their owner alone, whatever the user's mask says.
    file.touch()
    mode = file.stat().st_mode
    try:
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, file, metadata=dict(metadata))
    except SafetensorError as error:
        number = re.search(r"os error (\d+)", str(error))  # of a full disk, say: the library keeps it in its words
        if number is None:
            raise
        raise OSError(int(number[1]), os.strerror(int(number[1])), str(file)) from error
    file.chmod(mode)


def existing_part(folder: Path) -> Path:
    """The folder itself where it is there, or else the nearest of those above it that is."""
    return next(path for path in (folder, *folder.parents) if path.exists() or path == path.parent)


def check_writable(folder: Path, *, what: str = "output folder", option: str = "--output") -> None:
    """Check that files can be made in a folder, or that the folder can be made, without leaving anything.

    Args:
        folder: The folder; need not exist.
        what: What it is, for the message.
        option: Where another one is given.

    Raises:
        InputError: When it cannot be written to.
    """
    existing = existing_part(folder)
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        reason = "a file" if existing.is_file() else "read-only for this user"
        raise InputError(
            f"the {what} {folder} cannot be written to ({existing} is {reason})",
            hint=f"give another one with {option}",
            kind="not_writable",
        )

"""Writing files so that they are whole or absent."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from petlbench.core.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

_ABANDONED = 600  # seconds since the last byte of a temporary file, which no writing pauses for


@contextmanager
def write_atomically(file: Path) -> Iterator[Path]:
    """Give a temporary name to write to; it takes the file's place when the block ends well and goes when it fails.

    What a process that was killed has left of writing the same file goes, too.

    Args:
        file: The file to write; its folder exists.
    """
    for leftover in _temporaries(file.parent):
        is_of_file = leftover.name.startswith(f".{file.name}.") and leftover.name.count(".") == file.name.count(".") + 3
        if is_of_file and _is_abandoned(leftover):
            leftover.unlink(missing_ok=True)
    temporary = file.with_name(f".{file.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        temporary.replace(file)
    finally:
        temporary.unlink(missing_ok=True)


@cache
def _temporaries(folder: Path) -> tuple[Path, ...]:
    """The temporary files of killed processes, as this one found them when it first wrote there: once, not for each."""
    names = (path for path in folder.glob(".*.tmp") if re.fullmatch(r"\..+\.\d+\.tmp", path.name))
    return tuple(filter(_is_abandoned, names))


def _is_abandoned(temporary: Path) -> bool:
    """Whether nobody writes a file any more; another machine may, so that its age decides."""
    try:
        return time.time() - temporary.lstat().st_mtime > _ABANDONED
    except FileNotFoundError:
        return False


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

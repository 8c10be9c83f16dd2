"""The files below a folder, in an order that does not depend on the file system or the locale."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from petlbench.core.errors import InputError
from petlbench.data.images.decode import NOT_DATA

__all__ = ["files_below", "sorted_entries"]


def sorted_entries(folder: Path) -> list[os.DirEntry[str]]:
    """Return what lies in a folder, by name, without hidden entries and what systems leave beside data.

    Raises:
        InputError: When the folder cannot be read, or a name in it is not valid UTF-8.
    """
    try:
        with os.scandir(folder) as scan:
            entries = [entry for entry in scan if not entry.name.startswith(".") and entry.name not in NOT_DATA]
    except OSError as error:
        raise InputError(f"the folder {folder} cannot be read: {error.strerror}", kind="data_missing") from error
    for entry in entries:
        try:
            entry.name.encode("utf-8")
        except UnicodeEncodeError as error:
            raise InputError(
                f"the file name {entry.name!a} in {folder} is not valid UTF-8",
                hint="rename the file",
                kind="bad_file_name",
            ) from error
    return sorted(entries, key=lambda entry: entry.name)


def files_below(folder: Path, prefix: str = "", above: tuple[str, ...] = ()) -> Iterator[str]:
    """Yield the path of every file below a folder, in POSIX form.

    Links to folders are followed, except to one that we are in.

    Args:
        folder: The folder.
        prefix: What every path begins with, such as ``folder/``.
        above: The real paths of the folders that we are in.

    Raises:
        InputError: As for `sorted_entries`.
    """
    above = (*above, os.path.realpath(folder))
    for entry in sorted_entries(folder):
        if not entry.is_dir():
            yield prefix + entry.name
        elif os.path.realpath(entry.path) not in above:
            yield from files_below(Path(entry.path), f"{prefix}{entry.name}/", above)

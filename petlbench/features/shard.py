"""A shard of the feature cache: one file with the features of some images, and the checksum of all that it says."""

from __future__ import annotations

import contextlib
import json
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import cast

import numpy as np
import torch
from filelock import FileLock, Timeout
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from torch import Tensor

from petlbench.core.files import write_atomically, write_tensors

SUFFIX = ".safetensors"

IMAGE_OVERHEAD = 72
"""Bytes that an image takes beside its features: its digest in the header."""

SHARD_OVERHEAD = 5 * 1024
"""Bytes that a shard takes beside its images: the rest of the header, and what its last block on the disk leaves."""

_KEY = "shard"


class DamagedShardError(ValueError):
    """A shard that does not say what was written."""


def shards_in(folder: Path) -> list[Path]:
    """The whole shards of a feature set, in a fixed order; a pipe of such a name would never end, and is none."""
    return sorted(path for path in folder.glob(f"*{SUFFIX}") if not path.name.startswith(".") and path.is_file())


def write_shard(file: Path, images: Sequence[str], tensors: Mapping[str, Tensor]) -> None:
    """Write a shard: whole or not at all.

    Args:
        file: The file.
        images: Digests of the images' content, B of them.
        tensors: Their features by name, each (B, ...), on the CPU.

    Raises:
        OSError: When it cannot be written, as on a full disk.
        SafetensorError: The same, as the library says it.
    """
    with write_atomically(file) as temporary:
        write_tensors(temporary, tensors, {_KEY: _seal(images, tensors)})


def read_shard(file: Path) -> tuple[list[str], dict[str, Tensor]]:
    """Digests of a shard's images, and their features by name, each (B, ...), mapped into memory and checked.

    Raises:
        DamagedShardError: When it is not what was written.
        OSError: When it is not there or cannot be read.
    """
    try:
        with safe_open(file, framework="pt") as opened:
            sealed = opened.metadata()[_KEY]
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118  # it is no mapping
        names: list[str] = json.loads(sealed.partition(" ")[2])
        intact = sealed == _seal(names, tensors)
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise DamagedShardError(f"it cannot be read: {error}") from error
    if not intact:
        raise DamagedShardError("the checksum differs")
    return names, tensors


def images_of(file: Path) -> list[str]:
    """The digests of a shard's images, without reading the features; none of one that is damaged or gone."""
    try:
        with safe_open(file, framework="pt") as opened:
            return cast("list[str]", json.loads(opened.metadata()[_KEY].partition(" ")[2]))
    except (SafetensorError, ValueError, KeyError, TypeError, OSError):
        return []


def images_in(folder: Path) -> set[str]:
    """The digests of all images of a feature set, without reading the features."""
    return {name for shard in shards_in(folder) for name in images_of(shard)}


def row_bytes(tensor: Tensor) -> NDArray[np.uint8]:
    """The bytes of a tensor (B, ...), without copying them: (B, bytes)."""
    array: NDArray[np.uint8] = tensor.reshape(len(tensor), -1).view(torch.uint8).numpy()
    return array


def lock_of(shard: Path) -> Path:
    """The file that is locked while a shard is made."""
    return shard.with_suffix(".lock")


@contextlib.contextmanager
def only_writer(shard: Path) -> Iterator[bool]:
    """Be the only one that makes or takes away a shard while the block runs; yields whether nobody else is at it."""
    try:
        lock = FileLock(lock_of(shard), timeout=0).acquire()
    except Timeout:
        yield False
        return
    with lock:
        yield True


def being_written(shard: Path) -> bool:
    """Whether a running process makes a shard."""
    if not lock_of(shard).exists():
        return False
    with only_writer(shard) as alone:
        return not alone


def _seal(names: Sequence[str], tensors: Mapping[str, Tensor]) -> str:
    """The images that a shard holds, behind the checksum of them, of all rows, and of what these are.

    One text, because the library writes several in any order, and the same features would be other bytes.
    """
    listed = json.dumps(list(names))
    checksum = zlib.crc32(listed.encode())
    for name in sorted(tensors):
        form = f"{name} {tensors[name].dtype} {tuple(tensors[name].shape)}"
        checksum = zlib.crc32(form.encode(), checksum)
        checksum = zlib.crc32(row_bytes(tensors[name]).data, checksum)
    return f"{checksum:08x} {listed}"

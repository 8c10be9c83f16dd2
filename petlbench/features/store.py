"""The feature cache on disk: features of images, written once in shards, mapped into memory, shared by processes.

A shard is one safetensors file: for each tensor of a feature one array with a row an image. It is whole or absent, and
knows which images it holds and the checksum of every byte of them. Its name follows from its images alone, so that
processes that fill one store at a time, and those that come after one that was killed, make the same shards.
"""

from __future__ import annotations

import contextlib
import hashlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from torch import Tensor

from petlbench.core.errors import RunError
from petlbench.core.interrupt import check_interrupt
from petlbench.features.locks import Lease
from petlbench.features.shard import (
    IMAGE_OVERHEAD,
    SHARD_OVERHEAD,
    SUFFIX,
    DamagedShardError,
    images_of,
    lock_of,
    only_writer,
    read_shard,
    row_bytes,
    shards_in,
    write_shard,
)
from petlbench.models.method import TensorSpec

__all__ = ["FeatureStore"]

_PATIENCE = 0.2
# However small their features are: so many images are lost when a process is killed.
_MOST_IMAGES = 512

Extract = Callable[[Sequence[int]], Mapping[str, Tensor]]


class FeatureStore:
    """Features of one kind: of one backbone, one view, one precision.

    Args:
        folder: Where the shards lie; it is made when the first one is written.
        tensors: One image's tensors as they are stored, by name.
        shard_bytes: About how large a shard is.
        lease: Keeps others from deleting the store while it is open.
    """

    def __init__(
        self,
        folder: Path,
        tensors: Mapping[str, TensorSpec],
        shard_bytes: int = 64 * 2**20,
        lease: Lease | None = None,
    ) -> None:
        self.folder = folder
        self.tensors = dict(tensors)
        self.lease = lease
        self.bytes_an_image = sum(spec.bytes for spec in tensors.values())
        self.images_a_shard = min(max(1, shard_bytes // self.bytes_an_image), _MOST_IMAGES)
        # Plain bytes, a row an image: what lies in a file is no memory that tensors take.
        self._shards: list[dict[str, NDArray[np.uint8]]] = []
        self._places: dict[str, tuple[int, int]] = {}
        self._opened: set[Path] = set()

    def fill(
        self, images: Sequence[str], extract: Extract, on_images: Callable[[int], None] = lambda count: None
    ) -> None:
        """Make what is not there yet, together with other processes that do the same.

        Args:
            images: Digests of the images' content, in the order of the dataset.
            extract: Given positions in ``images``, returns the tensors of those images, each (B, ...).
            on_images: Told how many images are there already, and each time that another process has made some.

        Raises:
            RunError: When the disk is full; whole shards stay.
        """
        self._open_all()
        waiting = list(self._wanted(images))
        on_images(len(images) - sum(map(len, waiting)))
        while waiting:
            left = [shard for shard in waiting if not self._settle(shard, images, extract, on_images)]
            if len(left) == len(waiting):  # others are at work on all of them
                time.sleep(_PATIENCE)
                check_interrupt()
            waiting = left

    def rows(self, images: Sequence[str]) -> dict[str, Tensor]:
        """Read the features of some images.

        Args:
            images: Digests of their content, B of them.

        Returns:
            Tensors by name as they are stored, each (B, ...).

        Raises:
            KeyError: When an image is not in the store.
        """
        places = [self._places[image] for image in images]
        found = {}
        for name, spec in self.tensors.items():
            rows = torch.from_numpy(np.stack([self._shards[shard][name][row] for shard, row in places]))
            found[name] = rows.view(spec.dtype).view(len(places), *spec.shape)
        return found

    def missing_bytes(self, images: Sequence[str]) -> int:
        """Say how many bytes `fill` would write, at most; nothing is opened for that, and nothing written.

        Args:
            images: Digests of the images' content.
        """
        known = {name for file in shards_in(self.folder) for name in images_of(file)}
        return self.bytes_of(len(set(images) - known), spread_over=len(images))

    def bytes_of(self, missing: int, spread_over: int) -> int:
        """Size of some images on the disk in bytes, at most.

        Args:
            missing: How many images are to be written.
            spread_over: How many images the dataset has, of which they are some.
        """
        shards = min(missing, -(-spread_over // self.images_a_shard))
        return missing * (self.bytes_an_image + IMAGE_OVERHEAD) + shards * SHARD_OVERHEAD

    def __contains__(self, image: object) -> bool:
        """Whether the features of an image are there."""
        return image in self._places

    def _wanted(self, images: Sequence[str]) -> Iterator[list[int]]:
        """Cut the dataset into shards, and leave out what is known: the cuts stay where they were after an end."""
        seen: set[str] = set()
        for start in range(0, len(images), self.images_a_shard):
            missing = []
            for position in range(start, min(start + self.images_a_shard, len(images))):
                if images[position] not in seen and images[position] not in self._places:
                    missing.append(position)
                seen.add(images[position])
            if missing:
                yield missing

    def _settle(
        self, positions: Sequence[int], images: Sequence[str], extract: Extract, on_images: Callable[[int], None]
    ) -> bool:
        """Open a shard or make it; whether it is there now."""
        names = [images[position] for position in positions]
        file = self.folder / (hashlib.sha256("".join(names).encode()).hexdigest()[:20] + SUFFIX)
        self.folder.mkdir(parents=True, exist_ok=True)
        with only_writer(file) as alone:
            if not alone:
                return False
            if self._open(file):
                on_images(len(names))
            else:
                self._write(file, names, extract(positions))
                self._open(file)
        # Whoever waits for the lock finds the shard, so the lock's file has done its work.
        with contextlib.suppress(OSError):
            lock_of(file).unlink()
        return True

    def _write(self, file: Path, names: Sequence[str], features: Mapping[str, Tensor]) -> None:
        tensors = {name: features[name].to("cpu", spec.dtype).contiguous() for name, spec in self.tensors.items()}
        try:
            write_shard(file, names, tensors)
        except (OSError, SafetensorError) as error:
            raise RunError(
                f"a shard of the feature cache could not be written: {file}: {error}",
                hint="make room, name another folder with --cache-dir, or use --no-preload; what is there stays valid",
                kind="cache_not_written",
            ) from error

    def _open_all(self) -> None:
        for file in shards_in(self.folder):
            self._open(file)

    def _open(self, file: Path) -> bool:
        """Map a shard into memory; one that is damaged is taken away, to be made again."""
        if file in self._opened:
            return True
        try:
            names, tensors = read_shard(file)
            self._check(names, tensors)
        except FileNotFoundError:
            return False
        except DamagedShardError:
            file.unlink(missing_ok=True)
            return False
        self._places |= {name: (len(self._shards), row) for row, name in enumerate(names)}
        self._shards.append({name: row_bytes(tensor) for name, tensor in tensors.items()})
        self._opened.add(file)
        return True

    def _check(self, names: Sequence[str], tensors: Mapping[str, Tensor]) -> None:
        for name, spec in self.tensors.items():
            tensor = tensors.get(name)
            if tensor is None or tensor.dtype != spec.dtype or tensor.shape != (len(names), *spec.shape):
                raise DamagedShardError(f"{name} has another form")

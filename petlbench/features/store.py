"""The feature cache on disk: features of images, written once in shards, mapped into memory, shared by processes.

A shard is one safetensors file: for each tensor of a feature one array with a row an image. It is whole or absent, and
knows which images it holds and the checksum of every byte of them. Its name follows from its images alone, so that
processes that fill one store at a time, and those that come after one that was killed, make the same shards. There is
one store for each kind of features, its folder named after all that determines them.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Self

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from torch import Tensor

from petlbench.core.errors import InputError, RunError
from petlbench.core.files import write_atomically
from petlbench.core.interrupt import check_interrupt
from petlbench.core.user_files import read_json, stamp
from petlbench.features.locks import hold, is_in_place
from petlbench.features.quantization import CachePrecision, stored_tensors
from petlbench.features.shard import (
    IMAGE_OVERHEAD,
    SHARD_OVERHEAD,
    SUFFIX,
    DamagedShardError,
    images_in,
    lock_of,
    only_writer,
    read_shard,
    row_bytes,
    shards_in,
    write_shard,
)
from petlbench.models.method import FeatureSpec, TensorSpec

ABOUT = "about.json"
"""What a folder's features are determined by, for people and for ``petlbench cache``."""

# Raised when the same key comes to mean other features.
_VERSION = 2
_KEY_LENGTH = 20
# What is not known before weights are read.
_UNKNOWN_ON_META = "weights"
_PATIENCE = 0.2
# However small their features are: so many images are lost when a process is killed.
_MOST_IMAGES = 512
# Of all features of one kind: below, they are put together in memory.
_IN_MEMORY = 64 * 2**20

Extract = Callable[[Sequence[int]], Mapping[str, Tensor]]


class FeatureStore:
    """Features of one kind: of one backbone, one view, one precision.

    Nothing is read or written before it is filled, and nobody kept from deleting it before it is opened.

    Args:
        folder: Where the shards lie; it is made when the first one is written.
        tensors: One image's tensors as they are stored, by name.
        shard_bytes: About how large a shard is.
        about: What determines the features, as plain values.
    """

    def __init__(
        self,
        folder: Path,
        tensors: Mapping[str, TensorSpec],
        shard_bytes: int = 64 * 2**20,
        about: Mapping[str, Any] | None = None,
    ) -> None:
        self.folder = folder
        self.tensors = dict(tensors)
        self.about = about or {}
        self.lock: BinaryIO | None = None
        self.bytes_an_image = sum(spec.bytes for spec in tensors.values())
        self.images_a_shard = min(max(1, shard_bytes // self.bytes_an_image), _MOST_IMAGES)
        # Plain bytes, a row an image: what lies in a file is no memory that tensors take.
        self._shards: list[dict[str, NDArray[np.uint8]]] = []
        self._places: dict[str, tuple[int, int]] = {}
        self._opened: dict[Path, tuple[int, int]] = {}

    def open(self) -> Self:
        """This store, in use from now on as long as it lives, its folder saying what it holds.

        Raises:
            OSError: When the folder cannot be made.
        """
        self.lock = hold(self.folder)
        if not (self.folder / ABOUT).exists():
            with write_atomically(self.folder / ABOUT) as temporary:
                temporary.write_text(json.dumps(self.about, sort_keys=True, indent=1), encoding="utf-8")
        return self

    def alike(self) -> tuple[Path | None, int]:
        """The fullest store that differs in its weights at most, and how many images it has.

        It is most likely the one that is meant where the weights were not read.
        """
        folders = (file.parent for file in self.folder.parent.glob(f"*/{ABOUT}"))
        about = _without_weights(self.about)
        stores = [(path, len(images_in(path))) for path in folders if _without_weights(read_about(path)) == about]
        return max([(None, 0), *stores], key=lambda store: store[1])

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
        for file in shards_in(self.folder):
            self._open(file)
        shards = list(self._missing(images))
        on_images(len(images) - sum(map(len, shards)))
        while shards:
            busy = [shard for shard in shards if not self._settle(shard, images, extract, on_images)]
            if len(busy) == len(shards):  # others are at work on all of them
                time.sleep(_PATIENCE)
                check_interrupt()
            shards = busy
        self._unite()

    def rows(self, images: Sequence[str]) -> dict[str, Tensor]:
        """The features of images, named by their digests, as they are stored: tensors by name, each (B, ...).

        Raises:
            KeyError: When an image is not in the store.
        """
        places = [self._places[image] for image in images]
        features = {}
        for name, spec in self.tensors.items():
            rows = torch.from_numpy(self._gather(name, places))
            features[name] = rows.view(spec.dtype).view(len(places), *spec.shape)
        return features

    def _gather(self, name: str, places: Sequence[tuple[int, int]]) -> NDArray[np.uint8]:
        """The bytes of a tensor of some images, (B, bytes)."""
        if len(self._shards) == 1:
            rows: NDArray[np.uint8] = self._shards[0][name][[row for _, row in places]]
            return rows
        return np.stack([self._shards[shard][name][row] for shard, row in places])

    def _unite(self) -> None:
        """Make one shard in memory of small ones, from which a batch is taken in one go."""
        if len(self._shards) < 2 or len(self._places) * self.bytes_an_image > _IN_MEMORY:
            return
        starts = np.cumsum([0, *(len(next(iter(shard.values()))) for shard in self._shards)])
        self._shards = [{name: np.concatenate([shard[name] for shard in self._shards]) for name in self.tensors}]
        self._places = {image: (0, int(starts[shard]) + row) for image, (shard, row) in self._places.items()}

    def missing_bytes(self, images: Sequence[str]) -> int:
        """Bytes that `fill` would write, at most; nothing is opened for that, and nothing written."""
        return self.bytes_of(len(set(images) - images_in(self.folder)), spread_over=len(images))

    def bytes_of(self, missing: int, spread_over: int) -> int:
        """Bytes, at most, that so many images take on the disk that are some of so many in the dataset."""
        shards = min(missing, -(-spread_over // self.images_a_shard))
        return missing * (self.bytes_an_image + IMAGE_OVERHEAD) + shards * SHARD_OVERHEAD

    def is_as_opened(self) -> bool:
        """Whether every shard that was opened, and what keeps others from deleting them, is on the disk as it was."""
        try:
            is_held = self.lock is not None and is_in_place(self.lock, self.folder)
            return is_held and all(stamp(file) == before for file, before in self._opened.items())
        except OSError:
            return False

    def __contains__(self, image: object) -> bool:
        """Whether the features of an image are there."""
        return image in self._places

    def _missing(self, images: Sequence[str]) -> Iterator[list[int]]:
        """Positions of the images that are missing, shard by shard: the cuts stay where they were after an end."""
        first = {image: position for position, image in reversed(list(enumerate(images)))}
        for start in range(0, len(images), self.images_a_shard):
            shard = enumerate(images[start : start + self.images_a_shard], start)
            missing = [position for position, image in shard if first[image] == position and image not in self._places]
            if missing:
                yield missing

    def _settle(
        self, positions: Sequence[int], images: Sequence[str], extract: Extract, on_images: Callable[[int], None]
    ) -> bool:
        """Whether a shard is there now: opened, or made."""
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
                hint="free disk space, name another --cache-dir, or use --no-preload; what is there stays valid",
                kind="cache_not_written",
            ) from error

    def _open(self, file: Path) -> bool:
        """Map a shard into memory; one that is damaged is taken away, to be made again."""
        if file in self._opened:
            return True
        try:
            before = stamp(file)
            names, tensors = read_shard(file)
            self._check(names, tensors)
        except FileNotFoundError:
            return False
        except DamagedShardError:
            file.unlink(missing_ok=True)
            return False
        self._places |= {name: (len(self._shards), row) for row, name in enumerate(names)}
        self._shards.append({name: row_bytes(tensor) for name, tensor in tensors.items()})
        self._opened[file] = before
        return True

    def _check(self, names: Sequence[str], tensors: Mapping[str, Tensor]) -> None:
        for name, spec in self.tensors.items():
            tensor = tensors.get(name)
            if tensor is None or tensor.dtype != spec.dtype or tensor.shape != (len(names), *spec.shape):
                raise DamagedShardError(f"{name} has another form")


def plan_store(
    cache_dir: Path, spec: FeatureSpec, precision: CachePrecision, determined_by: Mapping[str, Any]
) -> FeatureStore:
    """The store of one kind of features, not opened.

    Args:
        cache_dir: Folder of the whole cache.
        spec: The features.
        precision: The form in which they are stored.
        determined_by: What decides the numbers beside the images' content: backbone, weights, view, precision.
    """
    determined_by = {**determined_by, "features": dict(spec.key), "cache_precision": precision}
    return plan_tensors(cache_dir, stored_tensors(spec, precision), determined_by)


def plan_tensors(cache_dir: Path, tensors: Mapping[str, TensorSpec], determined_by: Mapping[str, Any]) -> FeatureStore:
    """The store of tensors of any kind, not opened.

    Args:
        cache_dir: Folder of the whole cache.
        tensors: One image's tensors as they are stored, by name.
        determined_by: What decides the numbers beside the images' content.
    """
    text = json.dumps({"version": _VERSION, **determined_by}, sort_keys=True, indent=1)
    key = hashlib.sha256(text.encode()).hexdigest()[:_KEY_LENGTH]
    return FeatureStore(features_folder(cache_dir) / key, tensors, about=json.loads(text))


def features_folder(cache_dir: Path) -> Path:
    """The folder of all feature sets in the folder of a cache."""
    return cache_dir / "features"


def read_about(folder: Path) -> dict[str, Any]:
    """What a feature set says of itself; nothing where its file is missing or damaged."""
    try:
        return read_json(folder / ABOUT)
    except InputError:
        return {}


def _without_weights(about: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in about.items() if name != _UNKNOWN_ON_META}

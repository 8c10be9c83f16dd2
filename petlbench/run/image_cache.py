"""``--cache-images``: where a run keeps its decoded and resized images, none of which changes a number."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from petlbench.core.bounded_cache import BoundedCache
from petlbench.core.environment import free_memory, package_versions
from petlbench.core.errors import RunError
from petlbench.core.files import check_writable
from petlbench.core.progress import Progress
from petlbench.data.dataset import Dataset
from petlbench.data.loader import ImageStore, KeptImages
from petlbench.data.record import Record, Split
from petlbench.data.views import RGB, Form, View
from petlbench.features.maintenance import CacheConfig, Purpose, check_quota, enforce_quota
from petlbench.features.store import FeatureStore, plan_tensors
from petlbench.models.method import TensorSpec

ImageCache = Literal["ram", "disk", "none"]

# The rest is for the training itself, and for other processes.
_SHARE_OF_FREE_MEMORY = 4

_INSTEAD = "use --cache-images ram or none"
_PURPOSE = Purpose("keeping the resized images", _INSTEAD)

OpenStore = Callable[[FeatureStore], FeatureStore]


def memory_bound(held: int = 0) -> int:
    """Most bytes of images that a run keeps in memory: a quarter of what is free when it begins.

    Args:
        held: Bytes of them that are in memory already.
    """
    return (free_memory() + held) // _SHARE_OF_FREE_MEMORY


def open_images(
    kind: ImageCache,
    dataset: Dataset,
    views: Mapping[Split, Mapping[str, View]],
    cache: CacheConfig,
    *,
    kept: KeptImages | None = None,
    at_first: Iterable[View] = (),
    open_store: OpenStore = FeatureStore.open,
) -> ImageStore:
    """Say what is kept of a dataset's images; nothing is written.

    Args:
        kind: Where they are kept.
        dataset: The dataset.
        views: The views that each split will be read in, by name.
        cache: The cache on the disk.
        kept: What is kept in memory; what this run alone keeps where it is None.
        at_first: Views that are made, too, of an image that was never read before.
        open_store: Opens what is on the disk.

    Raises:
        InputError: When the folder on the disk cannot be made.
    """
    if kind == "none":
        return ImageStore(dataset, kept=KeptImages(digests=kept.digests) if kept is not None else None)
    # On the way to the disk, too: so far as there is room, an image that was read to be checked is not read again.
    kept = kept or KeptImages(BoundedCache(memory_bound()))
    if kind == "ram":
        return ImageStore(dataset, views, kept=kept, at_first=at_first)
    kinds = {_forms(each) for each in views.values() if each} | {frozenset((view.form,)) for view in at_first}
    caches = {forms: DiskCache(_plan(cache, forms), open_store) for forms in kinds}
    if not all(disk.plan.folder.is_dir() for disk in caches.values()):
        check_writable(cache.folder, what="folder of the image cache", option=f"--cache-dir, or {_INSTEAD}")
    return ImageStore(dataset, views, kept=kept, caches=caches, at_first=at_first)


class DiskCache:
    """Resized images in the feature cache: in shards, mapped into memory, shared by runs and processes.

    Args:
        plan: Where they lie; opened at once if it is there, and else when it is filled.
        open_store: Opens it.
    """

    def __init__(self, plan: FeatureStore, open_store: OpenStore = FeatureStore.open) -> None:
        self.plan = plan
        self._open_store = open_store
        self._store: FeatureStore | None = None
        if plan.folder.is_dir():
            self.open()

    def __contains__(self, digest: object) -> bool:
        """Whether an image is there."""
        return self._store is not None and digest in self._store

    def find(self, digest: str) -> dict[Form, RGB]:
        """Return an image that is there, in every form, each (side, side, 3)."""
        return {_form(name): rows[0].numpy() for name, rows in self.open().rows([digest]).items()}

    def open(self) -> FeatureStore:
        """The store, made where it is not there."""
        if self._store is None:
            self._store = self._open_store(self.plan)
            # To fill it with nothing is to look at all that it holds.
            self._store.fill((), lambda positions: {})
        return self._store


@dataclass(frozen=True)
class _Part:
    """The images of a dataset that belong in one cache on the disk."""

    disk: DiskCache
    views: Mapping[str, View]
    records: tuple[Record, ...]
    digests: tuple[str, ...]

    def missing_bytes(self) -> int:
        return self.disk.plan.missing_bytes(self.digests)

    def fill(self, images: ImageStore, workers: int, progress: Progress) -> None:
        """Keep the images that are not there yet; told is the number of images as they come."""

        def pixels(position: int) -> Mapping[Form, RGB]:
            forms = images.stored(self.records[position], self.views.values())
            progress.advance()
            return forms

        def extract(positions: Sequence[int]) -> dict[str, Tensor]:
            with ThreadPoolExecutor(max(1, workers)) as pool:
                rows = list(pool.map(pixels, positions))
            return {_name(form): torch.from_numpy(np.stack([row[form] for row in rows])) for form in rows[0]}

        try:
            self.disk.open().fill(self.digests, extract, progress.advance)
        except RunError as error:
            hint = f"make room, name another folder with --cache-dir, or {_INSTEAD}; what is there stays valid"
            raise RunError(error.message, hint=hint, kind=error.kind) from error


def check_disk(images: ImageStore, indices: Mapping[Split, Sequence[int]], cache: CacheConfig) -> None:
    """Check that the images that are still missing on the disk fit there; nothing is written.

    Raises:
        InputError: When they do not fit.
    """
    parts = _parts(images, indices)
    if parts:
        check_quota(cache, parts[0].disk.plan.folder, sum(part.missing_bytes() for part in parts), _PURPOSE)


def fill_disk(
    images: ImageStore,
    indices: Mapping[Split, Sequence[int]],
    cache: CacheConfig,
    workers: int,
    progress: Progress,
) -> None:
    """Keep the run's images on the disk, where it wants that, and no longer in memory.

    Raises:
        RunError: When the disk is full; what is there stays valid.
    """
    parts = _parts(images, indices)
    if not parts:
        return
    enforce_quota(cache, sum(part.missing_bytes() for part in parts))
    progress.phase("storing images", sum(len(part.records) for part in parts))
    for part in parts:
        part.fill(images, workers, progress)
        images.forget(part.records, part.views.values())


def _parts(images: ImageStore, indices: Mapping[Split, Sequence[int]]) -> list[_Part]:
    parts = []
    for forms, disk in images.caches.items():
        if isinstance(disk, DiskCache):
            views = {split: each for split, each in images.views.items() if _forms(each) == forms}
            if not views:  # what is looked up alone
                continue
            positions = sorted(position for split in views for position in indices[split])
            records = tuple(images.dataset.records[position] for position in positions)
            digests = tuple(images.digests(records))
            parts.append(_Part(disk, next(iter(views.values())), records, digests))
    return parts


def _plan(cache: CacheConfig, forms: frozenset[Form]) -> FeatureStore:
    names = sorted(map(_name, forms))
    determined_by = {
        "features": {"feature": "resized images", "forms": " and ".join(names)},
        "image_size": max(side for side, _ in forms),
        "cache_precision": "uint8",
        # Decodes and resizes; another version may round otherwise.
        **{name: package_versions()[name] for name in ("pillow", "torch")},
    }
    tensors = {_name((side, name)): TensorSpec((side, side, 3), torch.uint8) for side, name in forms}
    return plan_tensors(cache.folder, tensors, determined_by)


def _forms(views: Mapping[str, View]) -> frozenset[Form]:
    return frozenset(view.form for view in views.values())


def _name(form: Form) -> str:
    """What a form is called in a store, such as ``586 bicubic``."""
    side, resampling = form
    return f"{side} {resampling}"


def _form(name: str) -> Form:
    side, _, resampling = name.partition(" ")
    return int(side), resampling

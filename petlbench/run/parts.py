"""What a run is made of: made anew for a run that is alone, and kept where a process carries out many.

A run never sees what an earlier one has changed: each has its own copy of the backbone, and images are read-only. What
was made from files is made again once one of them is not as it was.
"""

from __future__ import annotations

import json
import os
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any, TypeVar, cast

import torch

from petlbench.core.bounded_cache import BoundedCache
from petlbench.core.catalog import Catalog
from petlbench.core.config import RunConfig
from petlbench.core.environment import free_memory
from petlbench.core.user_files import Opened, recorded, stamp
from petlbench.data.dataset import Dataset, DatasetInfo, describe_dataset, existing_path, find_card
from petlbench.data.loader import ImageMemory, ImageStore, KeptImages
from petlbench.data.views import View
from petlbench.features.maintenance import CacheConfig
from petlbench.features.store import FeatureStore
from petlbench.models.backbone import Backbone
from petlbench.models.build import load_backbone
from petlbench.models.registry import find_backbone_card
from petlbench.run.copies import Original
from petlbench.run.image_cache import ImageCache, memory_bound, open_images
from petlbench.run.resolve import ResolvedRun

# Runs of a study come dataset by dataset; records of a million images take half a gigabyte.
_DATASETS = 2
# Splits of one dataset: where images are many, one takes half as much as their records.
_SPLITS = 2
# What is open is kept from deletion, so that only what is used over and over is kept open.
_STORES = 4
_SHARE_OF_FREE_MEMORY = 8
_CPU = torch.device("cpu")

T = TypeVar("T")


class Parts:
    """Makes what a run is made of, and keeps nothing of it."""

    def catalog(self, folders: tuple[Path, ...]) -> Catalog:
        """Return the shipped catalogues and a user's own in some folders."""
        return Catalog(folders)

    def describe_dataset(
        self, reference: str, *, catalog: Catalog, data_root: Path, settings: Mapping[str, Any]
    ) -> DatasetInfo:
        """Return what `petlbench.data.dataset.describe_dataset` does, and raise what it raises."""
        return describe_dataset(reference, catalog=catalog, data_root=data_root, settings=settings)

    def open_images(self, kind: ImageCache, dataset: Dataset, run: ResolvedRun, cache: CacheConfig) -> ImageStore:
        """Return a run's images, as `petlbench.run.image_cache.open_images` does."""
        return open_images(kind, dataset, run.views_by_split, cache)

    def images_to_preload(self, images: ImageStore) -> ImageStore:
        """Return a run's images as features are computed from them: each is read once, so nothing of it is kept."""
        return ImageStore(images.dataset)

    def split(self, dataset: Dataset, choice: str, make: Callable[[], T]) -> T:
        """Return a dataset's images split, once they were read, as the runs of one choice have in common."""
        return make()

    def backbone(self, config: RunConfig, device: torch.device, catalog: Catalog | None = None) -> tuple[Backbone, str]:
        """Return what `petlbench.models.build.load_backbone` does, and raise what it raises."""
        return load_backbone(config, device, catalog)

    def open_store(self, store: FeatureStore, cache: CacheConfig) -> FeatureStore:
        """Return a store of features opened."""
        return store.open()


class KeptParts(Parts):
    """Keeps them for the next runs of this process, one run at a time."""

    def __init__(self) -> None:
        self._catalog = Catalog()
        self._memory: ImageMemory = BoundedCache()
        self._datasets: OrderedDict[str, _KeptDataset] = OrderedDict()
        self._backbones: BoundedCache[str, _KeptBackbone] = BoundedCache()
        self._stores: OrderedDict[Path, FeatureStore] = OrderedDict()

    def begin_run(self) -> None:
        """Take new measure of the memory that is free: what earlier runs used makes room from now on."""
        self._memory.begin_run(memory_bound(self._memory.held))
        self._backbones.begin_run((free_memory() + self._backbones.held) // _SHARE_OF_FREE_MEMORY)

    def catalog(self, folders: tuple[Path, ...]) -> Catalog:
        """Return the catalogues, read again only where something in them has changed."""
        catalog = Catalog(folders)
        if self._catalog.folders != catalog.folders or not self._catalog.is_as_read():
            self._catalog = catalog
        return self._catalog

    def describe_dataset(
        self, reference: str, *, catalog: Catalog, data_root: Path, settings: Mapping[str, Any]
    ) -> DatasetInfo:
        """Return what is known of a dataset, opened again only where files have changed."""
        name, card = find_card(reference, catalog=catalog)
        text = card.model_dump_json() if card is not None else ""
        key = json.dumps([reference, dict(settings), str(data_root), [*map(str, catalog.folders)], text], default=str)
        kept = self._datasets.pop(key, None)
        if kept is None or not _is_as_before(kept.files):
            path = existing_path(reference) if card is None else data_root / name
            before = _stamps(_walk(path)) if path is not None and path.is_dir() else {}
            with recorded() as opened:
                info = super().describe_dataset(reference, catalog=catalog, data_root=data_root, settings=settings)
            files = {**_stamps(_files_of(info.dataset)), **opened, **before}
            kept = _KeptDataset(info, files, KeptImages(self._memory))
        if kept.info.dataset is None:  # they may come
            return kept.info
        self._datasets[key] = kept
        while len(self._datasets) > _DATASETS:
            self._datasets.popitem(last=False)
        return kept.info

    def open_images(self, kind: ImageCache, dataset: Dataset, run: ResolvedRun, cache: CacheConfig) -> ImageStore:
        """Return a run's images; what earlier runs have made of them is there.

        An image that is decoded for the first time is made into what will be preloaded from it, too.
        """
        kept = self._kept(dataset)
        name = run.preloaded_view
        at_first: Iterable[View] = () if name is None else (run.views[name].without_augmentation(),)
        return open_images(
            kind,
            dataset,
            run.views_by_split,
            cache,
            kept=kept.images if kept is not None else KeptImages(self._memory),
            at_first=at_first,
            open_store=lambda store: self.open_store(store, cache),
        )

    def images_to_preload(self, images: ImageStore) -> ImageStore:
        """Return a run's images: those of other runs may be among them, and these are for others."""
        return images

    def split(self, dataset: Dataset, choice: str, make: Callable[[], T]) -> T:
        """Return a dataset's images split, made again where it was opened again."""
        kept = self._kept(dataset)
        if kept is None:
            return make()
        split = kept.splits.pop(choice, None) or make()
        kept.splits[choice] = split
        while len(kept.splits) > _SPLITS:
            kept.splits.popitem(last=False)
        return cast("T", split)

    def _kept(self, dataset: Dataset) -> _KeptDataset | None:
        return next((each for each in self._datasets.values() if each.info.dataset is dataset), None)

    def backbone(self, config: RunConfig, device: torch.device, catalog: Catalog | None = None) -> tuple[Backbone, str]:
        """Return a copy of the backbone with its weights, which are read again only where files have changed."""
        if device.type == "meta":
            return super().backbone(config, device, catalog)
        card = find_backbone_card(config.backbone, catalog)
        text = card.model_dump_json() if card is not None else ""
        key = json.dumps([config.backbone, config.image_size, config.weights, config.training.drop_path, text])
        kept = self._backbones.find(key)
        if kept is None or not _is_as_before(kept.files):
            self._backbones.drop(lambda other: other == key)
            with recorded() as opened:
                backbone, digest = super().backbone(config, _CPU, catalog)
            kept = _KeptBackbone(backbone, Original(backbone.module), digest, opened)
            self._backbones.keep(key, kept, kept.size)
        module = kept.original.copy().to(device)
        return Backbone(kept.backbone.info, module, kept.backbone.weights), kept.digest

    def open_store(self, store: FeatureStore, cache: CacheConfig) -> FeatureStore:
        """Return a store opened; where the cache is bounded it is free to be deleted once the run is over."""
        if cache.most is not None:
            return store.open()
        kept = self._stores.pop(store.folder, None)
        if kept is None or not kept.is_as_opened():
            kept = store.open()
        self._stores[store.folder] = kept
        while len(self._stores) > _STORES:
            self._stores.popitem(last=False)
        return kept


@dataclass(frozen=True)
class _KeptDataset:
    info: DatasetInfo
    files: Opened
    images: KeptImages
    splits: OrderedDict[str, Any] = field(default_factory=OrderedDict)


@dataclass(frozen=True)
class _KeptBackbone:
    """A backbone that no run touches: each has a copy."""

    backbone: Backbone
    original: Original
    digest: str
    files: Opened

    @property
    def size(self) -> int:
        module = self.backbone.module
        return sum(tensor.nbytes for tensor in chain(module.parameters(), module.buffers()))


def _files_of(dataset: Dataset | None) -> Iterator[str]:
    """The files of a dataset's images, and the folders that they lie in."""
    files = [file for record in dataset.records if (file := dataset.file(record))] if dataset is not None else []
    yield from map(str, files)
    yield from map(str, {file.parent for file in files})


def _walk(folder: Path) -> Iterator[str]:
    """A folder and everything below it."""
    yield str(folder)
    for base, folders, files in os.walk(folder):
        for name in (*folders, *files):
            yield os.path.join(base, name)


def _stamps(paths: Iterable[str]) -> Opened:
    stamps = {}
    for path in paths:
        with suppress(OSError):  # whoever reads it says what is wrong with it
            stamps[os.path.abspath(path)] = stamp(path)
    return stamps


def _is_as_before(files: Opened) -> bool:
    try:
        return all(stamp(file) == before for file, before in files.items())
    except OSError:
        return False

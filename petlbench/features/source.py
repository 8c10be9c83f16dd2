"""Where a method's frozen features come from: computed live in every step, or once per image and kept."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from typing import Protocol

import torch
from torch import Tensor

from petlbench.core.environment import keep_freed_memory
from petlbench.data.loader import Batch, made_ahead
from petlbench.features.by_head import fast_attention
from petlbench.features.frozen import shared_tensors
from petlbench.features.products import PackedWeights, fast_linear
from petlbench.features.quantization import CachePrecision, StoredFeatures, compact
from petlbench.features.store import FeatureStore
from petlbench.models.backbone import Backbone
from petlbench.models.info import BackboneInfo
from petlbench.models.method import FrozenFeatures, Inputs
from petlbench.models.precision import autocast

_LARGEST_BATCH = 16
# Numbers in one layer's tokens: on a CPU, more images at a time than fill its caches take longer, each of them.
_CPU_NUMBERS = 2**20


def extraction_batch(backbone: BackboneInfo, device: str) -> int:
    """How many images go through the backbone at once when features are preloaded.

    It depends on backbone and device alone: the last bits of a feature can depend on what else is in its batch, and
    runs share what they extract.
    """
    if device != "cpu":
        return _LARGEST_BATCH
    return min(max(1, _CPU_NUMBERS // (backbone.tokens * backbone.width)), _LARGEST_BATCH)


class FeatureSource(Protocol):
    """Turns a batch of views into what the module takes; one for the whole run."""

    @property
    def spared_view(self) -> str | None:
        """The view that need not be made, because what the backbone says of it is known."""
        ...

    @property
    def beside(self) -> Sequence[object]:
        """Modules and tensors that lie on the device beside the module that is trained, from the first batch on."""
        ...

    def __call__(self, batch: Batch) -> Inputs:
        """A batch with its frozen features, all on the device, without the view that only they need."""
        ...


class NoFeatures:
    """For methods whose module reads images alone."""

    spared_view = None
    beside = ()

    def __call__(self, batch: Batch) -> Inputs:
        """The views alone."""
        return Inputs(batch.views)


class LiveFeatures:
    """Runs the frozen backbone on every batch.

    Args:
        backbone: The frozen backbone, on the device.
        frozen: What the method takes from it.
        precision: Of the backbone's products: ``fp32``, ``bf16`` or ``fp16``.
    """

    spared_view = None

    def __init__(self, backbone: Backbone, frozen: FrozenFeatures, precision: str) -> None:
        self.backbone = backbone
        self.frozen = frozen
        self.precision = precision
        self.spec = frozen.spec(backbone.info)
        self._packed: PackedWeights | None = None
        backbone.module.eval().requires_grad_(False)
        self.beside = (backbone.module,)

    def __call__(self, batch: Batch) -> Inputs:
        """A batch with its features, without the view that they come from."""
        return Inputs({name: view for name, view in batch.views.items() if name != self.spec.view}, self.extract(batch))

    def extract(self, batch: Batch) -> dict[str, Tensor]:
        """The features of a batch on the device, each (B, ...)."""
        device = self.backbone.device
        products = fast_linear(device, self.precision, self._packed)
        with torch.no_grad(), autocast(device, self.precision), products, fast_attention(device):
            features = self.frozen.extract(self.backbone, batch.views[self.spec.view])
        return {name: value.to(self.spec.tensors[name].dtype) for name, value in features.items()}

    @contextmanager
    def at_length(self) -> Iterator[None]:
        """While entered, memory is taken for what many images in a row are extracted faster by."""
        if self.backbone.device.type == "cpu":
            keep_freed_memory()
        self._packed = {}
        try:
            yield
        finally:
            self._packed = None


class CachedFeatures:
    """Features that the backbone computed once, from the feature cache.

    Args:
        live: Computes what is missing.
        store: Holds the features, in the form that `stored_tensors` names.
        images: Digest of each image's content, by its position in the dataset.
        precision: The form in which features are stored.
        device: Where batches go.
    """

    def __init__(
        self,
        live: LiveFeatures,
        store: FeatureStore,
        images: Sequence[str],
        precision: CachePrecision,
        device: torch.device,
    ) -> None:
        self.live = live
        self.store = store
        self.images = images
        self.precision = precision
        self.device = device
        self.spared_view: str | None = live.spec.view

    def fill(
        self, load: Callable[[Sequence[int]], Iterable[Batch]], on_images: Callable[[int], None] = lambda count: None
    ) -> None:
        """Compute what is missing from batches of images by position; the callback is told of their number."""

        def extract(positions: Sequence[int]) -> dict[str, Tensor]:
            parts = []
            for batch in load(positions):
                stored = compact(self.live.extract(batch.to(self.device)), self.precision)
                on_images(len(batch.index))
                parts.append({name: value.cpu() for name, value in stored.items()})
            return {name: torch.cat([part[name] for part in parts]) for name in self.store.tensors}

        with self.live.at_length():
            self.store.fill(self.images, extract, on_images)

    def fetch(self, batch: Batch) -> Batch:
        """A batch with its features as they are stored, in memory from which a copy to CUDA need not be waited for."""
        return replace(batch, features={name: rows.pin_memory() for name, rows in self._rows(batch).items()})

    def _rows(self, batch: Batch) -> dict[str, Tensor]:
        return self.store.rows([self.images[position] for position in batch.index.tolist()])

    def __call__(self, batch: Batch) -> Inputs:
        """A batch with its features from the store."""
        rows = batch.features or self._rows(batch)
        moved = {name: value.to(self.device, non_blocking=True) for name, value in rows.items()}
        return Inputs(batch.views, StoredFeatures(moved), self.shared)

    @property
    def beside(self) -> Sequence[object]:
        """What the features are read by."""
        return (self.shared,)

    @cached_property
    def shared(self) -> dict[str, Tensor]:
        """What the features are read by, on the device from the first batch on."""
        return shared_tensors(self.live.frozen, self.live.backbone, self.device)


def fetched_ahead(batches: Iterable[Batch], source: Callable[[Batch], Inputs]) -> Iterable[Batch]:
    """The batches; where features are preloaded for CUDA, with those of the next batch fetched while one is in use.

    They wait in host memory: on the device, a second batch would be part of the peak that runs are compared by.
    """
    if isinstance(source, CachedFeatures) and source.device.type == "cuda":
        return made_ahead(batches, source.fetch)
    return batches

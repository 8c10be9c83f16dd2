"""Where a method's frozen features come from: computed live in every step, or once per image and kept."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Protocol

import torch
from torch import Tensor

from petlbench.autocast import autocast
from petlbench.backbone import Backbone
from petlbench.data.loader import Batch
from petlbench.errors import InputError
from petlbench.method import FeatureSpec, FrozenFeatures, Inputs

__all__ = ["CachedFeatures", "FeatureSource", "LiveFeatures", "NoFeatures"]


class FeatureSource(Protocol):
    """Turns a batch of views into what the module eats; chosen once per run."""

    @property
    def spared_view(self) -> str | None:
        """The view that need not be made, because what the backbone says of it is known."""
        ...

    def __call__(self, batch: Batch) -> Inputs:
        """Add the frozen features of a batch, all on the device, and leave out the view that only they need."""
        ...


class NoFeatures:
    """For methods whose module reads images alone."""

    spared_view = None

    def __call__(self, batch: Batch) -> Inputs:
        """Pass the views on."""
        return Inputs(batch.views)


class LiveFeatures:
    """Runs the frozen backbone on every batch.

    Args:
        backbone: The frozen backbone, on the device.
        frozen: What the method takes from it.
        precision: ``fp32``, ``bf16`` or ``fp16``.
    """

    spared_view = None

    def __init__(self, backbone: Backbone, frozen: FrozenFeatures, precision: str) -> None:
        self.backbone = backbone
        self.frozen = frozen
        self.precision = precision
        self.spec = frozen.spec(backbone.info)
        backbone.module.eval().requires_grad_(False)

    def __call__(self, batch: Batch) -> Inputs:
        """Extract the features of the batch's view."""
        others = {name: view for name, view in batch.views.items() if name != self.spec.view}
        return Inputs(others, self.extract(batch))

    def extract(self, batch: Batch) -> dict[str, Tensor]:
        """Compute the features of a batch on the device, each (B, ...)."""
        with torch.no_grad(), autocast(self.backbone.device, self.precision):
            features = self.frozen.extract(self.backbone, batch.views[self.spec.view])
        return {name: value.to(self.spec.tensors[name].dtype) for name, value in features.items()}


class CachedFeatures:
    """Features in memory, one row an image.

    Args:
        live: Computes what is not known yet.
        images: Number of images of the dataset.
        device: Where batches are wanted.
        free: Bytes of memory that may be taken.

    Raises:
        InputError: When the features of all images do not fit.
    """

    def __init__(self, live: LiveFeatures, images: int, device: torch.device, free: int) -> None:
        self.live = live
        self.device = device
        self.spared_view: str | None = live.spec.view
        self._check_room(live.spec, images, free)
        self._rows = {
            name: torch.empty((images, *spec.shape), dtype=spec.dtype) for name, spec in live.spec.tensors.items()
        }
        self._known = torch.zeros(images, dtype=torch.bool)

    def fill(self, batches: Iterable[Batch], on_images: Callable[[int], None] = lambda count: None) -> None:
        """Compute the features of some images.

        Args:
            batches: Batches that carry the view that the features come from.
            on_images: Told the number of images after each batch.
        """
        for batch in batches:
            for name, value in self.live.extract(batch.to(self.device)).items():
                self._rows[name][batch.index] = value.cpu()
            self._known[batch.index] = True
            on_images(len(batch.index))

    def __call__(self, batch: Batch) -> Inputs:
        """Look up the features of a batch."""
        if not bool(self._known[batch.index].all()):
            raise KeyError("features of an image that was not preloaded were asked for")
        rows = {name: values[batch.index].to(self.device, non_blocking=True) for name, values in self._rows.items()}
        return Inputs(batch.views, rows)

    @staticmethod
    def _check_room(spec: FeatureSpec, images: int, free: int) -> None:
        needed = spec.bytes_per_image * images
        if needed > free:
            raise InputError(
                f"preloading needs {needed / 2**30:.1f} GiB of memory for {images} images "
                f"({spec.bytes_per_image / 2**20:.2f} MiB each), and {free / 2**30:.1f} GiB may be taken",
                hint="use --no-preload, or a smaller --image-size",
                kind="no_room",
            )

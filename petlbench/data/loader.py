"""Batches of views: decoded by threads ahead of the training, each image's randomness from a seed of its own."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from PIL.Image import Image
from torch import Tensor

from petlbench.config import derive_seed
from petlbench.data.dataset import Dataset
from petlbench.data.views import View

__all__ = ["Batch", "ImageLoader", "StoredImages", "decode_ahead"]

Item = TypeVar("Item")

Pixels = dict[str, NDArray[np.uint8]]

# Batches that are decoded ahead of the one in use.
_AHEAD = 3


@dataclass(frozen=True)
class Batch:
    """Some images of a dataset.

    Args:
        index: Positions of the images in the dataset, (B,).
        views: Images by view name, each (B, 3, H, W).
        labels: Class indices, (B,).
    """

    index: Tensor
    views: Mapping[str, Tensor]
    labels: Tensor

    def to(self, device: torch.device) -> Batch:
        """The same batch on a device."""
        views = {name: view.to(device, non_blocking=True) for name, view in self.views.items()}
        return Batch(self.index, views, self.labels.to(device, non_blocking=True))

    def pieces(self, size: int) -> Iterator[Batch]:
        """Cut the batch into pieces, without copying anything.

        Args:
            size: Images a piece; the last one may have fewer.

        Yields:
            The pieces in order.
        """
        for start in range(0, len(self.labels), size):
            rows = slice(start, start + size)
            views = {name: view[rows] for name, view in self.views.items()}
            yield Batch(self.index[rows], views, self.labels[rows])


def decode_ahead(
    batches: Iterable[Sequence[Item]], decode: Callable[[Item], Pixels], workers: int
) -> Iterator[tuple[Sequence[Item], list[Pixels]]]:
    """Decode batches by threads, some of them ahead of the one in use.

    Args:
        batches: What stands for the images, batch by batch.
        decode: Turns one of them into pixels, in a thread.
        workers: Number of threads.

    Yields:
        Each batch in turn with its pixels, both in order.
    """
    pool = ThreadPoolExecutor(max(1, workers), thread_name_prefix="petlbench-decode")
    waiting: deque[tuple[Sequence[Item], list[Future[Pixels]]]] = deque()
    try:
        for batch in batches:
            waiting.append((batch, [pool.submit(decode, item) for item in batch]))
            if len(waiting) > _AHEAD:
                yield _decoded(*waiting.popleft())
        while waiting:
            yield _decoded(*waiting.popleft())
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _decoded(batch: Sequence[Item], futures: list[Future[Pixels]]) -> tuple[Sequence[Item], list[Pixels]]:
    return batch, [future.result() for future in futures]


class StoredImages:
    """Decoded and resized images, kept in memory up to a bound so that each is decoded once.

    Args:
        dataset: Where the images come from.
        bound: Most bytes that are kept; images beyond it are decoded anew each time.
    """

    def __init__(self, dataset: Dataset, bound: int = 2 << 30) -> None:
        self.dataset = dataset
        self._left = bound
        self._kept: dict[tuple[int, View], Image] = {}

    def get(self, index: int, views: Mapping[str, View]) -> dict[str, Image]:
        """Return one image, stored for each view, from one decode.

        Args:
            index: Position in the dataset.
            views: The wanted views by name.

        Returns:
            Stored images by view name.
        """
        kept = {name: self._kept[index, view] for name, view in views.items() if (index, view) in self._kept}
        if len(kept) == len(views):
            return kept
        image = self.dataset.open(self.dataset.records[index])
        return {name: self._keep(index, view, view.store(image)) for name, view in views.items()}

    def _keep(self, index: int, view: View, image: Image) -> Image:
        # Threads may pass here at once and overshoot the bound by a few images, which does no harm.
        size = image.width * image.height * len(image.getbands())
        if size <= self._left:
            self._left -= size
            self._kept[index, view] = image
        return image


@dataclass(frozen=True)
class ImageLoader:
    """Makes batches of some of a dataset's images.

    Args:
        images: The images.
        indices: Positions of the wanted images in the dataset.
        views: The wanted views by name; may be empty where only labels and positions are needed.
        batch_size: Images a batch, B.
        workers: Threads that decode and augment.
    """

    images: StoredImages
    indices: Sequence[int]
    views: Mapping[str, View]
    batch_size: int
    workers: int

    def in_order(self) -> Iterator[Batch]:
        """Yield every image once, in order; the last batch may be smaller."""
        yield from self._run(list(self.indices), seed=0)

    def shuffled(self, seed: int) -> Iterator[Batch]:
        """Yield one epoch in an order, and with augmentations, that the seed alone decides.

        An incomplete last batch is dropped, as in the authors' training, unless it is the only one.
        """
        order = np.random.default_rng(seed).permutation(np.asarray(self.indices)).tolist()
        whole = len(order) // self.batch_size * self.batch_size
        yield from self._run(order[:whole] or order, seed)

    def steps(self) -> int:
        """Number of batches of one `shuffled` epoch."""
        return max(1, len(self.indices) // self.batch_size)

    def _run(self, order: list[int], seed: int) -> Iterator[Batch]:
        batches = [order[start : start + self.batch_size] for start in range(0, len(order), self.batch_size)]
        for indices, images in decode_ahead(batches, lambda index: self._one(index, seed), self.workers):
            yield self._collate(indices, images)

    def _one(self, index: int, seed: int) -> Pixels:
        stored = self.images.get(index, self.views)
        return {
            name: self.views[name].pixels(image, np.random.default_rng(derive_seed(seed, "augment", name, index)))
            for name, image in stored.items()
        }

    def _collate(self, indices: Sequence[int], images: list[Pixels]) -> Batch:
        records = self.images.dataset.records
        return Batch(
            index=torch.tensor(indices),
            views={name: view.batch([image[name] for image in images]) for name, view in self.views.items()},
            labels=torch.tensor([records[index].label for index in indices]),
        )

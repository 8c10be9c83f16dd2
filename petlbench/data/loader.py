"""Batches of views: made by threads ahead of the training, each image's randomness from a seed of its own."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from petlbench.core.config import derive_seed
from petlbench.data.image_store import ImageStore
from petlbench.data.views import RGB, View

__all__ = ["Batch", "ImageLoader", "Pixels", "decode_ahead"]

Item = TypeVar("Item")
Made = TypeVar("Made")

Pixels = dict[str, RGB]

# Batches that are begun while one is in use: two, as any number keeps the threads at work and each takes memory.
_AHEAD = 2


@dataclass(frozen=True)
class Batch:
    """Some images of a dataset.

    Args:
        index: Positions of the images in the dataset, (B,).
        views: Images by view name, each (B, 3, H, W).
        labels: As the task type stores them: of one class an image its position, (B,).
    """

    index: Tensor
    views: Mapping[str, Tensor]
    labels: Tensor

    def to(self, device: torch.device) -> Batch:
        """The same batch on a device."""
        views = {name: view.to(device, non_blocking=True) for name, view in self.views.items()}
        return Batch(self.index, views, self.labels.to(device, non_blocking=True))

    def micro_batches(self, size: int) -> Iterator[Batch]:
        """Yield the micro-batches of `size` images in order, without a copy; the last one may have fewer."""
        for start in range(0, len(self.labels), size):
            rows = slice(start, start + size)
            views = {name: view[rows] for name, view in self.views.items()}
            yield Batch(self.index[rows], views, self.labels[rows])


def decode_ahead(
    batches: Iterable[Sequence[Item]], decode: Callable[[Item], Made], workers: int
) -> Iterator[tuple[Sequence[Item], list[Made]]]:
    """Decode batches by threads, some of them ahead of the one in use.

    Args:
        batches: What stands for the images, batch by batch; a batch is asked for when it is about to be begun.
        decode: Is called with one of them, in a thread.
        workers: Number of threads.

    Yields:
        Each batch in turn with what was made of it, both in order.
    """
    pool = ThreadPoolExecutor(max(1, workers), thread_name_prefix="petlbench-decode")
    pending: deque[tuple[Sequence[Item], list[Future[Made]]]] = deque()

    def decoded() -> tuple[Sequence[Item], list[Made]]:
        batch, futures = pending.popleft()
        return batch, [future.result() for future in futures]

    try:
        for batch in batches:
            pending.append((batch, [pool.submit(decode, item) for item in batch]))
            if len(pending) > _AHEAD:
                yield decoded()
        while pending:
            yield decoded()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


@dataclass(frozen=True)
class ImageLoader:
    """Makes batches of some of a dataset's images.

    Args:
        images: The images.
        indices: Positions of the wanted images in the dataset.
        views: The wanted views by name; may be empty where only labels and positions are needed.
        batch_size: Images a batch, B.
        workers: Threads that decode, augment and normalise.
        pinned: Whether batches lie in pinned memory, from which a copy to a CUDA device need not be waited for.
    """

    images: ImageStore
    indices: Sequence[int]
    views: Mapping[str, View]
    batch_size: int
    workers: int
    pinned: bool = False

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
        pending: deque[tuple[Batch, list[_Place]]] = deque()

        def places() -> Iterator[list[_Place]]:
            for start in range(0, len(order), self.batch_size):
                indices = order[start : start + self.batch_size]
                batch = self._empty(indices)
                arrays = {name: view.numpy() for name, view in batch.views.items()}
                rows = [{name: view[row] for name, view in arrays.items()} for row in range(len(indices))]
                pending.append((batch, list(zip(indices, rows, strict=True))))
                yield pending[-1][1]

        for _ in decode_ahead(places(), lambda place: self._fill(place, seed), self.workers):
            # Else the places, which others still name, would keep the batch in memory longer than it is in use.
            pending[0][1].clear()
            yield pending.popleft()[0]

    def _empty(self, indices: Sequence[int]) -> Batch:
        """A batch whose images are still to be written: each thread then puts its own where it belongs."""
        records, to_array = self.images.dataset.records, self.images.dataset.task.labels.to_array
        return Batch(
            index=torch.tensor(indices),
            views={
                name: torch.empty(len(indices), 3, view.size, view.size, pin_memory=self.pinned)
                for name, view in self.views.items()
            },
            labels=torch.from_numpy(to_array([records[index].label for index in indices])),
        )

    def _fill(self, place: _Place, seed: int) -> None:
        index, rows = place
        stored = self.images.get(self.images.dataset.records[index], self.views)
        for name, view in self.views.items():
            rng = np.random.default_rng(derive_seed(seed, "augment", name, index))
            view.write(view.pixels(stored[name], rng), rows[name])


# An image's position in the dataset, and its rows in a batch by view.
_Place = tuple[int, dict[str, NDArray[np.float32]]]

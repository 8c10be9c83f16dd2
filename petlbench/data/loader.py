"""Images as their views store them, decoded and resized once; and batches of them, made by threads ahead of use."""

from __future__ import annotations

import copy
import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from petlbench.core.ahead import begun_ahead
from petlbench.core.bounded_cache import BoundedCache
from petlbench.core.config import derive_seed
from petlbench.data.dataset import Dataset
from petlbench.data.record import Record, Split
from petlbench.data.views import RGB, Form, View

Item = TypeVar("Item")
Made = TypeVar("Made")

Pixels = dict[str, RGB]

# Batches that are begun while one is in use: two, as any number keeps the threads at work and each takes memory.
_AHEAD = 2


class ImageCache(Protocol):
    """Where images are kept in some forms beyond this process."""

    def __contains__(self, digest: object) -> bool:
        """Whether an image, named by the digest of its content, is there."""
        ...

    def find(self, digest: str) -> Mapping[Form, RGB]:
        """Return an image that is there, in every form."""
        ...


ImageMemory = BoundedCache[tuple[object, str, Form], RGB]
"""Images by what is one opened dataset, their id and their form."""


@dataclass(eq=False)
class KeptImages:
    """What is kept of the images of a dataset, for as long as it stays opened.

    Args:
        memory: What views store of them; several datasets may share it.
        digests: The digest of the content of each image that was seen to be decodable, by its id.
    """

    memory: ImageMemory = field(default_factory=BoundedCache)
    digests: dict[str, str] = field(default_factory=dict)

    def has_room(self, form: Form) -> bool:
        """Whether an image in a form can be kept."""
        return self.memory.has_room(form_bytes(form))

    def keep(self, record: Record, form: Form, pixels: RGB) -> RGB:
        """Return an image, which nobody can change from now on; it is kept if there is room."""
        pixels.flags.writeable = False
        self.memory.keep((self, record.image_id, form), pixels, form_bytes(form))
        return pixels

    def find(self, record: Record, forms: Iterable[Form]) -> dict[Form, RGB] | None:
        """Return an image in every form; None where one is missing."""
        images = {form: self.memory.find((self, record.image_id, form)) for form in forms}
        whole = {form: pixels for form, pixels in images.items() if pixels is not None}
        return whole if len(whole) == len(images) else None

    def forget(self, records: Iterable[Record], forms: frozenset[Form]) -> None:
        """Keep these images in these forms no longer."""
        names = {record.image_id for record in records}
        self.memory.drop(lambda key: key[0] is self and key[1] in names and key[2] in forms)


class ImageStore:
    """Makes what views store of images, from one decode for all views, and keeps it.

    Args:
        dataset: Where the images come from.
        views: The views that each split will be read in, by name; none for a split that is only looked at.
        kept: What is kept of them, and where; what is beyond its bound is made anew each time.
        caches: What is kept elsewhere, by the forms that it holds.
        at_first: Views that are made, too, of an image that was never read before: it is decoded anyway.
    """

    def __init__(
        self,
        dataset: Dataset,
        views: Mapping[Split, Mapping[str, View]] | None = None,
        *,
        kept: KeptImages | None = None,
        caches: Mapping[frozenset[Form], ImageCache] | None = None,
        at_first: Iterable[View] = (),
    ) -> None:
        self.dataset = dataset
        self.views = dict(views or {})
        self.caches = dict(caches or {})
        self._kept = kept or KeptImages()
        self._at_first = tuple(at_first)

    def part(self, dataset: Dataset) -> ImageStore:
        """The same images and what is kept of them, for a dataset that has lost some of its records."""
        part = copy.copy(self)
        part.dataset = dataset
        return part

    def read(self, record: Record, split: Split | None) -> str:
        """Return the digest of an image's content, seen to be decodable; what its split will be read in is kept.

        Raises:
            InputError: When it cannot be read.
        """
        digest = self._kept.digests.get(record.image_id)
        if digest is None:
            digest = self._read_first(record, self.views.get(split, {}) if split is not None else {})
            self._kept.digests[record.image_id] = digest
        return digest

    def get(self, record: Record, views: Mapping[str, View]) -> dict[str, RGB]:
        """Return what views store of an image, by the views' names.

        Raises:
            InputError: When it cannot be read.
        """
        stored = self.stored(record, views.values())
        return {name: stored[view.form] for name, view in views.items()}

    def stored(self, record: Record, views: Iterable[View]) -> Mapping[Form, RGB]:
        """Return what views store of an image, by form, each (side, side, 3).

        Raises:
            InputError: When it cannot be read.
        """
        forms = {view.form: view for view in views}
        images = self._find(record, forms)
        if images is not None:
            return images
        image = self.dataset.open_deep(record)
        return {form: self._kept.keep(record, form, view.store(image)) for form, view in forms.items()}

    def digest(self, record: Record) -> str:
        """What names the pixels of an image that was looked at."""
        return self.digests([record])[0]

    def digests(self, records: Iterable[Record]) -> list[str]:
        """What names the pixels of each of some images that were looked at."""
        return self.dataset.pixel_keys([self._kept.digests[record.image_id] for record in records])

    def forget(self, records: Iterable[Record], views: Iterable[View]) -> None:
        """Keep in memory no longer what views store of some images: it is kept elsewhere."""
        self._kept.forget(records, frozenset(view.form for view in views))

    def _find(self, record: Record, forms: Iterable[Form]) -> Mapping[Form, RGB] | None:
        images = self._kept.find(record, forms)
        if images is not None:
            return images
        cache = self.caches.get(frozenset(forms))
        if cache is None or record.image_id not in self._kept.digests:
            return None
        key = self.digest(record)
        return cache.find(key) if key in cache else None

    def _read_first(self, record: Record, views: Mapping[str, View]) -> str:
        cache = self.caches.get(frozenset(view.form for view in views.values() or self._at_first))
        if cache is None:
            # Decoded before it is hashed: a reader that makes its images knows the digest by then.
            self._make_ahead(record, views)
        digest = self.dataset.content_hash(record)
        if cache is not None and self.dataset.pixel_key(digest) not in cache:
            self._make_ahead(record, views)
        return digest

    def _make_ahead(self, record: Record, views: Mapping[str, View]) -> None:
        image = self.dataset.open_deep(record)
        for form, view in {view.form: view for view in (*views.values(), *self._at_first)}.items():
            if self._kept.has_room(form):
                self._kept.keep(record, form, view.store(image))


def form_bytes(form: Form) -> int:
    """Size of an image in a form, in bytes."""
    side, _ = form
    return 3 * side * side


@dataclass(frozen=True)
class Batch:
    """Some images of a dataset.

    Args:
        index: Positions of the images in the dataset, (B,).
        views: Images by view name, each (B, 3, H, W).
        labels: As the task type stores them: of one class an image its position, (B,).
        features: Frozen features as they are stored, each (B, ...), where they were fetched ahead; they stay on the
            host until they are used.
    """

    index: Tensor
    views: Mapping[str, Tensor]
    labels: Tensor
    features: Mapping[str, Tensor] = field(default_factory=dict)

    def to(self, device: torch.device) -> Batch:
        """The same batch on a device; labels that are no whole numbers are there in fp32, as logits are."""
        views = {name: view.to(device, non_blocking=True) for name, view in self.views.items()}
        labels = self.labels.float() if self.labels.is_floating_point() else self.labels
        return replace(self, views=views, labels=labels.to(device, non_blocking=True))

    def micro_batches(self, size: int) -> Iterator[Batch]:
        """Yield the micro-batches of `size` images in order, without a copy; the last one may have fewer."""
        if len(self.labels) <= size:
            yield self
            return
        for start in range(0, len(self.labels), size):
            rows = slice(start, start + size)
            views, features = (
                {name: tensor[rows] for name, tensor in tensors.items()} for tensors in (self.views, self.features)
            )
            yield Batch(self.index[rows], views, self.labels[rows], features)


def made_ahead(batches: Iterable[Batch], make: Callable[[Batch], Made]) -> Iterator[Made]:
    """Yield what is made of each batch, in order; a thread makes the next one while one is in use."""
    with ThreadPoolExecutor(1, thread_name_prefix="petlbench-fetch") as pool:
        yield from begun_ahead(batches, lambda batch: pool.submit(make, batch).result, 1)


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

    def begin(batch: Sequence[Item]) -> Callable[[], tuple[Sequence[Item], list[Made]]]:
        futures = [pool.submit(decode, item) for item in batch]
        return lambda: (batch, [future.result() for future in futures])

    try:
        yield from begun_ahead(batches, begin, _AHEAD)
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
        keeps_last: Whether an epoch's last batch is used although it is not full.
    """

    images: ImageStore
    indices: Sequence[int]
    views: Mapping[str, View]
    batch_size: int
    workers: int
    pinned: bool = False
    keeps_last: bool = False

    def in_order(self) -> Iterator[Batch]:
        """Yield every image once, in order; the last batch may be smaller."""
        yield from self._run(list(self.indices), seed=0)

    def first(self, count: int) -> Batch:
        """Return the first images in one batch, as many as there are of so many."""
        few = list(self.indices[:count])
        return next(iter(replace(self, indices=few, batch_size=count).in_order()))

    def shuffled(self, seed: int) -> Iterator[Batch]:
        """Yield one epoch in an order, and with augmentations, that the seed alone decides.

        An incomplete last batch is dropped, as in the authors' training, unless it is the only one or is to be kept.
        """
        order = np.random.default_rng(seed).permutation(np.asarray(self.indices)).tolist()
        whole = len(order) if self.keeps_last else len(order) // self.batch_size * self.batch_size
        yield from self._run(order[:whole] or order, seed)

    def steps(self) -> int:
        """Number of batches of one `shuffled` epoch."""
        count = len(self.indices)
        return math.ceil(count / self.batch_size) if self.keeps_last else max(1, count // self.batch_size)

    def _run(self, order: list[int], seed: int) -> Iterator[Batch]:
        # Where no image is read, as from preloaded features, threads would cost more than all else.
        yield from self._decoded(order, seed) if self.views else self._empty(order)

    def _decoded(self, order: list[int], seed: int) -> Iterator[Batch]:
        pending: deque[tuple[Batch, list[_Place]]] = deque()

        def places() -> Iterator[list[_Place]]:
            for batch in self._empty(order):
                indices = batch.index.tolist()
                arrays = {name: view.numpy() for name, view in batch.views.items()}
                rows = [{name: view[row] for name, view in arrays.items()} for row in range(len(indices))]
                pending.append((batch, list(zip(indices, rows, strict=True))))
                yield pending[-1][1]

        for _ in decode_ahead(places(), lambda place: self._fill(place, seed), self.workers):
            # Else the places, which others still name, would keep the batch in memory longer than it is in use.
            pending[0][1].clear()
            yield pending.popleft()[0]

    def _empty(self, order: list[int]) -> Iterator[Batch]:
        """Batches whose images are still to be written: each thread then puts its own where it belongs."""
        records, to_array = self.images.dataset.records, self.images.dataset.task.labels.to_array
        labels = to_array([records[place].label for place in order])
        for start in range(0, len(order), self.batch_size):
            part = slice(start, start + self.batch_size)
            index = torch.tensor(order[part])
            views = {
                name: torch.empty(len(index), 3, view.size, view.size, pin_memory=self.pinned)
                for name, view in self.views.items()
            }
            # A copy: a part of a tensor would hold the labels of all batches, as memory that a step takes.
            own = torch.from_numpy(labels[part].copy())
            yield Batch(index, views, own.pin_memory() if self.pinned else own)

    def _fill(self, place: _Place, seed: int) -> None:
        index, rows = place
        stored = self.images.get(self.images.dataset.records[index], self.views)
        for name, view in self.views.items():
            rng = np.random.default_rng(derive_seed(seed, "augment", name, index))
            view.write(view.pixels(stored[name], rng), rows[name])


# An image's position in the dataset, and its rows in a batch by view.
_Place = tuple[int, dict[str, NDArray[np.float32]]]

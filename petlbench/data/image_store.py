"""Images as their views store them: decoded and resized once, and kept in memory or on the disk."""

from __future__ import annotations

import copy
import threading
from collections.abc import Iterable, Mapping
from typing import Protocol

from petlbench.data.dataset import Dataset
from petlbench.data.record import Record, Split
from petlbench.data.views import RGB, Form, View

__all__ = ["ImageCache", "ImageStore", "form_bytes"]


class ImageCache(Protocol):
    """Where images are kept in some forms beyond this process."""

    def __contains__(self, digest: object) -> bool:
        """Whether an image, named by the digest of its content, is there."""
        ...

    def find(self, digest: str) -> Mapping[Form, RGB]:
        """Return an image that is there, in every form."""
        ...


class ImageStore:
    """Makes what views store of images, from one decode for all views, and keeps it.

    Args:
        dataset: Where the images come from.
        views: The views that each split will be read in, by name; none for a split that is only looked at.
        bound: Most bytes that are kept in memory; what is beyond is made anew each time.
        caches: What is kept elsewhere, by the forms that it holds.
    """

    def __init__(
        self,
        dataset: Dataset,
        views: Mapping[Split, Mapping[str, View]] | None = None,
        *,
        bound: int = 0,
        caches: Mapping[frozenset[Form], ImageCache] | None = None,
    ) -> None:
        self.dataset = dataset
        self.views = dict(views or {})
        self.caches = dict(caches or {})
        self._memory = _Memory(bound)
        self._digests: dict[str, str] = {}

    def part(self, dataset: Dataset) -> ImageStore:
        """The same images and what is kept of them, for a dataset that has lost some of its records."""
        part = copy.copy(self)
        part.dataset = dataset
        return part

    def read(self, record: Record, split: Split) -> str:
        """Return the digest of an image's content, seen to be decodable; what its split will be read in is kept.

        Raises:
            InputError: When it cannot be read.
        """
        views = self.views.get(split, {})
        cache = self._cache(views)
        if cache is None:
            # Decoded before it is hashed: a reader that makes its images knows the digest by then.
            self._make_ahead(record, views)
            digest = self.dataset.content_hash(record)
        else:
            digest = self.dataset.content_hash(record)
            if digest not in cache:
                self._make_ahead(record, views)
        self._digests[record.image_id] = digest
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
        return {form: self._memory.keep(record, form, view.store(image)) for form, view in forms.items()}

    def digest(self, record: Record) -> str:
        """The digest of the content of an image that was looked at."""
        return self._digests[record.image_id]

    def forget(self) -> None:
        """Keep nothing in memory from now on."""
        self._memory = _Memory(0)

    def _find(self, record: Record, forms: Iterable[Form]) -> Mapping[Form, RGB] | None:
        images = self._memory.find(record, forms)
        if images is not None:
            return images
        cache, digest = self.caches.get(frozenset(forms)), self._digests.get(record.image_id)
        return cache.find(digest) if cache is not None and digest is not None and digest in cache else None

    def _cache(self, views: Mapping[str, View]) -> ImageCache | None:
        return self.caches.get(frozenset(view.form for view in views.values()))

    def _make_ahead(self, record: Record, views: Mapping[str, View]) -> None:
        image = self.dataset.open_deep(record)
        for form, view in {view.form: view for view in views.values()}.items():
            if self._memory.has_room(form):
                self._memory.keep(record, form, view.store(image))


class _Memory:
    """Images that are kept up to a bound in bytes; threads may share it."""

    def __init__(self, bound: int) -> None:
        self._free = bound
        self._images: dict[tuple[str, Form], RGB] = {}
        self._lock = threading.Lock()

    def has_room(self, form: Form) -> bool:
        return form_bytes(form) <= self._free

    def keep(self, record: Record, form: Form, pixels: RGB) -> RGB:
        key = record.image_id, form
        with self._lock:
            if key not in self._images and self.has_room(form):
                self._free -= form_bytes(form)
                self._images[key] = pixels
        return pixels

    def find(self, record: Record, forms: Iterable[Form]) -> dict[Form, RGB] | None:
        """An image in every form; None where one is missing."""
        images = {form: self._images.get((record.image_id, form)) for form in forms}
        whole = {form: pixels for form, pixels in images.items() if pixels is not None}
        return whole if len(whole) == len(images) else None


def form_bytes(form: Form) -> int:
    """Size of an image in a form, in bytes."""
    side, _ = form
    return 3 * side * side

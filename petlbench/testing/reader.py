"""The contract of a reader: the same images, labels and order wherever and however often a dataset is read."""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from itertools import zip_longest
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar

import numpy as np
import pytest
from PIL import Image

from petlbench.data.images.decode import to_rgb
from petlbench.data.readers.base import Reader, Source
from petlbench.data.record import SPLITS, Record
from petlbench.testing import explained, fail

_OPENED = 8


class ReaderContract:
    """Tests of one reader; a subclass whose name begins with ``Test`` names it.

    Attributes:
        reader: The reader's class.
        path: The folder or file that it reads; None for a small folder of class folders with a ``labels.csv`` (image,
            label) in it, or for a reader that makes its images itself.
        settings: Settings that differ from the reader's defaults.
    """

    reader: ClassVar[type[Reader]]
    path: ClassVar[Path | None] = None
    settings: ClassVar[dict[str, Any]] = {}

    def open_reader(self, path: Path) -> Reader:
        """Make the reader of a folder or file; a test module may make it in another way."""
        return self.reader(Source("contract", path, self.reader.Settings.model_validate(self.settings)))

    @pytest.fixture
    def data(self, tmp_path: Path) -> Path:
        """What is read."""
        return self.path or _write_sample(tmp_path / "sample")

    @pytest.fixture
    def dataset(self, data: Path) -> Reader:
        """The reader of it."""
        origin = "" if self.path else " (a small sample: name what it reads with --petlbench-data, or with `path`)"
        with explained(f"{self} cannot read {data}{origin}"):
            dataset = self.open_reader(data)
        if not dataset.records:
            fail(self, f"finds no image in {data}")
        return dataset

    def test_every_image_has_a_name_of_its_own(self, dataset: Reader) -> None:
        """No two records have one image_id; predictions, splits and caches go by it."""
        [(name, count)] = Counter(record.image_id for record in dataset.records).most_common(1)
        if count > 1:
            fail(self, f"names {count} images {name!r}: take the path below the root, not its stem")

    def test_paths_are_relative_and_sides_are_known(self, dataset: Reader) -> None:
        """A path is relative and in POSIX form, and a split is train, val, test or None."""
        for record in dataset.records:
            path = PurePosixPath(record.path)
            if path.is_absolute() or ".." in path.parts or "\\" in record.path:
                fail(self, f"gives the path {record.path!r}: write it relative to the root, with /")
            if record.split is not None and record.split not in SPLITS:
                fail(self, f"gives {record.image_id!r} the split {record.split!r}: write one of {SPLITS}, or None")

    def test_labels_refer_to_the_classes(self, dataset: Reader) -> None:
        """A label is a position in ``classes``, or what the task keeps in its place: a number, or one a class."""
        classes = dataset.classes
        least = 2 if any(isinstance(record.label, int) for record in dataset.records) else 1
        is_named = len(set(classes)) == len(classes) and all(isinstance(name, str) for name in classes)
        if len(classes) < least or not is_named:
            fail(self, f"has the classes {classes!r}: at least two names are needed, each once")
        for record in dataset.records:
            if not _is_label(record.label, len(classes)):
                said = f"gives {record.image_id!r} the label {record.label!r}"
                fail(self, f"{said}, but there are {len(classes)} classes")

    def test_images_open_in_rgb(self, dataset: Reader) -> None:
        """An image is RGB or, with greys of more than 8 bits, in mode F from 0 to 255."""
        for record in _sample_of(dataset):
            image = dataset.open(record)
            mode = getattr(image, "mode", type(image).__name__)
            if mode not in ("RGB", "F") or min(image.size) < 1:
                fail(self, f"opens {record.image_id!r} in mode {mode}: return image.convert('RGB')")
            if mode == "F" and not 0 <= np.asarray(image).min() <= np.asarray(image).max() <= 255:
                said = f"opens {record.image_id!r} with greys outside 0 to 255"
                fail(self, f"{said}: scale by the full range of its type")

    def test_reading_twice_gives_the_same(self, dataset: Reader, data: Path) -> None:
        """Another reader of the same files has the same classes, records, hashes and pixels."""
        again = self.open_reader(data)
        self._compare(dataset, again, "when it is made again")
        for record in _sample_of(dataset):
            if _pixels(dataset, record) != _pixels(again, record):
                said = f"opens {record.image_id!r} with other pixels each time"
                fail(self, f"{said}: draw from a seed of the image's own")

    def test_the_order_does_not_depend_on_the_file_system(self, data: Path) -> None:
        """A file system that lists its entries in another order changes nothing."""
        with _listings(reverse=False):
            first = self.open_reader(data)
        with _listings(reverse=True):
            second = self.open_reader(data)
        self._compare(first, second, "where the file system lists its files in another order (sort what you find)")

    def test_content_hashes_are_stable(self, dataset: Reader, data: Path) -> None:
        """A hash is a SHA-256 in hexadecimal, the same each time; images that differ have others."""
        again, pixels = self.open_reader(data), dict[str, bytes]()
        for record in _sample_of(dataset):
            digest: Any = dataset.content_hash(record)
            if not isinstance(digest, str) or len(digest) != 64 or set(digest) - set("0123456789abcdef"):
                fail(self, f"gives {record.image_id!r} the hash {digest!r}: return hashlib.sha256(...).hexdigest()")
            if {digest} != {dataset.content_hash(record), again.content_hash(record)}:
                fail(self, f"gives {record.image_id!r} another hash each time: hash the file's bytes, or the pixels'")
            if pixels.setdefault(digest, _pixels(dataset, record)) != _pixels(dataset, record):
                fail(self, f"gives {record.image_id!r} the hash of another image: hash the content, nothing else")

    def test_images_open_from_any_thread(self, dataset: Reader) -> None:
        """The loader's threads get the same pixels as one thread."""
        records = _sample_of(dataset)
        alone = [_pixels(dataset, record) for record in records]
        with ThreadPoolExecutor(4) as pool:
            together = list(pool.map(lambda record: _pixels(dataset, record), records * 4))
        if together != alone * 4:
            fail(self, "opens other pixels when several threads read: keep no open file and no position between calls")

    def __str__(self) -> str:
        """Name the reader in a message."""
        return self.reader.__name__

    def _compare(self, first: Reader, second: Reader, when: str) -> None:
        if tuple(first.classes) != tuple(second.classes):
            fail(self, f"has the classes {first.classes} and, {when}, {second.classes}")
        for position, (record, other) in enumerate(zip_longest(first.records, second.records)):
            if record != other:
                fail(self, f"has record {position} as {record} and, {when}, as {other}")


def _sample_of(dataset: Reader) -> list[Record]:
    return list(dataset.records[:: max(1, len(dataset.records) // _OPENED)])


def _pixels(dataset: Reader, record: Record) -> bytes:
    return to_rgb(dataset.open(record)).tobytes()


def _is_label(label: Any, classes: int) -> bool:
    if isinstance(label, int | float):
        return 0 <= label < classes if isinstance(label, int) else math.isfinite(label)
    return isinstance(label, tuple | list) and len(label) == classes and all(each in (0, 1, None) for each in label)


@contextmanager
def _listings(*, reverse: bool) -> Iterator[None]:
    """While entered, folders list their entries by name, upwards or downwards."""
    listdir, scandir = os.listdir, os.scandir
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "listdir", lambda *path: sorted(listdir(*path), reverse=reverse))
        patch.setattr(os, "scandir", lambda *path: _Listing(_by_name(scandir(*path), reverse)))
        yield


def _by_name(entries: Any, reverse: bool) -> list[Any]:
    with entries:
        return sorted(entries, key=lambda entry: str(entry.name), reverse=reverse)


class _Listing(ExitStack):
    """What ``os.scandir`` gives: entered, gone through and closed."""

    def __init__(self, entries: Iterable[Any]) -> None:
        super().__init__()
        self._entries = iter(entries)

    def __iter__(self) -> Iterator[Any]:
        return self._entries

    def __next__(self) -> Any:
        return next(self._entries)


def _write_sample(folder: Path) -> Path:
    rows = ["image,label"]
    for number in range(12):
        name = ("ill", "well")[number % 2]
        (folder / name).mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(number).integers(0, 256, (16, 16, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / name / f"{number}.png")
        rows.append(f"{name}/{number}.png,{name}")
    (folder / "labels.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    return folder

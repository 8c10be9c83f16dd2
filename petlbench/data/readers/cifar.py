"""The reader for CIFAR's binary version: an archive with a file of images for each part, 32x32 pixels without loss."""

from __future__ import annotations

import gzip
import io
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import PurePosixPath

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from petlbench.core.errors import InputError
from petlbench.core.user_files import open_file
from petlbench.data.readers.base import Reader, ReaderCard, Source
from petlbench.data.record import Record, Split

_SIDE = 32
_COARSE, _FINE, _PIXELS = 0, 1, 2
"""Where an image's superclass, its class, and its pixels begin: red, green, blue, each row by row."""
_ROW = _PIXELS + 3 * _SIDE * _SIDE
_LIMIT = 512 << 20
"""Bytes of what the archive may hold; the official one has 185 million."""
_FILES: dict[str, Split] = {"train.bin": "train", "test.bin": "test"}
_BROKEN = (tarfile.TarError, zlib.error, OSError, EOFError, ValueError)


class CifarReader(Reader):
    """Reads CIFAR-100 from the archive of its binary version, which is unpacked to memory.

    Args:
        source: The card, which names the archive, and the folder in which it lies.

    Raises:
        InputError: When the archive is absent or damaged, lacks a part, or has a label that is none of the classes.
    """

    card = ReaderCard(name="cifar", title="CIFAR's archive of binary files")

    def __init__(self, source: Source) -> None:
        names = [file.name for file in source.card.files] if source.card is not None else []
        self._file = source.folder() / (names[0] if names else "cifar-100-binary.tar.gz")
        if not self._file.is_file():
            hint = f"petlbench data prepare {source.name}, with --from DIR where you have it already"
            raise source.missing(f"the images of '{source.name}' are missing: there is no {self._file}", hint)
        self.classes = source.classes or ()
        self._rows: dict[str, NDArray[np.uint8]] = dict(self._parts())
        if absent := [name for name, side in _FILES.items() if side not in self._rows]:
            raise self._wrong(f"it has no {absent[0]}")
        self.records = tuple(record for side in _FILES.values() for record in self._records(side, source))

    def open(self, record: Record) -> Image.Image:
        """Return the image in RGB."""
        _, side, position = record.path.rsplit("/", 2)
        pixels = self._rows[side][int(position), _PIXELS:].reshape(3, _SIDE, _SIDE)
        return Image.fromarray(np.ascontiguousarray(pixels.transpose(1, 2, 0)))

    def _records(self, side: Split, source: Source) -> Iterator[Record]:
        try:
            labels = source.labels.from_array(self._rows[side][:, _FINE], self.classes)
        except InputError as error:
            raise self._wrong(f"{side} {error.message}") from error
        for position, label in enumerate(labels):
            locator = f"{source.name}/{side}/{position:05d}"
            yield Record(locator, locator, label, split=side)

    def _parts(self) -> Iterator[tuple[Split, NDArray[np.uint8]]]:
        """Yield the sides with their images, (N, 3074), each a label of two bytes and the pixels."""
        try:
            with open_file(self._file, what="archive") as file, gzip.GzipFile(fileobj=file) as unpacked:
                content = unpacked.read(_LIMIT + 1)
            if len(content) > _LIMIT:
                raise self._wrong("it holds far more than the official archive")
            with tarfile.open(fileobj=io.BytesIO(content)) as archive:
                members = [member for member in archive if PurePosixPath(member.name).name in _FILES]
            for member in members:
                if not member.isreg() or not member.size or member.size % _ROW:
                    raise self._wrong(f"{member.name} has {member.size} bytes, which is no number of images")
                rows = np.frombuffer(content, np.uint8, member.size, member.offset_data).reshape(-1, _ROW)
                yield _FILES[PurePosixPath(member.name).name], rows
        except _BROKEN as error:
            raise self._wrong(f"it cannot be read: {str(error) or type(error).__name__}") from error

    def _wrong(self, what: str) -> InputError:
        return InputError(f"the archive {self._file}: {what}", hint="fetch the official file again", kind="bad_archive")

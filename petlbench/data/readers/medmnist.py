"""The reader for the files of the MedMNIST+ package: one npz archive a dataset and image size, with its own split."""

from __future__ import annotations

import math
import threading
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import numpy as np
from numpy.lib import format as npy
from PIL import Image
from pydantic import Field, field_validator

from petlbench.core.errors import InputError
from petlbench.core.user_files import open_file
from petlbench.data.card import OfficialFile
from petlbench.data.readers.base import Reader, ReaderCard, Source
from petlbench.data.readers.settings import ReaderSettings
from petlbench.data.record import SPLITS, Record, Split
from petlbench.data.tasks.base import Label, Labels

SIZES = (28, 64, 128, 224)

_MOST_LABELS = 100_000_000
"""A packed archive of some kilobytes can hold arrays of any size."""
_PACKAGE_FOLDER = ".medmnist"
# What reading a cut or damaged archive raises.
_BROKEN = (zipfile.BadZipFile, zlib.error, OSError, EOFError, LookupError, ValueError, RuntimeError)


class MedMnistSettings(ReaderSettings):
    """Which of the sizes that MedMNIST+ publishes is read."""

    size: int = Field(default=28, description="Width and height of the stored images in pixels: 28, 64, 128 or 224.")

    @field_validator("size")
    @classmethod
    def _published(cls, size: int) -> int:
        if size not in SIZES:
            raise ValueError(f"the sizes of MedMNIST+ are {', '.join(str(published) for published in SIZES)}")
        return size


def archive_name(name: str, size: int) -> str:
    """Return the name of a dataset's archive, for example ``pathmnist_64.npz``; 28 pixels are not named."""
    return f"{name}.npz" if size == SIZES[0] else f"{name}_{size}.npz"


class MedMnistReader(Reader):
    """Reads the images of one archive; labels at once, the images of a part when the first of them is opened.

    Args:
        source: The folder of the archive; else it is looked for where the medmnist package keeps it.

    Raises:
        InputError: When there is no archive, it cannot be read, an array is missing or has another shape or kind, or
            a label is none of the classes; the message names the archive and the array.
    """

    card = ReaderCard(name="medmnist", title="an archive of MedMNIST+")
    Settings = MedMnistSettings

    def __init__(self, source: Source) -> None:
        self.classes = source.classes or ()
        self._name = source.name
        self._file = _find_archive(source)
        self._size = source.settings.size
        self._arrays: dict[str, np.ndarray] = {}
        self._loading = threading.Lock()
        self.records = tuple(record for split in SPLITS for record in self._part(split, source.labels))

    @classmethod
    def official_files(cls, source: Source) -> Sequence[OfficialFile]:
        """Return the archive of the size that the settings name."""
        archive = archive_name(source.name, source.settings.size)
        return [file for file in super().official_files(source) if file.name == archive]

    def open(self, record: Record) -> Image.Image:
        """Return the image in RGB.

        Raises:
            InputError: When the archive is damaged where its part's images lie.
        """
        _, split, position = record.path.rsplit("/", 2)
        return Image.fromarray(self._images(split)[int(position)]).convert("RGB")

    def _part(self, split: Split, labels: Labels) -> Iterator[Record]:
        """Check one part as far as that is possible without its images, and yield its records."""
        values = self._labels(f"{split}_labels", labels)
        shape, kind = self._header(f"{split}_images")
        square = (len(values), self._size, self._size)
        if shape not in (square, (*square, 3)) or kind != "uint8":
            raise self._wrong(
                f"{split}_images is {kind} of shape {shape}, not uint8 of shape {square}, in grey or with 3 colours"
            )
        for position, label in enumerate(values):
            locator = f"{self._name}/{split}/{position:06d}"
            yield Record(locator, locator, label, split=split)

    def _labels(self, key: str, labels: Labels) -> list[Label]:
        shape, _ = self._header(key)
        if math.prod(shape) > _MOST_LABELS:
            raise self._wrong(f"{key} is of shape {shape}, more than any dataset has labels")
        array = self._load(key)
        try:
            return labels.from_array(array, self.classes)
        except InputError as error:
            raise self._wrong(f"{key} {error.message}", kind=error.kind) from error

    def _images(self, split: str) -> np.ndarray:
        with self._loading:
            if split not in self._arrays:
                self._arrays[split] = self._load(f"{split}_images")
            return self._arrays[split]

    def _load(self, key: str) -> np.ndarray:
        with self._stream(key) as stream:
            array: np.ndarray = npy.read_array(stream, allow_pickle=False)
            return array

    def _header(self, key: str) -> tuple[tuple[int, ...], str]:
        """Return an array's shape and kind of number without reading the array."""
        with self._stream(key) as stream:
            read = npy.read_array_header_1_0 if npy.read_magic(stream) == (1, 0) else npy.read_array_header_2_0
            shape, _, kind = read(stream)
            return tuple(shape), str(kind)

    @contextmanager
    def _stream(self, key: str) -> Iterator[IO[bytes]]:
        """Open one array of the archive; what goes wrong while it is read becomes an error that names the archive."""
        try:
            with open_file(self._file, what="archive") as file, zipfile.ZipFile(file) as archive:
                present = [member.removesuffix(".npy") for member in archive.namelist()]
                if key not in present:
                    raise self._wrong(f"the array {key} is missing; there are: {', '.join(present) or 'none'}")
                with archive.open(f"{key}.npy") as stream:
                    yield stream
        except MemoryError as error:
            hint = "take a smaller size with --set dataset.size=…"
            raise InputError(f"{self._file}: {key} does not fit into memory", hint=hint, kind="no_room") from error
        except _BROKEN as error:
            raise self._wrong(f"{key} cannot be read: {str(error) or type(error).__name__}") from error

    def _wrong(self, what: str, *, kind: str = "bad_npz") -> InputError:
        return InputError(f"{self._file}: {what}", hint="fetch the official file again", kind=kind)


def _find_archive(source: Source) -> Path:
    """Return the archive in the dataset's folder or else where the medmnist package keeps it."""
    archive = archive_name(source.name, source.settings.size)
    folders = (source.path, Path.home() / _PACKAGE_FOLDER)
    for folder in folders:
        if (folder / archive).is_file():
            return folder / archive
    files = () if source.card is None else source.card.files
    address = next((file.url for file in files if file.name == archive and file.url), source.home)
    raise InputError(
        f"the images of '{source.name}' are missing: there is no {archive} in {folders[0]} nor in {folders[1]}",
        hint=f"put it there, or name another place with --data-root; source: {address}",
        kind="data_missing",
    )

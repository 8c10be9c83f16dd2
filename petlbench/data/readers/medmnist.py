"""The reader for the files of the MedMNIST+ package: one npz archive a dataset and image size, with its own split."""

from __future__ import annotations

import hashlib
import threading
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING

from pydantic import BaseModel, ConfigDict, Field, field_validator

from petlbench.core.errors import InputError
from petlbench.data.card import DatasetCard
from petlbench.data.record import SPLITS, Record, Split

if TYPE_CHECKING:
    import numpy as np
    from PIL.Image import Image

__all__ = ["SIZES", "MedMnistReader", "MedMnistSettings", "archive_name", "find_archive"]

SIZES = (28, 64, 128, 224)

_PACKAGE_FOLDER = ".medmnist"
# What reading a cut or damaged archive raises.
_BROKEN = (zipfile.BadZipFile, zlib.error, OSError, EOFError, LookupError, ValueError, RuntimeError)


class MedMnistSettings(BaseModel):
    """Which of the sizes that MedMNIST+ publishes is read."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    size: int = Field(default=28, description="Width and height of the stored images in pixels: 28, 64, 128 or 224.")

    @field_validator("size")
    @classmethod
    def _published(cls, size: int) -> int:
        if size not in SIZES:
            raise ValueError(f"the sizes of MedMNIST+ are {', '.join(str(known) for known in SIZES)}")
        return size


def archive_name(name: str, size: int) -> str:
    """Return the name of a dataset's archive, for example ``pathmnist_64.npz``; 28 pixels are not named."""
    return f"{name}.npz" if size == SIZES[0] else f"{name}_{size}.npz"


def find_archive(name: str, card: DatasetCard, data_root: Path, settings: MedMnistSettings) -> Path:
    """Find a dataset's archive.

    Args:
        name: The dataset's name.
        card: Its card, which may know the archive's address.
        data_root: The folder below which the images of cards lie, in a folder of the dataset's name.
        settings: Which size is wanted.

    Returns:
        The archive below the data root or else where the medmnist package keeps it.

    Raises:
        InputError: When there is none in either place.
    """
    wanted = archive_name(name, settings.size)
    places = (data_root / name, Path.home() / _PACKAGE_FOLDER)
    for place in places:
        if (place / wanted).is_file():
            return place / wanted
    address = next((file.url for file in card.files if file.name == wanted and file.url), card.home)
    raise InputError(
        f"the images of '{name}' are missing: there is no {wanted} in {places[0]} nor in {places[1]}",
        hint=f"put it there, or name another place with --data-root; source: {address}",
        kind="data_missing",
    )


class MedMnistReader:
    """Reads the images of one archive; labels at once, the images of a part when the first of them is opened.

    Args:
        name: The dataset's name.
        file: The archive.
        settings: The size that its images have.
        classes: The card's class names, by label.

    Raises:
        InputError: When the archive cannot be read, an array is missing or has another shape or kind, or a label is
            none of the classes; the message names the archive and the array.
    """

    notes: tuple[str, ...] = ()

    def __init__(self, name: str, file: Path, settings: MedMnistSettings, classes: Sequence[str]) -> None:
        self.classes: tuple[str, ...] = tuple(classes)
        self._name = name
        self._file = file
        self._size = settings.size
        self._arrays: dict[str, np.ndarray] = {}
        self._loading = threading.Lock()
        self.records: tuple[Record, ...] = tuple(record for split in SPLITS for record in self._part(split))

    def open(self, record: Record) -> Image:
        """Return the image in RGB.

        Raises:
            InputError: When the archive is damaged where its part's images lie.
        """
        from PIL import Image

        _, split, position = record.path.rsplit("/", 2)
        return Image.fromarray(self._images(split)[int(position)]).convert("RGB")

    def file(self, record: Record) -> None:
        """There is none: all images lie in one archive."""

    def content_hash(self, record: Record) -> str:
        """Return the SHA-256 of the RGB pixels."""
        return hashlib.sha256(self.open(record).tobytes()).hexdigest()

    def _part(self, split: Split) -> Iterator[Record]:
        """Check one part as far as that is possible without its images, and yield its records."""
        labels = self._labels(f"{split}_labels")
        shape, kind = self._header(f"{split}_images")
        square = (len(labels), self._size, self._size)
        if shape not in (square, (*square, 3)) or kind != "uint8":
            raise self._wrong(
                f"{split}_images is {kind} of shape {shape}, not uint8 of shape {square}, in grey or with 3 colours"
            )
        for position, label in enumerate(labels):
            locator = f"{self._name}/{split}/{position:06d}"
            yield Record(locator, locator, label, split=split)

    def _labels(self, key: str) -> list[int]:
        array = self._load(key)
        if not array.ndim or array.shape[1:] not in ((), (1,)) or array.dtype.kind not in "iu":
            raise self._wrong(f"{key} is {array.dtype} of shape {array.shape}, not one whole number an image")
        labels = [int(label) for label in array.ravel()]
        for position, label in enumerate(labels):
            if not 0 <= label < len(self.classes):
                raise self._wrong(
                    f"{key} has the label {label} at position {position}, but the {len(self.classes)} classes of "
                    f"'{self._name}' are 0 to {len(self.classes) - 1}",
                    kind="unknown_label",
                )
        return labels

    def _images(self, split: str) -> np.ndarray:
        with self._loading:
            if split not in self._arrays:
                self._arrays[split] = self._load(f"{split}_images")
            return self._arrays[split]

    def _load(self, key: str) -> np.ndarray:
        from numpy.lib import format as npy

        with self._stream(key) as stream:
            loaded: np.ndarray = npy.read_array(stream, allow_pickle=False)
            return loaded

    def _header(self, key: str) -> tuple[tuple[int, ...], str]:
        """Return an array's shape and kind of number without reading the array."""
        from numpy.lib import format as npy

        with self._stream(key) as stream:
            read = npy.read_array_header_1_0 if npy.read_magic(stream) == (1, 0) else npy.read_array_header_2_0
            shape, _, kind = read(stream)
            return tuple(shape), str(kind)

    @contextmanager
    def _stream(self, key: str) -> Iterator[IO[bytes]]:
        """Open one array of the archive; what goes wrong while it is read becomes an error that names the archive."""
        try:
            with zipfile.ZipFile(self._file) as archive:
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

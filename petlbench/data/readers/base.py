"""What a reader is: the one thing that knows where the images of a dataset lie and how their labels are written.

A reader is one class in one file, with ``card = ReaderCard(...)`` in its body: shipped ones lie in this folder, a
user's own in a folder that ``--catalog`` names.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, cast

from pydantic import BaseModel

from petlbench.core.catalog import Catalog
from petlbench.core.entry import Card, Kind
from petlbench.core.errors import InputError
from petlbench.core.text import printable
from petlbench.core.user_files import open_file
from petlbench.data.card import DatasetCard, OfficialFile
from petlbench.data.images.decode import Decoding, grey_range, has_deep_greys, read_bytes, read_image
from petlbench.data.images.greys import GreyRange
from petlbench.data.notes import refuse_twins
from petlbench.data.readers.settings import ReaderSettings
from petlbench.data.record import Record
from petlbench.data.tasks.base import Labels, TaskType

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass(frozen=True)
class ReaderCard(Card):
    """What names a reader; ``[reader] kind`` of a dataset's card is its name.

    Args:
        rank: Of the readers that recognise a path, the one with the highest rank reads it.
    """

    kind: ClassVar[Kind] = "reader"

    rank: int = 0


@dataclass(frozen=True)
class Source:
    """What a reader reads.

    Args:
        name: The dataset's short name.
        path: The folder that a card's dataset has below the data root; or the path that the user gave.
        settings: The reader's settings.
        card: The dataset's card; None for a path without one.
        labels: How the task's labels are written and stored.
    """

    name: str
    path: Path
    settings: Any = field(default_factory=ReaderSettings)
    card: DatasetCard | None = None
    labels: Labels = field(default_factory=Labels)

    @property
    def classes(self) -> tuple[str, ...] | None:
        """The card's classes, in label order; None where there is no card."""
        return None if self.card is None else self.card.classes

    @property
    def home(self) -> str:
        """Address of the dataset's official page; empty where none is known."""
        return "" if self.card is None else self.card.home

    def folder(self) -> Path:
        """Return the folder of the images.

        Raises:
            InputError: When it is not there.
        """
        if not self.path.is_dir():
            hint = "put them there, or name another place with --data-root"
            raise self.missing(f"the images of '{self.name}' are missing: there is no folder {self.path}", hint)
        return self.path

    def missing(self, message: str, hint: str) -> InputError:
        """Return the error for images that are not there; the hint ends with the address of the official page."""
        home = f"; official page: {self.home}" if self.home else ""
        return InputError(message, hint=hint + home, kind="data_missing")


class Reader(ABC):
    """Finds the records of a dataset once, when it is made, and opens images one by one, from any thread.

    Args:
        source: What it reads.

    Attributes:
        card: Its name and title.
        Settings: The model of its settings.
        classes: Class names; a label refers to positions in it.
        records: Every image, in an order that does not depend on the file system or the locale.
        notes: What was left out or put together while reading, in words.
        decoding: How image files are decoded; set once the reader is made.
    """

    card: ClassVar[ReaderCard]
    Settings: ClassVar[type[BaseModel]] = ReaderSettings

    classes: tuple[str, ...]
    records: Sequence[Record]
    notes: tuple[str, ...] = ()
    decoding: Decoding = Decoding()

    @abstractmethod
    def __init__(self, source: Source) -> None: ...

    @classmethod
    def recognises(cls, path: Path) -> bool:
        """Whether an existing file or folder, given without a card, is of the reader's kind."""
        return False

    @classmethod
    def official_files(cls, source: Source) -> Sequence[OfficialFile]:
        """Return the official files of a card that are read with these settings: all of them."""
        return source.card.files if source.card is not None else ()

    @abstractmethod
    def open(self, record: Record) -> Image:
        """Return the image in 8-bit RGB or, where its greys are deeper, in mode F from 0 to 255.

        Raises:
            InputError: When the image is absent or corrupt.
        """

    def file(self, record: Record) -> Path | None:
        """Return the image's file; None where the image is made, or lies in a file with others."""
        return None

    def content_hash(self, record: Record) -> str:
        """Return the SHA-256, in hexadecimal, of the file's bytes or, without a file, of the pixels' bytes."""
        return hashlib.sha256(self.open(record).tobytes()).hexdigest()

    def has_deep_greys(self, record: Record) -> bool:
        """Whether an image's file has greys of more than 8 bits, what is white among which the whole dataset says."""
        return False

    def grey_range(self, record: Record) -> GreyRange:
        """Return the range of an image that has deep greys.

        Raises:
            InputError: When the image is absent or corrupt.
        """
        raise NotImplementedError


class ImageFiles(Reader):
    """What readers share whose images are files below one folder, ``root``, which the records' paths start from."""

    root: Path

    def file(self, record: Record) -> Path:
        """Return the image's file."""
        return self.root / record.path

    def open(self, record: Record) -> Image:
        """Return the image of the record's file, as `Reader.open` does."""
        return read_image(self.file(record), self.decoding)

    def content_hash(self, record: Record) -> str:
        """Return the SHA-256 of the file's bytes."""
        return hashlib.sha256(read_bytes(self.file(record), self.decoding)).hexdigest()

    def has_deep_greys(self, record: Record) -> bool:
        """Whether the file's head says so."""
        with open_file(self.file(record), what="image") as stream:
            return has_deep_greys(stream)

    def grey_range(self, record: Record) -> GreyRange:
        """Return the range of the file's greys."""
        file = self.file(record)
        with open_file(file, what="image") as stream:
            return grey_range(stream, str(file), self.decoding)


class UnavailableReader(Reader):
    """Refuses every dataset, so that a card may be written before its reader."""

    card = ReaderCard(name="unavailable", title="no reader yet")

    def __init__(self, source: Source) -> None:
        raise source.missing(
            f"the images of '{source.name}' cannot be read: petlbench has no reader for its official files yet; they "
            f"would lie in {source.path}",
            "arrange them as class folders or with a CSV file and give that path",
        )

    def open(self, record: Record) -> Image:
        """There is nothing to open."""
        raise NotImplementedError


def ordered_classes(names: Iterable[str]) -> tuple[str, ...]:
    """Order class names: by number where all are whole numbers, else by code point, in any locale."""
    unique = set(names)
    if all(name.isascii() and name.isdigit() for name in unique):
        return tuple(sorted(unique, key=lambda name: (int(name), name)))
    return tuple(sorted(unique))


_ONE_CLASS = Labels()


def choose_classes(
    labels: Iterable[str], declared: Sequence[str] | None, place: str, form: Labels = _ONE_CLASS
) -> tuple[str, ...]:
    """Return the class names in label order, from what the files hold and what the card says.

    Args:
        labels: The names in the files.
        declared: The card's classes, whose order is kept, or None where there is no card.
        place: What the error calls the files.
        form: How the task's labels are written.

    Raises:
        InputError: When there are too few classes, two names can only be one, one cannot be written in a label, or the
            files and the card disagree.
    """
    names = ordered_classes(labels)
    if declared is None:
        refuse_twins(names, place)
        if len(names) < form.least:
            raise InputError(
                f"{place} has {len(names)} class{'es' if not names else f' ({names[0]})'}; "
                f"at least {form.least} are needed",
                hint="a folder needs one subfolder a class, a CSV two different labels",
                kind="too_few_classes",
            )
        if fault := form.refuse_classes(names):
            raise InputError(f"{place} {printable(fault)}", hint="call it otherwise", kind="bad_label")
        return names
    strange = [name for name in names if name not in declared]
    missing = [name for name in declared if name not in names]
    if strange or missing:
        parts = [f"holds the unknown class {', '.join(strange)}"] if strange else []
        parts += [f"lacks the class {', '.join(missing)}"] if missing else []
        raise InputError(
            f"{place} {' and '.join(parts)}",
            hint=f"the card's classes are: {', '.join(declared)}",
            kind="class_mismatch",
        )
    return tuple(declared)


def load_reader(kind: str, catalog: Catalog) -> type[Reader]:
    """Return the reader of that name in the catalogues.

    Raises:
        InputError: When nothing has that name, or its file cannot be imported.
    """
    return cast("type[Reader]", catalog.load("reader", kind, Reader))  # type: ignore[type-abstract]


def recognise(path: Path, catalog: Catalog) -> type[Reader]:
    """Return the reader of an existing file or folder that has no card.

    Raises:
        InputError: When no reader knows it, or two readers of one rank claim it.
    """
    readers = [load_reader(name, catalog) for name in catalog.entries("reader")]
    claims = sorted((each for each in readers if each.recognises(path)), key=lambda each: -each.card.rank)
    if not claims:
        raise InputError(
            f"the dataset {path} is a file of an unknown kind",
            hint="give a catalogue name, a folder of class folders, a .csv file or a card (.toml)",
            kind="unknown_dataset",
        )
    if len(claims) > 1 and claims[0].card.rank == claims[1].card.rank:
        names = " and ".join(each.card.name for each in claims[:2])
        raise InputError(
            f"the readers {names} both claim {path}",
            hint="write a card whose [reader] names one of them",
            kind="ambiguous_dataset",
        )
    return claims[0]


def require_labels(reader: Reader, task: TaskType, name: str) -> None:
    """Refuse a reader whose labels are none of the task's.

    Raises:
        InputError: When they are not.
    """
    try:
        task.labels.to_array([record.label for record in reader.records[:1]])
    except (TypeError, ValueError) as error:
        raise InputError(
            f"the labels of '{name}' are no {task.title} labels: the reader '{reader.card.name}' gives "
            f"{reader.records[0].label!r}",
            hint="let the card name another task, or another reader",
            kind="unsupported_task",
        ) from error

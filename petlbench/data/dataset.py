"""A dataset that can be opened: from a catalogue name, a card, a folder of class folders or a CSV file."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from petlbench.core.catalog import Catalog
from petlbench.core.errors import InputError, unknown_name
from petlbench.data.card import DatasetCard, ReaderKind, ReaderSpec, load_card
from petlbench.data.images.decode import to_rgb
from petlbench.data.readers.base import Reader
from petlbench.data.readers.huggingface import is_saved_dataset
from petlbench.data.readers.registry import check_settings, open_reader, reader_at
from petlbench.data.record import Record

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["Dataset", "DatasetInfo", "Record", "describe_dataset", "find_card", "open_dataset", "require_same_classes"]


class Dataset:
    """A dataset whose images can be read.

    Args:
        name: The short name used in run ids.
        card: What is known of it.
        reader: Where records and images come from.
        settings: The reader's settings, complete.
    """

    def __init__(self, name: str, card: DatasetCard, reader: Reader, settings: Mapping[str, Any]) -> None:
        self.name = name
        self.card = card
        self.settings = dict(settings)
        self._reader = reader

    @property
    def records(self) -> tuple[Record, ...]:
        """Every image, in an order that does not depend on the file system or the locale."""
        return self._reader.records

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names; a record's label is a position in it."""
        return self._reader.classes

    @property
    def notes(self) -> tuple[str, ...]:
        """What was left out or put together while reading, in words."""
        return self._reader.notes

    def keep(self, records: Sequence[Record]) -> Dataset:
        """Return the same dataset with some of its records only."""
        return Dataset(self.name, self.card, _Part(self._reader, tuple(records), self.classes), self.settings)

    def labelled_as(self, classes: Sequence[str]) -> Dataset:
        """Return the same images with labels that are positions in another order of the classes.

        Args:
            classes: The same class names.

        Raises:
            InputError: When they are not the same.
        """
        require_same_classes(self.name, self.classes, classes)
        label = {position: tuple(classes).index(name) for position, name in enumerate(self.classes)}
        records = tuple(replace(record, label=label[record.label]) for record in self.records)
        return Dataset(self.name, self.card, _Part(self._reader, records, tuple(classes)), self.settings)

    def open(self, record: Record) -> Image:
        """Open one image.

        Args:
            record: One of this dataset's records.

        Returns:
            The image in RGB, 8 bits a channel, turned as its EXIF orientation says.

        Raises:
            InputError: When the image is absent, empty, cut off or broken; the message names the file.
        """
        return to_rgb(self.open_deep(record))

    def open_deep(self, record: Record) -> Image:
        """Open one image as deep as its file is, for what resizes it.

        Args:
            record: One of this dataset's records.

        Returns:
            As `open`, but in mode F, with greys from 0 to 255, where the file's greys have more than 8 bits.

        Raises:
            InputError: As for `open`.
        """
        return self._reader.open(record)

    def file(self, record: Record) -> Path | None:
        """Return the file of one image; None where the image is made, or lies in a file with others."""
        return self._reader.file(record)

    def content_hash(self, record: Record) -> str:
        """Return the SHA-256, in hexadecimal, of the file's bytes or, without a file, of the RGB pixels.

        Raises:
            InputError: When the file cannot be read.
        """
        return self._reader.content_hash(record)


class _Part:
    """A reader of which some records are left out, or labelled in another order of the classes."""

    def __init__(self, whole: Reader, records: tuple[Record, ...], classes: tuple[str, ...]) -> None:
        self.records = records
        self.classes = classes
        self.notes = whole.notes
        self.open = whole.open
        self.file = whole.file
        self.content_hash = whole.content_hash


@dataclass(frozen=True)
class DatasetInfo:
    """What is known of a dataset before a run.

    Args:
        name: The short name used in run ids.
        card: Its card.
        images: Number of images, or None where neither the files nor the card tell.
        settings: The reader's settings, complete.
        dataset: The dataset itself; None where its images are not there.
    """

    name: str
    card: DatasetCard
    images: int | None
    settings: Mapping[str, Any]
    dataset: Dataset | None = None

    @property
    def readable(self) -> bool:
        """Whether the images are there."""
        return self.dataset is not None

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names; a label is a position in it."""
        return self.card.classes


def require_same_classes(name: str, classes: Sequence[str], wanted: Sequence[str]) -> None:
    """Refuse an external test set whose classes are not those that a run learns.

    Args:
        name: The external test set.
        classes: Its classes.
        wanted: Those of the dataset that is trained on, in any order.

    Raises:
        InputError: When they differ.
    """
    if set(classes) != set(wanted):
        raise InputError(
            f"--test-on {name}: its classes are {', '.join(classes)}; the run learns {', '.join(wanted)}",
            hint="an external test set has the same classes, by name",
            kind="class_mismatch",
        )


def open_dataset(reference: str, *, catalog: Catalog, data_root: Path, settings: Mapping[str, Any]) -> Dataset:
    """Open a dataset.

    Args:
        reference: A name in the catalogue, or else the path of a card (``.toml``), a CSV file or a folder of class
            folders. A folder that has a catalogue name is meant with ``./name``.
        catalog: The catalogues.
        data_root: The folder below which the images of a card lie, in a folder of the dataset's name.
        settings: The reader's settings that differ from the card's, by name.

    Returns:
        The dataset.

    Raises:
        InputError: When the reference is neither name nor path, a setting is unknown or out of bounds, the images
            are not there, or the files are not as the reader expects them.
    """
    found = _find(reference, catalog)
    if found.card is None:
        return _open_path(found, settings)
    values = check_settings(found.name, found.card.reader, settings)
    reader = open_reader(found.name, found.card, data_root, values)
    return Dataset(found.name, found.card, reader, values.model_dump())


def describe_dataset(reference: str, *, catalog: Catalog, data_root: Path, settings: Mapping[str, Any]) -> DatasetInfo:
    """Say what is known of a dataset; the images of a card need not be there.

    Args:
        reference: As for `open_dataset`.
        catalog: The catalogues.
        data_root: As for `open_dataset`.
        settings: As for `open_dataset`.

    Returns:
        The card, and the number of images: counted where they can be read, else as the card says.

    Raises:
        InputError: As for `open_dataset`, but never because a card's images are not there or its task is one that
            no run can train on.
    """
    try:
        dataset = open_dataset(reference, catalog=catalog, data_root=data_root, settings=settings)
    except InputError as error:
        found = _find(reference, catalog)
        if found.card is None or error.kind not in ("data_missing", "unsupported_task"):
            raise
        values = check_settings(found.name, found.card.reader, settings)
        return DatasetInfo(found.name, found.card, found.card.counts.official.images, values.model_dump())
    return DatasetInfo(dataset.name, dataset.card, len(dataset.records), dataset.settings, dataset)


def find_card(reference: str, *, catalog: Catalog) -> tuple[str, DatasetCard | None]:
    """Find a dataset's name and card without looking at an image.

    Args:
        reference: As for `open_dataset`.
        catalog: The catalogues.

    Returns:
        The short name, and the card; None for a folder or a CSV file, which have none.

    Raises:
        InputError: When the reference is neither name nor path, or the card is wrong.
    """
    found = _find(reference, catalog)
    return found.name, found.card


@dataclass(frozen=True)
class _Found:
    name: str
    path: Path
    card: DatasetCard | None


def _find(reference: str, catalog: Catalog) -> _Found:
    entries = catalog.entries("dataset")
    if reference in entries:
        file = entries[reference].file
        return _Found(reference, file, load_card(file))
    path = Path(reference).expanduser()
    suffix = path.suffix.lower()
    if path.is_dir():
        return _Found(_short_name(path.resolve().name), path, None)
    if path.is_file() and suffix == ".toml":
        return _Found(_short_name(path.stem), path, load_card(path))
    if path.is_file() and suffix == ".csv":
        return _Found(_short_name(path.stem), path, None)
    if path.is_file():
        raise InputError(
            f"the dataset {reference} is a file of an unknown kind",
            hint="give a catalogue name, a folder of class folders, a .csv file or a card (.toml)",
            kind="unknown_dataset",
        )
    names = f"known: {', '.join(entries)}; or give an existing folder, CSV file or card (none at {path.absolute()})"
    raise unknown_name("dataset", reference, entries, hint=names)


def _short_name(text: str) -> str:
    """Keep what is safe in a run id and in a file name on any system."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-._") or "dataset"


def _open_path(found: _Found, settings: Mapping[str, Any]) -> Dataset:
    in_folder: ReaderKind = "huggingface" if is_saved_dataset(found.path) else "folder"
    kind: ReaderKind = in_folder if found.path.is_dir() else "csv"
    values = check_settings(found.name, ReaderSpec(kind=kind), settings)
    reader = reader_at(found.path, values, None)
    return Dataset(found.name, _card_for(found.name, kind, reader), reader, values.model_dump())


def _card_for(name: str, kind: ReaderKind, reader: Reader) -> DatasetCard:
    """Write the card of a dataset that came without one."""
    splits = {record.split for record in reader.records}
    grouped = any(record.group is not None for record in reader.records)
    return DatasetCard(
        title=name,
        modality="unknown",
        task="binary" if len(reader.classes) == 2 else "multiclass",
        classes=reader.classes,
        licence="unknown",
        version=1,
        reader=ReaderSpec(kind=kind),
        split="official" if {"train", "test"} <= splits else "random",
        grouping="group" if grouped else "unavailable",
    )

"""A dataset that can be opened: from a catalogue name, a card, a folder of class folders or a CSV file."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from petlbench.core.catalog import Catalog
from petlbench.core.errors import InputError, unknown_name
from petlbench.data.card import DatasetCard, OfficialFile, ReaderSpec, load_card
from petlbench.data.images.decode import to_rgb
from petlbench.data.readers.base import Reader, Source, check_settings, load_reader, recognise
from petlbench.data.record import Record, images_by_class
from petlbench.data.tasks.base import TaskType, task_of

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = [
    "Dataset",
    "DatasetInfo",
    "Record",
    "describe_dataset",
    "find_card",
    "official_files",
    "open_dataset",
    "require_same_classes",
]


@dataclass(eq=False)
class Dataset:
    """A dataset whose images can be read.

    Args:
        name: The short name used in run ids.
        card: What is known of it.
        reader: Where records and images come from.
        settings: The reader's settings, complete.
        task: What a label is, and what follows from it.
    """

    name: str
    card: DatasetCard
    reader: Reader
    settings: Mapping[str, Any]
    task: TaskType

    @property
    def records(self) -> tuple[Record, ...]:
        """Every image, in an order that does not depend on the file system or the locale."""
        return self.reader.records

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names; a record's label refers to positions in it."""
        return self.reader.classes

    @property
    def notes(self) -> tuple[str, ...]:
        """What was left out or put together while reading, in words."""
        return self.reader.notes

    def by_class(self, records: Iterable[Record] | None = None) -> dict[str, int]:
        """Return the number of images of each class, of all records or of some."""
        return images_by_class(self.records if records is None else records, self.classes, self.task.labels)

    def keep(self, records: Sequence[Record]) -> Dataset:
        """Return the same dataset with some of its records only."""
        return self._with(tuple(records), self.classes)

    def labelled_as(self, classes: Sequence[str]) -> Dataset:
        """Return the same images with labels that are positions in another order of the same classes.

        Raises:
            InputError: When they are not the same.
        """
        require_same_classes(self.name, self.classes, classes)
        order = [list(classes).index(name) for name in self.classes]
        renumbered = self.task.labels.renumbered
        records = tuple(replace(record, label=renumbered(record.label, order)) for record in self.records)
        return self._with(records, tuple(classes))

    def _with(self, records: tuple[Record, ...], classes: tuple[str, ...]) -> Dataset:
        reader = copy.copy(self.reader)
        reader.records, reader.classes = records, classes
        return replace(self, reader=reader)

    def open(self, record: Record) -> Image:
        """Return one image in RGB, 8 bits a channel, turned as its EXIF orientation says.

        Raises:
            InputError: When the image is absent, empty, cut off or broken; the message names the file.
        """
        return to_rgb(self.reader.open(record))

    def open_deep(self, record: Record) -> Image:
        """Return one image as `open` does, but in mode F, greys from 0 to 255, where the file's have over 8 bits."""
        return self.reader.open(record)

    def file(self, record: Record) -> Path | None:
        """Return the file of one image; None where the image is made, or lies in a file with others."""
        return self.reader.file(record)

    def content_hash(self, record: Record) -> str:
        """Return the SHA-256, in hexadecimal, of the file's bytes or, without a file, of the RGB pixels."""
        return self.reader.content_hash(record)


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


def require_same_classes(name: str, classes: Sequence[str], expected: Sequence[str]) -> None:
    """Refuse an external test set of that name whose classes are not those that a run learns, in any order.

    Raises:
        InputError: When they differ.
    """
    if set(classes) != set(expected):
        raise InputError(
            f"--test-on {name}: its classes are {', '.join(classes)}; the run learns {', '.join(expected)}",
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
    match = _find(reference, catalog)
    reader, values = _reader_of(match, catalog, settings)
    if match.card is None:
        opened = reader(Source(match.name, match.path, values))
        card = _card_for(match.name, opened)
        return Dataset(match.name, card, opened, values.model_dump(), task_of(match.name, card, catalog))
    task = task_of(match.name, match.card, catalog)
    opened = reader(Source(match.name, data_root / match.name, values, match.card, task.labels))
    return Dataset(match.name, match.card, opened, values.model_dump(), task)


def describe_dataset(reference: str, *, catalog: Catalog, data_root: Path, settings: Mapping[str, Any]) -> DatasetInfo:
    """Return what is known of a dataset, its Args as for `open_dataset`; the images of a card need not be there.

    The number of images is counted where they can be read, and else the card's.

    Raises:
        InputError: As for `open_dataset`, but never because a card's images are not there or its task is one that
            no run can train on.
    """
    try:
        dataset = open_dataset(reference, catalog=catalog, data_root=data_root, settings=settings)
    except InputError as error:
        match = _find(reference, catalog)
        if match.card is None or error.kind not in ("data_missing", "unsupported_task"):
            raise
        _, values = _reader_of(match, catalog, settings)
        return DatasetInfo(match.name, match.card, match.card.counts.official.images, values.model_dump())
    return DatasetInfo(dataset.name, dataset.card, len(dataset.records), dataset.settings, dataset)


def find_card(reference: str, *, catalog: Catalog) -> tuple[str, DatasetCard | None]:
    """Return a dataset's short name and its card, without looking at an image; None for a path, which has no card.

    Raises:
        InputError: When the reference is neither name nor path, or the card is wrong.
    """
    match = _find(reference, catalog)
    return match.name, match.card


def official_files(
    reference: str, *, catalog: Catalog, data_root: Path, settings: Mapping[str, Any]
) -> Sequence[OfficialFile]:
    """Return the official files that a dataset, its Args as for `open_dataset`, is read from with these settings.

    Raises:
        InputError: When the reference is neither name nor path, or a setting is unknown or out of bounds.
    """
    match = _find(reference, catalog)
    reader, values = _reader_of(match, catalog, settings)
    return reader.official_files(Source(match.name, data_root / match.name, values, match.card))


@dataclass(frozen=True)
class _Match:
    """What a reference names: a card's file, or a path that a reader recognises."""

    name: str
    path: Path
    card: DatasetCard | None = None


def _find(reference: str, catalog: Catalog) -> _Match:
    entries = catalog.entries("dataset")
    if reference in entries:
        file = entries[reference].file
        return _Match(reference, file, load_card(file, catalog))
    path = Path(reference).expanduser()
    if path.is_file() and path.suffix.lower() == ".toml":
        return _Match(_short_name(path.stem), path, load_card(path, catalog))
    if path.is_dir():
        return _Match(_short_name(path.resolve().name), path)
    if path.is_file():
        recognise(path, catalog)
        return _Match(_short_name(path.stem), path)
    names = f"known: {', '.join(entries)}; or give an existing folder, CSV file or card (none at {path.absolute()})"
    raise unknown_name("dataset", reference, entries, hint=names)


def _reader_of(match: _Match, catalog: Catalog, settings: Mapping[str, Any]) -> tuple[type[Reader], BaseModel]:
    """Return the reader and its settings: the card's, and over them the user's."""
    if match.card is None:
        reader = recognise(match.path, catalog)
        return reader, check_settings(match.name, reader, settings)
    reader = load_reader(match.card.reader.kind, catalog)
    return reader, check_settings(match.name, reader, {**match.card.reader.settings, **settings})


def _short_name(text: str) -> str:
    """Keep what is safe in a run id and in a file name on any system."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-._") or "dataset"


def _card_for(name: str, reader: Reader) -> DatasetCard:
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
        reader=ReaderSpec(kind=reader.card.name),
        split="official" if {"train", "test"} <= splits else "random",
        grouping="group" if grouped else "unavailable",
    )

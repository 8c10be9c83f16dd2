"""A dataset that can be opened: from a catalogue name, a card, a folder of class folders or a CSV file."""

from __future__ import annotations

import copy
import hashlib
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from petlbench.core.catalog import Catalog
from petlbench.core.config import validate_settings
from petlbench.core.errors import InputError, unknown_name
from petlbench.core.progress import Progress
from petlbench.core.text import printable
from petlbench.data.card import DatasetCard, OfficialFile, ReaderSpec, load_card
from petlbench.data.images.decode import Decoding, to_rgb
from petlbench.data.images.greys import GreyRange, Greys
from petlbench.data.notes import absent_in_training, notes_on_classes, notes_on_groups, notes_on_sides
from petlbench.data.order import ONE_CLASS, order_of, task_name
from petlbench.data.readers.base import Reader, Source, load_reader, recognise, require_labels
from petlbench.data.readers.settings import ReaderSettings
from petlbench.data.record import SPLITS, Record, Split, each_image, images_by_class, map_images
from petlbench.data.tasks.base import Labels, TaskType, task_of

if TYPE_CHECKING:
    from PIL.Image import Image


_LONGEST_NAME = 100


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
    def records(self) -> Sequence[Record]:
        """Every image, in an order that does not depend on the file system or the locale."""
        return self.reader.records

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names; a record's label refers to positions in it."""
        return self.reader.classes

    @property
    def notes(self) -> tuple[str, ...]:
        """What was left out or put together while reading, in words; and of greys, once they were measured."""
        return (*self.reader.notes, *self.greys.notes())

    @property
    def greys(self) -> Greys:
        """What is white where greys have more than 8 bits."""
        return self.reader.decoding.greys or Greys.recorded({})

    def measure_greys(self, workers: int, progress: Progress) -> None:
        """See over all images what is white where greys have more than 8 bits; an image that is opened first does, too.

        Args:
            workers: Threads that decode.
            progress: Told of every image with such greys.
        """
        reader = self.reader

        def measure() -> Iterable[GreyRange]:
            heads = each_image(reader.records, reader.has_deep_greys, workers, Progress())
            deep = [record for record, is_deep in heads if is_deep is True]
            if not deep:
                return ()
            return map_images(deep, reader.grey_range, workers, progress, "measuring greys")[0].values()

        self.greys.measure(measure)

    def pixel_key(self, digest: str) -> str:
        """Return what names the pixels of an image with that content: another white makes others of the same file."""
        return self.pixel_keys([digest])[0]

    def pixel_keys(self, digests: Sequence[str]) -> list[str]:
        """Return what `pixel_key` does, of many images."""
        tag = self.greys.tag()
        return [hashlib.sha256(f"{digest}, {tag}".encode()).hexdigest() for digest in digests] if tag else [*digests]

    def by_class(self, records: Iterable[Record] | None = None) -> dict[str, int]:
        """Return the number of images of each class, of all records or of some."""
        return images_by_class(self.records if records is None else records, self.classes, self.task.labels)

    def by_side(self, sides: Sequence[Split]) -> dict[str, dict[str, int]]:
        """Return the number of images of each class on each side, where these are the records' sides."""
        return {
            side: self.by_class(record for record, own in zip(self.records, sides, strict=True) if own == side)
            for side in SPLITS
        }

    def keep(self, records: Sequence[Record]) -> Dataset:
        """Return the same dataset with some of its records only."""
        return self._with(tuple(records), self.classes)

    def labelled_as(self, classes: Sequence[str]) -> Dataset:
        """Return the same images with labels that are positions in another order of the classes, or in more of them.

        Raises:
            InputError: When one of its classes is none of them.
        """
        require_learned_classes(self.name, self.classes, classes)
        order = [list(classes).index(name) for name in self.classes]
        renumbered = self.task.labels.renumbered
        records = tuple(replace(record, label=renumbered(record.label, order, len(classes))) for record in self.records)
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


def require_learned_classes(name: str, classes: Sequence[str], learned: Sequence[str]) -> None:
    """Refuse an external test set of that name with a class that a run does not learn; it may lack some.

    Raises:
        InputError: When it has one.
    """
    others = [each for each in classes if each not in learned]
    if others:
        raise InputError(
            f"the classes of the test set {name} are {', '.join(classes)}; the run learns {', '.join(learned)}, and "
            f"not {', '.join(others)}",
            hint="an external test set has classes that the run learns, by name; some may be absent",
            kind="class_mismatch",
        )


EXTERNAL = "test_on."
"""What the settings of an external test set begin with among those of a run's dataset."""


@contextmanager
def external_settings(settings: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Give the settings of a run's external test set: those of its dataset that begin with ``test_on.``.

    Errors inside name the option that sets them.
    """
    try:
        yield {name.removeprefix(EXTERNAL): value for name, value in settings.items() if name.startswith(EXTERNAL)}
    except InputError as error:
        hint = error.hint.replace("--set dataset.", "--test-set ").replace("--set 'dataset.", "--test-set '")
        raise InputError(error.message, hint=hint, kind=error.kind) from error


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
        named = _common(values).task_name
        labels = catalog.load("task", named, TaskType).labels if named else Labels()
        opened = reader(Source(match.name, match.path, values, labels=labels))
        counts = images_by_class(opened.records, opened.classes, labels)
        doubts = (*notes_on_classes(counts, opened.records), *notes_on_sides(opened.records))
        doubts += notes_on_groups(opened.records)
        opened.notes = tuple(map(printable, (*opened.notes, *doubts)))
        card = _card_for(match.name, opened, named)
        dataset = Dataset(match.name, card, opened, values.model_dump(), task_of(card, catalog))
        return _as_set(dataset, values, catalog)
    card, task = _common(values).card_as_set(match.card), task_of(match.card, catalog)
    if _common(values).task_name not in ("", task.name):
        raise InputError(
            f"the dataset '{match.name}': its settings mean the task {_common(values).task_name}, and its card says "
            f"{task.name}",
            hint="leave the settings of the other task out",
            kind="bad_setting",
        )
    opened = reader(Source(match.name, data_root / match.name, values, card, task.labels))
    require_labels(opened, task, match.name)
    return _as_set(Dataset(match.name, card, opened, values.model_dump(), task), values, catalog)


def _as_set(dataset: Dataset, values: BaseModel, catalog: Catalog) -> Dataset:
    """The dataset as the settings that every reader has say: how images are decoded, and the classes' order."""
    common, reader = _common(values), dataset.reader
    reader.notes += absent_in_training(reader.records, reader.classes, dataset.task.labels)
    reader.decoding = Decoding(Greys(partial(_ranges, reader, reader.records), common.grey_maximum), common.most_pixels)
    order = dataset.settings.get("order", "")
    if not order:
        return dataset
    classes = order_of(order, dataset.classes, dataset.name)
    task = task_name(classes, order) if dataset.task.name in ONE_CLASS else dataset.task.name
    card = dataset.card.model_copy(update={"classes": classes, "task": task})
    return replace(dataset.labelled_as(classes), card=card, task=task_of(card, catalog))


def _common(values: BaseModel) -> ReaderSettings:
    # A user's reader may have settings that are none of ours.
    return values if isinstance(values, ReaderSettings) else ReaderSettings()


def _ranges(reader: Reader, records: Sequence[Record]) -> Iterator[GreyRange]:
    for record in records:
        with suppress(InputError):  # whoever reads the image is told what is wrong with it
            if reader.has_deep_greys(record):
                yield reader.grey_range(record)


def describe_dataset(reference: str, *, catalog: Catalog, data_root: Path, settings: Mapping[str, Any]) -> DatasetInfo:
    """Return what is known of a dataset, its Args as for `open_dataset`; the images of a card need not be there.

    The number of images is counted where they can be read, and else the card's.

    Raises:
        InputError: As for `open_dataset`, but never because a card's images are not there.
    """
    try:
        dataset = open_dataset(reference, catalog=catalog, data_root=data_root, settings=settings)
    except InputError as error:
        match = _find(reference, catalog)
        if match.card is None or error.kind != "data_missing":
            raise
        _, values = _reader_of(match, catalog, settings)
        card = _common(values).card_as_set(match.card)
        return DatasetInfo(match.name, card, card.counts.official.images, values.model_dump())
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
    path = existing_path(reference)
    if path is None:
        place = f" (none at {Path(reference).absolute()})" if reference.strip() and "://" not in reference else ""
        names = f"known: {', '.join(entries)}; or give an existing folder, CSV file or card{place}"
        raise unknown_name("dataset", reference, entries, hint=names)
    if path.is_dir():
        return _Match(_short_name(path.resolve().name), path)
    if path.suffix.lower() == ".toml":
        return _Match(_short_name(path.stem), path, load_card(path, catalog))
    recognise(path, catalog)
    return _Match(_short_name(path.stem), path)


def existing_path(reference: str) -> Path | None:
    """Return the file or folder that a dataset's reference names; None where there is none, whatever the text is."""
    if not reference.strip():
        return None
    try:
        path = Path(reference).expanduser()
        return path if path.is_file() or path.is_dir() else None
    except (OSError, RuntimeError, ValueError):  # a name that is too long, of nobody, or with a zero byte in it
        return None


def _reader_of(match: _Match, catalog: Catalog, settings: Mapping[str, Any]) -> tuple[type[Reader], BaseModel]:
    """Return the reader and its settings: the card's, and over them the user's, but for those of another dataset."""
    settings = {name: value for name, value in settings.items() if not name.startswith(EXTERNAL)}
    owner = f"the dataset '{match.name}'"
    if match.card is None:
        reader = recognise(match.path, catalog)
        return reader, validate_settings(reader.Settings, settings, owner)
    reader = load_reader(match.card.reader.kind, catalog)
    return reader, validate_settings(reader.Settings, {**match.card.reader.settings, **settings}, owner)


def _short_name(text: str) -> str:
    """Keep what is safe in a run id and in a file name on any system.

    Where little of the text stays, as of names in other scripts, or it is too long, a digest tells it from others.
    """
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-._")
    lost = sum(character.isalnum() and not character.isascii() for character in text)
    if name and lost <= len(name) and len(name) <= _LONGEST_NAME:
        return name
    digest = hashlib.sha256(unicodedata.normalize("NFC", text).encode("utf-8", "surrogateescape")).hexdigest()
    return f"{name[:_LONGEST_NAME] or 'dataset'}-{digest[:8]}"


def _card_for(name: str, reader: Reader, task: str) -> DatasetCard:
    """Write the card of a dataset that came without one, of a task type that its settings name, or of classes."""
    splits = {record.split for record in reader.records}
    grouped = any(record.group is not None for record in reader.records)
    return DatasetCard(
        title=name,
        modality="unknown",
        task=task or task_name(reader.classes),
        classes=reader.classes,
        licence="unknown",
        version=1,
        reader=ReaderSpec(kind=reader.card.name),
        split="official" if {"train", "test"} <= splits or {"train", "val"} <= splits else "random",
        grouping="group" if grouped else "unavailable",
    )

"""A dataset that can be opened: from a catalogue name, a card, a folder of class folders or a CSV file."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, ValidationError

from petlbench.catalog import Catalog
from petlbench.data.card import DatasetCard, ReaderKind, ReaderSpec, load_card
from petlbench.data.csv_reader import CsvReader, CsvSettings
from petlbench.data.digits_reader import DigitsReader, DigitsSettings
from petlbench.data.folder_reader import FolderReader, FolderSettings
from petlbench.data.lesions import LesionReader, LesionSettings
from petlbench.data.reader import Reader
from petlbench.data.record import Record
from petlbench.errors import InputError, unknown_name

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["Dataset", "DatasetInfo", "Record", "describe_dataset", "open_dataset"]


class _NoSettings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


_SETTINGS: Mapping[ReaderKind, type[BaseModel]] = {
    "folder": FolderSettings,
    "csv": CsvSettings,
    "sklearn_digits": DigitsSettings,
    "lesions": LesionSettings,
    "unavailable": _NoSettings,
}


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
        return Dataset(self.name, self.card, _Part(self._reader, tuple(records)), self.settings)

    def open(self, record: Record) -> Image:
        """Open one image.

        Args:
            record: One of this dataset's records.

        Returns:
            The image in RGB, 8 bits a channel, turned as its EXIF orientation says.

        Raises:
            InputError: When the image is absent, empty, cut off or broken; the message names the file.
        """
        return self._reader.open(record)

    def content_hash(self, record: Record) -> str:
        """Return the SHA-256, in hexadecimal, of the file's bytes or, without a file, of the RGB pixels.

        Raises:
            InputError: When the file cannot be read.
        """
        return self._reader.content_hash(record)


class _Part:
    """A reader of which some records are left out."""

    def __init__(self, whole: Reader, records: tuple[Record, ...]) -> None:
        self.records = records
        self.classes = whole.classes
        self.notes = whole.notes
        self.open = whole.open
        self.content_hash = whole.content_hash


@dataclass(frozen=True)
class DatasetInfo:
    """What is known of a dataset before a run.

    Args:
        name: The short name used in run ids.
        card: Its card.
        images: Number of images, or None where neither the files nor the card tell.
        settings: The reader's settings, complete.
        readable: Whether the images are there.
    """

    name: str
    card: DatasetCard
    images: int | None
    settings: Mapping[str, Any]
    readable: bool

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names; a label is a position in it."""
        return self.card.classes


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
    values = _checked(found.name, found.card.reader, settings)
    reader = _card_reader(found.name, found.card, data_root, values)
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
        InputError: As for `open_dataset`, but never because a card's images are not there.
    """
    try:
        dataset = open_dataset(reference, catalog=catalog, data_root=data_root, settings=settings)
    except InputError as error:
        found = _find(reference, catalog)
        if found.card is None or error.kind != "data_missing":
            raise
        values = _checked(found.name, found.card.reader, settings)
        return DatasetInfo(found.name, found.card, found.card.counts.official.images, values.model_dump(), False)
    return DatasetInfo(dataset.name, dataset.card, len(dataset.records), dataset.settings, True)


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
    reader: Reader
    if found.path.is_dir():
        kind: ReaderKind = "folder"
        values = _checked(found.name, ReaderSpec(kind=kind), settings)
        reader = FolderReader(found.path)
    else:
        kind = "csv"
        values = _checked(found.name, ReaderSpec(kind=kind), settings)
        reader = CsvReader(found.path, CsvSettings.model_validate(values.model_dump()))
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


def _card_reader(name: str, card: DatasetCard, data_root: Path, values: BaseModel) -> Reader:
    if card.task == "multilabel":
        raise InputError(
            f"the dataset '{name}' has several labels an image, which petlbench cannot train on yet",
            hint="choose a dataset whose task is multiclass, binary or ordinal",
            kind="unsupported_task",
        )
    if isinstance(values, LesionSettings):
        return LesionReader(values, card.classes)
    if isinstance(values, DigitsSettings):
        return DigitsReader()
    root = _require_folder(name, card, data_root / name)
    if isinstance(values, CsvSettings):
        return CsvReader(root / card.reader.file, values, card.classes)
    return FolderReader(root, card.classes)


def _require_folder(name: str, card: DatasetCard, root: Path) -> Path:
    if card.reader.kind == "unavailable":
        raise InputError(
            f"the images of '{name}' cannot be read: petlbench has no reader for its official files yet; they "
            f"would lie in {root}",
            hint=f"arrange them as class folders or with a CSV file and give that path; official page: {card.home}",
            kind="data_missing",
        )
    if not root.is_dir():
        source = f"; official page: {card.home}" if card.home else ""
        raise InputError(
            f"the images of '{name}' are missing: there is no folder {root}",
            hint=f"put them there, or name another place with --data-root{source}",
            kind="data_missing",
        )
    return root


def _checked(name: str, spec: ReaderSpec, settings: Mapping[str, Any]) -> BaseModel:
    """Check the reader's settings: the card's, and over them the user's."""
    model = _SETTINGS[spec.kind]
    known = _known(model)
    merged = {**spec.settings, **settings}
    for key in merged:
        if key not in model.model_fields:
            raise InputError(
                f"the dataset '{name}' has no setting '{key}'", hint=f"settings: {known}", kind="unknown_setting"
            )
    try:
        return model.model_validate(merged)
    except ValidationError as error:
        first = error.errors()[0]
        said = first["msg"].removeprefix("Value error, ")
        if first["loc"]:
            key = str(first["loc"][0])
            said = f"{key} = {merged[key]!r} is wrong: {said[0].lower()}{said[1:]}"
        raise InputError(f"the dataset '{name}': {said}", hint=f"settings: {known}", kind="bad_setting") from error


def _known(model: type[BaseModel]) -> str:
    """Say every setting with its bounds and default, for example ``image_count (60 to 100000, default 600)``."""
    said: list[str] = []
    for name, field in model.model_fields.items():
        low = next((m.ge for m in field.metadata if hasattr(m, "ge")), None)
        high = next((m.le for m in field.metadata if hasattr(m, "le")), None)
        bounds = f"{low} to {high}, " if low is not None and high is not None else ""
        said.append(f"{name} ({bounds}default {field.default})")
    return ", ".join(said) or "none"

"""Which reader a card means, with which settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from petlbench.core.errors import InputError
from petlbench.data.card import DatasetCard, ReaderKind, ReaderSpec
from petlbench.data.readers.base import Reader
from petlbench.data.readers.csv_file import CsvReader, CsvSettings
from petlbench.data.readers.digits import DigitsReader, DigitsSettings
from petlbench.data.readers.folder import FolderReader, FolderSettings
from petlbench.data.readers.huggingface import HuggingFaceReader, HuggingFaceSettings
from petlbench.data.readers.lesion_grades import LesionSettings
from petlbench.data.readers.lesions import LesionReader
from petlbench.data.readers.medmnist import MedMnistReader, MedMnistSettings, find_archive
from petlbench.data.readers.prepared import open_prepared

__all__ = ["check_settings", "open_reader", "reader_at", "require_trainable"]


class _NoSettings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


_SETTINGS: Mapping[ReaderKind, type[BaseModel]] = {
    "folder": FolderSettings,
    "csv": CsvSettings,
    "sklearn_digits": DigitsSettings,
    "lesions": LesionSettings,
    "medmnist": MedMnistSettings,
    "huggingface": HuggingFaceSettings,
    "official": _NoSettings,
    "unavailable": _NoSettings,
}


def open_reader(name: str, card: DatasetCard, data_root: Path, values: BaseModel) -> Reader:
    """Open the reader that a card names.

    Args:
        name: The dataset's short name.
        card: Its card.
        data_root: The folder below which the images of cards lie.
        values: What `check_settings` returned.

    Raises:
        InputError: When the task cannot be trained on, the images are not there, or the files are not as expected.
    """
    require_trainable(name, card)
    if isinstance(values, LesionSettings):
        return LesionReader(values, card.classes)
    if isinstance(values, DigitsSettings):
        return DigitsReader()
    return _file_reader(name, card, data_root, values)


def require_trainable(name: str, card: DatasetCard) -> None:
    """Refuse a task that no run can train on.

    Args:
        name: The dataset's short name.
        card: Its card.

    Raises:
        InputError: When an image has several labels.
    """
    if card.task == "multilabel":
        raise InputError(
            f"the dataset '{name}' has several labels an image, which petlbench cannot train on yet",
            hint="choose a dataset whose task is multiclass, binary or ordinal",
            kind="unsupported_task",
        )


def _file_reader(name: str, card: DatasetCard, data_root: Path, values: BaseModel) -> Reader:
    if isinstance(values, MedMnistSettings):
        return MedMnistReader(name, find_archive(name, card, data_root, values), values, card.classes)
    if card.reader.kind == "official":
        return open_prepared(name, card, data_root / name)
    root = _require_folder(name, card, data_root / name)
    place = root / card.reader.file if isinstance(values, CsvSettings) else root
    return reader_at(place, values, card.classes)


def reader_at(place: Path, values: BaseModel, declared: Sequence[str] | None) -> Reader:
    """Open the reader of a folder or table, by the kind of its settings.

    Args:
        place: The folder or file.
        values: What `check_settings` returned.
        declared: The card's classes, or None where there is no card.

    Raises:
        InputError: When the files are not as the reader expects them.
    """
    if isinstance(values, CsvSettings):
        return CsvReader(place, values, declared)
    if isinstance(values, HuggingFaceSettings):
        return HuggingFaceReader(place, values, declared)
    return FolderReader(place, declared)


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


def check_settings(name: str, spec: ReaderSpec, settings: Mapping[str, Any]) -> BaseModel:
    """Check a reader's settings: the card's, and over them the user's.

    Args:
        name: The dataset's short name.
        spec: The card's reader.
        settings: What the user set, by name.

    Returns:
        All settings of the reader.

    Raises:
        InputError: When a setting is unknown or out of bounds.
    """
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

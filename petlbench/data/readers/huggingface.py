"""The reader for a folder that Hugging Face's ``datasets`` wrote with ``save_to_disk``."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field

from petlbench.core.errors import InputError
from petlbench.data.images.decode import decode_image
from petlbench.data.readers.base import choose_classes
from petlbench.data.record import SPLIT_ALIASES, Record

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["HuggingFaceReader", "HuggingFaceSettings", "is_saved_dataset"]

# The one part of a dataset that was saved without a split.
_WHOLE = "all"


class HuggingFaceSettings(BaseModel):
    """How the columns are called."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    image_column: str = Field(default="image", min_length=1, description="Column of the images.")
    label_column: str = Field(default="label", min_length=1, description="Column of the class.")


def is_saved_dataset(folder: Path) -> bool:
    """Say by the files at its top whether a folder was written by ``save_to_disk``."""
    single = (folder / "dataset_info.json").is_file() and (folder / "state.json").is_file()
    return single or (folder / "dataset_dict.json").is_file()


@dataclass(frozen=True)
class _Labels:
    """The classes that a column of labels declares, if it does, and the class of every image."""

    classes: tuple[str, ...]
    names: list[str]


class HuggingFaceReader:
    """Reads a saved ``Dataset``, or a ``DatasetDict`` whose keys are the parts of a split.

    Args:
        folder: The folder.
        settings: How the columns are called.
        declared: The card's classes, or None to take the dataset's own.

    Raises:
        InputError: When ``datasets`` is not installed, the folder cannot be read, a column is missing or of a wrong
            kind, a part has an unknown name, or an image has no label.
    """

    notes: tuple[str, ...] = ()

    def __init__(self, folder: Path, settings: HuggingFaceSettings, declared: Sequence[str] | None = None) -> None:
        _require_datasets(folder)
        self._folder = folder
        self._settings = settings
        parts = self._load()
        labels = {part: self._labels(part, dataset) for part, dataset in sorted(parts.items())}
        self._encoded = {part: self._images(part, dataset) for part, dataset in parts.items()}
        self.classes: tuple[str, ...] = self._choose_classes(list(labels.values()), declared)
        self.records: tuple[Record, ...] = tuple(
            _record(part, position, self.classes.index(name))
            for part, found in labels.items()
            for position, name in enumerate(found.names)
        )

    def open(self, record: Record) -> Image:
        """Return the image in 8-bit RGB or, where its greys are deeper, in mode F from 0 to 255.

        Raises:
            InputError: When the image is absent or corrupt.
        """
        return decode_image(self._content(record), f"{record.path} of {self._folder}")

    def file(self, record: Record) -> None:
        """There is none: the images lie in tables."""

    def content_hash(self, record: Record) -> str:
        """Return the SHA-256 of the encoded image's bytes."""
        return hashlib.sha256(self._content(record)).hexdigest()

    def _content(self, record: Record) -> bytes:
        part, _, position = record.path.rpartition("/")
        cell = self._encoded[part][int(position)][self._settings.image_column]
        if cell is None or cell["bytes"] is None:
            raise InputError(
                f"{self._folder}: '{part}' holds no image at position {int(position)}",
                hint="save the dataset with its images in it, or run with --skip-corrupt",
                kind="missing_image",
            )
        content: bytes = cell["bytes"]
        return content

    def _load(self) -> dict[str, Any]:
        """Return the dataset's parts by name; a dataset that is not split has one."""
        from datasets import DatasetDict, load_from_disk
        from pyarrow import ArrowException

        try:
            loaded = load_from_disk(str(self._folder))
        except (ArrowException, AttributeError, LookupError, OSError, TypeError, ValueError) as error:
            raise self._wrong(f"it cannot be loaded: {str(error) or type(error).__name__}") from error
        if not isinstance(loaded, DatasetDict):
            return {_WHOLE: loaded.with_format(None)}
        self._check_sides(list(loaded))
        return dict(loaded.with_format(None))

    def _check_sides(self, parts: Sequence[str]) -> None:
        sides = [SPLIT_ALIASES.get(part.lower()) for part in parts]
        if None in sides or len(set(sides)) < len(sides):
            raise InputError(
                f"{self._folder}: its parts are {', '.join(parts)}, not one each for train, validation and test",
                hint="rename or remove the others and save it again, or save one part alone",
                kind="bad_layout",
            )

    def _column(self, part: str, dataset: Any, name: str, setting: str) -> Any:
        """Return one column as a dataset of its own."""
        if name not in dataset.features:
            raise InputError(
                f"{self._folder}: '{part}' has no column '{name}'; it has: {', '.join(dataset.features)}",
                hint=f"name the column with --set dataset.{setting}=NAME",
                kind="missing_column",
            )
        return dataset.select_columns([name])

    def _images(self, part: str, dataset: Any) -> Any:
        """Return the images of a part, still encoded."""
        from datasets import Image

        name = self._settings.image_column
        column = self._column(part, dataset, name, "image_column")
        if not isinstance(column.features[name], Image):
            raise self._wrong(f"the column '{name}' of '{part}' holds no images but {column.features[name]}")
        return column.cast_column(name, Image(decode=False))

    def _labels(self, part: str, dataset: Any) -> _Labels:
        name = self._settings.label_column
        column = self._column(part, dataset, name, "label_column")
        declared = self._class_names(column.features[name], part)
        values = column[:][name]
        for position, value in enumerate(values):
            if value in (None, "", -1):
                raise self._wrong(f"'{part}' has no label at position {position}", kind="empty_label")
        return _Labels(declared, [declared[value] if declared else str(value) for value in values])

    def _class_names(self, feature: Any, part: str) -> tuple[str, ...]:
        """Return the names that a column of labels declares: none where it holds plain numbers or texts."""
        from datasets import ClassLabel, Value

        if isinstance(feature, ClassLabel):
            return tuple(feature.names)
        if isinstance(feature, Value) and feature.dtype.startswith(("int", "uint", "bool", "string", "large_string")):
            return ()
        raise InputError(
            f"{self._folder}: the column '{self._settings.label_column}' of '{part}' holds {feature}, not one class "
            "an image",
            hint="a label is a ClassLabel, a whole number or a text; several labels an image cannot be trained on yet",
            kind="unsupported_task",
        )

    def _choose_classes(self, parts: Sequence[_Labels], declared: Sequence[str] | None) -> tuple[str, ...]:
        own = {part.classes for part in parts}
        if len(own) > 1:
            raise self._wrong("its parts do not have the same classes", kind="class_mismatch")
        in_order = own.pop()
        chosen = choose_classes(
            in_order or (name for part in parts for name in part.names), declared, str(self._folder)
        )
        return in_order if in_order and declared is None else chosen

    def _wrong(self, what: str, *, kind: str = "bad_layout") -> InputError:
        return InputError(f"{self._folder}: {what}", hint="save the dataset again with save_to_disk", kind=kind)


def _record(part: str, position: int, label: int) -> Record:
    locator = f"{part}/{position:06d}"
    return Record(locator, locator, label, split=SPLIT_ALIASES.get(part.lower()))


def _require_datasets(folder: Path) -> None:
    # An import would not tell: a checkout of petlbench has a plain folder of that name.
    try:
        version("datasets")
    except PackageNotFoundError as error:
        raise InputError(
            f"{folder} was saved by Hugging Face's package datasets, which is not installed",
            hint="install the extra: pip install 'petlbench[huggingface]'",
            kind="missing_package",
        ) from error

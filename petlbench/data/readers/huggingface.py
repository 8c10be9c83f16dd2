"""The reader for a folder that Hugging Face's ``datasets`` wrote with ``save_to_disk``."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from itertools import chain
from pathlib import Path
from typing import Any

import PIL.Image
from pydantic import Field

from petlbench.core.errors import InputError
from petlbench.data.images.decode import decode_image, grey_range, has_deep_greys
from petlbench.data.images.greys import GreyRange
from petlbench.data.readers.base import Reader, ReaderCard, ReaderSettings, Source, choose_classes
from petlbench.data.record import SPLIT_ALIASES, Record

__all__ = ["HuggingFaceReader"]

# The one part of a dataset that was saved without a split.
_WHOLE = "all"


class HuggingFaceSettings(ReaderSettings):
    """How the columns are called."""

    image_column: str = Field(default="image", min_length=1, description="Column of the images.")
    label_column: str = Field(default="label", min_length=1, description="Column of the class.")


class HuggingFaceReader(Reader):
    """Reads a saved ``Dataset``, or a ``DatasetDict`` whose keys are the parts of a split.

    Raises:
        InputError: When ``datasets`` is not installed, the folder cannot be read, a column is missing or of a wrong
            kind, a part has an unknown name, or an image has no label.
    """

    card = ReaderCard(name="huggingface", title="a dataset saved by Hugging Face's datasets")
    Settings = HuggingFaceSettings

    def __init__(self, source: Source) -> None:
        self._folder = source.folder()
        self._settings: HuggingFaceSettings = source.settings
        _require_datasets(self._folder)
        parts = self._load()
        own = {part: self._class_names(part, dataset) for part, dataset in sorted(parts.items())}
        labels = {part: self._labels(part, parts[part], names) for part, names in own.items()}
        self._encoded = {part: self._images(part, dataset) for part, dataset in parts.items()}
        if len(set(own.values())) > 1:
            raise self._wrong("its parts do not have the same classes", kind="class_mismatch")
        declared = next(iter(own.values()))
        names = declared or chain.from_iterable(labels.values())
        self.classes = choose_classes(names, source.classes, str(self._folder))
        if declared and source.classes is None:
            self.classes = declared
        self.records = tuple(
            _record(part, position, source.labels.parse(name, self.classes))
            for part, names in labels.items()
            for position, name in enumerate(names)
        )

    @classmethod
    def recognises(cls, path: Path) -> bool:
        """Whether the files at its top say that ``save_to_disk`` wrote it."""
        single = (path / "dataset_info.json").is_file() and (path / "state.json").is_file()
        return single or (path / "dataset_dict.json").is_file()

    def open(self, record: Record) -> PIL.Image.Image:
        """Return the image, decoded anew, as `Reader.open` does."""
        return decode_image(self._content(record), f"{record.path} of {self._folder}", self.decoding)

    def has_deep_greys(self, record: Record) -> bool:
        """Whether the encoded image's head says so."""
        return has_deep_greys(io.BytesIO(self._content(record)))

    def grey_range(self, record: Record) -> GreyRange:
        """Return the range of the encoded image's greys."""
        return grey_range(io.BytesIO(self._content(record)), f"{record.path} of {self._folder}", self.decoding)

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
            dataset = load_from_disk(str(self._folder))
        except (ArrowException, AttributeError, LookupError, OSError, TypeError, ValueError) as error:
            raise self._wrong(f"it cannot be loaded: {str(error) or type(error).__name__}") from error
        if not isinstance(dataset, DatasetDict):
            return {_WHOLE: dataset.with_format(None)}
        self._check_sides(list(dataset))
        return dict(dataset.with_format(None))

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

    def _labels(self, part: str, dataset: Any, names: Sequence[str]) -> list[str]:
        """Return the class of every image of a part."""
        name = self._settings.label_column
        values = dataset.select_columns([name])[:][name]
        for position, value in enumerate(values):
            if value in (None, "", -1):
                raise self._wrong(f"'{part}' has no label at position {position}", kind="empty_label")
        return [names[value] if names else str(value) for value in values]

    def _class_names(self, part: str, dataset: Any) -> tuple[str, ...]:
        """Return the names that a column of labels declares: none where it holds plain numbers or texts."""
        from datasets import ClassLabel, Value

        name = self._settings.label_column
        feature = self._column(part, dataset, name, "label_column").features[name]
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

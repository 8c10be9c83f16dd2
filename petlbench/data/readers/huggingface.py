"""The reader for a folder of Hugging Face's: what ``save_to_disk`` wrote, or parquet files as the hub has them."""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import PIL.Image
from pydantic import Field

from petlbench.core.errors import InputError
from petlbench.core.units import readable_size
from petlbench.core.user_files import open_file
from petlbench.data.images.decode import decode_image, grey_range, has_deep_greys
from petlbench.data.images.files import files_below
from petlbench.data.images.greys import GreyRange
from petlbench.data.readers.base import Reader, ReaderCard, Source, choose_classes
from petlbench.data.readers.settings import LabelSettings
from petlbench.data.record import SPLIT_ALIASES, Record
from petlbench.data.tasks.base import Labels

# The one part of a dataset that was saved without a split.
_WHOLE = "all"


_MOST_BYTES = 8 << 30
"""Of parquet files, which are held in memory; what ``save_to_disk`` writes is not."""


class HuggingFaceSettings(LabelSettings):
    """How the columns are called."""

    image_column: str = Field(default="image", min_length=1, description="Column of the images.")
    label_column: str = Field(default="label", min_length=1, description="Column of the class.")


class HuggingFaceReader(Reader):
    """Reads a saved ``Dataset``, a ``DatasetDict`` whose keys are the parts of a split, or parquet files of the hub.

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
        place = str(self._folder)
        own = {part: self._class_names(part, dataset, source.labels) for part, dataset in sorted(parts.items())}
        labels = {part: self._labels(part, parts[part], names, source.labels) for part, names in own.items()}
        self._encoded = {part: self._images(part, dataset) for part, dataset in parts.items()}
        if len(set(own.values())) > 1:
            raise self._wrong("its parts do not have the same classes", kind="class_mismatch")
        declared = next(iter(own.values()))
        places = [(part, position) for part, values in labels.items() for position in range(len(values))]
        written = [name for values in labels.values() for name in values]
        if not declared and source.classes is None:
            self._settings.refuse_empty_cells([name for name in written if source.labels.names(name)], place)
        names, self.notes = self._settings.relabelled(written, place)
        kept = [(each, name) for each, name in zip(places, names, strict=True) if name is not None]
        # What is renamed or left out is no longer as it was declared.
        found = source.labels.found([name for _, name in kept], source.classes)
        present = declared if declared and not self.notes else found
        self.classes = choose_classes(present, source.classes, place, source.labels)
        if declared and not self.notes and source.classes is None:
            self.classes = declared
        self.records = tuple(_record(*each, source.labels.parse(name, self.classes)) for each, name in kept)

    @classmethod
    def recognises(cls, path: Path) -> bool:
        """Whether the files at its top say that ``save_to_disk`` wrote it, or it holds parquet files."""
        single = (path / "dataset_info.json").is_file() and (path / "state.json").is_file()
        return single or (path / "dataset_dict.json").is_file() or bool(_parquet_files(path))

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
                hint="save the dataset with its images in it",
                kind="missing_image",
            )
        content: bytes = cell["bytes"]
        return content

    def _load(self) -> dict[str, Any]:
        """Return the dataset's parts by name; a dataset that is not split has one."""
        from datasets import DatasetDict, load_from_disk
        from pyarrow import ArrowException

        for path in files_below(self._folder):
            open_file(self._folder / path).close()  # a pipe among them would keep everybody waiting
        try:
            parts = {part: self._read_parquet(files) for part, files in _parquet_files(self._folder).items()}
            dataset = DatasetDict(parts) if parts else load_from_disk(str(self._folder))
        except (ArrowException, AttributeError, LookupError, OSError, TypeError, ValueError) as error:
            raise self._wrong(f"it cannot be loaded: {str(error) or type(error).__name__}") from error
        if not isinstance(dataset, DatasetDict):
            return {_WHOLE: dataset.with_format(None)}
        if list(dataset) == [_WHOLE]:
            return dict(dataset.with_format(None))
        self._check_sides(list(dataset))
        return dict(dataset.with_format(None))

    def _read_parquet(self, files: Sequence[Path]) -> Any:
        from datasets import Dataset, Image
        from pyarrow import concat_tables, parquet

        if sum(file.stat().st_size for file in files) > _MOST_BYTES:
            raise InputError(
                f"the parquet files in {self._folder} hold more than {readable_size(_MOST_BYTES)}",
                hint="load them with datasets.load_dataset and give the folder that save_to_disk writes",
                kind="too_large",
            )
        tables = []
        for file in files:
            with open_file(file, what="parquet file") as stream:
                tables.append(parquet.read_table(stream))
        dataset, name = Dataset(concat_tables(tables)), self._settings.image_column
        # Without the hub's own description, an image is a pair of bytes and a path.
        if name in dataset.features and isinstance(dataset.features[name], dict):
            return dataset.cast_column(name, Image())
        return dataset

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

    def _labels(self, part: str, dataset: Any, names: Sequence[str], labels: Labels) -> list[str]:
        """Return the label of every image of a part, as the task type writes it."""
        name = self._settings.label_column
        values = dataset.select_columns([name])[:][name]
        for position, value in enumerate(values):
            if value in (None, "", -1):
                raise self._wrong(f"'{part}' has no label at position {position}", kind="empty_label")
        if not labels.exclusive and names:  # a list an image
            self._require_positions(part, [position for value in values for position in value], names)
            sets = [tuple(int(position in value) for position in range(len(names))) for value in values]
            return [labels.text(each, names) for each in sets]
        if names:
            self._require_positions(part, values, names)
        return [names[value] if names else str(value) for value in values]

    def _require_positions(self, part: str, values: Sequence[int | None], names: Sequence[str]) -> None:
        strange = next((value for value in values if value is None or not 0 <= value < len(names)), 0)
        if strange != 0:
            raise self._wrong(f"'{part}' has the label {strange} of {len(names)} classes", kind="unknown_label")

    def _class_names(self, part: str, dataset: Any, labels: Labels) -> tuple[str, ...]:
        """Return the names that a column of labels declares: none where it holds plain numbers or texts."""
        from datasets import ClassLabel, Value

        name = self._settings.label_column
        feature = self._column(part, dataset, name, "label_column").features[name]
        each = getattr(feature, "feature", None)  # of a list
        if isinstance(each, ClassLabel) and not labels.exclusive:
            return tuple(each.names)
        if isinstance(feature, ClassLabel):
            return tuple(feature.names)
        kinds = ("int", "uint", "bool", "string", "large_string", *(() if labels.exclusive else ("float", "double")))
        if isinstance(feature, Value) and feature.dtype.startswith(kinds):
            return ()
        raise InputError(
            f"{self._folder}: the column '{self._settings.label_column}' of '{part}' holds {feature}, not one class "
            "an image",
            hint="a label is a ClassLabel, a whole number or a text; a list of ClassLabels is several labels an image "
            "with --set dataset.task=multilabel",
            kind="unsupported_task",
        )

    def _wrong(self, what: str, *, kind: str = "bad_layout") -> InputError:
        return InputError(f"{self._folder}: {what}", hint="save or download the dataset again", kind=kind)


def _parquet_files(folder: Path) -> dict[str, list[Path]]:
    """Return the parquet files at the top of a folder, or in the folder ``data`` in it, by the part that they are."""
    files = sorted([*folder.glob("*.parquet"), *folder.glob("data/*.parquet")])
    parts: dict[str, list[Path]] = {}
    for file in files:
        parts.setdefault(re.sub(r"-[0-9]+-of-[0-9]+.*$", "", file.stem), []).append(file)
    return parts if len(parts) > 1 or parts.keys() <= SPLIT_ALIASES.keys() else {_WHOLE: files}


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

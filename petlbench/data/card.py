"""The dataset card: what is known of a dataset without opening one of its images."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from petlbench.core.catalog import Catalog
from petlbench.core.errors import InputError, unknown_name
from petlbench.core.user_files import inside, read_toml
from petlbench.data.layout import SHA256, Layout, plain_name
from petlbench.data.tasks.base import TaskType

_LIMIT = 4 << 20
"""Bytes of a card; the longest that petlbench brings has some thousand."""

_MOST_CLASSES = 100_000

Number = Annotated[int, Field(ge=0)]


def _stays_inside(part: str) -> str:
    """Refuse what would lead out of the dataset's folder: cards are passed on."""
    try:
        inside(Path(), part, what="it")
    except InputError as error:
        raise ValueError(error.message) from error
    return part


Part = Annotated[str, Field(min_length=1), AfterValidator(_stays_inside)]
FileName = Annotated[str, Field(min_length=1), AfterValidator(_stays_inside), AfterValidator(plain_name)]

_SPLIT_PATTERN = r"^(official|random|kfold:\d+/\d+|repeat:\d+/\d+)$"


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, str_strip_whitespace=True)


class ReaderSpec(_Part):
    """How the images and labels are read."""

    kind: str = Field(description="The reader; 'unavailable' where petlbench cannot read the files yet.")
    file: Part = Field(default="labels.csv", description="The table's name in the data folder (csv only).")
    settings: dict[str, Any] = Field(default_factory=dict, description="What the reader needs, by name.")


class CountTable(_Part):
    """How many images one source (the official page, a paper) counts."""

    total: Number | None = Field(default=None, description="All images.")
    train: Number | None = Field(default=None, description="Images of the training part.")
    val: Number | None = Field(default=None, description="Images of the validation part.")
    test: Number | None = Field(default=None, description="Images of the test part.")
    left_out: Number = Field(default=0, description="Images without a usable label: in total and parts, in no class.")
    classes: dict[Literal["all", "train", "val", "test"], dict[str, Number]] = Field(
        default_factory=dict, description="Images by class, for one part or for 'all'."
    )

    @property
    def images(self) -> int | None:
        """All images with a usable label, as far as the table tells."""
        if self.total is not None:
            return self.total - self.left_out
        parts = [part for part in (self.train, self.val, self.test) if part is not None]
        if parts:
            return sum(parts) - self.left_out
        return sum(self.classes["all"].values()) if "all" in self.classes else None

    @model_validator(mode="after")
    def _adds_up(self) -> CountTable:
        if self.total is not None and None not in (self.train, self.val, self.test):
            parts = (self.train or 0) + (self.val or 0) + (self.test or 0)
            if parts != self.total:
                raise ValueError(f"train, val and test make {parts}, but total is {self.total}")
        return self

    def fault(self) -> str:
        """What does not add up where an image has one class; empty where all does."""
        for part, numbers in self.classes.items():
            expected = self.images if part == "all" else getattr(self, part)
            images = sum(numbers.values())
            # How the images without a label are spread over the parts is not said.
            spare = 0 if part == "all" else self.left_out
            if expected is not None and not expected - spare <= images <= expected:
                return f"the classes of '{part}' make {images}, but the part has {expected} images"
        return ""


class Counts(_Part):
    """Expected numbers of images: the official ones, and the paper's where they differ."""

    official: CountTable = Field(default_factory=CountTable, description="What the official page says.")
    paper: CountTable = Field(default_factory=CountTable, description="What the papers say.")


class OfficialFile(_Part):
    """One file of the official release."""

    name: FileName = Field(description="File name, without a folder.")
    url: str = Field(default="", description="Address; empty where it is behind a login or a form.")
    sha256: str | None = Field(default=None, pattern=SHA256, description="Checksum.")
    md5: str | None = Field(default=None, pattern=r"^[0-9a-f]{32}$", description="Checksum where that is published.")
    bytes: Number | None = Field(default=None, description="Size.")

    @property
    def checksum(self) -> str | None:
        """The checksum with its kind in front, such as ``sha256:…``; None where none is known."""
        if self.sha256 is not None:
            return f"sha256:{self.sha256}"
        return f"md5:{self.md5}" if self.md5 is not None else None


class DatasetCard(_Part):
    """What is known of a dataset: its classes, source, licence, reader, split and expected counts."""

    title: str = Field(min_length=1, description="The name used in tables.")
    modality: str = Field(min_length=1, description="What the images are, for example 'dermoscopy'.")
    task: str = Field(description="The task type.")
    classes: tuple[str, ...] = Field(
        min_length=1,
        description="Class names; a label is a position in this list. A number says how many, named by number from 0.",
    )
    licence: str = Field(min_length=1, description="Licence of the images, or 'unknown'.")
    home: str = Field(default="", description="Address of the official page.")
    citation: str = Field(default="", description="How to cite the dataset.")
    version: int = Field(ge=1, description="Version of this card; raised when a change can change a number.")
    synthetic: bool = Field(default=False, description="Whether the images are made by a program.")
    lossless: bool = Field(
        default=False, description="Whether the source keeps its pixels exactly, so that a copy in JPEG is another one."
    )
    image_size: int | None = Field(default=None, ge=8, le=4096, description="Image size in pixels if none is given.")
    mean: tuple[float, float, float] | None = Field(default=None, description="The papers' mean, RGB, 0 to 1.")
    std: tuple[float, float, float] | None = Field(default=None, description="The papers' standard deviation.")
    mirror: bool = Field(default=True, description="Whether a left-right mirror image keeps its label.")
    reader: ReaderSpec = Field(description="How the images and labels are read.")
    split: str = Field(pattern=_SPLIT_PATTERN, description="Split scheme if none is given.")
    grouping: str = Field(min_length=1, description="What a group is: 'patient', …, 'unavailable' or 'none'.")
    counts: Counts = Field(default_factory=Counts, description="Expected numbers of images.")
    known_issues: tuple[str, ...] = Field(default=(), description="Traps that a reader of results must know.")
    unverified: tuple[str, ...] = Field(default=(), description="Facts of this card not yet checked on real files.")
    files: tuple[OfficialFile, ...] = Field(default=(), description="The files of the official release.")
    steps: tuple[str, ...] = Field(
        default=(), description="How to get the files by hand, one step each, where a login or a form is before them."
    )
    layout: Layout | None = Field(default=None, description="How the official files are read (official only).")
    label_sets: dict[str, tuple[str, ...]] = Field(
        default_factory=dict, description="Some of several labels that are learned together: name = [labels]."
    )

    @field_validator("classes", mode="before")
    @classmethod
    def _by_number(cls, classes: Any) -> Any:
        is_count = type(classes) is int and 0 < classes <= _MOST_CLASSES
        return tuple(map(str, range(classes))) if is_count else classes

    @field_validator("classes")
    @classmethod
    def _named_and_unique(cls, classes: tuple[str, ...]) -> tuple[str, ...]:
        if not all(classes):
            raise ValueError("a class name is empty")
        twice = sorted({name for name in classes if classes.count(name) > 1})
        if twice:
            raise ValueError(f"class names stand twice: {', '.join(twice)}")
        return classes

    @model_validator(mode="after")
    def _consistent(self) -> DatasetCard:
        if (self.mean is None) != (self.std is None):
            raise ValueError("mean and std are given together or not at all")
        if self.std is not None and min(self.std) <= 0:
            raise ValueError("std must be greater than 0")
        for name, labels in self.label_sets.items():
            if strange := [label for label in labels if label not in self.classes]:
                raise ValueError(f"label_sets.{name} names '{strange[0]}', which is none of the classes")
        for table in (self.counts.official, self.counts.paper):
            strange = sorted({name for part in table.classes.values() for name in part} - set(self.classes))
            if strange:
                raise ValueError(f"counts name classes that the card does not have: {', '.join(strange)}")
        return self

    @model_validator(mode="after")
    def _layout_fits(self) -> DatasetCard:
        if (self.reader.kind == "official") != (self.layout is not None):
            raise ValueError("a card has a layout exactly where its reader is 'official'")
        if self.lossless and self.layout is None:
            raise ValueError("lossless is said where the reader is 'official', which looks at the files' form")
        if self.layout is None:
            return self
        strange = sorted(set(self.layout.labels.values()) ^ set(self.classes))
        if strange and not self.layout.numbers:
            raise ValueError(f"layout.labels and classes differ in: {', '.join(strange)}")
        if bool(self.layout.group) == (self.grouping in {"unavailable", "none"}):
            raise ValueError(f"the grouping is '{self.grouping}', but layout.group is '{self.layout.group}'")
        if self.split == "official" and not {"train", "test"} <= self.layout.sides:
            raise ValueError("the split is 'official', but the layout does not give train and test")
        return self


def load_card(file: Path, catalog: Catalog | None = None) -> DatasetCard:
    """Return the dataset card that a TOML file holds, checked.

    Args:
        file: The file.
        catalog: The catalogues that its reader and its task stand in; None for those that need no ``--catalog``.

    Raises:
        InputError: When the file cannot be read, or a key is unknown, missing, doubled or has a wrong value; the
            message names the file and the key.
    """
    try:
        fields = read_toml(file, what="dataset card", limit=_LIMIT)
    except InputError as error:
        raise InputError(error.message, hint=error.hint, kind="bad_card") from error
    card = _checked(fields, file)
    try:
        _check_names(card, catalog or Catalog())
    except InputError as error:
        message = f"the dataset card {file}: {error.message}"
        raise InputError(message, hint=error.hint, kind="bad_card") from error
    return card


def _check_names(card: DatasetCard, catalog: Catalog) -> None:
    """Refuse a reader or a task that no file defines, and classes that the task cannot have."""
    readers, tasks = catalog.entries("reader"), catalog.entries("task")
    if card.reader.kind not in readers:
        error = unknown_name("reader", card.reader.kind, readers)
        raise InputError(f"reader.kind: {error.message}", hint=error.hint)
    if card.task not in tasks:
        error = unknown_name("task", card.task, tasks)
        raise InputError(f"task: {error.message}", hint=error.hint)
    labels = catalog.load("task", card.task, TaskType).labels
    if fault := labels.refuse_classes(card.classes):
        raise InputError(f"classes: a {card.task} task {fault}")
    for name, table in (("official", card.counts.official), ("paper", card.counts.paper)):
        if labels.exclusive and (fault := table.fault()):
            raise InputError(f"counts.{name}: {fault}")


def _checked(fields: Mapping[str, Any], file: Path) -> DatasetCard:
    try:
        return DatasetCard.model_validate(fields)
    except ValidationError as error:
        problems = error.errors()
        text = "; ".join(_say(problem["loc"], problem["msg"], problem["type"]) for problem in problems[:3])
        more = f" (and {len(problems) - 3} more)" if len(problems) > 3 else ""
        hint = _advice(str(problem["loc"][-1]) for problem in problems if problem["type"] == "extra_forbidden")
        raise InputError(f"the dataset card {file}: {text}{more}", hint=hint, kind="bad_card") from error


def _say(location: tuple[int | str, ...], message: str, kind: str) -> str:
    if not location:
        return message.removeprefix("Value error, ")
    key = ".".join(str(part) for part in location)
    texts = {"extra_forbidden": f"unknown key '{key}'", "missing": f"the key '{key}' is missing"}
    return texts.get(kind, f"{key}: {message.removeprefix('Value error, ')}")


def _advice(unknown: Iterable[str]) -> str:
    keys = sorted(DatasetCard.model_fields)
    for key in unknown:
        near = difflib.get_close_matches(key, keys, n=1)
        return f"did you mean '{near[0]}'?" if near else "keys of a card: " + ", ".join(keys)
    return "datasets/README.md describes every key of a card"

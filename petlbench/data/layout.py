"""How an official release is laid out: where its images lie, which tables name them, and what their labels mean.

Every image has *fields*: named groups of the pattern that its path matches, tags of its DICOM header, columns of the
tables in which it stands. Label and group are templates over them, such as ``{patient}``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cached_property
from typing import Annotated, Any, Literal

import regex
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from petlbench.core.errors import InputError
from petlbench.core.text import printable
from petlbench.data.record import OfficialDraw, Split

_NAME = re.compile(r"\{([^{}]+)\}")

_SECONDS = 2.0
"""The longest that a card's pattern may take over one text: cards are passed on, and a pattern can take for ever."""


def names_in(template: str) -> tuple[str, ...]:
    """Return the names that a template asks for: ``{patient}/{eye}`` has two."""
    return tuple(_NAME.findall(template))


def fill(template: str, fields: Mapping[str, str]) -> str:
    """Put fields into a template; one that is not there counts as empty."""
    return _NAME.sub(lambda match: fields.get(match[1], ""), template)


def ends_with(path: str, end: str) -> bool:
    """Say whether the last parts of a path in POSIX form are these; ``*`` stands for any characters of one part."""
    return match_pattern("(?:.*/)?" + re.escape(end).replace(r"\*", "[^/]*"), path) is not None


def match_pattern(pattern: str, text: str, *, somewhere: bool = False) -> Any:
    """Return the match of a card's regular expression with a whole text, or with a part of it; None where none is.

    Args:
        pattern: The expression.
        text: A path in POSIX form, or the content of a file.
        somewhere: Whether a part of the text is enough.

    Raises:
        InputError: When it takes longer than any useful pattern does (kind ``slow_pattern``).
    """
    try:
        return (regex.search if somewhere else regex.fullmatch)(pattern, text, timeout=_SECONDS)
    except TimeoutError as error:
        raise InputError(
            f"the card's pattern '{pattern}' takes more than {_SECONDS:g} s over '{text[:80]}'",
            hint="repeat nothing that holds a repetition, such as (a+)+",
            kind="slow_pattern",
        ) from error


def plain_name(name: str) -> str:
    """Return the name of a file or folder, or refuse one that is hidden or a path."""
    if name.startswith(".") or set(name) & set("/\\"):
        raise ValueError(f"'{printable(name)}' is no plain name of a file or folder")
    return name


def _compiles(pattern: str) -> str:
    try:
        regex.compile(pattern)
    except regex.error as error:
        raise ValueError(f"'{pattern}' is no regular expression: {error}") from error
    return pattern


SHA256 = r"^[0-9a-f]{64}$"
Text = Annotated[str, Field(min_length=1)]
Pattern = Annotated[str, Field(min_length=1), AfterValidator(_compiles)]
FolderName = Annotated[str, Field(min_length=1), AfterValidator(plain_name)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ImageSource(_Part):
    """Where images lie."""

    pattern: Pattern = Field(
        description="Regular expression for the whole path, with forward slashes; its named groups become fields, and "
        "together they tell the images apart."
    )
    split: Split | None = Field(default=None, description="The side on which the release has these images.")
    tags: dict[str, Text] = Field(default_factory=dict, description="Fields from DICOM headers: name = 'Keyword'.")

    @property
    def fields(self) -> frozenset[str]:
        """The names of the fields that an image has from here."""
        return frozenset(regex.compile(self.pattern).groupindex) | frozenset(self.tags)


class LeftOutFiles(_Part):
    """Files that look like images of the dataset and are none."""

    pattern: Pattern = Field(description="Regular expression for the whole path.")
    reason: Text = Field(description="Why they are left out.")


class RefusedCopy(_Part):
    """A changed copy that passes for the release."""

    columns: tuple[Text, ...] = Field(min_length=1, description="Columns of a table that only the copy has.")
    file: Text = Field(default="*.csv", description="The end of the table's path; * stands for any characters.")
    reason: Text = Field(description="What the copy is and why it is refused.")


class TableSource(_Part):
    """A table, and how its rows belong to images."""

    file: Text = Field(description="The end of the file's path; * stands for any characters and allows many files.")
    sha256: str | None = Field(default=None, pattern=SHA256, description="Checksum of the file, where it is known.")
    optional: bool = Field(default=False, description="Whether it may lack; its fields are then empty.")
    split: Split | None = Field(default=None, description="The side whose images it is about; all without it.")
    side: Split | None = Field(default=None, description="The side on which its rows put the images that they name.")
    separator: str = Field(
        default=",",
        pattern=r"^( ?[^ ]|[^ ]? )$",
        description="Between cells (not in Excel files). With a blank, alone or beside another character, a line is "
        "divided from its end, and the first cell may hold blanks.",
    )
    sheet: str | None = Field(default=None, description="The sheet of an Excel file; the first without it.")
    columns: tuple[Text, ...] = Field(default=(), description="Names of the columns where the file has no header.")
    text: Annotated[str, AfterValidator(_compiles)] = Field(
        default="",
        description="For free text, one file a row: regular expression whose named groups, empty where it is not "
        "found, are the columns beside 'stem', the file's name without its ending.",
    )
    fields: dict[str, Text] = Field(
        default_factory=dict,
        description="What is taken from a row: field = 'column'; of several names with | between, the first that the "
        "table has.",
    )
    one_hot: dict[str, tuple[Text, ...]] = Field(
        default_factory=dict, description="Fields whose value is the name of the one column that holds a 1."
    )
    multi_hot: dict[str, tuple[Text, ...]] = Field(
        default_factory=dict,
        description="Fields that list the columns which hold a 1, with | between, and ? before those that hold a -1.",
    )
    blank: Literal["error", "absent", "unknown"] = Field(
        default="error", description="What an empty cell of such columns means."
    )
    key: tuple[Text, ...] = Field(
        min_length=1, description="Templates over columns that name the images of a row; several name several images."
    )
    image_key: Text = Field(description="Template over an image's fields that must equal a key; \\ counts as /.")
    ignore_case: bool = Field(default=False, description="Whether keys are compared without regard to capitals.")
    unmatched: Literal["error", "empty", "leave out"] = Field(
        default="error", description="What becomes of an image that no row names; a list that gives sides has others."
    )
    reason: str = Field(default="", description="Why unmatched images are left out.")

    @property
    def provides(self) -> frozenset[str]:
        """The names of the fields that an image has from here."""
        return frozenset(self.fields) | frozenset(self.one_hot) | frozenset(self.multi_hot)

    @property
    def needs(self) -> tuple[str, ...]:
        """The columns without which it cannot be read, in the card's order; one of those with | between."""
        columns = [*(name for key in self.key for name in names_in(key)), *self.fields.values()]
        columns += [name for group in (*self.one_hot.values(), *self.multi_hot.values()) for name in group]
        return tuple(dict.fromkeys(columns))

    @model_validator(mode="after")
    def _consistent(self) -> TableSource:
        if bool(self.reason) != (self.unmatched == "leave out"):
            raise ValueError("a reason is given exactly where unmatched images are left out")
        if self.side and self.unmatched == "leave out":
            raise ValueError("a list that gives sides leaves no image out: 'unlisted' of the layout says why")
        if self.columns and self.text:
            raise ValueError("free text has no columns; its names are those of the groups in 'text'")
        names = self.columns or (*regex.compile(self.text).groupindex, "stem") * bool(self.text)
        several = [name for name in self.needs if "|" in name and name not in self.fields.values()]
        if several:
            raise ValueError(f"'{several[0]}': only 'fields' may name several columns with | between")
        strange = [name for name in self.needs if names and not set(name.split("|")) & set(names)]
        if strange:
            raise ValueError(f"{self.file} has no column '{strange[0]}'; it has: {', '.join(names)}")
        return self


class ListFile(_Part):
    """A list of images and the numbers of their classes: a line each, or a JSON object."""

    file: Text = Field(description="The end of the list's path; * stands for any characters and allows many files.")
    sha256: str | None = Field(default=None, pattern=SHA256, description="Checksum of the list, where it is known.")

    @model_validator(mode="before")
    @classmethod
    def _named(cls, value: Any) -> Any:
        return {"file": value} if isinstance(value, str) else value

    def as_table(self, side: Split) -> TableSource:
        """Return the table that it is: it puts the images that it names on a side, and gives them their labels."""
        return TableSource(
            file=self.file,
            sha256=self.sha256,
            side=side,
            separator=" ",
            columns=LIST_COLUMNS,
            fields={"label": "label"},
            key=("{path}",),
            image_key="{path}",
        )


LIST_COLUMNS = ("path", "label")


class DrawLists(_Part):
    """Lists of the images of which the release has made draws of few: one for each side, number of shots and draw."""

    file: Text = Field(
        description="The end of a list's path, with {shots}, {number} and, where both sides are drawn, {side} (train, "
        "val)."
    )
    sides: tuple[Literal["train", "val"], ...] = Field(
        default=("train", "val"), min_length=1, description="The parts that are drawn; the other one stays whole."
    )
    shots: tuple[Annotated[int, Field(ge=1)], ...] = Field(min_length=1, description="The numbers of shots.")
    numbers: int = Field(ge=1, le=1000, description="How many draws there are of each number of shots.")
    first: Literal[0, 1] = Field(default=1, description="The number of the first of them.")
    image_key: Text = Field(description="Template over an image's fields that must equal the first cell of a line.")
    cells: int = Field(default=2, ge=1, description="Cells of a line, the image's name and its labels.")
    separator: str = Field(default=" ", pattern=r"^( |[^ ] | [^ ])$", description="Between cells, as in tables.")

    def name_of(self, draw: OfficialDraw) -> str:
        """Return the end of the path of one list."""
        number = str(draw.number + self.first)
        return fill(self.file, {"shots": str(draw.shots), "side": draw.side, "number": number})

    @model_validator(mode="after")
    def _tells_lists_apart(self) -> DrawLists:
        names = ("shots", "side", "number") if len(set(self.sides)) > 1 else ("shots", "number")
        if set(names_in(self.file)) != set(names):
            needed = [f"{{{name}}}" for name in names]
            raise ValueError(f"draws: '{self.file}' needs {', '.join(needed[:-1])} and {needed[-1]}, and no other name")
        return self


class Layout(_Part):
    """How the files of an official release are read once they are unpacked."""

    shape: Text = Field(description="How the unpacked files lie, in words, for those who put them there.")
    folders: tuple[FolderName, ...] = Field(
        default=(),
        description="What the release's folder is called in the copies that there are: it is looked for in the folder "
        "that is given, and one folder deeper; paths start in it.",
    )
    images: tuple[ImageSource, ...] = Field(min_length=1, description="Where images lie.")
    leave: tuple[LeftOutFiles, ...] = Field(default=(), description="Files that are no images of the dataset.")
    refused: tuple[RefusedCopy, ...] = Field(default=(), description="Changed copies that are not read.")
    tables: tuple[TableSource, ...] = Field(default=(), description="The tables, in the order in which they are read.")
    lists: dict[Split, ListFile] = Field(
        default_factory=dict,
        description="Lists of images by side: a line is a path, a blank and the number of a class; a .json file is an "
        "object of such pairs. They give a side and the field 'label' to the image whose field 'path' is so.",
    )
    repeats: dict[Text, tuple[Split, ...]] = Field(
        default_factory=dict,
        description="Lists that say again, of the same images under other names, what those of some sides say: file = "
        "[sides]. Where one is there, the labels have to agree.",
    )
    label: Text = Field(
        default="{label}",
        description="Template over an image's fields: the label as the release writes it; several with | between, and "
        "? before one that is uncertain.",
    )
    numbers: Literal["", "positions", "ranks"] = Field(
        default="",
        description="In place of 'labels', where labels are numbers: positions in the card's classes, from 0, or such "
        "that the training part's, sorted, are the classes in their order.",
    )
    none: tuple[Text, ...] = Field(default=(), description="Words for an image without any of several labels.")
    unlisted: str = Field(
        default="", description="Why images are left out that no list puts on a side; an error without it."
    )
    group: str = Field(default="", description="Template for what stays on one side; an image without it is alone.")
    extra: tuple[str, ...] = Field(default=(), description="Fields that are kept for audits and subgroups.")
    draws: DrawLists | None = Field(default=None, description="The release's own draws of few images.")
    labels: dict[str, Text] = Field(default_factory=dict, description="The label as it is written = class.")
    left_out: dict[str, Text] = Field(
        default_factory=dict, description="The label as it is written = why such images are left out."
    )

    @model_validator(mode="after")
    def _consistent(self) -> Layout:
        if bool(self.labels) == bool(self.numbers):
            raise ValueError("either 'labels' say which class a label means, or 'numbers' that labels are numbers")
        if self.numbers == "ranks" and "train" not in self.sides:
            raise ValueError("numbers are the ranks of the training part's, and there is no training part")
        both = sorted(set(self.labels) & set(self.left_out))
        if both:
            raise ValueError(f"the label '{both[0]}' is a class and is left out")
        for side in {source.split for source in self.images}:
            self._check_side(side)
        return self

    @cached_property
    def all_tables(self) -> tuple[TableSource, ...]:
        """The tables, and behind them those that the lists are."""
        return (*self.tables, *(part.as_table(side) for side, part in self.lists.items()))

    @property
    def sides(self) -> frozenset[Split | None]:
        """The sides of the release: those of its folders, or of its lists."""
        return frozenset(source.split for source in self.images) | frozenset(table.side for table in self.all_tables)

    def _check_side(self, side: Split | None) -> None:
        """Check that every name is known when it is used, and given once."""
        names = set(frozenset.intersection(*(source.fields for source in self.images if source.split == side)))
        listed: set[str] = set()
        for table in (table for table in self.all_tables if table.split in (None, side)):
            _require(names, table.image_key, f"tables: image_key of {table.file}")
            # No image is on two sides, so lists that give sides may give the same fields.
            twice = sorted(names & table.provides - (listed if table.side else set()))
            if twice:
                raise ValueError(f"the field '{twice[0]}' of {table.file} stands twice")
            names |= table.provides
            listed |= table.provides if table.side else frozenset()
        _require(names, self.label, "label")
        # A side without groups, or without a column for the audit, is common: it is enough that some side has it.
        every = frozenset().union(*(part.fields for part in self.images), *(part.provides for part in self.all_tables))
        _require(every, self.group, "group")
        _require(every, "".join(f"{{{name}}}" for name in self.extra), "extra")
        if "draws" in self.extra:
            raise ValueError("extra has the field 'draws', which is the column of the release's own draws")
        _require(every, self.draws.image_key if self.draws else "", "image_key of draws")


def _require(names: set[str] | frozenset[str], template: str, where: str) -> None:
    strange = [name for name in names_in(template) if name not in names]
    if strange:
        raise ValueError(f"{where} uses the field '{strange[0]}'; known there: {', '.join(sorted(names)) or 'none'}")

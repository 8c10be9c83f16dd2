"""The reader for a CSV file with a header: image and label, and where they exist split and group."""

from __future__ import annotations

import csv
import io
import posixpath
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import cached_property
from itertools import islice
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import NamedTuple

from pydantic import Field

from petlbench.core.errors import InputError
from petlbench.core.text import items_of
from petlbench.core.user_files import TEXT_LIMIT, inside, open_file
from petlbench.data.images.files import files_below
from petlbench.data.layout import fill, names_in
from petlbench.data.notes import group_columns, option
from petlbench.data.readers.base import ImageFiles, ReaderCard, Source, choose_classes
from petlbench.data.readers.settings import silent
from petlbench.data.readers.several import SeveralSettings
from petlbench.data.record import SPLIT_ALIASES, Record
from petlbench.data.tasks.base import Labels

_MOST_FILES = 1_000_000
"""That are looked through for images that are not where the table says."""


class CsvSettings(SeveralSettings):
    """How the columns of the table are called."""

    image_column: str = Field(default="image", min_length=1, description="Column of the image's path.")
    image_path: str = silent(
        "{image}",
        pattern=r"\{[^{}]+\}",
        description="Where the image lies, with {image} for the column's cell and the names of other columns likewise: "
        "train/{image}.jpeg",
    )
    label_column: str = Field(
        default="label",
        min_length=1,
        description="Column of the class name; or columns that are called like the classes, with commas between, one "
        "of which holds a 1.",
    )
    split_column: str = Field(default="split", min_length=1, description="Column of train, val or test; may lack.")
    group_column: str = Field(default="group", min_length=1, description="Column of the group; may lack.")


class _Row(NamedTuple):
    """A line of the table, and its record, whose label is still as it is written."""

    line: int
    record: Record


class CsvReader(ImageFiles):
    """Reads images named by a CSV file, whose paths are relative to the file's own folder.

    Columns that have no role, such as site or age, become what else is known of an image. Links to images are
    followed, wherever they lead: the table cannot make any.

    Args:
        source: The CSV file, UTF-8, separated by commas, with a header; or the folder that holds it.

    Raises:
        InputError: When the file, its header or a row is wrong; the message names the file and the line.
    """

    card = ReaderCard(name="csv", title="a CSV file of images and labels")
    Settings = CsvSettings

    def __init__(self, source: Source) -> None:
        self._file = source.path
        if source.card is not None:
            what = f"[reader] file of the card of '{source.name}'"
            self._file = inside(source.folder(), source.card.reader.file, what=what)
            if not self._file.exists():
                raise source.missing(f"the table of '{source.name}' is missing: {self._file}", "put it there")
        self.root = self._file.parent
        self._settings: CsvSettings = source.settings
        self._header: list[str] = []
        rows = list(self._rows())
        if not rows:
            raise InputError(f"{self._file} has a header but no rows", kind="bad_csv")
        first, notes = self._with_images(rows)
        if len(first) < len(rows):
            notes += (f"{len(rows) - len(first)} rows repeat an earlier one and are left out",)
        if source.card is None and self._settings.group_column not in self._header:
            notes += group_columns(name for name in self._header if name != self._settings.image_column)
        records = sorted((row.record for row in first), key=lambda record: record.path)
        written = [record.label for record in records]
        if source.classes is None:  # a card's classes are called as they are
            self._settings.refuse_empty_cells([text for text in written if source.labels.names(text)], str(self._file))
        labels, changes = self._settings.relabelled(written, str(self._file))
        records = [replace(each, label=label) for each, label in zip(records, labels, strict=True) if label is not None]
        texts = [record.label for record in records]
        names = self._settings.columns or source.labels.found(texts, source.classes)
        self.classes = choose_classes(names, source.classes, str(self._file), source.labels)
        self._require_known(texts, source.labels)
        self.records = tuple(replace(each, label=source.labels.parse(each.label, self.classes)) for each in records)
        self.notes = (*notes, *changes)

    @classmethod
    def recognises(cls, path: Path) -> bool:
        """Whether it is a file whose name ends in ``.csv``."""
        return path.is_file() and path.suffix.lower() == ".csv"

    def _rows(self) -> Iterator[_Row]:
        lines = read_lines(self._file)
        self._header = header = [name.strip() for name in next(lines, (1, []))[1]]
        columns = self._columns(header, lines)
        # Columns that decide the label are no further knowledge of an image, and neither is what has a role.
        settings = self._settings
        hot = settings.columns or ([] if settings.label_column in header else items_of(settings.label_column))
        used = {*columns.values(), *(header.index(name) for name in hot)}
        others = {name: place for place, name in enumerate(header) if name and place not in used}
        for line, cells in lines:
            if not any(cell.strip() for cell in cells):
                continue
            if len(cells) != len(header):
                raise self._wrong(line, f"has {len(cells)} cells; the header has {len(header)}", kind="bad_csv")
            every = {name: cells[place].strip() for place, name in enumerate(header)}
            cell = {name: cells[position].strip() for name, position in columns.items()}
            try:
                if hot:
                    read = settings.of_columns if settings.columns else hot_column
                    cell["label"] = read({name: every[name] for name in hot})
                elif settings.label_separator:
                    cell["label"] = settings.of_cell(cell["label"])
            except ValueError as error:
                raise self._wrong(line, f"is of no class: {error}", kind="bad_csv") from error
            extra = tuple((name, cells[place].strip()) for name, place in others.items() if cells[place].strip())
            yield self._row(line, cell, every, extra)

    def _require_known(self, texts: Sequence[str], labels: Labels) -> None:
        """Refuse names that a setting gives to labels, and that are no column's."""
        strange = sorted({name for text in set(texts) for name in labels.names(text)} - set(self.classes))
        if strange:
            message = f"{self._file}: there is no label '{strange[0]}', which dataset.rename names"
            raise InputError(message, hint=f"the labels are: {', '.join(self.classes)}", kind="unknown_label")

    def _columns(self, header: Sequence[str], lines: Iterator[tuple[int, list[str]]]) -> Mapping[str, int]:
        """Return the position of each role's column; a label that is spread over several has none."""
        names = {role: getattr(self._settings, f"{role}_column") for role in ("image", "label", "split", "group")}
        hot = self._settings.columns or items_of(names["label"])
        if self._settings.columns or (names["label"] not in header and len(hot) > 1 and set(hot) <= set(header)):
            del names["label"]
        self._require_columns(header)
        for role in ("image", "label"):
            if names.get(role, "") not in header and role in names:
                raise InputError(
                    f"{self._file} has no column '{names[role]}'; it has: {', '.join(header) or 'no header'}",
                    hint="the first line names the columns, separated by commas: image,label[,split][,group]; "
                    + _other_column(role, header, [cells for _, cells in lines]),
                    kind="missing_column",
                )
        twice = [name for name in (*names.values(), *hot) if header.count(name) > 1]
        if twice:
            raise InputError(f"{self._file} has the column '{twice[0]}' twice", kind="bad_csv")
        return {role: header.index(name) for role, name in names.items() if name in header}

    def _require_columns(self, header: Sequence[str]) -> None:
        """Refuse columns that settings name and the table does not have."""
        named = {name: "image_path" for name in names_in(self._settings.image_path) if name != "image"}
        named |= dict.fromkeys(self._settings.columns, "label_columns")
        for name, setting in named.items():
            if name not in header:
                message = f"{self._file} has no column '{name}', which dataset.{setting} names"
                raise InputError(message, hint=f"it has: {', '.join(header)}", kind="missing_column")

    def _row(
        self, line: int, cell: Mapping[str, str], every: Mapping[str, str], extra: tuple[tuple[str, str], ...]
    ) -> _Row:
        for role in ("image", "label"):
            if not cell[role] and not (role == "label" and self._settings.several):
                raise self._wrong(line, f"has an empty {role}", kind=f"empty_{role}")
        split = cell.get("split", "")
        if split and split.lower() not in SPLIT_ALIASES:
            raise self._wrong(line, f"has the split '{split}'; train, val and test are known", kind="bad_split_value")
        path = self._inside(line, fill(self._settings.image_path, {**every, "image": cell["image"]}))
        side, group = SPLIT_ALIASES.get(split.lower()), cell.get("group") or None
        return _Row(line, Record(path, path, cell["label"], group, side, extra))

    def _inside(self, line: int, text: str) -> str:
        """Return the path in its plain relative form, or refuse one that does not stay in the CSV's folder."""
        windows = PureWindowsPath(text)
        hint = f"give paths relative to {self.root} that stay in it"
        if PurePosixPath(text).is_absolute() or windows.drive or windows.root:
            raise self._wrong(line, f"names '{text}', which is absolute", kind="path_outside", hint=hint)
        try:
            inside(self.root, text, what="the image")
        except InputError as error:
            message = f"names '{text}', which leads out of {self.root}"
            raise self._wrong(line, message, kind=error.kind, hint=hint) from error
        return posixpath.normpath(text)

    def _with_images(self, rows: Sequence[_Row]) -> tuple[list[_Row], tuple[str, ...]]:
        """Return the first row of each image, with its path as the disk has it, and in words where that is another."""
        there = {path: (self.root / path).is_file() for path in dict.fromkeys(row.record.path for row in rows)}
        names = self._names_on_disk([path for path, is_there in there.items() if not is_there])
        rows = [row._replace(record=_called(row.record, names)) for row in rows]
        absent = [row for row in rows if not there.get(row.record.path, True)]
        if absent:
            raise self._absent(absent)
        notes = tuple(
            f"{len(names)} images are written otherwise in the table than on the disk (capitals, backslashes or "
            f"another Unicode form): '{path}' is taken as {name}"
            for path, name in list(names.items())[:1]
        )
        return self._without_repeats(rows), notes

    @cached_property
    def _on_disk(self) -> list[str]:
        """The files below the table's folder: what can be read of them, and no more than a dataset may have."""
        files: list[str] = []
        with suppress(InputError):
            files.extend(islice(files_below(self.root), _MOST_FILES))
        return files

    def _names_on_disk(self, paths: Sequence[str]) -> dict[str, str]:
        """Return the one file that each path means, however it is written; paths with none or several are not in it."""
        files: defaultdict[str, list[str]] = defaultdict(list)
        for path in self._on_disk if paths else ():
            files[_folded(path)].append(path)
        alike = {path: files.get(_folded(path), []) for path in paths}
        return {path: names[0] for path, names in alike.items() if len(names) == 1}

    def _absent(self, absent: Sequence[_Row]) -> InputError:
        """Build the error for images that are not there; where one of that name lies elsewhere, it says so."""
        path = absent[0].record.path
        stem = posixpath.basename(_folded(path))
        near = [file for file in self._on_disk if stem in (_folded(Path(file).name), _folded(Path(file).stem))]
        hint = f"paths are relative to {self.root}, with forward slashes and suffix"
        if len(near) == 1 and self._settings.image_path == "{image}" and path in near[0]:
            template = near[0].replace(path, "{image}")
            hint = f"there is {near[0]}: {option('image_path', template)}"
        elif near:
            hint = f"there is {near[0]}; {hint}"
        more = f" ({len(absent) - 1} more rows name absent images)" if len(absent) > 1 else ""
        message = f"names '{path}', which does not exist{more}"
        return self._wrong(absent[0].line, message, kind="missing_image", hint=hint)

    def _without_repeats(self, rows: Sequence[_Row]) -> list[_Row]:
        first: dict[str, _Row] = {}
        for row in rows:
            earlier = first.setdefault(row.record.path, row)
            for what in ("label", "split", "group"):
                ours, theirs = getattr(earlier.record, what), getattr(row.record, what)
                if ours != theirs:
                    fault = f"gives '{row.record.path}' the {what} '{theirs or ''}', but line {earlier.line} gives it"
                    raise self._wrong(row.line, f"{fault} '{ours or ''}'", kind="duplicate_image")
        return list(first.values())

    def _wrong(self, line: int, what: str, *, kind: str, hint: str = "correct or remove the row") -> InputError:
        return InputError(f"{self._file}, line {line}: the row {what}", hint=hint, kind=kind)


def _called(record: Record, names: Mapping[str, str]) -> Record:
    name = names.get(record.path, record.path)
    return replace(record, path=name, image_id=name)


_LIKELY = {
    "image": ("image_id", "image_name", "image index", "id_code", "filename", "file_name", "file", "path", "img", "id"),
    "label": ("diagnosis", "dx", "level", "grade", "class", "target", "finding labels", "finding", "category"),
}
"""What tables of the field call the column of a role, in lower case, the likeliest first."""


def _other_column(role: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return the setting that names the column of a role, with the column where one is likely."""
    if role == "label" and (hot := _hot_columns(header, rows)):
        return f"one of the columns {', '.join(hot)} holds a 1 in every row: {option('label_column', *hot)}"
    names = {name.lower(): name for name in reversed(header)}
    likely = next((names[name] for name in _LIKELY[role] if name in names), "NAME")
    return f"other names go with {option(f'{role}_column', likely)}"


def _hot_columns(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Return the columns that are called like classes, one of which holds a 1 in every row; none where they do not."""
    whole = [cells for cells in rows if len(cells) == len(header)]
    names = [
        name
        for place, name in enumerate(header)
        if name and whole and all(_HOT.fullmatch(cells[place].strip()) for cells in whole)
    ]
    places = [header.index(name) for name in names]
    sums = {sum(cells[place].strip().startswith("1") for place in places) for cells in whole}
    return names if len(names) > 1 and sums == {1} else []


_HOT = re.compile(r"[01](\.0*)?")


def hot_column(cells: Mapping[str, str]) -> str:
    """Return the one column, of some given with their cells, that holds a 1.

    Raises:
        ValueError: When a cell is neither 0 nor 1, or another number of them than one is 1.
    """
    for name, cell in cells.items():
        if not _HOT.fullmatch(cell):
            raise ValueError(f"the column {name} holds '{cell}', which is neither 0 nor 1")
    hot = [name for name, cell in cells.items() if cell.startswith("1")]
    if len(hot) != 1:
        raise ValueError(f"{len(hot)} of the columns {', '.join(cells)} hold a 1; it must be one")
    return hot[0]


def _folded(path: str) -> str:
    """Return a path in the one form of all its spellings: Unicode form, capitals and the kind of slash aside."""
    return posixpath.normpath(unicodedata.normalize("NFC", path).replace("\\", "/")).casefold()


def read_lines(file: Path, separator: str = ",") -> Iterator[tuple[int, list[str]]]:
    """Yield (line number, cells) of every row of a CSV file in UTF-8, the header first.

    Raises:
        InputError: When the file cannot be read, is not UTF-8 or no CSV; the line is named.
    """
    try:
        with io.TextIOWrapper(open_file(file, what="table", limit=TEXT_LIMIT), "utf-8-sig", newline="") as stream:
            reader = csv.reader(stream, delimiter=separator, strict=True)
            for cells in reader:
                yield reader.line_num, cells
    except UnicodeDecodeError as error:
        raise InputError(f"{file} is not UTF-8: {error.reason}", hint="save it as UTF-8", kind="bad_csv") from error
    except csv.Error as error:
        message = f"{file}, line {reader.line_num}: {error}"
        raise InputError(message, hint="correct or remove the row", kind="bad_csv") from error

"""The reader for a CSV file with a header: image and label, and where they exist split and group."""

from __future__ import annotations

import csv
import io
import posixpath
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import NamedTuple

from pydantic import Field

from petlbench.core.errors import InputError
from petlbench.core.user_files import TEXT_LIMIT, inside, open_file
from petlbench.data.readers.base import ImageFiles, ReaderCard, ReaderSettings, Source, choose_classes
from petlbench.data.record import SPLIT_ALIASES, Record

__all__ = ["CsvReader", "CsvSettings", "read_lines"]


class CsvSettings(ReaderSettings):
    """How the columns of the table are called."""

    image_column: str = Field(default="image", min_length=1, description="Column of the image's path.")
    label_column: str = Field(default="label", min_length=1, description="Column of the class name.")
    split_column: str = Field(default="split", min_length=1, description="Column of train, val or test; may lack.")
    group_column: str = Field(default="group", min_length=1, description="Column of the group; may lack.")


class _Row(NamedTuple):
    """A line of the table, and its record, whose label is still as it is written."""

    line: int
    record: Record


class CsvReader(ImageFiles):
    """Reads images named by a CSV file, whose paths are relative to the file's own folder.

    Columns that have no role, such as site or age, become what else is known of an image.

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
        rows = list(self._rows())
        first = self._without_repeats(rows)
        if not rows:
            raise InputError(f"{self._file} has a header but no rows", kind="bad_csv")
        self._require_images(first)
        if len(first) < len(rows):
            self.notes = (f"{len(rows) - len(first)} rows repeat an earlier one and are left out",)
        records = sorted((row.record for row in first), key=lambda record: record.path)
        labels, names = source.labels, (name for record in records for name in source.labels.names(record.label))
        self.classes = choose_classes(names, source.classes, str(self._file))
        self.records = tuple(replace(each, label=labels.parse(each.label, self.classes)) for each in records)

    @classmethod
    def recognises(cls, path: Path) -> bool:
        """Whether it is a file whose name ends in ``.csv``."""
        return path.is_file() and path.suffix.lower() == ".csv"

    def _rows(self) -> Iterator[_Row]:
        lines = read_lines(self._file)
        _, header = next(lines, (1, []))
        names = [name.strip() for name in header]
        columns = self._columns(names)
        others = {name: place for place, name in enumerate(names) if name and place not in columns.values()}
        root = self.root.resolve()
        for line, cells in lines:
            if not any(cell.strip() for cell in cells):
                continue
            if len(cells) != len(header):
                raise self._wrong(line, f"has {len(cells)} cells; the header has {len(header)}", kind="bad_csv")
            cell = {name: cells[position].strip() for name, position in columns.items()}
            extra = tuple((name, cells[place].strip()) for name, place in others.items() if cells[place].strip())
            yield self._row(line, cell, extra, root)

    def _columns(self, header: Sequence[str]) -> Mapping[str, int]:
        names = {role: getattr(self._settings, f"{role}_column") for role in ("image", "label", "split", "group")}
        for role in ("image", "label"):
            if names[role] not in header:
                raise InputError(
                    f"{self._file} has no column '{names[role]}'; it has: {', '.join(header) or 'no header'}",
                    hint="the first line names the columns, separated by commas: image,label[,split][,group]; "
                    f"other names go with --set dataset.{role}_column=NAME",
                    kind="missing_column",
                )
        twice = [name for name in names.values() if header.count(name) > 1]
        if twice:
            raise InputError(f"{self._file} has the column '{twice[0]}' twice", kind="bad_csv")
        return {role: header.index(name) for role, name in names.items() if name in header}

    def _row(self, line: int, cell: Mapping[str, str], extra: tuple[tuple[str, str], ...], root: Path) -> _Row:
        for role in ("image", "label"):
            if not cell[role]:
                raise self._wrong(line, f"has an empty {role}", kind=f"empty_{role}")
        split = cell.get("split", "")
        if split and split.lower() not in SPLIT_ALIASES:
            raise self._wrong(line, f"has the split '{split}'; train, val and test are known", kind="bad_split_value")
        path = self._inside(line, cell["image"], root)
        side, group = SPLIT_ALIASES.get(split.lower()), cell.get("group") or None
        return _Row(line, Record(path, path, cell["label"], group, side, extra))

    def _inside(self, line: int, text: str, root: Path) -> str:
        """Return the path in its plain relative form, or refuse one that does not stay in the CSV's folder."""
        windows = PureWindowsPath(text)
        hint = f"give paths relative to {self.root} that stay in it"
        if PurePosixPath(text).is_absolute() or windows.drive or windows.root:
            raise self._wrong(line, f"names '{text}', which is absolute", kind="path_outside", hint=hint)
        try:
            file = (root / text).resolve()
        except (OSError, RuntimeError, ValueError) as error:
            raise self._wrong(line, f"names '{text}', which is no path: {error}", kind="missing_image") from error
        if not file.is_relative_to(root):
            raise self._wrong(line, f"names '{text}', which leads out of {root}", kind="path_outside", hint=hint)
        # Only a path without ".." may be tidied as text: behind a link, "link/.." is not the folder it seems.
        return file.relative_to(root).as_posix() if ".." in PurePosixPath(text).parts else posixpath.normpath(text)

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

    def _require_images(self, rows: Sequence[_Row]) -> None:
        absent = [row for row in rows if not (self.root / row.record.path).is_file()]
        if not absent:
            return
        more = f" ({len(absent) - 1} more rows name absent images)" if len(absent) > 1 else ""
        raise self._wrong(
            absent[0].line,
            f"names '{absent[0].record.path}', which does not exist{more}",
            kind="missing_image",
            hint=f"paths are relative to {self.root}, with forward slashes and suffix",
        )

    def _wrong(self, line: int, what: str, *, kind: str, hint: str = "correct or remove the row") -> InputError:
        return InputError(f"{self._file}, line {line}: the row {what}", hint=hint, kind=kind)


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

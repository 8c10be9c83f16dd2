"""The tables that come with a release, and how their rows belong to images."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import regex

from petlbench.core.errors import InputError
from petlbench.core.user_files import inside, read_bytes
from petlbench.data.layout import ImageSource, TableSource, ends_with, fill, match_pattern, names_in
from petlbench.data.official.rows import Row, read_rows
from petlbench.data.readers.csv_file import hot_column
from petlbench.data.record import OfficialDraw, Split

_TEXT_LIMIT = 1 << 20
"""Bytes of a free text that stands for one row; reports of one patient have some thousand."""


@dataclass(eq=False)
class ImageEntry:
    """An image on its way to a record.

    Args:
        path: Relative to the root, in POSIX form.
        source: The part of the layout that it matches.
        fields: What is known of it.
        origin: File and line from which a field comes, for those that come from tables.
        left_out: Why it is left out; empty where it is not.
        side: The side that a list gives it, or its folder; None where neither does.
        draws: The release's own draws that have it.
    """

    path: str
    source: ImageSource
    fields: dict[str, str]
    origin: dict[str, str] = field(default_factory=dict)
    left_out: str = ""
    side: Split | None = None
    draws: tuple[OfficialDraw, ...] = ()


class _Entry(NamedTuple):
    row: Row
    key: str
    values: Mapping[str, str]


def join(
    table: TableSource, images: Sequence[ImageEntry], root: Path, paths: Sequence[str], name: str
) -> tuple[str, ...]:
    """Add the fields of one table to the images that it is about.

    Args:
        table: The table.
        images: All images of the release; those of the table's side are changed.
        root: The folder below which everything lies.
        paths: Every file below the root, in POSIX form.
        name: The dataset's name, for errors.

    Returns:
        Notes in words, such as that an optional table is not there.

    Raises:
        InputError: When the table or a column is missing, rows contradict each other, a row names an image that is
            absent, or an image stands in no row though it must.
    """
    files = _files(table, root, paths, name)
    _require_checksum(table, files)
    if not files:
        return (f"there is no {table.file}: {', '.join(sorted(table.provides))} are unknown",)
    entries = _index(table, files)
    used: dict[str, tuple[str, ImageEntry]] = {}
    for image in (image for image in images if table.split in (None, image.side)):
        key = _image_key(table, image, root)
        folded = key.casefold() if table.ignore_case else key
        if folded not in entries:
            _unmatched(table, image, key, files, root)
            continue
        entry = entries[folded]
        first_key, first = used.setdefault(folded, (key, image))
        if first_key != key:
            raise InputError(
                f"{entry.row.place}: '{entry.key}' names two images, {first.path} and {image.path}",
                hint="keep one of the two",
                kind="duplicate_image",
            )
        if table.side is not None:
            _put_on_side(table, image, entry)
        image.fields.update(entry.values)
        image.origin.update(dict.fromkeys(entry.values, entry.row.place))
    _require_used([entry for folded, entry in entries.items() if folded not in used], table, root)
    return ()


def _put_on_side(table: TableSource, image: ImageEntry, entry: _Entry) -> None:
    if image.side not in (None, table.side):
        raise InputError(
            f"{entry.row.place}: '{entry.key}' is on the side {table.side}, but was on the side {image.side} before",
            hint="are these the lists of the official release, unchanged?",
            kind="duplicate_image",
        )
    image.side = table.side


def _files(table: TableSource, root: Path, paths: Sequence[str], name: str) -> list[Path]:
    """Find the table's file, or its files where the card allows many."""
    # With the root's own name in front, a card may name the outermost folder even when that is the root.
    here = root.resolve().name
    files = [root / path for path in paths if ends_with(f"{here}/{path}", table.file)]
    if not files and not table.optional:
        raise InputError(
            f"the table {table.file} of '{name}' is missing: no file of this name lies below {root}",
            hint="put it there; it belongs to the official files",
            kind="missing_file",
        )
    if len(files) > 1 and "*" not in table.file:
        if any(read_bytes(file, what="table") != read_bytes(files[0], what="table") for file in files):
            places = " and ".join(str(file) for file in files[:2])
            raise InputError(f"the table {table.file} is there twice: {places} differ", kind="bad_table")
        return files[:1]
    return files


def _require_checksum(table: TableSource, files: Sequence[Path]) -> None:
    for file in files if table.sha256 is not None else ():
        digest = hashlib.sha256(read_bytes(file, what="table")).hexdigest()
        if digest != table.sha256:
            raise InputError(
                f"{file} is not the list of the release: its checksum is {digest}, not {table.sha256}",
                hint="get it again; if the release itself has changed, so must the card",
                kind="wrong_checksum",
            )


def _index(table: TableSource, files: Sequence[Path]) -> dict[str, _Entry]:
    """Read all rows; rows that say the same of an image count once."""
    entries: dict[str, _Entry] = {}
    for row in (row for file in files for row in _rows(table, file)):
        values = {name: row.first_of(columns) for name, columns in table.fields.items()}
        values |= {name: _hot(row, columns) for name, columns in table.one_hot.items()}
        values |= {name: _all_hot(row, columns, table.blank) for name, columns in table.multi_hot.items()}
        keys = [fill(key, row.cells).replace("\\", "/") for key in table.key if _is_whole(key, row.cells)]
        if not keys:
            raise row.wrong(f"the row names no image: {table.needs[0]} is empty")
        for key in keys:
            earlier = entries.setdefault(key.casefold() if table.ignore_case else key, _Entry(row, key, values))
            if earlier.values != values:
                name = next(name for name in values if values[name] != earlier.values[name])
                raise InputError(
                    f"{row.place}: '{key}' has the {name} '{values[name]}', but {earlier.row.place} says "
                    f"'{earlier.values[name]}'",
                    hint="is it the file of the official release, unchanged?",
                    kind="duplicate_image",
                )
    return entries


def _rows(table: TableSource, file: Path) -> list[Row]:
    if table.text:
        return [_text_row(file, table.text)]
    return read_rows(file, required=table.needs, columns=table.columns, separator=table.separator, sheet=table.sheet)


def _text_row(file: Path, pattern: str) -> Row:
    text = read_bytes(file, what="table", limit=_TEXT_LIMIT).decode("utf-8", errors="replace")
    match = match_pattern(pattern, text, somewhere=True)
    groups = match.groupdict(default="") if match else dict.fromkeys(regex.compile(pattern).groupindex, "")
    return Row(file, 1, {**groups, "stem": file.stem})


def _hot(row: Row, columns: Sequence[str]) -> str:
    try:
        return hot_column({column: row.cells[column] for column in columns})
    except ValueError as error:
        raise row.wrong(str(error)) from error


_HOT = {"1": "", "1.0": "", "0": None, "0.0": None, "-1": "?", "-1.0": "?"}
"""What stands before the name of a column with such a cell; None where the name is not listed."""


def _all_hot(row: Row, columns: Sequence[str], blank: str) -> str:
    meanings = {**_HOT, **({} if blank == "error" else {"": None if blank == "absent" else "?"})}
    for column in columns:
        if row.cells[column] not in meanings:
            raise row.wrong(f"the column {column} holds '{row.cells[column]}', not one of {', '.join(_HOT)}")
    marks = {column: meanings[row.cells[column]] for column in columns}
    return "|".join(f"{mark}{column}" for column, mark in marks.items() if mark is not None)


def _is_whole(template: str, values: Mapping[str, str]) -> bool:
    return all(values.get(name) for name in names_in(template))


def _image_key(table: TableSource, image: ImageEntry, root: Path) -> str:
    if not _is_whole(table.image_key, image.fields) and table.unmatched != "empty":
        empty = next(name for name in names_in(table.image_key) if not image.fields.get(name))
        tag = image.source.tags.get(empty)
        raise InputError(
            f"the image {root / image.path} has no {empty}" + (f": the DICOM tag {tag} is empty" if tag else ""),
            hint=f"without it, {table.file} does not say which row is the image's",
            kind="missing_tag" if tag else "bad_table",
        )
    return fill(table.image_key, image.fields).replace("\\", "/")


def _unmatched(table: TableSource, image: ImageEntry, key: str, files: Sequence[Path], root: Path) -> None:
    if table.unmatched == "leave out":
        image.left_out = image.left_out or table.reason
    elif table.unmatched == "error" and table.side is None:
        where = str(files[0]) if len(files) == 1 else f"any of the {len(files)} files {table.file}"
        raise InputError(
            f"the image {root / image.path} stands in no row: there is no '{key}' in {where}",
            hint="is the table whole? else take the image away",
            kind="image_without_row",
        )


def _require_used(absent: Sequence[_Entry], table: TableSource, root: Path) -> None:
    if not absent or table.optional:
        return
    inside(root, absent[0].key, what=f"{absent[0].row.place}: the image")
    more = f" ({len(absent) - 1} more rows name absent images)" if len(absent) > 1 else ""
    raise InputError(
        f"{absent[0].row.place}: the row names '{absent[0].key}', but {root} has no such image{more}",
        hint="are all official files there, and all unpacked?",
        kind="missing_image",
    )

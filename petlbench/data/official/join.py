"""Brings the rows of a release's tables to its images."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from petlbench.core.errors import InputError
from petlbench.data.layout import ImageSource, TableSource, ends_with, fill, names_in
from petlbench.data.official.tables import Row, read_rows

__all__ = ["ImageEntry", "join"]


@dataclass(eq=False)
class ImageEntry:
    """An image on its way to a record.

    Args:
        path: Relative to the root, in POSIX form.
        source: The part of the layout that it matches.
        fields: What is known of it.
        origin: File and line from which a field comes, for those that come from tables.
        left_out: Why it is left out; empty where it is not.
    """

    path: str
    source: ImageSource
    fields: dict[str, str]
    origin: dict[str, str] = field(default_factory=dict)
    left_out: str = ""


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
    if not files:
        return (f"there is no {table.file}: {', '.join(sorted(table.provides))} are unknown",)
    entries = _index(table, files)
    used: dict[str, tuple[str, ImageEntry]] = {}
    for image in (image for image in images if table.split in (None, image.source.split)):
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
        image.fields.update(entry.values)
        image.origin.update(dict.fromkeys(entry.values, entry.row.place))
    _require_used([entry for folded, entry in entries.items() if folded not in used], table, root)
    return ()


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
        if any(file.read_bytes() != files[0].read_bytes() for file in files):
            places = " and ".join(str(file) for file in files[:2])
            raise InputError(f"the table {table.file} is there twice: {places} differ", kind="bad_table")
        return files[:1]
    return files


def _index(table: TableSource, files: Sequence[Path]) -> dict[str, _Entry]:
    """Read all rows; rows that say the same of an image count once."""
    entries: dict[str, _Entry] = {}
    for row in (row for file in files for row in _rows(table, file)):
        values = {name: row.cells[column] for name, column in table.fields.items()}
        values |= {name: _hot(row, columns) for name, columns in table.one_hot.items()}
        keys = [fill(key, row.cells).replace("\\", "/") for key in table.key if _is_whole(key, row.cells)]
        if not keys:
            raise InputError(
                f"{row.place}: the row names no image: {' and '.join(table.needs[:1])} is empty",
                hint="correct or remove the row",
                kind="bad_table",
            )
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
    try:
        content = file.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise InputError(f"{file} cannot be read: {error.strerror}", kind="missing_file") from error
    match = re.search(pattern, content)
    groups = match.groupdict(default="") if match else dict.fromkeys(re.compile(pattern).groupindex, "")
    return Row(file, 1, {**groups, "stem": file.stem})


def _hot(row: Row, columns: Sequence[str]) -> str:
    """Return the one column that holds a 1."""
    hot: list[str] = []
    for column in columns:
        try:
            value = float(row.cells[column])
        except ValueError:
            value = float("nan")
        if value not in (0.0, 1.0):
            raise InputError(
                f"{row.place}: the column {column} holds '{row.cells[column]}', which is neither 0 nor 1",
                kind="bad_table",
            )
        hot += [column] * int(value)
    if len(hot) != 1:
        raise InputError(
            f"{row.place}: {len(hot)} of the columns {', '.join(columns)} hold a 1; it must be one",
            hint="correct or remove the row",
            kind="bad_table",
        )
    return hot[0]


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
    elif table.unmatched == "error":
        where = str(files[0]) if len(files) == 1 else f"any of the {len(files)} files {table.file}"
        raise InputError(
            f"the image {root / image.path} stands in no row: there is no '{key}' in {where}",
            hint="is the table whole? else take the image away",
            kind="image_without_row",
        )


def _require_used(absent: Sequence[_Entry], table: TableSource, root: Path) -> None:
    if not absent or table.optional:
        return
    more = f" ({len(absent) - 1} more rows name absent images)" if len(absent) > 1 else ""
    raise InputError(
        f"{absent[0].row.place}: the row names '{absent[0].key}', but {root} has no such image{more}",
        hint="are all official files there, and all unpacked?",
        kind="missing_image",
    )

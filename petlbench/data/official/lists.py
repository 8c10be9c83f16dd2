"""Releases that are lists of images and of numbers: where copies of them lie, what the numbers mean, what agrees."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from petlbench.core.errors import InputError
from petlbench.core.text import printable
from petlbench.data.images.files import is_folder, sorted_entries
from petlbench.data.layout import LIST_COLUMNS, Layout, ends_with, fill
from petlbench.data.official.rows import read_rows
from petlbench.data.official.tables import ImageEntry


def release_folder(layout: Layout, root: Path, name: str) -> Path:
    """Return the folder in which a release lies that has a folder of its own: this one, or one below it.

    Args:
        layout: How the release is laid out.
        root: The folder that was given: the release's own, whatever it is called; the one that holds it; or the one
            above that.
        name: The dataset's name, for errors.

    Raises:
        InputError: When there is no such folder (kind ``data_missing``), or there are several.
    """
    if not layout.folders:
        return root
    if _is_release(layout, root):
        return root
    folders = {folder.resolve(): folder for folder in _below(layout, root) if _is_release(layout, folder)}
    if len(folders) > 1:
        raise InputError(
            f"{root} holds '{name}' more than once: {' and '.join(str(folder) for folder in folders.values())}",
            hint="name one of these folders",
            kind="duplicate_image",
        )
    if not folders:
        raise InputError(
            f"'{name}' does not lie in {root}: neither it nor a folder {' or '.join(layout.folders)} in it, or one "
            f"deeper, holds {' or '.join(part.file for part in layout.lists.values())}",
            hint=f"give the folder with --from: {layout.shape}",
            kind="data_missing",
        )
    return next(iter(folders.values()))


def _below(layout: Layout, root: Path) -> Iterator[Path]:
    """Yield the folders that are called like the release: of copies, some people's are links to others'."""
    for folder in (root, *(root / entry.name for entry in sorted_entries(root) if is_folder(entry))):
        yield from (folder / name for name in layout.folders)


def _is_release(layout: Layout, folder: Path) -> bool:
    # One of the lists is enough: that another lacks is said when it is read.
    return any(any(folder.glob(part.file)) for part in layout.lists.values())


def meanings(layout: Layout, classes: Sequence[str], images: Sequence[ImageEntry], name: str) -> Mapping[str, str]:
    """Return the class of every label as the release writes it.

    Raises:
        InputError: When the training part has not as many numbers as there are classes, or something else than numbers.
    """
    if not layout.numbers:
        return layout.labels
    if layout.numbers == "positions":
        return {str(position): name for position, name in enumerate(classes)}
    numbers: dict[str, ImageEntry] = {}
    for image in images:
        if image.side == "train":
            numbers.setdefault(fill(layout.label, image.fields), image)
    for text, image in numbers.items():
        if re.fullmatch(r"-?[0-9]{1,18}", text) is None:
            place = next(iter(image.origin.values()), image.path)
            raise InputError(f"{place}: the label '{printable(text)[:80]}' is no number", kind="unknown_label")
    if len(numbers) != len(classes):
        raise InputError(
            f"the training part of '{name}' has {len(numbers)} different labels, and the card {len(classes)} classes: "
            "which label is which class is not known",
            hint="are these the lists of the whole release, unchanged?",
            kind="class_mismatch",
        )
    return dict(zip(sorted(numbers, key=int), classes, strict=True))


def check_repeats(layout: Layout, images: Sequence[ImageEntry], root: Path, paths: Sequence[str]) -> None:
    """Compare lists that say again what those of some sides say with the labels of these.

    Raises:
        InputError: When they have another number of images of some label.
    """
    for end, sides in layout.repeats.items():
        for file in (root / path for path in paths if ends_with(path, end)):
            rows = read_rows(file, columns=LIST_COLUMNS, separator=" ")
            repeated = Counter(row.cells["label"] for row in rows)
            listed = Counter(fill(layout.label, image.fields) for image in images if image.side in sides)
            for label in sorted(repeated.keys() | listed.keys()):
                if repeated[label] != listed[label]:
                    lists = " and ".join(layout.lists[side].file for side in sides if side in layout.lists)
                    raise InputError(
                        f"{file} has the label '{printable(label)[:80]}' {repeated[label]} times, {lists} together "
                        f"{listed[label]} times",
                        hint="are these the lists of one copy, unchanged?",
                        kind="bad_table",
                    )

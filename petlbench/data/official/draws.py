"""The draws of few images that a release has made itself: lists of the images that each trains and validates on."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from pathlib import Path

from petlbench.core.errors import InputError
from petlbench.data.layout import DrawLists, ends_with, fill
from petlbench.data.official.tables import ImageEntry
from petlbench.data.readers.list_file import read_list
from petlbench.data.record import OfficialDraw


def join_draws(
    lists: DrawLists, images: Sequence[ImageEntry], root: Path, paths: Sequence[str], name: str
) -> tuple[str, ...]:
    """Say of every image which draws have it, and return notes in words.

    An image on both sides of a draw is trained on, and leaves the validation side: such a draw would select by
    images that it has learned.

    Args:
        lists: Where the lists lie.
        images: All images of the release; they are changed.
        root: The folder below which everything lies.
        paths: Every file below the root, in POSIX form.
        name: The dataset's name, for errors.

    Raises:
        InputError: When some lists are there and others are missing, or one names an image that is absent.
    """
    files = {draw: _find(lists, draw, root, paths) for draw in _every(lists)}
    missing = [draw for draw, file in files.items() if file is None]
    if len(missing) == len(files):
        return (f"there is no {lists.file}: the release's own draws are not known",)
    if missing:
        raise InputError(
            f"the list {lists.name_of(missing[0])} of '{name}' is missing: no file of this name lies below {root}",
            hint="put all lists there, or none",
            kind="missing_file",
        )
    by_key = {fill(lists.image_key, image.fields): image for image in images}
    draws: defaultdict[ImageEntry, set[OfficialDraw]] = defaultdict(set)
    for draw, file in files.items():
        for image in _named(lists, file, by_key) if file else ():
            draws[image].add(draw)
    both = 0
    for image, own in draws.items():
        learned = {draw._replace(side="val") for draw in own if draw.side == "train"}
        both += len(own & learned)
        image.draws = tuple(sorted(own - learned))
    note = f"the release's own draws validate {both} times on an image that they train on: it is trained on only"
    return (note,) if both else ()


def _every(lists: DrawLists) -> list[OfficialDraw]:
    return [OfficialDraw(*draw) for draw in product(lists.sides, lists.shots, range(lists.numbers))]


def _find(lists: DrawLists, draw: OfficialDraw, root: Path, paths: Sequence[str]) -> Path | None:
    end, here = lists.name_of(draw), root.resolve().name
    return next((root / path for path in paths if ends_with(f"{here}/{path}", end)), None)


def _named(lists: DrawLists, file: Path, by_key: Mapping[str, ImageEntry]) -> Iterator[ImageEntry]:
    for line, cells in read_list(file, lists.cells, lists.separator):
        if cells[0] not in by_key:
            raise InputError(
                f"{file}, line {line}: the list names '{cells[0]}', but there is no such image",
                hint="are all official files there, and all unpacked?",
                kind="missing_image",
            )
        yield by_key[cells[0]]

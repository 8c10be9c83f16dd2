"""Reads an official release by its card: every image with its label, group and side, or why it is left out."""

from __future__ import annotations

import os
import posixpath
from collections import defaultdict
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from petlbench.core.errors import InputError
from petlbench.core.progress import Progress
from petlbench.core.user_files import open_file
from petlbench.data.card import DatasetCard
from petlbench.data.images.decode import IMAGE_SUFFIXES, is_image
from petlbench.data.images.dicom import is_dicom, read_dataset, require_pydicom
from petlbench.data.images.files import files_below
from petlbench.data.layout import Layout, ends_with, fill, match_pattern, names_in
from petlbench.data.official.draws import join_draws
from petlbench.data.official.lists import check_repeats, meanings, release_folder
from petlbench.data.official.rows import read_header
from petlbench.data.official.tables import ImageEntry, join
from petlbench.data.record import Record
from petlbench.data.tasks.base import Labels

_NO_IMAGE = "the file is no image"
_ELSEWHERE = "the file is not where the card says that images lie"
_MOST_THREADS = 8


@dataclass(frozen=True)
class OfficialImages:
    """What an official release holds.

    Args:
        records: The images, sorted by id; an id is the path below the root, in POSIX form.
        left_out: Paths of the files that look like images and are not used, sorted, by reason.
        notes: What else a reader of results must know of the files, in words.
        names: The path that the release itself gives each file, by its path below the root.
        root: The folder that was given, or the release's own in it.
    """

    records: tuple[Record, ...]
    left_out: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    names: Mapping[str, str] = field(default_factory=dict)
    root: Path = Path()


def read_official(
    card: DatasetCard, root: Path, name: str, labels: Labels | None = None, *, progress: Progress | None = None
) -> OfficialImages:
    """Read the unpacked files of an official release; no image is decoded.

    Args:
        card: The card; it has a layout.
        root: The folder in which the files lie as the layout says, or one above them, or the outermost of them; where
            the release has a folder of its own, as `release_folder` takes it.
        name: The dataset's name, for errors.
        labels: How the labels of its task are stored; one class an image without it.
        progress: Told of the headers that are read, where there are any.

    Returns:
        The labelled images, and what was left out and why.

    Raises:
        InputError: When there are no images (kind ``data_missing``), the files are a changed copy, a table or a column
            lacks, a label is unknown to the card, a row names an image that is absent, an image stands in no table
            though it must, or two rows or two files contradict each other.
    """
    layout = card.layout
    if layout is None:
        raise InputError(f"the card of '{name}' has no layout", hint="it needs a [layout]", kind="bad_card")
    root = release_folder(layout, root, name)
    paths = list(files_below(root))
    _refuse_copies(layout, root, paths, name)
    names = _official_names(layout, root, paths, name)
    images, left_out = _find_images(layout, root, names, name)
    _read_tags(layout, root, images, progress or Progress())
    notes = [note for table in layout.all_tables for note in join(table, images, root, paths, name)]
    if layout.draws is not None:
        notes += join_draws(layout.draws, images, root, paths, name)
    classes = meanings(layout, card.classes, images, name)
    records = []
    for image in images:
        reason = _why_left_out(image, layout, root)
        if reason:
            left_out[reason].append(image.path)
        else:
            records.append(_record(image, card, layout, classes, labels or Labels()))
    check_repeats(layout, images, root, paths)
    records.sort(key=lambda record: record.image_id)
    reasons = {reason: tuple(sorted(left_out[reason])) for reason in sorted(left_out)}
    return OfficialImages(tuple(records), reasons, tuple(notes), names, root)


def _refuse_copies(layout: Layout, root: Path, paths: Sequence[str], name: str) -> None:
    for copy in layout.refused:
        for path in paths:
            if ends_with(path, copy.file) and set(copy.columns) <= set(read_header(root / path)):
                raise InputError(
                    f"{root / path} has the columns {', '.join(copy.columns)}: {copy.reason}",
                    hint=f"get the official files of '{name}': {layout.shape}",
                    kind="refused_copy",
                )


def _find_images(
    layout: Layout, root: Path, names: Mapping[str, str], name: str
) -> tuple[list[ImageEntry], defaultdict[str, list[str]]]:
    """Sort the files, given with the names that the release gives them, into images and what is left out."""
    images: list[ImageEntry] = []
    left_out: defaultdict[str, list[str]] = defaultdict(list)
    first: dict[tuple[int, tuple[str | None, ...]], str] = {}
    for path, official in names.items():
        position, match = _place(layout, official)
        if match is None:
            if _has_image_suffix(path):
                left_out[_reason_to_leave(layout, official) or _ELSEWHERE].append(path)
            continue
        if not _has_image_suffix(path) and not ((root / path).is_file() and is_image(root / path)):
            left_out[_NO_IMAGE].append(path)
            continue
        other = first.setdefault((position, match.groups()), path)
        if other != path:
            raise InputError(
                f"{root} has one image twice: {other} and {path}", hint="keep one of the two", kind="duplicate_image"
            )
        source = layout.images[position]
        images.append(ImageEntry(path, source, match.groupdict(default=""), side=source.split))
    _require_every_source(layout, images, root, name)
    return images, left_out


def _has_image_suffix(path: str) -> bool:
    return posixpath.splitext(path)[1].lower() in IMAGE_SUFFIXES


def _reason_to_leave(layout: Layout, official: str) -> str:
    return next((skip.reason for skip in layout.leave if match_pattern(skip.pattern, official)), "")


def _place(layout: Layout, official: str) -> tuple[int, Any]:
    """Return which part of the layout an image belongs to, and how it matches; None for what is no image."""
    for position, source in enumerate(layout.images):
        match = match_pattern(source.pattern, official)
        if match is not None and not _reason_to_leave(layout, official):
            return position, match
    return -1, None


def _official_names(layout: Layout, root: Path, paths: Sequence[str], name: str) -> Mapping[str, str]:
    """Return the path that the release itself gives each file; empty for what lies beside it.

    The root may be the folder in which the release was unpacked, the outermost folder of the release, or the folder
    above: whichever gives the most images. Of a release with a folder of its own it is that one.
    """
    own, outermost = {path: path for path in paths}, root.resolve().name
    tops = [] if layout.folders else sorted({path.partition("/")[0] for path in paths if "/" in path})
    here = [own] if layout.folders else [own, {path: f"{outermost}/{path}" for path in paths}]
    below = [{path: path[len(top) + 1 :] for path in paths if path.startswith(f"{top}/")} for top in tops]
    choices = [*here, *below]
    counts = [sum(_place(layout, official)[1] is not None for official in names.values()) for names in choices]
    best = counts.index(max(counts))
    if not counts[best]:
        raise InputError(
            f"the images of '{name}' are missing: {root} holds none where they must lie",
            hint=f"put the unpacked official files there: {layout.shape}",
            kind="data_missing",
        )
    twice = [top for top, count in zip(tops, counts[len(here) :], strict=True) if count]
    if best >= len(here) and len(twice) > 1:
        raise InputError(
            f"{root} holds images of '{name}' more than once: in {', '.join(twice)}",
            hint="name one of these folders",
            kind="duplicate_image",
        )
    return {**dict.fromkeys(paths, ""), **choices[best]}


def _require_every_source(layout: Layout, images: Sequence[ImageEntry], root: Path, name: str) -> None:
    """A part that lacks would change the protocol without a word: validation images would be cut from training."""
    for source in layout.images:
        if all(image.source is not source for image in images):
            part = f"the {source.split} part" if source.split else "one part"
            raise InputError(
                f"{part} of '{name}' is missing: {root} holds no image whose path is like {source.pattern}",
                hint=f"put all of the official files there: {layout.shape}",
                kind="missing_image",
            )


def _read_tags(layout: Layout, root: Path, images: Sequence[ImageEntry], progress: Progress) -> None:
    """Add the fields that stand in DICOM headers."""
    tagged = [image for image in images if image.source.tags]
    if not tagged:
        return
    require_pydicom(str(root / tagged[0].path))
    progress.phase("DICOM headers", len(tagged))
    with ThreadPoolExecutor(min(_MOST_THREADS, os.cpu_count() or 1)) as pool:
        headers = pool.map(lambda image: _header(root / image.path, image.source.tags), tagged)
        for image, fields in zip(tagged, headers, strict=True):
            image.fields.update(fields)
            progress.advance()


def _header(file: Path, tags: Mapping[str, str]) -> dict[str, str]:
    try:
        with open_file(file, what="image") as stream:
            if not is_dicom(stream.read(132)):
                raise ValueError("it is no DICOM file")
            stream.seek(0)
            header = read_dataset(stream, stop_before_pixels=True, specific_tags=list(tags.values()))
        values = {name: header.get(keyword) for name, keyword in tags.items()}
        return {name: "" if value is None else str(value).strip() for name, value in values.items()}
    except (OSError, EOFError, ValueError) as error:
        raise InputError(f"the DICOM header of {file} cannot be read: {error}", kind="corrupt_image") from error


def _why_left_out(image: ImageEntry, layout: Layout, root: Path) -> str:
    lists = [table.file for table in layout.all_tables if table.side]
    if lists and image.side is None and not layout.unlisted:
        raise InputError(
            f"the image {root / image.path} stands in none of the lists {', '.join(lists)}",
            hint="are the lists whole? else take the image away",
            kind="image_without_row",
        )
    if lists and image.side is None:
        return layout.unlisted
    return image.left_out or layout.left_out.get(fill(layout.label, image.fields), "")


def _record(image: ImageEntry, card: DatasetCard, layout: Layout, classes: Mapping[str, str], labels: Labels) -> Record:
    raw = fill(layout.label, image.fields)
    text = _several(layout, raw) if labels.form == "labels" else classes.get(raw)
    if text is None:
        place = next((image.origin[name] for name in names_in(layout.label) if name in image.origin), image.path)
        raise InputError(
            f"{place}: the label '{raw}' of {image.path} is unknown to the card; it knows "
            f"{_in_words(layout, classes, card.classes)}",
            hint="is it the file of the official release, unchanged?",
            kind="unknown_label",
        )
    return Record(
        image_id=image.path,
        path=image.path,
        label=labels.parse(text, card.classes),
        group=fill(layout.group, image.fields) or None,
        split=image.side,
        extra=tuple((name, image.fields.get(name, "")) for name in layout.extra),
        draws=image.draws,
    )


def _in_words(layout: Layout, labels: Mapping[str, str], classes: Sequence[str]) -> str:
    if layout.numbers:
        numbers = sorted(labels, key=int)
        return f"{len(numbers)} classes, numbered {numbers[0]} to {numbers[-1]}"
    written = sorted({*labels, *layout.left_out})
    return f"{', '.join(map(repr, written))} for the classes {', '.join(classes)}"


def _several(layout: Layout, raw: str) -> str | None:
    """Return several labels in the classes' own names; None where one is unknown."""
    classes: dict[str, str] = {}
    for part in raw.split("|"):
        name = part.removeprefix("?")
        if not part or part in layout.none:
            continue
        if name not in layout.labels:
            return None
        # Several columns may be one class: then a certain one counts.
        mark = part[: len(part) - len(name)]
        classes[layout.labels[name]] = min(mark, classes.get(layout.labels[name], mark))
    return "|".join(mark + name for name, mark in classes.items())

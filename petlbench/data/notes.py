"""Notes about a dataset: what labels and names of one without a card may mean other than they say; what a copy lacks.

Nothing is changed on a suspicion. Each note names it and the setting that settles it; it is shown by ``petlbench data
info`` and stands in the result of every run. What can only be an error is refused. A dataset with a card is not
doubted, but it may be a copy that is not the source.
"""

from __future__ import annotations

import re
import shlex
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from petlbench.core.errors import InputError
from petlbench.core.text import comma_separated, first_few, printable
from petlbench.data.images.files import ImageFacts
from petlbench.data.record import SPLIT_ALIASES, WRITTEN_BY_PROGRAMS, Record, Split, images_by_class
from petlbench.data.tasks.base import Labels

_MISSING = WRITTEN_BY_PROGRAMS | frozenset(("none", "nil", "-", "?", "undefined", "missing", "unlabeled", "unlabelled"))
"""What programs and people write where there is no value, in lower case."""
_OTHER_FOLDERS = frozenset(
    ("mask", "masks", "segmentation", "segmentations", "annotations", "thumbs", "thumbnails", "preview", "previews")
)
"""Folders of what is no image of the dataset, in lower case."""
_MOST_NAMED = 20
_LOSSY = frozenset(("JPEG", "MPO"))
_GROUP_WORDS = frozenset(("patient", "patients", "subject", "case", "lesion", "study", "person", "participant"))


def option(setting: str, *values: str) -> str:
    """Return the option that gives a dataset's setting these values, as a shell takes it."""
    # A separator stands as it is: it is no list of two empty values.
    text = values[0] if len(values) == 1 and len(values[0]) == 1 else comma_separated(values)
    return f"--set {shlex.quote(f'dataset.{setting}={text}')}"


def refuse_twins(names: Iterable[str], place: str) -> None:
    """Refuse class names of which two can only be one: a number written in two ways, or a text in two Unicode forms.

    Args:
        names: The names, as the files have them.
        place: What the error calls the files.

    Raises:
        InputError: When there are such names.
    """
    first: dict[float | str, str] = {}
    twins: dict[str, str] = {}
    for name in sorted(names):
        number = _number(name)
        twin = first.setdefault(unicodedata.normalize("NFC", name) if number is None else number, name)
        if twin != name:
            twins[name] = twin
    for name, twin in twins.items():
        what = "one name in two Unicode forms" if _number(name) is None else "one number, written in two ways"
        raise InputError(
            f"{place} has the classes '{printable(twin)}' and '{printable(name)}', which are {what}",
            hint=f"write them alike, or {option('rename', *(f'{old}={new}' for old, new in twins.items()))}",
            kind="class_twice",
        )


def refuse_empty_cells(labels: Iterable[str], place: str) -> None:
    """Refuse labels of a table that are what programs write into an empty cell: they would be a class of their own.

    Args:
        labels: The labels, as the table has them, but for those that a setting says something of.
        place: What the error calls the table.

    Raises:
        InputError: When there are some.
    """
    counts = Counter(label for label in labels if label.casefold() in WRITTEN_BY_PROGRAMS)
    for name in sorted(counts):
        raise InputError(
            f"{place}: the label of {counts[name]} images is '{name}', which programs write where there is none",
            hint=f"{option('leave_out', *sorted(counts))} leaves them out; where it is a class, "
            f"{option('rename', f'{name}=CLASS')} gives it another name",
            kind="empty_label",
        )


def notes_on_classes(counts: Mapping[str, int], records: Sequence[Record]) -> tuple[str, ...]:
    """Return what the names of classes, given with their numbers of images, may mean other than they say."""
    sides = () if any(record.split for record in records) else _like_sides(counts)
    return (*_alike(counts), *_missing(counts), *_combined(counts), *sides, *_no_classes(counts), *_identifiers(counts))


def notes_on_sides(records: Sequence[Record]) -> tuple[str, ...]:
    """Return what a dataset's own parts are not: used, or whole."""
    parts = {record.split for record in records}
    if {"train", "val"} <= parts and "test" not in parts:
        return (
            "its own split has parts to train and to validate on, and none to test on: with --split official none is "
            "made, and no test scores are reported; --split random mixes the parts and divides all images anew",
        )
    named = sorted(part for part in parts if part is not None)
    if named and not ("train" in parts and len(named) > 1):
        return (f"of its own split there is {' and '.join(named)} only: all images are divided anew",)
    return ()


def notes_on_groups(records: Sequence[Record]) -> tuple[str, ...]:
    """Return which groups are called like what stands where no group is known: their images would stay together."""
    counts = Counter(record.group for record in records if record.group and record.group.casefold() in _MISSING)
    return tuple(
        f"the group '{name}' ({count} images) reads as if it were not known: its images stay on one side and count as "
        "one; where each is alone, leave the cells empty"
        for name, count in sorted(counts.items())
        if count > 1
    )


def group_columns(columns: Iterable[str]) -> tuple[str, ...]:
    """Return a note on the columns of a table without groups that seem to say whose image it is."""
    names = [name for name in columns if _GROUP_WORDS & set(_words(name)) and not {"age", "sex"} & set(_words(name))]
    if not names:
        return ()
    listed = ", ".join(f"'{name}'" for name in names)
    return (
        f"no column says which images stay on one side, and {listed} may: where one patient has several images, "
        f"{option('group_column', names[0])}",
    )


def absent_in_training(records: Sequence[Record], classes: Sequence[str], labels: Labels) -> tuple[str, ...]:
    """Return a note on the classes, labels stored so, of which a training part that is given has no image."""
    trained = [record for record in records if record.split == "train"]
    absent = [name for name, count in images_by_class(trained, classes, labels).items() if trained and not count]
    if not absent:
        return ()
    which = f"class {absent[0]}" if len(absent) == 1 else f"{len(absent)} of {len(classes)} classes: "
    named = "" if len(absent) == 1 else first_few(absent, _MOST_NAMED)
    return (f"the training part has no image of {which}{named}",)


def lossy_copy(is_lossless: bool, facts: Iterable[ImageFacts]) -> tuple[str, ...]:
    """Return a note on images that are stored with loss where their source is not, given what is known of each."""
    images = list(facts)
    lossy = Counter((image.width, image.height) for image in images if image.format in _LOSSY)
    if not is_lossless or not lossy:
        return ()
    (width, height), _ = lossy.most_common(1)[0]
    return (
        f"{lossy.total():,} of {len(images):,} images ({width}x{height} pixels) are JPEG files, and the source keeps "
        "its pixels exactly: this copy is another dataset, and scores on it are not scores on the source",
    )


def named_side(name: str) -> Split | None:
    """Return the side of a split that a name such as ``train_images`` speaks of; None where it is none, or several."""
    sides = {SPLIT_ALIASES[word] for word in _words(name) if word in SPLIT_ALIASES}
    return sides.pop() if len(sides) == 1 else None


def _alike(counts: Mapping[str, int]) -> Iterable[str]:
    first: dict[str, str] = {}
    for name in (name for name in counts if _number(name) is None):
        twin = first.setdefault(re.sub(r"[\W_]+", "", unicodedata.normalize("NFKC", name).casefold()) or name, name)
        if twin != name:
            yield (
                f"the classes '{twin}' and '{name}' differ in capitals, blanks or signs only: where they are one, "
                f"{option('rename', f'{name}={twin}')}"
            )


def _missing(counts: Mapping[str, int]) -> Iterable[str]:
    others = [_number(name) for name in counts if name.casefold() not in _MISSING]
    least = min((number for number in others if number is not None and number >= 0), default=None)
    for name, count in counts.items():
        number = _number(name)
        below = number is not None and number < 0 and least is not None and None not in others
        if name.casefold() in _MISSING or below:
            yield (
                f"the class '{name}' ({count} images) reads as if these had no label: where that is so, "
                f"{option('leave_out', name)}"
            )


def _combined(counts: Mapping[str, int]) -> Iterable[str]:
    for separator in "|;/,+&":
        several = [name for name in counts if _holds_several(name, separator, counts)]
        if several:
            images = sum(counts[name] for name in several)
            away, together = option("leave_out", *several[:_MOST_NAMED]), option("rename", f"{several[0]}=CLASS")
            yield (
                f"labels such as '{several[0]}' ({images} images) hold several classes with '{separator}' between "
                "them, and each such label is a class of its own here, since an image has one class: where an image "
                f"may have several labels, {option('label_separator', separator)}; else leave them out with {away} or "
                f"take them for one class with {together}"
            )


def _holds_several(name: str, separator: str, classes: Mapping[str, int]) -> bool:
    parts = [part.strip() for part in name.split(separator)]
    return len(parts) > 1 and all(parts) and (separator in "|;" or any(part in classes for part in parts))


def _like_sides(counts: Mapping[str, int]) -> Iterable[str]:
    names = [name for name in counts if named_side(name) is not None]
    if names:
        listed = ", ".join(f"'{name}'" for name in names)
        yield (
            f"classes named like sides of a split are taken as classes: {listed}; where they are sides, "
            "--set dataset.layout=sides (a folder), or --set dataset.split_column=NAME (a table)"
        )


def _no_classes(counts: Mapping[str, int]) -> Iterable[str]:
    for name, count in counts.items():
        if name.casefold() in _OTHER_FOLDERS or name.startswith("@"):
            yield (
                f"the class '{name}' ({count} images) is named like what is kept beside images: where it is no class, "
                f"{option('leave_out', name)}"
            )


def _identifiers(counts: Mapping[str, int]) -> Iterable[str]:
    images = sum(counts.values())
    if len(counts) > 20 and len(counts) * 2 > images:
        yield (
            f"there are {len(counts)} classes of {images} images: where the labels are names of images or measured "
            "values, --set dataset.label_column=NAME"
        )


def _words(name: str) -> list[str]:
    return re.findall(r"[a-z]+", re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).lower())


def _number(name: str) -> float | None:
    """Return the number that a name is; None where it is none, or no finite one."""
    is_number = re.fullmatch(r"[+-]?[0-9]{1,300}(\.[0-9]*)?([eE][+-]?[0-9]{1,2})?", name)
    return float(name) if is_number else None

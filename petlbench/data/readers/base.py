"""What a reader is: the one thing that knows where the images of a dataset lie and how their labels are written."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Protocol

from petlbench.core.errors import InputError
from petlbench.data.record import Record

if TYPE_CHECKING:
    from pathlib import Path

    from PIL.Image import Image

__all__ = ["Reader", "choose_classes", "ordered_classes"]


class Reader(Protocol):
    """Finds the records of a dataset once, when it is made, and opens images one by one, from any thread."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names; a record's label is a position in it."""
        ...

    @property
    def records(self) -> tuple[Record, ...]:
        """Every image, in an order that does not depend on the file system or the locale."""
        ...

    @property
    def notes(self) -> tuple[str, ...]:
        """What was left out or put together while reading, in words."""
        ...

    def open(self, record: Record) -> Image:
        """Return the image in 8-bit RGB or, where its greys are deeper, in mode F from 0 to 255.

        Raises:
            InputError: When the image is absent or corrupt.
        """
        ...

    def file(self, record: Record) -> Path | None:
        """Return the image's file; None where the image is made, or lies in a file with others."""
        ...

    def content_hash(self, record: Record) -> str:
        """Return the SHA-256, in hexadecimal, of the file's bytes or, without a file, of the pixels' bytes."""
        ...


def ordered_classes(names: Iterable[str]) -> tuple[str, ...]:
    """Order class names: by number where all are whole numbers, else by code point, in any locale."""
    unique = set(names)
    if all(name.isascii() and name.isdigit() for name in unique):
        return tuple(sorted(unique, key=lambda name: (int(name), name)))
    return tuple(sorted(unique))


def choose_classes(found: Iterable[str], declared: Sequence[str] | None, place: str) -> tuple[str, ...]:
    """Settle the class list from what the files hold and what the card says.

    Args:
        found: The names in the files.
        declared: The card's classes, whose order is kept, or None where there is no card.
        place: What the error calls the files.

    Returns:
        The class names in label order.

    Raises:
        InputError: When there are fewer than two classes, or the files and the card disagree.
    """
    names = ordered_classes(found)
    if declared is not None:
        return _as_declared(names, declared, place)
    if len(names) < 2:
        raise InputError(
            f"{place} has {len(names)} class{'es' if not names else f' ({names[0]})'}; at least 2 are needed",
            hint="a folder needs one subfolder a class, a CSV two different labels",
            kind="too_few_classes",
        )
    return names


def _as_declared(names: Sequence[str], declared: Sequence[str], place: str) -> tuple[str, ...]:
    strange = [name for name in names if name not in declared]
    missing = [name for name in declared if name not in names]
    if strange or missing:
        parts = [f"holds the unknown class {', '.join(strange)}"] if strange else []
        parts += [f"lacks the class {', '.join(missing)}"] if missing else []
        raise InputError(
            f"{place} {' and '.join(parts)}",
            hint=f"the card's classes are: {', '.join(declared)}",
            kind="class_mismatch",
        )
    return tuple(declared)

"""What a dataset's tables say of images beside their labels, as the subgroups that images fall into."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from petlbench.core.errors import InputError, unknown_name
from petlbench.core.text import printable
from petlbench.data.record import WRITTEN_BY_PROGRAMS, Record

NOT_STATED = "not stated"
"""The subgroup of images of which the table says nothing."""

_QUARTERS = (0.25, 0.5, 0.75)
# More distinct numbers are a quantity, such as an age; fewer are names of something, such as a site.
_MOST_NUMBERS = 8
_MOST_VALUES = 50


@dataclass(frozen=True)
class Attribute:
    """A column by which images fall into subgroups.

    Args:
        name: The column.
        edges: Where its numbers are cut, in rising order; without any at their quartiles.
    """

    name: str
    edges: tuple[float, ...] = ()

    @classmethod
    def parse(cls, text: str) -> Attribute:
        """Read ``COLUMN``, or ``COLUMN:EDGE:EDGE`` for numbers that are cut there.

        Raises:
            InputError: When the edges do not rise.
        """
        name, *parts = text.strip().split(":")
        edges = [_number(part) for part in parts]
        if not parts or None in edges:  # a colon may belong to the column's name
            return cls(text.strip())
        numbers = tuple(edge for edge in edges if edge is not None)
        if any(low >= high for low, high in pairwise(numbers)):
            raise InputError(f"'{printable(text)}': the edges do not rise", hint="age:40:60", kind="bad_setting")
        return cls(name, numbers)

    def subgroups(self, values: Sequence[str | None]) -> list[str]:
        """The subgroup of each image, by what the table says of it; None for nothing.

        Numbers of more than eight kinds are cut, and the name of a subgroup says where.

        Raises:
            InputError: When what is to be cut is no number, or there are more than fifty values.
        """
        words = {value for value in values if value is not None and _number(value) is None}
        if words and all(word.casefold() in WRITTEN_BY_PROGRAMS for word in words):  # all others are numbers
            values = [None if value in words else value for value in values]
        stated = [value for value in values if value is not None]
        numbers = {value: _number(value) for value in stated}
        are_numbers = bool(stated) and None not in numbers.values()
        if self.edges and not are_numbers:
            other = next((value for value, number in numbers.items() if number is None), "")
            message = f"'{printable(self.name)}' holds '{printable(other)}', which cannot be cut at an edge"
            raise InputError(message, hint="leave the edges out", kind="bad_setting")
        if are_numbers and (self.edges or len(set(numbers.values())) > _MOST_NUMBERS):
            found = {value: number for value, number in numbers.items() if number is not None}
            edges = self.edges or _quartiles([found[value] for value in stated])
            return [NOT_STATED if value is None else _bin(found[value], edges) for value in values]
        if len(numbers) > _MOST_VALUES:
            message = f"'{printable(self.name)}' has {len(numbers)} values: too many to be subgroups"
            raise InputError(message, hint="give a column with few values, or numbers", kind="too_many_values")
        return [NOT_STATED if value is None else value for value in values]


def attribute_values(records: Iterable[Record], column: str) -> list[str | None]:
    """What the table says in a column of each image; None where it says nothing.

    Raises:
        InputError: When it has no such column.
    """
    extras = [dict(record.extra) for record in records]
    names = {name for extra in extras for name in extra}
    if column not in names:
        raise unknown_name("column", column, names)
    return [extra.get(column) for extra in extras]


def value_order(value: str) -> tuple[bool, float, str]:
    """A key that sorts values: numbers by size, then words."""
    number = _number(value)
    return number is None, number or 0.0, value


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _quartiles(numbers: Sequence[float]) -> tuple[float, ...]:
    import numpy as np

    edges = np.unique(np.quantile(numbers, _QUARTERS, method="nearest"))
    return tuple(float(edge) for edge in edges if edge > min(numbers))


def _bin(number: float, edges: Sequence[float]) -> str:
    below = [edge for edge in edges if edge <= number]
    above = [edge for edge in edges if edge > number]
    if not below:
        return f"under {above[0]:g}"
    return f"{below[-1]:g} to under {above[0]:g}" if above else f"{below[-1]:g} and over"

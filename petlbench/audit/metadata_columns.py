"""What is known of every image without a look at its pixels, as columns of a table."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from petlbench.audit.scan import Scan

__all__ = ["FILE_SIZE", "MISSING", "Column", "columns_of", "most_common"]

FILE_SIZE = "file size in bytes"
MISSING = "not given"

_FEWEST_NUMBERS = 10
"""A column of fewer different numbers is one of names: grades, years, yes and no."""


@dataclass(frozen=True)
class Column:
    """One column.

    Args:
        name: Its heading.
        values: A word an image, (N,); `MISSING` where there is none.
        numbers: The same as numbers, (N,), NaN where there is none; None for a column of names.
    """

    name: str
    values: tuple[str, ...]
    numbers: NDArray[np.float64] | None = None

    @property
    def constant(self) -> bool:
        """Whether it says the same of all images."""
        return len(set(self.values)) < 2

    @property
    def identifies(self) -> bool:
        """Whether it names single images, so that what it says of one says nothing of others."""
        return self.numbers is None and len(set(self.values)) > max(1, len(self.values) // 2)


def columns_of(scan: Scan) -> list[Column]:
    """Return columns of file format, bit depth and file size where there are files, image size, and the tables' own."""
    images = scan.images
    files = [image.file for image in images]
    columns = []
    if any(file is not None for file in files):
        columns += [
            Column("file format", tuple(MISSING if file is None else file.format for file in files)),
            Column("bit depth", tuple(MISSING if file is None else file.depth for file in files)),
            _numbers(FILE_SIZE, [math.nan if file is None else file.bytes for file in files]),
        ]
    columns += [
        Column("image size", tuple(f"{image.width}x{image.height}" for image in images)),
        _numbers("pixels", [image.width * image.height for image in images]),
        _numbers("width / height", [image.width / image.height for image in images]),
    ]
    extras = [dict(record.extra) for record in scan.records]
    names = dict.fromkeys(name for extra in extras for name in extra)
    return columns + [_named_or_numbers(name, [extra.get(name, "").strip() for extra in extras]) for name in names]


def _named_or_numbers(name: str, values: Sequence[str]) -> Column:
    words = {value for value in values if value}
    if len(words) >= _FEWEST_NUMBERS and all(_is_number(value) for value in words):
        return _numbers(name, [float(value) if value else math.nan for value in values])
    return Column(name, tuple(value or MISSING for value in values))


def _numbers(name: str, numbers: Sequence[float]) -> Column:
    words = tuple(MISSING if math.isnan(number) else f"{number:.6g}" for number in numbers)
    return Column(name, words, np.array(numbers, dtype=np.float64))


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def most_common(values: Sequence[str], count: int) -> list[str]:
    """Return the most frequent values, `count` at most, in the order of their names."""
    ranked = sorted(Counter(values).items(), key=lambda item: (-item[1], item[0]))
    return sorted(value for value, _ in ranked[:count])

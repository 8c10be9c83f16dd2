"""What is known of every image without a look at its pixels, as columns, and how each goes with the class."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from petlbench.audit.scan import Scan
from petlbench.data.tasks.base import Question

FILE_SIZE = "file size in bytes"
MISSING = "not given"

_FEWEST_NUMBERS = 10
"""A column of fewer different numbers is one of names: grades, years, yes and no."""

WEAK = 0.1
"""Below this Cramér's V a column is hardly worth a table."""

_MOST_ROWS = 12
_OTHERS = "others"
_COMMON = 0.1
"""A number that so large a share of the images has is a row of its own; the others share four rows."""


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
    with suppress(ValueError):
        if len(words) >= _FEWEST_NUMBERS and all(math.isfinite(float(word)) for word in words):
            return _numbers(name, [float(value) if value else math.nan for value in values])
    return Column(name, tuple(value or MISSING for value in values))


def _numbers(name: str, numbers: Sequence[float]) -> Column:
    words = tuple(MISSING if math.isnan(number) else f"{number:.6g}" for number in numbers)
    return Column(name, words, np.array(numbers, dtype=np.float64))


def most_common(values: Sequence[str], count: int) -> list[str]:
    """Return the most frequent values, `count` at most, in the order of their names."""
    ranked = sorted(Counter(values).items(), key=lambda item: (-item[1], item[0]))
    return sorted(value for value, _ in ranked[:count])


@dataclass(frozen=True)
class Confound:
    """How a column goes with the class.

    Args:
        column: The column's name.
        rows: Its values; numbers in ranges.
        counts: Images by row and class, (rows, classes).
        cramers_v: Cramér's V, 0 (unrelated) to 1 (one tells the other), corrected for chance (Bergsma 2013, "A
            bias-correction for Cramér's V and Tschuprow's T").
        p: The chi-squared test's probability of such a table where column and class are unrelated.
        label: Where images have several classes: the one that goes most with the column, for which V and p are; p is
            multiplied by the number of classes.
    """

    column: str
    rows: tuple[str, ...]
    counts: tuple[tuple[int, ...], ...]
    cramers_v: float
    p: float
    label: str = ""


def find_confounds(columns: Sequence[Column], questions: Sequence[Question], classes: int) -> list[Confound]:
    """Compare every column that says something with the class, the most telling first.

    Args:
        columns: Of N values.
        questions: What is asked of the N images: their class, or of each class whether they have it.
        classes: Number of classes.
    """
    telling = [column for column in columns if questions and not column.constant and not column.identifies]
    confounds = [_compare(column, questions, classes) for column in telling]
    return sorted(confounds, key=lambda confound: -confound.cramers_v)


def _compare(column: Column, questions: Sequence[Question], classes: int) -> Confound:
    if column.numbers is None:
        values: Sequence[str] = column.values
        levels = most_common(values, _MOST_ROWS)
    else:
        values = _ranges(column.numbers)
        levels = sorted(set(values), key=lambda row: math.inf if row == MISSING else float(row.partition(" to ")[0]))
    rows = levels if len(levels) == len(set(values)) else [*levels, _OTHERS]
    place = {row: number for number, row in enumerate(rows)}
    row_of = np.array([place.get(value, len(rows) - 1) for value in values])
    counts = np.zeros((len(rows), classes), dtype=np.int64)
    tested = []
    for question in questions:
        table = np.zeros((len(rows), len(question.outputs)), dtype=np.int64)
        np.add.at(table, (row_of[question.rows], question.answers), 1)
        for option, output in enumerate(question.outputs):
            if output is not None:
                counts[:, output] += table[:, option]
        tested.append((*_association(table), question.name))
    strength, p, label = max(tested, key=lambda each: each[0])
    p = min(1.0, p * len(questions))
    return Confound(column.name, tuple(rows), tuple(map(tuple, counts.tolist())), strength, p, label)


def _ranges(numbers: NDArray[np.float64]) -> list[str]:
    present = numbers[~np.isnan(numbers)]
    levels, count = np.unique(present, return_counts=True)
    common = set(levels[count >= max(2, _COMMON * len(numbers))].tolist())
    rest = present[~np.isin(present, list(common))]
    edges = np.unique(np.quantile(rest, [0.25, 0.5, 0.75], method="nearest")) if len(rest) else rest
    bins = np.searchsorted(edges, rest)
    ends = {part: (_short(rest[bins == part].min()), _short(rest[bins == part].max())) for part in set(bins)}
    spans = {part: low if low == high else f"{low} to {high}" for part, (low, high) in ends.items()}

    def row(number: float) -> str:
        if np.isnan(number):
            return MISSING
        return _short(number) if number in common else spans[np.searchsorted(edges, number)]

    return [row(number) for number in numbers.tolist()]


def _short(number: float) -> str:
    return f"{number:.0f}" if abs(number) >= 1000 else f"{number:.4g}"


def _association(counts: NDArray[np.int64]) -> tuple[float, float]:
    """Return Cramér's V, corrected for chance, and the p of the chi-squared test."""
    from scipy.stats import chi2_contingency

    table = counts[counts.sum(axis=1) > 0][:, counts.sum(axis=0) > 0]
    if min(table.shape) < 2:
        return 0.0, 1.0
    tested = chi2_contingency(table, correction=False)
    images, (rows, columns) = int(table.sum()), table.shape
    by_chance = (rows - 1) * (columns - 1) / (images - 1)
    excess = max(0.0, float(tested.statistic) / images - by_chance)
    least = min(rows - (rows - 1) ** 2 / (images - 1), columns - (columns - 1) ** 2 / (images - 1)) - 1
    return (min(1.0, float(np.sqrt(excess / least))) if least > 0 else 0.0), float(tested.pvalue)

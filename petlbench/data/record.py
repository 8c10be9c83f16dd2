"""One labelled image of a dataset, and the words for the three sides of a split."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from petlbench.data.tasks.base import Label, Labels

__all__ = ["SPLITS", "SPLIT_ALIASES", "Record", "Split", "images_by_class"]

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = get_args(Split)

SPLIT_ALIASES: Mapping[str, Split] = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}
"""Other people's words for the three sides, in lower case."""


@dataclass(frozen=True)
class Record:
    """One labelled image.

    Args:
        image_id: Unique in the dataset; never the bare file stem, which repeats between folders.
        path: Relative path in POSIX form, or a locator such as ``digits/0001`` where no file exists.
        label: As the task type stores it; of one class an image, its position in the dataset's ``classes``.
        group: What must stay on one side of a split (patient, lesion), or None where it is not known.
        split: The side that the dataset's own split gives the image, or None where there is none.
        extra: What else the dataset's tables say of the image (site, device, sex, age, …), as (name, value) pairs.
    """

    image_id: str
    path: str
    label: Label
    group: str | None = None
    split: Split | None = None
    extra: tuple[tuple[str, str], ...] = ()


def images_by_class(records: Iterable[Record], classes: Sequence[str], labels: Labels) -> dict[str, int]:
    """Return the number of images of each class, whose labels are stored so."""
    counts = Counter(position for record in records for position in labels.positions(record.label))
    return {name: counts[position] for position, name in enumerate(classes)}

"""What a look at a dataset tells before any training: classes by side, image sizes and formats."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from petlbench.core.config import RunConfig
from petlbench.core.errors import InputError
from petlbench.core.progress import Progress
from petlbench.data.dataset import Dataset
from petlbench.data.images.facts import ImageFacts, read_size
from petlbench.data.record import SPLITS, Record, map_images
from petlbench.data.splits import SplitScheme, assign_splits

__all__ = ["Overview", "Spread", "overview_of"]

_SEED: int = RunConfig.model_fields["split_seed"].default


@dataclass(frozen=True)
class Spread:
    """Least, median and greatest of some numbers of pixels."""

    least: int
    median: float
    greatest: int


@dataclass(frozen=True)
class Overview:
    """What was seen.

    Args:
        by_split: Images by class, for each side of the card's split; None where it cannot be split so.
        refused: Why not; empty where it can.
        width: Of the images, in pixels; None where no image has a file.
        height: Of the images, in pixels.
        formats: Images by what their content is.
        unmeasured: Images that are no files, or whose head cannot be read.
    """

    by_split: Mapping[str, Mapping[str, int]] | None
    refused: str
    width: Spread | None
    height: Spread | None
    formats: Mapping[str, int]
    unmeasured: int


def overview_of(dataset: Dataset, facts: Mapping[str, ImageFacts], workers: int, progress: Progress) -> Overview:
    """Return classes by side and the sizes of images, which are not decoded.

    Args:
        dataset: The dataset.
        facts: What is known of images already, by image id.
        workers: Threads that read.
        progress: Told of every image that is read.
    """
    by_split, refused = _by_split(dataset)
    sizes = [(each.width, each.height, each.format) for each in facts.values()] or _measure(dataset, workers, progress)
    return Overview(
        by_split,
        refused,
        _spread([width for width, _, _ in sizes]),
        _spread([height for _, height, _ in sizes]),
        dict(Counter(kind for _, _, kind in sizes).most_common()),
        len(dataset.records) - len(sizes),
    )


def _by_split(dataset: Dataset) -> tuple[Mapping[str, Mapping[str, int]] | None, str]:
    scheme = SplitScheme.parse(dataset.card.split)
    try:
        sides = assign_splits(dataset.records, scheme, _SEED, classes=dataset.classes, strata=dataset.task.strata)
    except InputError as error:
        return None, error.message
    counts = Counter((side, record.label) for side, record in zip(sides, dataset.records, strict=True))
    return {side: {name: counts[side, label] for label, name in enumerate(dataset.classes)} for side in SPLITS}, ""


def _measure(dataset: Dataset, workers: int, progress: Progress) -> list[tuple[int, int, str]]:
    def measure(record: Record) -> tuple[int, int, str] | None:
        file = dataset.file(record)
        return read_size(file) if file is not None else None

    sizes, errors = map_images(dataset.records, measure, workers, progress, "measuring images")
    for error in errors.values():
        raise error
    return [size for size in sizes.values() if size is not None]


def _spread(values: Sequence[int]) -> Spread | None:
    return Spread(min(values), statistics.median(values), max(values)) if values else None

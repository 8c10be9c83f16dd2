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
from petlbench.data.images.files import Header, ImageFacts, read_header
from petlbench.data.reading import map_images
from petlbench.data.record import SPLITS, Record
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
    images: Sequence[ImageFacts | Header] = list(facts.values()) or _measure(dataset, workers, progress)
    return Overview(
        by_split,
        refused,
        _spread([image.width for image in images]),
        _spread([image.height for image in images]),
        dict(Counter(image.format for image in images).most_common()),
        len(dataset.records) - len(images),
    )


def _by_split(dataset: Dataset) -> tuple[Mapping[str, Mapping[str, int]] | None, str]:
    scheme = SplitScheme.parse(dataset.card.split)
    try:
        sides = assign_splits(dataset.records, scheme, _SEED, classes=dataset.classes, strata=dataset.task.strata)
    except InputError as error:
        return None, error.message
    counts = Counter((side, record.label) for side, record in zip(sides, dataset.records, strict=True))
    return {side: {name: counts[side, label] for label, name in enumerate(dataset.classes)} for side in SPLITS}, ""


def _measure(dataset: Dataset, workers: int, progress: Progress) -> list[Header]:
    def measure(record: Record) -> Header | None:
        file = dataset.file(record)
        return read_header(file) if file is not None else None

    headers, errors = map_images(dataset.records, measure, workers, progress, "measuring images")
    for error in errors.values():
        raise error
    return [header for header in headers.values() if header is not None]


def _spread(values: Sequence[int]) -> Spread | None:
    return Spread(min(values), statistics.median(values), max(values)) if values else None

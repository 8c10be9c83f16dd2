"""One pass over the images of a dataset: what every part of an audit needs to know of each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from PIL import Image

from petlbench.core.progress import Progress
from petlbench.data.dataset import Dataset
from petlbench.data.duplicates import Fingerprint, fingerprint
from petlbench.data.images.files import Header, read_header
from petlbench.data.record import Record, map_images
from petlbench.data.tasks.base import Question, TaskType
from petlbench.data.tasks.multiclass import MULTICLASS

_BLACK, _WHITE = 5, 250
"""Darkest and lightest levels of 0 to 255 that count: JPEG blurs a black border by a few levels."""


class GreyLevels(NamedTuple):
    """What an image's histogram says: levels from 0 to 255, shares from 0 to 1."""

    mean: float
    deviation: float
    black: float
    white: float


@dataclass(frozen=True)
class ImageStatistics:
    """What is known of one image.

    Args:
        fingerprint: What its copies are found by.
        width: In pixels, upright.
        height: In pixels, upright.
        levels: Its grey levels.
        file: What its file's header says; None where it has no file of its own.
    """

    fingerprint: Fingerprint
    width: int
    height: int
    levels: GreyLevels
    file: Header | None


@dataclass(frozen=True)
class Scan:
    """The images that could be read.

    Args:
        records: Their records, (N,).
        images: What is known of each, (N,).
        classes: Class names; a record's label is a position in it.
        unreadable: What is wrong with the others, by image id.
        task: What a label is.
    """

    records: tuple[Record, ...]
    images: tuple[ImageStatistics, ...]
    classes: tuple[str, ...]
    unreadable: Mapping[str, str]
    task: TaskType = MULTICLASS

    @property
    def questions(self) -> list[Question]:
        """What can be asked of the images; nothing where labels are no classes."""
        labels = self.task.labels.to_array([record.label for record in self.records])
        return self.task.questions(labels, self.classes)


def scan_images(dataset: Dataset, workers: int, progress: Progress) -> Scan:
    """Decode every image of a dataset once."""

    def examine(record: Record) -> ImageStatistics:
        image, file = dataset.open(record), dataset.file(record)
        mark = fingerprint(image, dataset.content_hash(record))
        return ImageStatistics(
            mark, image.width, image.height, _levels(image), None if file is None else read_header(file)
        )

    dataset.measure_greys(workers, progress)
    images, errors = map_images(dataset.records, examine, workers, progress)
    records = tuple(record for record in dataset.records if record.image_id in images)
    unreadable = {name: error.message for name, error in errors.items()}
    return Scan(records, tuple(images.values()), dataset.classes, unreadable, dataset.task)


def _levels(image: Image.Image) -> GreyLevels:
    histogram = np.array(image.convert("L").histogram(), dtype=np.float64)
    share, level = histogram / histogram.sum(), np.arange(256)
    mean = float(share @ level)
    deviation = float(np.sqrt(share @ (level - mean) ** 2))
    return GreyLevels(mean, deviation, float(share[: _BLACK + 1].sum()), float(share[_WHITE:].sum()))

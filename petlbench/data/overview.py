"""What a look at a dataset tells before any training: classes by side, image sizes and formats."""

from __future__ import annotations

import textwrap
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path

from petlbench.core.config import RunConfig
from petlbench.core.errors import InputError
from petlbench.core.files import write_atomically
from petlbench.core.progress import Progress
from petlbench.core.text import first_few, printable
from petlbench.data.dataset import Dataset
from petlbench.data.images.files import Header, ImageFacts, read_header
from petlbench.data.record import SPLITS, Record, each_image
from petlbench.data.splits import SplitScheme, assign_splits

_SIDE = 160
"""Pixels of the longer side of an image on a contact sheet."""

_MOST_NAMED = 5
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
        images: Images of each side; none where it cannot be split so.
        refused: Why not; empty where it can.
        width: Of the images, in pixels; None where no image has a file.
        height: Of the images, in pixels.
        formats: Images by what their content is.
        unmeasured: Images that are no files, or whose head cannot be read.
        unreadable: Why it cannot, by image id.
    """

    by_split: Mapping[str, Mapping[str, int]] | None
    refused: str
    width: Spread | None
    height: Spread | None
    formats: Mapping[str, int]
    unmeasured: int
    images: Mapping[str, int] = field(default_factory=dict)
    unreadable: Mapping[str, str] = field(default_factory=dict)

    @property
    def notes(self) -> tuple[str, ...]:
        """Which images cannot be read, and why."""
        count, reasons = len(self.unreadable), first_few(list(self.unreadable.values()), _MOST_NAMED, "; ")
        return (f"{count} image{'s' if count > 1 else ''} cannot be read: {reasons}",) if count else ()


def overview_of(dataset: Dataset, facts: Mapping[str, ImageFacts], workers: int, progress: Progress) -> Overview:
    """Return classes by side and the sizes of images, which are not decoded.

    Args:
        dataset: The dataset.
        facts: What is known of images already, by image id.
        workers: Threads that read.
        progress: Told of every image that is read.
    """
    by_split, images, refused = _sides(dataset)
    dataset.measure_greys(workers, progress)
    measured = _measure(dataset, facts, workers, progress)
    return Overview(
        by_split,
        refused,
        _spread(measured.widths),
        _spread(measured.heights),
        dict(measured.formats.most_common()),
        len(dataset.records) - measured.formats.total(),
        images,
        measured.unreadable,
    )


def _sides(dataset: Dataset) -> tuple[Mapping[str, Mapping[str, int]] | None, Mapping[str, int], str]:
    """Return the images of each side of the card's split, by class and all of them; else why it cannot be split so."""
    scheme = SplitScheme.parse(dataset.card.split)
    try:
        sides = assign_splits(dataset.records, scheme, _SEED, classes=dataset.classes, strata=dataset.task.strata)
    except InputError as error:
        return None, {}, error.message
    return dataset.by_side(sides), {side: sides.count(side) for side in SPLITS}, ""


@dataclass
class _Measured:
    """What images have in common: so many numbers as there are sizes and formats, however many images."""

    widths: Counter[int] = field(default_factory=Counter)
    heights: Counter[int] = field(default_factory=Counter)
    formats: Counter[str] = field(default_factory=Counter)
    unreadable: dict[str, str] = field(default_factory=dict)

    def add(self, image: ImageFacts | Header) -> None:
        self.widths[image.width] += 1
        self.heights[image.height] += 1
        self.formats[image.format] += 1


def _measure(dataset: Dataset, facts: Mapping[str, ImageFacts], workers: int, progress: Progress) -> _Measured:
    """Take what is known of images, or read their heads; and what is wrong with the others, by image id."""
    measured = _Measured()
    for known in facts.values():
        measured.add(known)
    if facts:
        return measured

    def measure(record: Record) -> Header | None:
        file = dataset.file(record)
        return read_header(file) if file is not None else None

    with closing(each_image(dataset.records, measure, workers, progress, "measuring images")) as headers:
        for record, header in headers:
            if isinstance(header, InputError):
                if header.kind == "missing_package":
                    raise header
                measured.unreadable[record.image_id] = printable(header.message)
            elif header is not None:
                measured.add(header)
    return measured


def _spread(counts: Counter[int]) -> Spread | None:
    """Return the spread of numbers that are given with how often each is there."""
    if not counts:
        return None
    values, half = sorted(counts), counts.total() / 2
    below = list(accumulate(counts[value] for value in values))
    # Of an even number of values the median is the mean of the two in the middle.
    first, second = values[bisect_left(below, half)], values[bisect_right(below, half)]
    return Spread(values[0], first if counts.total() % 2 else (first + second) / 2, values[-1])


def sample_images(dataset: Dataset, label: int, count: int) -> list[Record]:
    """Return `count` images of a class, or all, at even distances in the dataset's order: the same ones each time."""
    records = [record for record in dataset.records if label in dataset.task.labels.positions(record.label)]
    count = min(count, len(records))
    return [records[position * len(records) // count] for position in range(count)]


def draw_contact_sheet(dataset: Dataset, file: Path, progress: Progress, *, per_class: int = 8) -> None:
    """Draw a page with some images of each class, `per_class` at most, one row a class.

    The file's suffix, such as ``.png`` or ``.pdf``, gives the format.

    Raises:
        InputError: When an image cannot be read.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = [sample_images(dataset, label, per_class) for label in range(len(dataset.classes))]
    progress.phase("drawing images", sum(map(len, rows)))
    figure = Figure(figsize=(1.3 * per_class + 1.5, 1.4 * len(rows) + 0.6), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(f"{dataset.card.title}: {len(dataset.records)} images")
    counts = list(dataset.by_class().values())
    grid = figure.subplots(len(rows), per_class, squeeze=False)
    for label, (axes, records) in enumerate(zip(grid, rows, strict=True)):
        name = f"{textwrap.fill(dataset.classes[label], 14)}\n{counts[label]}"
        axes[0].set_ylabel(name, rotation=0, ha="right", va="center")
        for position, cell in enumerate(axes):
            cell.set(xticks=[], yticks=[], frame_on=False)
            if position < len(records):
                image = dataset.open(records[position])
                image.thumbnail((_SIDE, _SIDE))
                cell.imshow(image)
                progress.advance()
    with write_atomically(file) as temporary:
        figure.savefig(temporary, format=file.suffix.removeprefix(".").lower(), dpi=100)

"""A page with some images of each class, to see at a glance what a dataset shows."""

from __future__ import annotations

import textwrap
from pathlib import Path

from petlbench.core.files import write_atomically
from petlbench.core.progress import Progress
from petlbench.data.dataset import Dataset
from petlbench.data.record import Record

__all__ = ["draw_contact_sheet", "sample_images"]

_SIDE = 160
"""Pixels of the longer side of an image on the page."""


def sample_images(dataset: Dataset, label: int, count: int) -> list[Record]:
    """Return `count` images of a class, or all, at even distances in the dataset's order: the same ones each time."""
    records = [record for record in dataset.records if record.label == label]
    count = min(count, len(records))
    return [records[position * len(records) // count] for position in range(count)]


def draw_contact_sheet(dataset: Dataset, file: Path, progress: Progress, *, per_class: int = 8) -> None:
    """Draw some images of each class, `per_class` at most, one row a class.

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
    grid = figure.subplots(len(rows), per_class, squeeze=False)
    for label, (axes, records) in enumerate(zip(grid, rows, strict=True)):
        count = sum(record.label == label for record in dataset.records)
        axes[0].set_ylabel(f"{textwrap.fill(dataset.classes[label], 14)}\n{count}", rotation=0, ha="right", va="center")
        for position, cell in enumerate(axes):
            cell.set(xticks=[], yticks=[], frame_on=False)
            if position < len(records):
                image = dataset.open(records[position])
                image.thumbnail((_SIDE, _SIDE))
                cell.imshow(image)
                progress.advance()
    with write_atomically(file) as temporary:
        figure.savefig(temporary, format=file.suffix.removeprefix(".").lower(), dpi=100)

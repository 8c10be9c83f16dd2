"""The images that a run is to be applied to, and what it says of them as a table."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from petlbench.core.errors import InputError
from petlbench.core.files import check_writable, write_atomically
from petlbench.core.text import csv_cell
from petlbench.data.images.decode import (
    IMAGE_SUFFIXES,
    MOST_PIXELS,
    Decoding,
    decode_image,
    grey_range,
    has_deep_greys,
    read_bytes,
)
from petlbench.data.images.files import files_below
from petlbench.data.images.greys import GreyRange, Greys
from petlbench.data.loader import Pixels, decode_ahead
from petlbench.data.readers.csv_file import CsvSettings, read_lines
from petlbench.data.tasks.base import Answer
from petlbench.data.tasks.multiclass import MULTICLASS
from petlbench.data.views import View
from petlbench.results.result import Result

if TYPE_CHECKING:
    import pandas


IMAGE_COLUMN: str = CsvSettings().image_column
_TABLES = (".csv", ".parquet")
# Threads that decode.
_WORKERS = 2


@dataclass(frozen=True)
class FoundImage:
    """An image whose class is asked for.

    Args:
        file: The image file.
        origin: Where it was named, for errors: empty, or a table and its line.
    """

    file: Path
    origin: str = ""

    @property
    def name(self) -> str:
        """What an error calls it."""
        return f"{self.file} ({self.origin})" if self.origin else str(self.file)


@dataclass(frozen=True)
class Predictions:
    """What a run says of some images.

    Args:
        run_id: The run.
        classes: Class names, C of them; of other task types what its outputs stand for.
        images: The files, N of them.
        probabilities: Softmax of the logits, divided by the temperature, (N, C); or what the task type makes of them.
        answer: How the task type shows them.
        temperature: The run's; 1 where it has fitted none.
    """

    run_id: str
    classes: list[str]
    images: list[str]
    probabilities: NDArray[np.float64]
    answer: Answer = MULTICLASS.answer
    temperature: float = 1.0

    def rows(self) -> list[dict[str, Any]]:
        """One row an image: the file, what is said of it (the most probable class) and all probabilities."""
        key, values = self.answer.key, self.answer.values
        return [
            {"image": image, key: self.answer.say(row, self.classes), values: row.tolist()}
            for image, row in zip(self.images, self.probabilities, strict=True)
        ]

    def table(self) -> pandas.DataFrame:
        """One row an image: ``image``, ``class``, and ``probability_CLASS`` for every class."""
        import pandas

        rows = self.rows()
        columns: dict[str, Any] = {name: [row[name] for row in rows] for name in ("image", self.answer.key)}
        for position, name in enumerate(self.classes):
            columns[f"{self.answer.value}_{name}"] = self.probabilities[:, position]
        return pandas.DataFrame(columns)


def find_images(paths: Sequence[Path], image_column: str = IMAGE_COLUMN) -> list[FoundImage]:
    """List the images that files, folders and tables stand for.

    Args:
        paths: Image files, folders (all images below, in the order of their names) and CSV files.
        image_column: The column of a CSV file that holds paths relative to the file's own folder.

    Raises:
        InputError: When something is absent, a folder holds no image, or a table is wrong.
    """
    images: list[FoundImage] = []
    for path in paths:
        if path.is_dir():
            images += _in_folder(path)
        elif not path.exists():
            hint = "give image files, folders of images, or CSV files that name images"
            raise InputError(f"{path} does not exist", hint=hint, kind="missing_image")
        elif path.suffix.lower() == ".csv":
            images += _in_table(path, image_column)
        else:
            images.append(FoundImage(path))
    return images


def check_table(file: Path) -> None:
    """Check that predictions can be written to a file, before anything is computed.

    Raises:
        InputError: When its suffix is no table's or its folder cannot be written to.
    """
    if file.suffix.lower() not in _TABLES:
        raise InputError(
            f"--save {file}: a table cannot be written as '{file.suffix or file.name}'",
            hint=f"name a file that ends in {' or '.join(_TABLES)}",
            kind="bad_setting",
        )
    if file.is_dir():
        raise InputError(f"--save {file} is a folder", hint="name a file in it", kind="not_writable")
    try:
        check_writable(file.absolute().parent)
    except InputError as error:
        message = error.message.replace("the output folder", f"--save {file}: the folder", 1)
        raise InputError(message, hint="give another file with --save", kind=error.kind) from error


def write_table(file: Path, predictions: Predictions) -> None:
    """Write predictions as a table: ``image``, ``class``, and ``probability_CLASS`` for every class."""
    table = predictions.table()
    file.parent.mkdir(parents=True, exist_ok=True)
    with write_atomically(file) as temporary:
        if file.suffix.lower() == ".csv":
            table.rename(columns=csv_cell).map(csv_cell).to_csv(temporary, index=False)
        else:
            table.to_parquet(temporary, index=False)


def _in_folder(folder: Path) -> list[FoundImage]:
    names = sorted(name for name in files_below(folder) if PurePath(name).suffix.lower() in IMAGE_SUFFIXES)
    if not names:
        raise InputError(
            f"the folder {folder} holds no image",
            hint=f"images are known by their suffix: {' '.join(sorted(IMAGE_SUFFIXES))}",
            kind="empty_folder",
        )
    return [FoundImage(folder / name) for name in names]


def _in_table(file: Path, column: str) -> list[FoundImage]:
    images = [FoundImage(file.parent / cell, f"{file}, line {line}") for line, cell in _cells(file, column)]
    if not images:
        raise InputError(f"{file} has a header but no rows", hint="give one image a row", kind="bad_csv")
    absent = [image for image in images if not image.file.is_file()]
    if absent:
        more = f" ({len(absent) - 1} more rows name absent images)" if len(absent) > 1 else ""
        raise InputError(
            f"{absent[0].origin}: the row names {absent[0].file}, which does not exist{more}",
            hint=f"paths are relative to {file.absolute().parent}, with forward slashes and suffix",
            kind="missing_image",
        )
    return images


def _cells(file: Path, column: str) -> Iterator[tuple[int, str]]:
    """Yield (line number, cell) of a table's column."""
    lines = read_lines(file)
    header = [name.strip() for name in next(lines, (1, []))[1]]
    if column not in header:
        raise InputError(
            f"{file} has no column '{column}'; it has: {', '.join(header) or 'no header'}",
            hint="the first line names the columns, separated by commas; another name goes with --image-column NAME",
            kind="missing_column",
        )
    position = header.index(column)
    for line, cells in lines:
        cell = cells[position].strip() if position < len(cells) else ""
        if cell:
            yield line, cell
        elif any(other.strip() for other in cells):
            message = f"{file}, line {line}: the row has nothing in the column '{column}'"
            raise InputError(message, hint="correct or remove the row", kind="empty_image")


def decoding_of(result: Result, images: Sequence[FoundImage]) -> Decoding:
    """Return how images are decoded for a run: with the white that it was trained with.

    Where it saw no deep greys, the images' own range says what is white.
    """
    settings, whites = result.config.dataset_settings, result.data.get("greys")
    most, maximum = settings.get("most_pixels", MOST_PIXELS), settings.get("grey_maximum")
    if maximum is not None or whites == {}:
        return Decoding(Greys(partial(_ranges, images, Decoding(most_pixels=most)), maximum), most)
    return Decoding(None if whites is None else Greys.recorded(whites), most)


def _ranges(images: Sequence[FoundImage], decoding: Decoding) -> Iterator[GreyRange]:
    for image in images:
        content = read_bytes(image.file, decoding)
        if has_deep_greys(io.BytesIO(content)):
            yield grey_range(io.BytesIO(content), image.name, decoding)


def decoded_batches(
    images: Sequence[FoundImage], views: Mapping[str, View], size: int, decoding: Decoding
) -> Iterator[dict[str, Tensor]]:
    """Yield normalised images by view name, each (B, 3, H, W), in order; threads decode ahead."""
    batches = [images[start : start + size] for start in range(0, len(images), size)]
    for _, pixels in decode_ahead(batches, lambda image: _pixels(image, views, decoding), _WORKERS):
        yield {name: view.batch([each[name] for each in pixels]) for name, view in views.items()}


def _pixels(image: FoundImage, views: Mapping[str, View], decoding: Decoding) -> Pixels:
    """Decode one image and show it in every view, each (size, size, 3)."""
    try:
        opened = decode_image(read_bytes(image.file, decoding), image.name, decoding)
    except InputError as error:
        hint = "replace the image or leave it out; nothing was written"
        raise InputError(error.message, hint=hint, kind=error.kind) from error
    # No view is augmented, so nothing is drawn.
    rng = np.random.default_rng(0)
    return {name: view.pixels(view.store(opened), rng) for name, view in views.items()}

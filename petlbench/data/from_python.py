"""A dataset that is given in Python, kept as a folder of images and a table, so that the run that reads it repeats."""

from __future__ import annotations

import csv
import hashlib
import io
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from petlbench.core.errors import InputError
from petlbench.core.files import write_atomically
from petlbench.core.user_files import read_bytes
from petlbench.data.images.greys import is_deep


def keep_dataset(data: Any, folder: Path, name: str = "dataset") -> Path:
    """The table of a dataset's images, written once for the same images and labels.

    Args:
        data: A torch ``Dataset`` or any sequence of (image, label); or a pandas DataFrame with the columns ``image``
            and ``label``, and where they are known ``split`` and ``group``. An image is a path, a PIL image, an array
            (H, W) or (H, W, 3), or a tensor (3, H, W) or (1, H, W); numbers with a fraction are from 0 to 1, others
            from 0 to 255. A label is a class's name, or a position in ``data.classes`` where there is such a list.
        folder: Where images and table go.
        name: The dataset's short name.

    Returns:
        The table, which ``--dataset`` of the command line takes, too.

    Raises:
        InputError: When it is empty, or an image or a label is none.
    """
    rows = list(_rows(data))
    if not rows:
        raise InputError("the dataset that was given holds no image", kind="empty_dataset")
    images = folder / "images"
    images.mkdir(parents=True, exist_ok=True)
    columns = ["image", *(key for key in ("label", "split", "group") if any(key in row for row in rows))]
    text = io.StringIO()
    table = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    table.writeheader()
    table.writerows(
        {**row, "image": f"images/{_keep(row['image'], images, number)}"} for number, row in enumerate(rows)
    )
    digest = hashlib.sha256(text.getvalue().encode()).hexdigest()[:8]
    file = folder / f"{name}-{digest}.csv"
    if not file.is_file():
        with write_atomically(file) as temporary:
            temporary.write_text(text.getvalue(), encoding="utf-8")
    return file


def _rows(data: Any) -> Iterator[dict[str, Any]]:
    if hasattr(data, "to_dict") and hasattr(data, "columns"):
        yield from _rows_of_frame(data)
        return
    classes = getattr(data, "classes", None)
    for position in range(len(data)):
        try:
            image, label = data[position]
        except (TypeError, ValueError) as error:
            raise InputError(
                f"item {position} of the dataset is no pair of image and label: {error}",
                hint="give (image, label), or a DataFrame with the columns image and label",
                kind="bad_dataset",
            ) from error
        yield {"image": image, "label": _name(label, classes, position)}


def _rows_of_frame(frame: Any) -> Iterator[dict[str, Any]]:
    for column in ("image", "label"):
        if column not in frame.columns:
            raise InputError(
                f"the DataFrame has no column '{column}'; it has: {', '.join(map(str, frame.columns))}",
                hint=f"rename one: frame.rename(columns={{'...': '{column}'}})",
                kind="missing_column",
            )
    columns = [column for column in ("image", "label", "split", "group") if column in frame.columns]
    for position, row in enumerate(frame[columns].to_dict("records")):
        cells = {key: value for key, value in row.items() if key in ("image", "label") or not _is_missing(value)}
        yield {**cells, "label": _name(row["label"], None, position)}


def _is_missing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))


def _name(label: Any, classes: Any, position: int) -> str:
    if hasattr(label, "item"):
        label = label.item()
    if _is_missing(label) or not isinstance(label, str | int | np.integer) or label == "":
        raise InputError(
            f"item {position} of the dataset has the label {label!r}, which is no class",
            hint="give names of classes, or whole numbers; several labels an image, or a number, are read from a "
            "table: --set dataset.label_columns=A,B or --set dataset.task=regression",
            kind="bad_label",
        )
    if isinstance(label, int) and classes is not None and 0 <= label < len(classes):
        return str(classes[label])
    return str(label)


def _keep(image: Any, folder: Path, number: int) -> str:
    """Keep one image under the digest of its content, and return the file's name."""
    if isinstance(image, str | Path):
        source = Path(os.path.expanduser(image))
        content, suffix = read_bytes(source, what=f"image {number},", limit=None), source.suffix.lower()
    else:
        # Pillow's own way from deep greys to 8 bits makes all above 255 white.
        is_plain = isinstance(image, Image.Image) and not is_deep(image)
        pixels = image if is_plain else Image.fromarray(_pixels(image, number))
        buffer = io.BytesIO()
        pixels.convert("RGB" if pixels.mode not in ("L", "I;16") else pixels.mode).save(buffer, "PNG")
        content, suffix = buffer.getvalue(), ".png"
    name = hashlib.sha256(content).hexdigest()[:24] + suffix
    if not (folder / name).is_file():
        with write_atomically(folder / name) as temporary:
            temporary.write_bytes(content)
    return name


def _pixels(image: Any, number: int) -> np.ndarray[Any, Any]:
    """Pixels of 8 bits, (H, W) or (H, W, 3); deeper greys of 16 bits, (H, W)."""
    array = np.asarray(image.detach().cpu() if hasattr(image, "detach") else image)
    if hasattr(image, "detach") and array.ndim == 3:
        array = array.transpose(1, 2, 0)  # tensors have their channels in front
    if array.ndim == 3 and array.shape[-1] == 1:
        array = array[..., 0]
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[-1] != 3):
        raise InputError(
            f"image {number} of the dataset has the shape {tuple(np.shape(image))}",
            hint="give (H, W) or (H, W, 3), and tensors as (3, H, W)",
            kind="bad_image",
        )
    if np.issubdtype(array.dtype, np.floating):
        if not np.isfinite(array).all() or array.min() < 0 or array.max() > 1:
            raise InputError(
                f"image {number} of the dataset has values outside 0 to 1",
                hint="give images as they are, not normalised: petlbench normalises them as the backbone wants",
                kind="bad_image",
            )
        array = np.round(array * 255)
    # By the kind of number where that has 16 bits: a dark image of such a scanner is none of 8 bits.
    is_deep = array.dtype in (np.int16, np.uint16) or array.max() > 255
    if array.ndim == 2 and is_deep and 0 <= array.min() <= array.max() < 2**16:
        return array.astype(np.uint16)
    if array.min() < 0 or array.max() > 255:
        message = f"image {number} of the dataset has values from {array.min()} to {array.max()}, and not from 0 to 255"
        raise InputError(message, kind="bad_image")
    return array.astype(np.uint8)

"""The manifest: which image, with which bytes, is on which side; and the digests that name it."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from petlbench.core.errors import InputError
from petlbench.core.files import write_atomically
from petlbench.core.text import csv_cell, plain_cell
from petlbench.core.user_files import read_bytes
from petlbench.data.dataset import Dataset

if TYPE_CHECKING:
    import pandas as pd


COLUMNS = ("image_id", "path", "label", "split", "group", "sha256")
_SPLIT_COLUMNS = ("image_id", "split")
_DRAWN = "drawn"
"""Where few labels are drawn, a further column: the side of an image in this run, empty for none."""


def manifest_of(dataset: Dataset, splits: Sequence[str], digests: Sequence[str]) -> pd.DataFrame:
    """Write down where every image belongs, once its content was hashed.

    Args:
        dataset: The dataset.
        splits: The side of every record, in the order of the dataset's records.
        digests: The SHA-256 of every record's content, in the same order.

    Returns:
        One row an image, sorted by image id, with the columns of `COLUMNS`; an unknown group is an empty string.

    Raises:
        InputError: When there are not as many splits as records.
    """
    import pandas as pd

    if len(splits) != len(dataset.records):
        raise InputError(
            f"'{dataset.name}' has {len(dataset.records)} images, but {len(splits)} splits were given", kind="bad_split"
        )
    written = dataset.task.labels.written
    rows = [
        (record.image_id, record.path, written(record.label), split, record.group or "", digest)
        for record, split, digest in zip(dataset.records, splits, digests, strict=True)
    ]
    return pd.DataFrame(rows, columns=list(COLUMNS)).sort_values("image_id", ignore_index=True)


def with_draw(frame: pd.DataFrame, dataset: Dataset, sides: Sequence[str | None]) -> pd.DataFrame:
    """Return the manifest with the side of every record in a run that draws few labels, None for what is not drawn."""
    by_id = {record.image_id: side or "" for record, side in zip(dataset.records, sides, strict=True)}
    return frame.assign(**{_DRAWN: frame["image_id"].map(by_id)})


@dataclass(frozen=True, eq=False)
class Manifest:
    """The manifest that many runs of one split share: its file's bytes and its digests are made once.

    Args:
        frame: One row an image, as `manifest_of` and `with_draw` give it; nobody changes it any more.
    """

    frame: pd.DataFrame

    @cached_property
    def csv(self) -> bytes:
        """The bytes of its file."""
        columns = [name for name in (*COLUMNS, _DRAWN) if name in self.frame]
        return _canonical(self.frame, columns, csv_cell)

    @cached_property
    def digest(self) -> str:
        """What `manifest_digest` gives."""
        if _DRAWN in self.frame:
            return manifest_digest(self.frame)
        return hashlib.sha256(self.csv).hexdigest()

    @cached_property
    def split_digest(self) -> str:
        """What the function of that name gives."""
        return split_digest(self.frame)

    @cached_property
    def draw_digest(self) -> str:
        """What the function of that name gives."""
        return draw_digest(self.frame)

    def write(self, file: Path) -> None:
        """Write it as CSV, whole or not at all; the file's folder is made."""
        file.parent.mkdir(parents=True, exist_ok=True)
        with write_atomically(file) as temporary:
            temporary.write_bytes(self.csv)


def read_manifest(file: Path, digest: str) -> pd.DataFrame:
    """Return a manifest as it was written, every cell as text.

    Raises:
        InputError: When the file cannot be read, or is none of that digest.
    """
    frame = _read(file)
    try:
        written = frame[list(COLUMNS)].to_csv(index=False, lineterminator="\n").encode("utf-8")
    except (KeyError, ValueError) as error:
        raise _changed(file) from error
    if hashlib.sha256(written).hexdigest() != digest:
        raise _changed(file)
    return frame


def pathless_manifest(file: Path) -> bytes:
    """A stored manifest as CSV without the paths of its images, to be handed on.

    Raises:
        InputError: When the file cannot be read, or is no manifest.
    """
    frame = _read(file)
    columns = [name for name in (*COLUMNS, _DRAWN) if name in frame and name != "path"]
    return frame[columns].to_csv(index=False, lineterminator="\n").encode("utf-8")


def read_sides(file: Path) -> tuple[str, dict[str, str]]:
    """The digest of the split that a stored manifest has, with paths or without, and the side of each image by its id.

    Raises:
        InputError: When the file cannot be read, or is no manifest.
    """
    frame = _read(file)
    try:
        ids = frame["image_id"].map(plain_cell)
        sides = frame[_DRAWN] if _DRAWN in frame else frame["split"]
        return split_digest(frame.assign(image_id=ids)), dict(zip(ids, sides, strict=True))
    except KeyError as error:
        raise _changed(file) from error


def _read(file: Path) -> pd.DataFrame:
    import pandas as pd

    content = read_bytes(file, what="manifest")
    try:
        return pd.read_csv(io.BytesIO(content), dtype=str, keep_default_na=False, index_col=False)
    except ValueError as error:
        raise _changed(file) from error


def manifest_digest(frame: pd.DataFrame) -> str:
    """Return the SHA-256 of the manifest's CSV: it changes with any image, label, group or side."""
    return hashlib.sha256(_canonical(frame, COLUMNS, csv_cell)).hexdigest()


def split_digest(frame: pd.DataFrame) -> str:
    """Return the SHA-256 of image ids and sides only: it names the split, whatever the images hold."""
    return hashlib.sha256(_canonical(frame, _SPLIT_COLUMNS)).hexdigest()


def draw_digest(frame: pd.DataFrame) -> str:
    """Return the SHA-256 of image ids and sides of a draw; empty where nothing is drawn."""
    return hashlib.sha256(_canonical(frame, ("image_id", _DRAWN))).hexdigest() if _DRAWN in frame else ""


def _changed(file: Path) -> InputError:
    hint = "put the run's own file back, or run it again with --rerun"
    return InputError(f"{file} has changed since its run wrote it", hint=hint, kind="stale_result")


def _canonical(frame: pd.DataFrame, columns: Sequence[str], cell: Callable[[object], object] | None = None) -> bytes:
    """Write the rows in one order and one form, so that equal content has equal bytes."""
    ordered = frame.sort_values("image_id")[list(columns)]
    ordered = ordered if cell is None else ordered.map(cell)
    return ordered.to_csv(index=False, lineterminator="\n").encode("utf-8")

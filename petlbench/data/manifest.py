"""The manifest: which image, with which bytes, is on which side; and the digests that name it."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from petlbench.data.dataset import Dataset
from petlbench.errors import InputError
from petlbench.files import write_atomically

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["COLUMNS", "build_manifest", "manifest_digest", "split_digest", "write_manifest"]

COLUMNS = ("image_id", "path", "label", "split", "group", "sha256")
_SPLIT_COLUMNS = ("image_id", "split")


def build_manifest(
    dataset: Dataset, splits: Sequence[str], *, on_progress: Callable[[int, int], None] | None = None
) -> pd.DataFrame:
    """Hash every image and write down where it belongs.

    Args:
        dataset: The dataset.
        splits: The side of every record, in the order of the dataset's records.
        on_progress: Called in this thread with (images done, images in all).

    Returns:
        One row an image, sorted by image id, with the columns of `COLUMNS`; an unknown group is an empty string.

    Raises:
        InputError: When an image cannot be read, or there are not as many splits as records.
    """
    import pandas as pd

    records = dataset.records
    if len(splits) != len(records):
        raise InputError(
            f"'{dataset.name}' has {len(records)} images, but {len(splits)} splits were given", kind="bad_split"
        )
    rows: list[tuple[str, str, int, str, str, str]] = []
    with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool:
        hashes = pool.map(dataset.content_hash, records)
        try:
            for record, split, digest in zip(records, splits, hashes, strict=True):
                rows.append((record.image_id, record.path, record.label, split, record.group or "", digest))
                if on_progress is not None:
                    on_progress(len(rows), len(records))
        except BaseException:
            # Without this, an error or Ctrl-C would wait until every remaining image is hashed.
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return pd.DataFrame(rows, columns=list(COLUMNS)).sort_values("image_id", ignore_index=True)


def write_manifest(frame: pd.DataFrame, file: Path) -> None:
    """Write a manifest as CSV: whole or not at all.

    Args:
        frame: What `build_manifest` returned.
        file: Where to; its folder is made.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    with write_atomically(file) as temporary:
        temporary.write_bytes(_canonical(frame, COLUMNS))


def manifest_digest(frame: pd.DataFrame) -> str:
    """Return the SHA-256 of the manifest's CSV: it changes with any image, label, group or side."""
    return hashlib.sha256(_canonical(frame, COLUMNS)).hexdigest()


def split_digest(frame: pd.DataFrame) -> str:
    """Return the SHA-256 of image ids and sides only: it names the split, whatever the images hold."""
    return hashlib.sha256(_canonical(frame, _SPLIT_COLUMNS)).hexdigest()


def _canonical(frame: pd.DataFrame, columns: Sequence[str]) -> bytes:
    """Write the rows in one order and one form, so that equal content has equal bytes."""
    ordered = frame.sort_values("image_id")[list(columns)]
    return ordered.to_csv(index=False, lineterminator="\n").encode("utf-8")

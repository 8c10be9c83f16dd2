"""Stored predictions: labels and logits of each image of a split."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from petlbench.core.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Predictions", "read_frame", "read_predictions"]


@dataclass(frozen=True)
class Predictions:
    """The logits of one split's images.

    Args:
        image_ids: Names of the images, (N,).
        groups: The group (the patient) of each image, or None, (N,).
        labels: True classes, (N,).
        logits: Scores before the softmax, (N, C).
    """

    image_ids: Sequence[str]
    groups: Sequence[str | None]
    labels: NDArray[np.int64]
    logits: NDArray[np.float32]

    @property
    def units(self) -> list[str]:
        """The name of what is drawn with each image: its group, or itself."""
        pairs = zip(self.image_ids, self.groups, strict=True)
        return [f"image {image}" if group is None else f"group {group}" for image, group in pairs]


def read_predictions(file: Path, split: str = "test") -> Predictions | None:
    """Read the predictions that a run has kept.

    Args:
        file: The run's ``predictions.parquet``.
        split: ``test``, ``val`` or ``external``.

    Returns:
        The images of the split; None where there is no file, or none of the split's images in it.

    Raises:
        InputError: When the file is damaged.
    """
    table = _read(file, filters=[("split", "=", split)])
    if table is None or not table.num_rows:
        return None
    values = table["logits"].combine_chunks().flatten().to_numpy(zero_copy_only=False)
    return Predictions(
        table["image_id"].to_pylist(),
        table["group"].to_pylist(),
        table["label"].to_numpy(),
        values.reshape(table.num_rows, -1),
    )


def read_frame(file: Path) -> pd.DataFrame | None:
    """Read all that ``predictions.parquet`` holds: a row each image, with its split; None where there is no file.

    Raises:
        InputError: When the file is damaged.
    """
    table = _read(file)
    frame: pd.DataFrame | None = None if table is None else table.to_pandas()
    return frame


def _read(file: Path, **options: Any) -> Any:
    import pyarrow
    import pyarrow.parquet

    try:
        return pyarrow.parquet.read_table(file, **options)
    except FileNotFoundError:
        return None
    except (pyarrow.ArrowException, OSError) as error:
        raise InputError(
            f"{file} is damaged: {str(error).splitlines()[0]}", hint="run again with --rerun", kind="bad_result"
        ) from error

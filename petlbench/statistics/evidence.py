"""What is known of each run: its score, and, once it is asked for, what its images contribute to it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from petlbench.errors import InputError
from petlbench.result import Result

__all__ = ["Predictions", "Scored", "read_predictions", "scored"]


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


@dataclass(frozen=True)
class Scored:
    """One finished run as the statistics see it.

    Args:
        method: The method, or whatever else is compared.
        dataset: The dataset.
        seed: The run's seed.
        split: The split in words, such as ``official`` or ``kfold:5/0@0`` (its seed behind the @); runs of one split
            have one test set.
        score: A fraction.
        predictions: Reads the predictions on the test set; gives None where they are not kept.
        test_to_train: Test images / training images; None where it is not known.
        interval: The score's interval as `petlbench.intervals.compute_intervals` gave it; None where it is not kept.
    """

    method: str
    dataset: str
    seed: int
    split: str
    score: float
    predictions: Callable[[], Predictions | None]
    test_to_train: float | None = None
    interval: Mapping[str, Any] | None = None


def scored(result: Result, folder: Path, metric: str = "auc", split: str = "test") -> Scored | None:
    """See a stored result as evidence.

    Args:
        result: The result.
        folder: The run's folder, in which its predictions lie.
        metric: A score of `petlbench.metrics.evaluate`.
        split: ``test``, ``val`` or ``external``.

    Returns:
        None where the run has not finished, or has no such score.
    """
    score = result.metrics.get(split, {}).get(metric)
    if result.status != "finished" or score is None:
        return None
    config = result.config
    file = folder / result.artifacts.get("predictions", "predictions.parquet")
    return Scored(
        config.method,
        config.dataset_name,
        config.seed,
        f"{config.split}@{config.split_seed}",
        score,
        partial(read_predictions, file, split),
        _test_to_train(result),
        result.intervals.get(split, {}).get(metric),
    )


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
    import pyarrow
    import pyarrow.parquet

    try:
        table: Any = pyarrow.parquet.read_table(file, filters=[("split", "=", split)])
    except FileNotFoundError:
        return None
    except (pyarrow.ArrowException, OSError) as error:
        raise InputError(
            f"{file} is damaged: {str(error).splitlines()[0]}", hint="run again with --rerun", kind="bad_result"
        ) from error
    if not table.num_rows:
        return None
    values = table["logits"].combine_chunks().flatten().to_numpy(zero_copy_only=False)
    return Predictions(
        table["image_id"].to_pylist(),
        table["group"].to_pylist(),
        table["label"].to_numpy(),
        values.reshape(table.num_rows, -1),
    )


def _test_to_train(result: Result) -> float | None:
    images = result.data.get("images", {})
    return images["test"] / images["train"] if images.get("test") and images.get("train") else None

"""The predictions that a run keeps: a row an image, with its label and its logits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from petlbench.core.errors import InputError
from petlbench.core.text import printable
from petlbench.core.user_files import open_file
from petlbench.metrics.groups import Aggregate, GroupRule, by_group

if TYPE_CHECKING:
    import pandas as pd

_COLUMNS = ("image_id", "group", "split", "label", "logits")


@dataclass(frozen=True)
class Predictions:
    """The logits of one split's images.

    Args:
        image_ids: Names of the images, (N,).
        groups: The group (the patient) of each image, or None, (N,).
        labels: True classes, (N,), whole numbers; of other task types (N, C), NaN where a label is unknown, or (N,).
        logits: Scores before the softmax, (N, C).
    """

    image_ids: Sequence[str]
    groups: Sequence[str | None]
    labels: NDArray[Any]
    logits: NDArray[np.floating[Any]]

    def at(self, temperature: float) -> Predictions:
        """The same predictions with logits that are divided by a temperature."""
        return self if temperature == 1 else replace(self, logits=self.logits.astype(np.float64) / temperature)

    @property
    def units(self) -> list[str]:
        """The name of what is drawn with each image: its group, or itself."""
        pairs = zip(self.image_ids, self.groups, strict=True)
        return [f"image {image}" if group is None else f"group {group}" for image, group in pairs]

    def part(self, rows: Sequence[int]) -> Predictions:
        """Some of them, by their positions."""
        images, groups = [self.image_ids[row] for row in rows], [self.groups[row] for row in rows]
        return Predictions(images, groups, self.labels[rows], self.logits[rows])

    def by_group(self, rule: GroupRule, aggregate: Aggregate) -> Predictions | None:
        """One prediction a group, which bears the name of its first image; None where no group is known."""
        groups = by_group(self.labels, self.logits, self.groups, rule, aggregate)
        if groups is None:
            return None
        return replace(self.part(groups.rows.tolist()), labels=groups.labels, logits=groups.logits)


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
    table = read_rows(file, filters=[("split", "=", split)])
    if table is None or not table.num_rows:
        return None
    try:
        logits, labels = _matrix(table["logits"]), table["label"]
        labels = _matrix(labels).astype(np.float64) if _is_list(labels) else labels.to_numpy()
        if labels.dtype.kind not in "if":
            raise ValueError("labels are no numbers")
    except (AttributeError, ValueError, TypeError) as error:
        raise _damaged(file, error) from error
    return Predictions(table["image_id"].to_pylist(), table["group"].to_pylist(), labels, logits)


def _is_list(column: Any) -> bool:
    return hasattr(column.type, "value_type")


def _matrix(column: Any) -> NDArray[Any]:
    """A column of lists as (N, K), NaN for null."""
    lists = column.combine_chunks()
    if len(lists.value_lengths().unique()) != 1:
        raise ValueError(f"{column.type} holds no lists of one length")
    return np.asarray(lists.flatten().to_numpy(zero_copy_only=False)).reshape(len(lists), -1)


def read_frame(file: Path) -> pd.DataFrame | None:
    """Read all that ``predictions.parquet`` holds: a row each image, with its split; None where there is no file.

    Raises:
        InputError: When the file is damaged.
    """
    table = read_rows(file)
    frame: pd.DataFrame | None = None if table is None else table.to_pandas()
    return frame


def read_rows(file: Path, columns: Sequence[str] = _COLUMNS, **options: Any) -> Any:
    """The rows of a run's parquet file as a table of pyarrow; None where there is no file.

    Raises:
        InputError: When the file is damaged, or lacks one of the columns.
    """
    import pyarrow
    import pyarrow.parquet

    try:
        with open_file(file, what="predictions") as opened:
            table = pyarrow.parquet.read_table(opened, **options)
        if absent := [name for name in columns if name not in table.column_names]:
            raise ValueError(f"there is no column {absent[0]}")
        return table
    except (InputError, pyarrow.ArrowException, OSError, ValueError, TypeError) as error:
        if isinstance(error, InputError) and error.kind == "missing_file":
            return None
        raise _damaged(file, error) from error


def _damaged(file: Path, error: Exception) -> InputError:
    reason = printable(str(error).partition("\n")[0])
    return InputError(f"{file} is damaged: {reason}", hint="run again with --rerun", kind="bad_result")

"""The files of a finished run beside ``result.json``: predictions and learned tensors."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
from safetensors.torch import load_file
from torch import Tensor

from petlbench.core.errors import InputError
from petlbench.core.files import write_tensors
from petlbench.data.record import SPLITS
from petlbench.models.method import Adapted
from petlbench.run.data import RunData
from petlbench.training.evaluation import Labels, Logits

__all__ = ["ARTIFACTS", "load_learned", "write_learned", "write_predictions"]

ARTIFACTS: Mapping[str, str] = {
    "predictions": "predictions.parquet",
    "learned": "learned.safetensors",
    "manifest": "manifest.csv",
}

# pyarrow builds its names at run time, out of sight of type checkers.
_arrow: Any = pyarrow

_PREDICTIONS = _arrow.schema(
    [
        ("image_id", _arrow.string()),
        ("group", _arrow.string()),
        ("split", _arrow.string()),
        ("label", _arrow.int64()),
        ("logits", _arrow.list_(_arrow.float32())),
    ]
)


def write_predictions(
    file: Path, data: RunData, external: RunData | None, outputs: Mapping[str, tuple[Labels, Logits]]
) -> None:
    """Write the logits of the images that were evaluated.

    Args:
        file: A parquet file.
        data: The images of the run's own dataset.
        external: Those of its external test set, which are the split ``external``.
        outputs: Labels (N,) and logits (N, C) by split, in the order of the split's indices.
    """
    records = {side: data.records(side) for side in SPLITS} | {"external": external.records("test") if external else []}
    rows = []
    for split, (labels, logits) in outputs.items():
        for record, label, values in zip(records[split], labels.tolist(), logits.tolist(), strict=True):
            row = {"image_id": record.image_id, "group": record.group, "split": split, "label": label, "logits": values}
            rows.append(row)
    _arrow.parquet.write_table(_arrow.Table.from_pylist(rows, schema=_PREDICTIONS), file)


def write_learned(file: Path, learned: Mapping[str, Tensor], run_id: str) -> None:
    """Write what was learned, and nothing else.

    Args:
        file: A safetensors file.
        learned: Tensors by name.
        run_id: The run, kept in the file's metadata.
    """
    write_tensors(file, learned, {"run_id": run_id})


def load_learned(file: Path, adapted: Adapted) -> None:
    """Put learned tensors back into a module.

    Args:
        file: A file that `write_learned` wrote.
        adapted: The module, built from the same config.

    Raises:
        InputError: When the file holds other tensors than the module learns.
    """
    stored, wanted = load_file(file), adapted.kept()
    if {name: tensor.shape for name, tensor in stored.items()} != {name: t.shape for name, t in wanted.items()}:
        raise InputError(
            f"{file} does not fit the method as it is now",
            hint="the method's code has changed since; run again with --rerun",
            kind="bad_weights",
        )
    for name, tensor in wanted.items():
        tensor.data.copy_(stored[name])

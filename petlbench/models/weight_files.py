"""Weights from the disk: safetensors, whole or in shards, torch's own files, and NumPy's; never a pickle's code."""

from __future__ import annotations

import shlex
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from petlbench.core.errors import InputError, PetlbenchError
from petlbench.core.text import printable
from petlbench.core.user_files import inside, note, read_json

WEIGHTS_FILES = (
    "model.safetensors",
    "model.safetensors.index.json",
    "open_clip_model.safetensors",
    "pytorch_model.bin",
    "open_clip_pytorch_model.bin",
)
"""Names of weights files in a folder as ``save_pretrained`` and the hub have it; the first that is there is read."""

_INDEX = ".index.json"
_LIMIT = 64 << 20
"""Bytes of the list of shards."""


class _PlainNamespace:
    """Stands for ``argparse.Namespace``, in which training scripts keep their options: attributes, and nothing else."""

    def __init__(self, **values: Any) -> None:
        self.__dict__.update(values)


def check_weights_file(file: Path) -> None:
    """Raise an InputError where a weights file is not there, before anything else is done; note it where it is."""
    if not file.is_file():
        raise InputError(
            f"weights file {file} does not exist",
            hint="give --weights a file, default (the hub) or none (random)",
            kind="no_weights",
        )
    note(file)


def find_weights(place: Path) -> Path:
    """The weights file that a path names: itself, or in a folder the first of `WEIGHTS_FILES`.

    Raises:
        InputError: When there is none.
    """
    if not place.is_dir():
        check_weights_file(place)
        return place
    for name in WEIGHTS_FILES:
        if (place / name).is_file():
            return place / name
    raise InputError(
        f"weights file {place} does not exist: the folder holds none of {', '.join(WEIGHTS_FILES)}",
        hint="give the file itself, or a folder as save_pretrained writes it",
        kind="no_weights",
    )


def read_weights(file: Path) -> object:
    """What a weights file holds: tensors by name, perhaps with what a training keeps around them.

    Args:
        file: A safetensors file, a list of its shards (``.index.json``), an ``.npz`` of arrays, or a file of torch's,
            of which nothing is read but tensors, plain values and the options of a training script as plain data.

    Raises:
        InputError: When it is not there, damaged, or holds objects that only running code would make.
    """
    check_weights_file(file)
    try:
        if file.name.endswith(_INDEX):
            return _shards(file)
        if file.suffix == ".safetensors":
            return load_file(file)
        if file.suffix == ".npz":
            return _arrays(file)
        return _torch_file(file)
    except PetlbenchError:
        raise
    except Exception as error:  # damaged files make torch's reader raise almost anything
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(
            f"weights file {file} cannot be read: {printable(first)}",
            hint=_advice(file, str(error)),
            kind="bad_weights",
        ) from error


def _torch_file(file: Path) -> object:
    with torch.serialization.safe_globals(cast("Any", [(_PlainNamespace, "argparse.Namespace")])):
        return cast("object", torch.load(file, map_location="cpu", weights_only=True))


def _advice(file: Path, error: str) -> str:
    if "Unsupported global" not in error:
        return "give a safetensors file, or a .pth or .bin file that holds tensors alone"
    # A file's name is the sender's, and this line is meant to be copied.
    line = f"import torch; f = torch.load({file.name!r}, weights_only=False); torch.save(f['model'], 'tensors.pth')"
    return (
        "petlbench runs no code of a file. Give one that holds tensors alone; where you trust it, this saves it again "
        f"(with the name of the entry that holds the tensors): python -c {shlex.quote(printable(line))}"
    )


def _shards(index: Path) -> dict[str, Tensor]:
    """The tensors of all shards that a list names; each has to be where the list says."""
    places = read_json(index, what="list of shards", limit=_LIMIT).get("weight_map")
    if not isinstance(places, Mapping) or not all(isinstance(name, str) for name in places.values()):
        raise InputError(f"weights file {index} has no weight_map", hint="fetch it again", kind="bad_weights")
    state: dict[str, Tensor] = {}
    for name in sorted(set(places.values())):
        shard = inside(index.parent, name, what=f"a shard of {index}")
        check_weights_file(shard)
        state |= load_file(shard)
    if missing := sorted(set(places) - set(state)):
        message = f"weights file {index} lists tensors that no shard holds: {', '.join(map(printable, missing[:3]))}"
        raise InputError(message, hint="fetch the shards again", kind="bad_weights")
    return state


def _arrays(file: Path) -> dict[str, Tensor]:
    if not zipfile.is_zipfile(file):
        raise ValueError("it is no .npz")
    with np.load(file, allow_pickle=False) as arrays:
        return {name: torch.from_numpy(arrays[name]) for name in arrays.files if arrays[name].dtype.kind == "f"}

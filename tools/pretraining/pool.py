"""The pool: images and what the teacher says of them, made once and kept in shards on disk."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from petlbench.core.files import write_atomically, write_tensors
from petlbench.core.process_pool import Workers
from petlbench.core.progress import Progress
from tools.pretraining.drawing import draw
from tools.pretraining.teacher import look

__all__ = ["SHARD", "Pool", "fill_pool"]

SHARD = 1024
"""Images in a shard."""


@dataclass(frozen=True)
class _Shard:
    file: Path
    seed: int
    number: int


def fill_pool(folder: Path, shards: int, seed: int, workers: Workers, progress: Progress) -> Pool:
    """Draw the images and show them to the teacher; shards that are there already stay.

    Args:
        folder: Where the shards lie, 88 MiB each.
        shards: How many.
        seed: Seed of the images.
        workers: Who does it.
        progress: Told of each shard.
    """
    folder.mkdir(parents=True, exist_ok=True)
    wanted = [_Shard(folder / f"seed-{seed}-shard-{number:04d}.safetensors", seed, number) for number in range(shards)]
    missing = [shard for shard in wanted if not shard.file.exists()]
    progress.phase("drawing and looking", len(missing))
    workers.map(_make, missing, progress.advance)
    return Pool([shard.file for shard in wanted])


class Pool:
    """Batches of images and targets.

    Args:
        files: The shards.
    """

    def __init__(self, files: Sequence[Path]) -> None:
        from safetensors.torch import load_file

        self._shards = [load_file(file) for file in files]  # mapped into memory: a row is read when it is used
        first = {name: value.float() for name, value in self._shards[0].items() if name != "pixels"}
        # A channel counts as much as any other, however loud it is.
        self._mean = {name: value.mean(dim=_others(value), keepdim=True) for name, value in first.items()}
        self._std = {name: value.std(dim=_others(value), keepdim=True) + 1e-3 for name, value in first.items()}

    def __len__(self) -> int:
        """Number of images."""
        return SHARD * len(self._shards)

    def batch(self, rows: Tensor) -> tuple[Tensor, Mapping[str, Tensor]]:
        """Read some images.

        Args:
            rows: Their numbers, (B,).

        Returns:
            Pixels between -1 and 1, (B, 3, 128, 128), and the teacher's targets with mean 0 and deviation 1 in every
            channel.
        """
        places = [divmod(row, SHARD) for row in rows.tolist()]
        taken = {name: torch.stack([self._shards[s][name][i] for s, i in places]) for name in self._shards[0]}
        pixels = taken.pop("pixels").permute(0, 3, 1, 2).float() / 127.5 - 1
        return pixels, {name: (value.float() - self._mean[name]) / self._std[name] for name, value in taken.items()}


def _others(value: Tensor) -> tuple[int, ...]:
    """All dimensions but the channels."""
    return tuple(dim for dim in range(value.ndim) if dim != 1)


def _make(shard: _Shard) -> None:
    pixels = np.stack([draw(shard.seed, shard.number * SHARD + place) for place in range(SHARD)])
    targets = {name: torch.from_numpy(value) for name, value in look(pixels).items()}
    with write_atomically(shard.file) as temporary:
        write_tensors(temporary, {"pixels": torch.from_numpy(pixels), **targets}, {"seed": str(shard.seed)})

"""The pool: what is on disk is not made again, and comes back as it was."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from petlbench.core.process_pool import Workers
from petlbench.core.progress import Progress
from tools.pretraining import pool as module
from tools.pretraining.drawing import draw
from tools.pretraining.pool import fill_pool
from tools.pretraining.teacher import TARGETS


def _answers(images: np.ndarray) -> dict[str, np.ndarray]:
    """Answers that differ from image to image and from channel to channel."""
    number = images.reshape(len(images), -1).mean(axis=1, dtype=np.float32)
    return {
        name: (
            number.reshape(-1, *(1,) * len(shape)) + np.arange(shape[0]).reshape(-1, *(1,) * (len(shape) - 1))
        ).astype(np.float16)
        * np.ones(shape, np.float16)
        for name, shape in TARGETS.items()
    }


def test_shards_are_made_once_and_rows_come_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SHARD", 4)
    monkeypatch.setattr(module, "look", _answers)
    fill_pool(tmp_path, 2, 5, Workers(), Progress())
    made = {file: file.stat().st_mtime_ns for file in tmp_path.iterdir()}
    pool = fill_pool(tmp_path, 3, 5, Workers(), Progress())
    assert len(pool) == 12
    assert all(file.stat().st_mtime_ns == time for file, time in made.items())
    pixels, targets = pool.batch(torch.tensor([9, 2]))
    shown = ((pixels + 1) * 127.5).round().byte().permute(0, 2, 3, 1).numpy()
    assert np.array_equal(shown, np.stack([draw(5, 9), draw(5, 2)]))
    assert targets["image"].shape == (2, *TARGETS["image"])


def test_targets_have_mean_zero_and_deviation_one_in_every_channel(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SHARD", 8)
    monkeypatch.setattr(module, "look", _answers)
    _, targets = fill_pool(tmp_path, 1, 0, Workers(), Progress()).batch(torch.arange(8))
    for value in targets.values():
        channels = value.transpose(0, 1).flatten(1)
        assert channels.mean(dim=1).abs().max() < 1e-2
        assert (channels.std(dim=1) - 1).abs().max() < 5e-2

"""A made-up set with three labels an image: a bright square, stripes, and one that is not to be seen."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

__all__ = ["NAMES", "draw", "write_archive"]

NAMES = ("square", "stripes", "unseen")
_SIDE = 28
_SHARES = (0.4, 0.3, 0.5)

CARD = f"""
title = "Drawn labels"
modality = "shapes"
task = "multilabel"
classes = {list(NAMES)}
licence = "CC0-1.0"
version = 1
synthetic = true
split = "official"
grouping = "none"
[reader]
kind = "medmnist"
"""


def draw(labels: NDArray[np.int64], seed: int) -> NDArray[np.uint8]:
    """Return one image for each row of labels (N, 3), (N, 28, 28): noise, and in it what the labels say."""
    rng = np.random.default_rng(seed)
    images = rng.normal(90, 15, (len(labels), _SIDE, _SIDE))
    for image, (square, stripes, _) in zip(images, labels, strict=True):
        if stripes:
            image[:, :: rng.integers(3, 5)] -= 60
        if square:
            top, left = rng.integers(0, _SIDE - 9, 2)
            image[top : top + 9, left : left + 9] = 230
    return images.clip(0, 255).astype(np.uint8)


def write_archive(folder: Path, counts: tuple[int, int, int] = (240, 60, 120), seed: int = 0) -> Path:
    """Write a card and its archive into a catalogue and a data root in a folder, and return the folder.

    Args:
        folder: The folder.
        counts: Images to train on, to validate on and to test on.
        seed: Seed of labels and images.
    """
    rng = np.random.default_rng(seed)
    arrays = {}
    for side, count in zip(("train", "val", "test"), counts, strict=True):
        labels = (rng.random((count, 3)) < _SHARES).astype(np.int64)
        arrays |= {f"{side}_labels": labels, f"{side}_images": draw(labels, seed + count)}
    for part in ("datasets", "drawn"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    (folder / "datasets/drawn.toml").write_text(CARD, encoding="utf-8")
    np.savez(folder / "drawn/drawn.npz", **arrays)
    return folder

"""Running a trained module: logits of a set of images, and the test split that can be read once."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from petlbench.core.errors import RunError
from petlbench.data.loader import Batch, ImageLoader
from petlbench.data.tasks.base import Scale
from petlbench.features.source import FeatureSource, fetched_ahead
from petlbench.models.precision import autocast
from petlbench.results.journal import append_line

Labels = NDArray[Any]
Logits = NDArray[np.float32]


@dataclass(frozen=True)
class Predictor:
    """Runs a module in evaluation mode.

    Args:
        module: ``forward(Inputs) -> logits``.
        source: Gives the frozen features.
        device: Where the module lives.
        precision: ``fp32``, ``bf16`` or ``fp16``.
        scale: What the module's outputs are in, where that is not the labels' own unit.
    """

    module: nn.Module
    source: FeatureSource
    device: torch.device
    precision: str
    scale: Scale | None = None

    def __call__(self, loader: ImageLoader, on_images: Callable[[int], None]) -> tuple[Labels, Logits]:
        """The labels and logits (N, C) of a loader's images, in order; tells each batch's size."""
        self.module.eval()
        labels, logits = [], []
        for batch in fetched_ahead(loader.in_order(), self.source):
            logits.append(self.logits(batch.to(self.device)))
            labels.append(batch.labels)
            on_images(len(batch.index))
        # Each logit that is read back makes a GPU wait, so all are at once.
        return torch.cat(labels).numpy(), torch.cat(logits).cpu().numpy()

    def logits(self, batch: Batch) -> Tensor:
        """The logits in fp32, (B, C), of a batch on the device, in the mode that the module is in.

        Where outputs have a scale, they are given in the labels' own unit.
        Nothing is read back to the host, so that the pass runs on device ``meta`` too.
        """
        with torch.no_grad(), autocast(self.device, self.precision):
            logits: Tensor = self.module(self.source(batch)).float()
        return logits if self.scale is None else self.scale.to_labels(logits)


class TestSplit:
    """The test images of a run: handed out once, and each reading is logged.

    Args:
        loader: The test images.
        log: JSON lines file to which every reading is appended.
        identity: What is read: dataset, split digest and run id.
        is_hidden: Whether nobody may read them, as in the trials of a search.
    """

    __test__ = False  # not a test class, whatever its name begins with

    def __init__(self, loader: ImageLoader, log: Path, identity: dict[str, str], *, is_hidden: bool = False) -> None:
        self._loader: ImageLoader | None = loader
        self._log = log
        self._identity = identity
        self._is_hidden = is_hidden

    def read(self) -> ImageLoader:
        """Hand out the test images.

        Raises:
            RunError: On the second call; and on the first where they are hidden.
        """
        if self._is_hidden:
            raise RunError("the test split is hidden from the trials of a search", kind="test_hidden")
        if self._loader is None:
            raise RunError("the test split of this run was read already", kind="test_read_twice")
        loader, self._loader = self._loader, None
        now = time.strftime("%Y-%m-%dT%H:%M:%S%z")
        append_line(self._log, {**self._identity, "time": now, "pid": os.getpid()})
        return loader

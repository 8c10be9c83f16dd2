"""Using what a run has learned: class probabilities of new images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray

from petlbench.artifacts import ARTIFACTS, load_learned
from petlbench.assemble import Assembled, assemble, build_views
from petlbench.catalog import Catalog
from petlbench.data.images import read_image
from petlbench.data.loader import Batch
from petlbench.data.views import Normalization, View
from petlbench.errors import InputError
from petlbench.features.source import LiveFeatures, NoFeatures
from petlbench.metrics import softmax
from petlbench.result import Result, read_result
from petlbench.step import autocast

__all__ = ["Predictions", "predict_images"]


@dataclass(frozen=True)
class Predictions:
    """Class probabilities of some images.

    Args:
        run_id: The run that learned them.
        classes: Class names, C of them.
        images: The files, N of them.
        probabilities: Softmax of the logits, (N, C).
    """

    run_id: str
    classes: list[str]
    images: list[str]
    probabilities: NDArray[np.float64]

    def rows(self) -> list[dict[str, Any]]:
        """One row an image: the file, the most probable class and all probabilities."""
        return [
            {"image": image, "class": self.classes[int(values.argmax())], "probabilities": values.tolist()}
            for image, values in zip(self.images, self.probabilities, strict=True)
        ]


def predict_images(folder: Path, images: Sequence[Path], catalog: Catalog) -> Predictions:
    """Build a finished run's module again, give it what was learned, and apply it.

    Args:
        folder: The run's folder.
        images: Image files.
        catalog: The catalogues, in which the run's method is found.

    Raises:
        InputError: When the run is not there or not finished, or an image cannot be read.
    """
    result = read_result(folder)
    if result.status != "finished":
        raise InputError(f"run {result.run_id} is {result.status}, so it has learned nothing", kind="unfinished_run")
    classes = list(result.data["classes"])
    device = torch.device(
        result.config.device if result.config.device != "cuda" or torch.cuda.is_available() else "cpu"
    )
    assembled = assemble(result.config, catalog, len(classes), device)
    load_learned(folder / ARTIFACTS["learned"], assembled.adapted)
    views = _views(result, assembled)
    logits = [_logits(result, assembled, views, image, device) for image in images]
    return Predictions(result.run_id, classes, [str(image) for image in images], softmax(np.stack(logits)))


def _views(result: Result, assembled: Assembled) -> dict[str, View]:
    stored = result.data["normalization"]
    chosen = Normalization(tuple(stored["mean"]), tuple(stored["std"]), stored["origin"])
    views = build_views(result.config, assembled.method, assembled.backbone.info, chosen, augmentation=None)
    return dict(views)


def _logits(
    result: Result, assembled: Assembled, views: dict[str, View], image: Path, device: torch.device
) -> NDArray[np.float32]:
    """Compute the logits of one image, (C,)."""
    opened, rng = read_image(image), np.random.default_rng(0)
    made = {name: view.batch([view.pixels(view.store(opened), rng)]) for name, view in views.items()}
    batch = Batch(torch.zeros(1, dtype=torch.int64), made, torch.zeros(1, dtype=torch.int64)).to(device)
    precision, frozen = result.config.precision, assembled.frozen
    source = LiveFeatures(assembled.backbone, frozen, precision) if frozen is not None else NoFeatures()
    module = assembled.adapted.module.eval()
    with torch.no_grad(), autocast(device, precision):
        logits = module(source(batch))[0].float().cpu().numpy()
    return cast("NDArray[np.float32]", logits)

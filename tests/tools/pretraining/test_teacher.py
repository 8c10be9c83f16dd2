"""The teacher: the network that the package's weights belong to."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.datasets import load_sample_images
from torch.nn import functional as F

from tools.pretraining import teacher

DAISY = 985  # ImageNet's class; scikit-learn's photograph of a flower shows a dahlia, which ImageNet does not have


@pytest.mark.slow
def test_it_knows_a_flower_when_it_sees_one() -> None:
    photograph = torch.from_numpy(load_sample_images().images[1].copy()).permute(2, 0, 1)[None].float()
    pixels = F.interpolate(photograph, size=(224, 224), mode="bicubic", antialias=True) / 127.5 - 1
    with torch.inference_mode():
        logits = teacher._Teacher().model(pixels)
    assert int(logits.argmax()) == DAISY


@pytest.mark.slow
def test_the_fast_answer_is_the_networks() -> None:
    images = np.random.default_rng(0).integers(0, 256, (64, 128, 128, 3), dtype=np.uint8)
    result = teacher.look(images)
    pixels = torch.from_numpy(images[:2]).permute(0, 3, 1, 2).float() / 127.5 - 1
    with torch.inference_mode():
        image, tokens = teacher._Teacher()(pixels)
    assert {name: value.shape for name, value in result.items()} == {
        name: (64, *shape) for name, shape in teacher.TARGETS.items()
    }
    np.testing.assert_allclose(result["image"][:2], image, atol=5e-3)
    np.testing.assert_allclose(result["tokens"][:2], tokens, atol=5e-2, rtol=5e-3)
    assert np.isfinite(result["tokens"]).all()

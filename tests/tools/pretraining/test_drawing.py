"""Drawn images: the same number gives the same image, and every family shows something."""

from __future__ import annotations

import numpy as np
import pytest

from tools.pretraining.drawing import FAMILIES, SIZE, draw


def test_a_number_gives_one_image_and_another_number_or_seed_another() -> None:
    first = draw(0, 7)
    assert (first.shape, first.dtype) == ((SIZE, SIZE, 3), np.uint8)
    assert np.array_equal(first, draw(0, 7))
    assert not np.array_equal(first, draw(0, 8))
    assert not np.array_equal(first, draw(1, 7))


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_draws_something(family: str) -> None:
    rng = np.random.default_rng(0)
    for _ in range(5):
        image = FAMILIES[family](rng)
        assert image.shape == (SIZE, SIZE, 3)
        assert np.isfinite(image).all()
        assert image.std() > 0.005

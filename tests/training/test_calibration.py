"""The temperature against its definition, and what it does where there is none."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from petlbench.metrics.classification import softmax
from petlbench.training.calibration import fit_temperature
from petlbench.training.loss import Loss
from petlbench.training.losses.cross_entropy import CROSS_ENTROPY


def draw(count: int, classes: int, scale: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Logits that are `scale` times those whose softmax the labels were drawn from."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 1.5, (count, classes))
    labels = np.array([rng.choice(classes, p=row) for row in softmax(logits)])
    return labels, (scale * logits).astype(np.float32)


def masked_binary(logits: Tensor, labels: Tensor, smoothing: float, weights: Tensor | None) -> Tensor:
    known = ~labels.isnan()
    return nn.functional.binary_cross_entropy_with_logits(logits[known], labels[known])


SEVERAL = Loss(name="several", title="Several labels", compute=masked_binary)


@settings(max_examples=8, deadline=None)
@given(st.integers(40, 300), st.integers(2, 6), st.floats(0.2, 5), st.integers(0, 10**6))
def test_no_other_temperature_has_a_smaller_loss(count: int, classes: int, scale: float, seed: int) -> None:
    labels, logits = draw(count, classes, scale, seed)
    fit = fit_temperature(logits, labels, CROSS_ENTROPY)
    assert fit.note == ""

    def loss(temperature: float) -> float:
        exact = torch.from_numpy(logits).double() / temperature
        return float(nn.functional.cross_entropy(exact, torch.from_numpy(labels)))

    assert all(loss(fit.value) <= loss(fit.value * factor) for factor in (0.5, 0.999, 1.001, 2))
    assert fit.low is not None
    assert fit.high is not None
    assert fit.low < fit.value < fit.high
    for bound in (fit.low, fit.high):
        assert count * (loss(bound) - loss(fit.value)) == pytest.approx(1.9207, abs=1e-4)


def test_the_scale_of_the_logits_is_found_and_lies_in_the_interval() -> None:
    fits = [fit_temperature(*reversed(draw(400, 3, 4.0, seed)), CROSS_ENTROPY) for seed in range(40)]
    assert np.mean([fit.value for fit in fits]) == pytest.approx(4, rel=0.03)
    held = sum(fit.low < 4 < fit.high for fit in fits if fit.low is not None and fit.high is not None)
    assert 34 <= held <= 40


def test_several_labels_an_image_have_one_temperature_and_unknown_ones_do_not_count() -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 2, (2000, 3))
    labels = (rng.uniform(size=logits.shape) < 1 / (1 + np.exp(-logits))).astype(np.float64)
    fit = fit_temperature(2 * logits, labels, SEVERAL)
    assert fit.value == pytest.approx(2, rel=0.1)
    labels[:500] = np.nan
    wrong = np.where(np.isnan(labels), 50.0, 2 * logits)
    assert fit_temperature(wrong, labels, SEVERAL).value == fit_temperature(2 * logits, labels, SEVERAL).value


@pytest.mark.parametrize(
    ("labels", "logits", "reason"),
    [
        ([0, 0, 0], [[1, 0], [0, 1], [2, 0]], "one class alone"),
        ([0, 1, 1], [[1, 0], [0, 1], [0, 2]], "tell all validation images apart"),
        ([1, 0, 0], [[1, 0], [0, 1], [0, 2]], "or the contrary"),
        ([0, 1, 1], [[1, 1], [1, 1], [1, 1]], "say nothing"),
        ([0, 1, 1], [[1, 0], [math.inf, 1], [0, 2]], "not finite"),
        ([], np.zeros((0, 2)), "one class alone"),
    ],
)
def test_where_no_temperature_is_best_it_stays_one_and_says_why(labels: list, logits: list, reason: str) -> None:
    fit = fit_temperature(np.array(logits, np.float32), np.array(labels, np.int64), CROSS_ENTROPY)
    assert (fit.value, fit.low, fit.high) == (1.0, None, None)
    assert reason in fit.note


def test_one_image_that_is_wrong_bounds_it() -> None:
    labels = np.array([0, 1, 1, 0])
    logits = np.array([[9, 0], [0, 9], [0, 9], [0, 0.5]], np.float32)
    fit = fit_temperature(logits, labels, CROSS_ENTROPY)
    assert fit.note == ""
    assert 0.01 < fit.value < 100
    assert (fit.low, fit.high) != (None, None)

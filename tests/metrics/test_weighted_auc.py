"""The AUC of many weightings at once is scikit-learn's, and its interval knows of groups."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from petlbench.metrics.intervals import auc_interval, weighted_auc


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 2**32 - 1), st.integers(2, 4), st.booleans())
def test_the_auc_is_scikit_learns(seed: int, classes: int, ties: bool) -> None:
    rng = np.random.default_rng(seed)
    labels = np.concatenate([np.arange(classes), rng.integers(0, classes, 40)])
    scores = rng.dirichlet(np.ones(classes), len(labels))
    scores = np.round(scores, 1) if ties else scores
    weights = np.vstack([np.ones(len(labels)), rng.integers(1, 4, (2, len(labels)))]).astype(float)
    rest = [1] if classes == 2 else range(classes)
    expected = [np.mean([roc_auc_score(labels == c, scores[:, c], sample_weight=row) for c in rest]) for row in weights]
    assert weighted_auc(labels, scores, weights) == pytest.approx(expected)


def test_a_class_without_weight_has_no_auc() -> None:
    scores = np.array([[0.9, 0.1], [0.2, 0.8]])
    assert np.isnan(weighted_auc(np.array([0, 1]), scores, np.array([[1.0, 0.0]])))


def test_the_interval_is_about_right_and_repeats() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 400)
    positive = labels + rng.normal(0, 1, 400)
    scores = np.column_stack([-positive, positive])
    low, high = auc_interval(labels, scores, np.arange(400), 0)
    assert low < roc_auc_score(labels, positive) < high
    assert 0.05 < high - low < 0.15  # Hanley and McNeil's standard error gives 0.09
    assert auc_interval(labels, scores, np.arange(400), 0) == (low, high)


def test_images_of_one_group_are_drawn_together() -> None:
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(40), 10)
    labels = groups % 2
    positive = (labels + rng.normal(0, 1, 400)) * 0.1 + np.repeat(rng.normal(0, 1, 40) + labels[::10], 10)
    scores = np.column_stack([-positive, positive])
    single, grouped = (auc_interval(labels, scores, units, 0) for units in (np.arange(400), groups))
    assert grouped[1] - grouped[0] > 2 * (single[1] - single[0])

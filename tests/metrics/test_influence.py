"""Influences against the variances that they stand for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from petlbench.core.catalog import Catalog
from petlbench.metrics.classification import METRICS, evaluate, load_metrics
from petlbench.metrics.influence import (
    auc_influences,
    f1_influences,
    kappa_influences,
    number_groups,
    plain_disagreement,
    quadratic_disagreement,
    recall_influences,
    sum_by_group,
)

ROWS = {row.name: row for row in METRICS} | {"ordered kappa": load_metrics(Catalog(), ("kappa",), ordered=True)[0]}


def draw(count: int, classes: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = np.concatenate([np.arange(classes), np.arange(classes), rng.integers(0, classes, count)])
    return labels, rng.normal(0, 1.5, (len(labels), classes)) + np.eye(classes)[labels]


def test_the_sum_of_squares_is_delongs_variance() -> None:
    """Six positives and four negatives, with the structural components counted pair by pair."""
    positives, negatives = [0.9, 0.8, 0.7, 0.55, 0.5, 0.3], [0.6, 0.4, 0.3, 0.1]
    wins = np.array([[(x > y) + (x == y) / 2 for y in negatives] for x in positives])
    expected = wins.mean(axis=1).var(ddof=1) / 6 + wins.mean(axis=0).var(ddof=1) / 4
    scores = np.array([positives + negatives]).T
    aucs, influences = auc_influences(np.array([1] * 6 + [0] * 4), np.hstack([-scores, scores]))
    assert aucs == pytest.approx([wins.mean()])
    assert (influences**2).sum() == pytest.approx(expected)


@settings(max_examples=25)
@given(st.integers(0, 40), st.integers(2, 5), st.integers(0, 10**6), st.sampled_from(sorted(ROWS)))
def test_influences_are_about_their_score_and_sum_to_nothing(count: int, classes: int, seed: int, metric: str) -> None:
    labels, logits = draw(count, classes, seed)
    influences = ROWS[metric].influence(labels, logits)
    assert influences is not None
    assert influences.sum() == pytest.approx(0, abs=1e-9)
    aucs, _ = auc_influences(labels, logits)
    scores = evaluate(labels, logits)
    assert aucs.mean() == pytest.approx(scores["auc_logits"])
    assert f1_influences(labels, logits)[0].mean() == pytest.approx(scores["f1"])
    assert kappa_influences(labels, logits, plain_disagreement)[0] == pytest.approx([scores["kappa"]])
    in_order = ROWS["ordered kappa"].score(labels, logits)
    assert kappa_influences(labels, logits, quadratic_disagreement)[0] == pytest.approx([in_order])


def test_the_variance_is_that_of_the_bootstrap() -> None:
    labels, logits = draw(400, 3, seed=4)
    rng = np.random.default_rng(0)
    drawn = [rng.integers(0, len(labels), len(labels)) for _ in range(300)]
    scores: dict[str, Callable[[np.ndarray, np.ndarray], float | None]] = {
        "auc_logits": lambda labels, logits: auc_influences(labels, logits)[0].mean(),
        "balanced_accuracy": lambda labels, logits: recall_influences(labels, logits)[0].mean(),
        "f1": ROWS["f1"].compute,
        "kappa": ROWS["kappa"].compute,
        "ordered kappa": ROWS["ordered kappa"].compute,
    }
    for metric, score in scores.items():
        influences = ROWS[metric].influence(labels, logits)
        assert influences is not None
        found = np.std([score(labels[rows], logits[rows]) for rows in drawn])
        assert np.sqrt((influences**2).sum()) == pytest.approx(found, rel=0.15)


def test_accuracy_and_loss_are_means() -> None:
    labels, logits = draw(100, 3, seed=9)
    right = (logits.argmax(axis=1) == labels).astype(float)
    losses = np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(len(labels)), labels]
    for metric, values in (("accuracy", right), ("loss", losses)):
        influences = ROWS[metric].influence(labels, logits)
        assert influences is not None
        assert (influences**2).sum() == pytest.approx(values.var(ddof=1) / len(values))


def test_undefined_scores_and_unknown_ones() -> None:
    labels = np.zeros(3, np.int64)
    assert ROWS["auc"].influence(labels, np.zeros((3, 2))) is None
    assert ROWS["loss"].influence(labels, np.full((3, 2), np.nan)) is None
    assert ROWS["kappa"].influence(labels, np.zeros((3, 2))) is None
    assert ROWS["ordered kappa"].influence(labels, np.zeros((3, 2))) is None
    unknown = replace(ROWS["auc"], contribution=None)
    assert unknown.influence(np.array([0, 1, 1]), np.zeros((3, 2))) is None


def test_images_without_a_group_are_alone_even_where_their_number_is_a_groups_name() -> None:
    assert number_groups(None, 3).tolist() == [0, 1, 2]
    assert number_groups([None, None], 2).tolist() == [0, 1]
    assert number_groups(["1", None, "1", None], 4).tolist() == [0, 1, 0, 2]


def test_equal_images_of_a_group_count_as_one() -> None:
    labels, logits = draw(100, 2, seed=1)
    alone = auc_influences(labels, logits)[1]
    twice = auc_influences(np.repeat(labels, 2), np.repeat(logits, 2, axis=0))[1]
    units = np.repeat(np.arange(len(labels)), 2)
    by_group = sum_by_group(twice, units)
    assert (by_group**2).sum() == pytest.approx((alone**2).sum(), rel=0.05)
    assert (twice**2).sum() == pytest.approx((alone**2).sum() / 2, rel=0.05)

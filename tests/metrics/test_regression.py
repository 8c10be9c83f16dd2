"""One number an image: the scores are scikit-learn's and scipy's, and intervals hold the truth."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import pearsonr
from sklearn.metrics import (  # type: ignore[import-untyped, unused-ignore]
    mean_absolute_error,
    r2_score,
    root_mean_squared_error,
)

from petlbench.core.catalog import Catalog
from petlbench.data.tasks.base import TaskType
from petlbench.metrics.classification import compute_intervals, evaluate, load_metrics

TASK = Catalog().load("task", "regression", TaskType)
METRICS = load_metrics(Catalog(), TASK.metrics, labels=TASK.labels.form)
ROWS = {row.name: row for row in METRICS}
NAMES = ["mae", "rmse", "r2", "pearson"]

Arrays = tuple[NDArray[np.float64], NDArray[np.float64]]


def split(images: int = 200, seed: int = 0, error: float = 5.0) -> Arrays:
    rng = np.random.default_rng(seed)
    ages = rng.normal(60, 12, images)
    return ages, (10 + 0.8 * ages + rng.normal(0, error, images))[:, None]


def scored(labels: NDArray[np.float64], logits: NDArray[np.float64]) -> dict[str, Any]:
    return evaluate(labels, logits, METRICS, TASK.count)


def test_scores_are_those_of_the_libraries() -> None:
    labels, logits = split()
    scores, said = scored(labels, logits), logits[:, 0]
    assert scores["mae"] == pytest.approx(mean_absolute_error(labels, said), abs=1e-12)
    assert scores["rmse"] == pytest.approx(root_mean_squared_error(labels, said), abs=1e-12)
    assert scores["r2"] == pytest.approx(r2_score(labels, said), abs=1e-12)
    assert scores["pearson"] == pytest.approx(pearsonr(labels, said).statistic, abs=1e-12)
    assert scores["count"] == 200


@pytest.mark.parametrize("name", NAMES)
def test_an_image_contributes_what_the_jackknife_says(name: str) -> None:
    labels, logits = split()
    row, rows = ROWS[name], np.arange(len(labels))
    influences = row.influence(labels, logits)
    assert influences is not None
    left_out = np.array([row.score(labels[rows != one], logits[rows != one]) for one in rows])
    jackknife = (left_out.mean() - left_out) * (len(rows) - 1) / len(rows)
    assert np.corrcoef(influences, jackknife)[0, 1] > 0.99
    assert (influences**2).sum() == pytest.approx((jackknife**2).sum(), rel=0.1)


@pytest.mark.parametrize("name", NAMES)
def test_intervals_hold_the_truth(name: str) -> None:
    labels, logits = split(400_000, seed=1)
    truth, rng, held = ROWS[name].score(labels, logits), np.random.default_rng(2), 0
    for _ in range(400):
        # Eighty groups of three images that are nearly alike.
        first = rng.integers(0, len(labels), 80)
        rows, units = np.repeat(first, 3), np.repeat(np.arange(80), 3)
        near = logits[rows] + rng.normal(0, 0.01, (240, 1))
        interval = ROWS[name].interval(labels[rows], near, units, 0.95)  # type: ignore[misc]
        assert interval is not None
        assert interval["design_effect"] == pytest.approx(3, abs=0.3)
        held += interval["low"] <= truth <= interval["high"]
    assert 0.92 <= held / 400 <= 0.985


@pytest.mark.parametrize(
    ("labels", "logits", "undefined"),
    [
        (np.full(5, 3.0), np.arange(5.0)[:, None], {"r2", "pearson"}),
        (np.arange(5.0), np.full((5, 1), 2.0), {"pearson"}),
        (np.empty(0), np.empty((0, 1)), set(NAMES)),
        (np.arange(5.0), np.full((5, 1), np.inf), set(NAMES)),
    ],
)
def test_what_is_undefined_is_none(labels: Any, logits: Any, undefined: set[str]) -> None:
    scores = scored(labels, logits)
    assert {name for name in NAMES if scores[name] is None} == undefined
    compute_intervals(labels, logits, metrics=METRICS)


def test_a_perfect_prediction_has_scores_and_no_width() -> None:
    labels = np.arange(9.0)
    scores = scored(labels, labels[:, None])
    assert [scores[name] for name in NAMES] == pytest.approx([0, 0, 1, 1])
    assert all(each is None for each in compute_intervals(labels, labels[:, None], metrics=METRICS).values())


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="predictions"):
        scored(np.zeros(3), np.zeros((3, 2)))
    with pytest.raises(ValueError, match="finite"):
        scored(np.array([1.0, np.nan]), np.zeros((2, 1)))

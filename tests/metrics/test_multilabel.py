"""Several labels an image: the scores are scikit-learn's and MedMNIST's, and what is not known counts nowhere."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.stats import norm
from sklearn.metrics import (  # type: ignore[import-untyped, unused-ignore]
    accuracy_score,
    average_precision_score,
    f1_score,
    log_loss,
    roc_auc_score,
)

from petlbench.core.catalog import Catalog
from petlbench.data.tasks.base import TaskType, metric_of
from petlbench.metrics.classification import compute_intervals, evaluate, load_metrics
from petlbench.metrics.multilabel import average_precision, sigmoid
from petlbench.testing import MetricContract

TASK = Catalog().load("task", "multilabel", TaskType)
METRICS = load_metrics(Catalog(), TASK.metrics, labels=TASK.labels.form)
ROWS = {row.name: row for row in METRICS}

Arrays = tuple[NDArray[np.float64], NDArray[np.float64]]


def split(images: int = 600, labels: int = 14, unknown: float = 0.15, seed: int = 0) -> Arrays:
    """Labels with prevalences from 1 % to 40 %, some of them not known, and logits that tell them more or less."""
    rng = np.random.default_rng(seed)
    truth = (rng.random((images, labels)) < np.geomspace(0.01, 0.4, labels)).astype(np.float64)
    logits = rng.normal(size=(images, labels)) + rng.uniform(0, 3, labels) * truth - 1
    return np.where(rng.random(truth.shape) < unknown, np.nan, truth), logits


def scored(labels: NDArray[np.float64], logits: NDArray[np.float64]) -> dict[str, Any]:
    return evaluate(labels, logits, METRICS, TASK.count)


def by_label(score: Callable[..., float], labels: Any, values: Any, *, both: bool = True) -> float:
    """A score of scikit-learn's, its mean over labels, of the images of which each is known."""
    scores = []
    for truth, value in zip(labels.T, values.T, strict=True):
        known = ~np.isnan(truth)
        if len(np.unique(truth[known])) == 2 or (known.any() and not both):
            scores.append(score(truth[known], value[known]))
    return float(np.mean(scores))


@pytest.mark.parametrize("unknown", [0.0, 0.15, 0.6])
def test_scores_are_scikit_learns_of_what_is_known(unknown: float) -> None:
    labels, logits = split(unknown=unknown)
    scores, chances = scored(labels, logits), sigmoid(logits)
    expected = {
        "auc": by_label(roc_auc_score, labels, chances),
        "average_precision": by_label(average_precision_score, labels, chances),
        "accuracy": by_label(accuracy_score, labels, chances > 0.5, both=False),
        "f1": by_label(f1_score, labels, chances > 0.5),
    }
    known = ~np.isnan(labels)
    expected["loss"] = log_loss(labels[known], chances[known])
    right = [
        (row[k] == (chance[k] > 0.5)).all() for row, chance, k in zip(labels, chances, known, strict=True) if k.any()
    ]
    expected["exact_match"] = float(np.mean(right))
    for name, value in expected.items():
        assert scores[name] == pytest.approx(value, abs=1e-12), name
    assert scores["unknown"] == np.isnan(labels).sum(axis=0).tolist()
    assert scores["support"] == (labels == 1).sum(axis=0).tolist()


@pytest.mark.needs("medmnist")
@pytest.mark.parametrize("absent", [0, 3])
def test_auc_and_accuracy_are_those_of_medmnists_evaluator(absent: int) -> None:
    from medmnist.evaluator import getACC, getAUC  # type: ignore[import-not-found, import-untyped, unused-ignore]

    labels, logits = split(images=2000, unknown=0.0)
    labels[:, :absent] = 0
    scores, chances, name = scored(labels, logits), sigmoid(logits), "multi-label, binary-class"
    assert scores["accuracy"] == pytest.approx(getACC(labels, chances, name), abs=1e-12)
    # Its AUC is undefined where a label is of no image; ours is then that of the others.
    assert scores["auc"] == pytest.approx(getAUC(labels[:, absent:], chances[:, absent:], name), abs=1e-12)
    assert scores["classes_absent"] == list(range(absent))
    if absent:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            assert np.isnan(getAUC(labels, chances, name))


@given(st.integers(0, 2**32 - 1), st.floats(0, 0.9))
def test_unknown_labels_change_nothing_whatever_is_said_of_them(seed: int, unknown: float) -> None:
    labels, logits = split(60, 4, unknown, seed)
    other = np.where(np.isnan(labels), 7.0, logits)
    assert scored(labels, logits) == scored(labels, other)


@pytest.mark.parametrize("name", ["auc", "average_precision", "f1", "accuracy", "exact_match", "loss"])
def test_an_image_contributes_what_the_jackknife_says(name: str) -> None:
    labels, logits = (each[:, 2:] for each in split(400, 4, 0.1, seed=3))
    row, rows = ROWS[name], np.arange(len(labels))
    influences = row.influence(labels, logits)
    assert influences is not None
    left_out = [row.score(labels[rows != one], logits[rows != one]) or 0.0 for one in rows]
    jackknife = (np.mean(left_out) - np.array(left_out)) * (len(rows) - 1) / len(rows)
    assert np.corrcoef(influences, jackknife)[0, 1] > 0.97
    assert (influences**2).sum() == pytest.approx((jackknife**2).sum(), rel=0.15)


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 9)), min_size=2, max_size=40))
def test_average_precision_with_ties(pairs: list[tuple[bool, int]]) -> None:
    positive, scores = (np.array(column) for column in zip(*pairs, strict=True))
    assume(positive.any())
    value, influences = average_precision(positive, scores.astype(np.float64))
    assert value == pytest.approx(average_precision_score(positive, scores), abs=1e-12)
    assert influences.sum() == pytest.approx(0, abs=1e-9)


def test_every_interval_holds_its_score_and_says_how_few_it_rests_on() -> None:
    labels, logits = split()
    groups = [f"p{row // 3}" for row in range(len(labels))]
    alone, grouped = (compute_intervals(labels, logits, each, metrics=METRICS) for each in (None, groups))
    scores = scored(labels, logits)
    assert set(alone) == {"auc", "average_precision", "accuracy", "f1", "exact_match"}
    for intervals in (alone, grouped):
        for name, interval in intervals.items():
            assert interval is not None
            assert interval["low"] < scores[name] < interval["high"]
    assert alone["auc"] is not None
    assert alone["auc"]["few"] == (np.nanmin((labels == 1).sum(axis=0)) < 10)


@pytest.mark.parametrize("value", [0.0, 1.0, np.nan])
def test_a_split_that_asks_nothing_has_no_scores(value: float) -> None:
    labels, logits = np.full((9, 3), value), np.zeros((9, 3))
    scores = scored(labels, logits)
    assert (scores["auc"], scores["f1"], scores["average_precision"]) == (None, None, None)
    assert (scores["accuracy"] is None) == (scores["exact_match"] is None) == bool(np.isnan(value))
    assert scores["classes_absent"] == [0, 1, 2]
    intervals = compute_intervals(labels, logits, metrics=METRICS)
    assert intervals["auc"] is None
    assert scored(np.empty((0, 3)), np.empty((0, 3)))["auc"] is None


@pytest.mark.parametrize(
    ("labels", "logits"), [(np.zeros((3, 2)), np.zeros((3, 3))), (np.full((3, 2), 2.0), np.zeros((3, 2)))]
)
def test_what_does_not_fit_is_refused(labels: NDArray[np.float64], logits: NDArray[np.float64]) -> None:
    with pytest.raises(ValueError, match="labels"):
        scored(labels, logits)


def test_reports_find_the_form_that_a_run_has() -> None:
    metric = metric_of("auc", Catalog())
    assert metric.in_form("mean over labels") == ROWS["auc"]
    assert metric.in_form("") == metric


class TestMeanAuc(MetricContract):
    metric = ROWS["auc"]


class TestAveragePrecision(MetricContract):
    metric = ROWS["average_precision"]


class TestExactMatch(MetricContract):
    metric = ROWS["exact_match"]


@pytest.mark.slow
@pytest.mark.parametrize(("units", "most"), [(1000, 1), (400, 10)])
def test_the_interval_of_a_mean_auc_over_rare_labels_holds_the_truth(units: int, most: int) -> None:
    """Prevalences from 0.2 to 20 %; labels stand together, and so do the errors of an image's scores."""
    rng, labels, draws, held = np.random.default_rng(0), 14, 1000, 0
    cuts, shift = norm.isf(np.geomspace(0.002, 0.2, labels)), rng.permutation(np.linspace(0.8, 2.2, labels))
    for _ in range(draws):
        group = np.repeat(np.arange(units), rng.integers(1, most + 1, units))
        own, shared, error = (rng.normal(size=(units, size))[group] for size in (labels, 1, 1))
        noise = rng.normal(size=(2, len(group), labels))
        latent = 0.2**0.5 * shared + 0.4**0.5 * (own + noise[0])
        truth = (latent > cuts).astype(np.float64)
        truth[rng.random(truth.shape) < 0.05] = np.nan
        logits = np.where(truth == 1, shift, 0) + 0.3**0.5 * error + 0.7**0.5 * noise[1]
        interval = ROWS["auc"].interval(truth, logits, group, 0.95)  # type: ignore[misc]
        there = (truth == 1).any(axis=0)
        assert interval is not None
        held += interval["low"] <= norm.cdf(shift / 2**0.5)[there].mean() <= interval["high"]
    print(f"{units} units of at most {most} images: {held / draws:.3f}")
    assert 0.93 <= held / draws <= 0.99

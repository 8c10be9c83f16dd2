"""Scores against scikit-learn and against the figures that the FPT paper printed."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn import metrics as reference  # type: ignore[import-untyped, unused-ignore]

from petlbench.core.catalog import Catalog
from petlbench.core.errors import InputError
from petlbench.metrics.classification import METRICS, _auc, evaluate, load_metrics, softmax
from petlbench.metrics.efficiency import pme, ppe

# MICCAI 2024 (arXiv 2403.07576), Table 1: learnable parameters (%), memory (MB), mean AUC, PPE, PME.
TABLE_1 = {
    "full": (100.0, 24116, 93.96, 69.54, 69.54),
    "linear": (0.01, 4364, 88.30, 88.30, 82.15),
    "vpt": (0.17, 21530, 89.04, 88.97, 67.49),
    "attention": (33.04, 21740, 89.13, 78.74, 67.42),
    "adapter": (2.05, 20308, 89.16, 88.38, 68.39),
    "bitfit": (0.12, 21330, 90.81, 90.76, 68.97),
    "lora": (0.69, 21944, 91.01, 90.74, 68.72),
    "fpt": (1.81, 3182, 92.26, 91.54, 87.42),
}

ORDERED = load_metrics(Catalog(), ordered=True)

Split = tuple[NDArray[np.int64], NDArray[np.float32]]


def draw(count: int, classes: int, seed: int, spread: float = 2.0) -> Split:
    """Labels in which each class occurs at least twice, and logits that know something about them."""
    rng = np.random.default_rng(seed)
    labels = np.concatenate([np.arange(classes), np.arange(classes), rng.integers(0, classes, count)])
    logits = rng.normal(0, spread, (len(labels), classes)) + np.eye(classes)[labels]
    return labels, logits.astype(np.float32)


splits = st.builds(
    draw,
    count=st.integers(0, 60),
    classes=st.integers(2, 7),
    seed=st.integers(0, 10**6),
    spread=st.sampled_from([0.1, 2.0, 60.0]),
)


@settings(max_examples=60, deadline=None)
@given(splits)
def test_scores_equal_those_of_scikit_learn(split: Split) -> None:
    labels, logits = split
    classes = logits.shape[1]
    predicted = logits.argmax(axis=1)
    ours = evaluate(labels, logits)
    assert ours["accuracy"] == pytest.approx(reference.accuracy_score(labels, predicted), abs=1e-12)
    assert ours["balanced_accuracy"] == pytest.approx(reference.balanced_accuracy_score(labels, predicted), abs=1e-12)
    assert ours["f1"] == pytest.approx(reference.f1_score(labels, predicted, average="macro"), abs=1e-12)
    in_order = evaluate(labels, logits, ORDERED)
    for scores, weights in ((ours, None), (in_order, "quadratic")):
        expected = reference.cohen_kappa_score(labels, predicted, weights=weights)
        assert scores["kappa"] == pytest.approx(expected, abs=1e-12)
    assert {**ours, "kappa": 0} == {**in_order, "kappa": 0}
    probabilities = softmax(logits)
    inside = np.clip(probabilities, np.finfo(np.float64).eps, 1)
    if (inside == probabilities).all():  # log_loss clips, the cross-entropy of logits has no need to
        expected = reference.log_loss(labels, probabilities, labels=range(classes))
        assert ours["loss"] == pytest.approx(expected, rel=1e-9)
    assert ours["confusion_matrix"] == reference.confusion_matrix(labels, predicted).tolist()
    assert ours["support"] == np.bincount(labels).tolist()
    assert ours["classes_absent"] == []
    assert ours["count"] == len(labels)


@settings(max_examples=60, deadline=None)
@given(splits)
def test_auc_equals_that_of_scikit_learn(split: Split) -> None:
    labels, logits = split
    ours = evaluate(labels, logits)
    probabilities = softmax(logits)
    if logits.shape[1] == 2:
        expected = reference.roc_auc_score(labels, probabilities[:, 1])
        assert ours["auc_logits"] == pytest.approx(reference.roc_auc_score(labels, logits[:, 1]), abs=1e-12)
    else:
        expected = reference.roc_auc_score(labels, probabilities, multi_class="ovr", average="macro")
        one_hot = np.eye(logits.shape[1])[labels]
        assert ours["auc_logits"] == pytest.approx(reference.roc_auc_score(one_hot, logits), abs=1e-12)
    assert ours["auc"] == pytest.approx(expected, abs=1e-12)


def test_an_absent_class_is_named_and_left_out_of_the_averages() -> None:
    labels, logits = draw(40, 4, seed=3)
    kept = labels != 2
    labels, logits = labels[kept], logits[kept]
    ours = evaluate(labels, logits)
    predicted = logits.argmax(axis=1)
    probabilities = softmax(logits)
    each = [reference.roc_auc_score(labels == c, probabilities[:, c]) for c in (0, 1, 3)]
    assert ours["classes_absent"] == [2]
    assert ours["support"][2] == 0
    assert ours["auc"] == pytest.approx(np.mean(each), abs=1e-12)
    f1 = reference.f1_score(labels, predicted, labels=[0, 1, 3], average="macro")
    assert ours["f1"] == pytest.approx(f1, abs=1e-12)
    recall = reference.recall_score(labels, predicted, labels=[0, 1, 3], average="macro")
    assert ours["balanced_accuracy"] == pytest.approx(recall, abs=1e-12)


@given(st.lists(st.tuples(st.booleans(), st.integers(-5, 5) | st.floats(-1, 1)), min_size=2, max_size=60))
def test_auc_is_scikit_learns_to_the_last_bit(images: list[tuple[bool, float]]) -> None:
    labels, scores = np.array([label for label, _ in images]), np.array([score for _, score in images])
    assume(labels.any() and not labels.all())
    assert _auc(labels, scores) == reference.roc_auc_score(labels, scores)


@pytest.mark.parametrize("classes", [2, 3])
def test_one_class_alone_has_no_auc(classes: int) -> None:
    logits = np.random.default_rng(0).normal(size=(5, classes))
    ours = evaluate(np.ones(5, dtype=np.int64), logits)
    assert ours["auc"] is None
    assert ours["auc_logits"] is None
    assert ours["classes_absent"] == [c for c in range(classes) if c != 1]
    assert 0 <= ours["accuracy"] <= 1


def test_kappa_is_undefined_when_one_class_is_all_there_is() -> None:
    ours = evaluate(np.zeros(3, dtype=np.int64), np.array([[1.0, 0.0]] * 3))
    assert ours["kappa"] is None
    assert ours["accuracy"] == ours["balanced_accuracy"] == ours["f1"] == 1.0


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_logits_that_are_not_finite_have_no_scores(value: float) -> None:
    logits = np.array([[1.0, 0.0], [value, 1.0]])
    ours = evaluate(np.array([0, 1]), logits)
    assert {name: ours[name] for name in ("auc", "accuracy", "loss", "kappa")} == dict.fromkeys(
        ("auc", "accuracy", "loss", "kappa")
    )
    assert ours["support"] == [1, 1]


def test_an_empty_split_has_no_scores() -> None:
    ours = evaluate(np.zeros(0, dtype=np.int64), np.zeros((0, 3), dtype=np.float32))
    assert ours["auc"] is None
    assert ours["count"] == 0
    assert ours["classes_absent"] == [0, 1, 2]


def test_softmax_saturates_where_logits_still_rank() -> None:
    labels = np.array([0, 1, 1])
    logits = np.array([[0.0, 50.0], [0.0, 60.0], [0.0, 70.0]])
    ours = evaluate(labels, logits)
    assert ours["auc_logits"] == 1.0
    assert ours["auc"] == 0.5


def test_every_score_survives_json_without_nan() -> None:
    for labels, logits in (draw(10, 3, 1), (np.zeros(2, np.int64), np.full((2, 2), np.nan))):
        json.dumps(evaluate(labels, logits), allow_nan=False)


@pytest.mark.parametrize(
    ("labels", "logits"),
    [
        (np.array([0, 1]), np.zeros((3, 2))),
        (np.array([0, 1]), np.zeros(2)),
        (np.array([0, 0]), np.zeros((2, 1))),
        (np.array([0, 2]), np.zeros((2, 2))),
        (np.array([-1, 1]), np.zeros((2, 2))),
        (np.array([0.0, 1.0]), np.zeros((2, 2))),
    ],
)
def test_input_that_does_not_fit_is_refused(labels: Any, logits: Any) -> None:
    with pytest.raises(ValueError, match="labels|classes"):
        evaluate(labels, logits)


@pytest.mark.parametrize("method", TABLE_1)
def test_ppe_and_pme_are_those_that_the_paper_printed(method: str) -> None:
    percent, memory, auc, printed_ppe, printed_pme = TABLE_1[method]
    assert ppe(auc, percent / 100) == pytest.approx(printed_ppe, abs=0.005)
    # Half of the printed PMEs come from means that the paper rounded afterwards: one unit of the last digit.
    assert pme(auc, memory / 24116) == pytest.approx(printed_pme, abs=0.011)


@pytest.mark.parametrize("measure", [ppe, pme])
def test_ppe_and_pme_refuse_what_cannot_be(measure: Any) -> None:
    assert measure(0.9, 0.0) == 0.9
    for score, cost in ((-0.1, 0.5), (0.9, -0.5), (float("nan"), 0.5), (0.9, float("inf"))):
        with pytest.raises(ValueError, match="at least 0"):
            measure(score, cost)


def test_a_task_type_names_the_metrics_that_apply() -> None:
    assert load_metrics(Catalog()) == METRICS
    assert [row.name for row in load_metrics(Catalog(), ("kappa", "loss"))] == ["kappa", "loss"]
    with pytest.raises(InputError, match="kapa"):
        load_metrics(Catalog(), ("kapa",))

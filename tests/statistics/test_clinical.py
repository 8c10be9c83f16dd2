"""Clinical metrics against scikit-learn and by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, brier_score_loss

from petlbench.metrics.classification import softmax
from petlbench.results.predictions import Predictions
from petlbench.statistics.clinical import calibration_errors, clinical, threshold_at


def draw(count: int, classes: int, seed: int, groups: int = 0) -> Predictions:
    rng = np.random.default_rng(seed)
    labels = np.concatenate([np.arange(classes), rng.integers(0, classes, count)])
    logits = rng.normal(0, 1, (len(labels), classes)) + np.eye(classes)[labels]
    names = [f"p{row % groups}" if groups else None for row in range(len(labels))]
    return Predictions([str(row) for row in range(len(labels))], names, labels, logits.astype(np.float32))


@given(st.lists(st.sampled_from([0.1, 0.2, 0.3, 0.5, 0.9]), min_size=1), st.floats(0, 1))
def test_the_threshold_reaches_the_specificity_and_a_smaller_one_does_not(scores: list[float], asked: float) -> None:
    rest = np.array(scores)
    threshold = threshold_at(asked, np.zeros(len(rest), bool), rest)
    assert threshold is not None
    assert (rest < threshold).mean() >= asked - 1e-9
    smaller = np.nextafter(threshold, 0)
    assert threshold == 0 or (rest < smaller).mean() < asked


def test_without_an_image_of_the_rest_there_is_no_threshold() -> None:
    assert threshold_at(0.9, np.ones(3, bool), np.ones(3)) is None
    one_class = draw(20, 2, 0)
    validation = Predictions(["a"], [None], np.array([1]), np.zeros((1, 2), np.float32))
    found = clinical(validation, one_class)[0]
    assert found.threshold is None
    assert found.sensitivity.value is None
    assert found.average_precision.value is not None


@pytest.mark.parametrize("threshold", [-0.1, 0.0, 1.0])
def test_a_threshold_of_the_decision_curve_that_is_none(threshold: float) -> None:
    with pytest.raises(ValueError, match="above 0 and below 1"):
        clinical(draw(20, 2, 0), draw(20, 2, 1), thresholds=(0.5, threshold))


def test_the_threshold_is_chosen_on_validation_and_used_on_test() -> None:
    val = Predictions(list("abcd"), [None] * 4, np.array([0, 0, 0, 1]), np.log([[9, 1], [8, 2], [5, 5], [1, 9]]))
    test = Predictions(
        list("efghi"), [None] * 5, np.array([0, 0, 1, 1, 1]), np.log([[4, 6], [7, 3], [6, 4], [1, 9], [3, 7]])
    )
    strict, loose = clinical(val, test, specificity=1.0)[0], clinical(val, test, specificity=0.6)[0]
    assert strict.threshold == pytest.approx(0.5)
    assert strict.sensitivity.value == pytest.approx(2 / 3)
    assert strict.specificity.value == pytest.approx(1 / 2)
    assert loose.threshold == pytest.approx(0.2)
    assert loose.sensitivity.value == 1
    assert loose.specificity.value == 0
    assert strict.few
    assert strict.positives == 3


@settings(max_examples=15, deadline=None)
@given(st.integers(15, 80), st.integers(2, 4), st.integers(0, 10**6))
def test_figures_are_scikit_learns_and_lie_in_their_intervals(count: int, classes: int, seed: int) -> None:
    test = draw(count, classes, seed)
    found = clinical(draw(count, classes, seed + 1), test)
    assert [one.index for one in found] == ([1] if classes == 2 else list(range(classes)))
    probabilities = softmax(test.logits)
    for one in found:
        truth, given_ = test.labels == one.index, probabilities[:, one.index]
        assert one.average_precision.value == pytest.approx(average_precision_score(truth, given_))
        assert one.brier.value == pytest.approx(brier_score_loss(truth, given_))
        for part in (one.sensitivity, one.specificity, one.average_precision, one.brier, one.ece):
            assert part.value is not None
            assert part.low is not None
            assert part.high is not None
            assert 0 <= part.low <= part.value <= part.high <= 1
        bins = one.bins
        assert sum(part.count for part in bins) == len(truth)
        by_hand = sum(part.count * abs(part.predicted - part.observed) for part in bins) / len(truth)
        assert one.ece.value == pytest.approx(by_hand)
        assert all(part.low <= part.observed <= part.high for part in bins)


def test_true_probabilities_are_calibrated() -> None:
    rng = np.random.default_rng(0)
    probability = rng.uniform(0.02, 0.98, 4000)
    labels = (rng.uniform(size=4000) < probability).astype(np.int64)
    logits = np.stack([np.zeros(4000), np.log(probability / (1 - probability))], axis=1)
    true = Predictions([str(row) for row in range(4000)], [None] * 4000, labels, logits)
    found = clinical(true, true)[0]
    assert found.ece.low == pytest.approx(0, abs=0.01)
    assert sum(one.low <= one.predicted <= one.high for one in found.bins) >= 9
    too_sure = Predictions(true.image_ids, true.groups, labels, 3 * logits)
    worse = clinical(too_sure, too_sure)[0].ece
    assert worse.low is not None
    assert worse.low > 0.1


def test_groups_widen_the_intervals() -> None:
    alone, val = draw(300, 2, 3), draw(100, 2, 4)
    copied = Predictions(
        [f"{name} {copy}" for name in alone.image_ids for copy in range(4)],
        [name for name in alone.image_ids for _ in range(4)],
        np.repeat(alone.labels, 4),
        np.repeat(alone.logits, 4, axis=0),
    )
    blind = Predictions(copied.image_ids, [None] * len(copied.labels), copied.labels, copied.logits)
    one, same, narrow = (clinical(val, split)[0] for split in (alone, copied, blind))
    for name in ("sensitivity", "specificity", "average_precision", "brier"):
        widths = [getattr(split, name).high - getattr(split, name).low for split in (one, same, narrow)]
        assert widths[1] == pytest.approx(widths[0], rel=0.05)
        assert widths[2] < 0.6 * widths[0]
    assert same.positives == one.positives


def test_what_cannot_be_computed_is_refused() -> None:
    known = draw(20, 2, 0)
    broken = Predictions(known.image_ids, known.groups, known.labels, np.full_like(known.logits, np.nan))
    with pytest.raises(ValueError, match="test split"):
        clinical(known, broken)
    with pytest.raises(ValueError, match="specificity is 1.5"):
        clinical(known, known, specificity=1.5)


def test_net_benefit_is_that_of_vickers_and_elkin() -> None:
    test = draw(60, 3, 5)
    thresholds = (0.05, 0.2, 0.5)
    probabilities = softmax(test.logits)
    for metrics in clinical(test, test, thresholds=thresholds):
        truth = test.labels == metrics.index
        assert [point.threshold for point in metrics.decision] == list(thresholds)
        for point in metrics.decision:
            called = probabilities[:, metrics.index] >= point.threshold
            odds = point.threshold / (1 - point.threshold)
            by_hand = ((called & truth).sum() - odds * (called & ~truth).sum()) / len(truth)
            assert point.model.value == pytest.approx(by_hand)
            assert point.treat_all == pytest.approx(truth.mean() - odds * (1 - truth.mean()))
            assert point.model.low is not None
            assert point.model.high is not None
            assert -odds <= point.model.low <= by_hand <= point.model.high <= 1
    with pytest.raises(ValueError, match="thresholds"):
        clinical(test, test, thresholds=(0.5, 1.0))


def test_a_threshold_that_all_reach_is_treating_all() -> None:
    test = draw(60, 2, 6)
    sure = Predictions(test.image_ids, test.groups, test.labels, np.tile([0.0, 9.0], (len(test.labels), 1)))
    (point,) = clinical(sure, sure, thresholds=(0.3,))[0].decision
    assert point.model.value == pytest.approx(point.treat_all)


@pytest.mark.parametrize("classes", [2, 4])
def test_errors_before_and_after_are_means_over_the_classes_of_the_report(classes: int) -> None:
    test = draw(90, classes, 7)
    for temperature in (1.0, 2.5):
        same = test.at(temperature)
        report, errors = clinical(same, same), calibration_errors(same.labels, same.logits)
        for name in ("ece", "brier"):
            assert errors[name] == pytest.approx(np.mean([getattr(metrics, name).value for metrics in report]))
    assert test.at(1.0) is test
    assert softmax(test.at(2.5).logits) == pytest.approx(softmax(test.logits.astype(np.float64) / 2.5))

"""Groups as the unit: what their labels and predictions are, by hand and by property; coverage by simulation."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import expit

from petlbench.metrics.classification import compute_intervals, evaluate, softmax
from petlbench.metrics.groups import (
    AGGREGATES,
    ANY_LABEL,
    MEAN_NUMBER,
    MOST_SEVERE,
    UNANIMOUS,
    Aggregate,
    GroupRule,
    by_group,
)

RULES = (MOST_SEVERE, UNANIMOUS)
GROUPS = ["a", "b", "a", None, "b", "a"]


def draw(classes: int, seed: int, count: int = 60) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return np.concatenate([np.arange(classes), rng.integers(0, classes, count - classes)]), rng.normal(
        0, 3, (count, classes)
    )


def logits_of(positive: list[float]) -> np.ndarray:
    share = np.array(positive)
    return np.log(np.stack([1 - share, share], axis=1))


@pytest.mark.parametrize(
    ("aggregate", "expected"),
    [("mean", [0.4, 0.5, 0.7]), ("max", [0.9, 0.6, 0.7]), ("noisy_or", [1 - 0.8 * 0.1 * 0.9, 1 - 0.4 * 0.6, 0.7])],
)
def test_a_group_is_positive_where_one_image_is_and_so_is_its_probability(
    aggregate: Aggregate, expected: list[float]
) -> None:
    logits = logits_of([0.2, 0.6, 0.9, 0.7, 0.4, 0.1])
    groups = by_group(np.array([0, 0, 1, 1, 0, 0]), logits, GROUPS, MOST_SEVERE, aggregate)
    assert groups is not None
    assert groups.labels.tolist() == [1, 0, 1]
    assert groups.rows.tolist() == [0, 1, 3]
    assert softmax(groups.logits)[:, 1] == pytest.approx(expected)
    assert groups.ambiguous == 0


def test_grades_are_those_of_the_worst_image() -> None:
    """Two images: the distribution of the larger of two independent grades, by its table of nine cells."""
    first, second = np.array([0.5, 0.3, 0.2]), np.array([0.1, 0.7, 0.2])
    groups = by_group(np.array([0, 2]), np.log(np.stack([first, second])), ["p", "p"], MOST_SEVERE, "noisy_or")
    assert groups is not None
    table = np.zeros(3)
    for one, p in enumerate(first):
        for other, q in enumerate(second):
            table[max(one, other)] += p * q
    assert groups.labels.tolist() == [2]
    assert softmax(groups.logits)[0] == pytest.approx(table)


def test_a_group_whose_images_differ_is_left_out_where_classes_have_no_order() -> None:
    _, logits = draw(3, 0, 6)
    groups = by_group(np.array([0, 1, 2, 1, 1, 0]), logits, GROUPS, UNANIMOUS)
    assert groups is not None
    assert groups.ambiguous == 1
    assert groups.labels.tolist() == [1, 1]
    assert groups.rows.tolist() == [1, 3]
    assert softmax(groups.logits)[0] == pytest.approx(softmax(logits)[[1, 4]].mean(axis=0))


@given(st.sampled_from(RULES), st.sampled_from(AGGREGATES), st.integers(2, 5), st.integers(0, 10**6))
def test_groups_of_one_image_score_as_images_do(rule: GroupRule, how: Aggregate, classes: int, seed: int) -> None:
    labels, logits = draw(classes, seed)
    groups = by_group(labels, logits, [f"p{row}" for row in range(len(labels))], rule, how)
    assert groups is not None
    alone, grouped = evaluate(labels, logits), evaluate(groups.labels, groups.logits)
    for name in ("auc", "accuracy", "balanced_accuracy", "f1", "kappa", "count"):
        assert grouped[name] == pytest.approx(alone[name], abs=1e-9)
    assert grouped["confusion_matrix"] == alone["confusion_matrix"]
    assert grouped["loss"] == pytest.approx(alone["loss"], rel=1e-6)


@given(st.sampled_from(RULES), st.sampled_from(AGGREGATES), st.integers(2, 5), st.integers(0, 10**6))
def test_the_order_of_images_says_nothing(rule: GroupRule, how: Aggregate, classes: int, seed: int) -> None:
    labels, logits = draw(classes, seed)
    names = [f"p{number}" for number in np.random.default_rng(seed).integers(0, 12, len(labels))]
    order = np.random.default_rng(seed + 1).permutation(len(labels))
    shuffled = [names[place] for place in order]
    one = by_group(labels, logits, names, rule, how)
    other = by_group(labels[order], logits[order], shuffled, rule, how)
    assert one is not None
    assert other is not None
    found = dict(zip((names[row] for row in one.rows), softmax(one.logits), strict=True))
    again = dict(zip((shuffled[row] for row in other.rows), softmax(other.logits), strict=True))
    assert found.keys() == again.keys()
    assert one.ambiguous == other.ambiguous == len(set(names)) - len(found)
    for name, probabilities in found.items():
        assert again[name] == pytest.approx(probabilities, abs=1e-9)
        assert probabilities.sum() == pytest.approx(1)


@pytest.mark.parametrize("aggregate", AGGREGATES)
def test_a_group_has_each_label_that_one_image_has_and_of_each_its_own_probability(aggregate: Aggregate) -> None:
    labels = np.array([[1, 0, np.nan], [0, 0, 0], [np.nan, 0, 0], [np.nan, np.nan, 1]])
    logits = np.random.default_rng(0).normal(0, 3, labels.shape)
    groups = by_group(labels, logits, ["p", "q", "p", "q"], ANY_LABEL, aggregate)
    assert groups is not None
    np.testing.assert_array_equal(groups.labels, [[1, 0, np.nan], [np.nan, np.nan, 1]])
    pairs = expit(logits)[[[0, 2], [1, 3]]]
    expected = {"mean": pairs.mean(axis=1), "max": pairs.max(axis=1), "noisy_or": 1 - (1 - pairs).prod(axis=1)}
    np.testing.assert_allclose(expit(groups.logits), expected[aggregate], rtol=1e-12)
    alone = by_group(labels, 20 * logits, list("abcd"), ANY_LABEL, aggregate)
    assert alone is not None
    np.testing.assert_allclose(alone.logits, 20 * logits, rtol=1e-9)


def test_numbers_are_averaged_and_in_no_other_way() -> None:
    groups = by_group(np.array([1.0, 2.0, 4.0]), np.array([[1.0], [2.0], [5.0]]), ["p", "q", "p"], MEAN_NUMBER)
    assert groups is not None
    assert (groups.labels.tolist(), groups.logits.tolist()) == ([2.5, 2.0], [[3.0], [2.0]])
    assert MEAN_NUMBER.aggregates == ("mean",)


def test_noisy_or_is_at_least_the_largest_and_that_at_least_the_mean() -> None:
    labels, logits = draw(2, 4)
    names = [f"p{row // 5}" for row in range(len(labels))]
    shares = []
    for how in AGGREGATES:
        groups = by_group(labels, logits, names, MOST_SEVERE, how)
        assert groups is not None
        shares.append(softmax(groups.logits)[:, 1])
    assert (shares[0] <= shares[1]).all()
    assert (shares[1] <= shares[2]).all()


def test_what_is_not_known_or_not_finite_has_no_score() -> None:
    labels, logits = draw(2, 0)
    assert by_group(labels, logits, [None] * 60, MOST_SEVERE) is None
    assert by_group(labels[:0], logits[:0], [], MOST_SEVERE) is None
    broken = logits.copy()
    broken[3, 0] = np.inf
    groups = by_group(labels, broken, ["p"] * 30 + ["q"] * 30, MOST_SEVERE, "noisy_or")
    assert groups is not None
    assert evaluate(groups.labels, groups.logits)["auc"] is None
    means_alone = replace(MOST_SEVERE, aggregates=("mean",))
    with pytest.raises(ValueError, match="not put together by max"):
        by_group(labels, logits, ["p"] * 60, means_alone, "max")
    surest = np.array([[0.0, 1e4], [1e4, 0.0], [0.0, 1e4]])
    for rule in RULES:
        for how in AGGREGATES:
            groups = by_group(np.array([1, 0, 1]), surest, ["p", "q", "p"], rule, how)
            assert groups is not None
            assert np.isfinite(groups.logits).all()


@pytest.mark.slow
def test_coverage_of_scores_by_group() -> None:
    """Patients of one to ten images; half of the variance of images' scores is the patient's."""
    patients, trials, gap, outside = 120, 1000, 1.5, []
    rng = np.random.default_rng(0)

    def cohort(count: int) -> tuple[np.ndarray, np.ndarray, list[str]]:
        sizes, sick = rng.integers(1, 11, count), (rng.random(count) < 0.35).astype(int)
        patient = np.repeat(np.arange(count), sizes)
        noise = np.sqrt(0.5) * (rng.normal(size=count)[patient] + rng.normal(size=len(patient)))
        # Of a sick patient every image may show it, or only some: then the patient is positive nonetheless.
        labels = sick[patient] * (rng.random(len(patient)) < 0.8).astype(int)
        scores = gap * labels + noise - 1
        return labels, np.stack([np.zeros(len(scores)), scores], axis=1), [f"p{one}" for one in patient]

    print("\ncoverage in %, scores by group of 120 patients with 1 to 10 images (true values)")
    for how in AGGREGATES:
        labels, logits, names = cohort(60_000)
        whole = by_group(labels, logits, names, MOST_SEVERE, how)
        assert whole is not None
        true = evaluate(whole.labels, whole.logits)
        held = dict.fromkeys(("auc", "accuracy", "balanced_accuracy", "f1", "kappa"), 0)
        for _ in range(trials):
            groups = by_group(*cohort(patients), MOST_SEVERE, how)
            assert groups is not None
            for name, interval in compute_intervals(groups.labels, groups.logits).items():
                if name in held and interval is not None:
                    held[name] += interval["low"] <= true[name] <= interval["high"]
        print(f"{how:10}" + "".join(f"  {name} {held[name] / trials:6.1%} ({true[name]:.3f})" for name in held))
        outside += [(how, name) for name, inside in held.items() if not 0.93 - 0.007 <= inside / trials <= 0.99]
    assert not outside

"""What tuned methods reach: intervals that hold it, paired images, seeds and settings that were not tried."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.special import expit

from petlbench.recommend.prior import Prior
from petlbench.recommend.trials import Candidate
from petlbench.recommend.tuned import Observation, tuned_scores

METHODS = ("lora", "bitfit", "vpt")
RATES = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2)
CANDIDATES = [Candidate.of(method, rate, 0, {}) for method, rate in product(METHODS, RATES)]
BELIEF = Prior.of({}).belief(CANDIDATES)
IMAGES = 200


def draws(observations: list[Observation]) -> dict[str, NDArray[np.float64]]:
    return tuned_scores(CANDIDATES, BELIEF, observations, IMAGES)


def spread(observations: list[Observation], one: str = "lora", other: str = "bitfit") -> float:
    """Standard deviation of a difference."""
    scores = draws(observations)
    return float((scores[one] - scores[other]).std())


@pytest.mark.parametrize("further", [0.0, 0.7])
def test_intervals_hold_what_a_method_reaches_whether_settings_matter_little_or_much(further: float) -> None:
    rng = np.random.default_rng(0)
    held = []
    for _ in range(25):
        truth = 1.5 + rng.multivariate_normal(
            np.zeros(len(CANDIDATES)), BELIEF.widened(further, further).covariance - 1
        )
        common, own = rng.normal(size=IMAGES), rng.normal(size=(len(CANDIDATES), IMAGES))
        slopes = expit(truth) * (1 - expit(truth))
        parts = (0.2 * common + 0.1 * own) / IMAGES**0.5 * slopes[:, None]  # influences: runs share most of them
        seen = expit(truth + (0.2 * common + 0.1 * own).mean(axis=1) * IMAGES**0.5 + 0.1 * rng.normal(size=len(truth)))
        tried = [row for row in range(len(CANDIDATES)) if row % len(RATES) in rng.permutation(len(RATES))[:3]]
        scores = draws([Observation(row, 0, float(seen[row]), parts[row]) for row in tried])
        # Another search sees other images and seeds.
        found = expit(truth + 0.15 * rng.normal(size=len(truth))).reshape(len(METHODS), -1).argmax(axis=1)
        reached = dict(zip(METHODS, expit(truth).reshape(len(METHODS), -1)[range(len(METHODS)), found], strict=True))
        for method in METHODS[1:]:
            if method in scores and "lora" in scores:
                low, high = np.quantile(scores[method] - scores["lora"], [0.025, 0.975])
                held.append(low <= reached[method] - reached["lora"] <= high)
    assert len(held) > 30
    assert np.mean(held) > 0.88


def test_runs_that_err_on_the_same_images_are_told_apart_better() -> None:
    rng = np.random.default_rng(0)
    alike, others = rng.normal(size=(2, IMAGES)) * 0.5 / IMAGES
    rows = range(len(RATES))
    paired = [Observation(row, 0, 0.9, alike) for row in rows]
    same = spread(paired + [Observation(len(RATES) + row, 0, 0.8, alike) for row in rows])
    unlike = spread(paired + [Observation(len(RATES) + row, 0, 0.8, others) for row in rows])
    assert same < 0.9 * unlike


def test_what_was_not_tried_and_seeds_that_differ_widen_an_interval() -> None:
    whole = [Observation(row, 0, score, None) for row, score in enumerate([0.80, 0.83, 0.86, 0.88, 0.85, 0.7] * 2)]
    few = [each for each in whole if each.candidate % len(RATES) in {2, 5}]
    assert spread(whole) < 0.8 * spread(few)
    calm = [Observation(3, seed, score, None) for seed, score in enumerate((0.88, 0.881, 0.879))]
    wild = [Observation(3, seed, score, None) for seed, score in enumerate((0.88, 0.95, 0.80))]
    assert spread(whole + calm) < spread(whole + wild)


def test_the_order_of_the_runs_does_not_matter() -> None:
    observations = [Observation(row, 0, 0.7 + 0.01 * row, None) for row in (0, 2, 7, 8, 13)]
    forth, back = draws(observations), draws(observations[::-1])
    assert set(forth) == set(METHODS)
    for method in METHODS:
        assert forth[method] == pytest.approx(back[method])


def test_one_run_and_scores_of_nothing_and_all_are_taken() -> None:
    assert np.isfinite(draws([Observation(0, 0, 1.0, None)])["lora"]).all()
    scores = draws([Observation(0, 0, 1.0, np.zeros(IMAGES)), Observation(6, 0, 0.0, np.zeros(IMAGES))])
    assert scores["lora"].mean() > scores["bitfit"].mean()

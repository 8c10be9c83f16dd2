"""Non-inferiority: no difference found is no equivalence."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import ttest_1samp

from petlbench.results.stored import Predictions
from petlbench.statistics.comparison import Evidence
from petlbench.statistics.noninferiority import NonInferiority, non_inferior
from petlbench.statistics.runs import Scored
from tests.statistics.studies import draw_study, scored_run

SAME = Predictions(["x", "y", "z"], [None] * 3, np.array([0, 1, 1]), np.array([[0, -1], [0, 1], [0, 2.0]]))


def judged(new: list[float], old: list[float]) -> NonInferiority:
    """Scores by seed; the images add nothing."""
    records = [
        Scored(name, "d", seed, "official@0", score, lambda: SAME)
        for name, scores in (("int8", new), ("fp32", old))
        for seed, score in enumerate(scores)
    ]
    found = non_inferior(Evidence(records), "int8", "fp32", "d")
    assert found is not None
    return found


def test_it_is_students_paired_test_against_the_margin() -> None:
    new, old = [0.901, 0.921, 0.879, 0.935], [0.902, 0.920, 0.880, 0.933]
    ours, differences = judged(new, old), np.array(new) - np.array(old)
    expected = ttest_1samp(differences, -0.005, alternative="greater")
    assert ours.p_value == pytest.approx(expected.pvalue)
    assert ours.bound == pytest.approx(expected.confidence_interval().low)
    assert ours.verdict == "non-inferior"
    assert ours.comparison.df == pytest.approx(3)


def test_a_small_mean_loss_with_a_wide_spread_is_not_shown() -> None:
    ours = judged([0.90, 0.94, 0.86], [0.91, 0.92, 0.88])
    assert ours.comparison.verdict == "not separable"
    assert ours.verdict == "not shown"


def test_a_loss_is_a_loss() -> None:
    assert judged([0.80, 0.81, 0.79], [0.90, 0.912, 0.889]).verdict == "inferior"


def test_seeds_that_only_one_has_are_left_out() -> None:
    assert judged([0.80, 0.81, 0.79], [0.90, 0.912]).comparison.seeds == (2, 2)
    ours = judged([0.9], [0.9, 0.9])
    assert ours.verdict == "too few"
    assert ours.bound is None
    assert non_inferior(Evidence([]), "int8", "fp32", "d") is None
    with pytest.raises(ValueError, match="margin is 0"):
        non_inferior(Evidence([]), "int8", "fp32", "d", margin=0)


def test_nearly_equal_logits_of_the_same_seeds_are_non_inferior() -> None:
    old = draw_study(np.random.default_rng(0), {"fp32": 0.9}, spread=0.03, positives=200, negatives=200)
    new = []
    for record in old:
        known = record.predictions()
        assert known is not None
        noise = np.random.default_rng(record.seed).normal(0, 0.01, len(known.labels))
        scores = known.logits[:, 1] + noise
        new.append(scored_run("int8", record.dataset, record.seed, known.labels, scores))
    evidence = Evidence([*old, *[replace(one, split=old[0].split) for one in new]])
    found = non_inferior(evidence, "int8", "fp32", "dataset 0")
    assert found is not None
    assert found.verdict == "non-inferior"
    # Were seeds not paired, their spread of 3 points would hide it.
    unpaired = evidence.compare("int8", "fp32", "dataset 0")
    assert unpaired is not None
    assert (unpaired.error or 0) > 5 * (found.comparison.error or 1)

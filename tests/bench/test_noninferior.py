"""Paired seeds: the bound is the textbook's, and the script tells a value that costs nothing from one that does."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.stats import ttest_rel

from tests.bench.noninferior import Pairs, main, settings


def test_the_bound_is_that_of_the_paired_test() -> None:
    default, other = np.random.default_rng(0).normal(0.8, 0.01, (2, 10))
    expected = ttest_rel(other, default, alternative="greater").confidence_interval(0.95).low
    assert Pairs(default.tolist(), other.tolist()).lower_bound() == pytest.approx(expected, abs=1e-12)


def test_settings_are_keywords_of_a_run() -> None:
    assert settings(["epochs=2", "extract_precision=bf16", "method.token_ratio=0.1"]) == {
        "epochs": 2,
        "extract_precision": "bf16",
        "method_settings": {"token_ratio": 0.1},
    }


@pytest.mark.slow
@pytest.mark.parametrize(("value", "status"), [("extract_precision=bf16", 0), ("lr=1e-9", 1)])
def test_what_costs_nothing_is_told_from_what_does(value: str, status: int, tmp_path: Path) -> None:
    common = [word for each in ("image_size=64", "epochs=3", "shots=20") for word in ("--common", each)]
    what = ["--methods", "fpt", "--datasets", "digits", "--seeds", "2", "--margin", "10", "--output", str(tmp_path)]
    assert main(["--set", value, *what, *common]) == status

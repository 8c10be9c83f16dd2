"""Rounding by uncertainty against the examples of the Particle Data Group's rule."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from petlbench.statistics.rounding import round_by_uncertainty, with_uncertainty


@pytest.mark.parametrize(
    ("value", "std", "text"),
    [
        (0.827, 0.119, "0.83 ± 0.12"),  # 119 is at most 354: two digits
        (0.827, 0.367, "0.8 ± 0.4"),  # 367 is between 355 and 949: one
        (0.827, 0.954, "0.8 ± 1.0"),  # 954 counts as 1000: two
        (90.763, 1.21, "90.8 ± 1.2"),
        (90.763, 0.354, "90.76 ± 0.35"),
        (90.763, 0.355, "90.8 ± 0.4"),
        (12345.6, 210.0, "12350 ± 210"),
        (12345.6, 50.0, "12350 ± 50"),
        (-0.001, 0.2, "0.00 ± 0.20"),
        (99.96, 0.5, "100.0 ± 0.5"),
    ],
)
def test_the_rule(value: float, std: float, text: str) -> None:
    assert with_uncertainty(value, std) == text
    assert round_by_uncertainty(value, std) == text.split(" ± ", maxsplit=1)[0]


@pytest.mark.parametrize("std", [None, 0.0, math.nan, math.inf])
def test_without_an_uncertainty_nothing_is_cut_away(std: float | None) -> None:
    assert round_by_uncertainty(0.98765, std) == with_uncertainty(0.98765, std) == "0.98765"
    assert round_by_uncertainty(-0.0, std) == "0"
    assert round_by_uncertainty(math.nan, std) == "nan"


@given(st.floats(-1e4, 1e4), st.floats(1e-4, 1e3))
def test_rounding_moves_a_number_by_less_than_a_fifth_of_its_uncertainty(value: float, std: float) -> None:
    # Half a unit of the last place that is kept: at most half of 1 in 9.5, or of 1 in 3.55.
    assert abs(float(round_by_uncertainty(value, std)) - value) <= std * 0.5 / 3.54 + 1e-9

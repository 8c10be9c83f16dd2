"""Tables of class by column: what goes with the class comes first, by chance nothing does."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from petlbench.audit.confounders import find_confounds
from petlbench.audit.metadata_columns import MISSING, Column

LABELS = np.array([0, 1] * 50)


def numbers(name: str, values: np.ndarray) -> Column:
    return Column(name, tuple(str(value) for value in values), values.astype(float))


def test_a_column_that_tells_the_class_comes_first() -> None:
    rng = np.random.default_rng(0)
    columns = [
        Column("chance", tuple(rng.choice(["u", "v"], 100))),
        Column("site", tuple("ab"[label] for label in LABELS)),
        Column("same", ("x",) * 100),
        Column("id", tuple(str(row) for row in range(100))),
    ]
    site, chance = find_confounds(columns, LABELS, 2)
    assert (site.column, site.rows, site.counts) == ("site", ("a", "b"), ((50, 0), (0, 50)))
    assert site.cramers_v == pytest.approx(1, abs=0.02)
    assert site.p < 1e-10
    assert chance.cramers_v < 0.2
    assert chance.p > 0.01


def test_many_values_do_not_tell_the_class_by_chance() -> None:
    values = tuple(str(row) for row in np.random.default_rng(0).integers(0, 40, 100))
    (confound,) = find_confounds([Column("room", values)], LABELS, 2)
    assert confound.rows[-1] == "others"
    assert len(confound.rows) == 13
    assert confound.cramers_v < 0.25


def test_numbers_are_put_into_ranges() -> None:
    ages = np.where(LABELS == 1, 60.0, 20.0) + np.arange(100) % 10 + np.arange(100) / 1000
    ages[0] = np.nan
    columns = [Column("age", tuple(MISSING if np.isnan(age) else str(age) for age in ages), ages)]
    (confound,) = find_confounds(columns, LABELS, 2)
    assert len(confound.rows) == 5
    assert confound.rows[-1] == MISSING
    assert confound.rows[0].startswith("20")
    assert np.sum(confound.counts) == 100
    assert confound.cramers_v > 0.9


def test_a_number_that_most_images_share_is_a_row_of_its_own() -> None:
    """Else one quartile would hold the square images and those that are not quite, which is where the trap is."""
    ratio = np.where(np.arange(100) < 80, 1.0, 1.0 + np.arange(100) / 1000)
    labels = (np.arange(100) >= 80).astype(int)
    (confound,) = find_confounds([numbers("width / height", ratio)], labels, 2)
    assert confound.rows[0] == "1"
    assert confound.counts[0] == (80, 0)
    assert confound.cramers_v > 0.95


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 2)), min_size=2, max_size=60))
def test_strength_and_p_are_within_bounds(pairs: list[tuple[str, int]]) -> None:
    column = Column("c", tuple(value for value, _ in pairs))
    for confound in find_confounds([column], np.array([label for _, label in pairs]), 3):
        assert 0 <= confound.cramers_v <= 1
        assert 0 <= confound.p <= 1
        assert np.sum(confound.counts) == len(pairs)


@given(st.lists(st.floats(-1e9, 1e9) | st.just(float("nan")), min_size=2, max_size=60))
def test_any_numbers_fall_into_rows(values: list[float]) -> None:
    for confound in find_confounds([numbers("n", np.array(values))], np.arange(len(values)) % 2, 2):
        assert np.sum(confound.counts) == len(values)
        assert len(set(confound.rows)) == len(confound.rows)

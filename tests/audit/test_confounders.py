"""Columns, and tables of class by column: what goes with the class comes first, by chance nothing does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from petlbench.audit.confounders import MISSING, Column, columns_of, find_confounds, most_common
from petlbench.audit.scan import Scan
from petlbench.data.tasks.base import Question, TaskType

LABELS = np.array([0, 1] * 50)


def asked(labels: Any, classes: int) -> list[Question]:
    return TaskType("multiclass", "").questions(labels, [str(name) for name in range(classes)])


Make = Callable[..., Scan]


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
    site, chance = find_confounds(columns, asked(LABELS, 2), 2)
    assert (site.column, site.rows, site.counts) == ("site", ("a", "b"), ((50, 0), (0, 50)))
    assert site.cramers_v == pytest.approx(1, abs=0.02)
    assert site.p < 1e-10
    assert chance.cramers_v < 0.2
    assert chance.p > 0.01


def test_many_values_do_not_tell_the_class_by_chance() -> None:
    values = tuple(str(row) for row in np.random.default_rng(0).integers(0, 40, 100))
    (confound,) = find_confounds([Column("room", values)], asked(LABELS, 2), 2)
    assert confound.rows[-1] == "others"
    assert len(confound.rows) == 13
    assert confound.cramers_v < 0.25


def test_numbers_are_put_into_ranges() -> None:
    ages = np.where(LABELS == 1, 60.0, 20.0) + np.arange(100) % 10 + np.arange(100) / 1000
    ages[0] = np.nan
    columns = [Column("age", tuple(MISSING if np.isnan(age) else str(age) for age in ages), ages)]
    (confound,) = find_confounds(columns, asked(LABELS, 2), 2)
    assert len(confound.rows) == 5
    assert confound.rows[-1] == MISSING
    assert confound.rows[0].startswith("20")
    assert np.sum(confound.counts) == 100
    assert confound.cramers_v > 0.9


def test_a_number_that_most_images_share_is_a_row_of_its_own() -> None:
    """Else one quartile would hold the square images and those that are not quite, which is where the trap is."""
    ratio = np.where(np.arange(100) < 80, 1.0, 1.0 + np.arange(100) / 1000)
    labels = (np.arange(100) >= 80).astype(int)
    (confound,) = find_confounds([numbers("width / height", ratio)], asked(labels, 2), 2)
    assert confound.rows[0] == "1"
    assert confound.counts[0] == (80, 0)
    assert confound.cramers_v > 0.95


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 2)), min_size=2, max_size=60))
def test_strength_and_p_are_within_bounds(pairs: list[tuple[str, int]]) -> None:
    column = Column("c", tuple(value for value, _ in pairs))
    for confound in find_confounds([column], asked(np.array([label for _, label in pairs]), 3), 3):
        assert 0 <= confound.cramers_v <= 1
        assert 0 <= confound.p <= 1
        assert np.sum(confound.counts) == len(pairs)


@given(st.lists(st.floats(-1e9, 1e9) | st.just(float("nan")), min_size=2, max_size=60))
def test_any_numbers_fall_into_rows(values: list[float]) -> None:
    for confound in find_confounds([numbers("n", np.array(values))], asked(np.arange(len(values)) % 2, 2), 2):
        assert np.sum(confound.counts) == len(values)
        assert len(set(confound.rows)) == len(confound.rows)


def column(scan: Scan, name: str) -> Column:
    return next(one for one in columns_of(scan) if one.name == name)


def test_headers_and_tables_become_columns(scan: Make) -> None:
    extras = [{"site": "north", "age": str(20 + row)} for row in range(20)]
    extras[3] = {"site": " "}
    made = scan([0, 1] * 10, formats=["PNG", "JPEG"] * 10, sizes=[(60, 40)] * 20, extras=extras)
    names = [one.name for one in columns_of(made)]
    assert names == [
        "file format", "bit depth", "file size in bytes", "image size", "pixels", "width / height", "site", "age",
    ]  # fmt: skip
    assert column(made, "file format").values == ("PNG", "JPEG") * 10
    assert column(made, "image size").constant
    assert column(made, "site").values[3] == column(made, "age").values[3] == MISSING
    ages = column(made, "age").numbers
    assert ages is not None
    assert np.isnan(ages[3])
    assert ages[4] == 24


def test_few_numbers_are_names(scan: Make) -> None:
    assert column(scan([0] * 20, extras=[{"year": str(2000 + row % 3)} for row in range(20)]), "year").numbers is None


def test_words_of_single_images_identify(scan: Make) -> None:
    made = scan([0] * 20, extras=[{"id": f"x{row}", "sex": "fm"[row % 2]} for row in range(20)])
    assert column(made, "id").identifies
    assert not column(made, "sex").identifies


def test_images_without_files_have_no_file_columns(scan: Make) -> None:
    made = scan([0, 1])
    made = replace(made, images=tuple(replace(image, file=None) for image in made.images))
    assert [one.name for one in columns_of(made)] == ["image size", "pixels", "width / height"]


def test_the_most_common_come_in_the_order_of_their_names() -> None:
    assert most_common(list("ccbbbad"), 3) == ["a", "b", "c"]

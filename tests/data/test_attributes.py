"""Subgroups from what a table says of images."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from petlbench.core.errors import InputError
from petlbench.data.attributes import NOT_STATED, Attribute, attribute_values
from petlbench.data.record import Record


def test_values_are_subgroups_as_they_stand() -> None:
    assert Attribute("sex").subgroups(["F", None, "M"]) == ["F", NOT_STATED, "M"]
    assert Attribute("site").subgroups(["1", "2", "1"]) == ["1", "2", "1"]


def test_edges_cut_numbers_and_the_names_say_where() -> None:
    age = Attribute.parse("age:40:60.5")
    assert age == Attribute("age", (40.0, 60.5))
    expected = ["under 40", "40 to under 60.5", "40 to under 60.5", "60.5 and over", NOT_STATED]
    assert age.subgroups(["39.9", "40", "60", "60.5", None]) == expected
    assert Attribute.parse("DICOM: site") == Attribute("DICOM: site")


def test_what_programs_write_into_an_empty_cell_is_not_stated_among_numbers() -> None:
    assert Attribute("age").subgroups(["70", "nan", "NA"]) == ["70", NOT_STATED, NOT_STATED]
    assert Attribute("age", (40.0,)).subgroups(["70", "nan"]) == ["40 and over", NOT_STATED]
    assert Attribute("region").subgroups(["EU", "NA"]) == ["EU", "NA"]


@given(st.lists(st.integers(0, 90), min_size=30, max_size=200, unique=False))
def test_numbers_are_cut_into_quarters_that_hold_what_they_say(numbers: list[int]) -> None:
    groups = Attribute("age").subgroups([str(number) for number in numbers])
    if len(set(numbers)) <= 8:
        assert groups == [str(number) for number in numbers]
        return
    assert 2 <= len(set(groups)) <= 4
    for name in set(groups):
        own = sorted(number for number, group in zip(numbers, groups, strict=True) if group == name)
        others = [number for number, group in zip(numbers, groups, strict=True) if group != name]
        assert not any(own[0] <= number <= own[-1] for number in others)


@pytest.mark.parametrize(
    ("text", "values", "message"),
    [
        ("age:60:40", ["1"], "edges do not rise"),
        ("sex:40", ["F", "M"], "'sex' holds 'F', which cannot be cut"),
        ("name", [f"n{number}" for number in range(51)], "51 values: too many"),
        ("age:40", ["nan"], "cannot be cut"),
    ],
)
def test_what_makes_no_subgroups_is_refused(text: str, values: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Attribute.parse(text).subgroups(values)


def test_a_column_is_read_from_the_records_and_a_wrong_one_named() -> None:
    records = [Record("a", "a", 0, extra=(("sex", "F"), ("age", "3"))), Record("b", "b", 1)]
    assert attribute_values(records, "sex") == ["F", None]
    with pytest.raises(InputError, match="unknown column 'gender'"):
        attribute_values(records, "gender")

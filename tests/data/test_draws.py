"""Draws of few labels: nested, stratified, groups whole, the same for any order of the images."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from petlbench.core.errors import InputError
from petlbench.data.draws import Draw
from petlbench.data.record import OfficialDraw, Record, Split
from petlbench.data.tasks.base import class_strata

FRACTIONS = (0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.999, 1.0)
Rows = Sequence[Record]
Sides = Sequence[Split]


def multi_strata(labels: Sequence[tuple[int | None, ...]]) -> NDArray[Any]:
    """The strata of labels of 0, 1 and unknown, and one of all images."""
    return np.array([[*(value == 1 for value in label), True] for label in labels], dtype=bool).reshape(len(labels), -1)


def table(labels: Sequence[Any], groups: Sequence[str | None] | None = None) -> list[Record]:
    pairs = zip(labels, groups or [None] * len(labels), strict=True)
    return [Record(f"i{n:04d}", f"i{n:04d}", label, group) for n, (label, group) in enumerate(pairs)]


def drawn(rows: Rows, sides: Sides, draw: Draw, side: str = "train", **more: Any) -> set[str]:
    return {row.image_id for row, own in zip(rows, draw.sides(rows, sides, **more), strict=True) if own == side}


def units(rows: Rows, names: set[str]) -> set[str]:
    """The groups of some images; an image without one is one of its own."""
    return {row.group or row.image_id for row in rows if row.image_id in names}


@st.composite
def tables(draw: st.DrawFn) -> tuple[list[Record], list[Split]]:
    """Classes from balanced to one in many, with and without groups, groups of one class or of several."""
    weights = draw(st.lists(st.sampled_from([1, 2, 10, 40]), min_size=2, max_size=5))
    labels = [label for label, weight in enumerate(weights) for _ in range(weight * draw(st.integers(1, 2)))]
    number = draw(st.integers(1, 3 * len(labels)))
    names = st.one_of(st.none(), st.integers(0, number).map(str))
    groups = draw(st.one_of(st.none(), st.lists(names, min_size=len(labels), max_size=len(labels))))
    rows = table(labels, groups)
    by_group = {row.group or row.image_id: draw(st.sampled_from(["train"] * 6 + ["val", "test"])) for row in rows}
    return rows, [by_group[row.group or row.image_id] for row in rows]


@st.composite
def multi_tables(draw: st.DrawFn) -> tuple[list[Record], list[Split]]:
    """Several labels an image, from rare to frequent, some unknown; groups of up to a handful of images."""
    count, rates = draw(st.integers(5, 60)), draw(st.lists(st.sampled_from([0.02, 0.2, 0.6]), min_size=1, max_size=5))
    rng = np.random.default_rng(draw(st.integers(0, 10**6)))
    positive, unknown = rng.random((count, len(rates))) < rates, rng.random((count, len(rates))) < 0.1
    labels = [
        tuple(None if u else int(p) for p, u in zip(*pair, strict=True)) for pair in zip(positive, unknown, strict=True)
    ]
    groups = [f"p{number}" for number in rng.integers(0, max(1, count // draw(st.integers(1, 5))), count)]
    rows = table(labels, draw(st.sampled_from([None, groups])))
    return rows, ["train"] * count


@settings(deadline=None, max_examples=150)
@given(tables(), st.integers(0, 9), st.integers(0, 3))
def test_shares_are_nested_and_keep_groups_whole_and_every_class(
    made: tuple[list[Record], list[Split]], seed: int, number: int
) -> None:
    rows, sides = made
    whole = {row.image_id for row, side in zip(rows, sides, strict=True) if side == "train"}
    by_class = Counter(row.label for row in rows if row.image_id in whole)
    smaller: set[str] = set()
    for fraction in FRACTIONS:
        names = drawn(rows, sides, Draw(fraction=fraction, seed=seed, number=number))
        assert smaller <= names <= whole
        assert {row.label for row in rows if row.image_id in names} == set(by_class)
        if whole:
            assert units(rows, names).isdisjoint(units(rows, whole - names))
            largest = max(Counter(row.group or row.image_id for row in rows).values())
            # No more than the share and the group at its end, but for one group of each class.
            assert len(names) <= fraction * len(whole) + largest * (1 + len(by_class))
            assert len(names) >= fraction * len(whole) - largest
        smaller = names
    assert smaller == whole


@settings(deadline=None, max_examples=100)
@given(tables(), st.integers(0, 9))
def test_shots_are_nested_and_as_many_of_every_class(made: tuple[list[Record], list[Split]], seed: int) -> None:
    rows, sides = made
    trained = [row for row, side in zip(rows, sides, strict=True) if side == "train"]
    by_class = {label: len({row.group or row.image_id for row in trained if row.label == label}) for label in range(5)}
    classes = [str(label) for label in sorted({row.label for row in rows})]
    smaller: set[str] = set()
    for shots in range(1, 6):
        draw = Draw(shots, seed=seed)
        if any(by_class[int(name)] < shots for name in classes):
            with pytest.raises(InputError, match=f"--shots {shots}: the class '.' has") as caught:
                draw.sides(rows, sides, classes=classes)
            assert caught.value.kind == "class_too_small"
            return
        names = drawn(rows, sides, draw, classes=classes)
        assert smaller <= names
        counts = Counter(
            label for label, _ in {(row.label, row.group or row.image_id) for row in trained if row.image_id in names}
        )
        assert all(counts[int(name)] >= shots for name in classes)
        if all(row.group is None for row in rows):
            assert set(counts.values()) == {shots}
        smaller = names


@settings(deadline=None, max_examples=100)
@given(multi_tables(), st.integers(0, 9))
def test_draws_of_several_labels_are_nested_and_serve_each_label(
    made: tuple[list[Record], list[Split]], seed: int
) -> None:
    rows, sides = made
    strata = multi_strata([row.label for row in rows])[:, :-1]
    most = min(
        len({row.group or row.image_id for row, own in zip(rows, column, strict=True) if own}) for column in strata.T
    )
    draws = [Draw(shots, seed=seed) for shots in range(1, min(most, 4) + 1)]
    smaller: set[str] = set()
    for draw in draws:
        names = drawn(rows, sides, draw, strata=multi_strata, classes=[str(n) for n in range(strata.shape[1])])
        assert smaller <= names
        inside = np.array([row.image_id in names for row in rows])
        for column in strata.T:
            assert len(units([row for row, own in zip(rows, column & inside, strict=True) if own], names)) >= draw.shots
        smaller = names
    smaller = set()
    for fraction in FRACTIONS:
        names = drawn(rows, sides, Draw(fraction=fraction, seed=seed), strata=multi_strata)
        assert smaller <= names
        inside = np.array([row.image_id in names for row in rows])
        assert (strata[inside].any(axis=0) == strata.any(axis=0)).all()
        smaller = names


@settings(deadline=None, max_examples=60)
@given(
    tables(), st.sampled_from([Draw(fraction=0.3), Draw(1), Draw(fraction=0.2, validation=True)]), st.integers(0, 99)
)
def test_a_draw_does_not_depend_on_the_order_of_images_and_leaves_the_rest_alone(
    made: tuple[list[Record], list[Split]], draw: Draw, seed: int
) -> None:
    rows, sides = made
    try:
        result = draw.sides(rows, sides)
    except InputError:
        return
    order = list(range(len(rows)))
    random.Random(seed).shuffle(order)
    assert draw.sides([rows[n] for n in order], [sides[n] for n in order]) == [result[n] for n in order]
    for side, own in zip(sides, result, strict=True):
        assert own in (side, None)
        if side == "test" or (side == "val" and not draw.validation):
            assert own == side


def test_a_share_has_the_shares_of_the_classes() -> None:
    rows = table([0] * 700 + [1] * 200 + [2] * 100)
    for fraction in (0.05, 0.1, 0.5):
        names = drawn(rows, ["train"] * 1000, Draw(fraction=fraction))
        counts = Counter(row.label for row in rows if row.image_id in names)
        assert len(names) == 1000 * fraction
        assert all(abs(counts[label] - size * fraction) <= 1 for label, size in ((0, 700), (1, 200), (2, 100)))


def test_draws_differ_and_so_do_those_of_another_split_seed() -> None:
    rows, sides = table([0, 1] * 100), ["train"] * 200
    sets = [frozenset(drawn(rows, sides, Draw(5, number=n, seed=seed))) for n in range(3) for seed in range(3)]
    assert len(set(sets)) == 9
    assert len(set.union(*map(set, sets))) > 50


def test_an_image_that_is_lost_moves_no_other_one() -> None:
    rows = table([0, 1] * 50)
    names = drawn(rows, ["train"] * 100, Draw(5))
    outside = next(row for row in rows if row.image_id not in names)
    assert drawn([row for row in rows if row is not outside], ["train"] * 99, Draw(5)) == names


def test_images_of_no_label_are_drawn_too() -> None:
    rows = table([(1, 0)] * 10 + [(0, 1)] * 10 + [(0, 0)] * 3 + [(None, 0)])
    names = drawn(rows, ["train"] * 24, Draw(2), strata=multi_strata)
    assert Counter(row.label == (1, 0) for row in rows if row.image_id in names)[True] == 2
    assert len([row for row in rows if row.image_id in names and not any(row.label)]) == 2
    assert len(names) == 6


def test_a_class_with_fewer_images_or_groups_is_named() -> None:
    rows, sides = table([0] * 5 + [1] * 3), ["train"] * 7 + ["val"]
    with pytest.raises(InputError, match="--shots 3: the class 'dog' has 2 images to train on"):
        Draw(3).sides(rows, sides, classes=("cat", "dog"))
    with pytest.raises(InputError, match="--shots 1: the class 'cat' has 0 images to validate on"):
        Draw(1, validation=True).sides(rows, sides, classes=("cat", "dog"))
    grouped = table([0] * 5 + [1] * 3, ["a", "a", "a", "b", "b", "c", "c", "c"])
    with pytest.raises(InputError, match="--shots 2: the class 'dog' has 1 group to train on"):
        Draw(2).sides(grouped, ["train"] * 8, classes=("cat", "dog"))
    with pytest.raises(InputError, match="the class 'cow' has 0 images"):
        Draw(1).sides(rows, sides, classes=("cat", "dog", "cow"))


def test_the_releases_own_draw_is_taken_and_what_it_trains_on_leaves_validation() -> None:
    rows, sides = (
        table([0, 1] * 4, ["a", "a", "b", "b", "c", "c", "d", "d"]),
        ["train"] * 2 + ["val"] * 4 + ["test"] * 2,
    )
    train, val = OfficialDraw("train", 1, 1), OfficialDraw("val", 1, 1)
    rows[1], rows[2] = replace(rows[1], draws=(train,)), replace(rows[2], draws=(train,))
    rows[4] = replace(rows[4], draws=(val,))
    draw = Draw(1, number=1)
    assert draw.is_official(rows)
    assert not any(other.is_official(rows) for other in (Draw(1), Draw(2, number=1), Draw(fraction=0.5)))
    assert draw.sides(rows, sides, official=True) == [None, "train", "train", None, "val", "val", "test", "test"]
    both = replace(draw, validation=True)
    assert both.sides(rows, sides, official=True) == [None, "train", "train", None, "val", None, "test", "test"]
    rows[4], rows[5] = replace(rows[4], draws=()), replace(rows[5], group="a", draws=(val,))
    with pytest.raises(InputError, match="official draw 1 of 1 shots leaves validation no image of another group"):
        both.sides(rows, sides, official=True)
    rows[7] = replace(rows[7], draws=(train,))
    with pytest.raises(InputError, match="i0007 is in the official draw 1 of 1 shots, and tested"):
        draw.sides(rows, sides, official=True)


def test_all_labels_are_the_split_as_it_is() -> None:
    rows = table([0, 1] * 4)
    sides: list[Split] = ["train"] * 6 + ["val", "test"]
    assert Draw(number=3, validation=True).sides(rows, sides) == sides
    assert class_strata([row.label for row in rows]).shape == (8, 2)

"""Splits: no group on two sides, stratified, fixed by the seed, and errors where it cannot be done."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from petlbench.core.errors import InputError
from petlbench.data.record import SPLITS, Record, Split
from petlbench.data.splits import SplitScheme, _group_folds, assign_splits, shared_groups

EIGHTY_TWENTY: list[Split | None] = ["train" if number < 80 else "test" for number in range(100)]
SCHEMES = ["random", "kfold:2/1", "kfold:3/0", "kfold:5/4", "repeat:3/2"]


def records(labels: Sequence[int], groups: Sequence[str | None] | None = None) -> list[Record]:
    groups = groups or [None] * len(labels)
    pairs = zip(labels, groups, strict=True)
    return [Record(f"i{n:05d}", f"i{n:05d}", label, group) for n, (label, group) in enumerate(pairs)]


def official(sides: Sequence[Split | None], groups: Sequence[str | None] | None = None) -> list[Record]:
    groups = groups or [None] * len(sides)
    return [Record(f"i{n}", f"i{n}", n % 2, groups[n], side) for n, side in enumerate(sides)]


def split(rows: Sequence[Record], scheme: str, seed: int = 0) -> list[Split]:
    return assign_splits(rows, SplitScheme.parse(scheme), seed)


def refused(rows: Sequence[Record], scheme: str) -> InputError:
    with pytest.raises(InputError) as caught:
        assign_splits(rows, SplitScheme.parse(scheme), 0, classes=("cat", "dog", "cow"))
    return caught.value


@st.composite
def tables(draw: st.DrawFn) -> list[Record]:
    labels = draw(st.lists(st.integers(0, 3), min_size=3, max_size=80))
    names = st.one_of(st.none(), st.integers(0, 25).map(str))
    groups = draw(st.lists(names, min_size=len(labels), max_size=len(labels)))
    return records(labels, draw(st.sampled_from([groups, None])))


@settings(deadline=None, max_examples=150)
@given(tables(), st.sampled_from(SCHEMES), st.integers(0, 99))
def test_every_split_keeps_its_promises(rows: list[Record], scheme: str, seed: int) -> None:
    try:
        sides = split(rows, scheme, seed)
    except InputError as error:
        assert error.kind in ("class_too_small", "too_few_groups")
        return
    assert len(sides) == len(rows)
    assert set(sides) == set(SPLITS)
    assert shared_groups(rows, sides) == []
    trained = {row.label for row, side in zip(rows, sides, strict=True) if side == "train"}
    assert trained == {row.label for row in rows}
    order = list(range(len(rows)))
    random.Random(seed).shuffle(order)
    assert split([rows[n] for n in order], scheme, seed) == [sides[n] for n in order]


@settings(deadline=None, max_examples=60)
@given(st.lists(st.integers(5, 60), min_size=2, max_size=5), st.sampled_from(["random", "kfold:5/2", "repeat:3/1"]))
def test_without_groups_every_class_has_its_share_of_every_side(sizes: list[int], scheme: str) -> None:
    rows = records([label for label, size in enumerate(sizes) for _ in range(size)])
    found = Counter(zip((row.label for row in rows), split(rows, scheme), strict=True))
    for label, size in enumerate(sizes):
        assert abs(found[label, "test"] - size / 5) < 1
        assert found[label, "val"] >= 1
        assert abs(found[label, "val"] - (size - found[label, "test"]) / 8) < 1


def test_the_classic_proportions() -> None:
    assert Counter(split(records([0] * 500 + [1] * 500), "random")) == {"train": 700, "val": 100, "test": 200}


def test_three_images_a_class_are_enough() -> None:
    rows = records([0] * 3 + [1] * 3 + [2] * 300)
    found = Counter(zip((row.label for row in rows), split(rows, "random"), strict=True))
    assert [found[0, side] for side in SPLITS] == [1, 1, 1]


def test_groups_keep_proportions_roughly() -> None:
    draw = random.Random(0)
    rows = records([draw.choice([0] * 8 + [1, 2]) for _ in range(900)], [str(draw.randrange(300)) for _ in range(900)])
    found = Counter(split(rows, "random"))
    assert abs(found["test"] / 900 - 0.2) < 0.02
    assert abs(found["val"] / 900 - 0.1) < 0.02


@pytest.mark.parametrize("groups", [None, [str(n // 2) for n in range(60)]], ids=["single", "grouped"])
def test_folds_are_one_partition(groups: list[str | None] | None) -> None:
    rows = records([n % 3 for n in range(60)], groups)
    tests = [[n for n, side in enumerate(split(rows, f"kfold:5/{fold}")) if side == "test"] for fold in range(5)]
    assert sorted(n for fold in tests for n in fold) == list(range(60))


def test_repeats_and_seeds_differ() -> None:
    rows = records([n % 2 for n in range(60)])
    drawn = [split(rows, "repeat:3/0"), split(rows, "repeat:3/1"), split(rows, "repeat:3/0", 1), split(rows, "random")]
    assert len({tuple(sides) for sides in drawn}) == 4


def test_a_repeat_does_not_depend_on_how_many_there_are() -> None:
    rows = records([n % 2 for n in range(60)])
    assert split(rows, "repeat:3/1") == split(rows, "repeat:9/1")


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("count", [1, 2])
def test_a_class_that_is_too_small_is_named(scheme: str, count: int) -> None:
    error = refused(records([0] * 20 + [1] * count), scheme)
    assert error.kind == "class_too_small"
    assert f"'dog' has {count} image" in error.message


def test_a_class_of_one_image_is_refused_with_groups_too() -> None:
    error = refused(records([0] * 20 + [1], [str(n) for n in range(21)]), "random")
    assert error.kind == "class_too_small"


def test_a_class_in_one_group_stays_in_training() -> None:
    rows = records([0] * 20 + [1] * 4, [str(n) for n in range(20)] + ["one"] * 4)
    assert split(rows, "random")[-4:] == ["train"] * 4


@pytest.mark.parametrize("seed", range(5))
def test_groups_are_dealt_out_by_the_rule_of_scikit_learn(seed: int) -> None:
    rng = np.random.default_rng(seed)
    groups = np.sort(rng.integers(0, 30, 200))
    strata = np.eye(3, dtype=bool)[np.where(rng.random(200) < 0.8, groups % 3 == 0, 2)]
    counts = np.array([strata[groups == group].sum(axis=0) for group in np.unique(groups)], float)
    order = np.random.Generator(np.random.PCG64(seed)).permutation(len(counts))
    sums, fold_of = np.zeros((4, 3)), {}
    for group in order[np.argsort(-counts[order].std(axis=1).round(9), kind="stable")]:
        tried = [sums + np.outer(np.arange(4) == fold, counts[group]) for fold in range(4)]
        unlike = [(each / counts.sum(axis=0)).std(axis=0).mean().round(9) for each in tried]
        fold_of[group] = min(range(4), key=lambda fold: (unlike[fold], sums[fold].sum()))
        sums = tried[fold_of[group]]
    folds = _group_folds(strata, groups, np.arange(200), 4, seed)
    own = np.unique(groups, return_inverse=True)[1]
    assert [[fold_of[group] == fold for group in own] for fold in range(4)] == [
        np.isin(np.arange(200), rows).tolist() for rows in folds
    ]


def test_two_groups_are_too_few() -> None:
    assert refused(records([0, 1] * 10, [str(n % 2) for n in range(20)]), "random").kind == "too_few_groups"


def test_more_folds_than_images() -> None:
    assert refused(records([0, 1] * 10), "kfold:11/0").kind == "class_too_small"


class TestOfficial:
    def test_is_kept(self) -> None:
        sides: list[Split | None] = ["train", "train", "val", "val", "test", "test"]
        assert split(official(sides), "official") == sides

    def test_validation_is_cut_from_training(self) -> None:
        sides = split(official(EIGHTY_TWENTY), "official")
        assert Counter(sides[:80]) == {"train": 70, "val": 10}
        assert set(sides[80:]) == {"test"}

    def test_the_last_training_image_of_a_class_stays_in_training(self) -> None:
        rows = [Record(f"i{n}", f"i{n}", 0, None, side) for n, side in enumerate(EIGHTY_TWENTY)]
        rows += [Record(f"j{side}", f"j{side}", 1, None, side) for side in ("train", "test")]
        assert split(rows, "official")[-2:] == ["train", "test"]

    def test_validation_is_cut_by_group(self) -> None:
        rows = official(EIGHTY_TWENTY, [str(n // 4) for n in range(100)])
        assert shared_groups(rows, split(rows, "official")) == []

    @pytest.mark.parametrize(
        ("sides", "said"),
        [
            ([None] * 8, "no official split"),
            (["train"] * 8, "no test part"),
            (["test"] * 8, "no train part"),
            (["train", "train", "test", None], "1 images have no side"),
        ],
    )
    def test_what_is_missing_is_said(self, sides: list[Split | None], said: str) -> None:
        error = refused(official(sides), "official")
        assert error.kind == "no_official_split"
        assert said in error.message
        assert "random" in error.hint

    def test_parts_to_train_and_to_validate_on_are_kept_and_nothing_is_cut_from_them(self) -> None:
        sides: list[Split | None] = ["train", "train", "val", "train", "val"]
        assert split(official(sides), "official") == sides

    def test_groups_are_named_only_where_there_are_some(self) -> None:
        rows = [Record(side, side, 0, None, side) for side in ("train", "test")]
        assert "group" not in refused(rows, "official").message + refused(rows, "official").hint

    def test_a_group_on_two_sides_is_refused(self) -> None:
        rows = official(["train", "train", "test", "test"], ["p", "q", "p", "r"])
        error = refused(rows, "official")
        assert error.kind == "group_leak"
        assert "p" in error.message

    def test_a_class_without_training_images(self) -> None:
        rows = [Record(f"{n}", f"{n}", n // 4, None, "train" if n < 4 else "test") for n in range(8)]
        assert refused(rows, "official").kind == "class_too_small"


class TestScheme:
    @pytest.mark.parametrize("text", ["official", *SCHEMES, "repeat:1/0"])
    def test_text_and_scheme_are_one(self, text: str) -> None:
        assert str(SplitScheme.parse(text)) == text

    @pytest.mark.parametrize(
        "text",
        [
            "",
            "Random",
            "kfold",
            "kfold:5",
            "kfold:1/0",
            "kfold:5/5",
            "kfold:5/-1",
            "repeat:0/0",
            "repeat:3/3",
            "kfold:٥/٠",
        ],
    )
    def test_other_text_is_refused(self, text: str) -> None:
        with pytest.raises(InputError) as caught:
            SplitScheme.parse(text)
        assert caught.value.kind == "bad_split"

    def test_a_part_that_does_not_exist_is_answered_with_those_that_do(self) -> None:
        with pytest.raises(InputError, match="'kfold:5/5' does not exist: the parts are numbered 0 to 4$"):
            SplitScheme.parse("kfold:5/5")

    @given(
        st.text(alphabet="kfold:repat/0123 -", max_size=12) | st.from_regex(r"(kfold|repeat):\d?/\d?", fullmatch=True)
    )
    def test_any_text_is_parsed_or_refused(self, text: str) -> None:
        try:
            scheme = SplitScheme.parse(text)
        except InputError:
            return
        assert SplitScheme.parse(str(scheme)) == scheme

    def test_a_negative_seed_is_refused(self) -> None:
        with pytest.raises(InputError, match="-1"):
            split(records([0, 1] * 9), "random", -1)

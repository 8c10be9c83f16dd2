"""Duplicates and groups on two sides of a split, and one image with two labels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from petlbench.audit.leaks import find_leaks
from petlbench.audit.scan import Scan
from petlbench.data.record import Split

Make = Callable[..., Scan]


def copied(scan: Scan, row: int, of: int, *, near: bool = False) -> Scan:
    """The same scan, in which one image shows what another shows."""
    images, mark = list(scan.images), scan.images[of].fingerprint
    if near:
        noise = np.random.default_rng(1).integers(0, 3, mark.thumbnail.shape)
        noisy = np.clip(mark.thumbnail.astype(int) + noise, 0, 255).astype(np.uint8)
        mark = replace(mark, sha256=f"near {of}", pixels=f"near {of}", thumbnail=noisy)
    images[row] = replace(images[row], fingerprint=mark)
    return replace(scan, images=tuple(images))


def test_nothing_is_found_where_nothing_is(scan: Make) -> None:
    sides: list[Split | None] = ["train", "val", "test", "train"]
    leaks = find_leaks(scan([0, 1, 0, 1]), sides)
    assert (leaks.pairs, leaks.sets, leaks.groups) == ((), (), ())
    assert leaks.leaked == {"val": (0, 1), "test": (0, 1)}


def test_duplicates_are_told_by_side_and_label(scan: Make) -> None:
    made = copied(copied(scan([0, 0, 0, 1, 1, 1]), 4, 0), 2, 1, near=True)
    sides: list[Split | None] = ["train", "train", "train", "val", "test", "test"]
    leaks = find_leaks(made, sides)
    across, within = leaks.pairs
    assert (across.images, across.kind, across.exact) == (("i0000", "i0004"), "bytes", True)
    assert (across.classes, across.sides) == (("class 0", "class 1"), ("train", "test"))
    assert (within.images, within.kind, within.across, within.two_labels) == (("i0001", "i0002"), "near", False, False)
    assert leaks.across == leaks.two_labels == (across,)
    assert leaks.leaked == {"val": (0, 1), "test": (1, 2)}
    assert leaks.counts() == {("train", "test"): {"bytes": 1}, ("train", "train"): {"near": 1}}


def test_a_copy_that_training_knows_through_another_counts(scan: Make) -> None:
    """Two equal test images, of which only the first is paired with the near one in training."""
    made = copied(copied(scan([0] * 4), 3, 2), 0, 2, near=True)
    leaks = find_leaks(made, ["train", "train", "test", "test"])
    assert leaks.sets == (("i0000", "i0002", "i0003"),)
    assert leaks.leaked == {"test": (2, 2)}


def test_pairs_are_counted_whatever_their_order(scan: Make) -> None:
    made = copied(copied(scan([0] * 4), 1, 0), 3, 2)
    assert find_leaks(made, ["test", "train", "train", "test"]).counts() == {("train", "test"): {"bytes": 2}}


def test_without_a_split_nothing_is_across(scan: Make) -> None:
    leaks = find_leaks(copied(scan([0, 1]), 1, 0), [None, None])
    assert leaks.across == ()
    assert leaks.leaked == {}
    assert leaks.counts() == {("no side", "no side"): {"bytes": 1}}


def test_groups_on_two_sides(scan: Make) -> None:
    made = scan([0, 1, 0, 1], groups=["p", "p", "q", None])
    assert find_leaks(made, ["train", "test", "train", "test"]).groups == ("p",)

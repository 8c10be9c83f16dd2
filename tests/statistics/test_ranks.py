"""Rank tests: figures of Demšar's paper, scipy's, and what they cannot say."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import wilcoxon

from petlbench.statistics.ranks import (
    critical_difference,
    holm,
    inseparable_groups,
    rank_intervals,
    rank_tests,
    separable_pairs,
    smallest_wilcoxon_p,
)


def study(methods: int, datasets: int, seed: int = 0, gap: float = 0.0) -> dict[str, dict[str, float]]:
    rng = np.random.default_rng(seed)
    return {
        f"m{row}": {f"d{column}": float(rng.normal(0.8 - gap * row, 0.02)) for column in range(datasets)}
        for row in range(methods)
    }


def test_critical_differences_of_the_literature() -> None:
    """Demšar 2006, section 3.2.2: four methods, 14 datasets; and q for 9 methods of table 5, 3.102."""
    assert critical_difference(4, 14) == pytest.approx(1.25, abs=0.01)
    assert critical_difference(9, 4) == pytest.approx(3.102 * np.sqrt(9 * 10 / 24), abs=0.005)
    assert critical_difference(9, 4) == pytest.approx(6.0, abs=0.01)
    assert critical_difference(9, 8) == pytest.approx(4.25, abs=0.01)


def test_eight_datasets_cannot_make_seven_comparisons_significant() -> None:
    assert smallest_wilcoxon_p(4) == 0.125
    assert smallest_wilcoxon_p(8) == pytest.approx(0.0078, abs=5e-5)
    found = rank_tests(study(8, 8, gap=0.1), reference="m0")
    assert found is not None
    assert len(found.p_values) == 7
    assert set(found.p_values.values()) == {7 * smallest_wilcoxon_p(8)}
    assert found.smallest_p == pytest.approx(0.055, abs=5e-4)
    assert not found.can_say
    assert "0.0078" in found.text
    assert "cannot find anything" in found.text


def test_more_datasets_can() -> None:
    found = rank_tests(study(3, 12, gap=0.1), reference="m0")
    assert found is not None
    assert found.can_say
    assert "cannot" not in found.text
    assert max(found.p_values.values()) < 0.05


def test_the_diagram_is_drawn_only_where_it_can_tell_methods_apart() -> None:
    for datasets, drawn in ((4, False), (8, False), (16, True)):
        found = rank_tests(study(9, datasets), "m0")
        assert found is not None
        assert found.diagram is drawn


@settings(max_examples=40)
@given(st.integers(2, 12), st.integers(0, 10**6))
def test_a_signed_rank_test_is_scipys(datasets: int, seed: int) -> None:
    scores = study(2, datasets, seed)
    found = rank_tests(scores, "m0")
    assert found is not None
    differences = [scores["m0"][name] - scores["m1"][name] for name in scores["m0"]]
    assert found.p_values == pytest.approx({"m1": wilcoxon(differences, method="exact").pvalue})
    assert found.p_values["m1"] >= found.smallest_p - 1e-12


def test_ties_and_equal_scores() -> None:
    scores = {
        "a": {"d": 0.8, "e": 0.7, "f": 0.6},
        "b": {"d": 0.8, "e": 0.7, "f": 0.6},
        "c": {"d": 0.7, "e": 0.6, "f": 0.5},
    }
    found = rank_tests(scores, "a")
    assert found is not None
    assert found.mean_ranks == {"a": 1.5, "b": 1.5, "c": 3.0}
    # Three equal differences, one of the 8 signs and its mirror image; twice that, for two comparisons.
    assert found.p_values == {"b": 1.0, "c": 0.5}


def test_all_datasets_agree_on_the_ranks() -> None:
    found = rank_tests(study(5, 6, gap=0.5), "m4")
    assert found is not None
    assert list(found.mean_ranks.items()) == [(f"m{row}", row + 1.0) for row in range(5)]


def test_cliques_are_the_longest_runs_within_the_critical_difference() -> None:
    found = rank_tests(study(6, 20, gap=0.5), "m0")
    assert found is not None
    assert 2 < found.critical_difference / 1 + 1 < 3 or found.critical_difference < 2
    reach = int(np.ceil(found.critical_difference)) - 1
    assert found.cliques == tuple(tuple(f"m{i}" for i in range(a, a + reach + 1)) for a in range(6 - reach))


def test_datasets_that_a_method_lacks_are_left_out() -> None:
    scores = study(3, 3)
    del scores["m1"]["d1"]
    found = rank_tests(scores, "m0")
    assert found is not None
    assert "with 2 datasets" in found.text
    del scores["m1"]["d0"]
    assert rank_tests(scores, "m0") is None
    assert rank_tests({"m0": {"d0": 1.0, "d1": 1.0}}, "m0") is None
    with pytest.raises(ValueError, match="'x' is none of the methods m0, m1, m2"):
        rank_tests(scores, reference="x")


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.9]) == [1.0, 1.0]


def test_ranks_leave_room_for_what_cannot_be_told_apart() -> None:
    p_values = {frozenset(pair): p for pair, p in {("a", "b"): 0.5, ("a", "c"): 1e-6, ("b", "c"): 0.04}.items()}
    # After Holm's correction b and c cannot be told apart: 2 * 0.04.
    assert rank_intervals(["a", "b", "c"], p_values) == {"a": (1, 2), "b": (1, 3), "c": (2, 3)}
    apart = separable_pairs(p_values)
    assert apart == {frozenset("ac")}
    assert inseparable_groups(["a", "b", "c"], apart) == [("a", "b"), ("b", "c")]


@settings(max_examples=50)
@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)).filter(lambda pair: pair[0] != pair[1]), max_size=20))
def test_groups_are_the_largest_of_which_no_two_can_be_told_apart(pairs: list[tuple[int, int]]) -> None:
    order, apart = list(range(7)), set(map(frozenset, pairs))
    groups = inseparable_groups(order, apart)
    together = [set(group) for group in groups]
    for first, second in combinations(order, 2):
        assert any({first, second} <= group for group in together) == (frozenset((first, second)) not in apart)
    assert not any(one < other for one in together for other in together)
    assert set().union(*together) == set(order)

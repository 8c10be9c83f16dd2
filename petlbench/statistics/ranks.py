"""Which methods are ahead: Pareto fronts, and rank tests over datasets with the smallest p that they can reach."""

from __future__ import annotations

import math
from collections.abc import Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

_Key = TypeVar("_Key", bound=Hashable)


@dataclass(frozen=True)
class RankTests:
    """What ranks say about methods over datasets.

    Args:
        mean_ranks: Mean rank by method, the best first; 1 is best, ties share.
        p_values: Two-sided p of the signed-rank test of the reference with each other method, after Holm's correction.
        smallest_p: The smallest that such a p can be.
        can_say: Whether that is below the level.
        critical_difference: Nemenyi's, in ranks.
        diagram: Whether it is under half the range of mean ranks, so that a diagram can show a difference.
        cliques: Longest runs of methods, in the order of ranks, that differ by less than it.
        text: What the signed-rank tests can say, in a sentence.
    """

    mean_ranks: Mapping[str, float]
    p_values: Mapping[str, float]
    smallest_p: float
    can_say: bool
    critical_difference: float
    diagram: bool
    cliques: tuple[tuple[str, ...], ...]
    text: str


def rank_tests(
    scores: Mapping[str, Mapping[str, float]], reference: str, level: float = 0.05, *, direction: str = "higher"
) -> RankTests | None:
    """Test whether methods differ over datasets by their ranks (J. Demšar, JMLR 7 (2006) 1).

    Args:
        scores: The mean score by method and dataset; datasets that a method lacks are left out for all.
        reference: The method that the others are compared with.
        level: Of all tests.
        direction: Which end of a score is good, ``higher`` or ``lower``.

    Returns:
        None where there are fewer than two methods, or fewer than two datasets that all of them have.

    Raises:
        ValueError: The reference is not one of the methods.
    """
    if reference not in scores:
        raise ValueError(f"'{reference}' is none of the methods {', '.join(scores)}")
    datasets = [name for name in scores[reference] if all(name in each for each in scores.values())]
    if len(scores) < 2 or len(datasets) < 2:
        return None
    from scipy.stats import rankdata  # half a second, which a table of one dataset does not take

    table = {method: np.array([by_dataset[name] for name in datasets]) for method, by_dataset in scores.items()}
    values = np.stack(list(table.values()))
    ranks = rankdata(-values if direction == "higher" else values, axis=0).mean(axis=1).tolist()
    mean_ranks = dict(sorted(zip(table, ranks, strict=True), key=lambda item: item[1]))
    others = [method for method in table if method != reference]
    p_values = holm([_wilcoxon_p(table[reference] - table[method]) for method in others])
    smallest = min(1.0, smallest_wilcoxon_p(len(datasets)) * len(others))
    difference = critical_difference(len(table), len(datasets), level)
    return RankTests(
        mean_ranks,
        dict(zip(others, p_values, strict=True)),
        smallest,
        smallest < level,
        difference,
        difference < (len(table) - 1) / 2,
        _cliques(mean_ranks, difference),
        _text(len(datasets), len(others), smallest, level),
    )


def _text(datasets: int, comparisons: int, smallest: float, level: float) -> str:
    alone = smallest_wilcoxon_p(datasets)
    text = f"The smallest p that a signed-rank test can reach with {datasets} datasets is {alone:.2g}"
    if comparisons > 1:
        text += f", {smallest:.2g} after Holm's correction for {comparisons} comparisons"
    return text + ("." if smallest < level else f"; at the level of {level:g} it cannot find anything.")


def smallest_wilcoxon_p(datasets: int) -> float:
    """The smallest two-sided p of a signed-rank test: one of 2^n signs, and its mirror image.

    Args:
        datasets: n, the datasets on which the two methods differ.
    """
    return min(1.0, 2.0 ** (1 - datasets))


def critical_difference(methods: int, datasets: int, level: float = 0.05) -> float:
    """Nemenyi's critical difference of mean ranks, ``q sqrt(k (k + 1) / (6 N))`` (Demšar 2006).

    Args:
        methods: k.
        datasets: N.
        level: Of the test; q is the upper quantile of the studentised range for k groups, over the root of 2.
    """
    from scipy.stats import studentized_range

    quantile = float(studentized_range.isf(level, methods, np.inf)) / math.sqrt(2)
    return quantile * math.sqrt(methods * (methods + 1) / (6 * datasets))


def holm(p_values: Sequence[float]) -> list[float]:
    """The p values, corrected for their number: S. Holm, Scandinavian Journal of Statistics 6 (1979) 65."""
    order = np.argsort(p_values, kind="stable")
    raised = np.asarray(p_values)[order] * np.arange(len(order), 0, -1)
    corrected = np.empty(len(order))
    corrected[order] = np.minimum(1.0, np.maximum.accumulate(raised))
    return [float(p) for p in corrected]


def _wilcoxon_p(differences: NDArray[np.float64]) -> float:
    """The two-sided p over all signs, zeros left out; by the normal distribution beyond 20 differences."""
    from scipy.stats import rankdata, wilcoxon

    nonzero = differences[differences != 0]
    if not len(nonzero):
        return 1.0
    if len(nonzero) > 20:
        return float(wilcoxon(nonzero).pvalue)
    # scipy's exact distribution knows no ties; to count all signs does.
    doubled = np.rint(2 * rankdata(np.abs(nonzero))).astype(np.int64)
    ways = np.array([1.0])
    for rank in doubled:
        ways = np.concatenate([ways, np.zeros(rank)]) + np.concatenate([np.zeros(rank), ways])
    positive = int(doubled[nonzero > 0].sum())
    tail = min(ways[: positive + 1].sum(), ways[positive:].sum())
    return min(1.0, 2 * float(tail) / 2.0 ** len(nonzero))


def _cliques(mean_ranks: Mapping[str, float], difference: float) -> tuple[tuple[str, ...], ...]:
    methods, ranks = list(mean_ranks), np.array(list(mean_ranks.values()))
    cliques: list[tuple[int, int]] = []
    for first in range(len(methods)):
        last = int(np.flatnonzero(ranks - ranks[first] < difference)[-1])
        if last > first and (not cliques or last > cliques[-1][1]):
            cliques.append((first, last))
    return tuple(tuple(methods[first : last + 1]) for first, last in cliques)


def fronts(points: Mapping[_Key, Sequence[float]]) -> dict[_Key, int]:
    """Number the fronts: 1 for what nothing dominates, 2 for what only points of front 1 dominate, and so on.

    Args:
        points: Costs by key, all equally many; less is better in each.

    Returns:
        The front's number by key.
    """
    rest, numbers, number = dict(points), {}, 0
    while rest:
        number += 1
        front = [key for key, point in rest.items() if not any(_dominates(other, point) for other in rest.values())]
        for key in front:
            numbers[key] = number
            del rest[key]
    return numbers


def _dominates(first: Sequence[float], second: Sequence[float]) -> bool:
    return tuple(first) != tuple(second) and all(a <= b for a, b in zip(first, second, strict=True))


def rank_intervals(
    order: Sequence[_Key], p_values: Mapping[frozenset[_Key], float], level: float = 0.05
) -> dict[_Key, tuple[int, int]]:
    """The best and the worst rank that each of several methods may have, all at once with the probability 1 - level.

    A method is behind those that are better beyond doubt, and ahead of those that are worse beyond doubt: pairs whose
    p, after Holm's correction for all pairs, is below the level (D. Al Mohamad, J. Goeman and E. van Zwet, Biometrics
    78 (2022) 238).

    Args:
        order: Methods, the best first.
        p_values: Two-sided p by pair; a pair without one cannot be told apart.
        level: Of all pairs together.
    """
    apart = separable_pairs(p_values, level)
    intervals = {}
    for place, key in enumerate(order):
        better = sum(frozenset((key, other)) in apart for other in order[:place])
        worse = sum(frozenset((key, other)) in apart for other in order[place + 1 :])
        intervals[key] = 1 + better, len(order) - worse
    return intervals


def separable_pairs(p_values: Mapping[frozenset[_Key], float], level: float = 0.05) -> set[frozenset[_Key]]:
    """The pairs whose p, after Holm's correction for all of them, is below the level."""
    corrected = zip(p_values, holm(list(p_values.values())), strict=True)
    return {pair for pair, p in corrected if p < level}


def inseparable_groups(order: Sequence[_Key], apart: Collection[frozenset[_Key]]) -> list[tuple[_Key, ...]]:
    """The largest groups of methods of which no two can be told apart; a method may be in several.

    The sweep of H.-P. Piepho (J. Computational and Graphical Statistics 13 (2004) 456): one group of all is split by
    every pair that can be told apart, and what another group holds entirely is dropped.

    Args:
        order: Methods, the best first; groups and their members are in this order.
        apart: Pairs that can be told apart.
    """
    groups = [frozenset(order)]
    for pair in apart:
        halves = [group - {key} for group in groups if pair <= group for key in pair]
        rest = [group for group in groups if not pair <= group]
        distinct = list(dict.fromkeys([*rest, *halves]))
        groups = [group for group in distinct if not any(group < other for other in distinct)]
    places = {key: place for place, key in enumerate(order)}
    ordered = [tuple(sorted(group, key=places.__getitem__)) for group in groups]
    return sorted(ordered, key=lambda group: [places[key] for key in group])

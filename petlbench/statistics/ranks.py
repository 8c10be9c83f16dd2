"""Rank tests over datasets, shown only where they can say something, with the smallest p that they can reach."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

__all__ = ["RankTests", "Wilcoxon", "critical_difference", "holm", "rank_tests", "smallest_wilcoxon_p"]

Scores = Mapping[str, Mapping[str, float]]


@dataclass(frozen=True)
class Wilcoxon:
    """A signed-rank test of two methods over datasets: its two-sided p, and that after Holm's correction."""

    a: str
    b: str
    p: float
    p_holm: float


@dataclass(frozen=True)
class RankTests:
    """What ranks say about methods over datasets.

    Args:
        methods: The methods, the best mean rank first.
        datasets: The datasets on which all of them have a score.
        mean_ranks: Mean rank by method; 1 is best, ties share.
        friedman_p: p of no difference between any two; None for two methods.
        friedman_smallest_p: The smallest that it can be, where all datasets agree; None for two methods.
        pairs: Signed-rank tests: of the reference with each other method, or of all pairs.
        smallest_p: The smallest p that one signed-rank test can reach.
        smallest_p_holm: The smallest after Holm's correction for so many pairs.
        wilcoxon_can_say: Whether that is below the level.
        critical_difference: Nemenyi's, in ranks.
        diagram: Whether it is under half the range of mean ranks, so that a diagram can show a difference.
        cliques: Longest runs of methods, in the order of ranks, that differ by less than it.
        level: Of all tests.
        text: All this in a sentence or two.
    """

    methods: tuple[str, ...]
    datasets: tuple[str, ...]
    mean_ranks: Mapping[str, float]
    friedman_p: float | None
    friedman_smallest_p: float | None
    pairs: tuple[Wilcoxon, ...]
    smallest_p: float
    smallest_p_holm: float
    wilcoxon_can_say: bool
    critical_difference: float
    diagram: bool
    cliques: tuple[tuple[str, ...], ...]
    level: float
    text: str


def rank_tests(
    scores: Scores, reference: str | None = None, level: float = 0.05, *, direction: str = "higher"
) -> RankTests | None:
    """Test whether methods differ over datasets by their ranks (J. Demšar, JMLR 7 (2006) 1).

    Args:
        scores: The mean score by method and dataset; datasets that a method lacks are left out for all.
        reference: The method that the others are compared with; without it, every pair is compared.
        level: Of all tests.
        direction: Which end of a score is good, ``higher`` or ``lower``.

    Returns:
        None where there are fewer than two methods, or fewer than two datasets that all of them have.

    Raises:
        ValueError: The reference is not one of the methods.
    """
    from scipy.stats import rankdata

    if reference is not None and reference not in scores:
        raise ValueError(f"'{reference}' is none of the methods {', '.join(scores)}")
    every = [list(by_dataset) for by_dataset in scores.values()]
    datasets = tuple(name for name in every[0] if all(name in each for each in every)) if every else ()
    if len(scores) < 2 or len(datasets) < 2:
        return None
    table = np.array([[scores[method][dataset] for dataset in datasets] for method in scores])
    ranks = np.asarray(rankdata(-table if direction == "higher" else table, axis=0).mean(axis=1))
    order = np.argsort(ranks, kind="stable")
    names = list(scores)
    methods = tuple(names[row] for row in order)
    pairs = _pairs(names, table, reference)
    smallest = smallest_wilcoxon_p(len(datasets))
    after_holm = min(1.0, smallest * len(pairs))
    difference = critical_difference(len(methods), len(datasets), level)
    text = f"the smallest p that a signed-rank test can reach with {len(datasets)} datasets is {smallest:.2g}"
    if len(pairs) > 1:
        text += f", {after_holm:.2g} after Holm's correction for {len(pairs)} comparisons"
    return RankTests(
        methods,
        datasets,
        {names[row]: float(ranks[row]) for row in order},
        *_friedman(table),
        pairs,
        smallest,
        after_holm,
        after_holm < level,
        difference,
        difference < (len(methods) - 1) / 2,
        _cliques(methods, ranks[order], difference),
        level,
        text + ("" if after_holm < level else f"; at the level of {level:g} it cannot find anything"),
    )


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


def _friedman(table: NDArray[np.float64]) -> tuple[float | None, float | None]:
    from scipy.special import chdtrc
    from scipy.stats import friedmanchisquare

    methods, datasets = table.shape
    if methods < 3:
        return None, None
    p = float(friedmanchisquare(*table).pvalue)
    return (p if math.isfinite(p) else 1.0), float(chdtrc(methods - 1, datasets * (methods - 1)))


def _pairs(names: Sequence[str], table: NDArray[np.float64], reference: str | None) -> tuple[Wilcoxon, ...]:
    if reference is None:
        pairs = list(combinations(range(len(names)), 2))
    else:
        pairs = [(names.index(reference), row) for row, name in enumerate(names) if name != reference]
    p_values = [_wilcoxon_p(table[a] - table[b]) for a, b in pairs]
    tests = zip(pairs, p_values, holm(p_values), strict=True)
    return tuple(Wilcoxon(names[a], names[b], p, corrected) for (a, b), p, corrected in tests)


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


def _cliques(methods: Sequence[str], ranks: NDArray[np.float64], difference: float) -> tuple[tuple[str, ...], ...]:
    cliques: list[tuple[int, int]] = []
    for first in range(len(methods)):
        last = int(np.flatnonzero(ranks - ranks[first] < difference)[-1])
        if last > first and (not cliques or last > cliques[-1][1]):
            cliques.append((first, last))
    return tuple(tuple(methods[first : last + 1]) for first, last in cliques)

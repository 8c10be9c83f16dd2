"""Whether a cheaper way is as good as the dear one, up to a margin: no difference found is no equivalence."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from petlbench.statistics.comparison import Evidence
from petlbench.statistics.verdict import Comparison, quantile

__all__ = ["NonInferiority", "non_inferior"]

Verdict = Literal["non-inferior", "inferior", "not shown", "too few"]


@dataclass(frozen=True)
class NonInferiority:
    """What a test of non-inferiority found.

    Args:
        comparison: New minus old, paired by seed.
        margin: The loss that does not matter, a fraction.
        bound: One-sided lower bound of the effect; None where nothing is replicated.
        p_value: Of a loss of at least the margin.
        verdict: ``non-inferior`` where the bound is above minus the margin; ``inferior`` where the whole two-sided
            interval lies below it; ``not shown`` between the two; ``too few`` without a bound.
    """

    comparison: Comparison
    margin: float
    bound: float | None
    p_value: float | None
    verdict: Verdict


def non_inferior(evidence: Evidence, new: str, old: str, dataset: str, margin: float = 0.005) -> NonInferiority | None:
    """Test whether a method is worse than another by less than a margin, seed by seed.

    The test is Student's one-sided t of the paired differences against minus the margin: S. Wellek, Testing
    Statistical Hypotheses of Equivalence and Noninferiority, 2nd edition (2010), chapter 5. Seeds are paired, since it
    compares one method with a variant of itself, such as features kept in int8 with those kept in fp32.

    Args:
        evidence: The runs.
        new: The cheaper way.
        old: The other.
        dataset: The dataset.
        margin: The loss that does not matter; by default 0.5 AUC points.

    Returns:
        None where the two share no split and seed.

    Raises:
        ValueError: The margin is not positive.
    """
    from scipy.special import stdtr

    if not (math.isfinite(margin) and margin > 0):
        raise ValueError(f"the margin is {margin}, but it has to be a positive number")
    comparison = evidence.compare_paired(new, old, dataset)
    if comparison is None:
        return None
    if not comparison.error or comparison.df is None:
        return NonInferiority(comparison, margin, None, None, "too few")
    # The one-sided bound at 95 % is the lower end of the two-sided interval at 90 %.
    bound = comparison.effect - quantile(2 * comparison.level - 1, comparison.df) * comparison.error
    p_value = float(stdtr(comparison.df, -(comparison.effect + margin) / comparison.error))
    is_worse = comparison.high is not None and comparison.high < -margin
    verdict: Verdict = "non-inferior" if bound > -margin else "inferior" if is_worse else "not shown"
    return NonInferiority(comparison, margin, bound, p_value, verdict)

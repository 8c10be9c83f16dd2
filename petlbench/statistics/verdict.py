"""From an effect and the variances of its sources to an interval, a probability and a verdict."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

Verdict = Literal["separable", "not separable", "too few"]

_MOST_DF = 1e6


@dataclass(frozen=True)
class Source:
    """A source of variance.

    Args:
        variance: What it adds to the variance of the effect, score squared.
        df: Degrees of freedom with which that is known.
    """

    variance: float
    df: float


@dataclass(frozen=True)
class Parts:
    """The variance of a mean or of an effect by source, score squared; None where a source cannot be estimated."""

    image: float | None = None
    seed: float | None = None
    split: float | None = None
    dataset: float | None = None


@dataclass(frozen=True)
class Cell:
    """A method on a dataset.

    Args:
        mean: Mean score, a fraction: over the seeds of each split, then over splits.
        std: Standard deviation over runs, n - 1 in the denominator; None for a single run.
        low: Lower bound of the interval; None where nothing is known of the images.
        high: Upper bound.
        runs: How many runs.
        few: Whether the rarest class has fewer than ten images (or groups): the interval is a hint only.
        note: What the interval leaves out; empty where it leaves out nothing.
    """

    mean: float
    std: float | None
    low: float | None
    high: float | None
    runs: int
    few: bool
    note: str


@dataclass(frozen=True)
class Judgement:
    """What an effect and its error say.

    Args:
        low: Lower bound of the interval; None where nothing is replicated, or no image and no seed differs.
        high: Upper bound.
        p_better: Probability that a is better than b, from Student's t about the effect (a flat prior).
        p_value: Two-sided p of no difference.
        df: Degrees of freedom.
        error: Standard error of the effect.
        detectable: The smallest effect, in size, that would have been separable.
        verdict: ``separable`` where the interval leaves out 0; ``too few`` where there is no interval.
    """

    low: float | None = None
    high: float | None = None
    p_better: float | None = None
    p_value: float | None = None
    df: float | None = None
    error: float | None = None
    detectable: float | None = None
    verdict: Verdict = "too few"


@dataclass(frozen=True, kw_only=True)
class Comparison(Judgement):
    """Two methods, on a dataset or over several, and what their effect and its error say.

    Args:
        a: A method.
        b: The other.
        dataset: The dataset; empty for an average over datasets.
        effect: Score of a minus score of b, a fraction.
        parts: The variance of the effect by source.
        seeds: Seeds of a and of b, in the split (and dataset) that has fewest.
        splits: Splits that both have.
        datasets: Datasets that went in.
        few: Whether some class has fewer than ten images or groups: the interval is a hint only.
        note: Why there are too few, or what is not known; empty where there is nothing to say.
        level: Of the interval.
    """

    a: str
    b: str
    dataset: str
    effect: float
    parts: Parts
    seeds: tuple[int, int]
    splits: int
    datasets: int
    few: bool
    note: str
    level: float

    @property
    def interval(self) -> tuple[float | None, float | None]:
        """The bounds of the effect's interval."""
        return self.low, self.high


@dataclass(frozen=True)
class Average:
    """Two methods over several datasets.

    Args:
        here: On these datasets: the unweighted mean of their effects, and what other seeds, images and splits of the
            same datasets would do to it.
        elsewhere: On datasets like these: the same mean, with the datasets taken as a sample of them.
    """

    here: Comparison
    elsewhere: Comparison


def add_up(sources: Iterable[Source]) -> Source:
    """Add independent sources of variance, with the degrees of freedom of Welch and Satterthwaite.

    ``df = (sum v)^2 / sum(v^2 / df)``: F. E. Satterthwaite, Biometrics Bulletin 2 (1946) 110.
    """
    parts = list(sources)
    total = sum(part.variance for part in parts)
    if total == 0:
        return Source(0.0, _MOST_DF)
    doubt = sum((part.variance / total) ** 2 / part.df for part in parts)
    return Source(total, min(_MOST_DF, 1 / doubt) if doubt else _MOST_DF)


@lru_cache(1024)
def quantile(level: float, df: float) -> float:
    """The distance, in standard errors, from an estimate to the bound of its two-sided interval."""
    from scipy.special import stdtrit

    return float(stdtrit(df, (1 + level) / 2))


def judge(effect: float, source: Source | None, level: float) -> Judgement:
    """Say what an effect means.

    Args:
        effect: The effect.
        source: Its variance and degrees of freedom; None where they cannot be estimated.
        level: Of the interval.
    """
    from scipy.special import stdtr

    if source is None:
        return Judgement()
    if source.variance == 0:
        # Without a single image or seed that differs, nothing says how far off the effect may be.
        same = effect == 0
        return Judgement(
            p_better=0.5 if same else None,
            p_value=1.0 if same else None,
            df=source.df,
            error=0.0,
            verdict="not separable" if same else "too few",
        )
    error = math.sqrt(source.variance)
    reach = quantile(level, source.df) * error
    p_better = float(stdtr(source.df, effect / error))
    return Judgement(
        low=effect - reach,
        high=effect + reach,
        p_better=p_better,
        p_value=2 * min(p_better, 1 - p_better),
        df=source.df,
        error=error,
        detectable=reach,
        verdict="separable" if abs(effect) > reach else "not separable",
    )

"""How much a score differs between subgroups of a test split: the gap between the best and the worst of them.

The best and the worst are picked by the very scores that are compared, so that the interval of their difference as of
two groups named beforehand would be too narrow, the more so the more groups there are. Here all differences have
intervals that hold together (max-T over all pairs: T. Hothorn, F. Bretz and P. Westfall, Biometrical Journal 50 (2008)
346): with probability ``level`` every true difference is in its interval, and then the true gap, which is the
largest difference, is between the largest lower and the largest upper bound of all pairs. Each pair's interval comes
from those of the two scores by the method of variance estimates recovery (G. Y. Zou and A. Donner, Statistics in
Medicine 27 (2008) 1693), so that it holds for few positives and for an AUC near 1; the critical value is that of the
largest studentised difference of normal errors with the scores' joint covariance, in which a patient counts once.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import combinations
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from petlbench.data.tasks.base import TaskType
from petlbench.metrics.classification import AUC
from petlbench.metrics.influence import number_groups
from petlbench.metrics.metric import Metric, Numbers
from petlbench.results.predictions import Predictions
from petlbench.statistics.clinical import ClassMetrics, clinical
from petlbench.statistics.runs import Influence
from petlbench.statistics.verdict import quantile

_DRAWS = 10_000
_SEED = 0


@dataclass(frozen=True)
class SubgroupScore:
    """A score of one run on a subgroup.

    Args:
        value: The score.
        interval: Gives its interval of a level.
        influence: What images, or groups, contribute to its error.
        few: Whether fewer than ten are left of one of the sides that it rests on.
    """

    value: float
    interval: Callable[[float], dict[str, Any] | None]
    influence: Influence
    few: bool

    def distances(self, level: float) -> tuple[float, float]:
        """How far the bounds are from the score, at a level.

        Student's t takes the place of the normal distribution, with the degrees of freedom of the variance's estimate:
        far out, where the largest of many differences is judged, few images or patients leave much open. Where images
        share groups, the variance of m groups of the rarest side about their own mean is m - 1 of m parts of the true.
        """
        interval = self.interval(level) or {"low": self.value, "high": self.value}
        wider = quantile(level, self.influence.source().df) / quantile(level, math.inf)
        if len(np.unique(self.influence.units)) < len(self.influence.units):
            groups = max(int(interval.get("positives", 0)), 2)
            wider *= math.sqrt(groups / (groups - 1))
        return (self.value - interval["low"]) * wider, (interval["high"] - self.value) * wider


@dataclass(frozen=True)
class SubgroupMetrics:
    """One class against the rest in a subgroup of a run's test split.

    Args:
        count: Images, or groups, of the subgroup of which it is known whether they are of the class.
        prevalence: The share of the class.
        metrics: Clinical metrics; the threshold is that of the whole validation split.
        auc: The AUC; None where there is none.
    """

    count: int
    prevalence: float
    metrics: ClassMetrics
    auc: SubgroupScore | None


@dataclass(frozen=True)
class Gap:
    """The gap between the best and the worst subgroup.

    Args:
        best: The best subgroup.
        worst: The worst.
        value: The difference of their scores, at least 0.
        low: Lower bound of the true gap; 0 where equal scores explain what is seen.
        high: Upper bound.
        by_chance: The gap that is expected between so many subgroups of such sizes, were their true scores equal.
        level: Of the bounds.
    """

    best: str
    worst: str
    value: float
    low: float
    high: float
    by_chance: float
    level: float


def measure_subgroup(
    val: Predictions, test: Predictions, specificity: float, task: TaskType, numbers: dict[str, int]
) -> dict[int, SubgroupMetrics]:
    """Every class against the rest in a subgroup, by class; with two classes the positive one alone.

    Args:
        val: Predictions on the whole validation split, of which only the thresholds are taken.
        test: Predictions on those test images, or groups, that are in the subgroup.
        specificity: What a threshold shall reach on validation, a fraction.
        task: What a label is.
        numbers: As of `score_subgroup`.
    """
    by_class = {metrics.index: metrics for metrics in clinical(val, test, specificity, task=task)}
    measured = {}
    for index, rows, positive, chances in _sides(test, task):
        if index in by_class:
            logits = np.log(np.maximum(np.stack([1 - chances, chances], axis=1), np.finfo(np.float64).tiny))
            side = replace(test.part(rows), labels=positive.astype(np.int64), logits=logits)
            auc = score_subgroup(side, AUC, numbers)
            measured[index] = SubgroupMetrics(len(rows), float(positive.mean()), by_class[index], auc)
    return measured


def _sides(test: Predictions, task: TaskType) -> Iterator[tuple[int, list[int], NDArray[np.bool_], Numbers]]:
    """Of each class its index, the images of which it is known, whether they are of it, and its probability, (n,)."""
    classes = range(test.logits.shape[1])
    for question in task.questions(test.labels, classes, task.probabilities(test.logits)):
        for option, output in enumerate(question.outputs):
            if output is not None and question.chances is not None:
                yield output, question.rows.tolist(), question.answers == option, question.chances[:, option]


def score_subgroup(predictions: Predictions, metric: Metric, numbers: dict[str, int]) -> SubgroupScore | None:
    """The score of the images of a subgroup; None where it, its interval or its influences are not defined.

    Args:
        predictions: Of the subgroup.
        metric: The score.
        numbers: Numbers of images or groups by name, which all subgroups and runs share; new ones are added.
    """
    labels, logits = predictions.labels, predictions.logits
    value, influences = metric.score(labels, logits), metric.influence(labels, logits)
    interval = partial(_interval, metric, predictions)
    if value is None or influences is None or (stored := interval(0.95)) is None:
        return None
    units = np.array([numbers.setdefault(unit, len(numbers)) for unit in predictions.units], dtype=np.int64)
    groups = len(np.unique(units))
    scale = (groups / max(1, groups - 1)) ** 0.5 if groups < len(units) else 1.0
    return SubgroupScore(value, interval, Influence(units, influences * scale), few=stored["few"])


def _interval(metric: Metric, predictions: Predictions, level: float) -> dict[str, Any] | None:
    labels, units = predictions.labels, number_groups(predictions.groups, len(predictions.labels))
    return None if metric.interval is None else metric.interval(labels, predictions.logits, units, level)


def find_gap(
    scores: Mapping[str, Sequence[SubgroupScore]],
    direction: Literal["higher", "lower"] = "higher",
    level: float = 0.95,
) -> Gap | None:
    """The gap between the best and the worst of several subgroups; None where there are fewer than two.

    Args:
        scores: By subgroup, one score a run; what is compared is their mean over runs.
        direction: Which end of the score is good.
        level: Of the bounds, which are about other images or patients and the same runs.
    """
    if len(scores) < 2:
        return None
    names = list(scores)
    values = np.array([np.mean([one.value for one in scores[name]]) for name in names])
    covariance, gain = _covariance([[one.influence for one in scores[name]] for name in names])
    below, above = (side * gain for side in _distances(scores.values(), level))
    deviation = (below + above) / (2 * quantile(level, math.inf))
    correlation = _correlation(covariance)
    critical, by_chance = _simulate(correlation * np.outer(deviation, deviation), level)
    together = math.erf(critical / math.sqrt(2))
    below, above = (side * gain for side in _distances(scores.values(), together))
    lows, highs = [], []
    for one, other in combinations(range(len(names)), 2):
        better, worse = (one, other) if values[one] >= values[other] else (other, one)
        difference, shared = values[better] - values[worse], correlation[one, other]
        down = _reach(below[better], above[worse], shared)
        up = _reach(above[better], below[worse], shared)
        lows.append(difference - down)
        highs.append(max(difference + up, down - difference))
    order = np.argsort(values if direction == "lower" else -values, kind="stable")
    return Gap(
        best=names[order[0]],
        worst=names[order[-1]],
        value=float(values.max() - values.min()),
        low=max(0.0, float(max(lows))),
        high=float(max(highs)),
        by_chance=by_chance,
        level=level,
    )


def _reach(one: float, other: float, correlation: float) -> float:
    return math.sqrt(max(0.0, one**2 + other**2 - 2 * correlation * one * other))


def _distances(scores: Iterable[Sequence[SubgroupScore]], level: float) -> tuple[Numbers, Numbers]:
    """The distances from each subgroup's score to its bounds, the mean over runs: (V,) each."""
    means = np.array([np.mean([one.distances(level) for one in runs], axis=0) for runs in scores])
    return means[:, 0], means[:, 1]


def _covariance(influences: Sequence[Sequence[Influence]]) -> tuple[Numbers, Numbers]:
    """Covariance (V, V) of the means over runs, and by how much each is less uncertain than a single run's (V,)."""
    count = 1 + max(int(one.units.max(initial=-1)) for runs in influences for one in runs)
    singles = [[np.bincount(one.units, weights=one.values, minlength=count) for one in runs] for runs in influences]
    means = np.stack([np.mean(runs, axis=0) for runs in singles])
    alone = np.array([np.mean([np.sqrt((one**2).sum()) for one in runs]) for runs in singles])
    together = np.sqrt((means**2).sum(axis=1))
    return means @ means.T, np.divide(together, alone, out=np.ones_like(alone), where=alone > 0)


def _correlation(covariance: Numbers) -> Numbers:
    deviation = np.sqrt(np.diag(covariance))
    scale = np.outer(deviation, deviation)
    correlation = np.divide(covariance, scale, out=np.zeros_like(covariance), where=scale > 0)
    np.fill_diagonal(correlation, 1.0)
    return np.asarray(np.clip(correlation, -1, 1))


def _simulate(covariance: Numbers, level: float) -> tuple[float, float]:
    """The critical value of the largest studentised difference, and the mean of the largest less the smallest error."""
    values, vectors = np.linalg.eigh(covariance)
    root = vectors * np.sqrt(np.maximum(values, 0))
    errors = np.random.default_rng(_SEED).normal(size=(_DRAWS, len(covariance))) @ root.T
    largest = np.zeros(_DRAWS)
    for one, other in combinations(range(len(covariance)), 2):
        variance = covariance[one, one] + covariance[other, other] - 2 * covariance[one, other]
        if variance > 0:
            np.maximum(largest, np.abs(errors[:, one] - errors[:, other]) / math.sqrt(variance), out=largest)
    # Of subgroups that do not differ by chance at all, none is picked: the value is that of a single difference.
    critical = max(float(np.quantile(largest, level)), quantile(level, math.inf))
    return critical, float((errors.max(axis=1) - errors.min(axis=1)).mean())

"""What a clinic asks of a classifier: sensitivity at a specificity, precision, and whether probabilities are true."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from petlbench.data.tasks.base import Question, TaskType
from petlbench.data.tasks.multiclass import MULTICLASS
from petlbench.metrics.influence import auc_influences, number_groups
from petlbench.metrics.intervals import FEW, Units, design_effect, share_interval, wilson
from petlbench.metrics.metric import Numbers
from petlbench.results.stored import Predictions
from petlbench.statistics.runs import Influence
from petlbench.statistics.verdict import quantile

_BINS = 10
_RESAMPLES = 1000
_SEED = 0

Truth = NDArray[np.bool_]


@dataclass(frozen=True)
class Estimate:
    """A figure and its interval; None where it is undefined."""

    value: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Bin:
    """Images of about the same predicted probability: its mean, the share that is of the class, that share's bounds."""

    predicted: float
    observed: float
    low: float
    high: float
    count: int


@dataclass(frozen=True)
class ClassMetrics:
    """One class against the rest, on the test split.

    Args:
        index: The class.
        positives: Test images of the class; groups where there are some.
        few: Whether the class or the rest has fewer than ten, so that the intervals are hints only.
        threshold: The probability from which on an image is called positive, chosen on the validation split; None
            where that has no image of the rest.
        sensitivity: At the threshold.
        specificity: At the threshold; on the test split it differs from what was asked for on validation.
        average_precision: Area under the precision-recall curve as a sum.
        brier: Mean squared distance of probability and truth.
        bins: How probabilities compare with what is: bins of equal width that are not empty, the smallest first.
        ece: Expected calibration error: mean distance of predicted and observed over images.
    """

    index: int
    positives: int
    few: bool
    threshold: float | None
    sensitivity: Estimate
    specificity: Estimate
    average_precision: Estimate
    brier: Estimate
    bins: tuple[Bin, ...]
    ece: Estimate


def clinical(
    val: Predictions,
    test: Predictions,
    specificity: float = 0.9,
    level: float = 0.95,
    task: TaskType = MULTICLASS,
) -> list[ClassMetrics]:
    """Compute the clinical metrics of one run.

    Args:
        val: Predictions on the validation split, of which only the thresholds are taken.
        test: Predictions on the test split.
        specificity: What the threshold shall reach on validation, a fraction.
        level: Of the intervals. They are about other test images, not about another threshold.
        task: What a label is.

    Returns:
        With two classes that of the positive class, else one for each class; none where labels are no classes.

    Raises:
        ValueError: A split is empty, a logit is not finite, or the specificity is not a fraction.
    """
    if not 0 <= specificity <= 1:
        raise ValueError(f"the specificity is {specificity}, but it has to be between 0 and 1")
    for name, predictions in (("validation", val), ("test", test)):
        if len(predictions.labels) == 0 or not np.isfinite(predictions.logits).all():
            raise ValueError(f"the {name} split has no images, or logits that are not finite")
    on_val, on_test = (
        task.questions(each.labels, range(each.logits.shape[1]), task.probabilities(each.logits))
        for each in (val, test)
    )
    units = number_groups(test.groups, len(test.labels))
    return [
        _one_class(output, threshold_at(specificity, *_side(before, option)), (*_side(asked, option), own), level)
        for before, asked in zip(on_val, on_test, strict=True)
        for own in [np.unique(units[asked.rows], return_inverse=True)[1]]
        for option, output in enumerate(asked.outputs)
        if output is not None and (option == 1 or len(asked.outputs) > 2) and len(asked.rows)
    ]


def _side(question: Question, option: int) -> tuple[Truth, Numbers]:
    """Whether each image has that answer, (n,), and its probability, (n,)."""
    chances = question.chances
    return question.answers == option, np.empty(0) if chances is None else chances[:, option]


def threshold_at(specificity: float, positive: Truth, probabilities: Numbers) -> float | None:
    """Find the smallest threshold with which at most so many of the rest are called positive.

    Args:
        specificity: The share of the rest that shall be below the threshold.
        positive: Whether each image is of the class, (N,).
        probabilities: Of the class, (N,).

    Returns:
        The threshold: images with at least this probability are called positive. None where there is no rest.
    """
    rest = np.sort(probabilities[~positive])
    if not len(rest):
        return None
    # A hair of tolerance: 0.9 of 10 images is 9, whatever floats make of it.
    below = math.ceil(specificity * len(rest) - 1e-9)
    return 0.0 if below == 0 else float(np.nextafter(rest[below - 1], np.inf))


def _one_class(index: int, threshold: float | None, test: tuple[Truth, Numbers, Units], level: float) -> ClassMetrics:
    positive, probabilities, units = test
    place = np.minimum((probabilities * _BINS).astype(np.int64), _BINS - 1)
    called = probabilities >= (math.inf if threshold is None else threshold)
    sides = [len(np.unique(units[side])) for side in (positive, ~positive)]
    shares = [_NOTHING] * 2
    if threshold is not None:
        shares = [_share(hits[side], units[side], level) for hits, side in ((called, positive), (~called, ~positive))]
    return ClassMetrics(
        index,
        positives=sides[0],
        few=min(sides) < FEW,
        threshold=threshold,
        sensitivity=shares[0],
        specificity=shares[1],
        average_precision=_average_precision(positive, probabilities, units, level),
        brier=_brier(positive, probabilities, units, level),
        bins=_bins(place, positive, probabilities, units, level),
        ece=_ece(place, probabilities - positive, units, level),
    )


_NOTHING = Estimate(None, None, None)


def _share(hits: Truth, units: Units, level: float) -> Estimate:
    if not len(hits):
        return _NOTHING
    low, high, _ = share_interval(hits, units, level)
    return Estimate(float(hits.mean()), low, high)


def _average_precision(positive: Truth, probabilities: Numbers, units: Units, level: float) -> Estimate:
    """The binomial variance over positives (K. Boyd, K. Eng and C. D. Page, ECML 2013), in Wilson's form."""
    from sklearn.metrics import average_precision_score

    if positive.all() or not positive.any():
        return _NOTHING
    value = float(average_precision_score(positive, probabilities))
    _, influences = auc_influences(positive.astype(np.int64), np.stack([-probabilities, probabilities], axis=1))
    effect = design_effect(influences[0], units)
    low, high = wilson(value, positive.sum() / effect, level)
    return Estimate(value, float(low), float(high))


def _brier(positive: Truth, probabilities: Numbers, units: Units, level: float) -> Estimate:
    errors = (probabilities - positive) ** 2
    value, count = float(errors.mean()), len(errors)
    groups = len(np.unique(units))
    scale = math.sqrt(groups / max(groups - 1, 1)) / count
    source = Influence(units, (errors - value) * scale).source()
    reach = quantile(level, source.df) * math.sqrt(source.variance)
    return Estimate(value, max(0.0, value - reach), min(1.0, value + reach))


def _bins(
    place: NDArray[np.int64], positive: Truth, probabilities: Numbers, units: Units, level: float
) -> tuple[Bin, ...]:
    """Ten bins of equal width: C. Guo, G. Pleiss, Y. Sun and K. Q. Weinberger, ICML 2017."""
    bins = []
    for inside in (place == number for number in np.unique(place)):
        low, high, _ = share_interval(positive[inside], units[inside], level)
        mean, share = float(probabilities[inside].mean()), float(positive[inside].mean())
        bins.append(Bin(mean, share, low, high, int(inside.sum())))
    return tuple(bins)


def _ece(place: NDArray[np.int64], gaps: Numbers, units: Units, level: float) -> Estimate:
    """The error and its basic bootstrap interval over groups, which takes off what chance adds to every distance."""
    sums = np.zeros((int(units.max()) + 1, _BINS))
    np.add.at(sums, (units, place), gaps)
    sizes = np.bincount(units).astype(np.float64)
    value = float(np.abs(sums.sum(axis=0)).sum() / len(gaps))
    drawn = np.random.default_rng(_SEED).multinomial(len(sizes), np.full(len(sizes), 1 / len(sizes)), _RESAMPLES)
    errors = np.abs(drawn @ sums).sum(axis=1) / (drawn @ sizes)
    lower, upper = np.quantile(errors, [(1 - level) / 2, (1 + level) / 2])
    return Estimate(value, min(value, max(0.0, 2 * value - float(upper))), max(value, 2 * value - float(lower)))

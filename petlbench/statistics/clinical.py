"""What a clinic asks of a classifier: sensitivity at a specificity, precision, true probabilities, and net benefit."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from petlbench.data.tasks.base import TaskType
from petlbench.data.tasks.multiclass import MULTICLASS
from petlbench.metrics.influence import auc_influences, number_groups
from petlbench.metrics.intervals import FEW, Units, design_effect, share_interval, wilson
from petlbench.metrics.metric import Labels, Logits, Numbers
from petlbench.results.predictions import Predictions
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
class NetBenefit:
    """What acting on a probability of at least the threshold is worth, in true positives an image; none is worth 0.

    A. J. Vickers and E. B. Elkin, Medical Decision Making 26 (2006) 565: ``TP / N - FP / N * t / (1 - t)``.

    Args:
        threshold: The probability t, at which one would be of two minds about acting.
        model: Acting where the model says so.
        treat_all: Acting on every image.
    """

    threshold: float
    model: Estimate
    treat_all: float


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
        decision: The decision curve, a point a threshold.
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
    decision: tuple[NetBenefit, ...]


def clinical(
    val: Predictions,
    test: Predictions,
    specificity: float = 0.9,
    level: float = 0.95,
    *,
    thresholds: Sequence[float] = (),
    task: TaskType = MULTICLASS,
) -> list[ClassMetrics]:
    """Compute the clinical metrics of one run.

    Args:
        val: Predictions on the validation split, of which only the thresholds are taken.
        test: Predictions on the test split.
        specificity: What the threshold shall reach on validation, a fraction.
        level: Of the intervals. They are about other test images, not about another threshold.
        thresholds: Probabilities of the decision curve, each above 0 and below 1.
        task: What a label is.

    Returns:
        With two classes that of the positive class, else one for each class; none where labels are no classes.

    Raises:
        ValueError: A split is empty, a logit is not finite, the specificity is not a fraction, or a threshold none.
    """
    if not 0 <= specificity <= 1:
        raise ValueError(f"the specificity is {specificity}, but it has to be between 0 and 1")
    if not all(0 < threshold < 1 for threshold in thresholds):
        raise ValueError(f"the thresholds are {thresholds}, but each has to be above 0 and below 1")
    for name, predictions in (("validation", val), ("test", test)):
        if len(predictions.labels) == 0 or not np.isfinite(predictions.logits).all():
            raise ValueError(f"the {name} split has no images, or logits that are not finite")
    units, splits = number_groups(test.groups, len(test.labels)), (val, test)
    metrics = []
    for on_val, on_test in zip(*(_sides(each.labels, each.logits, task) for each in splits), strict=True):
        if len(on_test.rows):
            threshold = threshold_at(specificity, on_val.positive, on_val.probabilities)
            own = np.unique(units[on_test.rows], return_inverse=True)[1]
            metrics.append(_one_class(threshold, on_test, own, thresholds, level))
    return metrics


def calibration_errors(labels: Labels, logits: Logits, task: TaskType = MULTICLASS) -> dict[str, float]:
    """Say how far probabilities are from the truth: ``ece`` and ``brier``, means over the classes of `clinical`.

    Args:
        labels: As the task type stores them, of N images, at least 1.
        logits: Finite, (N, C).
        task: What a label is.
    """
    errors: dict[str, list[float]] = {"ece": [], "brier": []}
    for side in (side for side in _sides(labels, logits, task) if len(side.rows)):
        gaps = side.probabilities - side.positive
        errors["ece"].append(np.abs(np.bincount(_place(side.probabilities), weights=gaps)).sum() / len(gaps))
        errors["brier"].append((gaps**2).mean())
    return {name: float(np.mean(values)) for name, values in errors.items()}


@dataclass(frozen=True)
class _Side:
    """A class against the rest.

    Args:
        index: The class.
        rows: The images of which it is known, (n,) positions among N.
        positive: Whether these are of it, (n,).
        probabilities: How probable it is, (n,).
    """

    index: int
    rows: NDArray[np.int64]
    positive: Truth
    probabilities: Numbers


def _sides(labels: Labels, logits: Logits, task: TaskType) -> Iterator[_Side]:
    """Each class or label against the rest; of a question with two answers the second alone."""
    for question in task.questions(labels, range(logits.shape[1]), task.probabilities(logits)):
        for option, output in enumerate(question.outputs):
            if output is not None and (option == 1 or len(question.outputs) > 2) and question.chances is not None:
                yield _Side(output, question.rows, question.answers == option, question.chances[:, option])


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


def _one_class(
    threshold: float | None, test: _Side, units: Units, thresholds: Sequence[float], level: float
) -> ClassMetrics:
    positive, probabilities = test.positive, test.probabilities
    place = _place(probabilities)
    called = probabilities >= (math.inf if threshold is None else threshold)
    sides = [len(np.unique(units[side])) for side in (positive, ~positive)]
    shares = [_NOTHING] * 2
    if threshold is not None:
        shares = [_share(hits[side], units[side], level) for hits, side in ((called, positive), (~called, ~positive))]
    return ClassMetrics(
        test.index,
        positives=sides[0],
        few=min(sides) < FEW,
        threshold=threshold,
        sensitivity=shares[0],
        specificity=shares[1],
        average_precision=_average_precision(positive, probabilities, units, level),
        brier=_mean((probabilities - positive) ** 2, units, level, (0.0, 1.0)),
        bins=_bins(place, positive, probabilities, units, level),
        ece=_ece(place, probabilities - positive, units, level),
        decision=_decision(positive, probabilities, units, thresholds, level),
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


def _mean(values: Numbers, units: Units, level: float, bounds: tuple[float, float]) -> Estimate:
    """The mean of what images have, between its bounds, with Student's interval over groups."""
    mean, count = float(values.mean()), len(values)
    groups = len(np.unique(units))
    scale = math.sqrt(groups / max(groups - 1, 1)) / count
    source = Influence(units, (values - mean) * scale).source()
    reach = quantile(level, source.df) * math.sqrt(source.variance)
    return Estimate(mean, max(bounds[0], mean - reach), min(bounds[1], mean + reach))


def _decision(
    positive: Truth, probabilities: Numbers, units: Units, thresholds: Sequence[float], level: float
) -> tuple[NetBenefit, ...]:
    """Net benefit is a mean over images: 1 of a true positive, the odds of the threshold less of a false one."""
    curve = []
    for threshold in thresholds:
        odds = threshold / (1 - threshold)
        worth = np.where(positive, 1.0, -odds)
        model = _mean(np.where(probabilities >= threshold, worth, 0.0), units, level, (-odds, 1.0))
        curve.append(NetBenefit(threshold, model, float(worth.mean())))
    return tuple(curve)


def _place(probabilities: Numbers) -> NDArray[np.int64]:
    """The bin of each image."""
    return np.minimum((probabilities * _BINS).astype(np.int64), _BINS - 1)


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

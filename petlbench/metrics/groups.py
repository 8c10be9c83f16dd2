"""The group (the patient) as the unit: one label and one prediction of all of a group's images.

The probabilities of a group's images become the group's by one of three rules (J. Kittler, M. Hatef, R. P. W. Duin and
J. Matas, IEEE PAMI 20 (1998) 226; O. Maron and T. Lozano-Perez, NIPS 1997, for the noisy or):

- ``mean``: the mean over images;
- ``max``: the largest of the images;
- ``noisy_or``: ``1 - prod(1 - p)``, the probability that it holds of one image at least, were images independent.

What ``p`` is follows from what a group's label is, so that label and prediction speak of the same event: a
`GroupRule` of the task type. What comes out are logits again, whose softmax (of several labels: sigmoid) is the group's
probabilities, so that every score, interval and comparison takes groups as it takes images.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from petlbench.metrics.classification import softmax
from petlbench.metrics.influence import number_groups
from petlbench.metrics.metric import Labels, Logits, Numbers

Aggregate = Literal["mean", "max", "noisy_or"]
AGGREGATES: tuple[Aggregate, ...] = get_args(Aggregate)

_SMALLEST = np.finfo(np.float64).tiny
"""Stands for a probability of zero, which has no logarithm."""
_LARGEST = 1 - np.finfo(np.float64).epsneg
"""Stands for a probability of one, whose complement has none."""


@dataclass(frozen=True)
class Members:
    """Which images are a group's.

    Args:
        units: The number of each image's group, (N,), from 0 without gaps.
    """

    units: NDArray[np.int64]

    @cached_property
    def _order(self) -> NDArray[np.int64]:
        return np.argsort(self.units, kind="stable")

    @cached_property
    def first(self) -> NDArray[np.int64]:
        """The position of each group's first image, (G,)."""
        return np.asarray(self._order[self._starts])

    @cached_property
    def _starts(self) -> NDArray[np.int64]:
        return np.searchsorted(self.units[self._order], np.arange(int(self.units.max(initial=-1)) + 1))

    @cached_property
    def sizes(self) -> NDArray[np.int64]:
        """The number of each group's images, (G,)."""
        return np.bincount(self.units)

    def reduce(self, function: np.ufunc, values: NDArray[Any]) -> NDArray[Any]:
        """Put the values of each group's images, (N, ...), together: (G, ...)."""
        return np.asarray(function.reduceat(values[self._order], self._starts, axis=0))

    def mean(self, values: NDArray[Any]) -> Numbers:
        """The mean of each group's images, (G, ...), of values (N, ...)."""
        sums = self.reduce(np.add, values.astype(np.float64))
        return np.asarray(sums / self.sizes.reshape(-1, *[1] * (values.ndim - 1)))


@dataclass(frozen=True)
class GroupRule:
    """What the label and the prediction of a group are, of a task's.

    Args:
        words: What a group's label is, in words.
        labels: From labels (N, ...) to those of groups (G, ...), and whether each group has one (G,).
        logits: From logits (N, C), in float64 and finite, to those of groups (G, C).
        aggregates: The rules that there are for such predictions.
    """

    words: str
    labels: Callable[[Labels, Members], tuple[Labels, NDArray[np.bool_]]]
    logits: Callable[[Numbers, Members, Aggregate], Numbers]
    aggregates: tuple[Aggregate, ...] = AGGREGATES


@dataclass(frozen=True)
class ByGroup:
    """Groups as scores take images; an image without a group is one of its own.

    Args:
        rows: The position of each group's first image, (G,).
        labels: Labels of groups, (G, ...).
        logits: Logits of groups, (G, C), float64.
        ambiguous: How many groups are left out, since the labels of their images differ and none stands for all.
    """

    rows: NDArray[np.int64]
    labels: Labels
    logits: Numbers
    ambiguous: int


def by_group(
    labels: Labels, logits: Logits, groups: Sequence[str | None], rule: GroupRule, aggregate: Aggregate = "mean"
) -> ByGroup | None:
    """Labels and logits of groups; None where no image's group is known.

    Args:
        labels: Labels of images, (N, ...).
        logits: Logits of images, (N, C).
        groups: The group of each image, N of them; None for an image without one.
        rule: The task type's.
        aggregate: How the probabilities of a group's images become the group's.

    Raises:
        ValueError: When the task has no such rule for its predictions.
    """
    if aggregate not in rule.aggregates:
        raise ValueError(f"predictions of this task are not put together by {aggregate}")
    if all(group is None for group in groups):
        return None
    members = Members(number_groups(groups, len(labels)))
    exact = logits.astype(np.float64)
    # A score of what is not finite is undefined, for groups as for images.
    values = rule.logits(exact, members, aggregate) if np.isfinite(exact).all() else members.mean(exact * np.nan)
    together, has_label = rule.labels(labels, members)
    return ByGroup(members.first[has_label], together[has_label], values[has_label], int((~has_label).sum()))


def _most_severe(labels: Labels, members: Members) -> tuple[Labels, NDArray[np.bool_]]:
    return members.reduce(np.maximum, labels), np.ones(len(members.sizes), dtype=bool)


def _of_the_most_severe(logits: Numbers, members: Members, aggregate: Aggregate) -> Numbers:
    """Logits of groups whose label is the largest of their images'.

    ``p`` is the probability that a label is class k or a later one. Of the largest label under ``noisy_or`` that is the
    distribution, were images independent; with two classes ``p`` is the probability of the positive one.
    """
    probabilities = softmax(logits)
    if aggregate == "mean":
        return _log(members.mean(probabilities))
    reached = np.cumsum(probabilities[:, ::-1], axis=1)[:, ::-1][:, 1:]
    missed = np.cumsum(probabilities, axis=1)[:, :-1]
    # Of two complements the smaller one is exact.
    log_missed = np.where(reached < 0.5, np.log1p(-np.minimum(reached, 0.5)), _log(missed))
    log_missed = members.reduce(np.minimum if aggregate == "max" else np.add, log_missed)
    edges = np.zeros((len(log_missed), 1))
    missed = np.concatenate([edges, np.exp(log_missed), edges + 1], axis=1)
    reached = np.concatenate([edges + 1, -np.expm1(log_missed), edges], axis=1)
    shares = np.where(reached[:, :-1] < 0.5, -np.diff(reached, axis=1), np.diff(missed, axis=1))
    # A class between two others is a difference, and known no better than to a rounding error.
    shares[:, 1:-1] = np.maximum(shares[:, 1:-1], np.finfo(np.float64).eps)
    return _log(shares)


def _unanimous(labels: Labels, members: Members) -> tuple[Labels, NDArray[np.bool_]]:
    largest = members.reduce(np.maximum, labels)
    return largest, largest == members.reduce(np.minimum, labels)


def _of_each_class(logits: Numbers, members: Members, aggregate: Aggregate) -> Numbers:
    """Logits of groups of one class, classes without an order: each class by itself, and all of them a sum of one."""
    probabilities = softmax(logits)
    if aggregate == "mean":
        return _log(members.mean(probabilities))
    if aggregate == "max":
        together = members.reduce(np.maximum, probabilities)
    else:
        together = -np.expm1(members.reduce(np.add, np.log1p(-np.minimum(probabilities, _LARGEST))))
    return _log(together / together.sum(axis=1, keepdims=True))


def _any_label(labels: Labels, members: Members) -> tuple[Labels, NDArray[np.bool_]]:
    """Labels of groups, (G, C): 1 where one image has it, 0 where no image has, NaN where that is not known."""
    known = members.reduce(np.fmax, labels)
    together = np.where(known == 1, known, members.reduce(np.maximum, labels))
    return together, np.ones(len(members.sizes), dtype=bool)


def _of_each_label(logits: Numbers, members: Members, aggregate: Aggregate) -> Numbers:
    """Logits of groups, (G, C), before the sigmoid; ``p`` is the probability of each label."""
    from scipy.special import expit

    if aggregate == "max":
        return members.reduce(np.maximum, logits)
    if aggregate == "mean":
        return _log(members.mean(expit(logits))) - _log(members.mean(expit(-logits)))
    log_missed = members.reduce(np.add, -np.logaddexp(0, logits))
    return np.asarray(_log(-np.expm1(log_missed)) - log_missed)


def _mean_label(labels: Labels, members: Members) -> tuple[Labels, NDArray[np.bool_]]:
    return members.mean(labels), np.ones(len(members.sizes), dtype=bool)


def _mean_value(values: Numbers, members: Members, _aggregate: Aggregate) -> Numbers:
    return members.mean(values)


def _log(probabilities: Numbers) -> Numbers:
    return np.asarray(np.log(np.maximum(probabilities, _SMALLEST)))


MOST_SEVERE = GroupRule(
    "the latest class of its images: positive where one image is", _most_severe, _of_the_most_severe
)
UNANIMOUS = GroupRule("that of its images; a group whose images differ is left out", _unanimous, _of_each_class)
ANY_LABEL = GroupRule("every label that one of its images has", _any_label, _of_each_label)
MEAN_NUMBER = GroupRule("the mean of its images'", _mean_label, _mean_value, ("mean",))

"""One number an image, such as an age or a pressure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from petlbench.core.errors import InputError
from petlbench.data.tasks.base import Answer, Labels, Question, Scale, TaskType
from petlbench.metrics.groups import MEAN_NUMBER
from petlbench.metrics.regression import REGRESSION_METRICS, count_values

_NAME = "value"
"""What the number is called where no card names it."""
_LEAST_STD = 2.0**-16
"""Of labels' standard deviation over their mean: single precision has 24 bits, so that 8 are left for differences."""
_MOST = 1e30
"""Far below what single precision holds, so that predictions stay finite."""
_STRATUM = 20
"""Images of a stratum, at least; there are at most ten."""


class Numbers(Labels):
    """A number; the one "class" of a dataset says what it is."""

    def __init__(self) -> None:
        super().__init__(most=1, least=1, form="value")

    def names(self, text: str) -> tuple[str, ...]:
        """Return no class: a number names none."""
        return ()

    def found(self, texts: Iterable[str], declared: Sequence[str] | None) -> Iterable[str]:
        """Return what the card calls the number."""
        return declared or (_NAME,)

    def parse(self, text: str, classes: Sequence[str]) -> float:
        """Return the number.

        Raises:
            InputError: When it is none, or not finite.
        """
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not math.isfinite(value):
            hint = "leave its image out: --set dataset.leave_out=LABEL"
            raise InputError(f"the label '{text}' is no finite number", hint=hint, kind="unknown_label")
        return value

    def text(self, label: float, classes: Sequence[str]) -> str:
        """Return the number as `parse` reads it."""
        return repr(float(label))

    def from_array(self, array: NDArray[Any], classes: Sequence[str]) -> list[float]:
        """Return the numbers of an array, (N,) or (N, 1).

        Raises:
            InputError: When it has another shape, or a number is not finite.
        """
        if not array.ndim or array.shape[1:] not in ((), (1,)) or array.dtype.kind not in "iuf":
            raise InputError(f"is {array.dtype} of shape {array.shape}, not one number an image", kind="bad_npz")
        if not np.isfinite(array).all():
            position = int(np.flatnonzero(~np.isfinite(array.ravel()))[0])
            raise InputError(f"has no finite number at position {position}", kind="unknown_label")
        return [float(value) for value in array.ravel()]

    def to_array(self, labels: Sequence[float]) -> NDArray[np.float64]:
        """Return the numbers, (N,)."""
        return np.array(labels, dtype=np.float64)

    def written(self, label: float) -> float:
        """Return the number."""
        return label

    def positions(self, label: float) -> tuple[int, ...]:
        """Return the position of what every image has a number of."""
        return (0,)

    def renumbered(self, label: float, order: Sequence[int], classes: int) -> float:
        """Return the number: there is one kind."""
        return label


def _strata(labels: Sequence[float]) -> NDArray[np.bool_]:
    """Return in which tenth of the numbers each image is, or in which of fewer parts where there are few images."""
    parts = min(10, max(1, len(labels) // _STRATUM))
    ranks = np.argsort(np.argsort(np.array(labels, dtype=np.float64), kind="stable"), kind="stable")
    return np.eye(parts, dtype=bool)[ranks * parts // max(len(labels), 1)]


def _scale(labels: NDArray[np.float64]) -> Scale:
    """Return the mean and the standard deviation of the training labels.

    Raises:
        InputError: When they are all the same, or single precision does not tell them apart.
    """
    with np.errstate(over="ignore"):
        mean, std = float(labels.mean()), float(labels.std())
    if not std > 0:
        message = f"all training images have the label {mean:g}, so there is nothing to learn"
        raise InputError(message, hint="give images of other labels", kind="too_few_classes")
    if not _LEAST_STD * abs(mean) < std < _MOST:
        message = f"the labels of the training images, {mean:g} ± {std:g}, are not told apart in single precision"
        hint = "write them in another unit, or less what all have in common"
        raise InputError(message, hint=hint, kind="bad_label")
    return Scale(mean, std)


def _no_questions(
    labels: NDArray[Any], classes: Sequence[object], probabilities: NDArray[Any] | None = None
) -> list[Question]:
    return []


REGRESSION = TaskType(
    name="regression",
    title="regression",
    labels=Numbers(),
    loss="huber",
    activation=lambda logits: logits.clone(),
    probabilities=lambda logits: logits.astype(np.float64),
    metrics=REGRESSION_METRICS,
    selection="mae",
    strata=_strata,
    count=count_values,
    balanced=None,
    questions=_no_questions,
    answer=Answer("prediction", lambda values, classes: float(values[0]), values="values", fractions=False),
    scale=_scale,
    groups=MEAN_NUMBER,
)

"""Several labels an image: each of them 1, 0, or not known."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from petlbench.core.errors import InputError
from petlbench.data.tasks.base import Answer, Labels, Question, TaskType
from petlbench.metrics.groups import ANY_LABEL
from petlbench.metrics.multilabel import MULTILABEL_METRICS, count_labels, sigmoid

SEPARATOR = "|"
"""Between the names in a label that is written as text; none are named where an image has none."""
UNKNOWN = "?"
"""In front of the name of a label of which it is not known whether an image has it."""

_DIGITS = {0: "0", 1: "1", None: UNKNOWN}


class MultiLabels(Labels):
    """A tuple with 1, 0 or None (not known) for each class; written as ``edema|?mass``."""

    def __init__(self) -> None:
        super().__init__(least=1, form="labels")

    def refuse_classes(self, classes: Sequence[str]) -> str:
        """Say what is wrong with a card's classes: there are none, or a name cannot be written in a label."""
        wrong = next((name for name in classes if SEPARATOR in name or name.startswith(UNKNOWN)), None)
        if wrong is not None:
            return f"has a class '{wrong}', and '{SEPARATOR}' and a '{UNKNOWN}' in front mean something in its labels"
        return super().refuse_classes(classes)

    def names(self, text: str) -> tuple[str, ...]:
        """Return the classes that a label names, as known or not."""
        return tuple(name.removeprefix(UNKNOWN) for name in text.split(SEPARATOR) if name)

    def parse(self, text: str, classes: Sequence[str]) -> tuple[int | None, ...]:
        """Return the label that is written so: 0 for each class that it does not name."""
        values: list[int | None] = [0] * len(classes)
        for name in filter(None, text.split(SEPARATOR)):
            values[classes.index(name.removeprefix(UNKNOWN))] = None if name.startswith(UNKNOWN) else 1
        return tuple(values)

    def text(self, label: tuple[int | None, ...], classes: Sequence[str]) -> str:
        """Return a label as `parse` reads it."""
        marks = {1: "", None: UNKNOWN}
        return SEPARATOR.join(marks[value] + name for value, name in zip(label, classes, strict=True) if value != 0)

    def from_array(self, array: NDArray[Any], classes: Sequence[str]) -> list[tuple[int | None, ...]]:
        """Return the labels that an array (N, C) of 0, 1 and, for what is not known, NaN holds.

        Raises:
            InputError: When it has another shape, or another value.
        """
        if array.ndim != 2 or array.shape[1] != len(classes) or array.dtype.kind not in "biuf":
            message = f"is {array.dtype} of shape {array.shape}, not one number for each of {len(classes)} labels"
            raise InputError(message, kind="bad_npz")
        values = array.astype(np.float64)
        strange = np.argwhere(~(np.isin(values, (0, 1)) | np.isnan(values)))
        if len(strange):
            row, column = strange[0]
            message = f"has {values[row, column]:g} for '{classes[column]}' at position {row}, which is neither 0 nor 1"
            raise InputError(message, kind="unknown_label")
        return [tuple(None if np.isnan(value) else int(value) for value in row) for row in values.tolist()]

    def to_array(self, labels: Sequence[tuple[int | None, ...]]) -> NDArray[np.float64]:
        """Return labels as (N, C), NaN for what is not known."""
        values = [[np.nan if value is None else value for value in label] for label in labels]
        return np.array(values, dtype=np.float64).reshape(len(values), -1 if values else 0)

    def written(self, label: tuple[int | None, ...]) -> str:
        """Return a label as the manifest has it, such as ``10?``."""
        return "".join(_DIGITS[value] for value in label)

    def positions(self, label: tuple[int | None, ...]) -> tuple[int, ...]:
        """Return the classes that an image is known to have."""
        return tuple(position for position, value in enumerate(label) if value == 1)

    def renumbered(self, label: tuple[int | None, ...], order: Sequence[int], classes: int) -> tuple[int | None, ...]:
        """Return the same label after class i has become class ``order[i]``; of new classes nothing is known."""
        values: list[int | None] = [None] * classes
        for position, value in zip(order, label, strict=True):
            values[position] = value
        return tuple(values)


def _strata(labels: Sequence[tuple[int | None, ...]]) -> NDArray[np.bool_]:
    """Return which labels each image has, and a stratum of all images: those without a label are dealt out by it."""
    positive = np.array([[value == 1 for value in label] for label in labels], dtype=bool).reshape(len(labels), -1)
    return np.concatenate([positive, np.ones((len(labels), 1), dtype=bool)], axis=1)


def _positive_weights(labels: NDArray[np.float64], classes: int) -> NDArray[np.float64]:
    """Return images without a label over images with it, by label, (C,): what its positive side weighs; 1 without."""
    positive, negative = (labels == 1).sum(axis=0), (labels == 0).sum(axis=0)
    return np.asarray(np.divide(negative, positive, out=np.ones(classes), where=positive > 0))


def _which_labels(
    labels: NDArray[np.float64], classes: Sequence[object], probabilities: NDArray[np.float64] | None = None
) -> list[Question]:
    questions = []
    for column, name in enumerate(classes):
        rows = np.flatnonzero(~np.isnan(labels[:, column]))
        chances = None if probabilities is None else np.stack([1 - (p := probabilities[rows, column]), p], axis=1)
        questions.append(Question(rows, labels[rows, column].astype(np.int64), (None, column), str(name), chances))
    return questions


def _likely(probabilities: NDArray[np.float64], classes: Sequence[str]) -> str:
    return SEPARATOR.join(name for name, value in zip(classes, probabilities.tolist(), strict=True) if value > 0.5)


MULTILABEL = TaskType(
    name="multilabel",
    title="multi-label",
    labels=MultiLabels(),
    loss="binary_cross_entropy",
    activation=lambda logits: logits.sigmoid(),
    probabilities=sigmoid,
    metrics=MULTILABEL_METRICS,
    strata=_strata,
    count=count_labels,
    balanced=_positive_weights,
    questions=_which_labels,
    answer=Answer("labels", _likely),
    groups=ANY_LABEL,
)

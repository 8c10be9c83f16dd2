"""What a task type is: what a label is, and what follows from it for splits, training and scores."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from petlbench.core.catalog import Catalog
from petlbench.core.entry import Card, Kind
from petlbench.core.errors import InputError

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from petlbench.data.card import DatasetCard
    from petlbench.metrics.groups import GroupRule

__all__ = ["NOT_YET", "Label", "Labels", "TaskType", "class_strata", "task_of"]

Label = Any
"""The label of one image as its task type stores it: the position of its class; several of 0, 1, None; or a number."""

NOT_YET = {"multilabel": "has several labels an image"}
"""Tasks that a card may have although no file defines them: what is known of such a dataset can be shown."""


@dataclass(frozen=True)
class Labels:
    """How the labels of a task are written in tables, checked and stored.

    As they stand, labels are one class an image: the position of the class. A task with other labels overrides what
    differs.

    Args:
        most: The most classes that there can be; None for any number.
    """

    most: int | None = None

    def refuse_classes(self, classes: Sequence[str]) -> str:
        """Say what is wrong with a card's classes, such as ``has 2 classes, not 3``; empty where nothing is."""
        if len(classes) < 2 or (self.most is not None and len(classes) > self.most):
            return f"has {'2 classes' if self.most == 2 else 'at least 2 classes'}, not {len(classes)}"
        return ""

    def names(self, text: str) -> tuple[str, ...]:
        """Return the class names in a label as tables write it."""
        return (text,)

    def parse(self, text: str, classes: Sequence[str]) -> Label:
        """Return the label that a table's cell writes so; every one of the cell's `names` is a class."""
        return classes.index(text)

    def from_array(self, array: NDArray[Any], classes: Sequence[str]) -> list[Label]:
        """Return the labels that an array holds.

        Args:
            array: One row an image; as it stands whole numbers, (N,) or (N, 1).
            classes: Class names.

        Raises:
            InputError: When it has another shape or type, or a label is none of the task's.
        """
        if not array.ndim or array.shape[1:] not in ((), (1,)) or array.dtype.kind not in "iu":
            raise InputError(f"is {array.dtype} of shape {array.shape}, not one whole number an image", kind="bad_npz")
        labels = [int(label) for label in array.ravel()]
        for position, label in enumerate(labels):
            if not 0 <= label < len(classes):
                raise InputError(
                    f"has the label {label} at position {position}, but the {len(classes)} classes are 0 to "
                    f"{len(classes) - 1}",
                    kind="unknown_label",
                )
        return labels

    def to_array(self, labels: Sequence[Label]) -> NDArray[Any]:
        """Return labels as the loss and the metrics take them: (N,), int64; other tasks' (N, C) or of floats."""
        import numpy as np

        return np.array(labels, dtype=np.int64)

    def written(self, label: Label) -> int | float | str:
        """Return a label as the manifest has it."""
        position: int = label
        return position

    def positions(self, label: Label) -> tuple[int, ...]:
        """Return the positions of the classes as whose image one with this label counts."""
        return (label,)

    def renumbered(self, label: Label, order: Sequence[int]) -> Label:
        """Return the same label after class i has become class ``order[i]``."""
        return order[label]


def class_strata(labels: Sequence[int]) -> NDArray[Any]:
    """Return which class each of N images has, (N, C): the strata of what has one class an image."""
    import numpy as np

    positions = np.array(labels, dtype=np.int64)
    return np.eye(int(positions.max(initial=-1)) + 1, dtype=bool)[positions]


def _unanimous() -> GroupRule:
    from petlbench.metrics.groups import UNANIMOUS

    return UNANIMOUS


@dataclass(frozen=True)
class TaskType(Card):
    """What a label is, and what follows from it; as far as nothing else is given, for one class an image.

    Args:
        labels: How labels are written, checked and stored.
        loss: Name of the loss that is minimised where none is named, in the registry of losses.
        activation: From logits (B, C) to the probabilities or values (B, C) that predictions show.
        metrics: Names of the metrics that apply, in the order of tables.
        selection: Name of the metric by which the best epoch is chosen.
        ordered: Whether the classes stand in an order, as grades do: kappa then has quadratic weights.
        strata: From the labels of N images to what a split balances: (N, K), whether image n counts in stratum k.
            Where every image counts in one, splits are stratified by it; where in several, iteratively.
        groups: What label and prediction a group (a patient) of images has.
    """

    kind: ClassVar[Kind] = "task"

    labels: Labels = field(default_factory=Labels)
    loss: str = "cross_entropy"
    activation: Callable[[Tensor], Tensor] = lambda logits: logits.softmax(dim=-1)
    metrics: tuple[str, ...] = ("auc", "auc_logits", "accuracy", "balanced_accuracy", "f1", "kappa", "loss")
    selection: str = "auc"
    ordered: bool = False
    strata: Callable[[Sequence[Label]], NDArray[Any]] = class_strata
    groups: GroupRule = field(default_factory=_unanimous)


def task_of(name: str, card: DatasetCard, catalog: Catalog) -> TaskType:
    """Return the task type of a dataset with that short name and card.

    Raises:
        InputError: When no file defines that task type yet, or one that does cannot be imported.
    """
    tasks = catalog.entries("task")
    if card.task in NOT_YET and card.task not in tasks:
        *others, last = tasks
        raise InputError(
            f"the dataset '{name}' {NOT_YET[card.task]}, which petlbench cannot train on yet",
            hint=f"choose a dataset whose task is {', '.join(others)} or {last}",
            kind="unsupported_task",
        )
    return catalog.load("task", card.task, TaskType)

"""What a task type is: what a label is, and what follows from it for splits, training and scores."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar

from petlbench.core.catalog import Catalog
from petlbench.core.entry import Card, Kind
from petlbench.core.errors import InputError

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from petlbench.data.card import DatasetCard
    from petlbench.metrics.groups import GroupRule
    from petlbench.metrics.metric import Metric


Label = Any
"""The label of one image as its task type stores it: the position of its class; several of 0, 1, None; or a number."""


@dataclass(frozen=True)
class Labels:
    """How the labels of a task are written in tables, checked and stored.

    As they stand, labels are one class an image: the position of the class. A task with other labels overrides what
    differs.

    Args:
        most: The most classes that there can be; None for any number.
        least: The fewest.
        form: What `to_array` gives, by name: losses and metrics say which form they take. ``class``: the position of
            a class, (N,).
    """

    most: int | None = None
    least: int = 2
    form: str = "class"

    @property
    def exclusive(self) -> bool:
        """Whether an image has one class and no other."""
        return self.form == "class"

    def refuse_classes(self, classes: Sequence[str]) -> str:
        """Say what is wrong with a card's classes, such as ``has 2 classes, not 3``; empty where nothing is."""
        if len(classes) < self.least or (self.most is not None and len(classes) > self.most):
            least = "" if self.least == self.most else "at least "
            return f"has {least}{self.least} class{'' if self.least == 1 else 'es'}, not {len(classes)}"
        return ""

    def found(self, texts: Iterable[str], declared: Sequence[str] | None) -> Iterable[str]:
        """Return the classes of labels that are written so; `declared` are those of the card, where there is one."""
        return (name for text in texts for name in self.names(text))

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

    def text(self, label: Label, classes: Sequence[str]) -> str:
        """Return a label as `parse` reads it."""
        return classes[label]

    def to_array(self, labels: Sequence[Label]) -> NDArray[Any]:
        """Return labels as the loss and the metrics take them: (N,), int64; other tasks' (N, C) or (N,), float64."""
        import numpy as np

        return np.array(labels, dtype=np.int64)

    def written(self, label: Label) -> int | float | str:
        """Return a label as the manifest has it."""
        position: int = label
        return position

    def positions(self, label: Label) -> tuple[int, ...]:
        """Return the positions of the classes as whose image one with this label counts."""
        return (label,)

    def renumbered(self, label: Label, order: Sequence[int], classes: int) -> Label:
        """Return the same label after class i has become class ``order[i]`` of so many classes."""
        return order[label]


@dataclass(frozen=True)
class Question:
    """What can be asked of images and has one answer of several: which class it is, or whether it has a label.

    Args:
        rows: The images whose answer is known, (n,) positions among N.
        answers: Their answers, (n,), each the position of an option.
        outputs: For each option the output of the model that speaks for it; None for the absence of something.
        name: What is asked for; empty where nothing else is.
        chances: Probability of each option, (n, options); None where no model has spoken.
    """

    rows: NDArray[Any]
    answers: NDArray[Any]
    outputs: tuple[int | None, ...]
    name: str = ""
    chances: NDArray[Any] | None = None


@dataclass(frozen=True)
class Answer:
    """How predictions are shown.

    Args:
        key: Heading of what is said of an image.
        say: From the shown values of an image, (C,), and the names of the outputs to what is said of it.
        values: Heading of the values; columns are called after the word without its ending: ``probability_CLASS``.
        fractions: Whether the values are fractions, shown in percent.
    """

    key: str
    say: Callable[[NDArray[Any], Sequence[str]], str | float]
    values: str = "probabilities"
    fractions: bool = True

    @property
    def value(self) -> str:
        """The heading of one value."""
        return {"probabilities": "probability"}.get(self.values, self.values.removesuffix("s"))


@dataclass(frozen=True)
class Scale:
    """What a module's outputs are in, and the labels' own unit: label = mean + std * output.

    Args:
        mean: Mean of the training labels.
        std: Their standard deviation.
    """

    mean: float
    std: float

    def to_outputs(self, labels: Tensor) -> Tensor:
        """Return labels as the module is to say them."""
        return (labels - self.mean) / self.std

    def to_labels(self, outputs: Tensor) -> Tensor:
        """Return outputs in the labels' own unit."""
        return outputs * self.std + self.mean


def class_strata(labels: Sequence[int]) -> NDArray[Any]:
    """Return which class each of N images has, (N, C): the strata of what has one class an image."""
    import numpy as np

    positions = np.array(labels, dtype=np.int64)
    return np.eye(int(positions.max(initial=-1)) + 1, dtype=bool)[positions]


def _unanimous() -> GroupRule:
    from petlbench.metrics.groups import UNANIMOUS

    return UNANIMOUS


def _softmax(logits: NDArray[Any]) -> NDArray[Any]:
    from petlbench.metrics.classification import softmax

    return softmax(logits)


def _count_classes(labels: NDArray[Any], logits: NDArray[Any]) -> dict[str, Any]:
    from petlbench.metrics.classification import count_classes

    return count_classes(labels, logits)


def _balanced(labels: NDArray[Any], classes: int) -> NDArray[Any]:
    """Return N / (C n_c) for N labels, as scikit-learn's ``balanced``, float32; zero without images."""
    import numpy as np

    counts = np.bincount(labels, minlength=classes)
    shares = np.float32(len(labels)) / (classes * np.maximum(counts, 1)).astype(np.float32)
    return np.where(counts > 0, shares, np.float32(0))


def _which_class(
    labels: NDArray[Any], classes: Sequence[str], probabilities: NDArray[Any] | None = None
) -> list[Question]:
    import numpy as np

    return [Question(np.arange(len(labels)), labels, tuple(range(len(classes))), chances=probabilities)]


def _most_probable(probabilities: NDArray[Any], classes: Sequence[str]) -> str:
    return classes[int(probabilities.argmax())]


@dataclass(frozen=True)
class TaskType(Card):
    """What a label is, and what follows from it; as far as nothing else is given, for one class an image.

    A model has one output for each of a dataset's classes, C of them. "Labels" are arrays as `Labels.to_array` gives.

    Args:
        labels: How labels are written, checked and stored.
        loss: Name of the loss that is minimised where none is named, in the registry of losses.
        activation: From logits (B, C) to the probabilities or values (B, C) that exported models give.
        probabilities: The same on arrays in float64, (N, C): what `predict` and reports show.
        metrics: The metrics that apply, in the order of tables: names in the catalogue, or rows where the task has a
            form of its own of a score with that name.
        selection: Name of the metric by which the best epoch is chosen.
        ordered: Whether the classes stand in an order, as grades do: kappa then has quadratic weights.
        strata: From the labels of N images to what a split balances: (N, K), whether image n counts in stratum k.
            Where every image counts in one, splits are stratified by it; where in several, iteratively.
        groups: What label and prediction a group (a patient) of images has.
        count: From labels and logits (N, C) to what a result has beside the scores; raises ValueError where they do
            not fit.
        balanced: From the training labels and C to the weights (C,) of ``--class-weights balanced``; None where that
            means nothing.
        questions: From labels, class names and the `probabilities` (N, C), or None, to what can be asked of the
            images: audits try trivial classifiers on it, clinical reports draw a threshold in it.
        answer: How predictions are shown.
        scale: From the training labels to the scale of the outputs; None for outputs that are logits.
    """

    kind: ClassVar[Kind] = "task"

    labels: Labels = field(default_factory=Labels)
    loss: str = "cross_entropy"
    activation: Callable[[Tensor], Tensor] = lambda logits: logits.softmax(dim=-1)
    probabilities: Callable[[NDArray[Any]], NDArray[Any]] = _softmax
    metrics: tuple[str | Metric, ...] = (
        "auc",
        "auc_logits",
        "accuracy",
        "balanced_accuracy",
        "f1",
        "kappa",
        "loss",
    )
    selection: str = "auc"
    ordered: bool = False
    strata: Callable[[Sequence[Label]], NDArray[Any]] = class_strata
    groups: GroupRule = field(default_factory=_unanimous)
    count: Callable[[NDArray[Any], NDArray[Any]], dict[str, Any]] = _count_classes
    balanced: Callable[[NDArray[Any], int], NDArray[Any]] | None = _balanced
    questions: Callable[..., list[Question]] = _which_class
    answer: Answer = field(default_factory=lambda: Answer("class", _most_probable))
    scale: Callable[[NDArray[Any]], Scale | None] = lambda labels: None


def metrics_of(task: TaskType, catalog: Catalog) -> tuple[Metric, ...]:
    """Return the metrics that apply to a task type, in its order, then the user's own by name.

    Raises:
        InputError: As of `petlbench.metrics.classification.load_metrics`.
    """
    from petlbench.metrics.classification import load_metrics

    return load_metrics(catalog, task.metrics, ordered=task.ordered, labels=task.labels.form)


def metric_of(name: str, catalog: Catalog) -> Metric:
    """Return the metric of that name with every form that a task type has of it.

    Raises:
        InputError: When there is no such metric, or a file cannot be imported.
    """
    from petlbench.metrics.metric import Metric

    tasks = (catalog.load("task", task, TaskType) for task in catalog.entries("task"))
    forms = tuple(row for task in tasks for row in task.metrics if isinstance(row, Metric) and row.name == name)
    row = catalog.load("metric", name, Metric)
    return replace(row, forms=(*row.forms, *forms))


def task_of(card: DatasetCard, catalog: Catalog) -> TaskType:
    """Return the task type of a dataset's card.

    Raises:
        InputError: When no file defines that task type, or the one that does cannot be imported.
    """
    return catalog.load("task", card.task, TaskType)

"""What the epoch is chosen by: a score of validation, that of its worst subgroup, or nothing: then it is the last."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from petlbench.core.errors import InputError, unknown_name
from petlbench.core.text import printable
from petlbench.data.attributes import NOT_STATED, Attribute, attribute_values
from petlbench.data.record import Record
from petlbench.data.tasks.base import TaskType
from petlbench.metrics.influence import number_groups
from petlbench.metrics.metric import Labels, Logits, Metric

_WORST = "worst-group:"
LAST = "last"
"""The choice of the last epoch, whatever validation says."""


@dataclass(frozen=True)
class Selection:
    """How the epoch is chosen.

    Args:
        metric: The score; None for no choice: the last epoch is taken.
        column: The column of the subgroups; empty where all of validation counts.
        subgroups: The positions of each subgroup's images in validation.
        left_out: Images of each subgroup that is too small to count.
    """

    metric: Metric | None
    column: str = ""
    subgroups: Mapping[str, NDArray[np.int64]] = field(default_factory=dict)
    left_out: Mapping[str, int] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The name of the score among those of validation; empty where none chooses."""
        if self.metric is None:
            return ""
        return f"{self.metric.name}_worst_group" if self.subgroups else self.metric.name

    def scores(self, labels: Labels, logits: Logits) -> dict[str, float | None]:
        """What is added to the scores of validation, of labels (N, ...) and logits (N, C)."""
        if not self.subgroups or self.metric is None:
            return {}
        scores = [self.metric.score(labels[rows], logits[rows]) for rows in self.subgroups.values()]
        whole = [score for score in scores if score is not None]
        worst = min if self.metric.direction == "higher" else max
        return {self.name: worst(whole) if len(whole) == len(scores) else None}

    def key(self, epoch: int, scores: Mapping[str, Any]) -> tuple[float, float]:
        """What makes an epoch (from 1) with these scores of validation the best: the larger, the better."""
        if self.metric is None:
            return float(epoch), 0.0
        score = scores[self.name]
        if score is None:  # a validation split with one class has no AUC; the loss then decides alone
            return 0.0, -scores.get("loss", 0.0)
        return (score if self.metric.direction == "higher" else -score), 0.0

    def words(self, entry: Mapping[str, Any]) -> str:
        """What a point of the curve is on validation, as ``validation AUC 88.61 %``; empty where none chooses."""
        if self.metric is None:
            return ""
        score = entry.get(f"val_{self.name}")
        factor, unit = (100, " %") if self.metric.unit == "%" else (1, "")
        return f"validation {self.metric.title} " + ("undefined" if score is None else f"{factor * score:.2f}{unit}")

    def describe(self) -> dict[str, Any]:
        """What the result says of it, beside the config; nothing where all of validation counts."""
        if not self.column:
            return {}
        sizes = {name: len(rows) for name, rows in self.subgroups.items()}
        return {"selected_by": {"column": self.column, "subgroups": sizes, "left_out": dict(self.left_out)}}


def metric_for(select: str, task: TaskType, metrics: Sequence[Metric]) -> Metric | None:
    """The score that chooses the epoch; None where none does.

    Args:
        select: As `petlbench.core.config.TrainingConfig` has it.
        task: What a label is.
        metrics: The scores of the task.

    Raises:
        InputError: When the task has no score of that name.
    """
    if select == LAST:
        return None
    name = task.selection if select == "score" or chooses_by_column(select) else select
    by_name = {metric.name: metric for metric in metrics}
    if name not in by_name:
        message = f"--select {printable(name)}: the task {task.title} has no such score"
        hint = unknown_name("score", name, by_name).hint
        raise InputError(message, hint=f"{hint}, or score, {LAST} or {_WORST}COLUMN", kind="bad_setting")
    return by_name[name]


def chooses_by_column(select: str) -> bool:
    """Whether what a dataset's table says of images chooses the epoch."""
    return select.startswith(_WORST)


def selection_of(
    select: str, metric: Metric | None, task: TaskType, classes: int, records: Sequence[Record]
) -> Selection:
    """How the epochs of a run are chosen.

    Args:
        select: As `petlbench.core.config.TrainingConfig` has it.
        metric: The score, as `metric_for` gives it.
        task: What a label is.
        classes: The number of classes C.
        records: The validation images.

    Raises:
        InputError: When there is no such column, or fewer than two of its subgroups have, on validation, ten images (or
            groups, where these are known) of each class that validation has.
    """
    if metric is None or not chooses_by_column(select):
        return Selection(metric)
    attribute = Attribute.parse(select.removeprefix(_WORST))
    values = attribute.subgroups(attribute_values(records, attribute.name))
    rows = {name: np.flatnonzero([value == name for value in values]) for name in sorted({*values} - {NOT_STATED})}
    members = {name: [records[row] for row in own.tolist()] for name, own in rows.items()}
    present = _classes(records, task)
    large = {
        name: rows[name]
        for name, own in members.items()
        if _classes(own, task) == present and not _are_few(own, metric, task, classes)
    }
    left_out = {name: len(own) for name, own in members.items() if name not in large}
    if len(large) < 2:
        sizes = ", ".join(f"{printable(name)} ({len(own)} images)" for name, own in members.items())
        raise InputError(
            f"--select {select}: fewer than two of the subgroups have ten images of each class on validation: {sizes}",
            hint="choose another column, or a larger validation split",
            kind="subgroups_too_small",
        )
    return Selection(metric, attribute.name, large, left_out)


def _classes(records: Sequence[Record], task: TaskType) -> set[int]:
    return {position for record in records for position in task.labels.positions(record.label)}


def _are_few(members: Sequence[Record], metric: Metric, task: TaskType, classes: int) -> bool:
    """Whether the score itself says that some side of it has fewer than ten images, or groups."""
    if metric.interval is None:
        return True
    labels = task.labels.to_array([record.label for record in members])
    units = number_groups([record.group for record in members], len(members))
    interval = metric.interval(labels, np.zeros((len(members), classes)), units, 0.95)
    return interval is None or bool(interval["few"])

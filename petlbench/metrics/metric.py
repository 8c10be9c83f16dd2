"""One score of a classifier: a row that says what it is called, how it is computed and how sure it is."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from petlbench.core.entry import Card, Kind

Labels = NDArray[Any]
"""Labels of images as their task type has them: classes, true or predicted, (N,), whole numbers; or as `takes` says."""
Logits = NDArray[np.floating[Any]]
"""Outputs of a model, (N, C): one a class, or whatever the task type has one for."""
Numbers = NDArray[np.float64]

Contribution = Callable[[Labels, Logits], Numbers | None]
Interval = Callable[[Labels, Logits, NDArray[np.int64], float], dict[str, Any] | None]


@dataclass(frozen=True)
class Metric(Card):
    """A score of the logits of one split.

    Args:
        name: The name in ``result.json`` and on the command line.
        title: The name in tables.
        direction: Which end is good.
        compute: Gives the score of labels (N,) and finite logits (N, C), N at least 1; None where it is undefined.
        contribution: Gives what each image contributes to the score's error, (N,), scaled as
            `petlbench.metrics.influence` describes; None where that is not known, so that methods are compared by
            seeds and splits alone.
        interval: Gives the score's interval, as `petlbench.metrics.classification.compute_intervals` describes it,
            from labels, logits, the number of each image's group (N,) and the level; None for a score without one.
        unit: ``%`` for a fraction, which tables show in percent; else the unit of the score itself.
        form: Which of several forms of the score it is, in words; empty where there is one form only.
        ordered: The form for classes that have an order; None where that is the same.
        takes: The form of the labels that it takes, as task types call it; ``class`` for one class an image.
        forms: Its other forms, of task types whose labels are no classes.
    """

    kind: ClassVar[Kind] = "metric"

    direction: Literal["higher", "lower"]
    compute: Callable[[Labels, Logits], float | None]
    contribution: Contribution | None = None
    interval: Interval | None = None
    unit: str = "%"
    form: str = ""
    ordered: Metric | None = None
    takes: str = "class"
    forms: tuple[Metric, ...] = field(default=(), repr=False)

    def in_form(self, form: str) -> Metric:
        """This score in one of its forms; as it stands where it has no such form."""
        return next((row for row in (self.ordered, *self.forms) if row is not None and row.form == form), self)

    def score(self, labels: Labels, logits: Logits) -> float | None:
        """The score as a plain number; None where it is undefined or not finite."""
        value = self.compute(labels, logits)
        return float(value) if value is not None and math.isfinite(value) else None

    def influence(self, labels: Labels, logits: Logits) -> Numbers | None:
        """What each image contributes to the score's error, (N,); None where that is undefined or not known."""
        if self.contribution is None or len(labels) == 0 or not np.isfinite(logits).all():
            return None
        return self.contribution(labels, logits)

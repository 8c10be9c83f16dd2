"""The contract of a metric: a plain number or none, whatever the split."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
import pytest

from petlbench.metrics.metric import Labels, Logits
from petlbench.testing import explained, fail

_IMAGES = 60

_FORMS: dict[str, Callable[[Labels, int], Labels]] = {
    "class": lambda labels, classes: labels,
    "labels": lambda labels, classes: np.eye(classes)[labels],
}
"""From classes (N,) to labels in a form that metrics take."""


class MetricContract:
    """Tests of one metric; a subclass whose name begins with ``Test`` names it.

    Attributes:
        metric: The metric's row, a `petlbench.metrics.metric.Metric`.
        classes: Numbers of classes that it is tried on.
    """

    metric: ClassVar[Any]
    classes: ClassVar[tuple[int, ...]] = (2, 3)

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """Repeat a rule for each number of classes."""
        if "classes" in metafunc.fixturenames:
            metafunc.parametrize("classes", self.classes)

    def test_the_row_is_complete(self) -> None:
        """A metric says what it is called, which end is good and how it is computed."""
        for name in ("name", "title", "direction", "compute"):
            if not getattr(self.metric, name, None):
                fail(f"the metric {self.metric!r}", f"has no {name}")
        if self.metric.direction not in ("higher", "lower"):
            fail(self, f"direction is {self.metric.direction!r}: write 'higher' or 'lower', the end that is good")

    def test_it_is_a_finite_number(self, classes: int) -> None:
        """It gives a finite number, a fraction where its unit is ``%``, or None; never NaN."""
        for labels, logits in map(self._taken, (_random(classes), _perfect(classes), *_odd_splits(classes))):
            value = self._score(labels, logits)
            if value is not None and getattr(self.metric, "unit", "%") == "%" and not -1 <= value <= 1:
                fail(self, f"it gives {value:g}, which is no fraction: divide by 100, or give it a unit of its own")

    def test_an_empty_split_has_none(self, classes: int) -> None:
        """Without images there is no score."""
        # What a row gives through `score` the engine takes; there NaN is undefined, too.
        name = "score" if hasattr(self.metric, "score") else "compute"
        if (value := self._score(*self._taken((np.zeros(0, np.int64), np.zeros((0, classes)))), name)) is not None:
            fail(self, f"it gives {value} for a split without images: return None where nothing can be computed")

    def test_the_order_of_the_images_does_not_count(self, classes: int) -> None:
        """The same images in another order have the same score, and contributions in that order."""
        labels, logits = self._taken(_random(classes))
        order = np.random.default_rng(1).permutation(len(labels))
        first, second = self._score(labels, logits), self._score(labels[order], logits[order])
        if (first is None) != (second is None) or not math.isclose(first or 0, second or 0, abs_tol=1e-12):
            fail(self, f"it gives {first} and, for the same images in another order, {second}")
        if (contribution := getattr(self.metric, "contribution", None)) is not None:
            values, moved = contribution(labels, logits), contribution(labels[order], logits[order])
            if np.shape(values) != (len(labels),) or not np.isfinite(values).all():
                fail(self, f"contribution gives {values!r}: return a finite number for each image, (N,)")
            if not np.allclose(values[order], moved):
                fail(self, "an image contributes another number where the images have another order")

    def test_it_gives_the_same_each_time_and_changes_nothing(self, classes: int) -> None:
        """Labels and logits are read only, and nothing is drawn."""
        labels, logits = self._taken(_random(classes))
        copies = labels.copy(), logits.copy()
        first, second = self._score(labels, logits), self._score(*copies)
        if not (np.array_equal(labels, copies[0]) and np.array_equal(logits, self._taken(_random(classes))[1])):
            fail(self, "it changes the labels or the logits that it is given: work on a copy")
        if first != second:
            fail(self, f"it gives {first} and then {second} for the same images: draw nothing, or from a fixed seed")

    def test_its_direction_is_that_of_a_perfect_classifier(self, classes: int) -> None:
        """A perfect classifier is better than one whose logits belong to other images."""
        labels, logits = self._taken(_perfect(classes))
        perfect, wrong = self._score(labels, logits), self._score(labels, np.roll(logits, 1, axis=0))
        if perfect is None or wrong is None:
            fail(self, f"it is undefined ({perfect}, {wrong}) for {_IMAGES} images of {classes} classes")
        if perfect == wrong or (perfect > wrong) != (self.metric.direction == "higher"):
            scores = f"{perfect:g} for a perfect classifier and {wrong:g} for a wrong one"
            fail(self, f"it gives {scores}, but its direction is '{self.metric.direction}'")

    def test_its_interval_holds_it(self, classes: int) -> None:
        """An interval has a low end, a high end and the score between them."""
        if (interval := getattr(self.metric, "interval", None)) is None:
            pytest.skip(f"the metric '{self.metric.name}' has no interval")
        labels, logits = self._taken(_random(classes))
        ends, value = interval(labels, logits, np.arange(len(labels)), 0.95), self._score(labels, logits)
        if ends is not None and value is not None and not ends["low"] <= value <= ends["high"]:
            fail(self, f"its interval is {ends['low']} to {ends['high']}, but the score is {value}")

    def _taken(self, case: tuple[Labels, Logits]) -> tuple[Labels, Logits]:
        """The case with labels in the form that the metric takes; a form that is not known here is not tried."""
        form = getattr(self.metric, "takes", "class")
        if form not in _FORMS:
            pytest.skip(f"the metric '{self.metric.name}' takes labels of the form '{form}', which are not made here")
        labels, logits = case
        return _FORMS[form](labels, logits.shape[1]), logits

    def __str__(self) -> str:
        """Name the metric in a message."""
        return f"the metric '{self.metric.name}':"

    def _score(self, labels: Labels, logits: Logits, compute: str = "compute") -> float | None:
        """The score as the engine takes it; the test fails where it is no plain number."""
        case = f"for {len(labels)} images and {logits.shape[1]} classes, of which {len(np.unique(labels))} are there"
        with explained(f"{self} it fails {case}: return None where it is undefined"), warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # of an empty mean, which may be handled
            value = getattr(self.metric, compute)(labels, logits)
        if value is None:
            return None
        if not isinstance(value, float | int | np.floating) or not math.isfinite(value):
            fail(self, f"it gives {value!r} {case}: return a finite number, or None where it is undefined")
        return float(value)


def _random(classes: int) -> tuple[Labels, Logits]:
    generator = np.random.default_rng(0)
    return np.arange(_IMAGES, dtype=np.int64) % classes, generator.normal(size=(_IMAGES, classes))


def _perfect(classes: int) -> tuple[Labels, Logits]:
    labels = np.arange(_IMAGES, dtype=np.int64) % classes
    # Above zero where an image is of a class, and below where not: of several labels an image each is decided alone.
    return labels, 4 * np.eye(classes)[labels] - 2 + np.random.default_rng(0).uniform(size=(_IMAGES, classes))


def _odd_splits(classes: int) -> list[tuple[Labels, Logits]]:
    """One image; one class alone; a class that is absent; logits that are all the same, or large."""
    labels, logits = _random(classes)
    parts = [(labels[rows], logits[rows]) for rows in (slice(1), labels == 0, labels != classes - 1)]
    return [*parts, (labels, np.zeros_like(logits)), (labels, 1e4 * logits)]

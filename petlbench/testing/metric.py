"""The contract of a metric: a plain number or none, whatever the split."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any, ClassVar, NoReturn

import numpy as np
import pytest
from numpy.typing import NDArray

__all__ = ["MetricContract"]

_IMAGES = 60

Labels = NDArray[np.int64]
Logits = NDArray[np.float64]


class MetricContract:
    """Tests of one metric; a subclass whose name begins with ``Test`` names it.

    Attributes:
        metric: The metric's row: ``name``, ``title``, ``direction``, ``compute`` and, where it has them,
            ``contribution``, ``interval`` and ``unit``.
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
                pytest.fail(f"the metric {self.metric!r} has no {name}", pytrace=False)
        if self.metric.direction not in ("higher", "lower"):
            self._fail(f"direction is {self.metric.direction!r}: write 'higher' or 'lower', the end that is good")

    def test_it_is_a_finite_number(self, classes: int) -> None:
        """It gives a finite number, a fraction where its unit is ``%``, or None; never NaN."""
        for labels, logits in (_random(classes), _perfect(classes), *_odd_splits(classes)):
            value = self._plain(labels, logits)
            if value is not None and getattr(self.metric, "unit", "%") == "%" and not -1 <= value <= 1:
                self._fail(f"it gives {value:g}, which is no fraction: divide by 100, or give it a unit of its own")

    def test_an_empty_split_has_none(self, classes: int) -> None:
        """Without images there is no score."""
        # What a row gives through `score` the engine takes; there NaN is undefined, too.
        compute = getattr(self.metric, "score", self.metric.compute)
        value = self._plain(np.zeros(0, np.int64), np.zeros((0, classes)), compute)
        if value is not None:
            self._fail(f"it gives {value} for a split without images: return None where nothing can be computed")

    def test_the_order_of_the_images_does_not_count(self, classes: int) -> None:
        """The same images in another order have the same score, and contributions in that order."""
        labels, logits = _random(classes)
        order = np.random.default_rng(1).permutation(len(labels))
        first, second = self._plain(labels, logits), self._plain(labels[order], logits[order])
        if not _same(first, second):
            self._fail(f"it gives {first} and, for the same images in another order, {second}")
        if (contribution := getattr(self.metric, "contribution", None)) is not None:
            values, moved = contribution(labels, logits), contribution(labels[order], logits[order])
            if np.shape(values) != (len(labels),) or not np.isfinite(values).all():
                self._fail(f"contribution gives {values!r}: return a finite number for each image, (N,)")
            if not np.allclose(values[order], moved):
                self._fail("an image contributes another number where the images have another order")

    def test_it_gives_the_same_each_time_and_changes_nothing(self, classes: int) -> None:
        """Labels and logits are read only, and nothing is drawn."""
        labels, logits = _random(classes)
        copies = labels.copy(), logits.copy()
        first, second = self._plain(labels, logits), self._plain(*copies)
        if not (np.array_equal(labels, copies[0]) and np.array_equal(logits, _random(classes)[1])):
            self._fail("it changes the labels or the logits that it is given: work on a copy")
        if first != second:
            self._fail(f"it gives {first} and then {second} for the same images: draw nothing, or from a fixed seed")

    def test_its_direction_is_that_of_a_perfect_classifier(self, classes: int) -> None:
        """A perfect classifier is better than one whose logits belong to other images."""
        labels, logits = _perfect(classes)
        perfect, shuffled = self._plain(labels, logits), self._plain(labels, np.roll(logits, 1, axis=0))
        if perfect is None or shuffled is None:
            self._fail(f"it is undefined ({perfect}, {shuffled}) for {_IMAGES} images of {classes} classes")
        if perfect == shuffled or (perfect > shuffled) != (self.metric.direction == "higher"):
            self._fail(
                f"it gives {perfect:g} for a perfect classifier and {shuffled:g} for a wrong one, but its direction is "
                f"'{self.metric.direction}'"
            )

    def test_its_interval_holds_it(self, classes: int) -> None:
        """An interval has a low end, a high end and the score between them."""
        if (interval := getattr(self.metric, "interval", None)) is None:
            pytest.skip(f"the metric '{self.metric.name}' has no interval")
        labels, logits = _random(classes)
        ends, value = interval(labels, logits, np.arange(len(labels)), 0.95), self._plain(labels, logits)
        if ends is not None and value is not None and not ends["low"] <= value <= ends["high"]:
            self._fail(f"its interval is {ends['low']} to {ends['high']}, but the score is {value}")

    def _plain(
        self, labels: Labels, logits: Logits, compute: Callable[[Labels, Logits], Any] | None = None
    ) -> float | None:
        """The score as the engine takes it; the test fails where it is no plain number."""
        case = f"for {len(labels)} images and {logits.shape[1]} classes, of which {len(set(labels.tolist()))} are there"
        try:
            with np.errstate(all="ignore"), warnings.catch_warnings():
                warnings.simplefilter("ignore", RuntimeWarning)  # of an empty mean, which may be handled
                value = (compute or self.metric.compute)(labels, logits)
        except Exception as error:
            raise AssertionError(
                f"the metric '{self.metric.name}' fails {case}: return None where it is undefined\n{error}"
            ) from error
        if value is None:
            return None
        if not isinstance(value, float | int | np.floating) or not math.isfinite(value):
            self._fail(f"it gives {value!r} {case}: return a finite number, or None where it is undefined")
        return float(value)

    def _fail(self, message: str) -> NoReturn:
        pytest.fail(f"the metric '{self.metric.name}': {message}", pytrace=False)


def _random(classes: int) -> tuple[Labels, Logits]:
    generator = np.random.default_rng(0)
    return np.arange(_IMAGES, dtype=np.int64) % classes, generator.normal(size=(_IMAGES, classes))


def _perfect(classes: int) -> tuple[Labels, Logits]:
    labels = np.arange(_IMAGES, dtype=np.int64) % classes
    return labels, 4 * np.eye(classes)[labels] + np.random.default_rng(0).uniform(size=(_IMAGES, classes))


def _odd_splits(classes: int) -> list[tuple[Labels, Logits]]:
    """One image; one class alone; a class that is absent; logits that are all the same, or large."""
    labels, logits = _random(classes)
    alone, present = labels == 0, labels != classes - 1
    return [
        (labels[:1], logits[:1]),
        (labels[alone], logits[alone]),
        (labels[present], logits[present]),
        (labels, np.zeros_like(logits)),
        (labels, 1e4 * logits),
    ]


def _same(first: float | None, second: float | None) -> bool:
    if first is None or second is None:
        return first is second
    return math.isclose(first, second, rel_tol=1e-9, abs_tol=1e-12)

"""The runs of one method on one dataset, summed up by split: means, spread over seeds, influence of each image."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from petlbench.metrics.metric import Metric
from petlbench.results.predictions import Predictions
from petlbench.statistics.verdict import Source


@dataclass(frozen=True)
class Influence:
    """What images, or groups, contribute to the error of a score.

    Args:
        units: Numbers of the images or groups, (U,), the same in all runs on a dataset; a number may stand twice.
        values: The contributions, (U,).
    """

    units: NDArray[np.int64]
    values: NDArray[np.float64]

    @classmethod
    def mean(cls, parts: Sequence[Influence | None]) -> Influence | None:
        """The influence on the mean of several scores; None where that on one of them is not known."""
        whole = [part for part in parts if part is not None]
        if len(whole) < len(parts):
            return None
        units = np.concatenate([part.units for part in whole])
        return cls(units, np.concatenate([part.values for part in whole]) / len(whole))

    def minus(self, other: Influence) -> Influence:
        """The influence on the difference to another score."""
        return Influence(np.concatenate([self.units, other.units]), np.concatenate([self.values, -other.values]))

    def source(self) -> Source:
        """The variance over draws of images or groups, and how well it is known.

        The degrees of freedom are those at which a chi-square has the variance that the sum of squares has:
        ``2 / (sum x^4 / (sum x^2)^2 - 1 / U)``. Few images that contribute much have few of them.
        """
        sums = np.bincount(self.units, weights=self.values) if len(self.units) else np.zeros(1)
        squares, fourths = float((sums**2).sum()), float((sums**4).sum())
        if squares == 0:
            return Source(0.0, 1.0)
        count = len(np.unique(self.units))
        return Source(squares, 2 / max(fourths / squares**2 - 1 / count, 1e-6))


def influence_reader(metric: Metric) -> Callable[[Scored], Influence | None]:
    """Return what reads a run's predictions, once, and gives the influences of its images, or groups, on a score.

    It gives None where the predictions are not kept.
    """
    numbers: defaultdict[str, dict[str, int]] = defaultdict(dict)

    @cache
    def read(record: Scored) -> Influence | None:
        predictions = record.predictions()
        values = (
            None
            if predictions is None
            else metric.in_form(record.form).influence(predictions.labels, predictions.logits)
        )
        if predictions is None or values is None:
            return None
        by_unit = numbers[record.dataset]
        units = np.array([by_unit.setdefault(unit, len(by_unit)) for unit in predictions.units], dtype=np.int64)
        groups = len(np.unique(units))
        scale = (groups / max(1, groups - 1)) ** 0.5 if groups < len(units) else 1.0
        return Influence(units, values * scale)

    return read


@dataclass(frozen=True)
class Runs:
    """The runs of one method on one dataset.

    Args:
        splits: The runs by split, each by seed.
        read: Gives the influences of a run.
    """

    splits: Mapping[str, Sequence[Scored]]
    read: Callable[[Scored], Influence | None]

    @classmethod
    def of(cls, records: Iterable[Scored], read: Callable[[Scored], Influence | None]) -> Runs:
        """Sort runs by split and by seed."""
        splits: dict[str, list[Scored]] = {}
        for record in sorted(records, key=lambda record: (record.split, record.seed)):
            splits.setdefault(record.split, []).append(record)
        return cls(splits, read)

    def only(self, splits: Iterable[str]) -> Runs:
        """The same method on some of its splits."""
        return Runs({split: self.splits[split] for split in splits}, self.read)

    @property
    def records(self) -> list[Scored]:
        """The runs of all splits."""
        return [record for records in self.splits.values() for record in records]

    @property
    def seeds(self) -> int:
        """Runs of the split that has fewest."""
        return min(map(len, self.splits.values()))

    @cached_property
    def influence(self) -> Influence | None:
        """The influence on the mean over splits; None where that of a run is not known."""
        return Influence.mean([Influence.mean(list(map(self.read, records))) for records in self.splits.values()])

    @property
    def scores(self) -> list[NDArray[np.float64]]:
        """The scores of each split, (S,)."""
        return [np.array([record.score for record in records]) for records in self.splits.values()]

    @property
    def seed_sources(self) -> list[Source] | None:
        """What seeds add to the variance of the mean over splits, one a split; None where one has a single run."""
        scores = self.scores
        if self.seeds < 2:
            return None
        return [Source(float(each.var(ddof=1)) / len(each) / len(scores) ** 2, len(each) - 1) for each in scores]

    @property
    def means(self) -> NDArray[np.float64]:
        """The mean score of each split, (K,)."""
        return np.array([scores.mean() for scores in self.scores])

    @property
    def test_to_train(self) -> float | None:
        """Test images / training images, the mean over runs."""
        shares = [record.test_to_train for record in self.records if record.test_to_train is not None]
        return float(np.mean(shares)) if shares else None


@dataclass(frozen=True, eq=False, slots=True)
class Scored:
    """One finished run as the statistics see it.

    Args:
        method: The method, or whatever else is compared.
        dataset: The dataset.
        seed: The run's seed.
        split: The split in words, such as ``official`` or ``kfold:5/0@0`` (its seed behind the @); runs of one split
            have one test set.
        score: A fraction.
        predictions: Reads the predictions on the test set; gives None where they are not kept.
        test_to_train: Test images / training images; None where it is not known.
        interval: The score's interval as `petlbench.metrics.classification.compute_intervals` gave it; None where
            it is not kept.
        form: Which of a score's several forms it is; empty where there is one only.
    """

    method: str
    dataset: str
    seed: int
    split: str
    score: float
    predictions: Callable[[], Predictions | None]
    test_to_train: float | None = None
    interval: Mapping[str, Any] | None = None
    form: str = ""

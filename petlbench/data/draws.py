"""Few labels: which part of a split is trained on, in draws of which a smaller one lies inside every larger one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from petlbench.core.config import derive_seed
from petlbench.core.errors import InputError
from petlbench.data.record import OfficialDraw, Record, Split
from petlbench.data.splits import group_numbers
from petlbench.data.tasks.base import class_strata

Strata = Callable[[Sequence[Any]], NDArray[Any]]


@dataclass(frozen=True)
class Draw:
    """One draw of few labels.

    Shots take turns: the class that has least is given one image, or group, until each has as many as it should. A
    fraction gives to the class that is furthest behind its share. Either way one order of all images is made, of which
    more labels are a longer beginning: so draws are nested, and each class has an image before any has two.

    Args:
        shots: Images of each class, groups where they are known; 0 for all.
        fraction: Share of the images.
        number: Which of several draws, from 0.
        seed: The split's seed.
        validation: Whether the validation split is drawn, too.
    """

    shots: int = 0
    fraction: float = 1
    number: int = 0
    seed: int = 0
    validation: bool = False

    @property
    def is_whole(self) -> bool:
        """Whether everything is taken."""
        return not self.shots and self.fraction == 1

    def is_official(self, records: Sequence[Record]) -> bool:
        """Whether the dataset's release has made this draw."""
        drawn = OfficialDraw("train", self.shots, self.number)
        return any(drawn in record.draws for record in records)

    def sides(
        self,
        records: Sequence[Record],
        splits: Sequence[Split],
        *,
        classes: Sequence[str] = (),
        strata: Strata = class_strata,
        official: bool = False,
    ) -> list[Split | None]:
        """Return the side of every record, None for one that is not drawn; the test split stays as it is.

        The result depends on the records of a side, on the seed and on the draw, not on the order of the records.

        Args:
            records: The records.
            splits: The side of each.
            classes: The class names that errors use, in label order.
            strata: From labels to what is balanced, (N, K): the task type's `strata`.
            official: Whether the release's own draw is taken.

        Raises:
            InputError: When a class has fewer images, or groups, than shots.
        """
        if self.is_whole:
            return list(splits)
        if official:
            return self._official(records, splits)
        sides: list[Split | None] = list(splits)
        for side in ("train", "val") if self.validation else ("train",):
            rows = [row for row, split in enumerate(splits) if split == side]
            kept = self._drawn([records[row] for row in rows], side, classes, strata)
            for row in np.delete(rows, kept):
                sides[row] = None
        return sides

    def _drawn(self, records: Sequence[Record], side: str, classes: Sequence[str], strata: Strata) -> list[int]:
        """The positions of the records that are drawn."""
        units = group_numbers(records)
        grouped = any(record.group is not None for record in records)
        counts = _counts(strata([record.label for record in records]), units)
        sizes = np.bincount(units)
        if self.shots:
            counts = np.minimum(counts, 1)
            self._require(counts, side, classes, grouped)
            enough = np.minimum(counts.sum(axis=0), self.shots)
            drawn = _shots(counts, enough, self._lots(records, units, side))
        else:
            drawn = _share(counts, sizes, self.fraction, self._lots(records, units, side))
        return np.flatnonzero(np.isin(units, drawn)).tolist()

    def _lots(self, records: Sequence[Record], units: NDArray[np.int64], side: str) -> NDArray[np.int64]:
        """A lot for each unit, (U,): its own whatever other images there are, so that a lost image moves no other."""
        lots = np.zeros(units.max(initial=-1) + 1, dtype=np.int64)
        for record, unit in zip(records, units.tolist(), strict=True):
            name = f"image {record.image_id}" if record.group is None else f"group {record.group}"
            lots[unit] = lots[unit] or derive_seed(self.seed, "draw", self.number, side, name)
        return lots

    def _require(self, counts: NDArray[np.int64], side: str, classes: Sequence[str], grouped: bool) -> None:
        for position, name in enumerate(classes):
            count = int(counts[:, position].sum()) if position < counts.shape[1] - 1 else 0
            if count < self.shots:
                unit = f"{'group' if grouped else 'image'}{'' if count == 1 else 's'}"
                part = {"train": "to train on", "val": "to validate on"}[side]
                raise InputError(
                    f"--shots {self.shots}: the class '{name}' has {count} {unit} {part}",
                    hint="choose fewer shots, or a share of all with --train-fraction",
                    kind="class_too_small",
                )

    def _official(self, records: Sequence[Record], splits: Sequence[Split]) -> list[Split | None]:
        """The sides of the release's own draw; what it trains on, and its groups, are in no other part."""
        train, val = (OfficialDraw(side, self.shots, self.number) for side in ("train", "val"))
        trained = {record.group for record in records if train in record.draws} - {None}
        sides: list[Split | None] = []
        for record, split in zip(records, splits, strict=True):
            if split == "test":
                if train in record.draws or val in record.draws:
                    message = (
                        f"{record.image_id} is in the official draw {self.number} of {self.shots} shots, and tested"
                    )
                    raise InputError(message, hint="correct the release's lists", kind="group_leak")
                sides.append(split)
            elif train in record.draws:
                sides.append("train")
            else:
                validates = val in record.draws if self.validation else split == "val"
                sides.append("val" if validates and record.group not in trained else None)
        if "val" in splits and "val" not in sides:
            raise InputError(
                f"the official draw {self.number} of {self.shots} shots leaves validation no image of another group",
                hint="leave --shots-val out" if self.validation else "choose another draw",
                kind="too_few_groups",
            )
        return sides


def _counts(strata: NDArray[Any], units: NDArray[np.int64]) -> NDArray[np.int64]:
    """Count the images of each unit in each stratum, (U, K + 1); the last one is of images in none but that of all."""
    strata = np.asarray(strata, dtype=bool)
    columns = np.column_stack([strata, ~strata[:, ~strata.all(axis=0)].any(axis=1)])
    counts = np.zeros((units.max(initial=-1) + 1, columns.shape[1]), dtype=np.int64)
    np.add.at(counts, units, columns)
    return counts


def _shots(counts: NDArray[np.int64], enough: NDArray[np.int64], lots: NDArray[np.int64]) -> list[int]:
    """The first units of the order in which strata take turns, until each has enough, (K,)."""
    drawn: list[int] = []
    totals = np.zeros_like(enough)
    order = _order(counts, np.ones(len(enough)), lots)
    while (totals < enough).any():
        drawn.append(next(order))
        totals += counts[drawn[-1]]
    return drawn


def _share(counts: NDArray[np.int64], sizes: NDArray[np.int64], share: float, lots: NDArray[np.int64]) -> list[int]:
    """The first units of the order in which strata keep their shares: as many images, and one of each stratum."""
    drawn: list[int] = []
    goal, images, totals = share * sizes.sum(), 0, np.zeros(counts.shape[1])
    present = counts.any(axis=0)
    for unit in _order(counts, np.maximum(counts.sum(axis=0), 1), lots):
        # A unit is in where most of it is: the nearest number of images, and for a larger share never fewer.
        if images + sizes[unit] / 2 > goal and totals[present].all():
            break
        drawn.append(unit)
        images += sizes[unit]
        totals += counts[unit]
    return drawn


def _order(counts: NDArray[np.int64], weights: NDArray[Any], lots: NDArray[np.int64]) -> Iterator[int]:
    """Yield all units: each time that of the lowest lot of the stratum that has least for its weight.

    Of strata that have alike the rarest comes first, since units of several strata serve the others besides
    (K. Sechidis et al., "On the stratification of multi-label data", ECML PKDD 2011).

    Args:
        counts: Images of each unit in each stratum, (U, K).
        weights: Of the strata, (K,).
        lots: Of the units, (U,).
    """
    rarest = np.argsort(counts.sum(axis=0), kind="stable")
    counts, weights = counts[:, rarest], weights[rarest]
    by_lot = np.argsort(lots, kind="stable")
    queues = [iter(by_lot[counts[by_lot, stratum] > 0].tolist()) for stratum in range(len(weights))]
    levels, taken = np.zeros(len(weights)), np.zeros(len(counts), dtype=bool)
    while not np.isinf(levels).all():
        stratum = int(levels.argmin())
        unit = next((unit for unit in queues[stratum] if not taken[unit]), None)
        if unit is None:
            levels[stratum] = np.inf  # all of its units are taken
            continue
        taken[unit] = True
        levels += counts[unit] / weights
        yield unit

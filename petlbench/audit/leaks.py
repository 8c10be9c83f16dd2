"""Which images know each other: duplicates within and across splits, groups on two sides, one image with two labels."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from petlbench.audit.scan import Scan
from petlbench.data import duplicates
from petlbench.data.duplicates import Kind, clusters, duplicate_pairs
from petlbench.data.record import SPLITS, Split
from petlbench.data.splits import shared_groups


@dataclass(frozen=True)
class DuplicatePair:
    """Two images that show the same.

    Args:
        images: Their ids.
        kind: ``bytes``, ``pixels``, ``near`` or ``mirrored``.
        bits: Bits in which their perceptual hashes differ.
        correlation: Of their fine structure, -1 to 1.
        classes: Their classes.
        sides: Their sides of the split; None where an image has none.
    """

    images: tuple[str, str]
    kind: Kind
    bits: int
    correlation: float
    classes: tuple[str, str]
    sides: tuple[Split | None, Split | None]

    @property
    def exact(self) -> bool:
        """Whether they are equal, pixel for pixel."""
        return self.kind in ("bytes", "pixels")

    @property
    def across(self) -> bool:
        """Whether they are on two sides of the split."""
        return self.sides[0] != self.sides[1]

    @property
    def two_labels(self) -> bool:
        """Whether they have two labels."""
        return self.classes[0] != self.classes[1]


@dataclass(frozen=True)
class Leaks:
    """Duplicates and shared groups.

    Args:
        pairs: Pairs of duplicates, those across the split first, and the equal ones before others. Of many equal
            images each is paired with the first of them.
        sets: Ids of the images that show the same, directly or through others; two or more each.
        leaked: How many images of each side but training have a duplicate in training, and how many the side has.
        groups: Groups that are on two sides of the split.
    """

    pairs: tuple[DuplicatePair, ...]
    sets: tuple[tuple[str, ...], ...]
    leaked: Mapping[str, tuple[int, int]]
    groups: tuple[str, ...]

    @property
    def across(self) -> tuple[DuplicatePair, ...]:
        """Pairs on two sides."""
        return tuple(pair for pair in self.pairs if pair.across)

    @property
    def two_labels(self) -> tuple[DuplicatePair, ...]:
        """Pairs with two labels."""
        return tuple(pair for pair in self.pairs if pair.two_labels)

    def counts(self) -> dict[tuple[str, str], Counter[str]]:
        """Count pairs by their two sides (in the order of a split) and by kind."""
        order = {side: place for place, side in enumerate((*SPLITS, None))}
        counts: defaultdict[tuple[str, str], Counter[str]] = defaultdict(Counter)
        for pair in self.pairs:
            first, second = sorted(pair.sides, key=lambda side: order[side])
            counts[first or "no side", second or "no side"][pair.kind] += 1
        return dict(counts)


def find_leaks(scan: Scan, sides: Sequence[Split | None]) -> Leaks:
    """Find duplicates, and what of them and of the groups is on two sides.

    Args:
        scan: The images, (N,).
        sides: The side of each, (N,); None where an image has none.
    """
    pairs = duplicate_pairs([image.fingerprint for image in scan.images])
    duplicates = sorted(
        (_described(pair, scan, sides) for pair in pairs),
        key=lambda pair: (not pair.across, not pair.two_labels, not pair.exact, pair.images),
    )
    members: defaultdict[int, list[int]] = defaultdict(list)
    linked = [(pair.first, pair.second) for pair in pairs]
    for row, first in enumerate(clusters(linked, len(scan.records))):
        members[first].append(row)
    sets = [rows for rows in members.values() if len(rows) > 1]
    in_training = [rows for rows in sets if any(sides[row] == "train" for row in rows)]
    leaked, totals = Counter(sides[row] for rows in in_training for row in rows), Counter(sides)
    names = [record.image_id for record in scan.records]
    return Leaks(
        tuple(duplicates),
        tuple(tuple(names[row] for row in rows) for rows in sets),
        {side: (leaked[side], totals[side]) for side in SPLITS if side != "train" and totals[side]},
        tuple(shared_groups(scan.records, sides)),
    )


def _described(pair: duplicates.DuplicatePair, scan: Scan, sides: Sequence[Split | None]) -> DuplicatePair:
    first, second, said = scan.records[pair.first], scan.records[pair.second], scan.task.labels.text
    return DuplicatePair(
        (first.image_id, second.image_id),
        pair.kind,
        pair.bits,
        pair.correlation,
        (said(first.label, scan.classes), said(second.label, scan.classes)),
        (sides[pair.first], sides[pair.second]),
    )

"""Which images know each other: duplicates within and across splits, groups on two sides, one image with two labels."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from petlbench.audit.scan import Gallery
from petlbench.data.duplicates import DuplicatePair, Kind, clusters, duplicate_pairs
from petlbench.data.record import SPLITS, Split
from petlbench.data.splits import shared_groups

__all__ = ["Leaks", "Twins", "find_leaks"]


@dataclass(frozen=True)
class Twins:
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
    """What was found.

    Args:
        twins: Pairs of duplicates, those across the split first, and the equal ones before others. Of many equal
            images each is paired with the first of them.
        sets: Ids of the images that show the same, directly or through others; two or more each.
        leaked: How many images of each side but training have a duplicate in training, and how many the side has.
        groups: Groups that are on two sides of the split.
    """

    twins: tuple[Twins, ...]
    sets: tuple[tuple[str, ...], ...]
    leaked: Mapping[str, tuple[int, int]]
    groups: tuple[str, ...]

    @property
    def across(self) -> tuple[Twins, ...]:
        """Pairs on two sides."""
        return tuple(pair for pair in self.twins if pair.across)

    @property
    def two_labels(self) -> tuple[Twins, ...]:
        """Pairs with two labels."""
        return tuple(pair for pair in self.twins if pair.two_labels)

    def counts(self) -> dict[tuple[str, str], Counter[str]]:
        """Count pairs by their two sides (in the order of a split) and by kind."""
        order = {side: place for place, side in enumerate((*SPLITS, None))}
        found: defaultdict[tuple[str, str], Counter[str]] = defaultdict(Counter)
        for pair in self.twins:
            one, other = sorted(pair.sides, key=lambda side: order[side])
            found[one or "no side", other or "no side"][pair.kind] += 1
        return dict(found)


def find_leaks(gallery: Gallery, sides: Sequence[Split | None]) -> Leaks:
    """Find duplicates, and what of them and of the groups is on two sides.

    Args:
        gallery: The images, (N,).
        sides: The side of each, (N,); None where an image has none.
    """
    pairs = duplicate_pairs([sight.fingerprint for sight in gallery.sights])
    twins = sorted(
        (_twins(pair, gallery, sides) for pair in pairs),
        key=lambda pair: (not pair.across, not pair.two_labels, not pair.exact, pair.images),
    )
    members: defaultdict[int, list[int]] = defaultdict(list)
    linked = [(pair.first, pair.second) for pair in pairs]
    for row, first in enumerate(clusters(linked, len(gallery.records))):
        members[first].append(row)
    sets = [rows for rows in members.values() if len(rows) > 1]
    names = [record.image_id for record in gallery.records]
    return Leaks(
        tuple(twins),
        tuple(tuple(names[row] for row in rows) for rows in sets),
        _leaked(sets, sides),
        tuple(shared_groups(gallery.records, sides)),
    )


def _twins(pair: DuplicatePair, gallery: Gallery, sides: Sequence[Split | None]) -> Twins:
    one, other = gallery.records[pair.first], gallery.records[pair.second]
    return Twins(
        (one.image_id, other.image_id),
        pair.kind,
        pair.bits,
        pair.correlation,
        (gallery.classes[one.label], gallery.classes[other.label]),
        (sides[pair.first], sides[pair.second]),
    )


def _leaked(sets: Sequence[Sequence[int]], sides: Sequence[Split | None]) -> dict[str, tuple[int, int]]:
    known: Counter[Split | None] = Counter()
    for rows in sets:
        if any(sides[row] == "train" for row in rows):
            known.update(sides[row] for row in rows)
    totals = Counter(sides)
    return {side: (known[side], totals[side]) for side in SPLITS if side != "train" and totals[side]}

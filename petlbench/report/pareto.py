"""Pareto fronts: what no other row beats in everything."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

__all__ = ["fronts"]


def fronts(points: Mapping[str, Sequence[float]]) -> dict[str, int]:
    """Number the fronts: 1 for what nothing dominates, 2 for what only points of front 1 dominate, and so on.

    Args:
        points: Costs by key, all equally many; less is better in each.

    Returns:
        The front's number by key.
    """
    left, found, rank = dict(points), {}, 0
    while left:
        rank += 1
        front = [key for key, point in left.items() if not any(_dominates(other, point) for other in left.values())]
        for key in front:
            found[key] = rank
            del left[key]
    return found


def _dominates(one: Sequence[float], other: Sequence[float]) -> bool:
    return tuple(one) != tuple(other) and all(a <= b for a, b in zip(one, other, strict=True))

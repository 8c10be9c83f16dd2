"""Pareto fronts: what nothing else beats in everything."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import TypeVar

__all__ = ["fronts"]

_Key = TypeVar("_Key", bound=Hashable)


def fronts(points: Mapping[_Key, Sequence[float]]) -> dict[_Key, int]:
    """Number the fronts: 1 for what nothing dominates, 2 for what only points of front 1 dominate, and so on.

    Args:
        points: Costs by key, all equally many; less is better in each.

    Returns:
        The front's number by key.
    """
    rest, numbers, number = dict(points), {}, 0
    while rest:
        number += 1
        front = [key for key, point in rest.items() if not any(_dominates(other, point) for other in rest.values())]
        for key in front:
            numbers[key] = number
            del rest[key]
    return numbers


def _dominates(first: Sequence[float], second: Sequence[float]) -> bool:
    return tuple(first) != tuple(second) and all(a <= b for a, b in zip(first, second, strict=True))

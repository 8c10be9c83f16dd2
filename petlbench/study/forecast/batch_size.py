"""The largest batch size that fits, by as few predictions as can be."""

from __future__ import annotations

from collections.abc import Callable, Mapping

__all__ = ["LARGEST", "largest_batch_size"]

LARGEST = 4096
"""Batch sizes above this one are not looked at."""

# Every so many predictions the range is cut in half, whatever the line through two of its points says.
_HALVED = 3


def largest_batch_size(
    need: Callable[[int], int],
    budget: int,
    *,
    predictions: Mapping[int, int],
    smallest: int = 1,
    largest: int = LARGEST,
) -> int:
    """Return a batch size that fits while the next larger one does not: 0 where none fits, ``largest`` where that does.

    Memory is close to linear in the batch size, so the next size to look at is where the line through two known ones
    meets the budget. Allocated memory rises with the batch size, and the answer is the largest that fits. Reserved
    memory rises too, but for steps: the allocator takes it in large pieces, so that one image more may happen to take a
    piece less. A larger batch size may then fit as well; none below the answer that was looked at did not.

    Args:
        need: Predicts the memory in bytes at a batch size.
        budget: Memory in bytes.
        predictions: Bytes by batch size, as they were predicted before.
        smallest: The smallest batch size there can be.
        largest: The largest one that is looked at.
    """
    points = dict(predictions)

    def fits(size: int) -> bool:
        if size not in points:
            points[size] = need(size)
        return points[size] <= budget

    if not fits(smallest):
        return 0
    high = min((size for size, taken in points.items() if taken > budget), default=largest + 1)
    low = max(size for size, taken in points.items() if taken <= budget and size < high)
    looks = 0
    while high - low > 1:
        looks += 1
        guess = (low + high) // 2 if looks % _HALVED == 0 else _crossing(points, low, high, budget)
        if fits(guess):
            low = guess
        else:
            high = guess
    return low


def _crossing(points: Mapping[int, int], low: int, high: int, budget: int) -> int:
    """A size between two others at which the line through known points meets the budget."""
    # Above every known point, the line is that through the two largest that fit.
    first, second = (low, high) if high in points else (max((size for size in points if size < low), default=0), low)
    if first not in points:
        return min(2 * low, high - 1)
    rise = (points[second] - points[first]) / (second - first)
    crossing = first + int((budget - points[first]) / rise) if rise > 0 else high
    return max(low + 1, min(crossing, high - 1))

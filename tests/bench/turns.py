"""Two ways of doing the same, measured in turns: machines change their speed from hour to hour."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

__all__ = ["in_turns", "seconds"]


def in_turns(ours: Callable[[], object], plain: Callable[[], object], rounds: int) -> tuple[float, float, float]:
    """Median ratio of ours over plain, and both medians in seconds, after one round to warm up."""
    ours(), plain()
    pairs = [(seconds(ours), seconds(plain)) for _ in range(rounds)]
    mine, theirs = zip(*pairs, strict=True)
    return statistics.median(a / b for a, b in pairs), statistics.median(mine), statistics.median(theirs)


def seconds(action: Callable[[], object]) -> float:
    """How long something takes."""
    began = time.perf_counter()
    action()
    return time.perf_counter() - began

"""Two ways of doing the same, measured in turns: machines change their speed from hour to hour."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

__all__ = ["in_turns", "seconds"]

Clock = Callable[[], float]


def in_turns(
    ours: Callable[[], object], plain: Callable[[], object], rounds: int, clock: Clock = time.perf_counter
) -> tuple[float, float, float]:
    """Median ratio of ours over plain, and both medians in seconds, after one round to warm up."""
    ours(), plain()
    pairs = [(seconds(ours, clock), seconds(plain, clock)) for _ in range(rounds)]
    mine, theirs = zip(*pairs, strict=True)
    return statistics.median(a / b for a, b in pairs), statistics.median(mine), statistics.median(theirs)


def seconds(action: Callable[[], object], clock: Clock = time.perf_counter) -> float:
    """How long something takes; by the clock of the process, how long it keeps processors at work."""
    began = clock()
    action()
    return clock() - began

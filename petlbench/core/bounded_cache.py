"""A cache that is bounded in bytes, for what several threads use and several runs may share."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")


class BoundedCache(Generic[Key, Value]):
    """Values up to a bound in bytes. What the present run has not used makes room, the least recently used first.

    What it has used stays: a run reads its images over and over in turn, and of more of them than fit, the least
    recently used is the one that is needed next.

    Args:
        bound: Most bytes of all values together.
    """

    def __init__(self, bound: int = 0) -> None:
        self.held = 0
        self._bound = bound
        self._run = 0
        self._values: OrderedDict[Key, tuple[Value, int]] = OrderedDict()
        self._used: dict[Key, int] = {}
        self._lock = threading.Lock()

    def begin_run(self, bound: int) -> None:
        """Let everything that is there make room from now on, within another bound."""
        with self._lock:
            self._run += 1
            self._bound = bound
            self._make_room(0)

    def has_room(self, size: int) -> bool:
        """Whether so many bytes more can be kept; there is room for them then."""
        with self._lock:
            return self._make_room(size)

    def keep(self, key: Key, value: Value, size: int) -> None:
        """Keep a value of so many bytes, if there is room."""
        with self._lock:
            if key not in self._values and self._make_room(size):
                self.held += size
                self._values[key], self._used[key] = (value, size), self._run

    def find(self, key: Key) -> Value | None:
        """The value of a key; None where it is not kept."""
        with self._lock:
            if key not in self._values:
                return None
            self._values.move_to_end(key)
            self._used[key] = self._run
            return self._values[key][0]

    def drop(self, condition: Callable[[Key], bool]) -> None:
        """Keep nothing any more of which the key meets a condition."""
        with self._lock:
            for key in [key for key in self._values if condition(key)]:
                self._remove(key)

    def _make_room(self, size: int) -> bool:
        while self.held + size > self._bound and self._values:
            oldest = next(iter(self._values))
            if self._used[oldest] == self._run:
                return False
            self._remove(oldest)
        return self.held + size <= self._bound

    def _remove(self, key: Key) -> None:
        self.held -= self._values.pop(key)[1]
        del self._used[key]

"""Work that is begun before it is asked for, and not all at once."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

Item = TypeVar("Item")
Made = TypeVar("Made")


def begun_ahead(items: Iterable[Item], begin: Callable[[Item], Callable[[], Made]], count: int) -> Iterator[Made]:
    """Yield what is made of each item, in order, while what is made of the next ones is under way.

    Args:
        items: Each is asked for when it is about to be begun.
        begin: Begins what is made of an item, in threads for one, and returns what waits for it and gives it.
        count: How many are begun, or done, beside the one that is waited for.
    """
    pending: deque[Callable[[], Made]] = deque()
    for item in items:
        pending.append(begin(item))
        if len(pending) > count:
            yield pending.popleft()()
    while pending:
        yield pending.popleft()()

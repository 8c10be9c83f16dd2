"""Work that is begun ahead: in order, all of it, and never more at once than was said."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from petlbench.core.ahead import begun_ahead


@pytest.mark.parametrize("count", [0, 1, 3, 20])
def test_what_is_made_comes_in_order_and_no_more_is_begun_than_was_said(count: int) -> None:
    begun: list[int] = []

    def begin(item: int) -> Callable[[], int]:
        begun.append(item)
        return lambda: 10 * item

    made = []
    for value in begun_ahead(iter(range(8)), begin, count):
        made.append(value)
        assert len(begun) == min(8, len(made) + count)
    assert made == [0, 10, 20, 30, 40, 50, 60, 70]


def test_of_nothing_nothing_is_made() -> None:
    assert not list(begun_ahead([], lambda item: lambda: item, 2))

"""The search for the largest batch size that fits, against looking at every one."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from petlbench.study.forecast.batch_size import LARGEST, largest_batch_size


@given(base=st.integers(0, 500), rise=st.integers(1, 50), budget=st.integers(1, 2000), known=st.integers(1, 64))
def test_the_answer_fits_and_one_more_does_not(base: int, rise: int, budget: int, known: int) -> None:
    def need(size: int) -> int:
        return base + rise * size

    fitting = [size for size in range(1, LARGEST + 1) if need(size) <= budget]
    assert largest_batch_size(need, budget, predictions={known: need(known)}) == max(fitting, default=0)


def test_few_predictions_are_needed() -> None:
    asked: list[int] = []

    def need(size: int) -> int:
        asked.append(size)
        return 1000 + 37 * size

    assert largest_batch_size(need, 30_000, predictions={16: 1000 + 37 * 16}) == (30_000 - 1000) // 37
    assert len(asked) <= 6

"""The steps that are compared learn as many parameters, petlbench's and those by hand."""

from __future__ import annotations

import pytest

from tests.bench.steps import METHODS, Setting, measure

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("method", METHODS)
def test_both_take_a_step(method: str) -> None:
    row = measure(method, Setting(size=32, batch=2), rounds=1)
    assert min(row.ratio, row.ours, row.by_hand) > 0

"""The thread that reads a figure over and over."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from petlbench.memory.measure import Sampler


def threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "petlbench-memory"]


def test_a_rise_in_the_middle_is_seen() -> None:
    value, readings = 10, threading.Event()

    def read() -> int:
        if value == 900:
            readings.set()
        return value

    sampler = Sampler(read, every=0.001)
    with sampler:
        value = 900
        assert readings.wait(5)
        value = 20
    assert sampler.peak == 900
    assert threads() == []


def test_the_start_and_the_end_are_read_however_short_it_is() -> None:
    values: Iterator[int] = iter([5, 7])
    with Sampler(lambda: next(values), every=60) as sampler:
        assert sampler.peak == 5
    assert sampler.peak == 7


def test_it_stops_when_the_work_fails() -> None:
    sampler = Sampler(lambda: 3, every=0.001)

    def fail() -> None:
        with sampler:
            assert [thread.daemon for thread in threads()] == [True]
            raise MemoryError

    with pytest.raises(MemoryError):
        fail()
    assert threads() == []
    assert sampler.peak == 3


def test_a_figure_that_is_not_always_there_keeps_its_peak() -> None:
    values, done = iter([None, 4, None]), threading.Event()

    def read() -> int | None:
        value = next(values, 0)
        if value == 0:
            done.set()
        return value

    with Sampler(read, every=0.001) as sampler:
        assert done.wait(5)
    assert sampler.peak == 4
    with Sampler(lambda: None, every=60) as never:
        pass
    assert never.peak is None

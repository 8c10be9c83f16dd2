"""The send queue: what is put into it happens once, in its order, and nobody waits for long."""

from __future__ import annotations

import threading
import time
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from petlbench.results.tracking.send_queue import SendQueue
from petlbench.results.tracking.store import Store

NOWHERE = Store("https://mlflow.example.org", Path())


@settings(max_examples=30)
@given(st.lists(st.integers(0, 3), max_size=6))
def test_everything_is_done_once_and_in_order_however_often_it_fails(failures: list[int]) -> None:
    queue, done = SendQueue(NOWHERE), []
    left = list(failures)

    def act(number: int) -> None:
        if left[number]:
            left[number] -= 1
            raise ConnectionError(number)
        done.append(number)

    for number in range(len(failures)):
        queue.put(lambda number=number: act(number))
    attempts = 1
    while not queue.send(10):
        assert isinstance(queue.error, ConnectionError)
        attempts += 1
    assert done == list(range(len(failures)))
    assert attempts == sum(failures) + 1


def test_an_action_that_hangs_is_left_alone_and_finished_by_itself() -> None:
    queue, release, done = SendQueue(NOWHERE), threading.Event(), []

    def hang() -> None:
        release.wait(30)
        done.append("slow")

    queue.put(hang)
    began = time.monotonic()
    assert not queue.send(0.05)
    queue.put(lambda: done.append("next"))
    assert not queue.send(0.05)
    assert time.monotonic() - began < 5
    assert queue.error is None
    release.set()
    assert queue.send(30)
    assert done == ["slow", "next"]


def test_a_store_that_fails_is_left_alone_for_growing_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    queue, tried = SendQueue(NOWHERE), []

    def fail() -> None:
        tried.append(now[0])
        raise ConnectionError

    queue.put(fail)
    for second in range(700):
        now[0] = float(second)
        queue.send_if_due(10)
    pauses = [after - before for before, after in pairwise(tried)]
    assert pauses == sorted(pauses)
    assert pauses[0] == 5
    assert max(pauses) == 300


def test_waiting_costs_a_twentieth_of_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    queue, waited = SendQueue(NOWHERE), []

    def time_out() -> None:
        now[0] += 8
        waited.append(8.0)
        raise TimeoutError

    queue.put(time_out)
    while now[0] < 3000:
        queue.send_if_due(10)
        now[0] += 1
    assert sum(waited) <= 8 + 3000 / 20


def test_what_a_store_refuses_is_dropped_and_said() -> None:
    from mlflow.exceptions import MlflowException

    queue, done = SendQueue(NOWHERE), []

    def refuse() -> None:
        raise MlflowException.invalid_parameter_value("too long")

    queue.put(refuse)
    queue.put(lambda: done.append("next"))
    assert queue.send(10)
    assert done == ["next"]
    assert str(queue.refusal) == "too long"
    assert queue.error is None

"""Work in processes: the same as in one, whole or not at all."""

from __future__ import annotations

import multiprocessing
import os
import signal

import pytest

from petlbench.core.errors import InputError, RunError
from petlbench.core.process_pool import open_workers


def squared(number: int) -> tuple[int, int]:
    return number**2, os.getpid()


def refusing(number: int) -> int:
    if number == 3:
        raise InputError("three is not wanted", hint="take four", kind="bad_setting")
    return number


def vanishing(number: int) -> int:
    os.kill(os.getpid(), signal.SIGKILL)
    return number


@pytest.mark.parametrize("count", [1, 2])
def test_results_come_in_the_order_of_the_items(count: int) -> None:
    done: list[None] = []
    with open_workers(count) as workers:
        results = workers.map(squared, range(20), lambda: done.append(None))
    assert [result for result, _ in results] == [number**2 for number in range(20)]
    assert len(done) == 20
    assert ({process for _, process in results} == {os.getpid()}) == (count == 1)


@pytest.mark.parametrize("count", [1, 2])
def test_an_error_arrives_as_it_was_raised(count: int) -> None:
    with pytest.raises(InputError) as caught, open_workers(count) as workers:
        workers.map(refusing, range(5))
    assert (caught.value.message, caught.value.hint, caught.value.kind) == (
        "three is not wanted",
        "take four",
        "bad_setting",
    )


def test_a_worker_that_is_ended_from_outside_is_said() -> None:
    with pytest.raises(RunError, match="ended from outside"), open_workers(2) as workers:
        workers.map(vanishing, range(2))


def test_no_process_is_left_when_the_work_is_stopped() -> None:
    before = set(multiprocessing.active_children())
    started: set[multiprocessing.process.BaseProcess] = set()

    def stop() -> None:
        started.update(set(multiprocessing.active_children()) - before)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), open_workers(2) as workers:
        workers.map(squared, range(20), stop)
    assert len(started) == 2
    assert set(multiprocessing.active_children()) == before

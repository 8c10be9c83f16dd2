"""The budget of a search: every slot is used up once, whatever its drivers do and whenever they die."""

from __future__ import annotations

import threading
from collections import Counter
from pathlib import Path

import optuna
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from petlbench.results.tracking.store import sqlite_address
from petlbench.sweep.storage import RetryingStorage, open_storage
from petlbench.sweep.trial_queue import Liveness, TrialQueue

SLOTS = 4
ACTIONS = ("take", "finish", "prune", "fail", "give_back", "die")
steps = st.lists(st.tuples(st.integers(0, 2), st.sampled_from(ACTIONS)), max_size=25)


class Driver:
    """One driver with the trials in its hands."""

    def __init__(self, study: optuna.Study, output: Path, retry_failed: bool = False) -> None:
        self.liveness = Liveness(output)
        self.liveness._lock.acquire()
        points = [{"x": float(slot)} for slot in range(SLOTS)]
        self.queue = TrialQueue(study, points, self.liveness, output / "lock", retry_failed=retry_failed)
        self.trials: list[optuna.Trial] = []

    def act(self, action: str) -> None:
        if action == "take":
            trial = self.queue.take(lambda slot: None)
            if trial is not None:
                trial.suggest_float("x", 0, SLOTS)
                self.trials.append(trial)
        elif action == "die":
            self.liveness._lock.release()  # as the system does when a process dies
            self.trials = []
        elif self.trials:
            trial = self.trials.pop()
            if action == "give_back":
                self.queue.give_back(trial)
            else:
                ending = {"finish": "finished", "prune": "pruned", "fail": "failed"}[action]
                self.queue.end(trial, ending, trial.params["x"] if action == "finish" else None)


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("queue")


@pytest.fixture(scope="module")
def storage(output: Path) -> optuna.storages.BaseStorage:
    return open_storage(sqlite_address(output / "sweeps.db"))


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=steps)
def test_every_slot_is_used_up_once(output: Path, storage: optuna.storages.BaseStorage, steps: list) -> None:
    study = optuna.create_study(storage=storage)
    drivers: dict[int, Driver] = {}
    for number, action in steps:
        driver = drivers.get(number) or drivers.setdefault(number, Driver(study, output))
        driver.act(action)
        if action == "die":
            del drivers[number]
    for driver in drivers.values():
        driver.act("die")
    last = Driver(study, output)
    for _ in range(2 * SLOTS):
        last.act("take")
        last.act("finish")
    assert last.queue.all_used()
    assert last.queue.take(lambda slot: None) is None
    counting = [trial for trial in study.get_trials() if last.queue._ends(trial)]
    assert Counter(trial.user_attrs["ticket"] for trial in counting) == dict.fromkeys(range(SLOTS), 1)
    assert {trial.user_attrs["ticket"]: trial.params["x"] for trial in counting} == {n: float(n) for n in range(SLOTS)}
    failed = sum(trial.user_attrs.get("status") == "failed" for trial in counting)
    last.liveness._lock.release()

    again = Driver(study, output, retry_failed=True)
    for _ in range(2 * SLOTS):
        again.act("take")
        again.act("finish")
    finished = [trial for trial in study.get_trials() if trial.state.name == "COMPLETE"]
    pruned = [trial for trial in study.get_trials() if trial.state.name == "PRUNED"]
    assert len(finished) + len(pruned) == SLOTS, f"{failed} were tried again"
    again.liveness._lock.release()


def test_what_waits_is_not_given_up(output: Path, storage: optuna.storages.BaseStorage) -> None:
    study = optuna.create_study(storage=storage)
    drivers = [Driver(study, output) for _ in range(2)]
    for driver in drivers:
        driver.act("take")
        driver.act("finish")
    assert Counter(trial.state.name for trial in study.get_trials()) == {"COMPLETE": 2, "WAITING": SLOTS - 2}
    for driver in drivers:
        driver.act("die")


def test_a_failure_uses_its_slot_up(output: Path, storage: optuna.storages.BaseStorage) -> None:
    driver = Driver(optuna.create_study(storage=storage), output)
    for _ in range(SLOTS):
        driver.act("take")
        driver.act("fail")
    assert driver.queue.all_used()
    assert driver.queue.take(lambda slot: None) is None
    driver.act("die")


def test_trials_that_are_lost_are_counted_and_those_that_ended_are_not(
    output: Path, storage: optuna.storages.BaseStorage
) -> None:
    study = optuna.create_study(storage=storage)
    first, second = Driver(study, output), Driver(study, output)
    for action in ("take", "fail", "take", "finish", "take", "prune", "take"):
        first.act(action)
    assert first.queue.retries == 0
    first.act("die")
    second.act("take")
    second.act("finish")
    assert second.queue.all_used()
    assert second.queue.retries == 1
    second.act("die")


def test_a_driver_that_ends_gives_back_what_it_has(output: Path, storage: optuna.storages.BaseStorage) -> None:
    study = optuna.create_study(storage=storage)
    first, second = Driver(study, output), Driver(study, output)
    with first.queue:
        first.act("take")
    assert [trial.state.name for trial in study.get_trials()].count("RUNNING") == 0
    second.act("take")
    assert [trial.params["x"] for trial in second.trials] == [0.0]
    for driver in (first, second):
        driver.act("die")


def test_two_drivers_never_take_one_trial(
    output: Path, storage: optuna.storages.BaseStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between reading a trial's state and writing it a database may be slow, and the other driver quick."""
    study = optuna.create_study(storage=storage)
    drivers = [Driver(study, output) for _ in range(2)]
    drivers[0].act("take")  # makes the slots
    check = RetryingStorage.check_trial_is_updatable

    def slowly(self: RetryingStorage, trial_id: int, state: optuna.trial.TrialState) -> None:
        threading.Event().wait(0.3)
        check(self, trial_id, state)

    monkeypatch.setattr(RetryingStorage, "check_trial_is_updatable", slowly)
    threads = [threading.Thread(target=driver.queue.take, args=(lambda slot: None,)) for driver in drivers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)
    mine = [driver.queue._mine for driver in drivers]
    assert [len(trials) for trials in mine] == [2, 1]
    assert mine[0].isdisjoint(mine[1])

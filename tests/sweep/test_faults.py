"""Searches by real drivers in processes of their own: two at once, killed, without a database, on two workers."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from PIL import Image

from petlbench.results.journal import read_journal
from petlbench.sweep.storage import open_storage
from tests.results.tracking.servers import PostgresServer

pytestmark = pytest.mark.slow

SWEEP = """
title = "Grid of 24"
sampler = "grid"
seeds = [0]

[space.training]
lr = { low = 1e-4, high = 1e-1, log = true, points = 6 }
weight_decay = [0, 1e-4, 1e-2, 1e-1]
"""
TRIALS = 24


@pytest.fixture
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgresServer]:
    server = PostgresServer(tmp_path_factory.mktemp("postgres"))
    server.start()
    yield server
    server.kill()


@dataclass
class Here:
    """A folder with images and a sweep, in which drivers are started."""

    folder: Path

    def start(self, name: str, *options: str) -> subprocess.Popen[bytes]:
        """Start a driver; its output goes to NAME.json and NAME.log."""
        command = [sys.executable, "-m", "petlbench", "sweep", "grid", "--method", "linear", "--dataset", "pictures"]
        command += ["--backbone", "petlbench_micro", "--image-size", "32", "--epochs", "2"]
        command += ["--device", "cpu", "--threads", "1"]
        command += ["--tracking-uri", "none", "--catalog", "mine", "--json", *options]
        environment = {**os.environ, "OMP_WAIT_POLICY": "PASSIVE"}
        with (self.folder / f"{name}.json").open("wb") as out, (self.folder / f"{name}.log").open("wb") as log:
            return subprocess.Popen(command, cwd=self.folder, stdout=out, stderr=log, env=environment)

    def said(self, name: str) -> str:
        # Lines are folded at the width of a terminal.
        return " ".join((self.folder / f"{name}.log").read_text().split())

    def found(self, name: str) -> Any:
        return json.loads((self.folder / f"{name}.json").read_text())

    def ended(self) -> Counter[str]:
        """How often each run of a trial finished, by the journal."""
        lines = read_journal(self.folder / "results" / "trials")
        return Counter(line["run_id"] for line in lines if (line["event"], line.get("status")) == ("ended", "finished"))

    def wait_for(self, trials: int, *drivers: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + 600
        while self.ended().total() < trials:
            assert time.monotonic() < deadline
            assert any(driver.poll() is None for driver in drivers), "the drivers ended early"
            time.sleep(0.1)


@pytest.fixture
def here(tmp_path: Path) -> Here:
    rng = np.random.default_rng(0)
    for name in ("cat", "dog"):
        (tmp_path / "pictures" / name).mkdir(parents=True)
        for number in range(10):
            pixels = rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "pictures" / name / f"{number}.png")
    (tmp_path / "mine" / "sweeps").mkdir(parents=True)
    (tmp_path / "mine" / "sweeps" / "grid.toml").write_text(SWEEP)
    return Here(tmp_path)


def check(here: Here, name: str, address: str) -> None:
    """24 finished trials, none twice, as the driver, the journal and the storage have it."""
    found = here.found(name)
    assert Counter(trial["status"] for trial in found["trials"]) == {"finished": TRIALS}
    assert len({json.dumps(trial["params"], sort_keys=True) for trial in found["trials"]}) == TRIALS
    assert here.ended() == Counter({trial["run_id"]: 1 for trial in found["trials"]})
    study = optuna.load_study(study_name=found["search"], storage=open_storage(address))
    states = Counter(trial.state.name for trial in study.trials)
    assert states["COMPLETE"] == TRIALS
    assert set(states) <= {"COMPLETE", "FAIL"}


def finish(*drivers: subprocess.Popen[bytes]) -> None:
    for driver in drivers:
        assert driver.wait(timeout=900) == 0


def test_two_local_workers(here: Here) -> None:
    finish(here.start("one", "--workers", "2"))
    check(here, "one", f"sqlite:///{here.folder}/results/sweeps.db")


def test_a_driver_that_is_killed_and_started_again(here: Here) -> None:
    driver = here.start("first", "--workers", "0")
    for trials in (3, 9, 17):
        here.wait_for(trials, driver)
        driver.send_signal(signal.SIGKILL)
        driver.wait()
        driver = here.start("last", "--workers", "0")
    finish(driver)
    check(here, "last", f"sqlite:///{here.folder}/results/sweeps.db")


@pytest.mark.short
@pytest.mark.needs("postgres")
def test_a_search_is_kept_in_postgresql(here: Here, postgres: PostgresServer) -> None:
    finish(here.start("one", "--workers", "0", "--trials", "3", "--storage", postgres.address))
    study = optuna.load_study(study_name=here.found("one")["search"], storage=open_storage(postgres.address))
    assert [trial.state.name for trial in study.trials] == ["COMPLETE"] * 3
    assert [trial.params for trial in study.trials] == [trial["params"] for trial in here.found("one")["trials"]]


@pytest.mark.needs("postgres")
def test_two_drivers_share_postgresql(here: Here, postgres: PostgresServer) -> None:
    finish(*[here.start(name, "--workers", "0", "--storage", postgres.address) for name in ("one", "two")])
    assert here.found("one")["trials"] == here.found("two")["trials"]
    assert all("trial " in here.said(name) for name in ("one", "two")), "both had a share"
    check(here, "one", postgres.address)


@pytest.mark.needs("postgres")
def test_one_of_two_drivers_is_killed(here: Here, postgres: PostgresServer) -> None:
    one, two = (here.start(name, "--workers", "0", "--storage", postgres.address) for name in ("one", "two"))
    here.wait_for(TRIALS // 2, one, two)
    two.send_signal(signal.SIGKILL)
    two.wait()
    finish(one)
    check(here, "one", postgres.address)


@pytest.mark.needs("postgres")
def test_postgresql_is_gone_for_half_a_minute(here: Here, postgres: PostgresServer) -> None:
    drivers = [here.start(name, "--workers", "0", "--storage", postgres.address) for name in ("one", "two")]
    here.wait_for(4, *drivers)
    postgres.kill()
    time.sleep(30)
    postgres.start()
    finish(*drivers)
    check(here, "one", postgres.address)
    for name in ("one", "two"):
        assert here.said(name).count("does not answer") == 1
        assert here.said(name).count("answers again") == 1


@pytest.mark.needs("ray")
def test_two_ray_nodes_of_which_one_dies(here: Here) -> None:
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    try:
        second = cluster.add_node(num_cpus=1)
        options = ("--executor", "ray", "--ray-address", cluster.address, "--workers", "2")
        driver = here.start("one", *options)
        here.wait_for(TRIALS // 2, driver)
        cluster.remove_node(second, allow_graceful=False)
        finish(driver)
    finally:
        cluster.shutdown()
    check(here, "one", f"sqlite:///{here.folder}/results/sweeps.db")

"""Searches by real drivers in processes of their own: two at once, killed, without a database, on two workers."""

from __future__ import annotations

import json
import os
import pwd
import shutil
import signal
import socket
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


@dataclass
class Server:
    """A PostgreSQL cluster on loopback, which can be stopped and started."""

    folder: Path
    port: int
    user: str

    @property
    def address(self) -> str:
        return f"postgresql://petlbench@127.0.0.1:{self.port}/postgres"

    def control(self, *arguments: str) -> None:
        command = ["pg_ctl", "-D", self.folder / "data", "-w", "-l", self.folder / "log", *arguments]
        self.call(*map(str, command))

    def call(self, *command: str) -> None:
        demoted: dict[str, Any] = {"user": self.user} if os.geteuid() == 0 else {}
        environment = {**os.environ, "PATH": f"{_programs()}:{os.environ['PATH']}"}
        subprocess.run(
            command, check=True, capture_output=True, cwd=self.folder, env=environment, timeout=120, **demoted
        )

    def start(self) -> None:
        self.control("-o", f"-p {self.port} -h 127.0.0.1 -k {self.folder}", "start")

    def stop(self) -> None:
        self.control("-m", "immediate", "stop")


def _programs() -> str | None:
    found = shutil.which("initdb")
    there = [Path(found).resolve().parent] if found else []
    return next((str(path) for path in [*there, *Path("/usr/lib/postgresql").glob("*/bin")] if path.is_dir()), None)


@pytest.fixture
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    if _programs() is None:
        pytest.skip("PostgreSQL is not installed (apt-get install postgresql)")
    names = {entry.pw_name for entry in pwd.getpwall()}
    user = "postgres" if "postgres" in names else "nobody"
    # Another user must be able to reach it, which pytest's own folders do not allow.
    folder = Path("/tmp") / f"petlbench-postgres-{os.getpid()}-{time.monotonic_ns()}"
    folder.mkdir()
    if os.geteuid() == 0:
        shutil.chown(folder, user)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        server = Server(folder, free.getsockname()[1], user)
    server.call("initdb", "-D", str(folder / "data"), "-U", "petlbench", "-A", "trust", "--no-sync")
    server.start()
    yield server
    server.stop()
    shutil.rmtree(folder, ignore_errors=True)


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


def test_two_drivers_share_postgresql(here: Here, postgres: Server) -> None:
    finish(*[here.start(name, "--workers", "0", "--storage", postgres.address) for name in ("one", "two")])
    assert here.found("one")["trials"] == here.found("two")["trials"]
    assert all("trial " in here.said(name) for name in ("one", "two")), "both had a share"
    check(here, "one", postgres.address)


def test_one_of_two_drivers_is_killed(here: Here, postgres: Server) -> None:
    one, two = (here.start(name, "--workers", "0", "--storage", postgres.address) for name in ("one", "two"))
    here.wait_for(TRIALS // 2, one, two)
    two.send_signal(signal.SIGKILL)
    two.wait()
    finish(one)
    check(here, "one", postgres.address)


def test_postgresql_is_gone_for_half_a_minute(here: Here, postgres: Server) -> None:
    drivers = [here.start(name, "--workers", "0", "--storage", postgres.address) for name in ("one", "two")]
    here.wait_for(4, *drivers)
    postgres.stop()
    time.sleep(30)
    postgres.start()
    finish(*drivers)
    check(here, "one", postgres.address)
    for name in ("one", "two"):
        assert here.said(name).count("does not answer") == 1
        assert here.said(name).count("answers again") == 1


def test_two_ray_nodes_of_which_one_dies(here: Here) -> None:
    ray_cluster = pytest.importorskip("ray.cluster_utils")
    cluster = ray_cluster.Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
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

"""A study that is killed at random moments ends with the table of one that nobody touched, to the last digit."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from petlbench.results.journal import read_journal

KILLS = 5
SEED = int(os.environ.get("PETLBENCH_KILL_SEED", "20"))

METHODS = os.environ.get("PETLBENCH_KILL_METHODS", "full,linear,mlp_head")

STUDY = (
    "bench", "--method", METHODS, "--dataset", "digits,lesions", "--seed", "0,1,2", "--epochs", "2",
    "--backbone", "petlbench_micro", "--image-size", "32", "--threads", "1", "--device", "cpu", "--workers", "1",
    "--set", "lesions.image_count=120", "--set", "lesions.image_size=128", "--tracking-uri", "none", "--json",
)  # fmt: skip

pytestmark = pytest.mark.slow


def start(folder: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "petlbench", *STUDY, "--output", str(folder / "results")]
    environment = {**os.environ, "OMP_WAIT_POLICY": "PASSIVE", "PETLBENCH_CACHE": str(folder / "cache")}
    return subprocess.Popen(
        command,
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def finish(folder: Path) -> dict[str, Any]:
    """Let the study go on to its end."""
    process = start(folder)
    out, err = process.communicate()
    assert process.returncode == 0, err
    document: dict[str, Any] = json.loads(out)
    return document


def kill(folder: Path, seconds: float, *, with_workers: bool) -> int:
    """Let the study work for so long and kill it; return how many runs had ended then."""
    process, before = start(folder), len(read_journal(folder / "results"))
    while len(read_journal(folder / "results")) == before:
        assert process.poll() is None, "it ended before it was killed"
        time.sleep(0.1)
    time.sleep(seconds)
    assert process.poll() is None, "it ended before it was killed"
    # A worker that outlives its driver ends by itself, and until then nobody else takes its run.
    workers = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split() if with_workers else []
    for pid in (process.pid, *map(int, workers)):
        os.kill(pid, signal.SIGKILL)
    process.communicate()
    return ended(folder)


def ended(folder: Path) -> int:
    return sum(line["event"] == "ended" for line in read_journal(folder / "results"))


def table(document: dict[str, Any]) -> dict[str, Any]:
    """All that a study found, without the time that it took."""
    cells = [{name: value for name, value in cell.items() if name != "seconds"} for cell in document["cells"]]
    return {"runs": document["runs"], "cells": cells, "best": document["best"]}


def lost_epochs(journal: list[dict[str, Any]]) -> dict[str, int]:
    """For each run, the epochs that were trained more than once."""
    trained: dict[str, Counter[int]] = {}
    for line in journal:
        if line["event"] == "epoch":
            trained.setdefault(line["run_id"], Counter())[line["epoch"]] += 1
    return {run: sum(count - 1 for count in epochs.values()) for run, epochs in trained.items()}


def test_a_study_killed_five_times_ends_as_one_that_nobody_touched(tmp_path: Path) -> None:
    for name in ("whole", "broken"):
        (tmp_path / name).mkdir()
    began = time.monotonic()
    whole = finish(tmp_path / "whole")
    duration = time.monotonic() - began

    rng, told = random.Random(SEED), []
    for number in range(KILLS):
        seconds = rng.uniform(0, duration / (KILLS + 2))
        with_workers = number % 2 == 0
        finished = kill(tmp_path / "broken", seconds, with_workers=with_workers)
        what = "driver and worker" if with_workers else "driver"
        told.append(
            f"kill {number + 1} ({what}): {seconds:.1f} s after the first sign of work, {finished} of 18 runs ended"
        )
    broken = finish(tmp_path / "broken")

    journal = read_journal(tmp_path / "broken" / "results")
    finished_lines = Counter(line["run_id"] for line in journal if line["event"] == "ended")
    attempts = Counter(line["run_id"] for line in journal if line["event"] == "started")
    lost = lost_epochs(journal)
    print(f"\nunbroken study: {duration:.0f} s", *told, sep="\n")
    print(f"attempts: {sum(attempts.values())} for {len(attempts)} runs; trained twice: {sum(lost.values())} epochs")
    for cell in broken["cells"]:
        print(f"{cell['method']:>8} {cell['dataset']:>8}: test AUC {cell['auc']['mean']!r} ± {cell['auc']['std']!r}")

    assert table(broken) == table(whole)
    assert {one["status"] for one in broken["runs"]} == {"finished"}
    # A kill between a result's last rename and its line leaves no line; the result stands, and is not made again.
    assert set(finished_lines.values()) == {1}
    assert len(finished_lines) >= len(broken["runs"]) - KILLS
    assert all(line["status"] == "finished" for line in journal if line["event"] == "ended")
    assert sum(lost.values()) <= KILLS
    assert all(epochs <= 1 for epochs in lost.values())
    assert not list((tmp_path / "broken" / "results").glob("*/*.tmp"))

"""Two drivers that are real processes, and a disk that is full."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from petlbench.results.journal import read_journal

pytestmark = pytest.mark.slow

SMALL = ("--backbone", "petlbench_micro", "--image-size", "32", "--epochs", "2", "--device", "cpu", "--threads", "1")


def driver(output: Path, images: Path, cache: Path, *more: str) -> subprocess.Popen[str]:
    study = ("--dataset", f"{images / 'one'},{images / 'two'}", "--tracking-uri", "none", "--workers", "1", "--json")
    command = [sys.executable, "-m", "petlbench", "bench", *study, *SMALL, "--output", str(output), *more]
    environment = {**os.environ, "PETLBENCH_CACHE": str(cache), "OMP_WAIT_POLICY": "PASSIVE"}
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def ended(process: subprocess.Popen[str]) -> tuple[int, Any]:
    out, err = process.communicate()
    assert out, err
    return process.returncode, json.loads(out)


def figures(document: dict[str, Any]) -> list[tuple[str, Any, Any]]:
    return [(one["run_id"], one["metrics"], one["scores"]) for one in document["runs"]]


def test_two_drivers_started_at_once_train_each_run_once(images: Path, tmp_path: Path) -> None:
    output = tmp_path / "results"
    matrix = ("--method", "full,linear,bitfit", "--seed", "0,1")
    both = [driver(output, images, tmp_path / "cache", *matrix) for _ in range(2)]
    (status, first), (other_status, second) = map(ended, both)
    assert (status, other_status) == (0, 0)
    assert figures(first) == figures(second)
    journal = read_journal(output)
    for event in ("started", "ended"):
        assert Counter(line["run_id"] for line in journal if line["event"] == event) == {
            one["run_id"]: 1 for one in first["runs"]
        }
    assert len({line["pid"] for line in journal}) == 2


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 4 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)]
    mount = subprocess.run(command, capture_output=True, check=False)
    if mount.returncode:
        pytest.skip("only root can mount a small disk")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_costs_nothing_that_was_finished(images: Path, tmp_path: Path, small_disk: Path) -> None:
    output, cache = small_disk / "results", tmp_path / "cache"
    status, before = ended(driver(output, images, cache, "--method", "linear"))
    assert status == 0

    # full learns some 7 MiB, which the disk has no room for; nor has it for much else when it is full.
    status, during = ended(driver(output, images, cache, "--method", "linear,full"))
    assert status == 1
    statuses = {one["method"]: one["status"] for one in during["runs"]}
    assert statuses == {"linear": "finished", "full": "failed"}
    assert [one for one in figures(during) if one[0].startswith("linear")] == figures(before)
    assert all(one["error"]["message"] for one in during["runs"] if one["status"] == "failed")
    for file in output.glob("*/result.json"):
        json.loads(file.read_text())
    assert not list(output.glob("*/.*.tmp"))

    subprocess.run(["mount", "-o", "remount,size=256m", str(small_disk)], check=True)
    status, after = ended(driver(output, images, cache, "--method", "linear,full", "--retry-failed"))
    assert status == 0
    whole = ended(driver(tmp_path / "other", images, cache, "--method", "linear,full"))[1]
    assert figures(after) == figures(whole)

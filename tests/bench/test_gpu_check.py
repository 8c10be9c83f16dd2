"""The comparison of measured and predicted memory, tried on the CPU, where allocated memory is all there is."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.bench.gpu_check import TimeIsUp, ends_at, gpu_tests
from tests.bench.gpu_memory import run_until

ROOT = Path(__file__).parents[2]
SMALL = ("--backbone", "test_vit", "--image-size", "64", "--batch-size", "4", "--kernels", "eager,fused")
NO_STEPS = ("--step-sizes", "")

pytestmark = pytest.mark.slow


def check(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tests.bench.gpu_check", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)


def test_runs_on_the_cpu_take_what_was_predicted() -> None:
    done = check("--device", "cpu", "--methods", "lora,unknown", "--json", *SMALL, *NO_STEPS)
    assert done.returncode == 0, done.stderr
    document: dict[str, Any] = json.loads(done.stdout)
    ran, refused = document["rows"][:4], document["rows"][4:]
    settings = [("eager", "fp32"), ("eager", "bf16"), ("fused", "fp32"), ("fused", "bf16")]
    for rows in (ran, refused):
        assert [(row["attention_kernel"], row["precision"]) for row in rows] == settings
    for row in ran:
        assert row["status"] == "finished", row["message"]
        assert row["measured"]["allocated"] > 2**20
        assert abs(row["difference"]["allocated"]) <= 0.001
        assert row["measured"]["reserved"] is row["predicted"]["process"] is row["difference"]["process"] is None
    assert len({row["measured"]["allocated"] for row in ran}) > 2
    assert all("unknown" in row["message"] and not row["measured"] for row in refused)
    worst = max(abs(row["difference"]["allocated"]) for row in ran)
    assert document["summary"]["allocated"]["worst"] == worst
    assert document["summary"]["reserved"] == {"worst": None, "mean": None}


def test_all_of_it_in_its_smallest_form() -> None:
    done = check("--device", "cpu", "--tiny", "--methods", "lora,fpt", "--minutes", "60", "--json")
    assert done.returncode == 0, done.stderr
    document: dict[str, Any] = json.loads(done.stdout)
    assert [row["agrees"] for row in document["golden"]] == [True, True]
    assert [(row["method"], row["status"]) for row in document["rows"]] == [
        (method, "finished") for method in ("lora", "lora", "fpt", "fpt")
    ]
    settings = [(step["setting"]["size"], step["setting"]["precision"]) for step in document["steps"]]
    assert settings == [(32, "fp32"), (32, "bf16")]
    for step in document["steps"]:
        assert [row["method"] for row in step["rows"]] == ["lora", "fpt"]
        assert all(min(row["ratio"], row["ours"], row["by_hand"]) > 0 for row in step["rows"])
    assert [(row["method"], row["agrees"]) for row in document["compiled"]] == [("linear", True)]
    assert not document["left_out"]
    assert not document["failed"]


def test_when_time_is_up_all_that_is_left_is_named() -> None:
    done = check("--device", "cpu", "--tiny", "--methods", "lora", "--minutes", "0")
    assert done.returncode == 1, done.stderr
    parts = ["golden data", "memory, tests", "steps at 32 in fp32", "steps at 32 in bf16", "compiled methods"]
    assert [line for line in done.stdout.splitlines() if line.startswith("left out")] == [
        f"left out or cut short, 0 minutes: {part}" for part in parts
    ]


def test_a_run_that_would_go_on_is_ended() -> None:
    began = time.monotonic()
    with pytest.raises(subprocess.TimeoutExpired):
        run_until(began + 0.2, [sys.executable, "-c", "import time; time.sleep(60)"])
    with pytest.raises(TimeIsUp), ends_at(began + 0.3):
        time.sleep(60)
    assert time.monotonic() - began < 30


def test_tests_that_need_a_gpu_are_found_and_reported() -> None:
    assert "skipped" in gpu_tests(time.monotonic() + 600) or torch.cuda.is_available()


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has what the command asks for")
def test_without_cuda_it_says_so_in_one_line() -> None:
    done = check()
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.splitlines() == ["gpu-check: no device cuda here; --device cpu compares allocated memory"]

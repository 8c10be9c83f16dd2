"""The comparison of measured and predicted memory, tried on the CPU, where allocated memory is all there is."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

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
    done = check("--device", "cpu", "--tiny", "--methods", "lora,fpt", "--minutes", "0", "--json")
    assert done.returncode == 0, done.stderr
    document: dict[str, Any] = json.loads(done.stdout)
    assert [row["agrees"] for row in document["golden"]] == [True, True]
    settings = [(step["setting"]["size"], step["setting"]["precision"]) for step in document["steps"]]
    assert settings == [(32, "fp32"), (32, "bf16")]
    for step in document["steps"]:
        assert [row["method"] for row in step["rows"]] == ["lora", "fpt"]
        assert all(min(row["ratio"], row["ours"], row["by_hand"]) > 0 for row in step["rows"])
    assert {(row["status"], row["message"]) for row in document["rows"]} == {("left out", "0 minutes are over")}


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has what the command asks for")
def test_without_cuda_it_says_so_in_one_line() -> None:
    done = check()
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.splitlines() == ["gpu-check: no device cuda here; --device cpu compares allocated memory"]

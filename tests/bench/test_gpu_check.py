"""The comparison of measured and predicted memory, tried on the CPU, where allocated memory is all there is."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

SCRIPT = Path(__file__).with_name("gpu_check.py")
SMALL = ("--backbone", "test_vit", "--image-size", "64", "--batch-size", "4")

pytestmark = pytest.mark.slow


def check(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, SCRIPT, *arguments], capture_output=True, text=True, check=False)


def test_runs_on_the_cpu_take_what_was_predicted() -> None:
    done = check("--device", "cpu", "--methods", "lora,unknown", "--json", *SMALL)
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


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has what the command asks for")
def test_without_cuda_it_says_so_in_one_line() -> None:
    done = check()
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.splitlines() == ["gpu-check: no device cuda here; --device cpu compares allocated memory"]

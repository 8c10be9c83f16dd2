"""What is true of steps on a GPU alone; ``make gpu-check`` runs these tests."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest
import torch

from petlbench.data.loader import Batch
from tests.bench.compiled import compare_compiled
from tests.bench.on_device import compare_golden
from tests.bench.steps import Setting, ours

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]

SMALL = Setting("vit_tiny_patch16_224", size=32, batch=4, device="cuda")


@contextmanager
def nothing_read_back() -> Iterator[None]:
    """While entered, whatever waits for the device raises an error."""
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("method", ["full", "lora", "fpt"])
def test_a_step_reads_nothing_back(method: str, precision: str) -> None:
    mine = ours(method, replace(SMALL, precision=precision))
    step = mine.step()
    step()  # the first one makes what stays
    host = Batch(mine.batch.index, {}, mine.batch.labels.cpu().pin_memory())
    with nothing_read_back():
        for _ in range(3):
            host.to(torch.device("cuda"))
            step()


def test_compiled_a_step_gives_the_same() -> None:
    row = compare_compiled("fpt", SMALL, rounds=1)
    assert row.agrees, row


def test_golden_data_of_fpt() -> None:
    rows = compare_golden("cuda")
    assert len(rows) == 2
    assert all(row.agrees for row in rows), rows

"""Small feature sets in a cache, and processes that use them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
import torch

from petlbench.features.locks import USED
from petlbench.features.store import plan_store
from petlbench.models.method import FeatureSpec, TensorSpec

SPEC = FeatureSpec("fine", {"feature": "final"}, {"final": TensorSpec((8,))})

# Says that it has begun, and goes on until its input ends. The module needs no torch, and starts at once.
HOLD = """
import sys
from pathlib import Path
from petlbench.features.locks import hold
lock = hold(Path(sys.argv[1]))
print("held", flush=True)
sys.stdin.read()
"""

MakeSet = Callable[..., Path]
Use = Callable[[Path], subprocess.Popen[str]]


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """The folder of a cache that is not there yet."""
    return tmp_path / "cache"


@pytest.fixture
def make_set(cache: Path) -> MakeSet:
    """Make a feature set of some images that was used so many seconds after 1970; returns its folder."""

    def make(backbone: str, images: int = 3, used: float = 1_000_000) -> Path:
        store = plan_store(cache, SPEC, "fp32", {"backbone": backbone, "weights": "w", "image_size": 32}).open()
        names = [f"{backbone}-{number}" for number in range(images)]
        store.fill(names, lambda positions: {"final": torch.ones(len(positions), 8)})
        assert store.lock is not None
        store.lock.close()
        os.utime(store.folder / USED, (used, used))
        return store.folder

    return make


@contextmanager
def process_that_uses(folder: Path) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", HOLD, str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        try:
            yield process
        finally:
            process.kill()


@pytest.fixture
def use() -> Iterator[Use]:
    """Start a process that uses a feature set until the test ends."""
    with ExitStack() as stack:
        yield lambda folder: stack.enter_context(process_that_uses(folder))

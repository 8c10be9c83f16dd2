"""Small runs on images that are real files, and someone who watches them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from petlbench.core.catalog import Catalog
from petlbench.core.request import Request
from petlbench.run.options import RunOptions
from petlbench.run.resolve import resolve
from petlbench.study.executors.job import Job
from tests.study.executors.watching import Watcher

# Methods that do what goes wrong: each as a head on the frozen backbone that misbehaves in its forward pass.
METHODS = """
import os
import time

import torch

from petlbench import Adapted, Classifier, Method, MethodCard, MethodSettings, TrainingDefaults


class Troubled(Classifier):
    trouble = "none"

    def forward(self, inputs):
        if self.trouble == "hang":
            time.sleep(3600)
        if self.trouble == "slow":
            time.sleep(0.05)
        if self.trouble == "raise":
            raise ValueError("this method does not work")
        if self.trouble == "memory":
            torch.empty(10**16)
        if self.trouble == "die":
            os.kill(os.getpid(), 9)
        return super().forward(inputs)


class Settings(MethodSettings):
    trouble: str = "none"


class TroubledMethod(Method[Settings]):
    card = MethodCard(name="troubled", title="Troubled", family="own", year=2026, paper="none")
    Settings = Settings
    defaults = TrainingDefaults(lr=0.1)

    def adapt(self, backbone, num_classes):
        module = Troubled(backbone, num_classes)
        module.trouble = self.settings.trouble
        return Adapted(module, frozenset({"head.bias", "head.weight"}))
"""

MakeJob = Callable[..., Job]


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes of twenty noisy images whose mean colour tells the class, most of the time."""
    folder, rng = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
    for label, name in enumerate(("red", "green")):
        (folder / name).mkdir()
        for number in range(20):
            pixels = rng.integers(0, 200, (32, 32, 3))
            pixels[..., label] += rng.integers(0, 55)
            Image.fromarray(pixels.astype(np.uint8)).save(folder / name / f"{number:02d}.png")
    return folder


@pytest.fixture(scope="session")
def own(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A catalogue folder with the method ``troubled``."""
    folder = tmp_path_factory.mktemp("own")
    (folder / "troubled.py").write_text(METHODS)
    return folder


@pytest.fixture
def make_job(images: Path, own: Path, tmp_path: Path) -> MakeJob:
    """Makes a job of this test's output folder."""

    def make(seed: int = 0, *, epochs: int = 2, trouble: str = "none", timeout: float | None = None) -> Job:
        request = Request(
            "troubled",
            str(images),
            backbone="petlbench_micro",
            image_size=32,
            training={"epochs": epochs, "batch_size": 8},
            method_settings={"trouble": trouble},
            device="cpu",
            threads=1,
            seed=seed,
        )
        options = RunOptions(tmp_path / "results", tmp_path / "data", tmp_path / "cache", (own,), "none")
        return Job(resolve(request, Catalog((own,)), options.data_root).config, options, timeout)

    return make


@pytest.fixture
def watcher() -> Watcher:
    """One that lets everything go on."""
    return Watcher()

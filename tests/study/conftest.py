"""A small study on images that are real files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from petlbench.core.catalog import Catalog
from petlbench.core.request import Request
from petlbench.run.options import RunOptions
from petlbench.study.grid import Grid
from petlbench.study.planned_run import PlannedRun
from petlbench.study.runner import Study

MakeStudy = Callable[..., Study]


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two datasets, ``one`` and ``two``, of two classes of ten images each."""
    folder, rng = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
    for dataset in ("one", "two"):
        for label, name in enumerate(("red", "green")):
            (folder / dataset / name).mkdir(parents=True)
            for number in range(10):
                pixels = rng.integers(0, 200, (32, 32, 3))
                pixels[..., label] += rng.integers(0, 55)
                Image.fromarray(pixels.astype(np.uint8)).save(folder / dataset / name / f"{number:02d}.png")
    return folder


@pytest.fixture(scope="session")
def request_() -> Request:
    """What holds for all runs of the tests."""
    return Request(
        "",
        backbone="petlbench_micro",
        image_size=32,
        training={"epochs": 2, "batch_size": 8},
        device="cpu",
        threads=1,
    )


@pytest.fixture
def options(tmp_path: Path) -> RunOptions:
    """Where a test's runs read and write."""
    return RunOptions(tmp_path / "results", tmp_path / "data", tmp_path / "cache", tracking_uri="none")


@pytest.fixture(scope="session")
def plans(images: Path, request_: Request) -> list[PlannedRun]:
    """Three methods on two datasets with two seeds; the reference of PME stands last."""
    datasets = [str(images / "one"), str(images / "two")]
    return Grid(["linear", "bitfit", "full"], datasets, [0, 1], request_).plans(Catalog(), images)


@pytest.fixture
def make_study(plans: list[PlannedRun], options: RunOptions) -> MakeStudy:
    """Makes a study of this test's output folder."""

    def make(**changes: object) -> Study:
        values = {"name": "table", "plans": plans, "options": options} | changes
        return Study(**values)  # type: ignore[arg-type]

    return make

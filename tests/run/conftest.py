"""Images that several tests of runs train on, and the command that trains."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from petlbench.cli.app import run_command


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three classes of twenty noisy images whose mean colour tells the class, most of the time."""
    folder, rng = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
    for label, name in enumerate(("red", "green", "blue")):
        (folder / name).mkdir()
        for number in range(20):
            pixels = rng.integers(0, 200, (40, 40, 3))
            pixels[..., label] += rng.integers(0, 55)
            Image.fromarray(pixels.astype(np.uint8)).save(folder / name / f"{number:02d}.png")
    return folder


@pytest.fixture
def run_document(images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., dict[str, Any]]:
    """Run petlbench in this process and return its JSON document with the exit status in it."""

    def call(*arguments: str, dataset: Path = images, output: Path = tmp_path / "results") -> dict[str, Any]:
        capsys.readouterr()
        common = ("--dataset", str(dataset), "--output", str(output), "--tracking-uri", "none", "--json")
        status = run_command(["run", *arguments, *common])
        document: dict[str, Any] = json.loads(capsys.readouterr().out)
        return {**document, "exit_status": status}

    return call

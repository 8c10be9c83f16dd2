"""The command line in this process: an empty working folder, small pictures, and what every refusal has in common."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from petlbench.cli.app import run_command

# A run that takes less than a second: the backbone that travels with petlbench, at 32 pixels, one epoch.
QUICK = ("--backbone", "petlbench_micro", "--image-size", "32")
QUICK_TRAINING = ("--epochs", "1", "--device", "cpu", "--threads", "1")


@dataclass(frozen=True)
class Outcome:
    """What a command left: its exit status and its two streams."""

    status: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        """The one JSON document on standard output."""
        return json.loads(self.out)


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder; nothing in the environment points out of it."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    for name in ("PETLBENCH_DATA", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)
    # Help and tables are as wide as the terminal, and a narrow one breaks names in two.
    monkeypatch.setenv("COLUMNS", "200")
    return folder


@pytest.fixture
def cli(capfd: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    """Run a command and collect what it says."""

    def call(*arguments: str | Path) -> Outcome:
        capfd.readouterr()
        status = run_command([str(argument) for argument in arguments])
        streams = capfd.readouterr()
        return Outcome(status, streams.out, streams.err)

    return call


@pytest.fixture
def refused(cli: Callable[..., Outcome], here: Path) -> Callable[..., dict[str, str]]:
    """Run a command that must be refused with ``--json`` and return its error.

    What is asked of every refusal is asked here: the status, one JSON document on standard output, a next step, and
    not a file more than before.
    """

    def call(*arguments: str | Path, status: int = 2) -> dict[str, str]:
        before = sorted(here.rglob("*"))
        told = cli(*arguments, "--json")
        assert told.status == status, told
        assert set(told.document) == {"error"}
        error: dict[str, str] = told.document["error"]
        assert set(error) == {"kind", "message", "hint"}
        assert error["kind"] != "internal", error
        assert sorted(here.rglob("*")) == before
        assert error["message"]
        assert error["hint"], f"no next step: {error}"
        return error

    return call


@pytest.fixture
def pictures(here: Path) -> Path:
    """A folder dataset ``pictures`` in the working folder: two classes of six images."""
    rng = np.random.default_rng(0)
    for name in ("cat", "dog"):
        (here / "pictures" / name).mkdir(parents=True)
        for number in range(6):
            pixels = rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(here / "pictures" / name / f"{number}.png")
    return here / "pictures"


@pytest.fixture
def quick(pictures: Path) -> Callable[..., list[str]]:
    """Arguments of a run that takes less than a second; what is given replaces or joins them.

    A name stands for the option, with dashes for underscores; ``True`` for a flag.
    """

    def arguments(**given: str | Path | bool) -> list[str]:
        options: dict[str, str | Path | bool] = {"--method": "linear", "--dataset": "pictures", "--output": "results"}
        options |= dict(zip(QUICK[::2], QUICK[1::2], strict=True))
        options |= dict(zip(QUICK_TRAINING[::2], QUICK_TRAINING[1::2], strict=True))
        options |= {"--" + name.rstrip("_").replace("_", "-"): value for name, value in given.items()}
        flat = ["run"]
        for option, value in options.items():
            flat += [option] if value is True else [option, str(value)]
        return flat

    return arguments

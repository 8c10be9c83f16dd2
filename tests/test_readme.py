"""The README: short, without a placeholder, and every command of it runs as it stands there."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from petlbench.cli.app import run_command

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(\w*)\n(.*?)```", README, re.DOTALL)
COMMANDS = [line.partition("#")[0].strip() for kind, block in BLOCKS if not kind for line in block.splitlines()]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where a reader works: a folder with 60 images in two folders of classes."""
    folder = tmp_path_factory.mktemp("reader")
    rng = np.random.default_rng(0)
    for number in range(60):
        name = ("healthy", "ill")[number % 2]
        (folder / "my_images" / name).mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(0, 120, (32, 32), dtype=np.uint8) + np.uint8(60 * (number % 2))
        Image.fromarray(pixels).save(folder / "my_images" / name / f"{number}.png")
    return folder


def test_it_is_short_and_has_no_placeholder() -> None:
    assert len(README.splitlines()) <= 135
    assert not re.search(r"ADDRESS|TODO|example\.(com|org)|<[A-Z]+>", README)
    assert all((ROOT / path).stat().st_size < 200_000 for path in re.findall(r"\]\((docs/pictures/[^)]+)\)", README))


def test_every_command_runs_as_it_stands(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder)
    commands = [command for command in COMMANDS if command.startswith("petlbench ")]
    assert len(commands) >= 10
    for command in commands:
        status = run_command(shlex.split(command)[1:])
        assert status == 0, f"{command}: {capfd.readouterr().err}"
    pages = {file.name for file in (*folder.glob("*.html"), *(folder / "tables").iterdir())}
    assert {"audit.html", "table1.html", "table1.tex", "table1-tradeoff.png"} <= pages


@pytest.mark.slow
def test_the_python_runs_as_it_stands(tmp_path: Path) -> None:
    [code] = [block for kind, block in BLOCKS if kind == "python"]
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert r"\begin{tabular}" in done.stdout


def test_other_commands_are_targets_of_make() -> None:
    others = [command for command in COMMANDS if command and not command.startswith("petlbench ")]
    assert others == ["make demo", "make test"]
    for command in others:
        done = subprocess.run([*command.split(), "--dry-run"], cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_make_demo_ends_with_a_table_and_a_page(tmp_path: Path) -> None:
    # What is installed here serves: making an environment would load gigabytes.
    here = [f"BIN={Path(sys.executable).parent}", "USED=Makefile", f"OUTPUT={tmp_path}"]
    done = subprocess.run(["make", "demo", *here], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "Compared with Full fine-tuning" in done.stdout
    assert done.stdout.splitlines()[-1] == f"the page: {tmp_path}/demo.html"
    assert (tmp_path / "demo.html").stat().st_size > 1e6

"""The tutorial runs from top to bottom, and is small."""

from __future__ import annotations

import os
from pathlib import Path

import nbformat
import pytest
from IPython.core.interactiveshell import InteractiveShell
from nbclient import NotebookClient
from sklearn.datasets import load_digits
from sklearn.utils import Bunch

FILE = Path(__file__).parents[2] / "docs" / "tutorials" / "python.ipynb"


def test_every_cell_of_the_tutorial_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On fewer digits and in this process; as a reader runs it, below."""
    digits = load_digits()
    few = Bunch(images=digits.images[:200], target=digits.target[:200])
    monkeypatch.setattr("sklearn.datasets.load_digits", lambda: few)
    monkeypatch.setattr("petlbench.core.catalog._REGISTERED", {})  # its own method stays in no catalogue
    monkeypatch.chdir(tmp_path)
    shell = InteractiveShell()
    for cell in nbformat.read(FILE, as_version=4).cells:
        if cell.cell_type == "code":
            shell.run_cell(cell.source).raise_error()
    # Its ONNX file, opened by ONNX Runtime, says what the run has stored of every test image.
    assert len(shell.user_ns["probabilities"]) == 40
    assert shell.user_ns["difference"] < 1e-5


@pytest.mark.slow
def test_the_tutorial_runs_in_jupyter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JUPYTER_PLATFORM_DIRS", "1")
    notebook = nbformat.read(FILE, as_version=4)
    # What a session of the command line has, too: threads that wait do not take the cores from those that work.
    monkeypatch.setenv("OMP_WAIT_POLICY", "PASSIVE")
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute(env=dict(os.environ))


def test_the_tutorial_is_small_and_has_its_outputs() -> None:
    assert FILE.stat().st_size < 60_000
    cells = [cell for cell in nbformat.read(FILE, as_version=4).cells if cell.cell_type == "code"]
    assert sum(bool(cell.outputs) for cell in cells) >= len(cells) - 2

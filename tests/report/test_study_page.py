"""The page and the figures of a study, as the program writes them that MLflow's store gets them from."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest

from petlbench.report.study_page import page_program
from tests.results.tracking.results import AUC, make, store, write_study


def run_program(monkeypatch: pytest.MonkeyPatch, program: list[str], folder: Path) -> None:
    module, *arguments = program
    monkeypatch.setattr(sys, "argv", ["program", *arguments, str(folder)])
    importlib.import_module(module).main()


def test_a_study_has_a_page_and_figures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    results = [make(method, seed=seed) for method in ("fpt", "linear") for seed in AUC]
    store(tmp_path, *results)
    write_study(tmp_path, "mine", *results)
    run_program(monkeypatch, page_program(None, tmp_path, "mine", []), tmp_path / "page")
    files = {file.name: file.read_bytes() for file in (tmp_path / "page").iterdir()}
    assert {Path(name).suffix for name in files} == {".html", ".png"}
    assert b"Linear probing" in files["table1.html"]
    assert all(content.startswith(b"\x89PNG") for name, content in files.items() if name.endswith(".png"))


def test_what_is_wrong_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store(tmp_path, make())
    with pytest.raises(SystemExit) as caught:
        run_program(monkeypatch, page_program("demo", tmp_path, "nothing", []), tmp_path / "page")
    assert "nothing" in str(caught.value)
    assert not (tmp_path / "page").exists()

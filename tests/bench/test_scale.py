"""The report on scale: its images and tables are what they say, and a curve is measured and drawn."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from tests.bench import scale


def test_links_are_images_in_ten_folders_of_few_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scale, "LINKS", 10)
    files = sorted(scale.make_links(tmp_path / "images", 25).rglob("*.png"))
    assert len(files) == 25
    assert len({file.stat().st_ino for file in files}) == 3
    assert len({file.parent for file in files}) == 10


def test_a_curve_is_measured_drawn_and_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    curve = replace(scale.CURVES["folder_of_images"], quick=(10, 20))
    monkeypatch.setitem(scale.CURVES, "folder_of_images", curve)
    scale.main(["--quick", "--only", "folder_of_images", "--output", str(tmp_path)])
    rows = json.loads((tmp_path / "scale.json").read_text())["folder_of_images"]
    assert [row["images in the folder"] for row in rows] == [10, 20]
    assert all(row["CPU, s"] > 0 and row["memory, MiB"] > 10 for row in rows)
    assert (tmp_path / "folder_of_images.svg").read_text().startswith("<?xml")
    assert "| 20 |" in (tmp_path / "tables.md").read_text()

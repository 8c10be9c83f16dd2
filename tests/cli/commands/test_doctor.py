"""``petlbench doctor`` and ``petlbench data info``: what they tell, for people and for machines."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from petlbench.cli.app import run_command


def test_doctor_tells_versions_devices_memory_and_places(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    command = ["doctor", "--json", "--data-root", str(tmp_path / "data"), "--output", str(tmp_path / "results")]
    assert run_command([*command, "--cache-dir", str(tmp_path / "cache")]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["versions"]["torch"] == torch.__version__.partition("+")[0]
    assert report["memory and disk"]["host memory free, bytes"] > 0
    assert report["places"]["datasets are looked for below"] == str(tmp_path / "data")
    assert report["places"]["preloaded features are kept in"] == str(tmp_path / "cache")
    assert report["memory and disk"]["disk free for preloaded features, bytes"] > 0
    assert any(name.startswith("cuda:") for name in report["devices"]) == torch.cuda.is_available()
    assert not (tmp_path / "results").exists()


def test_doctor_speaks_to_people_too(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(["doctor"]) == 0
    assert "weights from the hub are kept in" in capsys.readouterr().out


def test_data_info_counts_the_images_of_an_embedded_dataset(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(["data", "info", "digits", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["images"], told["readable"]) == (1797, True)
    assert told["images_by_class"]["0"] == 178


def test_data_info_says_when_the_files_are_not_there(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert run_command(["data", "info", "isic2018", "--json", "--data-root", str(tmp_path)]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["readable"], told["images_by_class"]) == (False, None)
    assert told["card"]["unverified"]

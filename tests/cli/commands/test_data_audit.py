"""``petlbench data audit``: text, JSON, the page, and the exit status."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from petlbench.audit import baselines

Cli = Callable[..., Any]
Refused = Callable[..., dict[str, str]]


@pytest.fixture(autouse=True)
def small_forests(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(baselines, "_TREES", 8)
    monkeypatch.setattr(baselines, "FOLDS", 3)


@pytest.fixture
def leaking(pictures: Path) -> Path:
    """The pictures, one of which is in both classes."""
    shutil.copy(pictures / "cat" / "0.png", pictures / "dog" / "copy.png")
    return pictures


def test_a_sound_folder(cli: Cli, pictures: Path, here: Path) -> None:
    before = sorted(here.rglob("*"))
    told = cli("data", "audit", "pictures", "--fail")
    assert told.status == 0
    for words in ("Audit of pictures", "neither shortcut nor easy", "random, seed 0", "Trivial baselines", "metadata"):
        assert words in told.out
    assert "needs a word on missing groups" in told.out
    assert "an AUC of up to " in told.out
    assert sorted(here.rglob("*")) == before


def test_what_is_found_is_said_and_fails_only_on_request(cli: Cli, leaking: Path) -> None:
    told = cli("data", "audit", "pictures", "--output", "page.html")
    assert told.status == 0
    for words in ("two labels", "cat/0.png", "dog/copy.png", "bytes", "grave", "page.html"):
        assert words in told.out
    assert Path("page.html").read_text().startswith("<!doctype html>")
    assert cli("data", "audit", "pictures", "--fail").status == 1


def test_it_is_written_like_a_report(cli: Cli, leaking: Path) -> None:
    told = cli("data", "audit", "pictures", "--format", "latex,csv,json,png", "--output", "out", "--json")
    names = {Path(file).name for file in told.document["files"]}
    assert {"audit-pictures.tex", "audit-pictures.csv", "audit-pictures-pairs.csv", "audit-pictures.json"} <= names
    assert all(Path(file).is_file() for file in told.document["files"])
    assert cli("data", "audit", "pictures", "--format", "md").out.startswith("# Audit of pictures")


def test_the_document(cli: Cli, leaking: Path) -> None:
    document = cli("data", "audit", "pictures", "--json", "--split", "kfold:2/1", "--seed", "3").document
    assert (document["dataset"], document["split"], document["page"]) == ("pictures", "kfold:2/1, seed 3", None)
    assert document["duplicates"]["pairs"][0]["images"] == ["cat/0.png", "dog/copy.png"]
    assert "two_labels" in {finding["kind"] for finding in document["findings"]}


def test_a_dataset_without_files(cli: Cli) -> None:
    told = cli(
        "data", "audit", "lesions", "--set", "dataset.image_count=60", "--set", "dataset.image_size=256", "--json"
    )
    names = [one["name"] for one in told.document["baselines"]]
    assert names == ["grey levels", "pixels", "metadata"]
    assert told.document["duplicates"]["pairs"] == []


@pytest.mark.parametrize(
    ("arguments", "kind"),
    [
        (("--split", "halves"), "bad_split"),
        (("--split", "official"), "no_official_split"),
        (("--output", "page.docx"), "bad_setting"),
        (("--format", "docx"), "unknown_format"),
        (("--output", "nowhere/page.html"), "not_writable"),
        (("--seed", "-1"), "usage"),
    ],
)
def test_what_cannot_be_is_refused(refused: Refused, pictures: Path, arguments: tuple[str, ...], kind: str) -> None:
    assert refused("data", "audit", "pictures", *arguments)["kind"] == kind


def test_a_name_that_nothing_has_is_refused(refused: Refused) -> None:
    assert refused("data", "audit", "nothing")["kind"] == "unknown_dataset"

"""``petlbench pack``, ``verify-pack`` and ``board``: what they print, write, return and refuse."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.report.stored import store_predicted

Cli = Callable[..., Any]


def test_a_study_is_packed_verified_and_read(cli: Cli, here: Path) -> None:
    for method, strength in (("full", 2.0), ("lora", 1.5)):
        for seed in (0, 1):
            store_predicted(here / "results", method, "isic2018", seed, strength)
    packed = cli("pack", "--json")
    assert (packed.document["runs"], packed.document["reports"]) == (4, {"table1": ""})
    assert "nothing differs (" in cli("verify-pack", "bundle.zip").out
    assert cli("report", "table1", "--results", "bundle.zip", "--json").document["source"].startswith("bundle.zip: 4 ")
    board = cli("board", "results", "bundle.zip", "--output", "board.html")
    assert (board.status, board.out.strip()) == (0, "board.html")
    assert "In several studies, and shown once: 4 runs." in (here / "board.html").read_text(encoding="utf-8")


def test_what_differs_is_named_and_the_status_says_so(cli: Cli, here: Path) -> None:
    store_predicted(here / "results", "full", "isic2018", 0, 2.0)
    cli("pack")
    with zipfile.ZipFile("bundle.zip", "a") as package:
        package.writestr("more.txt", "")
    done = cli("verify-pack", "bundle.zip", "--json")
    assert done.status == 1
    [difference] = done.document["differences"]
    assert (difference["place"], difference["recomputed"]) == ("more.txt", "was not packed")
    assert "more.txt" in cli("verify-pack", "bundle.zip").out


def test_what_cannot_be_packed_or_read_is_refused(refused: Callable[..., dict[str, str]], here: Path) -> None:
    assert refused("pack")["kind"] == "no_results"
    (here / "results").mkdir()
    assert refused("pack")["kind"] == "no_results"
    assert refused("pack", "nobody")["kind"] == "unknown_study"
    assert refused("pack", "--to", "bundle.tar")["kind"] == "bad_setting"
    assert refused("verify-pack", "bundle.zip")["kind"] == "missing_file"
    (here / "bundle.zip").write_bytes(b"PK")
    assert refused("verify-pack", "bundle.zip")["kind"] == "broken_archive"
    assert refused("report", "table1", "--results", "bundle.zip")["kind"] == "broken_archive"
    assert refused("board", "results")["kind"] == "no_results"

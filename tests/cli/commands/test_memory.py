"""``petlbench memory``: its document, its refusals and its figures."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

TINY = ("--backbone", "vit_tiny_patch16_224", "--image-size", "64", "--batch-size", "4")

Cli = Callable[..., Any]
Refused = Callable[..., dict[str, str]]


def test_a_row_says_what_is_predicted_and_its_parts_add_up(cli: Cli) -> None:
    document = cli("memory", "--method", "lora", *TINY, "--inference", "--json").document
    (row,) = document["rows"]
    assert row["source"] == "predicted"
    assert sum(row["parts"].values()) == row["allocated"] < row["reserved"] < row["process"]
    assert row["process"] - row["reserved"] == document["config"]["context"]
    assert 0 < row["inference"]["allocated"] < row["allocated"]
    assert row["savings"]["checkpointing"] > 0
    assert (document["config"]["batch_size"], document["config"]["classes"]) == (4, 7)


def test_the_cpu_has_neither_an_allocator_nor_a_context(cli: Cli) -> None:
    (row,) = cli("memory", "--method", "linear", *TINY, "--device", "cpu", "--json").document["rows"]
    assert (row["reserved"], row["process"]) == (None, None)
    assert row["preloaded"]


def test_a_method_that_cannot_is_a_row_with_its_reason(cli: Cli) -> None:
    backbone = ("--backbone", "swin_tiny_patch4_window7_224", "--image-size", "224", "--batch-size", "2")
    outcome = cli("memory", "--method", "fpt,bitfit", *backbone, "--no-savings", "--json")
    fpt, bitfit = outcome.document["rows"]
    assert outcome.status == 0
    assert fpt["allocated"] is None
    assert fpt["refused"]
    assert bitfit["allocated"] > 0


@pytest.mark.slow
def test_a_budget_is_met_by_the_largest_batch_and_by_no_larger_one(cli: Cli) -> None:
    tiny = TINY[:4]
    (row,) = cli("memory", "--method", "full", *tiny, "--budget", "800MiB", "--json").document["rows"]
    largest = row["max_batch_size"]

    def needs(size: int) -> int:
        found = cli("memory", "--method", "full", *tiny, "--batch-size", str(size), "--no-savings", "--json")
        process: int = found.document["rows"][0]["process"]
        return process

    assert row["fits"]
    assert needs(largest) <= 800 * 2**20 < needs(largest + 1)


def test_a_curve_has_a_row_for_each_value_and_is_drawn(cli: Cli, here: Path) -> None:
    arguments = ("--method", "linear", "--vary", "image-size=32,64", "--figure", "curve.pdf")
    rows = cli("memory", *arguments, *TINY[:2], "--json").document["rows"]
    assert [row["varied"] for row in rows] == [{"image-size": 32}, {"image-size": 64}]
    assert (here / "curve.pdf").read_bytes().startswith(b"%PDF")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--method", "lorra"), "lorra"),
        (("--method", "lora", "--budget", "8XB"), "8XB"),
        (("--method", "lora", "--image-size", "65"), "65"),
        (("--method", "lora", "--vary", "colour=1"), "colour"),
        (("--method", "lora", "--accumulate", "5"), "5"),
        (("--method", "lora", "--dataset", "digits", "--classes", "3"), "--classes"),
        (("--method", "lora", "--figure", "curve.gif"), ".gif"),
        (("--method", "lora,fpt", "--set", "method.colour=1"), "colour"),
        (("--method", "lora", "--preload"), "--preload"),
    ],
)
def test_what_is_wrong_is_named(refused: Refused, arguments: tuple[str, ...], told: str) -> None:
    given = dict(zip(TINY[::2], TINY[1::2], strict=True))
    rest = [text for name, value in given.items() if name not in arguments for text in (name, value)]
    assert told in refused("memory", *arguments, *rest)["message"]


def test_it_is_written_like_a_report(cli: Cli, here: Path) -> None:
    arguments = ("--method", "linear,full", "--no-savings", "--format", "html,csv,latex,md", "--output", "out")
    outcome = cli("memory", *arguments, *TINY)
    assert outcome.status == 0
    assert {file.name for file in (here / "out").iterdir()} == {
        f"memory{end}" for end in (".html", ".csv", ".tex", "-parts.pdf", ".md")
    }
    rows = {row["method"]: row for row in csv.DictReader((here / "out" / "memory.csv").open(encoding="utf-8"))}
    assert float(rows["linear"]["allocated"]) < float(rows["full"]["allocated"])
    text = cli("memory", "--method", "linear", *TINY, "--no-savings", "--format", "md").out
    assert text.startswith("# Peak memory of a training step, predicted")


def test_the_table_says_that_it_is_predicted(cli: Cli) -> None:
    assert "predicted for cuda" in cli("memory", "--method", "linear", *TINY).out

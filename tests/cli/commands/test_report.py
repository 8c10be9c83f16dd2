"""``petlbench report``: what it prints, what it writes, and what it refuses."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.report.stored import store

Cli = Callable[..., Any]


def test_a_paper_is_computed_again_and_differences_are_listed(cli: Cli) -> None:
    done = cli("report", "table1", "--results", "papers:miccai2024")
    assert done.status == 0
    assert "What differs from print" in done.out
    assert "\x1b[" not in done.out
    lines = [line.split() for line in done.out.splitlines()]
    assert ["LoRA", "average", "of", "its", "cells", "90.76", "91.01", "-0.25"] in lines


def test_json_is_one_document_with_numbers(cli: Cli) -> None:
    done = cli("report", "table1", "--results", "papers:miccai2024", "--json")
    rows = {row["key"]: row["cells"] for row in done.document["tables"][0]["rows"]}
    assert rows["fpt"]["pme"]["value"] == pytest.approx(87.4253, abs=1e-4)
    assert done.document["settings"]["precision"] == "fp16"


def test_csv_on_standard_output_is_nothing_but_csv(cli: Cli) -> None:
    done = cli("report", "table1", "--results", "papers:tnnls2025", "--format", "csv")
    rows = list(csv.DictReader(io.StringIO(done.out)))
    assert [row["pme"][:5] for row in rows][-1] == "85.94"


def test_files_are_written_where_they_are_wanted(cli: Cli, here: Path) -> None:
    store(here / "results", "full")
    done = cli("report", "table1", "--format", "md,csv,latex,json", "--output", "tables", "--json")
    assert done.status == 0
    names = ["table1.md", "table1.csv", "table1.tex", "table1.json"]
    assert [Path(file).name for file in done.document["files"]] == names
    assert sorted(file.name for file in (here / "tables").iterdir()) == sorted(names)
    assert cli("report", "table1", "--output", "one.tex").out.strip() == "one.tex"
    assert (here / "one.tex").read_text().startswith("% Methods on datasets")


def test_figures_and_pages_are_written(cli: Cli, here: Path) -> None:
    store(here / "results", "full")
    store(here / "results", "fpt")
    done = cli("report", "tradeoff", "--format", "png,html", "--output", "out")
    assert (done.status, done.err) == (0, "")
    assert (here / "out" / "tradeoff.png").read_bytes().startswith(b"\x89PNG")
    assert "<html" in (here / "out" / "tradeoff.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("tabel1",), "unknown report 'tabel1'"),
        (("table1",), "--results results: there is no such folder"),
        (("table1", "--results", "papers:x"), "unknown paper 'x'"),
        (("table1", "--format", "docx"), "unknown format 'docx'"),
        (("table1", "--format", "html"), "there is no --output"),
        (("table1", "--where", "seed"), "not of the form KEY=VALUE"),
        (("table1", "--results", "mlflow:"), "names no store"),
    ],
)
def test_wrong_input_is_two_lines(cli: Cli, arguments: tuple[str, ...], said: str) -> None:
    done = cli("report", *arguments)
    assert done.status == 2
    assert said in done.err
    assert done.err.splitlines()[1].startswith("  hint: ")
    assert not done.out


def test_an_unknown_metric_or_row_is_named(cli: Cli, here: Path) -> None:
    store(here / "results", "full")
    store(here / "results", "linear")
    assert "unknown metric 'aoc'" in cli("report", "table1", "--metric", "aoc").err
    assert "unknown row to compare with 'lora'" in cli("report", "table1", "--against", "lora").err


def test_reports_are_listed(cli: Cli) -> None:
    names = [item["name"] for item in cli("list", "reports", "--json").document["items"]]
    assert {"table1", "ablation", "token_ratio", "tradeoff", "memory_vs_resolution", "curves", "budget"} <= set(names)
    assert json.loads(json.dumps(names)) == names

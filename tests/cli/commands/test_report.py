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
    names = ["table1.md", "table1.csv", "table1.tex", "table1-tradeoff.pdf", "table1.json"]
    assert [Path(file).name for file in done.document["files"]] == names
    assert sorted(file.name for file in (here / "tables").iterdir()) == sorted(names)
    assert cli("report", "table1", "--output", "one.tex").out.split() == ["one.tex", "one-tradeoff.pdf"]
    assert (here / "one.tex").read_text().startswith("% Methods on datasets")


def test_figures_and_pages_are_written(cli: Cli, here: Path) -> None:
    store(here / "results", "full")
    store(here / "results", "fpt")
    done = cli("report", "tradeoff", "--format", "png,html", "--output", "out")
    assert (done.status, done.err) == (0, "")
    assert (here / "out" / "tradeoff.png").read_bytes().startswith(b"\x89PNG")
    assert "<html" in (here / "out" / "tradeoff.html").read_text(encoding="utf-8")


def test_scores_of_others_are_a_table_in_parts_that_fit_a_line(cli: Cli, here: Path) -> None:
    (here / "theirs.csv").write_text("dataset,method,top1\ncifar100,lora,70.5\nsvhn,lora,80\ncifar_aug,lora,90\n")
    done = cli("report", "vtab1k", "--results", "theirs.csv")
    assert done.status == 0
    titles = [line.strip() for line in done.out.splitlines() if line.startswith("VTAB-1k")]
    assert titles[:2] == ["VTAB-1k, as others measured it", "VTAB-1k, as others measured it, continued"]
    assert "2 of 19 tasks" in " ".join(done.out.split())
    assert "hidden" not in done.out
    assert "'cifar_aug'" in done.out
    rows = cli("report", "vtab1k", "--results", "theirs.csv", "--json").document["tables"][0]["rows"]
    assert rows[0]["cells"]["mean2_of_19"]["value"] == pytest.approx(75.25)
    missing = cli("report", "vtab1k", "--results", "none.csv")
    assert (missing.status, "none.csv" in missing.err) == (2, True)


MINE = """
from petlbench.report.document import Cell, Column, table_of
from petlbench.report.formats import ReportFormat
from petlbench.report.spec import ReportKind

def shout(document):
    return "".join(f"{row.title.upper()}!\\n" for table in document.tables for row in table.rows)

def count(inputs):
    columns = [Column("method", "method"), Column("runs", "runs")]
    methods = {run.method for run in inputs.finished}
    return inputs.document([table_of("main", "Runs", columns, [[name, Cell(1, "1")] for name in sorted(methods)])])

MINE = ReportFormat(name="mine", title="Mine", suffix=".shout", render=shout)
COUNT = ReportKind(name="count", title="Runs of every method", build=count)
"""


def test_a_kind_and_a_format_of_ones_own_are_one_file(cli: Cli, here: Path) -> None:
    (here / "own" / "reports").mkdir(parents=True)
    (here / "own" / "mine.py").write_text(MINE)
    (here / "own" / "reports" / "counted.toml").write_text('title = "Counted"\nkind = "count"\n')
    store(here / "results", "full")
    store(here / "results", "fpt")
    asked = ("report", "counted", "--catalog", "own")
    assert cli(*asked, "--format", "mine").out == "FPT!\nFULL!\n"
    assert cli(*asked, "--format", "mine,md", "--output", "out").status == 0
    assert (here / "out" / "counted.shout").read_text() == "FPT!\nFULL!\n"
    assert cli(*asked, "--output", "one.shout").out == "one.shout\n"
    assert "unknown format 'mine'" in cli("report", "table1", "--format", "mine").err


def test_the_old_name_of_preset_goes_on_working(cli: Cli, here: Path) -> None:
    store(here / "results", "full", precision="bf16", attention_kernel="fused")
    store(here / "results", "full", precision="fp16", attention_kernel="eager")
    new, old = (cli("report", "table1", option, "best-practice", "--json") for option in ("--preset", "--setting"))
    assert new.document["settings"]["precision"] == "bf16"
    assert old.document == new.document
    assert (new.err, old.err) == ("", "--setting is called --preset now\n")
    assert "--setting" not in cli("report", "--help").out


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


def test_a_format_that_has_nothing_to_show_is_refused_before_anything_is_written(cli: Cli, here: Path) -> None:
    store(here / "results", "full")
    for report, formats in (("ablation", "html,latex,png,md"), ("token_ratio", "md,svg"), ("curves", "md,csv")):
        done = cli("report", report, "--format", formats, "--output", "out")
        assert (done.status, done.out) == (2, "")
        assert f"the report '{report}' has no " in done.err
        assert not (here / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--where", "precison=fp32"), "unknown key of --where 'precison'"),
        (("--audits", "nowhere"), "--audits nowhere: there is no such folder"),
    ],
)
def test_what_would_say_nothing_is_refused(cli: Cli, here: Path, arguments: tuple[str, ...], said: str) -> None:
    store(here / "results", "full")
    done = cli("report", "table1", *arguments)
    assert done.status == 2
    assert said in done.err


def test_reports_are_listed(cli: Cli) -> None:
    names = [item["name"] for item in cli("list", "reports", "--json").document["items"]]
    assert {"table1", "ablation", "token_ratio", "tradeoff", "memory_vs_resolution", "curves", "budget"} <= set(names)
    assert json.loads(json.dumps(names)) == names

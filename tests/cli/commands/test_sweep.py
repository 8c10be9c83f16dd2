"""``petlbench sweep`` from end to end, with runs of a second."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from petlbench.results.result import read_result

SWEEP = """
title = "Two rates"
sampler = "grid"
finalists = 2
finalist_seeds = [0, 1]
seeds = [0]

[space.training]
lr = [1e-3, 1e-2]
"""


@pytest.fixture
def options(pictures: Path, here: Path) -> list[str]:
    (here / "mine" / "sweeps").mkdir(parents=True)
    (here / "mine" / "sweeps" / "rates.toml").write_text(SWEEP)
    options = "sweep rates --method linear --dataset pictures --backbone petlbench_micro --image-size 32 --epochs 1"
    return f"{options} --device cpu --threads 1 --workers 0 --tracking-uri none --catalog mine".split()


def test_from_search_to_a_tested_winner(cli: Callable[..., Any], options: list[str], here: Path) -> None:
    told = cli(*options, "--json")
    assert told.status == 0, told.err
    found = told.document
    assert found["sweep"] == "rates"
    assert [trial["number"] for trial in found["trials"]] == [0, 1]
    assert {trial["params"]["training.lr"] for trial in found["trials"]} == {1e-3, 1e-2}
    assert all(trial["status"] == "finished" for trial in found["trials"])
    assert found["best"] in found["trials"]
    assert found["importances"] == {}
    assert "2 finished trials" in found["importances_note"]
    assert len(found["runs"]) == 1
    assert set(found["runs"][0]["metrics"]) == {"val", "test"}
    assert "trial 1 of linear on pictures" in told.err

    (file,) = (here / "results" / "sweeps" / "rates").glob("linear-pictures*.json")
    winner = json.loads(file.read_text())
    assert winner == found["winner"]
    run = read_result(here / "results" / found["runs"][0]["run_id"])
    assert run.config.training.lr == winner["best"]["training"]["lr"]

    # No trial and no finalist has seen the test split.
    trials = list((here / "results" / "trials").glob("*/result.json"))
    assert len(trials) == 4
    for file in trials:
        assert set(read_result(file.parent).metrics) == {"val"}
        assert set(pd.read_parquet(file.parent / "predictions.parquet")["split"]) == {"val"}
    assert not (here / "results" / "trials" / "test_reads.jsonl").exists()
    assert len((here / "results" / "test_reads.jsonl").read_text().splitlines()) == 1

    again = cli(*options, "--json")
    assert again.document == found
    shown = cli(*options)
    assert "winner: trial" in shown.out


def test_a_dry_run_shows_the_space_and_leaves_nothing(cli: Callable[..., Any], options: list[str], here: Path) -> None:
    before = sorted(here.rglob("*"))
    told = cli(*options, "--dry-run", "--json")
    assert told.document["trials"] == 2
    assert told.document["searches"][0]["space"]["searched"] == {"training.lr": [1e-3, 1e-2]}
    assert sorted(here.rglob("*")) == before
    assert "lr 0.001, 0.01" in cli(*options, "--dry-run").out


def test_sizes_are_searched_on_request_and_under_the_old_name_too(cli: Callable[..., Any]) -> None:
    options = ["sweep", "lr_wd", "--method", "lora", "--dataset", "digits", "--backbone", "petlbench_micro"]
    options += ["--trials", "3", "--dry-run", "--json"]
    matched, tuned = cli(*options, "--no-search-sizes"), cli(*options, "--search-sizes")
    assert cli(*options).document == matched.document
    assert "method.rank" not in matched.document["searches"][0]["space"]["searched"]
    assert "method.rank" in tuned.document["searches"][0]["space"]["searched"]
    old = cli(*options, "--track", "tuned")
    assert old.document == tuned.document
    assert "--search-sizes" in old.err
    assert "--track" not in tuned.err


def test_shipped_sweeps_are_listed(cli: Callable[..., Any]) -> None:
    names = {item["name"] for item in cli("list", "sweeps", "--json").document["items"]}
    assert names == {"fair", "lr_wd", "published", "quick", "recommend"}


@pytest.mark.parametrize(
    ("more", "kind"),
    [
        (("--storage", "nowhere"), "bad_storage"),
        (("--storage", "sqlite:////nowhere/at/all.db"), "bad_storage"),
        (("--lr", "0.1"), "bad_setting"),
        (("--set", "lora.rank=4"), "unknown_setting_group"),
        (("--study", "a/b"), "bad_study"),
        (("--method", "linaer"), "unknown_method"),
        (("--dataset", ","), "usage"),
    ],
)
def test_what_is_wrong_is_refused(
    refused: Callable[..., Any], options: list[str], more: tuple[str, ...], kind: str
) -> None:
    assert refused(*options, *more)["kind"] == kind


def test_an_unknown_sweep_is_refused(refused: Callable[..., Any], options: list[str]) -> None:
    options[1] = "fare"
    error = refused(*options)
    assert error["kind"] == "unknown_sweep"
    assert "fair" in error["hint"]

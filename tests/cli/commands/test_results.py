"""``petlbench results``: find a run, see why two differ, remove some."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from petlbench.core.catalog import Catalog
from petlbench.core.config import RunConfig
from petlbench.core.request import Request
from petlbench.results.folder import RunFolder
from petlbench.results.result import Result
from petlbench.run.resolve import resolve
from tests.study.acting import acted_result, store

Cli = Callable[..., Any]
Refused = Callable[..., dict[str, str]]

OUTPUT = Path("results")


def config(method: str = "linear", **changes: Any) -> RunConfig:
    request = Request(method, "digits", backbone="petlbench_micro", image_size=32, device="cpu", threads=1, **changes)
    return resolve(request, Catalog(), Path()).config


@pytest.fixture
def results(here: Path) -> dict[str, Result]:
    """Two seeds and another method that are finished, one that failed."""
    found = {
        "linear 0": acted_result(config()),
        "linear 1": acted_result(config(seed=1)),
        "full": acted_result(config("full")),
        "bitfit": acted_result(config("bitfit"), "oom"),
    }
    for result in found.values():
        store(OUTPUT, result)
    return found


def listed(outcome: Any) -> list[str]:
    return [item["run_id"] for item in outcome.document["items"]]


def test_runs_are_found_by_what_they_are(cli: Cli, results: dict[str, Result]) -> None:
    ids = {name: result.run_id for name, result in results.items()}
    assert listed(cli("results", "list", "--json")) == [ids["bitfit"], ids["full"], ids["linear 0"], ids["linear 1"]]
    assert listed(cli("results", "list", "--method", "linear,full", "--status", "finished", "--json")) == [
        ids["full"],
        ids["linear 0"],
        ids["linear 1"],
    ]
    assert listed(cli("results", "list", "--status", "oom,failed", "--json")) == [ids["bitfit"]]
    assert listed(cli("results", "list", "--dataset", "lesions", "--json")) == []
    by_auc = listed(cli("results", "list", "--dataset", "digits", "--sort", "auc", "--json"))
    aucs = [result.metrics["test"]["auc"] for run in by_auc for result in results.values() if result.run_id == run
            and result.metrics]  # fmt: skip
    assert aucs == sorted(aucs, reverse=True)
    shown = cli("results", "list")
    assert shown.status == 0
    assert ids["full"] in shown.out
    assert "4 runs in results" in shown.out


def test_a_run_is_shown_by_the_beginning_of_its_name_or_by_its_folder(cli: Cli, results: dict[str, Result]) -> None:
    whole = results["full"].run_id
    for text in (whole, whole[:8], f"results/{whole}"):
        assert cli("results", "show", text, "--json").document["run_id"] == whole
    failed = cli("results", "show", "bitfit")
    assert failed.status == 0
    assert "acted: oom" in failed.out


def test_a_difference_is_shown_and_nothing_else(cli: Cli, results: dict[str, Result]) -> None:
    document = cli("results", "diff", "linear-digits-s0", "linear-digits-s1", "--json").document
    names = {one["name"] for one in document["differences"]}
    assert names == {"config.seed", "metrics.test.auc", "metrics.val.auc", "memory.allocated"}
    seeds = next(one for one in document["differences"] if one["name"] == "config.seed")
    assert seeds["values"] == [0, 1]
    assert "nothing" in cli("results", "diff", "full", "full").out


def test_trials_are_looked_for_among_trials(cli: Cli, results: dict[str, Result]) -> None:
    trial = acted_result(config(seed=7))
    store(OUTPUT / "trials", trial)
    assert listed(cli("results", "list", "--trials", "--json")) == [trial.run_id]
    assert trial.run_id not in listed(cli("results", "list", "--json"))
    assert cli("results", "show", "linear", "--trials", "--json").document["run_id"] == trial.run_id


def test_what_is_removed_is_gone_with_what_was_kept_of_it(cli: Cli, results: dict[str, Result]) -> None:
    run = results["linear 0"].run_id
    folder = RunFolder(OUTPUT, run)
    folder.work.mkdir(parents=True, exist_ok=True)
    folder.checkpoint.write_bytes(b"12345")
    outcome = cli("results", "rm", run, "--status", "oom", "--yes", "--json")
    assert outcome.status == 0
    assert sorted(outcome.document["removed"]) == sorted([run, results["bitfit"].run_id])
    assert outcome.document["bytes"] > 5
    assert not folder.final.exists()
    assert not folder.work.exists()
    assert len(listed(cli("results", "list", "--json"))) == 2


def test_what_is_left_of_an_unfinished_run_can_be_removed(cli: Cli, here: Path) -> None:
    folder = RunFolder(OUTPUT, config().run_id)
    folder.work.mkdir(parents=True)
    folder.checkpoint.write_bytes(b"12345")
    assert cli("results", "rm", "linear-digits", "--yes", "--json").document["removed"] == [folder.run_id]
    assert not folder.work.exists()


def test_a_run_that_is_being_worked_on_stays(cli: Cli, results: dict[str, Result]) -> None:
    run = results["full"].run_id
    with RunFolder(OUTPUT, run).locked():
        outcome = cli("results", "rm", run, "bitfit", "--yes", "--json")
    assert outcome.status == 1
    assert outcome.document["removed"] == [results["bitfit"].run_id]
    assert run in outcome.document["kept"][0]
    assert (OUTPUT / run / "result.json").exists()


def test_nothing_is_removed_unasked(refused: Refused, results: dict[str, Result]) -> None:
    assert refused("results", "rm", results["full"].run_id)["kind"] == "not_confirmed"
    assert refused("results", "rm")["kind"] == "usage"


def test_a_run_that_is_not_there_or_not_the_only_one_is_named(refused: Refused, results: dict[str, Result]) -> None:
    error = refused("results", "show", "linear-digits-s9")
    assert error["kind"] == "unknown_run"
    assert "linear-digits-s9" in error["message"]
    error = refused("results", "rm", "linear", "--yes")
    assert error["kind"] == "ambiguous_run"
    assert results["linear 1"].run_id in error["message"]
    assert refused("results", "list", "--status", "gone")["kind"] == "unknown_status"


@pytest.mark.parametrize("name", ["../../victim", "/victim", ".work", "other"])
def test_a_received_result_has_nothing_removed_but_itself(
    cli: Cli, results: dict[str, Result], here: Path, name: str
) -> None:
    (here.parent / "victim").mkdir(exist_ok=True)
    (here / "victim").mkdir(exist_ok=True)
    document = results["bitfit"].document() | {"run_id": name}
    (OUTPUT / "received").mkdir()
    (OUTPUT / "received" / "result.json").write_text(json.dumps(document))
    outcome = cli("results", "rm", "--status", "oom", "--yes", "--json")
    assert outcome.document["removed"] == [results["bitfit"].run_id]
    assert (OUTPUT / "received").is_dir()
    assert (here / "victim").is_dir()
    assert (here.parent / "victim").is_dir()
    assert cli("results", "list", "--json").document["damaged"][0].startswith(str(OUTPUT / "received"))
    assert cli("results", "rm", "received", "--yes", "--json").document["removed"] == ["received"]
    assert not (OUTPUT / "received").exists()


def test_a_damaged_result_is_counted_and_passed_over(cli: Cli, results: dict[str, Result], here: Path) -> None:
    (here / OUTPUT / "full-x-s0").mkdir()
    (here / OUTPUT / "full-x-s0" / "result.json").write_text("[]")
    outcome = cli("results", "list", "--json")
    assert len(listed(outcome)) == len(results)
    (message,) = outcome.document["damaged"]
    assert "full-x-s0" in message
    assert "1 damaged results are passed over" in cli("results", "list").out

"""Runs whose test split is scored after every epoch: a protocol alone asks for them, and all else stays."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

import petlbench as pb
from petlbench.cli.app import run_command
from petlbench.core.errors import InputError
from petlbench.results.result import Result
from petlbench.results.table import load_results

TINY: dict[str, Any] = {
    "backbone": "petlbench_micro",
    "image_size": 32,
    "epochs": 3,
    "warmup_epochs": 0,
    "batch_size": 8,
    "threads": 1,
    "train_fraction": 0.02,
    "tracking_uri": "none",
    "progress": False,
}
PUBLISHED = ("lr", "weight_decay", "drop_last", "schedule", "min_lr", "warmup_lr", "drop_path", "augment", "select")


@pytest.fixture(scope="module")
def audited(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Result]:
    output = tmp_path_factory.mktemp("audited")
    return output, pb.run("linear", "digits", protocol="audit", output=output, cache_dir=output / "c", **TINY)


def test_every_epoch_is_a_logged_reading_and_the_curve_has_its_scores(audited: tuple[Path, Result]) -> None:
    output, result = audited
    assert [entry["epoch"] for entry in result.curve if entry["test_accuracy"] >= 0 and entry["val_accuracy"] >= 0] == [
        *(1, 2, 3)
    ]
    # The protocol takes the last epoch, which is read again at the end.
    assert result.curve[-1]["test_auc"] == pytest.approx(result.metrics["test"]["auc"])
    reads = [json.loads(line) for line in (output / "test_reads.jsonl").read_text().splitlines()]
    assert [read.get("epoch") for read in reads] == ["1", "2", "3", None]
    assert {read["run_id"] for read in reads} == {result.run_id}


def test_it_learns_what_a_run_learns_that_is_tested_once(audited: tuple[Path, Result], tmp_path: Path) -> None:
    output, result = audited
    training = result.config.training.model_dump()
    same = {**TINY, **{name: training[name] for name in PUBLISHED}}
    other = pb.run("linear", "digits", output=tmp_path, cache_dir=output / "c", **same)
    assert other.run_id != result.run_id
    both = [
        load_file(folder / run.run_id / "learned.safetensors") for folder, run in ((output, result), (tmp_path, other))
    ]
    assert both[0].keys() == both[1].keys()
    assert all((both[0][name] == both[1][name]).all() for name in both[0])
    assert other.metrics == result.metrics
    assert not any(name.startswith("test_") for entry in other.curve for name in entry)


def test_validation_that_is_trained_on_leaves_the_scores_of_test(tmp_path: Path) -> None:
    whole = {name: value for name, value in TINY.items() if name != "train_fraction"}
    result = pb.run(
        "linear", "digits", protocol="audit", output=tmp_path, **{**whole, "epochs": 1}, train_on="train+val"
    )
    assert "test_auc" in result.curve[0]
    assert "val_auc" not in result.curve[0]


def test_a_protocol_alone_asks_for_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for given in ({}, {"protocol": "fair"}):
        with pytest.raises(InputError, match="test_every_epoch") as caught:
            pb.run("linear", "digits", output=tmp_path, **TINY, **given, test_every_epoch=True)
        assert "--protocol audit" in caught.value.hint
    assert run_command(["run", "--method", "linear", "--dataset", "digits", "--test-every-epoch"]) == 2
    assert "no such option" in capsys.readouterr().err.lower()
    assert not [*tmp_path.iterdir()]


def test_a_trial_never_reads_it(tmp_path: Path) -> None:
    search = {**TINY, "output": tmp_path, "cache_dir": tmp_path / "c", "epochs": 1, "trials": 1}
    pb.sweep("lr_wd", "linear", "digits", protocol="audit", **search)
    [trial] = [json.loads(file.read_text()) for file in (tmp_path / "trials").glob("*/result.json")]
    assert trial["config"]["test_every_epoch"] is False
    assert not any(name.startswith("test_") for entry in trial["curve"] for name in entry)
    assert [run.shows_test for run in load_results(tmp_path).runs] == [True] * 3
    reads = [json.loads(line) for line in (tmp_path / "test_reads.jsonl").read_text().splitlines()]
    assert trial["run_id"] not in {read["run_id"] for read in reads}
    assert len(reads) == 6


def test_values_that_are_varied_are_studies_of_one_name(tmp_path: Path) -> None:
    options = {**TINY, "output": tmp_path, "cache_dir": tmp_path / "c", "epochs": 1, "study": "mine", "seeds": [0]}
    options |= {"methods": "linear", "datasets": "digits", "protocol": "audit", "vary": "normalize=half,none"}
    results = pb.bench(**options)
    names = [summary.name for summary in results.summaries]
    assert names == ["mine.2-percent.normalize-half", "mine.2-percent.normalize-none"]
    assert sorted(run.value("normalize") for run in results.runs) == ["half", "none"]
    with pytest.raises(InputError, match="--normalize is given, and varied"):
        pb.bench(**options, normalize="half")
    with pytest.raises(InputError, match="normalize = 'halb' is refused"):
        pb.bench(**{**options, "vary": "normalize=halb"})

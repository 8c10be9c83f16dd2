"""Runs that train on validation images too: nothing of them chooses or is scored, and all else holds as ever."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import petlbench as pb
from petlbench.cli.app import run_command
from petlbench.core.errors import InputError
from petlbench.data.loader import Batch, ImageLoader
from petlbench.results.result import Result
from petlbench.training.evaluation import Predictor
from petlbench.training.step import Step

TINY: dict[str, Any] = {
    "backbone": "petlbench_micro",
    "image_size": 32,
    "epochs": 3,
    "batch_size": 8,
    "threads": 1,
    "tracking_uri": "none",
}
Run = Callable[..., Result]


@pytest.fixture
def run(images: Path, tmp_path: Path) -> Run:
    def call(method: str = "bitfit", output: str = "results", **given: Any) -> Result:
        return pb.run(method, images, output=tmp_path / output, progress=False, **{**TINY, **given})

    return call


def test_validation_images_are_trained_on_and_neither_scored_nor_looked_at_otherwise(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained: set[int] = set()
    evaluated: list[int] = []
    step, predict = Step.__call__, Predictor.__call__

    def recorded_step(self: Step, batch: Batch) -> Any:
        trained.update(batch.index.tolist())
        return step(self, batch)

    def recorded_reading(self: Predictor, loader: ImageLoader, on_images: Any) -> Any:
        evaluated.append(len(loader.indices))
        return predict(self, loader, on_images)

    monkeypatch.setattr(Step, "__call__", recorded_step)
    monkeypatch.setattr(Predictor, "__call__", recorded_reading)
    result = run(train_on="train+val", drop_last=False)
    images = result.data["images"]
    assert images["val"] == 0
    assert len(trained) == images["train"] == 60 - images["test"]
    assert evaluated == [images["test"]], "the test split is read once, and nothing else is read"
    assert (result.config.training.select, result.best_epoch) == ("last", 3)
    assert set(result.metrics) == set(result.intervals) == {"test"}
    assert not [name for entry in result.curve for name in entry if name.startswith("val_")]
    assert "no scores on them" in " ".join(result.data["notes"])
    folder = tmp_path / "results" / result.run_id
    assert set(pd.read_parquet(folder / "predictions.parquet")["split"]) == {"test"}
    assert len((tmp_path / "results" / "test_reads.jsonl").read_text().splitlines()) == 1


def test_a_refit_shares_the_split_with_the_run_that_validates_and_is_another_run(run: Run) -> None:
    whole, refit = run(epochs=1), run(epochs=1, train_on="train+val")
    assert refit.run_id != whole.run_id
    assert (refit.digests["split"], refit.digests["data"]) == (whole.digests["split"], whole.digests["data"])
    assert refit.data["images"]["train"] == whole.data["images"]["train"] + whole.data["images"]["val"]


def test_the_same_seed_gives_the_same_bytes(run: Run, tmp_path: Path) -> None:
    files = [
        tmp_path / output / run(output=output, train_on="train+val", seed=seed).run_id / "learned.safetensors"
        for output, seed in (("a", 0), ("b", 0), ("a", 1))
    ]
    first, again, other = [file.read_bytes() for file in files]
    assert first == again != other


KILLED = """
import os, sys
from petlbench.cli.app import run_command
from petlbench.core.progress_bars import ShownProgress
ShownProgress.epoch = lambda self, entry, score: os.kill(os.getpid(), 9) if entry["epoch"] == 2 else None
run_command(sys.argv[1:])
"""


def test_a_refit_that_was_killed_ends_with_the_same_numbers(run: Run, images: Path, tmp_path: Path) -> None:
    unbroken = run(output="unbroken", train_on="train+val")
    command = ["run", "--method", "bitfit", "--dataset", str(images), "--output", str(tmp_path / "broken")]
    command += [part for name, value in TINY.items() for part in (f"--{name.replace('_', '-')}", str(value))]
    killed = subprocess.run([sys.executable, "-c", KILLED, *command, "--train-on", "train+val"], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert list((tmp_path / "broken" / ".work").glob("*/checkpoint.pt"))
    resumed = run(output="broken", train_on="train+val")
    assert (resumed.curve, resumed.metrics) == (unbroken.curve, unbroken.metrics)
    assert resumed.digests["learned"] == unbroken.digests["learned"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"select": "score"}, "--select score chooses the epoch by validation, and --train-on train"),
        ({"select": "worst-group:sex"}, "--select worst-group:sex chooses the epoch by validation"),
        ({"calibrate": "temperature"}, "--calibrate temperature fits to validation"),
        ({"shots": 2}, "--shots 2 trains on a part"),
        ({"train_fraction": 0.5}, "--train-fraction 0.5 trains on a part"),
        (
            {"drop_last": True, "batch_size": 56},
            "--drop-last leaves nothing of images.*: 48 training images fill",
        ),
    ],
)
def test_what_does_not_go_together_is_refused_and_leaves_nothing(
    run: Run, tmp_path: Path, given: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        run(train_on="train+val", **given)
    assert not list((tmp_path / "results").glob("bitfit-*"))


def test_drop_last_counts_the_images_that_are_trained_on(run: Run) -> None:
    count = run(epochs=1).data["images"]["train"]
    assert run(epochs=1, drop_last=True, batch_size=count, method="linear").status == "finished"
    with pytest.raises(InputError, match=f"{count} training images fill no batch of {count + 1}"):
        run(epochs=1, drop_last=True, batch_size=count + 1, method="linear")


def test_the_last_epoch_is_kept_and_validation_is_scored_at_it(run: Run) -> None:
    result = run(select="last", lr=0.05)
    assert result.best_epoch == 3
    assert result.metrics["val"]["auc"] == result.curve[-1]["val_auc"]


def test_the_epoch_is_the_best_by_the_metric_that_is_named(run: Run) -> None:
    result = run(select="accuracy", lr=0.05, epochs=5)
    accuracies = [entry["val_accuracy"] for entry in result.curve]
    assert result.best_epoch == accuracies.index(max(accuracies)) + 1
    with pytest.raises(InputError, match="--select acuracy: the task multi-class has no such score"):
        run(select="acuracy")


def test_the_command_line_says_how_the_epoch_was_chosen(
    images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = [part for name, value in TINY.items() for part in (f"--{name.replace('_', '-')}", str(value))]
    command = ["run", "--method", "linear", "--dataset", str(images), "--output", str(tmp_path), *options]
    assert run_command([*command, "--train-on", "train+val"]) == 0
    printed = capsys.readouterr()
    assert "3 of 3, the last" in " ".join(printed.out.split())
    assert "validation" not in printed.err
    assert run_command([*command, "--select", "accuracy", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["config"]["training"]["select"] == "accuracy"

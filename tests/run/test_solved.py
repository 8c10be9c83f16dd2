"""Runs of a method that is solved: one epoch, the same rules of validation and test, and nothing said of steps."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.torch import load_file

import petlbench as pb
from petlbench.cli.app import run_command
from petlbench.core.config import RunConfig
from petlbench.core.errors import InputError
from petlbench.results.result import Result
from petlbench.training.trainer import Checkpoint

SOLVED: dict[str, Any] = {"solver": "lbfgs", "C": 10.0}
Run = Callable[..., Result]


@pytest.fixture
def run(images: Path, tmp_path: Path) -> Run:
    common = {"backbone": "petlbench_micro", "image_size": 32, "threads": 1, "tracking_uri": "none", "progress": False}

    def call(output: str = "results", **options: Any) -> Result:
        settings = {**SOLVED, **options.pop("method_settings", {})}
        return pb.run("linear", images, method_settings=settings, output=tmp_path / output, **{**common, **options})

    return call


def test_its_curve_has_one_epoch_which_is_the_best_and_no_rate(run: Run, tmp_path: Path) -> None:
    result = run(class_weights="balanced")
    assert (result.status, result.best_epoch, result.config.training.epochs) == ("finished", 1, 1)
    [entry] = result.curve
    assert "lr" not in entry
    assert 0 < entry["train_loss"] < np.log(3)
    assert entry["val_auc"] == result.metrics["val"]["auc"]
    assert result.memory is not None
    assert result.memory.source == "cpu"
    assert (result.memory.allocated or 0) > 0
    weaker = run("weaker", class_weights="balanced", method_settings={"C": 1e-3})
    assert weaker.curve[0]["train_loss"] > entry["train_loss"]


def test_no_seed_changes_it_and_live_features_give_the_same(run: Run, tmp_path: Path) -> None:
    # The split is drawn by a seed of its own, so that nothing is left that a seed could change.
    first, second = run(cache_precision="fp32"), run(cache_precision="fp32", seed=7)
    files = [tmp_path / "results" / result.run_id / "learned.safetensors" for result in (first, second)]
    one, other = map(load_file, files)
    assert all((one[name] == other[name]).all() for name in one)
    live = run(preload=False)
    assert live.metrics["val"]["loss"] == pytest.approx(first.metrics["val"]["loss"], rel=1e-3)


def test_stopped_behind_its_epoch_it_is_not_solved_again(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, save = run("whole"), Checkpoint.save

    def stop(self: Checkpoint, *state: Any) -> None:
        save(self, *state)
        raise KeyboardInterrupt

    monkeypatch.setattr(Checkpoint, "save", stop)
    assert run().status == "interrupted"
    monkeypatch.undo()
    monkeypatch.setattr("petlbench.training.trainer.solve", None)
    resumed = run()
    assert (resumed.status, resumed.curve, resumed.metrics) == ("finished", whole.curve, whole.metrics)
    assert resumed.memory is not None
    assert whole.memory is not None
    assert resumed.memory.allocated == whole.memory.allocated


@pytest.mark.parametrize("options", [{"lr": 0.5}, {"epochs": 3}, {"weight_decay": 0.3}, {"optimizer": "sgd"}])
def test_what_plays_no_part_is_refused_by_name(run: Run, options: dict[str, Any]) -> None:
    [(name, value)] = options.items()
    with pytest.raises(InputError, match=f"{name} = {value!r} has no part where linear is solved"):
        run(**options)


def test_its_memory_is_not_predicted(images: Path, capsys: pytest.CaptureFixture[str]) -> None:
    common = ["--backbone", "petlbench_micro", "--image-size", "32", "--set", "method.solver=lbfgs", "--json"]
    assert run_command(["run", "--method", "linear", "--dataset", str(images), "--dry-run", *common]) == 0
    assert json.loads(capsys.readouterr().out)["memory"]["allocated"] is None
    run_command(["memory", "--method", "linear", *common])
    [row] = json.loads(capsys.readouterr().out)["rows"]
    assert row["allocated"] is None
    assert "all training images at once" in row["refused"]


def test_a_run_that_takes_steps_is_called_as_before_there_was_a_choice() -> None:
    fields: dict[str, Any] = {"method": "linear", "dataset": "digits", "split": "random", "backbone": "petlbench_micro"}
    fields |= {"image_size": 64, "preload": True, "device": "cpu", "threads": 1}
    fields["training"] = {"lr": 1e-3, "weight_decay": 1e-4}
    names = [
        RunConfig(**fields, method_settings=settings).run_id
        for settings in ({}, {"solver": "steps", "C": 1.0}, SOLVED, {**SOLVED, "C": 2.0})
    ]
    assert names[0] == names[1]
    assert len(set(names)) == 3

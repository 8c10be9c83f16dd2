"""The command line of a run, read again, is that run."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest
from click.testing import CliRunner
from PIL import Image

from petlbench.cli.app import app
from petlbench.core.config import RunConfig
from petlbench.run.command import command_of
from petlbench.run.options import RunContext, RunOptions

DATA = "--dataset digits --backbone petlbench_micro --image-size 32"
LEAST = f"--method lora {DATA}"


def dry_run(words: list[str]) -> RunConfig:
    """The config that a command line has."""
    output = CliRunner().invoke(app, [*words, "--dry-run", "--json"], catch_exceptions=False).stdout
    return RunConfig.model_validate(json.loads(output)["config"])


@pytest.mark.parametrize(
    "options",
    [
        LEAST,
        "--method lora --dataset digits --backbone vit_tiny_patch16_224 --weights random --normalize half",
        f"{LEAST} --lr 0.003 --weight-decay 0 --epochs 3 --set training.drop_path=0.1 --class-weights balanced",
        f"{LEAST} --set method.rank=3 --checkpointing --precision bf16 --threads 3 --seed 7 --aggregate max",
        f"--method fpt {DATA} --no-preload --split kfold:5/2 --split-seed 4",
        f"--method fpt {DATA} --cache-precision fp32 --shots 3 --draw 2 --shots-val --calibrate temperature",
    ],
)
def test_it_is_that_run(options: str, tmp_path: Path) -> None:
    config = dry_run(["run", *shlex.split(options)])
    context = RunContext(RunOptions(Path("results"), tmp_path, tmp_path))
    command = command_of(config, context)
    assert f"--data-root {tmp_path}" in command
    again = dry_run(shlex.split(command)[1:])
    assert again == config


def test_it_names_what_is_no_default_and_nothing_else(tmp_path: Path) -> None:
    config = dry_run(["run", *shlex.split(LEAST), "--epochs", "3"])
    words = shlex.split(command_of(config, RunContext(RunOptions(Path("results"), tmp_path, tmp_path))))
    assert {word for word in words if word.startswith("--")} == {
        "--method", "--dataset", "--backbone", "--image-size", "--epochs", "--data-root",
    }  # fmt: skip


def test_settings_of_the_dataset_and_of_its_external_test_set_are_named(tmp_path: Path) -> None:
    table = tmp_path / "images.csv"
    for name in "abcdef":
        Image.new("L", (32, 32), ord(name)).save(tmp_path / f"{name}.png")
    table.write_text("image,grade\na.png,0\nb.png,1\nc.png,0\nd.png,1\ne.png,0\nf.png,1\n")
    data = ["--dataset", str(table), "--set", "dataset.label_column=grade", "--test-on", str(table)]
    others = ["--method", "lora", "--backbone", "petlbench_micro", "--image-size", "32"]
    config = dry_run(["run", *others, *data, "--test-set", "label_column=grade"])
    assert dry_run(shlex.split(command_of(config, RunContext(RunOptions(tmp_path, tmp_path, tmp_path))))[1:]) == config

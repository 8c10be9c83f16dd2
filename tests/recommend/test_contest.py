"""Races on real runs, through the command, on a tiny backbone."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from click.testing import CliRunner

from petlbench.cli.app import app
from petlbench.core.errors import InputError
from petlbench.metrics.classification import AUC
from petlbench.recommend.field import Field, Standing
from petlbench.results.predictions import Predictions
from petlbench.sweep.search import TrialFacts

TINY = [
    "--backbone",
    "petlbench_micro",
    "--image-size",
    "32",
    "--epochs",
    "1",
    "--workers",
    "0",
    "--tracking-uri",
    "none",
]


def recommend(output: Path, *arguments: str) -> Any:
    run = ["recommend", "--output", str(output), *TINY, "--json", *arguments]
    result = CliRunner().invoke(app, run, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def reads(output: Path) -> list[str]:
    return [line for file in output.glob("*reads*.jsonl") for line in file.read_text().splitlines()]


@pytest.fixture(scope="module")
def digits_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixty images of two digits in class folders."""
    from PIL import Image
    from sklearn.datasets import load_digits

    folder = tmp_path_factory.mktemp("data") / "two"
    digits = load_digits()
    for label in (0, 1):
        (folder / str(label)).mkdir(parents=True)
        for number, image in enumerate(digits.images[digits.target == label][:30]):
            Image.fromarray((image * 15).astype("uint8")).save(folder / str(label) / f"{number}.png")
    return folder


def test_a_race_tests_the_winner_once_and_goes_on_from_where_it_was(tmp_path: Path, digits_folder: Path) -> None:
    arguments = ("--dataset", str(digits_folder), "--hours", "1", "--methods", "linear,bitfit", "--trials", "4")
    answer = recommend(tmp_path, *arguments)
    best = answer["recommended"]
    assert best["method"] in {"linear", "bitfit"}
    assert best["seeds"] == 3
    assert answer["trials"] == 4
    assert {row["method"] for row in answer["methods"]} == {"linear", "bitfit"}
    assert best["test"] is not None
    assert best["interval"]["low"] <= best["test"] <= best["interval"]["high"]
    assert best["command"].startswith(f"petlbench run --method {best['method']}")
    others = {*answer["not_separable"], *answer["excluded"]}
    assert others == {"linear", "bitfit"} - {best["method"]}
    assert all(
        each["low"] <= each["effect"] <= each["high"] for each in answer["not_separable"].values() if each["effect"]
    )
    assert any("too few validation images" in note for note in answer["notes"])
    seen = reads(tmp_path)
    assert len(seen) == 1
    trained = sorted((tmp_path / "trials").glob("*/result.json"))
    stamps = [file.stat().st_mtime_ns for file in trained]
    again = recommend(tmp_path, *arguments)
    assert again["recommended"]["config"] == best["config"]
    assert reads(tmp_path) == seen
    assert [file.stat().st_mtime_ns for file in sorted((tmp_path / "trials").glob("*/result.json"))] == stamps


@pytest.mark.slow
def test_the_command_that_it_names_is_the_run_that_it_tested(tmp_path: Path, digits_folder: Path) -> None:
    import shlex

    data = ("--dataset", str(digits_folder))
    answer = recommend(tmp_path, *data, "--hours", "1", "--methods", "lora", "--trials", "1")
    words = shlex.split(answer["recommended"]["command"])[1:]
    run = [*words, "--tracking-uri", "none", "--json"]
    again = json.loads(CliRunner().invoke(app, run, catch_exceptions=False).stdout)
    assert again["run_id"] == answer["recommended"]["run_id"]


@pytest.mark.parametrize(
    ("arguments", "kind", "words"),
    [
        (["--budget", "10KiB"], "nothing_fits", "no method is left"),
        (["--max-params", "0.0001%"], "nothing_fits", "of the parameters"),
        (["--hours", "0.000001"], "too_few_hours", "three runs of the cheapest method"),
        (["--metric", "loss"], "bad_setting", "no such score of which more is better"),
        (["--methods", "lorra"], "unknown_method", "lorra"),
    ],
)
def test_what_cannot_be_decided_is_refused(
    tmp_path: Path, digits_folder: Path, arguments: list[str], kind: str, words: str
) -> None:
    given = {"--hours": "1", "--methods": "linear", **dict(zip(arguments[::2], arguments[1::2], strict=True))}
    words_of = [word for pair in given.items() for word in pair]
    run = ["recommend", "--dataset", str(digits_folder), "--output", str(tmp_path), *TINY, *words_of]
    with pytest.raises(InputError) as caught:
        CliRunner().invoke(app, run, catch_exceptions=False, standalone_mode=False)
    assert caught.value.kind == kind
    assert words in caught.value.message


def test_a_difference_is_paired_on_the_validation_images() -> None:
    rng, images = np.random.default_rng(0), 400
    labels = rng.integers(0, 2, images)
    seen = labels + rng.normal(size=images)
    field = SimpleNamespace(entrants=(), prior=None, score=AUC, label="made up")
    standing = Standing(cast("Field", field), images)
    outputs = {"good": seen, "nearly": seen + 0.1 * rng.normal(size=images), "bad": rng.normal(size=images)}
    trials = {}
    for name, values in outputs.items():
        logits = np.stack([np.zeros(images), values], axis=1)
        ids = [str(image) for image in range(images)]
        standing._predictions[name] = Predictions(ids, [None] * images, labels, logits)
        trials[name] = TrialFacts(0, "finished", {}, AUC.score(labels, logits), name)
    near = standing.difference(trials["nearly"], trials["good"])
    far = standing.difference(trials["bad"], trials["good"])
    assert cast("float", near.low) < near.effect < cast("float", near.high)
    assert cast("float", far.high) < -0.1
    # Images that both judge alike say nothing of the difference: paired, it is known ten times as well.
    alone = sum(float((AUC.influence(labels, standing._predictions[n].logits) ** 2).sum()) for n in ("good", "nearly"))  # type: ignore[union-attr, operator]
    assert near.error is not None
    assert near.error < 0.4 * alone**0.5


def test_methods_race_on_several_backbones(tmp_path: Path, digits_folder: Path) -> None:
    data = ("--dataset", str(digits_folder), "--hours", "1", "--methods", "linear,bitfit", "--trials", "4")
    answer = recommend(tmp_path, *data, "--backbone", "test_vit", "--weights", "random")
    arms = {
        f"{method} on {backbone}" for method in ("linear", "bitfit") for backbone in ("petlbench_micro", "test_vit")
    }
    assert {row["arm"] for row in answer["methods"]} == arms
    assert {row["trials"] for row in answer["methods"]} == {1}
    best = answer["recommended"]
    names = {"petlbench_micro": "petlbench_micro.distilled", "test_vit": "test_vit.r160_in1k"}
    assert best["arm"] in {f"{best['method']} on {name}" for name, full in names.items() if full == best["backbone"]}
    assert f"--backbone {best['backbone']}" in best["command"]
    assert {*answer["not_separable"], *answer["excluded"]} == arms - {best["arm"]}
    # What a run takes, and the memory that is predicted, are each backbone's own.
    assert set(answer["hours"]["costs"]) == arms
    memory = {row["arm"]: row["memory"] for row in answer["methods"]}
    assert memory["linear on petlbench_micro"] != memory["linear on test_vit"]

"""Races on real runs, through the command, on a tiny backbone."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace
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
from petlbench.recommend.trials import Candidate
from petlbench.results.journal import read_journal
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


def write_digits(folder: Path, counts: dict[int, int]) -> Path:
    """Write so many images of some digits into class folders."""
    from PIL import Image
    from sklearn.datasets import load_digits

    digits = load_digits()
    for label, count in counts.items():
        (folder / str(label)).mkdir(parents=True)
        for number, image in enumerate(digits.images[digits.target == label][:count]):
            Image.fromarray((image * 15).astype("uint8")).save(folder / str(label) / f"{number}.png")
    return folder


@pytest.fixture(scope="module")
def digits_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixty images of two digits in class folders."""
    return write_digits(tmp_path_factory.mktemp("data") / "two", {0: 30, 1: 30})


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
    assert others == {*answer["differences"]} == {"linear", "bitfit"} - {best["method"]}
    assert all(
        each["low"] <= each["effect"] <= each["high"] for each in answer["not_separable"].values() if each["effect"]
    )
    assert any("too few validation images" in note for note in answer["notes"])
    seen = reads(tmp_path)
    assert len(seen) == 1
    trained = sorted((tmp_path / "trials").glob("*/result.json"))
    stamps = [file.stat().st_mtime_ns for file in trained]
    again = recommend(tmp_path, *arguments, "--to", str(tmp_path / "page.html"))
    assert again["recommended"]["config"] == best["config"]
    assert f'<p class="verdict">Take {best["method"]}, with ' in (tmp_path / "page.html").read_text(encoding="utf-8")
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


def test_twelve_images_get_an_answer_that_says_what_it_is_worth(tmp_path: Path) -> None:
    folder = write_digits(tmp_path / "data", {0: 6, 1: 6})
    data = ("--dataset", str(folder), "--hours", "1", "--methods", "linear", "--trials", "1")
    answer = recommend(tmp_path / "results", *data)
    assert answer["recommended"]["method"] == "linear"
    assert answer["separable"] is False
    assert "too few validation images: the method is chosen on 2, and 50 would be few" in answer["notes"]
    assert "the class '0' has 6 images: scores of it are hints" in answer["notes"]
    interval = answer["recommended"]["interval"]
    assert interval["high"] - interval["low"] > 0.5


def test_a_class_of_two_images_is_refused_with_what_to_do(tmp_path: Path) -> None:
    folder = write_digits(tmp_path / "data", {0: 10, 1: 10, 2: 2})
    run = ["recommend", "--dataset", str(folder), "--output", str(tmp_path / "results"), *TINY, "--hours", "1"]
    with pytest.raises(InputError, match="the class '2' has 2 images") as caught:
        CliRunner().invoke(app, [*run, "--methods", "linear"], catch_exceptions=False, standalone_mode=False)
    assert caught.value.hint == "add images to the class or leave it out"


@pytest.mark.slow
def test_a_race_that_is_killed_five_times_ends_as_if_it_were_not(tmp_path: Path, digits_folder: Path) -> None:
    broken, whole = tmp_path / "broken", tmp_path / "whole"
    data = ["--dataset", str(digits_folder), "--hours", "2", "--methods", "linear,bitfit", "--trials", "4"]
    kills = 0
    for lines in (2, 9, 17, 28, 36):  # measuring, trials, finalists: eleven runs of five lines, measuring has one less
        process = start(broken, data)
        while len(journal(broken)) < lines and process.poll() is None:
            time.sleep(0.02)
        kills += process.poll() is None
        process.kill()
        process.wait()
    assert kills == 5
    answers = []
    for output in (broken, whole):
        process = start(output, data)
        answers.append(json.loads(process.communicate()[0]))
        assert process.returncode == 0
    for name in ("config", "run_id", "test", "val_mean", "settings", "interval"):
        assert answers[0]["recommended"][name] == answers[1]["recommended"][name]
    assert answers[0]["not_separable"] == answers[1]["not_separable"]
    assert [row["score"] for row in answers[0]["methods"]] == [row["score"] for row in answers[1]["methods"]]
    epochs = [Counter(journal(each, "epoch")) for each in (broken, whole)]
    assert epochs[0] == epochs[1]
    assert set(epochs[0].values()) == {1}
    assert len(reads(broken)) == 1


def start(output: Path, data: list[str]) -> subprocess.Popen[str]:
    """The command in a process of its own, on three epochs."""
    tiny = [*TINY]
    tiny[tiny.index("--epochs") + 1] = "3"
    command = [sys.executable, "-m", "petlbench", "recommend", "--output", str(output), *tiny, "--json", *data]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)


def journal(output: Path, event: str = "") -> list[tuple[str, str, int | None]]:
    """Folder, run and epoch of the lines of both journals: that of trials, and that of the tested run."""
    lines = [(folder.name, line) for folder in (output, output / "trials") for line in read_journal(folder)]
    return [
        ("trial" if name == "trials" else "run", line["run_id"], line.get("epoch"))
        for name, line in lines
        if event in ("", line["event"])
    ]


def made_up_standing(scores: dict[str, float], images: int = 400) -> tuple[Standing, list[TrialFacts]]:
    """A race of methods with four rates each, one trial of each: its images are ranked so well."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, images)
    rates = (1e-4, 1e-3, 1e-2, 1e-1)
    candidates = [Candidate.of(method, rate, 0, {}) for method in scores for rate in rates]
    entrants = [SimpleNamespace(candidate=candidate) for candidate in candidates]
    known = {"prior": None, "score": AUC, "label": "made up", "card": SimpleNamespace(seed=0)}
    standing = Standing(cast("Field", SimpleNamespace(entrants=entrants, **known)), images)
    trials = []
    for number, (method, signal) in enumerate(scores.items()):
        logits = np.stack([np.zeros(images), signal * labels + rng.normal(size=images)], axis=1)
        standing._predictions[method] = Predictions([str(i) for i in range(images)], [None] * images, labels, logits)
        params = {"candidate": number * len(rates) + 1}
        trials.append(TrialFacts(number, "finished", params, AUC.score(labels, logits), method))
    return standing, trials


def test_a_method_is_not_dropped_for_one_of_its_settings() -> None:
    standing, trials = made_up_standing({"lora": 2.0, "bitfit": 1.0})
    assert standing.excluded(trials) == {}
    # It is, once all of them are no better.
    for number, candidate in enumerate((4, 6, 7)):
        trials.append(replace(trials[1], number=2 + number, run_id=f"more-{number}", params={"candidate": candidate}))
        standing._predictions[f"more-{number}"] = standing._predictions["bitfit"]
    assert set(standing.excluded(trials)) == {"bitfit"}


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

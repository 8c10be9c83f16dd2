"""``--test-on``: another dataset of classes that the run learns, read once beside the run's own test split."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from petlbench.cli.app import run_command
from petlbench.metrics.classification import evaluate

CLASSES = ("dark", "light")


def make_images(folder: Path, names: tuple[str, ...], count: int, seed: int) -> Path:
    """Noisy images; those of class ``light`` are brighter by 40 of 255."""
    rng = np.random.default_rng(seed)
    for name in names:
        (folder / name).mkdir(parents=True)
        for number in range(count):
            pixels = rng.integers(0, 200, (40, 40, 3)) + 40 * (name == "light")
            Image.fromarray(pixels.astype(np.uint8)).save(folder / name / f"{number:02d}.png")
    return folder


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_images(tmp_path_factory.mktemp("own"), CLASSES, 20, seed=0)


@pytest.fixture
def external(tmp_path: Path, own: Path) -> Path:
    """Fewer images, one of them known, whose class names a card lists the other way round."""
    folder = make_images(tmp_path / "other", CLASSES, 7, seed=1)
    shutil.copy(own / "dark" / "00.png", folder / "dark" / "known.png")
    lines = [f"{path.relative_to(folder).as_posix()},{path.parent.name}" for path in sorted(folder.rglob("*.png"))]
    (folder / "labels.csv").write_text("\n".join(["image,label", *lines]) + "\n")
    return folder


def run(own: Path, output: Path, *arguments: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, dict[str, Any]]:
    capsys.readouterr()
    common = ("--backbone", "petlbench_micro", "--image-size", "32", "--batch-size", "8", "--epochs", "1", "--json")
    where = ("--dataset", str(own), "--output", str(output), "--tracking-uri", "none", "--threads", "1")
    status = run_command(["run", *arguments, *common, *where])
    return status, json.loads(capsys.readouterr().out)


@pytest.mark.parametrize("method", ["full", "fpt"])
def test_all_images_of_the_external_set_are_scored(
    own: Path, external: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], method: str
) -> None:
    table, output = str(external / "labels.csv"), tmp_path / "results"
    status, result = run(own, output, "--method", method, "--test-on", table, capsys=capsys)
    assert (status, result["status"]) == (0, "finished")
    frame = pd.read_parquet(result["artifacts"]["predictions"])
    rows = frame[frame["split"] == "external"]
    assert sorted(rows["image_id"]) == sorted(p.relative_to(external).as_posix() for p in external.rglob("*.png"))
    assert [CLASSES[label] for label in rows["label"]] == [name.split("/")[0] for name in rows["image_id"]]
    expected = evaluate(rows["label"].to_numpy(), np.stack(rows["logits"].to_list()))
    assert result["metrics"]["external"] == expected
    assert result["data"]["external"]["images"]["test"] == result["data"]["external"]["shared_images"] + 14 == 15
    reads = [json.loads(line) for line in (output / "test_reads.jsonl").read_text().splitlines()]
    assert [read["dataset"] for read in reads] == [str(own), table]


def test_what_is_trained_does_not_hang_on_the_external_set(
    own: Path, external: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ("--method", "fpt", "--cache-dir", str(tmp_path / "cache"))
    _, alone = run(own, tmp_path / "a", *arguments, capsys=capsys)
    _, both = run(own, tmp_path / "b", *arguments, "--test-on", str(external / "labels.csv"), capsys=capsys)
    assert alone["run_id"] != both["run_id"]
    learned = [Path(result["artifacts"]["learned"]).read_bytes() for result in (alone, both)]
    without_names = [
        content.replace(r["run_id"].encode(), b"") for content, r in zip(learned, (alone, both), strict=True)
    ]
    assert without_names[0] == without_names[1]
    assert alone["metrics"] == {side: both["metrics"][side] for side in ("val", "test")}


def test_other_classes_are_refused(own: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = make_images(tmp_path / "other", ("dark", "green"), 4, seed=2)
    status, document = run(own, tmp_path / "results", "--method", "full", "--test-on", str(other), capsys=capsys)
    assert (status, document["error"]["kind"]) == (2, "class_mismatch")
    assert "dark, green" in document["error"]["message"]
    assert not list((tmp_path / "results").glob("*/result.json"))


def test_a_class_may_be_absent_and_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    grades = ("0", "1", "2")
    own = make_images(tmp_path / "home", grades, 10, seed=0)
    abroad = make_images(tmp_path / "abroad", ("0", "2"), 4, seed=1)
    status, result = run(own, tmp_path / "results", "--method", "linear", "--test-on", str(abroad), capsys=capsys)
    assert status == 0
    scores = result["metrics"]["external"]
    assert (scores["classes_absent"], scores["support"], scores["auc"] is not None) == ([1], [4, 0, 4], True)
    frame = pd.read_parquet(result["artifacts"]["predictions"])
    rows = frame[frame["split"] == "external"]
    assert [grades[label] for label in rows["label"]] == [name.split("/")[0] for name in rows["image_id"]]


def test_the_external_set_has_settings_of_its_own(
    own: Path, external: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = external / "labels.csv"
    table.write_text(table.read_text().replace("image,label", "image,grade"))
    arguments = ("--method", "linear", "--test-on", str(table))
    status, refused = run(own, tmp_path / "results", *arguments, capsys=capsys)
    assert (status, refused["error"]["kind"]) == (2, "missing_column")
    assert "--test-set label_column=grade" in refused["error"]["hint"]
    named = ("--test-set", "label_column=grade")
    status, result = run(own, tmp_path / "results", *arguments, *named, capsys=capsys)
    assert (status, result["config"]["dataset_settings"]) == (0, {"test_on.label_column": "grade"})
    earlier = ("--set", "dataset.test_on.label_column=grade")
    _, same = run(own, tmp_path / "results", *arguments, *earlier, capsys=capsys)
    assert same["run_id"] == result["run_id"]
    status, refused = run(own, tmp_path / "results", "--method", "linear", *named, capsys=capsys)
    assert (status, refused["error"]["kind"]) == (2, "bad_setting")
    assert "--test-set label_column" in refused["error"]["message"]
    status, refused = run(own, tmp_path / "results", "--method", "linear", *named, capsys=capsys)
    assert (status, "--test-on" in refused["error"]["hint"]) == (2, True)


def test_labels_follow_the_order_of_the_run_s_own_classes(
    own: Path, external: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    card = tmp_path / "turned.toml"
    card.write_text(
        'title = "Turned"\nmodality = "noise"\ntask = "binary"\nclasses = ["light", "dark"]\nlicence = "CC0"\n'
        'version = 1\nsplit = "random"\ngrouping = "none"\n[reader]\nkind = "folder"\n'
    )
    (external / "labels.csv").unlink()
    shutil.move(external, tmp_path / "turned")
    arguments = ("--method", "full", "--test-on", str(card), "--data-root", str(tmp_path))
    _, result = run(own, tmp_path / "results", *arguments, capsys=capsys)
    frame = pd.read_parquet(result["artifacts"]["predictions"])
    rows = frame[frame["split"] == "external"]
    assert [CLASSES[label] for label in rows["label"]] == [name.split("/")[0] for name in rows["image_id"]]

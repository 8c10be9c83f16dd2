"""``petlbench evaluate``: one more reading of a test set, logged, beside a result that stays as it is."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torch import nn

import petlbench as pb
from petlbench.cli.app import run_command
from petlbench.metrics.classification import compute_intervals, evaluate, softmax
from petlbench.results.evaluation import FOLDER, read_evaluations

GRADES = ("mild", "none", "severe")


def make_images(folder: Path, names: tuple[str, ...], count: int, seed: int) -> Path:
    """Noisy images, the brighter the further back their class stands among the grades, so far that they overlap."""
    rng = np.random.default_rng(seed)
    for name in names:
        (folder / name).mkdir(parents=True)
        for number in range(count):
            level = rng.normal(80 + 30 * GRADES.index(name), 30)
            pixels = rng.normal(level, 20, (40, 40, 3)).clip(0, 255)
            Image.fromarray(pixels.astype(np.uint8)).save(folder / name / f"{number:02d}.png")
    return folder


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A run with a temperature, and where it lies."""
    root = tmp_path_factory.mktemp("evaluate")
    own = make_images(root / "eyes", GRADES, 25, seed=0)
    result = pb.run(
        "linear",
        str(own),
        backbone="petlbench_micro",
        image_size=32,
        batch_size=8,
        epochs=4,
        lr=1e-2,
        threads=1,
        device="cpu",
        calibrate="temperature",
        tracking_uri="none",
        output=root / "results",
        progress=False,
    )
    assert result.status == "finished", result.error
    return {"root": root, "own": own, "output": root / "results", "result": result}


def call(run: dict[str, Any], *arguments: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, dict[str, Any]]:
    capsys.readouterr()
    status = run_command(["evaluate", run["result"].run_id, *arguments, "--output", str(run["output"]), "--json"])
    return status, json.loads(capsys.readouterr().out)


def reads(run: dict[str, Any]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run["output"] / "test_reads.jsonl").read_text().splitlines()]


def test_another_dataset_is_scored_as_a_whole_and_a_class_may_be_absent(
    run: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, before = run["output"] / run["result"].run_id, reads(run)
    stored = (folder / "result.json").read_bytes()
    abroad = make_images(tmp_path / "abroad", ("none", "severe"), 12, seed=1)
    status, document = call(run, "--on", str(abroad), capsys=capsys)
    assert status == 0
    frame = pd.read_parquet(folder / FOLDER / document["artifacts"]["predictions"])
    assert sorted(frame["image_id"]) == sorted(path.relative_to(abroad).as_posix() for path in abroad.rglob("*.png"))
    assert [GRADES[label] for label in frame["label"]] == [name.split("/")[0] for name in frame["image_id"]]
    labels, logits = frame["label"].to_numpy(copy=True), np.stack(frame["logits"].to_list())
    assert document["metrics"] == evaluate(labels, logits)
    assert document["metrics"]["classes_absent"] == [0]
    assert document["intervals"] == compute_intervals(labels, logits)
    assert (document["is_own"], document["dataset"], document["robustness"]) == (False, str(abroad), None)
    (line,) = reads(run)[len(before) :]
    assert (line["dataset"], line["run_id"], line["evaluation"]) == (
        str(abroad),
        run["result"].run_id,
        document["name"],
    )
    assert line["split"] == document["digests"]["split"]
    assert (folder / "result.json").read_bytes() == stored
    calibration = document["calibration"]
    assert calibration["temperature"] == run["result"].calibration.temperature
    for when, temperature in (("before", 1.0), ("after", calibration["temperature"])):
        mean = nn.functional.cross_entropy(torch.from_numpy(logits).double() / temperature, torch.from_numpy(labels))
        assert calibration["figures"]["test"][when]["loss"] == pytest.approx(float(mean))


def test_what_stands_is_not_read_again_unless_it_is_to_be(
    run: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    abroad = make_images(tmp_path / "again", ("none", "severe"), 6, seed=2)
    _, first = call(run, "--on", str(abroad), capsys=capsys)
    count = len(reads(run))
    _, second = call(run, "--on", str(abroad), capsys=capsys)
    assert (second, len(reads(run))) == (first, count)
    _, third = call(run, "--on", str(abroad), "--rerun", capsys=capsys)
    assert len(reads(run)) == count + 1
    assert {**third, "time": ""} == {**first, "time": ""}
    Image.new("RGB", (40, 40)).save(abroad / "none" / "new.png")
    _, fourth = call(run, "--on", str(abroad), capsys=capsys)
    assert fourth["name"] != first["name"]
    assert fourth["metrics"]["count"] == first["metrics"]["count"] + 1


def test_of_its_own_dataset_the_test_side_is_read(run: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    status, document = call(run, "--on", str(run["own"]), capsys=capsys)
    folder = run["output"] / run["result"].run_id
    frame = pd.read_parquet(folder / FOLDER / document["artifacts"]["predictions"])
    kept = pd.read_parquet(folder / "predictions.parquet")
    assert (status, document["is_own"]) == (0, True)
    assert list(frame["image_id"]) == list(kept[kept["split"] == "test"]["image_id"])
    assert reads(run)[-1]["split"] == reads(run)[0]["split"] == document["digests"]["split"]
    assert document["metrics"]["support"] == run["result"].metrics["test"]["support"]
    assert document["metrics"]["auc"] == pytest.approx(run["result"].metrics["test"]["auc"], abs=0.05)


def test_images_that_it_was_trained_on_are_refused(
    run: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    count = len(reads(run))
    copy = shutil.copytree(run["own"], tmp_path / "copy")
    status, document = call(run, "--on", str(copy), capsys=capsys)
    assert (status, document["error"]["kind"], len(reads(run))) == (2, "trained_on", count)
    assert "60 of 75" in document["error"]["message"]
    manifest = run["output"] / run["result"].run_id / "manifest.csv"
    written = manifest.read_text(encoding="utf-8")
    manifest.write_text(written.replace(",train,", ",test,"), encoding="utf-8")
    status, document = call(run, "--on", str(copy), capsys=capsys)
    manifest.write_text(written, encoding="utf-8")
    assert (status, document["error"]["kind"], len(reads(run))) == (2, "stale_result", count)


@pytest.mark.parametrize(
    ("arguments", "kind"),
    [
        (("--on", "{root}/nowhere"), "unknown_dataset"),
        (("--on", "{root}/others"), "class_mismatch"),
        (("--on", "{root}/eyes", "--test-set", "order=none"), "bad_setting"),
        (("--on", "{root}/foreign.csv", "--test-set", "label_column"), "bad_setting"),
        (("--on", "{root}/foreign.csv", "--test-set", "colour=grade"), "unknown_setting"),
        (("--on", "{root}/foreign.csv", "--corruptions", "weather"), "missing_column"),
        (("--on", "{root}/results"), "output_in_dataset"),
    ],
)
def test_bad_input_is_refused_and_nothing_is_read(
    run: dict[str, Any], arguments: tuple[str, ...], kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    root, count = run["root"], len(reads(run))
    if not (root / "others").exists():
        make_images(root / "others", ("none", "mild"), 2, seed=3)
        (root / "others" / "mild").rename(root / "others" / "other")
        (root / "foreign.csv").write_text("image,grade\nothers/none/00.png,none\nothers/other/00.png,mild\n")
    status, document = call(run, *(text.format(root=root) for text in arguments), capsys=capsys)
    assert (status, document["error"]["kind"], len(reads(run))) == (2, kind, count)


def test_a_table_takes_settings_of_its_own(run: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    table = run["root"] / "abroad.csv"
    make_images(run["root"] / "clinic", ("none", "mild"), 5, seed=4)
    names = [path.relative_to(run["root"]).as_posix() for path in sorted((run["root"] / "clinic").rglob("*.png"))]
    table.write_text("\n".join(["image,grade", *(f"{name},{name.split('/')[1]}" for name in names)]) + "\n")
    status, document = call(run, "--on", str(table), "--test-set", "label_column=grade", capsys=capsys)
    assert (status, document["settings"], document["metrics"]["count"]) == (0, {"label_column": "grade"}, 10)
    status, refused = call(run, "--on", str(table), capsys=capsys)
    assert (status, refused["error"]["kind"]) == (2, "missing_column")
    assert "--test-set label_column=grade" in refused["error"]["hint"]


def test_results_show_has_them_and_what_is_damaged_is_passed_over(
    run: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    folder = run["output"] / run["result"].run_id
    _, document = call(run, "--on", str(make_images(tmp_path / "shown", ("none", "mild"), 4, 5)), capsys=capsys)
    for number, damaged in enumerate(("", "[]", "{", json.dumps({**document, "metrics": {"auc": "high"}}))):
        (folder / FOLDER / f"damaged{number}.json").write_text(damaged)
    (folder / FOLDER / "foreign.json").write_text(json.dumps(document))
    capsys.readouterr()
    run_command(["results", "show", run["result"].run_id, "--output", str(run["output"]), "--json"])
    shown = json.loads(capsys.readouterr().out)["evaluations"]
    assert document in shown
    assert not any(each["name"].startswith(("damaged", "foreign")) for each in shown)
    assert sum("passed over" in message for message in caplog.messages) == 5
    assert run_command(["results", "show", run["result"].run_id, "--output", str(run["output"])]) == 0
    text = capsys.readouterr().out
    assert f"read on {document['name']}" in text
    assert "temperature" in text
    for file in (folder / FOLDER).glob("[df]*.json"):
        file.unlink()


def test_the_temperature_reaches_what_predict_says(run: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    folder = run["output"] / run["result"].run_id
    temperature = run["result"].calibration.temperature
    assert temperature != 1
    image = next(run["own"].rglob("*.png"))
    restored = pb.load(folder)
    predictions = pb.predict(folder, image)
    assert predictions.temperature == temperature
    views = {name: torch.zeros(1, 3, view.size, view.size) for name, view in restored.views.items()}
    logits = restored(views).double().numpy()
    assert not np.allclose(softmax(logits / temperature), softmax(logits))
    run_command(["predict", str(folder), str(image)])
    assert "Calibrated: logits are divided" in capsys.readouterr().out
    exported = pb.export(folder, to=run["root"] / "export", format="timm")
    assert exported.temperature == temperature
    assert json.loads((exported.folder / "preprocessing.json").read_text())["temperature"] == temperature


@pytest.mark.needs("medmnistc")
@pytest.mark.short
@pytest.mark.slow
def test_corrupted_images_are_scored_by_corruption_and_severity(
    run: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    abroad = make_images(tmp_path / "corrupted", ("none", "severe"), 4, seed=6)
    status, document = call(run, "--on", str(abroad), "--corruptions", "medmnistc:octmnist", capsys=capsys)
    assert status == 0
    robustness = document["robustness"]
    assert [scores["name"] for scores in robustness["corruptions"]] == [
        *("pixelate", "jpeg_compression", "speckle_noise", "defocus_blur", "motion_blur", "contrast_down")
    ]
    clean = robustness["clean"]["balanced_error"]
    for scores in robustness["corruptions"]:
        errors = [row["balanced_error"] for row in scores["by_severity"]]
        assert scores["balanced_error"] == pytest.approx(np.mean(errors))
        assert scores["increase"] == pytest.approx(np.mean(errors) - clean)
        assert [row["increase"] for row in scores["by_severity"]] == pytest.approx([e - clean for e in errors])
        assert all(row["low"] <= row["balanced_error"] <= row["high"] for row in scores["by_severity"])
        assert (scores["be"], scores["rbe"]) == (None, None)
    assert len(read_evaluations(run["output"] / run["result"].run_id)) >= 1
    status, refused = call(run, "--on", str(abroad), "--corruptions", "medmnistc", capsys=capsys)
    assert (status, refused["error"]["kind"]) == (2, "unknown_corruptions")

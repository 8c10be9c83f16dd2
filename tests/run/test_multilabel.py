"""A run on images with several labels: learning, what is stored, and what other commands make of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pandas as pd
import pytest
from PIL import Image
from sklearn.metrics import roc_auc_score  # type: ignore[import-untyped, unused-ignore]

import petlbench as pb
from petlbench.core.errors import InputError
from petlbench.metrics.multilabel import sigmoid
from petlbench.results.predictions import read_predictions
from petlbench.results.result import Result
from tests.data.labelled import NAMES, write_archive

COMMON: dict[str, Any] = {
    "dataset": "drawn",
    "backbone": "petlbench_micro",
    "image_size": 32,
    "device": "cpu",
    "lr": 3e-3,
    "tracking_uri": "none",
}


def run(folder: Path, method: str, **options: Any) -> Result:
    return pb.run(method=method, catalog=folder, data_root=folder, output=folder / "out", **{**COMMON, **options})


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_archive(tmp_path_factory.mktemp("drawn"), (90, 30, 60))


@pytest.fixture(scope="module")
def result(place: Path) -> Result:
    return run(place, "linear", epochs=1, class_weights="balanced", accumulate=3)


def test_what_is_stored(place: Path, result: Result) -> None:
    assert (result.status, result.data["task"], result.data["selection"]) == ("finished", "multilabel", "auc")
    test = result.metrics["test"]
    assert test["support"] == list(result.data["images_by_class"]["test"].values())
    assert set(result.intervals["test"]) == {"auc", "average_precision", "accuracy", "f1", "exact_match"}
    folder = place / "out" / result.run_id
    frame = pd.read_parquet(folder / "predictions.parquet")
    assert all(len(label) == 3 and set(label) <= {0, 1} for label in frame["label"])
    kept = read_predictions(folder / "predictions.parquet")
    assert kept is not None
    assert kept.labels.shape == kept.logits.shape == (60, 3)
    assert kept.labels.sum(axis=0).tolist() == test["support"]
    assert (folder / "manifest.csv").read_text().splitlines()[1].split(",")[2] in {f"{n:03b}" for n in range(8)}


def test_predictions_and_exported_files_say_the_same(place: Path, result: Result) -> None:
    archive = np.load(place / "drawn/drawn.npz")
    for number, image in enumerate(archive["test_images"][:3]):
        Image.fromarray(image).save(place / f"{number}.png")
    folder = place / "out" / result.run_id
    predictions = pb.predict(folder, [place / f"{number}.png" for number in range(3)], place / "out", catalog=place)
    kept = read_predictions(folder / "predictions.parquet")
    assert kept is not None
    # Frozen features were preloaded in half precision, and are live here.
    np.testing.assert_allclose(predictions.probabilities, sigmoid(kept.logits[:3]), atol=2e-3)
    row = predictions.rows()[0]
    assert row["labels"] == "|".join(n for n, p in zip(NAMES, row["probabilities"], strict=True) if p > 0.5)
    assert list(predictions.table().columns[1:]) == ["labels", *(f"probability_{name}" for name in NAMES)]
    exported = pb.export(folder, place / "out", to=place / "exported", catalog=place)
    assert exported.max_difference < 1e-4
    session = onnxruntime.InferenceSession(str(place / "exported/model.onnx"), providers=["CPUExecutionProvider"])
    image = np.random.default_rng(0).random((2, 3, 32, 32), dtype=np.float32)
    logits, probabilities = session.run(["logits", "probabilities"], {"fine": image})
    np.testing.assert_allclose(probabilities, sigmoid(np.asarray(logits)), atol=1e-6)


def test_a_clinical_report_has_a_row_for_each_label(place: Path, result: Result) -> None:
    table = pb.report("clinical", results=place / "out").tables[0]
    assert [row.title for row in table.rows] == [f"Linear probing, {name}" for name in NAMES]
    assert [row.cells["positives"].value for row in table.rows] == result.metrics["test"]["support"]


def test_an_audit_counts_what_stands_together_and_tries_each_label(place: Path) -> None:
    found = pb.audit_data("drawn", catalog=place, data_root=place).audit
    document = found.document()
    assert np.diag(document["together"]).tolist() == [
        sum(counts) for counts in zip(*document["images"].values(), strict=True)
    ]
    pixels = next(each for each in found.baselines if each.name == "pixels")
    assert [part.name for part in pixels.parts] == list(NAMES)
    square, _, unseen = pixels.parts
    assert square.auc is not None
    assert square.auc > 0.9
    assert unseen.low is not None
    assert unseen.low < 0.5
    assert {finding.kind for finding in found.findings} == {"easy_label", "file_statistics"}


def test_a_method_that_chooses_by_class_is_refused(place: Path) -> None:
    with pytest.raises(InputError, match="gps chooses what it learns"):
        run(place, "gps", epochs=1)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["lora", "fpt"])
def test_what_is_visible_is_learned_and_nothing_else(tmp_path: Path, method: str) -> None:
    place = write_archive(tmp_path, (480, 60, 240))
    result = run(place, method, epochs=4)
    kept = read_predictions(place / "out" / result.run_id / "predictions.parquet")
    assert kept is not None
    square, stripes, unseen = (roc_auc_score(kept.labels[:, k], kept.logits[:, k]) for k in range(3))
    assert square > 0.9
    assert stripes > 0.9
    assert 0.4 < unseen < 0.6


def test_a_temperature_of_all_labels_and_a_second_reading(place: Path) -> None:
    calibrated = run(place, "full", epochs=4, calibrate="temperature")
    fit = calibrated.calibration
    assert fit is not None
    assert (fit.loss, fit.images) == ("binary_cross_entropy", 30)
    kept = read_predictions(place / "out" / calibrated.run_id / "predictions.parquet")
    assert kept is not None
    for when, temperature in (("before", 1.0), ("after", fit.temperature)):
        chances = sigmoid(kept.logits.astype(np.float64) / temperature)
        figures = fit.figures["test"][when]
        assert figures["brier"] == pytest.approx(((chances - kept.labels) ** 2).mean())
        likelihood = np.where(kept.labels == 1, chances, 1 - chances)
        assert figures["loss"] == pytest.approx(-np.log(likelihood).mean())
    options: dict[str, Any] = {"catalog": place, "data_root": place}
    evaluation = pb.evaluate(place / "out" / calibrated.run_id, "drawn", **options)
    assert evaluation.is_own
    assert evaluation.metrics["auc"] == pytest.approx(calibrated.metrics["test"]["auc"])
    assert evaluation.metrics["support"] == calibrated.metrics["test"]["support"]
    document = pb.report("clinical", place / "out", where={"method": "full"}, catalog=place)
    titles = [table.title for table in document.tables]
    assert [title.partition(":")[0] for title in titles] == [
        "Clinical metrics",
        "Before and after calibration",
        "Net benefit",
    ]
    assert len([figure for figure in document.figures if figure.title.startswith("Decision curve")]) == 3


def test_a_head_that_is_solved_knows_several_labels(place: Path) -> None:
    solved = run(place, "linear", lr=1e-3, class_weights="balanced", method_settings={"solver": "lbfgs", "C": 100.0})
    assert (solved.status, len(solved.curve)) == ("finished", 1)
    assert (solved.metrics["val"]["auc"] or 0) > 0.6

"""A run on images with a number each: learning, what is stored in which unit, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pandas as pd
import pytest
from PIL import Image

import petlbench as pb
from petlbench.core.errors import InputError
from petlbench.results.predictions import read_predictions
from petlbench.results.result import Result

COMMON: dict[str, Any] = {
    "backbone": "petlbench_micro",
    "image_size": 32,
    "device": "cpu",
    "tracking_uri": "none",
    "dataset_settings": {"task": "regression", "label_column": "age"},
}


def run(place: Path, **options: Any) -> Result:
    table = place / "ages.csv"
    return pb.run(dataset=str(table), output=place.parent / "out", **{"method": "linear", **COMMON, **options})


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images that are the brighter the greater the number, from 20 to 80."""
    place, rng = tmp_path_factory.mktemp("ages"), np.random.default_rng(0)
    place = place / "set"
    place.mkdir()
    ages = rng.uniform(20, 80, 160).round(1)
    for number, age in enumerate(ages):
        pixels = rng.normal(2.5 * age, 20, (32, 32)).clip(0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(place / f"{number:03d}.png")
    pd.DataFrame({"image": [f"{number:03d}.png" for number in range(160)], "age": ages}).to_csv(
        place / "ages.csv", index=False
    )
    return place


@pytest.fixture(scope="module")
def result(place: Path) -> Result:
    return run(place, epochs=15, lr=0.02)


def test_it_learns_and_everything_is_in_the_labels_own_unit(place: Path, result: Result) -> None:
    assert (result.status, result.data["task"], result.config.training.loss) == ("finished", "regression", "huber")
    test = result.metrics["test"]
    assert set(test) == {"mae", "rmse", "r2", "pearson", "count"}
    assert test["pearson"] > 0.8
    assert 0 < test["mae"] <= test["rmse"] < 15
    assert set(result.intervals["test"]) == {"mae", "rmse", "r2", "pearson"}
    best = min(result.curve, key=lambda entry: entry["val_mae"])
    assert (result.best_epoch, result.data["selection"]) == (best["epoch"], "mae")
    scale, ages = result.data["scale"], pd.read_csv(place / "ages.csv")["age"]
    assert scale["mean"] == pytest.approx(ages.mean(), abs=3)
    kept = read_predictions(place.parent / "out" / result.run_id / "predictions.parquet")
    assert kept is not None
    assert set(kept.labels) <= set(ages)
    assert kept.logits.shape == (len(kept.labels), 1)
    assert np.abs(kept.logits[:, 0] - kept.labels).mean() == pytest.approx(test["mae"], abs=1e-4)


def test_predictions_and_exported_files_say_the_same(place: Path, result: Result) -> None:
    folder = place.parent / "out" / result.run_id
    predictions = pb.predict(folder, [place / f"{number:03d}.png" for number in range(3)], place.parent / "out")
    row = predictions.rows()[0]
    assert row["prediction"] == row["values"][0] == pytest.approx(pd.read_csv(place / "ages.csv")["age"][0], abs=25)
    assert list(predictions.table().columns) == ["image", "prediction", "value_value"]
    exported = pb.export(folder, place.parent / "out", to=place.parent / "exported")
    assert set(exported.files) == {"model.onnx", "model.safetensors", "preprocessing.json", "README.md"}
    path = str(place.parent / "exported/model.onnx")
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    logits, values = session.run(["logits", "values"], {"fine": np.full((1, 3, 32, 32), 0.5, dtype=np.float32)})
    assert np.array_equal(logits, values)
    assert 20 < float(np.asarray(values)[0, 0]) < 80


def test_what_has_classes_only_says_so(place: Path, result: Result) -> None:
    with pytest.raises(InputError, match="takes labels of the form 'class'"):
        run(place, loss="cross_entropy", epochs=1)
    with pytest.raises(InputError, match="--calibrate temperature: a run on ages gives no probabilities"):
        run(place, calibrate="temperature")
    with pytest.raises(InputError, match="--class-weights balanced: the labels of ages"):
        run(place, class_weights="balanced", epochs=1)
    with pytest.raises(InputError, match="the metric 'mae' is in the label's unit"):
        pb.report("table1", results=place.parent / "out", metric="mae")
    table = pb.report("table1", results=place.parent / "out", metric="r2").tables[0]
    assert table.rows
    assert pb.report("clinical", results=place.parent / "out").tables == []
    found = pb.audit_data(str(place / "ages.csv"), settings=COMMON["dataset_settings"]).audit
    assert {baseline.refused for baseline in found.baselines} == {"the labels are numbers, and no classes"}


def test_a_sweep_for_a_score_that_there_is_none_of_is_refused(place: Path) -> None:
    settings = {name: value for name, value in COMMON.items() if name != "tracking_uri"}
    with pytest.raises(InputError, match=r"searches for val\.auc, and the task of .* \(regression\) has no such score"):
        pb.sweep("quick", "linear", str(place / "ages.csv"), output=place.parent / "out", trials=1, **settings)


def test_a_head_that_is_solved_says_numbers_and_refuses_a_loss_without_curvature(place: Path) -> None:
    solver = {"solver": "lbfgs", "C": 100.0}
    solved = run(place, method_settings=solver)
    assert (solved.status, solved.config.training.loss) == ("finished", "huber")
    assert solved.metrics["val"]["r2"] > 0.5
    failed = run(place, method_settings=solver, loss="l1")
    assert failed.status == "failed"
    assert failed.error is not None
    assert failed.error["kind"] == "not_converged"

"""A run whose table names patients: its scores by patient stand beside those by image."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from sklearn.metrics import roc_auc_score

import petlbench as pb
from petlbench.cli.app import run_command
from petlbench.core.errors import InputError
from petlbench.metrics.classification import softmax

TINY = {"backbone": "petlbench_micro", "image_size": 32, "batch_size": 8, "threads": 1, "epochs": 1, "device": "cpu"}


@pytest.fixture(scope="session")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty patients of one to three images, of which the red ones are sick."""
    folder, rng = tmp_path_factory.mktemp("patients"), np.random.default_rng(0)
    with (folder / "table.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["image", "label", "group", "sex", "age"])
        for patient in range(40):
            for number in range(1 + patient % 3):
                sick = patient % 2 and number != 2
                pixels = rng.integers(0, 200, (32, 32, 3))
                pixels[..., 0] += 40 * sick
                Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{patient}_{number}.png")
                label = "sick" if sick else "healthy"
                rows.writerow([f"{patient}_{number}.png", label, f"p{patient}", "FM"[patient // 2 % 2], 30 + patient])
    return folder / "table.csv"


def execute(table: Path, output: Path, **options: Any) -> dict[str, Any]:
    result = pb.run("linear", str(table), output=output, tracking_uri="none", **TINY, **options)
    return json.loads((output / result.run_id / "result.json").read_text())  # type: ignore[no-any-return]


def test_every_score_stands_by_image_and_by_patient(
    table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    by_or, by_mean = (execute(table, tmp_path, aggregate=how) for how in ("noisy_or", "mean"))
    assert by_or["run_id"] != by_mean["run_id"]
    assert by_or["metrics"] == by_mean["metrics"]
    frame = pd.read_parquet(tmp_path / by_or["run_id"] / "predictions.parquet")
    frame["missed"] = softmax(np.stack(frame["logits"].to_list()))[:, 0]
    for split in ("val", "test"):
        patients = frame[frame["split"] == split].groupby("group").agg({"label": "max", "missed": "prod"})
        scores, intervals = (by_or[f"{part}_by_group"][split] for part in ("metrics", "intervals"))
        assert scores["auc"] == pytest.approx(roc_auc_score(patients["label"], 1 - patients["missed"]))
        assert (scores["count"], scores["ambiguous"]) == (len(patients), 0)
        assert scores["count"] < by_or["metrics"][split]["count"]
        assert intervals["auc"]["low"] <= scores["auc"] <= intervals["auc"]["high"]
    rows = pb.load_results(tmp_path).to_dataframe().set_index("run_id")
    assert rows.loc[by_or["run_id"], "test_auc_by_group"] == scores["auc"]
    run_command(["results", "show", by_or["run_id"], "--output", str(tmp_path)])
    shown = " ".join(capsys.readouterr().out.split())
    assert "test AUC, by group" in shown
    assert f"{scores['count']} groups by noisy_or" in shown


def test_without_groups_there_are_no_scores_of_them(tmp_path: Path) -> None:
    result = pb.run("linear", "digits", output=tmp_path, tracking_uri="none", **{**TINY, "batch_size": 64})
    assert result.metrics_by_group == result.intervals_by_group == {}
    with pytest.raises(InputError, match="aggregate"):
        pb.run("linear", "digits", output=tmp_path, tracking_uri="none", **TINY, aggregate="median")


def test_the_worst_group_chooses_and_a_report_shows_all(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Through the command line: patients of two sexes and three ages, of which the table speaks."""
    rng, rows = np.random.default_rng(0), []
    for patient in range(150):
        side = "train" if patient < 30 else "val" if patient < 90 else "test"
        for number in range(1 + patient % 2):
            pixels = rng.integers(0, 200, (32, 32, 3))
            pixels[..., 0] += 40 * (patient % 2)
            name = f"{patient}_{number}.png"
            Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / name)
            age = "" if patient % 10 == 9 else str(20 + patient % 60)
            rows.append((name, patient % 2, f"p{patient}", side, "FM"[patient // 2 % 2], age))
    frame = pd.DataFrame(rows, columns=["image", "label", "group", "split", "sex", "age"])
    frame.to_csv(tmp_path / "table.csv", index=False)
    output, options = tmp_path / "results", [part for key, value in TINY.items() for part in (_flag(key), str(value))]
    run = ["run", "--method", "linear", "--dataset", str(tmp_path / "table.csv"), *options, "--output", str(output)]
    assert run_command([*run, "--tracking-uri", "none", "--select", "worst-group:sex", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["data"]["selected_by"] == {"column": "sex", "subgroups": {"F": 45, "M": 45}, "left_out": {}}
    assert "val_auc_worst_group" in result["curve"][0]
    assert len(result["digests"]["attributes"]) == 64
    for unit, scores in (("image", "metrics"), ("group", "metrics_by_group")):
        report = ["report", "subgroups", "--results", str(output), "--by", "sex,age:40:60", "--unit", unit, "--json"]
        assert run_command(report) == 0
        by_sex, _, by_age, _ = json.loads(capsys.readouterr().out)["tables"]
        for table, names in (
            (by_sex, ["F", "M"]),
            (by_age, ["under 40", "40 to under 60", "60 and over", "not stated"]),
        ):
            assert [row["title"].partition(": ")[2] for row in table["rows"]] == names
            assert sum(row["cells"]["count"]["value"] for row in table["rows"]) == result[scores]["test"]["count"]


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"

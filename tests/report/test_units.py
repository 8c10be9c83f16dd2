"""Reports and comparisons by group: scores, intervals and predictions of patients instead of images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sklearn.metrics import roc_auc_score

import petlbench as pb
from petlbench.core.errors import InputError
from petlbench.metrics.classification import softmax
from petlbench.results.predictions import read_predictions
from petlbench.results.result import Result, write_result
from tests.report.stored import store, store_predicted

METHODS = {"lora": 1.5, "fpt": 1.0}


def grouped(output: Path, method: str, seed: int, *, aggregate: str = "mean") -> Result:
    """Store a run whose images are those of twenty patients a split, three each."""
    result = store_predicted(output, method, "digits", seed, METHODS[method], aggregate=aggregate)
    file = output / result.run_id / "predictions.parquet"
    table = pq.read_table(file)
    groups = pa.array([f"p{row // 6}, {row % 2}" for row in range(table.num_rows)])
    pq.write_table(table.set_column(1, "group", groups), file)
    document = result.document()
    document["data"]["task"] = "binary"
    result = Result.model_validate(document)
    write_result(output / result.run_id, result)
    return result


def auc_by_patient(output: Path, run: Result) -> float:
    frame = pq.read_table(output / run.run_id / "predictions.parquet").to_pandas()
    frame = frame[frame["split"] == "test"]
    frame["positive"] = softmax(np.stack(frame["logits"].to_list()))[:, 1]
    patients = frame.groupby("group").agg({"label": "max", "positive": "mean"})
    return float(roc_auc_score(patients["label"], patients["positive"]))


@pytest.fixture
def runs(tmp_path: Path) -> list[Result]:
    return [grouped(tmp_path, method, seed) for method in METHODS for seed in (0, 1)]


def test_a_report_by_group_scores_patients(runs: list[Result], tmp_path: Path) -> None:
    images, patients = (pb.report("table1", tmp_path, unit=unit) for unit in ("image", "group"))
    cells = [document.tables[0].rows[-1].cells["digits"] for document in (images, patients)]
    expected = [auc_by_patient(tmp_path, run) for run in runs if run.config.method == "fpt"]
    assert cells[1].value == pytest.approx(100 * np.mean(expected))
    assert cells[0].value != cells[1].value
    assert "AUC by group" in patients.to_markdown()
    assert "by group" not in images.to_markdown()
    assert patients.settings["unit"] == "group"
    assert [run["metrics"] for run in patients.runs] == [run["metrics"] for run in images.runs]


def test_a_comparison_by_group_is_the_difference_of_patients(runs: list[Result], tmp_path: Path) -> None:
    by_image, by_group = (pb.compare("lora", "fpt", results=tmp_path, unit=unit) for unit in ("image", "group"))
    means = [np.mean([auc_by_patient(tmp_path, run) for run in runs if run.config.method == name]) for name in METHODS]
    assert by_group.effect == pytest.approx(means[0] - means[1])
    assert by_group.effect != by_image.effect
    assert by_group.low is not None
    clinical = pb.report("clinical", tmp_path, unit="group").tables[0].rows[0].cells["positives"]
    test = read_predictions(tmp_path / runs[0].run_id / "predictions.parquet")
    assert test is not None
    sick = {group for group, label in zip(test.groups, test.labels, strict=True) if label == 1}
    assert clinical.value == len(sick)


def test_what_cannot_stand_by_group_is_refused(tmp_path: Path) -> None:
    grouped(tmp_path, "lora", 0)
    with pytest.raises(InputError, match="--unit group: a report of the kind 'curves'"):
        pb.report("curves", tmp_path, unit="group")
    grouped(tmp_path, "fpt", 0, aggregate="max")
    with pytest.raises(InputError, match="by several rules: max, mean"):
        pb.report("table1", tmp_path, unit="group")
    one = pb.report("table1", tmp_path, unit="group", where={"aggregate": "max"})
    assert len(one.runs) == 1
    store(tmp_path, "linear", "lesions")
    with pytest.raises(InputError, match="knows no groups of its images on lesions"):
        pb.report("table1", tmp_path, unit="group")

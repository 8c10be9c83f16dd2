"""Reports that are more than a table: points, curves, searches, memory by image size, clinical metrics."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from petlbench.core.catalog import Catalog
from petlbench.core.errors import InputError
from petlbench.report.build import build_report
from petlbench.report.formats import Document
from petlbench.report.kinds.budget import expected_best
from petlbench.report.spec import PRESETS, ReportRequest, load_report, required_study
from petlbench.results.result import Calibration, read_result, write_result
from petlbench.statistics.ranks import fronts
from tests.report.stored import store, store_predicted, store_study

REPORTS = ("ablation", "budget", "clinical", "curves", "memory_vs_resolution", "table1", "token_ratio", "tradeoff")


def made(output: Path, report: str, catalog: Catalog | None = None, **asked: Any) -> Document:
    known = catalog or Catalog()
    return build_report(load_report(known, report), ReportRequest(str(output), **asked), known)


def test_every_report_of_the_issue_is_in_the_catalogue() -> None:
    assert set(REPORTS) <= set(Catalog().entries("report"))
    for name in REPORTS:
        assert load_report(Catalog(), name).name == name


def test_a_report_says_which_study_it_needs() -> None:
    (matrix,) = required_study(load_report(Catalog(), "table1"), "as-published")
    assert matrix["methods"][:2] == ["full", "linear"]
    assert matrix["seeds"] == [0, 1, 2]
    assert PRESETS["as-published"].items() <= matrix["request"].items()
    ablation = required_study(load_report(Catalog(), "ablation"))
    assert [one["request"]["preload"] for one in ablation] == [False, False, False, False, True]
    assert ablation[0]["settings"]["fpt"] == {"side_only": True, "asymmetric_input": False}
    sizes = required_study(load_report(Catalog(), "memory_vs_resolution"))
    assert [one["request"]["image_size"] for one in sizes] == [224, 320, 384, 448, 512]
    assert required_study(load_report(Catalog(), "budget")) == []


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('kind = "pie"', "kind = 'pie' is none of"),
        ('kind = "variants"', "needs \\[\\[variants\\]\\]"),
        ('kind = "methods"\ncolour = 1', "unknown field 'colour'"),
        ('kind = "methods"\nstudy = 3', "'study' is no table"),
        ("", "missing"),
    ],
)
def test_a_broken_report_file_is_named(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "reports").mkdir()
    (tmp_path / "reports" / "mine.toml").write_text(f'title = "mine"\n{text}\n')
    with pytest.raises(InputError, match=said) as caught:
        load_report(Catalog([tmp_path]), "mine")
    assert "mine.toml" in caught.value.message


def test_a_users_own_report_is_one_file(tmp_path: Path) -> None:
    (tmp_path / "reports").mkdir()
    (tmp_path / "reports" / "mine.toml").write_text('title = "Mine"\nkind = "methods"\ncolumns = ["datasets", "pme"]\n')
    store(tmp_path / "results", "full")
    table = made(tmp_path / "results", "mine", Catalog([tmp_path])).tables[0]
    assert (table.title, [column.key for column in table.columns]) == ("Mine", ["digits", "pme"])


def test_points_carry_score_and_every_cost(tmp_path: Path) -> None:
    for method in ("full", "fpt"):
        for seed in range(2):
            store(tmp_path, method, seed=seed, auc=0.9 + seed / 100)
    (figure,) = made(tmp_path, "tradeoff").figures
    assert (figure.kind, figure.x, figure.y, figure.size) == ("scatter", "memory", "score", "parameters")
    point = {series.key: series.values for series in figure.series}["fpt"]
    assert point["memory"] == [130]
    assert point["score"] == pytest.approx([90.5])
    assert {axis.key for axis in figure.axes} <= set(point)
    (other,) = made(tmp_path, "tradeoff", x="parameters").figures
    assert (other.x, other.size) == ("parameters", "memory")


def test_the_time_of_a_point_and_its_front_are_those_of_training_not_of_waiting(tmp_path: Path) -> None:
    for method, train, other in (("full", 10.0, 0.0), ("linear", 5.0, 60.0)):
        result = store(tmp_path, method, auc=0.9)
        file = tmp_path / result.run_id / "result.json"
        document = json.loads(file.read_text())
        document["timing"] = {
            "total": train + 1 + other,
            "preload": 0.0,
            "train": train,
            "evaluate": 1.0,
            "other": other,
        }
        file.write_text(json.dumps(document))
    report = made(tmp_path, "tradeoff", x="time", columns=("hours",))
    points = {series.key: series.values["time"] for series in report.figures[0].series}
    assert points == {"full": [11.0], "linear": [6.0]}
    rows = {row.key: row.cells for row in report.tables[0].rows}
    assert (rows["linear"]["front"].value, rows["full"]["front"].value) == (1, 2)
    assert rows["linear"]["hours"].value == pytest.approx(6 / 3600)


def test_a_curve_is_the_mean_with_its_range(tmp_path: Path) -> None:
    store(tmp_path, "linear", seed=0, curve=(0.5, 0.6))
    store(tmp_path, "linear", seed=1, curve=(0.7, 0.7, 0.8))
    figure = made(tmp_path, "curves").figures[0]
    values = figure.series[0].values
    assert values["epoch"] == [1, 2, 3]
    assert values["val_auc"] == pytest.approx([60, 65, 80])
    assert values["val_auc_low"] == pytest.approx([50, 60, 80])
    assert values["val_auc_high"] == pytest.approx([70, 70, 80])


@given(st.lists(st.floats(0, 1), min_size=1, max_size=6), st.data())
def test_the_expected_best_is_the_mean_over_all_subsets(values: list[float], data: st.DataObject) -> None:
    count = data.draw(st.integers(1, len(values)))
    assert expected_best(values, count) == pytest.approx(
        fmean(max(one) for one in itertools.combinations(values, count))
    )


def test_a_budget_is_of_the_trials_and_of_validation_alone(tmp_path: Path) -> None:
    store(tmp_path, "linear")
    for lr, score in ((0.1, 0.6), (0.01, 0.8), (0.001, 0.7)):
        store(tmp_path / "trials", "linear", training={"lr": lr}, curve=(0.1, score), auc=0.99)
    store(tmp_path / "trials", "linear", training={"lr": 1.0}, status="failed", curve=())
    store(tmp_path / "trials", "linear", seed=1, training={"lr": 0.01}, curve=(0.1, 0.9))
    document = made(tmp_path, "budget")
    (row,) = document.tables[0].rows
    assert row.cells["trials"].value == 4
    assert row.cells["best_of_1"].value == pytest.approx((60 + 80 + 70 + 60) / 4)
    assert document.figures[0].series[0].values["score"][-1] == pytest.approx(80)


ERROR_RATE = """
from petlbench import Metric

RATE = Metric(name="rate", title="error rate", direction="lower", compute=lambda scores: 0.5)
"""


def test_a_budget_takes_the_best_trial_of_a_score_that_is_better_low(tmp_path: Path) -> None:
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "rate.py").write_text(ERROR_RATE)
    store(tmp_path / "results", "linear")
    for lr, rate in ((0.1, 0.4), (0.01, 0.1), (0.001, 0.3)):
        result = store(tmp_path / "results" / "trials", "linear", training={"lr": lr})
        file = tmp_path / "results" / "trials" / result.run_id / "result.json"
        document = json.loads(file.read_text())
        document["curve"] = [{"epoch": 1, "val_rate": 0.5}, {"epoch": 2, "val_rate": rate}]
        file.write_text(json.dumps(document))
    store(tmp_path / "results" / "trials", "linear", training={"lr": 1.0}, status="failed", curve=())
    document = made(tmp_path / "results", "budget", Catalog([tmp_path / "own"]), metric="rate")
    (row,) = document.tables[0].rows
    assert row.cells["best_of_4"].value == pytest.approx(10)
    assert row.cells["best_of_1"].value == pytest.approx((40 + 10 + 30 + 40) / 4)
    assert {column.better for column in document.tables[0].columns if column.key != "trials"} == {"lower"}


def test_without_trials_there_is_no_budget(tmp_path: Path) -> None:
    store(tmp_path, "linear")
    with pytest.raises(InputError, match="no trials of a search") as caught:
        made(tmp_path, "budget")
    assert "petlbench sweep" in caught.value.hint


def test_measured_memory_by_image_size(tmp_path: Path) -> None:
    for size, taken in ((224, 100), (384, 250)):
        store(tmp_path, "full", image_size=size, memory=taken)
    store(tmp_path, "linear", image_size=224, memory=20)
    document = made(tmp_path, "memory_vs_resolution", measured=True)
    rows = {row.key: row.cells for row in document.tables[0].rows}
    assert [rows["full"][key].value for key in ("size_224", "size_384")] == [100, 250]
    assert rows["linear"]["size_384"].reason == "not run"
    assert "measured on cpu" in document.tables[0].caption
    store(tmp_path, "linear", image_size=384, precision="bf16")
    with pytest.raises(InputError, match="no table may mix"):
        made(tmp_path, "memory_vs_resolution", measured=True)


@pytest.mark.slow
def test_predicted_memory_grows_with_the_image(tmp_path: Path) -> None:
    (tmp_path / "reports").mkdir()
    text = 'title = "Mine"\nkind = "resolutions"\nsizes = [32, 64]\n[study]\nmethods = ["full", "linear"]\n'
    (tmp_path / "reports" / "mine.toml").write_text(text + 'request = { backbone = "petlbench_micro" }\n')
    document = made(tmp_path, "mine", Catalog([tmp_path]))
    rows = {row.key: [row.cells[key].value or 0.0 for key in ("size_32", "size_64")] for row in document.tables[0].rows}
    assert rows["full"][0] < rows["full"][1]
    assert rows["linear"][0] == rows["linear"][1], "its features are preloaded"
    assert "fp16, attention eager" in document.tables[0].caption
    assert "predicted" in document.tables[0].caption


@pytest.mark.slow
def test_the_predicted_memory_of_a_study_is_that_of_its_methods_and_says_predicted(tmp_path: Path) -> None:
    (tmp_path / "reports").mkdir()
    text = 'title = "Mine"\nkind = "resolutions"\nsizes = [32]\n[study]\nmethods = ["full", "linear"]\n'
    (tmp_path / "reports" / "mine.toml").write_text(text)
    result = store(tmp_path, "bitfit", backbone="petlbench_micro.distilled", training={"batch_size": 4})
    store_study(tmp_path, "own", [{"method": "bitfit", "dataset": "digits", "seed": 0, "run_id": result.run_id}])
    document = made(tmp_path, "mine", Catalog([tmp_path]), study="own")
    (table,) = document.tables
    assert [row.key for row in table.rows] == ["bitfit"]
    assert "petlbench_micro.distilled, batch size 4, adamw, fp32, attention auto" in table.caption
    assert all(text.endswith(", predicted") for text in (document.title, table.title, document.figures[0].title))
    assert document.figures[0].axis("memory").title.endswith(", predicted")


@pytest.mark.slow
def test_clinical_metrics_of_every_row(tmp_path: Path) -> None:
    for seed in range(2):
        store_predicted(tmp_path, "full", "covid", seed, 3.0)
    document = made(tmp_path, "clinical")
    table, benefit = document.tables
    (row,) = table.rows
    assert row.title == "Full fine-tuning, yes"
    for key in ("sensitivity", "specificity", "average_precision"):
        assert 50 < (row.cells[key].value or 0) <= 100
    assert 0 < (row.cells["brier"].value or 0) < 0.25
    assert "specificity of 90 % on its validation split" in table.caption
    calibration, decision = document.figures
    assert [series.role for series in calibration.series] == ["reference", "data"]
    assert [row.title for row in benefit.rows] == ["Full fine-tuning, yes", "treat all, yes", "treat none, yes"]
    assert [column.key for column in benefit.columns] == ["0.05", "0.1", "0.2", "0.3", "0.4", "0.5"]
    model, everyone, nobody = ([row.cells[key].value or 0.0 for key in row.cells] for row in benefit.rows)
    assert model[-1] > max(everyone[-1], 0)
    assert nobody == [0] * 6
    assert [series.title for series in decision.series] == ["treat all", "treat none", "Full fine-tuning"]
    assert "thresholds from 0.01 to 0.5" in decision.caption


def test_a_temperature_stands_in_the_clinical_report_and_changes_its_probabilities(tmp_path: Path) -> None:
    for method in ("full", "linear"):
        store_predicted(tmp_path, method, "covid", 0, 3.0)
    raw = made(tmp_path, "clinical").tables[0].rows
    [folder] = tmp_path.glob("full-*")
    result = read_result(folder)
    errors = [{"ece": 0.2 - part, "loss": 0.5 - part, "brier": 0.3 - part} for part in (0.0, 0.1)]
    figures = {"test": dict(zip(("before", "after"), errors, strict=True))}
    result.calibration = Calibration(temperature=2.0, images=40, loss="cross_entropy", figures=figures)
    write_result(folder, result)
    table, calibration, _ = made(tmp_path, "clinical").tables
    assert [old.cells["brier"] == new.cells["brier"] for old, new in zip(raw, table.rows, strict=True)] == [False, True]
    (row,) = calibration.rows
    assert (row.title, row.cells["temperature"].value) == ("Full fine-tuning", 2.0)
    for when, expected in zip(("before", "after"), errors, strict=True):
        assert {name: row.cells[f"{name}_{when}"].value for name in expected} == expected


@pytest.mark.parametrize("thresholds", ["[0.5, 0.5]", "[0.0, 0.5]", "[0.1, 1.0]", "[0.2]"])
def test_thresholds_that_make_no_decision_curve_are_refused(tmp_path: Path, thresholds: str) -> None:
    (tmp_path / "reports").mkdir()
    content = f'title = "Mine"\nkind = "clinical"\nthresholds = {thresholds}\n'
    (tmp_path / "reports" / "mine.toml").write_text(content)
    with pytest.raises(InputError, match="thresholds"):
        load_report(Catalog([tmp_path]), "mine")


@given(st.dictionaries(st.text(max_size=3), st.tuples(st.integers(0, 3), st.integers(0, 3)), max_size=8))
def test_a_front_is_beaten_only_by_earlier_ones(points: dict[str, tuple[int, int]]) -> None:
    found = fronts(points)
    assert found.keys() == points.keys()
    for key, point in points.items():
        beaten = [
            found[other] for other, costs in points.items() if costs != point and all(map(int.__le__, costs, point))
        ]
        assert found[key] == 1 + max(beaten, default=0)

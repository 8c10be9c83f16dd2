"""What figures hang on: every change worked out by hand, and runs that no other table shows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import petlbench as pb
from petlbench.core.catalog import Catalog
from petlbench.core.errors import InputError
from petlbench.recommend.trials import own_trials
from petlbench.report.build import build_report
from petlbench.report.document import Row, Table
from petlbench.report.formats import Document, parse_formats, write_report
from petlbench.report.spec import ReportRequest, load_report, required_study
from petlbench.results.table import load_results
from tests.report.stored import store

GROUPS = """
title = "Mine"
kind = "sensitivity"
metric = "auc"
[[groups]]
title = "Plain"
tasks = [{ dataset = "mine/one" }, { dataset = "mine/two" }]
[[groups]]
title = "Odd"
tasks = [{ dataset = "digits" }]
[[copies]]
lossless = "mine/one"
jpeg = "mine/one_jpeg"
"""
# Scores on test after two epochs, of which validation finds the first one better, by method and dataset.
SCORES = {
    ("full", "one"): (0.70, 0.60),
    ("full", "two"): (0.50, 0.60),
    ("lora", "one"): (0.66, 0.62),
    ("lora", "two"): (0.58, 0.62),
}
# What is lost without normalisation.
LOST = {"full": 0.10, "lora": 0.04}


def store_audit(output: Path, method: str, dataset: str, test: tuple[float, ...], seed: int = 0, **given: Any) -> None:
    values = {"test_every_epoch": True, "curve": (0.6, 0.5), "test_curve": test, "auc": test[-1], **given}
    store(output, method, dataset, seed, **values)


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """Two methods on two datasets with two normalisations and two seeds."""
    output = tmp_path / "results"
    for (method, dataset), scores in SCORES.items():
        for normalize, lost in (("half", 0.0), ("none", LOST[method])):
            for seed in (0, 1):
                test = tuple(score - lost + 0.02 * seed for score in scores)
                store_audit(output, method, dataset, test, seed, normalize=normalize)
    return output


def made(results: Path, name: str = "sensitivity", catalog: Catalog | None = None, **asked: Any) -> Document:
    catalog = catalog or Catalog()
    return build_report(load_report(catalog, name), ReportRequest(str(results), **{"metric": "auc", **asked}), catalog)


def row(table: Table, key: str) -> Row:
    return next(each for each in table.rows if each.key == key)


def amounts(table: Table, key: str) -> list[float | None]:
    return [row(table, key).cells[name].value for name in ("largest", "mean")]


def test_every_setting_has_its_row(results: Path) -> None:
    table = made(results).tables[1]
    figures = {each.key: [each.cells[name].value for name in ("full", "lora", "lead")] for each in table.rows}
    assert figures == {
        "half last": pytest.approx([61, 63, 2]),
        "half best on validation": pytest.approx([61, 63, 2]),
        "half best on test": pytest.approx([66, 65, 1]),
        "none last": pytest.approx([51, 59, 8]),
        "none best on validation": pytest.approx([51, 59, 8]),
        "none best on test": pytest.approx([56, 61, 5]),
    }
    best = row(table, "half best on test").cells
    assert [best["full"].mark, best["lora"].mark, best["order"].text] == ["best", "second", "full, lora"]
    assert best["full"].std == pytest.approx(2**0.5)


def test_each_factor_is_held_against_seeds_and_the_lead_of_the_best(results: Path) -> None:
    table = made(results).tables[0]
    assert amounts(table, "normalize") == pytest.approx([10, 7])
    assert amounts(table, "epoch") == pytest.approx([5, 3.5])
    assert amounts(table, "seed") == pytest.approx([2, 2])
    assert amounts(table, "deviation") == pytest.approx([2**0.5, 2**0.5])
    assert amounts(table, "lead") == pytest.approx([8, 26 / 6])
    winners = {key: row(table, key).cells["winners"].text for key in ("normalize", "epoch", "seed")}
    assert winners == {"normalize": "1 of 3", "epoch": "1 of 2", "seed": "0 of 6"}
    assert table.title == (
        "Normalisation moves a method by up to 10.00 points (Full fine-tuning); "
        "the best two methods are 4.33 apart, seeds deviate by 1.41"
    )


def test_a_seed_that_one_setting_lacks_is_left_out_of_all(results: Path) -> None:
    store_audit(results, "full", "one", (0.9, 0.9), 2, normalize="half")
    store_audit(results, "full", "two", (0.9, 0.9), 2, normalize="half")
    assert amounts(made(results).tables[0], "normalize") == pytest.approx([10, 7])


def test_averages_and_copies_are_factors(tmp_path: Path) -> None:
    folder, output = tmp_path / "catalog", tmp_path / "results"
    (folder / "reports").mkdir(parents=True)
    (folder / "reports" / "mine.toml").write_text(GROUPS)
    [study] = required_study(load_report(Catalog([folder]), "mine"))
    assert study["datasets"] == ["mine/one", "mine/two", "digits", "mine/one_jpeg"]
    for dataset, score in {"mine/one": 0.8, "mine/two": 0.6, "digits": 0.4}.items():
        store_audit(output, "lora", dataset, (score, score))
    with pytest.raises(InputError, match=r"compares mine/one with its copy mine/one_jpeg.*no results on mine/one_jpeg"):
        made(output, "mine", Catalog([folder]))
    store_audit(output, "lora", "mine/one_jpeg", (0.5, 0.5))
    factors, settings = made(output, "mine", Catalog([folder])).tables
    means = {each.key: each.cells["lora"].value for each in settings.rows if " last " in each.key}
    assert means == {
        "backbone lossless last 2 groups": pytest.approx(55),
        "backbone lossless last 3 tasks": pytest.approx(60),
        "backbone JPEG last 2 groups": pytest.approx(47.5),
        "backbone JPEG last 3 tasks": pytest.approx(50),
    }
    assert [each.key for each in factors.rows] == ["form", "epoch", "average"]
    assert amounts(factors, "form") == pytest.approx([10, 8.75])
    assert amounts(factors, "average") == pytest.approx([5, 3.75])
    assert amounts(factors, "epoch") == pytest.approx([0, 0])
    assert row(factors, "form").cells["winners"].text == "0 of 6"


def test_settings_are_not_mixed_and_runs_that_are_tested_once_are_not_in_it(results: Path, tmp_path: Path) -> None:
    store(results, "lora", "one", 5, auc=0.99)
    assert "Left out, 1: runs that scored the test split once." in made(results).notes
    store_audit(results, "lora", "one", (0.1, 0.1), image_size=32)
    with pytest.raises(InputError, match="image_size"):
        made(results)
    store(tmp_path / "once", "lora", "one")
    with pytest.raises(InputError, match="there are no results") as caught:
        made(tmp_path / "once")
    assert "bench --protocol audit" in caught.value.hint


def test_no_other_table_and_no_choice_rests_on_such_runs(results: Path) -> None:
    with pytest.raises(InputError, match="Left out, 16: runs that scored the test split after every epoch") as caught:
        made(results, "table1")
    assert caught.value.hint == "petlbench report sensitivity shows them"
    with pytest.raises(InputError, match="finished run of 'full'"):
        pb.compare("full", "lora", results=results)
    assert own_trials(results, "auc", "") == {}
    run = store(results, "lora", "one", auc=0.5)
    document = made(results, "table1")
    assert [each.runs for each in document.tables[0].rows] == [(run.run_id,)]
    assert "Left out, 16: runs that scored the test split after every epoch." in document.notes
    [once] = [each for each in load_results(results).runs if not each.shows_test]
    assert once.document["scores"]["pme"] is None, "the runs of full in the folder are none to refer to"


def test_every_format_has_the_verdict_and_the_settings(results: Path, tmp_path: Path) -> None:
    catalog = Catalog()
    formats = parse_formats("md,latex,html,csv", tmp_path / "out", catalog)
    texts = [file.read_text() for file in write_report(made(results), formats, tmp_path / "out")]
    assert sum("moves a method by up to 10.00 points" in text for text in texts) == 3
    assert sum("best on validation" in text for text in texts) == 5, "CSV has a file for each table"

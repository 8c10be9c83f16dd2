"""The table of results: one way to read, name and average them, at four levels."""

from __future__ import annotations

from pathlib import Path
from statistics import fmean, stdev

import pytest
from hypothesis import given
from hypothesis import strategies as st

from petlbench.core.errors import InputError
from petlbench.metrics.efficiency import pme, ppe
from petlbench.results.result import read_result
from petlbench.results.stored import dataset_names
from petlbench.results.table import Spread, load_results, with_scores
from tests.report.stored import store, store_predicted, store_study


def test_a_spread_is_mean_and_sample_deviation() -> None:
    assert Spread.of([None, 1.0, 3.0]) == Spread(2.0, pytest.approx(2**0.5), 2)
    assert Spread.of([2.5]) == Spread(2.5, None, 1)
    assert Spread.of([None]) is None


def test_a_row_a_run_and_a_row_a_cell(tmp_path: Path) -> None:
    aucs = (0.8, 0.9, 0.7)
    for seed, auc in enumerate(aucs):
        store(tmp_path, "fpt", seed=seed, auc=auc)
    store(tmp_path, "fpt", seed=3, status="failed")
    store(tmp_path, "full", auc=0.95)
    store(tmp_path, "full", auc=0.9, precision="fp16")
    assert [run.method for run in load_results(tmp_path).references] == ["full", "full"]
    runs = load_results(tmp_path).to_dataframe()
    assert len(runs) == 6
    assert runs["run_id"].is_unique
    assert set(runs.loc[runs["status"] == "finished", "method"]) == {"fpt", "full"}
    cells = load_results(tmp_path).to_dataframe("cell")
    assert len(cells) == 3
    [fpt] = cells[cells["method"] == "fpt"].to_dict("records")
    assert (fpt["n"], fpt["unfinished"], fpt["dataset"]) == (3, 1, "digits")
    assert fpt["test_auc"] == pytest.approx(fmean(aucs))
    assert fpt["test_auc_std"] == pytest.approx(stdev(aucs))
    assert fpt["ppe"] == pytest.approx(fmean(ppe(auc, 0.018) for auc in aucs))
    assert fpt["pme"] == pytest.approx(fmean(pme(auc, 0.13) for auc in aucs))


def test_epochs_and_images(tmp_path: Path) -> None:
    first = store_predicted(tmp_path, "fpt", "digits", 0, 1.0)
    store_predicted(tmp_path, "fpt", "digits", 1, 1.0)
    results = load_results(tmp_path)
    epochs = results.to_dataframe("epoch")
    assert list(epochs["epoch"]) == [1, 2, 1, 2]
    assert {"train_loss", "val_auc", "run_id", "seed"} <= set(epochs)
    images = results.to_dataframe("image")
    assert len(images) == 240
    assert set(images["split"]) == {"val", "test"}
    assert list(images)[:5] == ["run_id", "method", "dataset", "seed", "image_id"]
    assert len(images.loc[images["run_id"] == first.run_id, "logits"].iloc[0]) == 2
    with pytest.raises(InputError, match="no level 'seed'"):
        results.to_dataframe("seed")  # type: ignore[arg-type]


def test_nothing_stored_is_an_empty_table(tmp_path: Path) -> None:
    results = load_results(tmp_path)
    assert [len(results.to_dataframe(level)) for level in ("run", "cell", "epoch", "image")] == [0, 0, 0, 0]
    with pytest.raises(InputError, match="no such folder"):
        load_results(tmp_path / "nothing")


def test_a_study_alone_is_weighed_against_references_of_any(tmp_path: Path) -> None:
    store(tmp_path, "full")
    one = store(tmp_path, "lora")
    run = {"method": "lora", "dataset": "digits", "seed": 0, "run_id": one.run_id}
    store_study(tmp_path, "mine", [run])
    results = load_results(tmp_path, "mine")
    assert [run.run_id for run in results.runs] == [one.run_id]
    assert results.runs[0].figures["pme"] == pytest.approx(pme(0.9, 0.9))
    with pytest.raises(InputError, match="no such study"):
        load_results(tmp_path, "other")


def test_the_nearest_reference_counts_and_nothing_stored_changes(tmp_path: Path) -> None:
    here = store(tmp_path, "full", seed=1, memory=500)
    store(tmp_path, "full", seed=0, memory=800)
    store(tmp_path, "full", "skin", seed=1, memory=300)
    store(tmp_path, "full", seed=1, memory=100, precision="fp16")
    run = store(tmp_path, "lora", seed=1, memory=250)
    [shown] = with_scores([read_result(tmp_path / run.run_id)], tmp_path)
    assert shown.scores.pme == pytest.approx(pme(0.9, 0.5))
    assert (shown.scores.pme_reference or {})["run_id"] == here.run_id
    [row] = [one for one in load_results(tmp_path).runs if one.run_id == run.run_id]
    assert row.document["scores"] == shown.document()["scores"]
    assert read_result(tmp_path / run.run_id).scores.pme is None


def test_a_reference_of_the_same_split_is_nearer_than_one_of_the_same_seed(tmp_path: Path) -> None:
    here = store(tmp_path, "full", seed=2, memory=500)
    store(tmp_path, "full", seed=1, memory=800, split="kfold:5/1")
    run = store(tmp_path, "lora", seed=1, memory=250)
    [shown] = with_scores([read_result(tmp_path / run.run_id)], tmp_path)
    assert (shown.scores.pme_reference or {})["run_id"] == here.run_id


@pytest.mark.parametrize("status", ["failed", "interrupted", "oom", "timeout", "unsupported"])
def test_a_run_of_full_that_is_not_finished_is_no_reference(tmp_path: Path, status: str) -> None:
    full = store(tmp_path, "full", memory=500)
    run = store(tmp_path, "lora", memory=250)
    file = tmp_path / full.run_id / "result.json"
    file.write_text(file.read_text().replace('"finished"', f'"{status}"'))
    [shown] = with_scores([read_result(tmp_path / run.run_id)], tmp_path)
    assert (shown.scores.pme, shown.scores.pme_reference) == (None, None)


def test_datasets_that_would_be_called_alike_have_their_folders_in_front() -> None:
    paths = ["/x/a/images", "/x/b/images", "digits", "/y/labels.csv", "a/images"]
    names = dataset_names(paths)
    assert [names[path] for path in paths] == ["a/images", "b/images", "digits", "labels", "a/images"]
    assert dataset_names(["/a/images", "/x/a/images"]) == {"/a/images": "/a/images", "/x/a/images": "x/a/images"}
    assert dataset_names(["/x/c/a/images", "/x/d/a/images"]) == {
        "/x/c/a/images": "c/a/images",
        "/x/d/a/images": "d/a/images",
    }
    assert dataset_names(["/only/images"]) == {"/only/images": "images"}


@given(st.lists(st.lists(st.sampled_from("ab"), min_size=1, max_size=4), max_size=6))
def test_names_tell_datasets_apart(paths: list[list[str]]) -> None:
    whole = ["/root/" + "/".join(path) for path in paths]
    names = dataset_names(whole)
    ends = {path: tuple(path.split("/")[1:]) for path in names}
    for path, name in names.items():
        assert path.endswith("/" + name)
        for other in names:
            apart = ends[path][-1] == ends[other][-1] and path != other
            assert not (apart and names[other] == name)


def test_datasets_of_one_name_are_two_columns(tmp_path: Path) -> None:
    for place, auc in (("/a/images", 0.8), ("/b/images", 0.9)):
        store(tmp_path, "lora", place, auc=auc, title="images")
    cells = load_results(tmp_path).to_dataframe("cell")
    assert dict(zip(cells["dataset"], cells["test_auc"], strict=True)) == {"a/images": 0.8, "b/images": 0.9}

"""Boards: many studies on one page, of which no table mixes settings."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

import petlbench as pb
from petlbench.core.errors import InputError
from petlbench.results.result import Origin, read_result, write_result
from tests.report.stored import store, store_predicted, store_study


def _study(place: Path, protocol: str, methods: dict[str, float], datasets: dict[str, str]) -> Path:
    """Three seeds of each method on each dataset, whose split has a digest."""
    runs = []
    for method, strength in methods.items():
        for dataset, split in datasets.items():
            for seed in (0, 1, 2):
                run = store_predicted(place, method, dataset, seed, strength, title=dataset.upper(), preload=False)
                result = read_result(place / run.run_id)
                more = {"origin": Origin(protocol=protocol), "digests": {"split": split}}
                write_result(place / run.run_id, result.model_copy(update=more))
                runs.append({"method": method, "dataset": dataset, "seed": seed, "run_id": run.run_id})
    store_study(place, place.name, [{**run, "status": "finished"} for run in runs])
    return place


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three bundles under two protocols, two of them of one setting."""
    folder, packed = tmp_path_factory.mktemp("studies"), tmp_path_factory.mktemp("bundles")
    two = {"isic": "a", "odir": "b"}
    for name, protocol, methods, datasets in (
        ("alpha", "fair", {"full": 2.2, "linear": 0.3}, two),
        ("beta", "fair", {"fpt": 2.15}, two),
        ("gamma", "published", {"full": 2.2, "lora": 1.2}, {"isic": "a"}),
    ):
        study = _study(folder / name, protocol, methods, datasets)
        pb.pack(name, packed / f"{name}.zip", results=study)
        shutil.rmtree(study)
    return packed


def test_a_table_has_one_setting_and_the_studies_of_it(bundles: Path) -> None:
    document = pb.board(bundles)
    facets = [(table.facets["dataset"], table.facets["protocol"]) for table in document.tables]
    assert sorted(facets) == [("ISIC", "fair"), ("ISIC", "published"), ("ODIR", "fair"), ("over datasets", "fair")]
    by_facet = dict(zip(facets, document.tables, strict=True))
    fair = by_facet["ISIC", "fair"]
    assert {row.key: row.cells["study"].text for row in fair.rows} == {
        "full": "alpha",
        "fpt": "beta",
        "linear": "alpha",
    }
    assert [row.key for row in by_facet["ISIC", "published"].rows] == ["full", "lora"]


def test_what_cannot_be_told_apart_shares_a_letter_and_ranks(bundles: Path) -> None:
    [table] = [table for table in pb.board(bundles).tables if table.facets["dataset"] == "over datasets"]
    cells = {row.key: (row.cells["rank"].text, row.cells["apart"].text) for row in table.rows}
    assert cells == {"full": ("1 to 2", "a"), "fpt": ("1 to 2", "a"), "linear": ("3", "b")}


def test_a_dataset_that_is_split_otherwise_is_another(tmp_path: Path) -> None:
    for name, split in (("one", "a"), ("two", "b")):
        _study(tmp_path / name, "", {"full": 2.0}, {"isic": split})
    # The same run, said to be of other images: it would be shown once otherwise.
    for file in (tmp_path / "two").glob("full-*"):
        result = read_result(file)
        config = result.config.model_copy(update={"threads": 2})
        write_result(file, result.model_copy(update={"run_id": f"{file.name}x", "config": config}))
        file.rename(file.with_name(f"{file.name}x"))
    tables = pb.board(tmp_path / "one", tmp_path / "two").tables
    assert [table.facets["dataset"] for table in tables[:2]] == ["ISIC", "ISIC (2: split otherwise)"]


def test_configurations_of_a_method_are_rows_of_their_own(tmp_path: Path) -> None:
    for lr in (0.1, 0.2):
        store(tmp_path, "lora", training={"lr": lr})
    [table] = pb.board(tmp_path).tables
    assert {row.title for row in table.rows} == {"LoRA, training.lr 0.1", "LoRA, training.lr 0.2"}


def test_titles_say_settings_in_words_and_columns_have_one_number_of_decimals(tmp_path: Path) -> None:
    for size in (32, 64):
        for method, spread in (("lora", 0.001), ("fpt", 0.1)):
            for seed in (0, 1):
                store(tmp_path, method, seed=seed, auc=0.8 + seed * spread, image_size=size)
    tables = pb.board(tmp_path).tables
    assert {"image size 32" in table.title for table in tables} == {True, False}
    assert not any("image_size" in table.title for table in tables)
    for table in tables:
        texts = [row.cells["digits"].text for row in table.rows]
        assert len(texts) == 2
        assert {len(text.partition(" ")[0].partition(".")[2]) for text in texts} == {0}


def test_the_page_can_be_filtered(bundles: Path) -> None:
    page = pb.board(bundles).to_html()
    assert page.count("data-facets=") >= 4
    assert "petlbench-bundle-" not in page


def test_what_is_no_study_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no folder of results") as error:
        pb.board(tmp_path)
    assert error.value.hint
    store(tmp_path, "lora", status="failed")
    with pytest.raises(InputError, match="no finished run"):
        pb.board(tmp_path)

"""Several labels an image in a table: in columns, in one cell, with doubt, and what is wrong with each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from petlbench.core.catalog import Catalog
from petlbench.core.errors import InputError
from petlbench.data.dataset import Dataset, open_dataset

COLUMNS = "edema,mass,nodule"
ROWS = ("1,0,0", "0,1.0,-1", "0,0,0", "1,,1")


def table(folder: Path, header: str, rows: tuple[str, ...]) -> Path:
    for number in range(len(rows)):
        Image.new("RGB", (8, 8), (number, 0, 0)).save(folder / f"{number}.png")
    file = folder / "labels.csv"
    lines = [f"{number}.png,{row}" for number, row in enumerate(rows)]
    file.write_text("\n".join([f"image,{header}", *lines]), encoding="utf-8")
    return file


def opened(file: Path, **settings: Any) -> Dataset:
    return open_dataset(str(file), catalog=Catalog(), data_root=file.parent, settings=settings)


def labels(dataset: Dataset) -> list[tuple[int | None, ...]]:
    return [record.label for record in dataset.records]


def refused(file: Path, **settings: Any) -> InputError:
    with pytest.raises(InputError) as caught:
        opened(file, **settings)
    return caught.value


class TestColumns:
    def test_one_column_a_label(self, tmp_path: Path) -> None:
        dataset = opened(table(tmp_path, COLUMNS, ROWS), label_columns=COLUMNS)
        assert (dataset.task.name, dataset.classes) == ("multilabel", ("edema", "mass", "nodule"))
        assert labels(dataset) == [(1, 0, 0), (0, 1, None), (0, 0, 0), (1, None, 1)]

    @pytest.mark.parametrize(
        ("settings", "second", "last"),
        [
            ({"uncertain": "zero"}, (0, 1, 0), (1, None, 1)),
            ({"uncertain": "one", "empty": "zero"}, (0, 1, 1), (1, 0, 1)),
        ],
    )
    def test_what_doubt_and_nothing_are(self, tmp_path: Path, settings: Any, second: Any, last: Any) -> None:
        dataset = opened(table(tmp_path, COLUMNS, ROWS), label_columns=COLUMNS, **settings)
        assert (labels(dataset)[1], labels(dataset)[3]) == (second, last)

    def test_some_of_the_columns(self, tmp_path: Path) -> None:
        dataset = opened(table(tmp_path, COLUMNS, ROWS), label_columns="nodule")
        assert (dataset.classes, labels(dataset)[:2]) == (("nodule",), [(0,), (None,)])
        assert dataset.records[0].extra == (("edema", "1"), ("mass", "0"))

    def test_a_cell_that_is_no_label(self, tmp_path: Path) -> None:
        error = refused(table(tmp_path, COLUMNS, (*ROWS, "2,0,0")), label_columns=COLUMNS)
        assert "line 6" in error.message
        assert "the column edema holds '2'" in error.message

    @pytest.mark.parametrize("name", ["edema|mass", "?edema"])
    def test_a_column_that_cannot_be_written_in_a_label(self, tmp_path: Path, name: str) -> None:
        columns = f"{name},edema,mass"
        error = refused(table(tmp_path, columns, ROWS), label_columns=columns)
        assert (error.kind, f"has a class '{name}'" in error.message) == ("bad_label", True)

    def test_a_rename_to_what_is_no_column(self, tmp_path: Path) -> None:
        error = refused(table(tmp_path, COLUMNS, ROWS), label_columns=COLUMNS, rename="edema=oedema")
        assert (error.kind, "no label 'oedema'" in error.message) == ("unknown_label", True)

    def test_a_column_that_is_not_there(self, tmp_path: Path) -> None:
        error = refused(table(tmp_path, COLUMNS, ROWS), label_columns="edema,cyst")
        assert (error.kind, "'cyst', which dataset.label_columns names" in error.message) == ("missing_column", True)


class TestCells:
    ROWS = ("edema|mass", "No Finding", "mass| nodule |mass", "")

    def test_several_labels_in_a_cell(self, tmp_path: Path) -> None:
        dataset = opened(table(tmp_path, "label", self.ROWS), label_separator="|", no_label="No Finding")
        assert (dataset.task.name, dataset.classes) == ("multilabel", ("edema", "mass", "nodule"))
        assert labels(dataset) == [(1, 1, 0), (0, 0, 0), (0, 1, 1), (0, 0, 0)]

    @pytest.mark.parametrize("cell", ["?mass;edema", "a|b;edema"])
    def test_a_name_that_means_something_in_labels(self, tmp_path: Path, cell: str) -> None:
        error = refused(table(tmp_path, "label", ("mass", "edema", cell)), label_separator=";")
        assert (error.kind, "line 4" in error.message, "is no name" in error.message) == ("bad_csv", True, True)

    def test_the_note_names_the_setting(self, tmp_path: Path) -> None:
        dataset = opened(table(tmp_path, "label", ("a;b", "a", "b", "a;b")))
        assert dataset.task.name == "multiclass"
        assert any("--set 'dataset.label_separator=;'" in note for note in dataset.notes)

    def test_two_ways_at_a_time(self, tmp_path: Path) -> None:
        file = table(tmp_path, "label", self.ROWS)
        assert "two ways" in refused(file, label_separator="|", label_columns="label").message
        assert "not regression" in refused(file, label_separator="|", task="regression").message


CARD = """
title = "Tabled"
modality = "noise"
task = "{}"
classes = ["edema", "mass", "nodule"]
licence = "CC0-1.0"
version = 1
split = "random"
grouping = "none"
[reader]
kind = "csv"
settings = {{ label_columns = "edema,mass,nodule", uncertain = "one" }}
"""


def test_a_card_says_how_its_table_is_read(tmp_path: Path) -> None:
    (tmp_path / "tabled").mkdir()
    table(tmp_path / "tabled", COLUMNS, ROWS)
    (tmp_path / "tabled.toml").write_text(CARD.format("multilabel"), encoding="utf-8")
    assert labels(opened(tmp_path / "tabled.toml"))[1] == (0, 1, 1)
    (tmp_path / "tabled.toml").write_text(CARD.format("multiclass"), encoding="utf-8")
    assert "its card says multiclass" in refused(tmp_path / "tabled.toml").message


def test_lists_of_class_labels_of_hugging_face(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    names = ["edema", "mass", "nodule"]
    features = datasets.Features(
        {"image": datasets.Image(), "label": datasets.Sequence(datasets.ClassLabel(names=names))}
    )
    images = [Image.new("RGB", (8, 8), (number, 0, 0)) for number in range(3)]
    content = {"image": images, "label": [[0, 2], [], [1]]}
    datasets.Dataset.from_dict(content, features=features).save_to_disk(str(tmp_path / "saved"))
    assert labels(opened(tmp_path / "saved", task="multilabel")) == [(1, 0, 1), (0, 0, 0), (0, 1, 0)]
    assert "--set dataset.task=multilabel" in refused(tmp_path / "saved").hint


@pytest.mark.parametrize("position", [-2, 3, None])
def test_a_position_that_is_no_class_of_hugging_face(tmp_path: Path, position: int | None) -> None:
    datasets = pytest.importorskip("datasets")
    images = [Image.new("RGB", (8, 8), (number, 0, 0)) for number in range(2)]
    saved = datasets.Dataset.from_dict(
        {"image": images, "label": [[0], [position]]},
        features=datasets.Features({"image": datasets.Image(), "label": datasets.Sequence(datasets.Value("int64"))}),
    )
    label = datasets.Sequence(datasets.ClassLabel(names=["edema", "mass", "nodule"]))
    saved.info.features = datasets.Features({"image": datasets.Image(), "label": label})
    saved.save_to_disk(str(tmp_path / "saved"))
    assert f"the label {position} of 3 classes" in refused(tmp_path / "saved", task="multilabel").message

"""Folders written by Hugging Face's save_to_disk: what is read, and how each bad one is refused."""

from __future__ import annotations

import hashlib
import io
import os
import subprocess
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from petlbench.core.catalog import Catalog
from petlbench.core.errors import InputError
from petlbench.data.dataset import Dataset, open_dataset
from petlbench.data.readers import huggingface as huggingface_reader

try:
    version("datasets")
except PackageNotFoundError:
    pytest.skip("the extra huggingface is not installed", allow_module_level=True)

import datasets as hf
import pyarrow.parquet as pq

ROOT = Path(__file__).parents[3]
CATALOG = Catalog()


def opened(folder: Path, **settings: Any) -> Dataset:
    return open_dataset(str(folder), catalog=CATALOG, data_root=Path("none"), settings=settings)


def refused(folder: Path, **settings: Any) -> InputError:
    with pytest.raises(InputError) as caught:
        opened(folder, **settings)
    return caught.value


def png(colour: int = 100) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (4, 3), (colour, 0, 0)).save(stream, "PNG")
    return stream.getvalue()


def table(labels: list[Any], feature: Any = None, *, image: str = "image", label: str = "label") -> Any:
    features = hf.Features({image: hf.Image(), label: feature or hf.ClassLabel(names=["well", "ill"])})
    cells = [{"bytes": png(number), "path": None} for number in range(len(labels))]
    return hf.Dataset.from_dict({image: cells, label: labels}, features=features)


def saved(folder: Path, content: Any) -> Path:
    content.save_to_disk(str(folder))
    return folder


class TestReading:
    def test_a_dataset_with_parts(self, tmp_path: Path) -> None:
        parts = {"train": table([0, 1, 1]), "validation": table([1, 0]), "test": table([0])}
        dataset = opened(saved(tmp_path / "mine", hf.DatasetDict(parts)))
        assert (dataset.name, dataset.classes) == ("mine", ("well", "ill"))
        assert [(r.image_id, r.label, r.split) for r in dataset.records] == [
            ("test/000000", 0, "test"),
            ("train/000000", 0, "train"),
            ("train/000001", 1, "train"),
            ("train/000002", 1, "train"),
            ("validation/000000", 1, "val"),
            ("validation/000001", 0, "val"),
        ]
        assert (dataset.card.split, dataset.card.task, dataset.card.reader.kind) == (
            "official",
            "binary",
            "huggingface",
        )
        record = dataset.records[3]
        assert dataset.open(record).getpixel((0, 0)) == (2, 0, 0)
        assert dataset.content_hash(record) == hashlib.sha256(png(2)).hexdigest()
        assert dataset.file(record) is None

    def test_a_dataset_without_parts(self, tmp_path: Path) -> None:
        dataset = opened(saved(tmp_path, table([0, 1, 0])))
        assert [(r.image_id, r.split) for r in dataset.records] == [(f"all/{i:06d}", None) for i in range(3)]
        assert dataset.card.split == "random"

    def test_other_column_names(self, tmp_path: Path) -> None:
        saved(tmp_path, table([0, 1], image="scan", label="dx"))
        assert len(opened(tmp_path, image_column="scan", label_column="dx").records) == 2
        error = refused(tmp_path)
        assert error.kind == "missing_column"
        assert "it has: scan, dx" in error.message

    def test_numbers_and_texts_are_classes(self, tmp_path: Path) -> None:
        assert opened(saved(tmp_path / "n", table([10, 9, 9], hf.Value("int64")))).classes == ("9", "10")
        assert opened(saved(tmp_path / "t", table(["b", "a"], hf.Value("string")))).classes == ("a", "b")

    def test_a_declared_class_without_an_image_keeps_its_place(self, tmp_path: Path) -> None:
        dataset = opened(saved(tmp_path, table([2, 0], hf.ClassLabel(names=["z", "y", "x"]))))
        assert (dataset.classes, [r.label for r in dataset.records]) == (("z", "y", "x"), [2, 0])

    def test_deep_images_stay_deep(self, tmp_path: Path) -> None:
        stream = io.BytesIO()
        Image.fromarray(np.array([[0, 300]], dtype=np.uint16)).save(stream, "PNG")
        content = table([0, 1]).map(lambda _row: {"image": {"bytes": stream.getvalue(), "path": None}})
        dataset = opened(saved(tmp_path, content))
        assert dataset.open_deep(dataset.records[0]).mode == "F"

    def test_threads_read_at_once(self, tmp_path: Path) -> None:
        dataset = opened(saved(tmp_path, table([0, 1] * 50)))
        with ThreadPoolExecutor(8) as pool:
            read = list(pool.map(dataset.open, dataset.records * 5))
        assert [image.getpixel((0, 0)) for image in read] == [(number, 0, 0) for number in range(100)] * 5

    @pytest.mark.parametrize("described", [True, False])
    @pytest.mark.parametrize("below", ["", "data"])
    def test_parquet_files_as_the_hub_hands_them_out(self, tmp_path: Path, described: bool, below: str) -> None:
        (tmp_path / below).mkdir(exist_ok=True)
        (tmp_path / "README.md").write_text("---\nlicense: cc0-1.0\n---\n")
        names = ("train-00000-of-00002", "train-00001-of-00002", "validation-00000-of-00001-ab12", "test")
        for name in names:
            content = table([0, 1, 1]).data.table
            if not described:
                content = content.replace_schema_metadata(None)
            pq.write_table(content, tmp_path / below / f"{name}.parquet")
        dataset = opened(tmp_path)
        assert dataset.classes == (("well", "ill") if described else ("0", "1"))
        assert Counter(record.split for record in dataset.records) == {"train": 6, "val": 3, "test": 3}
        assert [record.label for record in dataset.records] == [0, 1, 1] * 4
        assert dataset.open(dataset.records[5]).getpixel((0, 0)) == (2, 0, 0)

    def test_parquet_files_of_no_part(self, tmp_path: Path) -> None:
        pq.write_table(table([0, 1, 0]).data.table, tmp_path / "0000.parquet")
        assert [record.image_id for record in opened(tmp_path).records] == [f"all/{i:06d}" for i in range(3)]

    def test_labels_are_renamed_and_left_out(self, tmp_path: Path) -> None:
        saved(tmp_path, table(["a", "b", "c", "A"], hf.Value("string")))
        dataset = opened(tmp_path, leave_out="c", rename="A=a")
        assert [(r.image_id, r.label) for r in dataset.records] == [
            ("all/000000", 0),
            ("all/000001", 1),
            ("all/000003", 0),
        ]

    def test_parts_to_train_and_to_validate_on_alone(self, tmp_path: Path) -> None:
        dataset = opened(saved(tmp_path, hf.DatasetDict(train=table([0, 1]), validation=table([0, 1]))))
        assert (dataset.card.split, "no test scores" in dataset.notes[0]) == ("official", True)

    def test_a_card_reads_it_below_the_data_root(self, tmp_path: Path) -> None:
        text = CATALOG.find("dataset", "digits").file.read_text(encoding="utf-8").split("[counts")[0]
        (tmp_path / "mine.toml").write_text(text.replace("sklearn_digits", "huggingface"), encoding="utf-8")
        saved(tmp_path / "mine", table([0, 1]))
        with pytest.raises(InputError) as caught:
            open_dataset(str(tmp_path / "mine.toml"), catalog=CATALOG, data_root=tmp_path, settings={})
        assert caught.value.kind == "class_mismatch"
        saved(tmp_path / "mine2", table(list(range(10)), hf.ClassLabel(names=[str(9 - digit) for digit in range(10)])))
        (tmp_path / "mine.toml").rename(tmp_path / "mine2.toml")
        dataset = open_dataset(str(tmp_path / "mine2.toml"), catalog=CATALOG, data_root=tmp_path, settings={})
        assert (dataset.classes[0], dataset.records[0].label) == ("0", 9)


class TestRefusals:
    def test_a_pipe_among_the_files(self, tmp_path: Path) -> None:
        saved(tmp_path, table([0, 1]))
        (file,) = tmp_path.glob("*.arrow")
        file.unlink()
        os.mkfifo(file)
        assert refused(tmp_path).kind == "not_a_file"

    @pytest.mark.parametrize("content", [b"", b"PAR1", b"PAR1" + bytes(100) + b"PAR1"])
    def test_a_parquet_file_that_is_none(self, tmp_path: Path, content: bytes) -> None:
        (tmp_path / "train.parquet").write_bytes(content)
        assert refused(tmp_path).kind == "bad_layout"

    @pytest.mark.parametrize("names", [("train", "unsupervised"), ("val", "validation")])
    def test_parts_of_other_names(self, tmp_path: Path, names: tuple[str, str]) -> None:
        error = refused(saved(tmp_path, hf.DatasetDict({name: table([0, 1]) for name in names})))
        assert error.kind == "bad_layout"
        assert ", ".join(names) in error.message

    def test_parts_with_different_classes(self, tmp_path: Path) -> None:
        other = table([0, 1], hf.ClassLabel(names=["ill", "well"]))
        assert refused(saved(tmp_path, hf.DatasetDict(train=table([0, 1]), test=other))).kind == "class_mismatch"

    @pytest.mark.parametrize(
        ("labels", "feature"), [([0, -1], None), ([0, None], None), (["a", ""], "string"), ([0, None], "int64")]
    )
    def test_an_image_without_a_label(self, tmp_path: Path, labels: list[Any], feature: str | None) -> None:
        error = refused(saved(tmp_path, table(labels, hf.Value(feature) if feature else None)))
        assert (error.kind, "position 1" in error.message) == ("empty_label", True)

    @pytest.mark.parametrize("feature", [hf.Value("float32"), hf.List(hf.Value("int64"))])
    def test_labels_of_another_kind(self, tmp_path: Path, feature: Any) -> None:
        labels = [[0, 1], [1]] if isinstance(feature, hf.List) else [0.5, 1.0]
        assert refused(saved(tmp_path, table(labels, feature))).kind == "unsupported_task"

    def test_one_class(self, tmp_path: Path) -> None:
        assert refused(saved(tmp_path, table([0, 0], hf.ClassLabel(names=["x"])))).kind == "too_few_classes"

    def test_a_column_that_holds_no_images(self, tmp_path: Path) -> None:
        error = refused(saved(tmp_path, table([0, 1])), image_column="label")
        assert (error.kind, "holds no images" in error.message) == ("bad_layout", True)

    def test_an_absent_image(self, tmp_path: Path) -> None:
        content = table([0, 1]).map(lambda _row: {"image": None})
        dataset = opened(saved(tmp_path, content))
        with pytest.raises(InputError) as caught:
            dataset.open(dataset.records[1])
        assert (caught.value.kind, "position 1" in caught.value.message) == ("missing_image", True)

    def test_a_corrupt_image(self, tmp_path: Path) -> None:
        content = table([0, 1]).cast_column("image", hf.Image(decode=False))
        content = content.map(lambda _row: {"image": {"bytes": png()[:30], "path": None}})
        dataset = opened(saved(tmp_path, content))
        with pytest.raises(InputError) as caught:
            dataset.open(dataset.records[0])
        assert (caught.value.kind, str(tmp_path) in caught.value.message) == ("corrupt_image", True)

    @pytest.mark.parametrize("name", ["*.arrow", "state.json", "dataset_info.json"])
    def test_a_file_cut_off(self, tmp_path: Path, name: str) -> None:
        saved(tmp_path, table([0, 1] * 50))
        (file,) = tmp_path.glob(name)
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
        error = refused(tmp_path)
        assert (error.kind, str(tmp_path) in error.message) == ("bad_layout", True)

    def test_a_part_that_is_not_there(self, tmp_path: Path) -> None:
        (tmp_path / "dataset_dict.json").write_text('{"splits": ["train"]}')
        assert refused(tmp_path).kind == "bad_layout"


def test_without_the_package_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> str:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(huggingface_reader, "version", absent)
    (tmp_path / "dataset_dict.json").touch()
    error = refused(tmp_path)
    assert error.kind == "missing_package"
    assert "petlbench[huggingface]" in error.hint


def test_the_folder_of_cards_does_not_hide_the_package() -> None:
    script = "import datasets; print(datasets.__file__)"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert not Path(done.stdout.strip()).is_relative_to(ROOT / "datasets")

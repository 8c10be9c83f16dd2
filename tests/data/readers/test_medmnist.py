"""MedMNIST's archives: what is read from made-up ones in their form, and how each bad one is refused."""

from __future__ import annotations

import hashlib
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from petlbench.core.catalog import Catalog
from petlbench.core.errors import InputError
from petlbench.data.card import load_card
from petlbench.data.dataset import Dataset, describe_dataset, open_dataset
from petlbench.data.splits import SplitScheme, assign_splits

CATALOG = Catalog()
NAMES = sorted(name for name in CATALOG.entries("dataset") if name.endswith("mnist"))
COUNTS = {"train": 18, "val": 9, "test": 9}

Arrays = dict[str, NDArray[Any]]


def arrays(size: int = 28, classes: int = 9, colours: tuple[int, ...] = (3,)) -> Arrays:
    rng = np.random.default_rng(0)
    made: Arrays = {}
    for part, count in COUNTS.items():
        made[f"{part}_images"] = rng.integers(0, 256, (count, size, size, *colours), dtype=np.uint8)
        made[f"{part}_labels"] = (np.arange(count, dtype=np.uint8) % classes)[:, None]
    return made


def several() -> Arrays:
    content = arrays(colours=())
    for part, count in COUNTS.items():
        content[f"{part}_labels"] = np.random.default_rng(count).integers(0, 2, (count, 14), dtype=np.uint8)
    return content


def save(file: Path, content: Arrays) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(file, **content)  # type: ignore[arg-type]
    return file


def opened(root: Path, name: str = "pathmnist", **settings: Any) -> Dataset:
    return open_dataset(name, catalog=CATALOG, data_root=root, settings=settings)


def refused(root: Path, name: str = "pathmnist", **settings: Any) -> InputError:
    with pytest.raises(InputError) as caught:
        opened(root, name, **settings)
    return caught.value


class TestReading:
    def test_images_labels_and_official_parts(self, tmp_path: Path) -> None:
        content = arrays()
        save(tmp_path / "pathmnist/pathmnist.npz", content)
        dataset = opened(tmp_path)
        assert len(dataset.records) == 36
        assert {part: sum(r.split == part for r in dataset.records) for part in COUNTS} == COUNTS
        third = dataset.records[2]
        assert (third.image_id, third.label, third.split) == ("pathmnist/train/000002", 2, "train")
        assert np.array_equal(np.asarray(dataset.open(third)), content["train_images"][2])
        assert dataset.content_hash(third) == hashlib.sha256(content["train_images"][2].tobytes()).hexdigest()
        assert dataset.file(third) is None
        last = dataset.records[-1]
        assert np.array_equal(np.asarray(dataset.open(last)), content["test_images"][-1])
        scheme = SplitScheme.parse(dataset.card.split)
        assert assign_splits(dataset.records, scheme, 0, classes=dataset.classes) == [r.split for r in dataset.records]

    def test_several_labels_an_image(self, tmp_path: Path) -> None:
        content = several()
        save(tmp_path / "chestmnist/chestmnist.npz", content)
        dataset = opened(tmp_path, "chestmnist")
        assert (dataset.task.name, len(dataset.classes)) == ("multilabel", 14)
        assert dataset.records[2].label == tuple(content["train_labels"][2])
        everything = np.concatenate([content[f"{part}_labels"] for part in COUNTS])
        assert list(dataset.by_class().values()) == everything.sum(axis=0).tolist()

    def test_grey_images_become_rgb(self, tmp_path: Path) -> None:
        content = arrays(classes=4, colours=())
        save(tmp_path / "octmnist/octmnist.npz", content)
        dataset = opened(tmp_path, "octmnist")
        pixels = np.asarray(dataset.open(dataset.records[0]))
        assert all(np.array_equal(pixels[..., channel], content["train_images"][0]) for channel in range(3))

    @pytest.mark.parametrize("size", [64, 128, 224])
    def test_the_size_is_a_setting(self, tmp_path: Path, size: int) -> None:
        save(tmp_path / f"pathmnist/pathmnist_{size}.npz", arrays(size))
        dataset = opened(tmp_path, size=str(size))
        assert (dataset.settings, dataset.open(dataset.records[0]).size) == ({"size": size}, (size, size))
        assert "pathmnist.npz" in refused(tmp_path).message

    def test_an_image_has_one_name_in_all_sizes(self, tmp_path: Path) -> None:
        for size, name in ((28, "pathmnist.npz"), (64, "pathmnist_64.npz")):
            save(tmp_path / "pathmnist" / name, arrays(size))
        assert opened(tmp_path).records == opened(tmp_path, size="64").records

    def test_labels_may_lie_in_one_row(self, tmp_path: Path) -> None:
        content = arrays()
        content["val_labels"] = content["val_labels"][:, 0].astype(np.int64)
        save(tmp_path / "pathmnist/pathmnist.npz", content)
        assert len(opened(tmp_path).records) == 36

    def test_threads_load_each_part_once(self, tmp_path: Path) -> None:
        content = arrays()
        save(tmp_path / "pathmnist/pathmnist.npz", content)
        dataset = opened(tmp_path)
        with ThreadPoolExecutor(8) as pool:
            read = np.stack(list(pool.map(lambda record: np.asarray(dataset.open(record)), dataset.records)))
        assert np.array_equal(read, np.concatenate([content[f"{part}_images"] for part in COUNTS]))

    def test_the_packages_own_folder_is_the_second_place(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("HOME", str(tmp_path / "home"))
        save(tmp_path / "home/.medmnist/pathmnist.npz", arrays())
        first = opened(tmp_path / "data")
        content = arrays()
        content["train_images"][:] = 7
        save(tmp_path / "data/pathmnist/pathmnist.npz", content)
        second = opened(tmp_path / "data")
        assert first.open(first.records[0]).getpixel((0, 0)) != (7, 7, 7)
        assert second.open(second.records[0]).getpixel((0, 0)) == (7, 7, 7)


class TestRefusals:
    def test_an_absent_archive_names_both_places_and_the_address(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("HOME", str(tmp_path / "home"))
        error = refused(tmp_path, size="64")
        assert error.kind == "data_missing"
        for said in ("pathmnist_64.npz", str(tmp_path / "pathmnist"), str(tmp_path / "home/.medmnist")):
            assert said in error.message
        assert "https://zenodo.org/records/10519652/files/pathmnist_64.npz" in error.hint
        info = describe_dataset("pathmnist", catalog=CATALOG, data_root=tmp_path, settings={})
        assert (info.images, info.dataset) == (107_180, None)

    @pytest.mark.parametrize("size", ["32", "x"])
    def test_an_unknown_size(self, tmp_path: Path, size: str) -> None:
        error = refused(tmp_path, size=size)
        assert (error.kind, f"size = '{size}'" in error.message) == ("bad_setting", True)

    @pytest.mark.parametrize("key", list(arrays()))
    def test_a_missing_array(self, tmp_path: Path, key: str) -> None:
        content = arrays()
        del content[key]
        file = save(tmp_path / "pathmnist/pathmnist.npz", content)
        error = refused(tmp_path)
        assert error.kind == "bad_npz"
        assert f"{file}: the array {key} is missing" in error.message

    @pytest.mark.parametrize(
        ("key", "value", "said"),
        [
            ("train_images", np.zeros((18, 64, 64, 3), dtype=np.uint8), "not uint8 of shape (18, 28, 28)"),
            ("train_images", np.zeros((17, 28, 28, 3), dtype=np.uint8), "(17, 28, 28, 3)"),
            ("train_images", np.zeros((18, 28, 28, 4), dtype=np.uint8), "(18, 28, 28, 4)"),
            ("train_images", np.zeros((18, 28, 28), dtype=np.float32), "float32"),
            ("val_labels", np.zeros((9, 14), dtype=np.uint8), "not one whole number an image"),
            ("val_labels", np.zeros((9, 1), dtype=np.float32), "float32"),
            ("val_labels", np.zeros((), dtype=np.uint8), "val_labels"),
            ("val_labels", np.array([[object()]] * 9), "val_labels cannot be read"),
        ],
    )
    def test_arrays_of_another_form(self, tmp_path: Path, key: str, value: NDArray[Any], said: str) -> None:
        file = save(tmp_path / "pathmnist/pathmnist.npz", {**arrays(), key: value})
        error = refused(tmp_path)
        assert error.kind == "bad_npz"
        assert str(file) in error.message
        assert said in error.message

    def test_a_packed_array_of_any_size_is_not_unpacked(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        save(tmp_path / "pathmnist/pathmnist.npz", arrays())
        monkeypatch.setattr("petlbench.data.readers.medmnist._MOST_LABELS", 17)
        error = refused(tmp_path)
        assert (error.kind, "train_labels is of shape (18, 1)" in error.message) == ("bad_npz", True)

    @pytest.mark.parametrize("label", [9, -1])
    def test_an_unknown_label(self, tmp_path: Path, label: int) -> None:
        content = arrays()
        content["test_labels"] = content["test_labels"].astype(np.int8)
        content["test_labels"][4] = label
        save(tmp_path / "pathmnist/pathmnist.npz", content)
        error = refused(tmp_path)
        assert error.kind == "unknown_label"
        assert f"test_labels has the label {label} at position 4" in error.message
        assert "0 to 8" in error.message

    @pytest.mark.parametrize("part", [0.0, 0.1, 0.5, 0.99])
    def test_an_archive_cut_off(self, tmp_path: Path, part: float) -> None:
        file = save(tmp_path / "pathmnist/pathmnist.npz", arrays())
        content = file.read_bytes()
        file.write_bytes(content[: int(len(content) * part)])
        error = refused(tmp_path)
        assert error.kind == "bad_npz"
        assert str(file) in error.message

    def test_an_archive_damaged_among_its_images(self, tmp_path: Path) -> None:
        file = save(tmp_path / "pathmnist/pathmnist.npz", arrays())
        with zipfile.ZipFile(file) as archive:
            member = archive.getinfo("test_images.npy")
        content = bytearray(file.read_bytes())
        middle = member.header_offset + member.compress_size // 2
        content[middle : middle + 64] = bytes(64)
        file.write_bytes(content)
        dataset = opened(tmp_path)
        dataset.open(dataset.records[0])
        with pytest.raises(InputError, match="test_images cannot be read") as caught:
            dataset.open(dataset.records[-1])
        assert caught.value.kind == "bad_npz"

    def test_a_label_that_is_neither_0_nor_1(self, tmp_path: Path) -> None:
        content = several()
        content["val_labels"][4, 13] = 2
        save(tmp_path / "chestmnist/chestmnist.npz", content)
        error = refused(tmp_path, "chestmnist")
        assert (error.kind, "2 for 'hernia' at position 4" in error.message) == ("unknown_label", True)


class TestCards:
    def test_all_twelve_are_there(self) -> None:
        assert len(NAMES) == 12

    @pytest.mark.parametrize("name", NAMES)
    def test_what_every_card_says(self, name: str) -> None:
        card = load_card(CATALOG.find("dataset", name).file)
        assert (card.reader.kind, card.split) == ("medmnist", "official")
        assert [file.name for file in card.files] == [f"{name}{size}.npz" for size in ("", "_64", "_128", "_224")]
        assert all(file.md5 and file.url.startswith("https://zenodo.org/") for file in card.files)
        assert card.unverified
        assert card.licence == ("CC BY-NC 4.0" if name == "dermamnist" else "CC BY 4.0")

    def test_tasks(self) -> None:
        tasks = {name: load_card(CATALOG.find("dataset", name).file).task for name in NAMES}
        assert (tasks["retinamnist"], tasks["chestmnist"], tasks["pathmnist"]) == (
            "ordinal",
            "multilabel",
            "multiclass",
        )
        assert {name for name, task in tasks.items() if task == "binary"} == {"breastmnist", "pneumoniamnist"}

    def test_the_known_leak_is_said(self) -> None:
        card = load_card(CATALOG.find("dataset", "dermamnist").file)
        assert any("2401.14497" in issue for issue in card.known_issues)

    @pytest.mark.parametrize("name", ["organamnist", "organcmnist", "organsmnist"])
    def test_sides_of_the_body_are_not_mirrored(self, name: str) -> None:
        card = load_card(CATALOG.find("dataset", name).file)
        assert {"kidney-left", "kidney-right"} <= set(card.classes)
        assert not card.mirror

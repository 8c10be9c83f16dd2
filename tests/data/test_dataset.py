"""Folders, CSV files and digits: what is read, and how each bad input is refused."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from petlbench.core.catalog import Catalog
from petlbench.core.errors import InputError
from petlbench.data.dataset import Dataset, describe_dataset, open_dataset

CATALOG = Catalog()


def opened(reference: Path | str, settings: Mapping[str, Any] | None = None, root: Path = Path("none")) -> Dataset:
    return open_dataset(str(reference), catalog=CATALOG, data_root=root, settings=settings or {})


def refused(reference: Path | str, settings: Mapping[str, Any] | None = None, root: Path = Path("none")) -> InputError:
    with pytest.raises(InputError) as caught:
        opened(reference, settings, root)
    return caught.value


def image(file: Path, colour: int = 100) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (4, 3), (colour, 0, 0)).save(file)
    return file


def table(folder: Path, text: str, encoding: str = "utf-8") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("a.png", "b.png", "c.png"):
        image(folder / name)
    file = folder / "labels.csv"
    file.write_bytes(text.encode(encoding))
    return file


class TestFolder:
    def test_class_folders(self, tmp_path: Path) -> None:
        for name in ("cat/2.PNG", "cat/1.jfif", "dog/deep/1.png", "dog/.hidden.png"):
            file = image(tmp_path / Path(name).with_suffix(".png"))
            file.rename(tmp_path / name)
        (tmp_path / "dog/notes.txt").write_text("not an image")
        dataset = opened(tmp_path)
        assert dataset.classes == ("cat", "dog")
        assert [(r.image_id, r.label, r.split) for r in dataset.records] == [
            ("cat/1.jfif", 0, None),
            ("cat/2.PNG", 0, None),
            ("dog/deep/1.png", 1, None),
        ]
        assert dataset.notes == ("1 file that is no image is left out: dog/notes.txt",)
        assert (dataset.card.task, dataset.card.split, dataset.card.grouping) == ("binary", "random", "unavailable")
        assert dataset.open(dataset.records[0]).getpixel((0, 0)) == (100, 0, 0)

    def test_the_content_decides_where_the_suffix_does_not(self, tmp_path: Path) -> None:
        for number, name in enumerate(("a/no_suffix", "a/scan.0", "b/UPPER.JPG", "b/picture.txt")):
            image(tmp_path / f"{name}.png", number).rename(tmp_path / name)
        (tmp_path / "b/jpeg_called.png").write_bytes((tmp_path / "b/UPPER.JPG").read_bytes())
        (tmp_path / "a/labels.csv").write_text("image,label")
        (tmp_path / "a/empty").touch()
        os.mkfifo(tmp_path / "a/pipe")
        dataset = opened(tmp_path)
        read = {record.image_id: dataset.open(record).size for record in dataset.records}
        assert read == dict.fromkeys(
            ("a/no_suffix", "a/scan.0", "b/UPPER.JPG", "b/jpeg_called.png", "b/picture.txt"), (4, 3)
        )
        assert dataset.notes == ("3 files that are no images are left out: a/empty, a/labels.csv, a/pipe",)

    def test_many_skipped_files_are_all_counted(self, tmp_path: Path) -> None:
        for name in ("a", "b"):
            image(tmp_path / name / "1.png")
        for number in range(25):
            (tmp_path / f"a/{number:02d}.txt").touch()
        (note,) = opened(tmp_path).notes
        assert note.startswith("25 files that are no images are left out: a/00.txt, a/01.txt, ")
        assert note.endswith("a/19.txt and 5 more")

    def test_dicom_counts_where_pydicom_is(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        image(tmp_path / "a/1.png")
        mark = bytes(128) + b"DICM"
        for name in ("b/1-1.dcm", "b/none"):
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).write_bytes(mark)
        (tmp_path / "b/DICOMDIR").write_bytes(mark)
        monkeypatch.setitem(sys.modules, "pydicom", None)
        error = refused(tmp_path)
        assert (error.kind, "petlbench[dicom]" in error.hint) == ("missing_package", True)
        monkeypatch.undo()
        pytest.importorskip("pydicom")
        dataset = opened(tmp_path)
        assert [record.image_id for record in dataset.records] == ["a/1.png", "b/1-1.dcm", "b/none"]
        assert dataset.notes == ("1 file that is no image is left out: b/DICOMDIR",)

    def test_deep_greys_stay_deep_for_what_resizes_them(self, tmp_path: Path) -> None:
        for name in ("a", "b"):
            (tmp_path / name).mkdir()
            Image.fromarray(np.array([[0, 100, 65535]], dtype=np.uint16)).save(tmp_path / name / "1.png")
        dataset = opened(tmp_path)
        record = dataset.records[0]
        assert np.asarray(dataset.open_deep(record))[0].tolist() == pytest.approx([0, 100 / 257, 255])
        assert np.asarray(dataset.open(record))[0, :, 1].tolist() == [0, 0, 255]

    def test_equal_stems_have_different_ids(self, tmp_path: Path) -> None:
        image(tmp_path / "a/1.png", 1)
        image(tmp_path / "b/1.png", 2)
        dataset = opened(tmp_path)
        assert len({record.image_id for record in dataset.records}) == 2
        assert len({dataset.content_hash(record) for record in dataset.records}) == 2

    def test_split_folders_with_other_names(self, tmp_path: Path) -> None:
        for split in ("Training", "valid", "testing"):
            for name in ("0", "10", "9"):
                image(tmp_path / split / name / "1.png")
        dataset = opened(tmp_path)
        assert dataset.classes == ("0", "9", "10")
        assert {record.split for record in dataset.records} == {"train", "val", "test"}
        assert dataset.card.split == "official"

    def test_name_is_safe_in_a_run_id(self, tmp_path: Path) -> None:
        for name in ("a", "b"):
            image(tmp_path / "my böse data!" / name / "1.png")
        assert opened(tmp_path / "my böse data!").name == "my-b-se-data"

    def test_names_in_other_scripts_and_long_ones_are_told_apart(self, tmp_path: Path) -> None:
        names = (
            "皮膚病変データセット",
            "肺の画像",
            "Ω",
            "a" * 240 + "b",
            "a" * 240 + "c",
            "my data (v2) & 50% #1",
            "12",
        )
        for folder in names:
            for name in ("良性", "悪性"):
                image(tmp_path / folder / name / "1.png")
        short = [opened(tmp_path / folder).name for folder in names]
        assert len(set(short)) == len(names)
        assert all(re.fullmatch(r"[A-Za-z0-9._-]{1,120}", name) for name in short)
        assert short[-2:] == ["my-data-v2-50-1", "12"]

    def test_a_link_to_itself_ends(self, tmp_path: Path) -> None:
        image(tmp_path / "a/1.png")
        image(tmp_path / "b/1.png")
        (tmp_path / "a/loop").symlink_to(tmp_path / "a")
        assert len(opened(tmp_path).records) == 2

    def test_links_that_lead_to_themselves_are_no_folders(self, tmp_path: Path) -> None:
        for name in ("a", "b"):
            image(tmp_path / name / "1.png")
            (tmp_path / name / "loop").symlink_to("loop")
        (tmp_path / "loop").symlink_to("loop")
        dataset = opened(tmp_path)
        assert (dataset.classes, len(dataset.records)) == (("a", "b"), 2)
        assert dataset.notes == ("3 files that are no images are left out: a/loop, b/loop, loop",)

    def test_empty_class(self, tmp_path: Path) -> None:
        image(tmp_path / "a/1.png")
        (tmp_path / "b").mkdir()
        error = refused(tmp_path)
        assert error.kind == "empty_class"
        assert "'b'" in error.message

    def test_one_class(self, tmp_path: Path) -> None:
        image(tmp_path / "a/1.png")
        assert refused(tmp_path).kind == "too_few_classes"

    def test_no_class(self, tmp_path: Path) -> None:
        image(tmp_path / "1.png")
        assert refused(tmp_path).kind == "too_few_classes"

    def test_split_folder_without_classes(self, tmp_path: Path) -> None:
        image(tmp_path / "train/1.png")
        assert "no class folders" in refused(tmp_path).message

    def test_split_folders_beside_others(self, tmp_path: Path) -> None:
        image(tmp_path / "train/a/1.png")
        image(tmp_path / "other/1.png")
        error = refused(tmp_path)
        assert error.kind == "bad_layout"
        assert "other" in error.message

    def test_two_folders_for_one_split(self, tmp_path: Path) -> None:
        image(tmp_path / "val/a/1.png")
        image(tmp_path / "valid/b/1.png")
        assert refused(tmp_path).kind == "bad_layout"

    def test_file_name_that_is_no_text(self, tmp_path: Path) -> None:
        image(tmp_path / "a/1.png")
        image(tmp_path / "b/1.png")
        try:
            Path(os.fsdecode(os.fsencode(tmp_path) + b"/b/\xff.png")).touch()
        except OSError:
            pytest.skip("the file system takes UTF-8 names only")
        assert refused(tmp_path).kind == "bad_file_name"


class TestCsv:
    def test_all_columns_with_byte_order_mark(self, tmp_path: Path) -> None:
        text = "group,image,label,split\r\np1,a.png,NV,train\r\n,./b.png,MEL,valid\r\np2,c.png,NV,test\r\n"
        dataset = opened(table(tmp_path, text, "utf-8-sig"))
        assert dataset.name == "labels"
        assert dataset.classes == ("MEL", "NV")
        assert [(r.image_id, r.label, r.group, r.split) for r in dataset.records] == [
            ("a.png", 1, "p1", "train"),
            ("b.png", 0, None, "val"),
            ("c.png", 1, "p2", "test"),
        ]
        assert (dataset.card.split, dataset.card.grouping) == ("official", "group")

    def test_columns_without_a_role_are_kept(self, tmp_path: Path) -> None:
        text = "image,age,label,site,\na.png, 40 ,x,north,?\nb.png,,y,south,?\na.png,41,x,north,?\n"
        dataset = opened(table(tmp_path, text))
        assert [r.extra for r in dataset.records] == [(("age", "40"), ("site", "north")), (("site", "south"),)]

    def test_labels_that_look_like_nothing_are_labels_once_that_is_said(self, tmp_path: Path) -> None:
        file = table(tmp_path, "image,label\na.png,NA\nb.png,None\n")
        refusal = refused(file)
        assert "the label of 1 images is 'NA'" in refusal.message
        assert "dataset.rename" in refusal.hint
        assert opened(file, {"rename": "NA=nasal"}).classes == ("None", "nasal")

    def test_other_column_names(self, tmp_path: Path) -> None:
        file = table(tmp_path, "file,grade\na.png,0\nb.png,1\n")
        settings = {"image_column": "file", "label_column": "grade"}
        assert opened(file, settings).classes == ("0", "1")

    def test_equal_rows_count_once(self, tmp_path: Path) -> None:
        dataset = opened(table(tmp_path, "image,label\na.png,x\n./a.png,x\nb.png,y\n\n"))
        assert len(dataset.records) == 2
        assert dataset.notes == ("1 rows repeat an earlier one and are left out",)

    @pytest.mark.parametrize(
        ("text", "kind", "said"),
        [
            ("image,grade\na.png,x\n", "missing_column", "no column 'label'; it has: image, grade"),
            ("image;label\na.png;x\n", "missing_column", "image;label"),
            ("", "missing_column", "no header"),
            ("image,label\n", "bad_csv", "no rows"),
            ("image,label,label\na.png,x,y\n", "bad_csv", "'label' twice"),
            ("image,label\na.png,x\nb.png,y,z\n", "bad_csv", "line 3"),
            ('image,label\n"a.png,x\n', "bad_csv", "line"),
            ("image,label\na.png,\nb.png,y\n", "empty_label", "line 2"),
            ("image,label\n,x\nb.png,y\n", "empty_image", "line 2"),
            ("image,label\na.png,x\nno.png,y\n", "missing_image", "line 3: the row names 'no.png'"),
            ("image,label\na.png,x\n.,y\n", "missing_image", "line 3"),
            ("image,label\na.png,x\na.png,y\n", "duplicate_image", "line 3"),
            ("image,label,split\na.png,x,train\n./a.png,x,test\n", "duplicate_image", "but line 2 gives it 'train'"),
            ("image,label,split\na.png,x,tain\nb.png,y,test\n", "bad_split_value", "'tain'"),
            ("image,label\na.png,x\nb.png,x\n", "too_few_classes", "1 class (x)"),
            ("image,label\n../out.png,x\nb.png,y\n", "path_outside", "leads out of"),
            ("image,label\n/etc/passwd,x\nb.png,y\n", "path_outside", "is absolute"),
            ("image,label\nC:\\a.png,x\nb.png,y\n", "path_outside", "is absolute"),
            ("image,label\n\\\\host\\a.png,x\nb.png,y\n", "path_outside", "is absolute"),
        ],
    )
    def test_bad_tables(self, tmp_path: Path, text: str, kind: str, said: str) -> None:
        image(tmp_path / "out.png")
        file = table(tmp_path / "inside", text)
        error = refused(file)
        assert error.kind == kind
        assert said in error.message
        assert str(file) in error.message

    def test_paths_with_dots_that_stay_inside(self, tmp_path: Path) -> None:
        (tmp_path / "sub").mkdir()
        dataset = opened(table(tmp_path, "image,label\nsub/../a.png,x\nb.png,y\n"))
        assert dataset.records[0].image_id == "a.png"

    def test_wrong_encoding(self, tmp_path: Path) -> None:
        error = refused(table(tmp_path, "image,label\na.png,häßlich\n", "latin-1"))
        assert "not UTF-8" in error.message


class TestNames:
    @pytest.mark.parametrize(
        "name", ["", " ", "~nosuchuser", "~nosuchuser/x", "x" * 300, "a\0b", "loop", "loop/x", "pipe"]
    )
    def test_names_of_nothing(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
        monkeypatch.chdir(tmp_path)
        (tmp_path / "loop").symlink_to("loop")
        os.mkfifo(tmp_path / "pipe")
        assert refused(name).kind == "unknown_dataset"

    def test_unknown_name(self) -> None:
        error = refused("digts")
        assert (error.kind, error.hint) == ("unknown_dataset", "did you mean digits?")

    def test_a_file_of_another_kind(self, tmp_path: Path) -> None:
        (tmp_path / "x.xlsx").touch()
        assert refused(tmp_path / "x.xlsx").kind == "unknown_dataset"

    def test_a_card_by_its_path(self, tmp_path: Path) -> None:
        text = CATALOG.find("dataset", "isic2018").file.read_text(encoding="utf-8")
        before, after = text.split("[layout]")
        folder = before.replace('kind = "official"', 'kind = "folder"') + after[after.index("[counts") :]
        (tmp_path / "mine.toml").write_text(folder, encoding="utf-8")
        error = refused(tmp_path / "mine.toml", root=tmp_path)
        assert error.kind == "data_missing"
        assert str(tmp_path / "mine") in error.message
        for name in ("NV", "MEL"):
            image(tmp_path / "mine" / name / "1.png")
        error = refused(tmp_path / "mine.toml", root=tmp_path)
        assert error.kind == "class_mismatch"
        assert "lacks the class BCC, AKIEC, BKL, DF, VASC" in error.message

    def test_a_catalogued_card_needs_its_images_to_be_opened_only(self, tmp_path: Path) -> None:
        error = refused("isic2018", root=tmp_path)
        assert error.kind == "data_missing"
        assert str(tmp_path / "isic2018") in error.message
        info = describe_dataset("isic2018", catalog=CATALOG, data_root=tmp_path, settings={})
        assert (info.images, len(info.card.classes), info.dataset) == (11_720, 7, None)

    def test_describing_counts_what_is_there(self, tmp_path: Path) -> None:
        info = describe_dataset("lesions", catalog=CATALOG, data_root=tmp_path, settings={"image_count": 70})
        assert (info.images, info.dataset is not None, info.settings["image_count"]) == (70, True, 70)

    @pytest.mark.parametrize(
        ("settings", "kind", "said", "hint"),
        [
            ({"imagecount": 60}, "unknown_setting", "'lesions' has no setting 'imagecount'", "image_count"),
            ({"image_count": 59}, "bad_setting", "image_count = 59 is refused: Input should be greater", "Number of"),
            ({"seed": "x"}, "bad_setting", "seed = 'x'", "Seed"),
            ({"lesion_min_size": 9}, "bad_setting", "'lesions': lesion_min_size 9", ""),
            ({"image_size": 128, "lesion_max_size": 40}, "bad_setting", "do not fit", ""),
        ],
    )
    def test_wrong_settings(self, settings: Mapping[str, Any], kind: str, said: str, hint: str) -> None:
        error = refused("lesions", settings)
        assert error.kind == kind
        assert said in error.message
        assert hint in error.hint

    def test_several_labels_an_image(self, tmp_path: Path) -> None:
        text = CATALOG.find("dataset", "digits").file.read_text(encoding="utf-8")
        (tmp_path / "many.toml").write_text(text.replace('"multiclass"', '"multilabel"'), encoding="utf-8")
        assert refused(tmp_path / "many.toml").kind == "unsupported_task"


class TestDigits:
    def test_counts_are_the_cards(self) -> None:
        dataset = opened("digits")
        counts = np.bincount([record.label for record in dataset.records]).tolist()
        card = dataset.card.counts.official
        assert dict(zip(dataset.classes, counts, strict=True)) == card.classes["all"]
        assert len(dataset.records) == card.images

    def test_pixels_use_the_full_range(self) -> None:
        dataset = opened("digits")
        pixels = np.asarray(dataset.open(dataset.records[0]))
        assert pixels.shape == (8, 8, 3)
        assert (pixels.min(), pixels.max()) == (0, 239)

    def test_keep_leaves_the_rest_out(self) -> None:
        dataset = opened("digits")
        smaller = dataset.keep(dataset.records[5:7])
        assert [record.image_id for record in smaller.records] == ["digits/0005", "digits/0006"]
        assert (smaller.classes, len(dataset.records)) == (dataset.classes, 1797)

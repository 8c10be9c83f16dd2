"""Notes about datasets without a card: each suspicion is named with its setting, and the setting settles it."""

from __future__ import annotations

import re
import shlex
import unicodedata
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from petlbench.core.catalog import Catalog
from petlbench.core.errors import InputError
from petlbench.data.dataset import Dataset, open_dataset
from petlbench.data.notes import group_columns, named_side, notes_on_classes, refuse_twins

CATALOG = Catalog()


def opened(path: Path, settings: Mapping[str, Any] | None = None) -> Dataset:
    return open_dataset(str(path), catalog=CATALOG, data_root=Path("none"), settings=settings or {})


def refused(path: Path, settings: Mapping[str, Any] | None = None) -> InputError:
    with pytest.raises(InputError) as caught:
        opened(path, settings)
    return caught.value


def advice(text: str) -> dict[str, str]:
    """The setting that a note or a hint names."""
    words = shlex.split(re.search(r"--set ('[^']*'|\S+)", text).group(0))[1]  # type: ignore[union-attr]
    name, _, value = words.removeprefix("dataset.").partition("=")
    return {name: value}


def picture(file: Path) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (4, 3)).save(file)
    return file


def table(folder: Path, *labels: str, header: str = "image,label") -> Path:
    """A table of as many images as there are labels."""
    rows = [header]
    for number, label in enumerate(labels):
        picture(folder / f"{number:03d}.png")
        rows.append(f"{number:03d}.png,{label}")
    file = folder / "labels.csv"
    file.write_text("\n".join(rows) + "\n", encoding="utf-8")
    return file


def folders(root: Path, *paths: str) -> Path:
    for path in paths:
        for number in range(2):
            picture(root / path / f"{number}.png")
    return root


class TestLabels:
    def test_one_number_in_two_ways_is_refused_and_renamed(self, tmp_path: Path) -> None:
        file = table(tmp_path, "0", "1", "0.0", "1.0")
        error = refused(file)
        assert (error.kind, str(file) in error.message) == ("class_twice", True)
        dataset = opened(file, advice(error.hint))
        assert dataset.classes == ("0", "1")
        assert [record.label for record in dataset.records] == [0, 1, 0, 1]
        assert dataset.notes[0] == "1 images of '0.0' are taken as '0' (dataset.rename)"

    def test_one_name_in_two_unicode_forms_is_refused(self, tmp_path: Path) -> None:
        error = refused(table(tmp_path, *(unicodedata.normalize(form, "lésion") for form in ("NFC", "NFD"))))
        assert (error.kind, "Unicode" in error.message) == ("class_twice", True)

    @pytest.mark.parametrize("missing", ["nan", "NaN", "NA", "N/A", "<NA>", "null"])
    def test_what_programs_write_into_an_empty_cell_is_refused(self, tmp_path: Path, missing: str) -> None:
        file = table(tmp_path, "0.0", "1.0", missing, "0.0")
        error = refused(file)
        assert (error.kind, f"the label of 1 images is '{missing}'" in error.message) == ("empty_label", True)
        dataset = opened(file, advice(error.hint))
        assert (dataset.classes, len(dataset.records)) == (("0.0", "1.0"), 3)
        assert dataset.notes == (f"1 images of '{missing}' are left out (dataset.leave_out)",)
        assert opened(file, {"rename": f"{missing}=absent"}).classes == ("0.0", "1.0", "absent")
        assert opened(file, {"rename": f"{missing}={missing}"}).classes[-1] in (missing, "1.0")

    def test_a_card_may_call_a_class_so(self, tmp_path: Path) -> None:
        table(tmp_path / "mine", "NA", "yes")
        card = 'title = "x"\nmodality = "x"\ntask = "binary"\nclasses = ["yes", "NA"]\nlicence = "x"\nversion = 1\n'
        card += 'split = "random"\ngrouping = "none"\n[reader]\nkind = "csv"\nfile = "labels.csv"\n'
        (tmp_path / "mine.toml").write_text(card, encoding="utf-8")
        dataset = open_dataset(str(tmp_path / "mine.toml"), catalog=CATALOG, data_root=tmp_path, settings={})
        assert [dataset.classes[record.label] for record in dataset.records] == ["NA", "yes"]

    def test_a_group_that_is_none_is_named(self, tmp_path: Path) -> None:
        rows = ["a,p", "b,nan", "a,nan", "b,p", "a,NA", "b,"]
        (note,) = opened(table(tmp_path, *rows, header="image,label,group")).notes
        assert "the group 'nan' (2 images) reads as if it were not known" in note

    def test_a_folder_of_that_name_was_made_by_a_hand(self, tmp_path: Path) -> None:
        dataset = opened(folders(tmp_path, "NA", "yes"))
        assert dataset.classes == ("NA", "yes")
        assert "the class 'NA' (2 images) reads as if these had no label" in dataset.notes[0]

    @pytest.mark.parametrize("missing", ["None", "-1.0", "unlabelled"])
    def test_what_reads_like_no_label_is_named_and_left_out(self, tmp_path: Path, missing: str) -> None:
        file = table(tmp_path, "0.0", "1.0", missing, "0.0")
        dataset = opened(file)
        assert len(dataset.classes) == 3
        assert f"the class '{missing}' (1 images)" in dataset.notes[0]
        dataset = opened(file, advice(dataset.notes[0]))
        assert (dataset.classes, len(dataset.records)) == (("0.0", "1.0"), 3)
        assert dataset.notes == (f"1 images of '{missing}' are left out (dataset.leave_out)",)

    def test_capitals_and_blanks(self, tmp_path: Path) -> None:
        file = table(tmp_path, "Benign", "benign", "malignant")
        (note,) = opened(file).notes
        assert "'Benign' and 'benign'" in note
        assert opened(file, advice(note)).classes == ("Benign", "malignant")

    def test_several_labels_in_a_cell(self, tmp_path: Path) -> None:
        file = table(tmp_path, "Alpha", "Beta", "Alpha|Beta", "Beta|Gamma")
        (note,) = opened(file).notes
        assert "'Alpha|Beta' (2 images)" in note
        assert opened(file, {"leave_out": "Alpha|Beta,Beta|Gamma"}).classes == ("Alpha", "Beta")

    def test_labels_with_a_comma_stand_in_quotes(self, tmp_path: Path) -> None:
        file = table(tmp_path, '"a, b"', "c", "d")
        assert opened(file, {"leave_out": '"a, b"'}).classes == ("c", "d")

    @pytest.mark.parametrize("settings", [{"leave_out": "x"}, {"rename": "x=a"}])
    def test_a_label_that_no_image_has(self, tmp_path: Path, settings: Mapping[str, str]) -> None:
        error = refused(table(tmp_path, "a", "b"), settings)
        assert (error.kind, "'x'" in error.message, "a, b" in error.hint) == ("unknown_label", True, True)

    def test_a_rename_of_another_form(self, tmp_path: Path) -> None:
        assert refused(table(tmp_path, "a", "b"), {"rename": "a"}).kind == "bad_setting"

    def test_as_many_classes_as_images(self, tmp_path: Path) -> None:
        assert "label_column" in opened(table(tmp_path, *(f"x{i}" for i in range(30)))).notes[-1]

    @pytest.mark.parametrize("labels", [("0.0", "1.0"), ("False", "True"), ("cat", "dog"), ("well", "ill")])
    def test_nothing_to_say(self, tmp_path: Path, labels: tuple[str, ...]) -> None:
        assert opened(table(tmp_path, *labels, *labels)).notes == ()

    def test_settings_that_decide_nothing_are_not_written_down(self, tmp_path: Path) -> None:
        file = table(tmp_path, "a", "b", "c")
        names = {"image_column": "image", "label_column": "label", "split_column": "split", "group_column": "group"}
        assert opened(file).settings == names
        assert opened(file, {"leave_out": "c"}).settings == {**names, "leave_out": "c"}
        assert opened(folders(tmp_path / "x", "a", "b")).settings == {}


class TestTables:
    @pytest.mark.parametrize(("header", "first"), [("AAA,BBB", "AAA"), ('"mass, ""left""",BBB', 'mass, "left"')])
    def test_one_column_a_class(self, tmp_path: Path, header: str, first: str) -> None:
        file = table(tmp_path, "1.0,0.0", "0.0,1.0", "1,0", header=f"image,{header}")
        error = refused(file)
        dataset = opened(file, advice(error.hint))
        assert {dataset.classes[record.label] for record in dataset.records} == {first, "BBB"}
        assert [dataset.classes[record.label] == first for record in dataset.records] == [True, False, True]
        assert dataset.records[0].extra == ()

    @pytest.mark.parametrize(("cells", "said"), [("1,1", "2 of the columns"), ("0.5,0.5", "neither 0 nor 1")])
    def test_a_row_of_no_class(self, tmp_path: Path, cells: str, said: str) -> None:
        file = table(tmp_path, "1,0", "0,1", cells, header="image,AAA,BBB")
        error = refused(file, {"label_column": "AAA,BBB"})
        assert said in error.message
        assert "line 4" in error.message

    def test_the_likely_column_is_named(self, tmp_path: Path) -> None:
        file = table(tmp_path, "0", "1", header="id_code,diagnosis")
        settings = advice(refused(file).hint)
        settings |= advice(refused(file, settings).hint)
        assert opened(file, settings).classes == ("0", "1")

    def test_ids_without_folder_and_suffix(self, tmp_path: Path) -> None:
        for name in ("1_left", "1_right"):
            picture(tmp_path / "train" / f"{name}.jpeg")
        file = tmp_path / "labels.csv"
        file.write_text("image,label\n1_left,0\n1_right,1\n")
        error = refused(file)
        assert "train/1_left.jpeg" in error.hint
        assert [record.path for record in opened(file, advice(error.hint)).records] == [
            "train/1_left.jpeg",
            "train/1_right.jpeg",
        ]

    def test_a_path_template_stays_inside(self, tmp_path: Path) -> None:
        picture(tmp_path / "a.png")
        file = table(tmp_path / "inside", "0", "1")
        assert refused(file, {"image_path": "../{image}"}).kind == "path_outside"
        assert refused(file, {"image_path": "{folder}/{image}"}).kind == "missing_column"

    @pytest.mark.parametrize(
        ("written", "there"),
        [
            ("neg\\00.png", "neg/00.png"),
            (".\\neg\\00.png", "neg/00.png"),
            (unicodedata.normalize("NFC", "lésion.png"), unicodedata.normalize("NFD", "lésion.png")),
            ("img_00.jpg", "IMG_00.JPG"),
        ],
    )
    def test_paths_that_are_written_otherwise(self, tmp_path: Path, written: str, there: str) -> None:
        picture(tmp_path / there)
        picture(tmp_path / "b.png")
        file = tmp_path / "labels.csv"
        file.write_text(f"image,label\n{written},0\nb.png,1\n", encoding="utf-8")
        dataset = opened(file)
        assert {record.image_id for record in dataset.records} == {there, "b.png"}
        (note,) = dataset.notes
        assert (note.startswith("1 images are written otherwise"), there in note) == (True, True)
        assert dataset.open(dataset.records[0]).size == (4, 3)

    def test_a_path_that_may_be_two_files_is_refused(self, tmp_path: Path) -> None:
        picture(tmp_path / "A.png")
        picture(tmp_path / "a.PNG")
        file = tmp_path / "labels.csv"
        file.write_text("image,label\na.png,0\nA.png,1\n")
        assert refused(file).kind == "missing_image"

    def test_linked_images_are_read(self, tmp_path: Path) -> None:
        picture(tmp_path / "store/1.png")
        file = table(tmp_path / "table", "0", "1")
        (file.parent / "link").symlink_to(tmp_path / "store")
        (file.parent / "000.png").unlink()
        (file.parent / "000.png").symlink_to(tmp_path / "store/1.png")
        file.write_text(file.read_text() + "link/1.png,0\n")
        dataset = opened(file)
        assert [record.path for record in dataset.records] == ["000.png", "001.png", "link/1.png"]
        assert dataset.open(dataset.records[2]).size == (4, 3)

    def test_a_column_that_may_be_the_group(self, tmp_path: Path) -> None:
        file = table(tmp_path, "0,7", "1,8", header="image,label,Patient ID")
        (note,) = opened(file).notes
        assert [record.group for record in opened(file, advice(note)).records] == ["7", "8"]
        assert group_columns(["Patient Age", "patient_sex", "site", "lesion_id"])[0].count("'lesion_id'") == 1


class TestFolders:
    def test_folders_named_like_sides(self, tmp_path: Path) -> None:
        folders(tmp_path, "train_images/a", "train_images/b", "test_images/a", "test_images/b")
        (note,) = opened(tmp_path).notes
        dataset = opened(tmp_path, advice(note))
        assert (dataset.classes, dataset.card.split) == (("a", "b"), "official")
        assert {record.split for record in dataset.records} == {"train", "test"}
        assert dataset.notes == ()

    @pytest.mark.parametrize("names", [("valid", "invalid"), ("bus", "car", "train")])
    def test_classes_named_like_sides(self, tmp_path: Path, names: tuple[str, ...]) -> None:
        dataset = opened(folders(tmp_path, *names))
        assert set(dataset.classes) == set(names)
        assert "named like sides" in dataset.notes[0]

    def test_classes_that_are_all_named_like_sides_are_asked_for(self, tmp_path: Path) -> None:
        error = refused(folders(tmp_path, "test", "valid"))
        assert (error.kind, "dataset.layout=classes" in error.hint) == ("too_few_classes", True)
        assert opened(tmp_path, {"layout": "classes"}).classes == ("test", "valid")

    def test_a_test_folder_without_labels(self, tmp_path: Path) -> None:
        error = refused(folders(tmp_path, "train/ok", "train/nok", "test"))
        assert "has no label" in error.message
        dataset = opened(tmp_path, advice(error.hint))
        assert (dataset.classes, len(dataset.records)) == (("nok", "ok"), 4)

    def test_a_table_in_the_folder_is_named(self, tmp_path: Path) -> None:
        picture(tmp_path / "images/1.png")
        (tmp_path / "labels.csv").write_text("image,label\n")
        assert str(tmp_path / "labels.csv") in refused(tmp_path).hint

    def test_thumbnails_of_network_disks_are_no_images(self, tmp_path: Path) -> None:
        folders(tmp_path, "ill", "well", "ill/@eaDir/0.png", "well/@eaDir/1.png", "@eaDir/cover.png", "#recycle")
        dataset = opened(tmp_path)
        assert (dataset.classes, len(dataset.records), dataset.notes) == (("ill", "well"), 4, ())

    def test_folders_of_what_is_no_image(self, tmp_path: Path) -> None:
        folders(tmp_path, "ill", "well", "masks")
        (note,) = opened(tmp_path).notes
        assert opened(tmp_path, advice(note)).classes == ("ill", "well")

    def test_files_that_are_passed_over(self, tmp_path: Path) -> None:
        folders(tmp_path, "ill", "well")
        picture(tmp_path / "ill/0_mask.png")
        dataset = opened(tmp_path, {"skip": "*_mask.png"})
        assert len(dataset.records) == 4
        assert dataset.notes == ("1 files or folders like '*_mask.png' are left out (dataset.skip)",)


class TestSides:
    def test_train_and_val_are_used_and_no_test_is_made(self, tmp_path: Path) -> None:
        dataset = opened(folders(tmp_path, "train/a", "train/b", "val/a", "val/b"))
        assert dataset.card.split == "official"
        assert "no test scores are reported" in dataset.notes[0]

    def test_the_same_as_a_table(self, tmp_path: Path) -> None:
        file = table(tmp_path, "a,train", "b,train", "a,val", "b,val", header="image,label,split")
        dataset = opened(file)
        assert (dataset.card.split, "no test scores" in dataset.notes[0]) == ("official", True)

    @pytest.mark.parametrize("parts", [("val", "test"), ("train",)])
    def test_parts_that_make_no_split(self, tmp_path: Path, parts: tuple[str, ...]) -> None:
        dataset = opened(folders(tmp_path, *(f"{part}/{name}" for part in parts for name in "ab")))
        assert dataset.card.split == "random"
        assert dataset.notes == (
            f"of its own split there is {' and '.join(sorted(parts))} only: all images are divided anew",
        )


def test_names_of_sides() -> None:
    names = ("train_images", "TestSet", "valid", "images-val", "trainer", "train_test", "restraint")
    assert [named_side(name) for name in names] == ["train", "test", "val", "val", None, None, None]


def test_a_card_is_never_doubted() -> None:
    assert opened(Path("digits")).notes == ()


def test_numbers_that_are_none() -> None:
    refuse_twins(["1", "10", "001.a", "1a", "inf", "nan", "1e9999"], "x")
    for twins in (("1", "01"), ("1", "1."), ("100", "1e2"), ("-0", "0")):
        with pytest.raises(InputError):
            refuse_twins(twins, "x")


def test_steering_characters_are_shown_not_sent() -> None:
    with pytest.raises(InputError) as caught:
        refuse_twins([unicodedata.normalize(form, "\x1bé") for form in ("NFC", "NFD")], "x")
    assert "\x1b" not in caught.value.message
    assert notes_on_classes({"a": 1, "b": 1}, ()) == ()

"""Official releases read by their cards: every trap of the eight, and each bad file refused with its place."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path

import openpyxl
import pydicom
import pytest

from petlbench.data.card import load_card
from petlbench.data.official.read import OfficialImages, read_official
from petlbench.data.record import SPLITS, Record, images_by_class
from petlbench.data.splits import SplitScheme, assign_splits, shared_groups
from petlbench.data.tasks.base import task_of
from tests.data.drawn_files import draw, write_csv, write_excel
from tests.data.official_files import CLASSES, DDSM_COLUMNS
from tests.data.official_releases import CATALOG, card, change, read, refused

OTHER_BREAST = "the other breast: no row of the clinical table gives it a label"


def by_file(found: OfficialImages) -> Mapping[str, Record]:
    return {record.path.rpartition("/")[2]: record for record in found.records}


def named(found: OfficialImages) -> Counter[str]:
    return Counter({reason: len(paths) for reason, paths in found.left_out.items()})


@pytest.mark.parametrize("name", CLASSES)
class TestEveryRelease:
    def test_images_are_found_and_labelled(self, name: str, made: Callable[[str], Path]) -> None:
        root, found = made(name), read(name, made(name))
        ids = [record.image_id for record in found.records]
        assert ids == sorted(set(ids))
        assert all(record.image_id == record.path and (root / record.path).is_file() for record in found.records)
        counts = images_by_class(found.records, card(name).classes, task_of(card(name), CATALOG).labels)
        assert all(counts.values())
        assert len(card(name).classes) == CLASSES[name]

    def test_every_image_file_is_accounted_for(self, name: str, made: Callable[[str], Path]) -> None:
        root, found = made(name), read(name, made(name))
        tables = {".csv", ".txt", ".xlsx"}
        files = {path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()}
        used = {record.path for record in found.records} | {path for paths in found.left_out.values() for path in paths}
        assert {Path(path).suffix for path in files - used} <= tables

    def test_the_card_can_split_it_without_leaks(self, name: str, made: Callable[[str], Path]) -> None:
        found = read(name, made(name))
        split = card(name).split
        schemes = [f"repeat:5/{part}" for part in range(5)] if split == "repeat:5/0" else [split]
        assert split in {"repeat:5/0", "official"}
        for scheme in schemes:
            strata = task_of(card(name), CATALOG).strata
            sides = assign_splits(found.records, SplitScheme.parse(scheme), 0, strata=strata)
            assert set(sides) == set(SPLITS)
            assert shared_groups(found.records, sides) == []

    def test_one_folder_more_or_less_does_not_matter(
        self, name: str, made: Callable[[str], Path], tmp_path: Path
    ) -> None:
        expected = [(record.path, record.label, record.group) for record in read(name, made(name)).records]
        if name in {"covid", "chncxr", "ddsm", "ddr", "cmmd"}:
            # The release has a folder around all images, which need not be there.
            around = {path.partition("/")[0] for path, _, _ in expected}
            for entry in [*(made(name) / around.pop()).iterdir(), *made(name).glob("*.xlsx")]:
                (tmp_path / entry.name).symlink_to(entry)
            found = [(record.path, record.label, record.group) for record in read(name, tmp_path).records]
            expected = [(path.partition("/")[2], label, group) for path, label, group in expected]
        else:
            (tmp_path / "unpacked").symlink_to(made(name))
            records = read(name, tmp_path).records
            found = [(record.path.partition("/")[2], record.label, record.group) for record in records]
        assert found == expected

    def test_an_empty_folder_says_what_must_lie_there(self, name: str, tmp_path: Path) -> None:
        error = refused(name, tmp_path)
        layout = card(name).layout
        assert layout is not None
        assert error.kind == "data_missing"
        assert str(tmp_path) in error.message
        assert layout.shape in error.hint

    def test_what_nobody_checked_is_said(self, name: str) -> None:
        found = card(name)
        assert found.unverified
        assert found.steps or all(file.url for file in found.files)


class TestMessidor2:
    def test_four_images_cannot_be_graded(self, made: Callable[[str], Path]) -> None:
        found = read("messidor2", made("messidor2"))
        assert named(found) == {"ungradable: the grade is empty": 4}
        assert len(found.records) == 20

    def test_no_row_is_as_good_as_an_empty_grade(self, copied: Callable[[str], Path]) -> None:
        root = copied("messidor2")
        table = root / "messidor_data.csv"
        rows = table.read_text(encoding="utf-8").splitlines()
        table.write_text("\n".join(row for row in rows if not row.endswith(",,0")), encoding="utf-8")
        assert named(read("messidor2", root)) == {"without a grade: the image is in no row of messidor_data.csv": 4}

    def test_endings_in_capitals_are_matched(self, made: Callable[[str], Path]) -> None:
        found = by_file(read("messidor2", made("messidor2")))
        assert {Path(name).suffix for name in found} == {".JPG", ".jpg", ".png"}
        assert "IM000000.jpg" in (made("messidor2") / "messidor_data.csv").read_text(encoding="utf-8")
        assert found["IM000000.JPG"].label == 0

    def test_the_two_eyes_are_one_group(self, made: Callable[[str], Path]) -> None:
        groups = Counter(record.group for record in read("messidor2", made("messidor2")).records)
        assert set(groups.values()) == {2}
        assert None not in groups

    def test_grades_may_be_written_as_decimal_numbers(self, copied: Callable[[str], Path]) -> None:
        root = copied("messidor2")
        change(root / "messidor_data.csv", "_43809_0100_PP.png,1,", "_43809_0100_PP.png,1.0,")
        assert by_file(read("messidor2", root))["20051020_43809_0100_PP.png"].label == 1

    def test_the_resized_copy_is_refused(self, copied: Callable[[str], Path]) -> None:
        root = copied("messidor2")
        change(root / "messidor_data.csv", "image_id,adjudicated_dr_grade", "id_code,diagnosis")
        error = refused("messidor2", root)
        assert error.kind == "refused_copy"
        assert "512" in error.message
        assert str(root / "messidor_data.csv") in error.message

    def test_one_name_in_two_spellings(self, copied: Callable[[str], Path]) -> None:
        root = copied("messidor2")
        draw(root / "IMAGES" / "IM000000.jpg", 0, 1)
        error = refused("messidor2", root)
        assert error.kind == "duplicate_image"
        assert "IM000000.JPG" in error.message

    def test_missing_pairs_are_an_error(self, copied: Callable[[str], Path]) -> None:
        root = copied("messidor2")
        (root / "messidor-2.csv").unlink()
        error = refused("messidor2", root)
        assert error.kind == "missing_file"
        assert "messidor-2.csv" in error.message


class TestIsic2018:
    def test_lesions_group_the_training_part_only(self, made: Callable[[str], Path]) -> None:
        records = read("isic2018", made("isic2018")).records
        groups = Counter(record.group for record in records if record.split == "train")
        assert set(groups.values()) == {2}
        assert {record.group for record in records if record.split != "train"} == {None}

    def test_the_hot_column_is_the_class(self, made: Callable[[str], Path]) -> None:
        labels = {name: record.label for name, record in by_file(read("isic2018", made("isic2018"))).items()}
        assert [labels[f"ISIC_{24306 + index:07d}.jpg"] for index in range(7)] == list(range(7))

    @pytest.mark.parametrize(
        ("row", "said"),
        [
            ("1.0,1.0,0.0,0.0,0.0,0.0,0.0", "2 of the columns MEL, NV"),
            ("0.0,0.0,0.0,0.0,0.0,0.0,0.0", "0 of the columns MEL, NV"),
            ("0.7,0.3,0.0,0.0,0.0,0.0,0.0", "'0.7'"),
            ("yes,no,no,no,no,no,no", "'yes'"),
        ],
    )
    def test_a_row_without_one_class(self, copied: Callable[[str], Path], row: str, said: str) -> None:
        root = copied("isic2018")
        table = root / "ISIC2018_Task3_Training_GroundTruth" / "ISIC2018_Task3_Training_GroundTruth.csv"
        change(table, "1.0,0.0,0.0,0.0,0.0,0.0,0.0", row)
        error = refused("isic2018", root)
        assert f"{table}, line 2" in error.message
        assert said in error.message

    def test_zips_unpacked_each_into_its_own_folder(self, copied: Callable[[str], Path]) -> None:
        root = copied("isic2018")
        for folder in [path for path in root.iterdir() if path.is_dir()]:
            moved = folder.rename(root / "moved")
            folder.mkdir()
            moved.rename(folder / folder.name)
        assert len(read("isic2018", root).records) == 28 + 14 + 28

    def test_one_image_at_two_places(self, copied: Callable[[str], Path]) -> None:
        folder = copied("isic2018") / "ISIC2018_Task3_Test_Input"
        shutil.copytree(folder, folder / folder.name)
        error = refused("isic2018", folder.parent)
        assert error.kind == "duplicate_image"
        inner = f"{folder.name}/{folder.name}/ISIC_0024348.jpg"
        assert f"{inner} and {folder.name}/ISIC_0024348.jpg" in error.message

    def test_a_missing_part_is_not_passed_over(self, copied: Callable[[str], Path]) -> None:
        root = copied("isic2018")
        shutil.rmtree(root / "ISIC2018_Task3_Validation_Input")
        error = refused("isic2018", root)
        assert error.kind == "missing_image"
        assert "the val part" in error.message


class TestDdsm:
    def test_masks_are_left_out(self, made: Callable[[str], Path]) -> None:
        found = read("ddsm", made("ddsm"))
        assert named(found) == {"mask of a tumour, no mammogram": 24}
        assert not any("_Mask" in record.path for record in found.records)

    def test_paths_with_backslashes_are_matched(self, made: Callable[[str], Path]) -> None:
        book = openpyxl.load_workbook(made("ddsm") / "MINI-DDSM-Complete-JPEG-8" / "DataWMask.xlsx")
        assert "\\" in str(book["Data"]["A2"].value)
        assert len(read("ddsm", made("ddsm")).records) == 3 * 6 * 4

    def test_one_case_number_in_two_folders_is_two_groups(self, made: Callable[[str], Path]) -> None:
        groups = Counter(record.group for record in read("ddsm", made("ddsm")).records)
        assert {"Normal/0001", "Benign/0001", "Cancer/0001"} <= set(groups)
        assert set(groups.values()) == {4}

    def test_extra_columns_are_kept(self, made: Callable[[str], Path]) -> None:
        record = by_file(read("ddsm", made("ddsm")))["A_0001_1.LEFT_CC.jpg"]
        assert record.extra == (("view", "CC"), ("side", "LEFT"), ("age", "43"), ("density", "2"))

    def test_folder_and_table_must_agree(self, copied: Callable[[str], Path]) -> None:
        root = copied("ddsm")
        table = root / "MINI-DDSM-Complete-JPEG-8" / "DataWMask.xlsx"
        book = openpyxl.load_workbook(table)
        book["Data"]["E2"] = "Cancer"
        book.save(table)
        error = refused("ddsm", root)
        assert error.kind == "unknown_label"
        assert f"{table}, line 2: the label 'Normal/Cancer'" in error.message

    def test_a_missing_sheet_and_a_missing_column(self, copied: Callable[[str], Path]) -> None:
        root = copied("ddsm")
        table = root / "MINI-DDSM-Complete-JPEG-8" / "DataWMask.xlsx"
        write_excel(table, "Sheet1", [DDSM_COLUMNS])
        assert "no sheet 'Data'; it has: Sheet1" in refused("ddsm", root).message
        write_excel(table, "Data", [DDSM_COLUMNS[1:]])
        error = refused("ddsm", root)
        assert error.kind == "missing_column"
        assert "'fullPath'" in error.message
        assert "fileName" in error.message


class TestCovid:
    def test_jfif_is_read_like_any_other(self, made: Callable[[str], Path]) -> None:
        endings = Counter(Path(record.path).suffix for record in read("covid", made("covid")).records)
        assert endings == {".png": 3, ".jfif": 3, ".jpg": 3, ".jpeg": 3}

    def test_nothing_tells_patients_apart(self, made: Callable[[str], Path]) -> None:
        assert {record.group for record in read("covid", made("covid")).records} == {None}
        assert card("covid").grouping == "unavailable"

    def test_what_is_no_image_is_named(self, copied: Callable[[str], Path]) -> None:
        root = copied("covid")
        (root / "COVID_IEEE" / "virus" / "Thumbs.db").write_bytes(b"none")
        draw(root / "COVID_IEEE" / "other" / "x.png", 0, 1)
        assert read("covid", root).left_out == {
            "the file is no image": ("COVID_IEEE/virus/Thumbs.db",),
            "the file is not where the card says that images lie": ("COVID_IEEE/other/x.png",),
        }

    def test_the_release_twice(self, made: Callable[[str], Path], tmp_path: Path) -> None:
        for name in ("first", "second"):
            (tmp_path / name).symlink_to(made("covid") / "COVID_IEEE")
        error = refused("covid", tmp_path)
        assert error.kind == "duplicate_image"
        assert "first, second" in error.message

    def test_the_folder_with_the_most_images_counts(self, copied: Callable[[str], Path]) -> None:
        files = copied("covid")
        root = files.rename(files.with_name("covid"))  # as the folder below the data root is called
        draw(root / "preview.jpg", 0, 1)
        shutil.copytree(root / "COVID_IEEE" / "virus", root / "virus")
        found = read("covid", root)
        assert Counter(record.label for record in found.records) == {0: 4, 1: 4, 2: 4}
        assert named(found) == {"the file is not where the card says that images lie": 5}


class TestDdr:
    def test_label_5_is_no_grade(self, made: Callable[[str], Path]) -> None:
        found = read("ddr", made("ddr"))
        assert named(found) == {"ungradable: the label is 5": 6, "part of another task of DDR": 1}
        assert Counter(record.split for record in found.records) == {"train": 20, "val": 10, "test": 20}

    def test_a_list_is_about_its_own_folder(self, copied: Callable[[str], Path]) -> None:
        top = copied("ddr") / "DDR-dataset" / "DR_grading"
        file = next((top / "test").iterdir())
        file.rename(top / "train" / file.name)
        error = refused("ddr", top)
        assert error.kind == "image_without_row"
        assert file.name in error.message
        assert str(top / "train.txt") in error.message

    def test_an_unknown_grade_is_named_with_its_line(self, copied: Callable[[str], Path]) -> None:
        root = copied("ddr")
        table = change(root / "DDR-dataset/DR_grading/train.txt", "007-0001-101.jpg 1", "007-0001-101.jpg 6")
        error = refused("ddr", root)
        assert error.kind == "unknown_label"
        assert f"{table}, line 2: the label '6'" in error.message
        assert "no DR, mild, moderate, severe, proliferative" in error.message

    def test_an_image_named_and_absent(self, copied: Callable[[str], Path]) -> None:
        root = copied("ddr")
        (root / "DDR-dataset/DR_grading/valid/007-0025-103.jpg").unlink()
        error = refused("ddr", root)
        assert error.kind == "missing_image"
        assert f"{root / 'DDR-dataset/DR_grading/valid.txt'}, line 4: " in error.message
        assert "007-0025-103.jpg" in error.message


class TestIsic2016:
    def test_both_codes_mean_the_same(self, made: Callable[[str], Path]) -> None:
        root = made("isic2016")
        assert (root / "ISBI2016_ISIC_Part3_Training_GroundTruth.csv").read_text(encoding="utf-8").startswith("ISIC_")
        labels = Counter((record.split, record.label) for record in read("isic2016", root).records)
        assert labels == {("train", 0): 4, ("train", 1): 4, ("test", 0): 6, ("test", 1): 6}

    def test_validation_is_cut_from_training(self, made: Callable[[str], Path]) -> None:
        records = read("isic2016", made("isic2016")).records
        sides = assign_splits(records, SplitScheme.parse("official"), 0)
        came_from = {record.split for record, side in zip(records, sides, strict=True) if side == "val"}
        assert came_from == {"train"}

    def test_rows_that_disagree(self, copied: Callable[[str], Path]) -> None:
        root = copied("isic2016")
        table = root / "ISBI2016_ISIC_Part3_Training_GroundTruth.csv"
        with table.open("a", encoding="utf-8") as stream:
            stream.write("ISIC_0000001,malignant\nISIC_0000002,malignant\n")
        error = refused("isic2016", root)
        assert error.kind == "duplicate_image"
        assert f"{table}, line 10: 'ISIC_0000002' has the diagnosis 'malignant'" in error.message
        assert f"{table}, line 3 says 'benign'" in error.message

    def test_a_table_twice(self, copied: Callable[[str], Path]) -> None:
        root = copied("isic2016")
        table = root / "ISBI2016_ISIC_Part3_Test_GroundTruth.csv"
        (root / "again").mkdir()
        shutil.copy(table, root / "again")
        assert len(read("isic2016", root).records) == 20
        change(root / "again" / table.name, "0.0", "1.0")
        assert "is there twice" in refused("isic2016", root).message


class TestCmmd:
    def test_the_other_breast_is_left_out(self, made: Callable[[str], Path]) -> None:
        root, found = made("cmmd"), read("cmmd", made("cmmd"))
        assert list(found.left_out) == [OTHER_BREAST]
        for record in found.records:
            header = pydicom.dcmread(root / record.path, stop_before_pixels=True)
            assert dict(record.extra)["side"] == header.ImageLaterality
        both = {path.split("/")[2] for path in found.left_out[OTHER_BREAST]} & {r.group for r in found.records}
        assert both, "some patients have a labelled and an unlabelled breast"

    def test_stems_repeat_and_ids_do_not(self, made: Callable[[str], Path]) -> None:
        records = read("cmmd", made("cmmd")).records
        assert len({Path(record.path).stem for record in records}) < len(records)
        assert len({record.image_id for record in records}) == len(records)

    def test_patients_are_groups(self, made: Callable[[str], Path]) -> None:
        records = read("cmmd", made("cmmd")).records
        assert {record.group for record in records} == {record.path.split("/")[2] for record in records}

    def test_a_missing_side_is_no_other_breast(self, copied: Callable[[str], Path]) -> None:
        root = copied("cmmd")
        file = next(root.rglob("1-1.dcm"))
        header = pydicom.dcmread(file)
        del header.ImageLaterality
        header.save_as(file)
        error = refused("cmmd", root)
        assert error.kind == "missing_tag"
        assert str(file) in error.message
        assert "ImageLaterality" in error.message

    def test_a_broken_header(self, copied: Callable[[str], Path]) -> None:
        root = copied("cmmd")
        file = next(root.rglob("1-1.dcm"))
        file.write_bytes(b"no DICOM")
        error = refused("cmmd", root)
        assert error.kind == "corrupt_image"
        assert str(file) in error.message


class TestChncxr:
    def test_the_last_digit_is_the_label(self, made: Callable[[str], Path]) -> None:
        records = read("chncxr", made("chncxr")).records
        assert all(record.label == int(Path(record.path).stem[-1]) for record in records)

    def test_readings_give_sex_and_age(self, made: Callable[[str], Path]) -> None:
        found = by_file(read("chncxr", made("chncxr")))
        assert found["CHNCXR_0002_0.png"].extra == (("sex", "female"), ("age", "21"))

    def test_readings_may_say_nothing_or_lack(self, copied: Callable[[str], Path]) -> None:
        root = copied("chncxr")
        readings = root / "ChinaSet_AllFiles" / "ClinicalReadings"
        (readings / "CHNCXR_0002_0.txt").write_text("no reading", encoding="utf-8")
        assert by_file(read("chncxr", root))["CHNCXR_0002_0.png"].extra == (("sex", ""), ("age", ""))
        shutil.rmtree(readings)
        assert read("chncxr", root).notes == ("there is no ClinicalReadings/*.txt: age, sex are unknown",)


def test_a_card_alone_describes_another_release(tmp_path: Path) -> None:
    """Nothing but a card is needed for the official files of one's own."""
    (tmp_path / "card.toml").write_text(
        """
        title = "Mine"
        modality = "X-ray"
        task = "binary"
        classes = ["ill", "well"]
        licence = "CC0"
        version = 1
        split = "random"
        grouping = "patient"
        reader = { kind = "official" }
        [layout]
        shape = "the folder scans, and who.csv"
        label = "{finding}"
        group = "{person}"
        extra = ["device"]
        labels = { "+" = "ill", "-" = "well" }
        left_out = { "?" = "not read" }
        [[layout.images]]
        pattern = 'scans/(?P<device>[^/]+)/(?P<number>\\d+)\\.png'
        [[layout.tables]]
        file = "who.csv"
        fields = { person = "Person", finding = "Finding" }
        key = ["{Device}-{Number}"]
        image_key = "{device}-{number}"
        """,
        encoding="utf-8",
    )
    rows = [("a", 1, "p", "+"), ("a", 2, "q", "-"), ("b", 1, "p", "-"), ("b", 2, "r", "?")]
    for device, number, *_ in rows:
        draw(tmp_path / "files" / "scans" / device / f"{number}.png", 0, number)
    write_csv(tmp_path / "files" / "who.csv", [("Device", "Number", "Person", "Finding"), *rows])
    found = read_official(load_card(tmp_path / "card.toml"), tmp_path / "files", "mine")
    assert found.records == (
        Record("scans/a/1.png", "scans/a/1.png", 0, "p", None, (("device", "a"),)),
        Record("scans/a/2.png", "scans/a/2.png", 1, "q", None, (("device", "a"),)),
        Record("scans/b/1.png", "scans/b/1.png", 1, "p", None, (("device", "b"),)),
    )
    assert found.left_out == {"not read": ("scans/b/2.png",)}


def test_an_absent_folder(tmp_path: Path) -> None:
    assert refused("covid", tmp_path / "none").kind == "data_missing"


def test_a_file_name_that_is_no_text(copied: Callable[[str], Path]) -> None:
    root = copied("covid")
    (root / os.fsdecode(b"COVID_IEEE/virus/\xff.png")).touch()
    error = refused("covid", root)
    assert error.kind == "bad_file_name"
    assert "udcff" in error.message


def test_a_link_to_a_folder_above_ends(copied: Callable[[str], Path]) -> None:
    root = copied("covid")
    (root / "COVID_IEEE" / "virus" / "up").symlink_to(root)
    assert len(read("covid", root).records) == 12

"""Traps of the releases beside the papers' eight: lists that give sides, patients in names, tables that vary."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from petlbench.data.images.files import ImageFacts
from petlbench.data.official.read import OfficialImages
from petlbench.data.readers.prepared import read_table, table_bytes
from petlbench.data.tasks.base import Labels
from tests.data.drawn_files import draw
from tests.data.official_releases import card, change, read, refused


def sides(found: OfficialImages) -> Counter[str | None]:
    return Counter(record.split for record in found.records)


class TestMedFmcColon:
    def test_lists_give_sides_and_labels_to_names_with_blanks(self, made: Callable[[str], Path]) -> None:
        found = read("medfmc_colon", made("medfmc_colon"))
        assert sides(found) == {"train": 8, "val": 8, "test": 8}
        assert all(" 17_55_39-lv1-" in record.path for record in found.records)
        assert {record.label for record in found.records if record.split == "val"} == {0, 1}
        assert {reason: len(paths) for reason, paths in found.left_out.items()} == {
            "no list gives it a label: its label was not published": 1
        }

    def test_patches_of_a_slide_are_one_group(self, made: Callable[[str], Path]) -> None:
        groups = Counter(record.group for record in read("medfmc_colon", made("medfmc_colon")).records)
        assert set(groups.values()) == {2}
        assert not any((group or "").endswith(".png") for group in groups)

    def test_an_image_on_two_sides_is_refused(self, copied: Callable[[str], Path]) -> None:
        top = copied("medfmc_colon") / "colon"
        line = (top / "train_20.txt").read_text(encoding="utf-8").splitlines()[0]
        with (top / "val_20.txt").open("a", encoding="utf-8") as stream:
            stream.write(f"{line}\n")
        error = refused("medfmc_colon", top.parent)
        assert error.kind == "duplicate_image"
        assert "val_20.txt, line 9" in error.message
        assert "is on the side val, but was on the side train before" in error.message

    def test_a_list_that_names_an_absent_image_is_refused(self, copied: Callable[[str], Path]) -> None:
        root = copied("medfmc_colon")
        change(root / "colon" / "val_20.txt", "p0003.png", "p9999.png")
        assert refused("medfmc_colon", root).kind == "missing_image"


class TestEyePacs:
    def test_both_eyes_of_a_patient_are_one_group(self, made: Callable[[str], Path]) -> None:
        found = read("eyepacs", made("eyepacs"))
        assert set(Counter(record.group for record in found.records).values()) == {2}
        assert {dict(record.extra)["side"] for record in found.records} == {"left", "right"}

    def test_which_test_images_were_public_is_kept(self, made: Callable[[str], Path]) -> None:
        usage = Counter(
            (record.split, dict(record.extra)["usage"]) for record in read("eyepacs", made("eyepacs")).records
        )
        assert set(usage) == {("train", ""), ("test", "Public"), ("test", "Private")}


class TestHam10000:
    def test_images_of_a_lesion_are_one_group(self, made: Callable[[str], Path]) -> None:
        found = read("ham10000", made("ham10000"))
        assert set(Counter(record.group for record in found.records).values()) == {2}

    def test_sex_age_and_place_are_kept_and_how_it_was_confirmed_is_not(self, made: Callable[[str], Path]) -> None:
        extra = [dict(record.extra) for record in read("ham10000", made("ham10000")).records]
        assert {frozenset(each) for each in extra} == {frozenset(("sex", "age", "localization"))}
        assert Counter(each["sex"] for each in extra)["unknown"] == 1

    def test_the_table_may_have_no_suffix(self, copied: Callable[[str], Path]) -> None:
        root = copied("ham10000")
        expected = read("ham10000", root).records
        (root / "HAM10000_metadata.csv").rename(root / "HAM10000_metadata")
        assert read("ham10000", root).records == expected

    def test_what_lies_beside_it_is_no_image_of_it(self, copied: Callable[[str], Path]) -> None:
        root = copied("ham10000")
        draw(root / "ISIC2018_Task3_Test_Images" / "ISIC_0034524.jpg", 0, 9_001)
        draw(root / "HAM10000_segmentations_lesion_tschandl" / "ISIC_0024306_segmentation.png", 0, 9_002)
        assert set(read("ham10000", root).left_out) == {"a test image of ISIC 2018", "mask, no image"}


class TestIdrid:
    def test_a_name_may_be_one_image_of_each_part(self, made: Callable[[str], Path]) -> None:
        found = read("idrid", made("idrid"))
        assert sides(found) == {"train": 20, "test": 20}
        names = Counter(record.path.rpartition("/")[2] for record in found.records)
        assert set(names.values()) == {2}

    def test_other_tasks_of_the_release_are_left_out(self, copied: Callable[[str], Path]) -> None:
        root = copied("idrid")
        draw(root / "A. Segmentation" / "1. Original Images" / "a. Training Set" / "IDRiD_01.jpg", 0, 9_003)
        assert set(read("idrid", root).left_out) == {"part of another task of IDRiD"}


class TestAptos2019:
    def test_test_images_have_no_grade(self, made: Callable[[str], Path]) -> None:
        found = read("aptos2019", made("aptos2019"))
        assert sides(found) == {None: 20}
        assert set(found.left_out) == {"a test image, whose grade was not published"}


def having(found: OfficialImages, name: str, label: str, value: int | None = 1) -> set[str]:
    """Return the names of the images whose label has that value."""
    position = card(name).classes.index(label)
    return {record.path.rpartition("/")[2] for record in found.records if record.label[position] == value}


class TestChestXray14:
    def test_labels_stand_in_one_cell_and_no_finding_is_none(self, made: Callable[[str], Path]) -> None:
        root = made("chestxray14")
        rows = [line.split(",") for line in (root / "Data_Entry_2017_v2020.csv").read_text("utf-8").splitlines()[1:]]
        found = read("chestxray14", root)
        for written, label in (("Pleural_Thickening", "pleural thickening"), ("Mass", "mass")):
            assert having(found, "chestxray14", label) == {row[0] for row in rows if written in row[1].split("|")}
        without = {record.path.rpartition("/")[2] for record in found.records if not any(record.label)}
        assert without == {row[0] for row in rows if row[1] == "No Finding"} != set()

    def test_lists_give_sides_and_patients_groups(self, made: Callable[[str], Path]) -> None:
        found = read("chestxray14", made("chestxray14"))
        assert sides(found) == {"train": 56, "test": 42}
        assert set(Counter(record.group for record in found.records).values()) == {2}
        assert dict(found.records[0].extra) == {"sex": "F", "age": "31", "view": "PA", "follow_up": "0"}

    def test_an_older_table_with_another_name_of_a_column(self, copied: Callable[[str], Path]) -> None:
        root = copied("chestxray14")
        expected = read("chestxray14", root).records
        table = change(root / "Data_Entry_2017_v2020.csv", "Patient Gender", "Patient Sex")
        table.rename(root / "Data_Entry_2017.csv")
        assert read("chestxray14", root).records == expected

    def test_an_image_in_no_list_is_refused(self, copied: Callable[[str], Path]) -> None:
        root = copied("chestxray14")
        change(root / "test_list.txt", "00000029_000.png\n", "")
        error = refused("chestxray14", root)
        assert error.kind == "image_without_row"
        assert "none of the lists train_val_list.txt, test_list.txt" in error.message

    def test_a_label_that_the_card_does_not_know_is_refused(self, copied: Callable[[str], Path]) -> None:
        root = copied("chestxray14")
        change(root / "Data_Entry_2017_v2020.csv", "Cardiomegaly", "Cardiomegalia")
        error = refused("chestxray14", root)
        assert error.kind == "unknown_label"
        assert "Data_Entry_2017_v2020.csv, line 3" in error.message


class TestCheXpert:
    def test_minus_one_is_uncertain_and_nothing_is_absent(self, made: Callable[[str], Path]) -> None:
        root, found = made("chexpert"), read("chexpert", made("chexpert"))
        lines = (root / "CheXpert-v1.0-small" / "train.csv").read_text("utf-8").splitlines()
        column = lines[0].split(",").index("Edema")
        values = {line.split(",")[0]: line.split(",")[column] for line in lines[1:]}
        position = card("chexpert").classes.index("edema")
        own = {record.path: record.label[position] for record in found.records if record.split == "train"}
        meaning = {"1.0": 1, "0.0": 0, "": 0, "-1.0": None}
        assert own == {path: meaning[value] for path, value in values.items()}
        assert set(values.values()) == set(meaning)

    def test_patients_come_from_paths_and_valid_is_tested_on(self, made: Callable[[str], Path]) -> None:
        found = read("chexpert", made("chexpert"))
        assert sides(found) == {"train": 56, "test": 42}
        assert all(f"/{record.group}/" in record.path for record in found.records)
        assert not any(None in record.label for record in found.records if record.split == "test")

    def test_the_full_version_is_read_too(self, copied: Callable[[str], Path]) -> None:
        root = copied("chexpert")
        expected = [record.label for record in read("chexpert", root).records]
        (root / "CheXpert-v1.0-small").rename(root / "CheXpert-v1.0")
        for table in (root / "CheXpert-v1.0").glob("*.csv"):
            table.write_text(table.read_text("utf-8").replace("CheXpert-v1.0-small/", "CheXpert-v1.0/"), "utf-8")
        assert [record.label for record in read("chexpert", root).records] == expected

    def test_another_number_is_refused_with_its_place(self, copied: Callable[[str], Path]) -> None:
        root = copied("chexpert")
        change(root / "CheXpert-v1.0-small" / "valid.csv", ",1.0,", ",2.0,")
        error = refused("chexpert", root)
        assert "valid.csv, line 2" in error.message
        assert "holds '2.0'" in error.message


class TestMedFmcChestAndEndo:
    @pytest.mark.parametrize(("name", "separator"), [("medfmc_chest", ","), ("medfmc_endo", " ")])
    def test_labels_stand_behind_the_name(self, name: str, separator: str, made: Callable[[str], Path]) -> None:
        top, found = made(name) / name.removeprefix("medfmc_"), read(name, made(name))
        lines = (top / "test_WithLabel.txt").read_text("utf-8").splitlines()
        expected = {line.split(" ")[0]: tuple(map(int, line.partition(" ")[2].split(separator))) for line in lines}
        own = {record.path.rpartition("/")[2]: record.label for record in found.records if record.split == "test"}
        assert own == expected
        assert [len(paths) for paths in found.left_out.values()] == [1]

    def test_validation_of_endoscopy_is_cut_by_examination(self, made: Callable[[str], Path]) -> None:
        found = read("medfmc_endo", made("medfmc_endo"))
        assert set(sides(found)) == {"train", "test"}
        assert Counter(record.group for record in found.records).most_common(1)[0][1] == 4


class TestRfmid:
    def test_a_column_for_each_label_and_names_that_repeat(self, made: Callable[[str], Path]) -> None:
        found = read("rfmid", made("rfmid"))
        assert sides(found) == {"train": 180, "val": 90, "test": 90}
        assert Counter(record.path.rpartition("/")[2] for record in found.records)["1.png"] == 3
        table = made("rfmid") / "A. RFMiD_All_Classes_Dataset" / "2. Groundtruths" / "c. RFMiD_Testing_Labels.csv"
        header, *rows = (line.split(",") for line in table.read_text("utf-8").splitlines())
        listed = {f"{row[0]}.png" for row in rows if row[header.index("MCA")] == "1"}
        tested = OfficialImages(tuple(record for record in found.records if record.split == "test"))
        assert having(tested, "rfmid", "MCA") == listed != set()


class TestOdir:
    def test_both_eyes_have_the_labels_of_the_patient(self, made: Callable[[str], Path]) -> None:
        found = read("odir", made("odir"))
        assert sides(found) == {"train": 64, "val": 32, "test": 48}
        eyes: dict[str | None, set[object]] = {}
        for record in found.records:
            eyes.setdefault(record.group, set()).add(record.label)
            assert record.path.rpartition("/")[2].startswith(f"{record.group}_{dict(record.extra)['side']}")
        assert all(len(labels) == 1 for labels in eyes.values())
        assert len(eyes) == len(found.records) / 2


class TestOfficialDraws:
    def test_every_image_knows_the_draws_that_have_it(self, made: Callable[[str], Path]) -> None:
        root = made("medfmc_colon")
        found = {record.path.rpartition("/")[2]: record for record in read("medfmc_colon", root).records}
        for side, shots, number in (("train", 1, 0), ("train", 5, 1), ("val", 10, 4)):
            file = root / "colon" / f"colon_{shots}-shot_{side}_exp{number + 1}.txt"
            listed = {line.rpartition(" ")[0] for line in file.read_text(encoding="utf-8").splitlines()}
            having = {name for name, record in found.items() if (side, shots, number) in record.draws}
            assert having == listed
            assert not any(found[name].split == "test" for name in listed)

    def test_an_image_on_both_sides_of_a_draw_is_trained_on_only(self, copied: Callable[[str], Path]) -> None:
        root = copied("medfmc_colon")
        line = (root / "colon" / "colon_1-shot_train_exp1.txt").read_text(encoding="utf-8").splitlines()[0]
        with (root / "colon" / "colon_1-shot_val_exp1.txt").open("a", encoding="utf-8") as stream:
            stream.write(f"{line}\n")
        found = read("medfmc_colon", root)
        own = next(record.draws for record in found.records if record.path.endswith(line.rpartition(" ")[0]))
        assert ("train", 1, 0) in own
        assert ("val", 1, 0) not in own
        assert found.notes == (
            "the release's own draws validate 1 times on an image that they train on: it is trained on only",
        )

    def test_all_lists_or_none(self, copied: Callable[[str], Path]) -> None:
        root = copied("medfmc_colon")
        lists = sorted((root / "colon").glob("colon_*.txt"))
        lists[0].unlink()
        error = refused("medfmc_colon", root)
        assert error.kind == "missing_file"
        assert lists[0].name in error.message
        for file in lists[1:]:
            file.unlink()
        found = read("medfmc_colon", root)
        assert not any(record.draws for record in found.records)
        assert "own draws are not known" in found.notes[0]

    def test_a_list_that_names_an_absent_image_is_refused(self, copied: Callable[[str], Path]) -> None:
        root = copied("medfmc_colon")
        change(root / "colon" / "colon_5-shot_val_exp3.txt", "p0000.png", "p9999.png")
        error = refused("medfmc_colon", root)
        assert error.kind == "missing_image"
        assert "colon_5-shot_val_exp3.txt, line 1" in error.message

    def test_they_come_through_a_prepared_table(self, made: Callable[[str], Path]) -> None:
        records = read("medfmc_colon", made("medfmc_colon")).records
        facts = {record.image_id: ImageFacts("0" * 64, 1, 32, 32, "PNG") for record in records}
        classes = card("medfmc_colon").classes
        table = table_bytes(records, facts, classes, Labels())
        assert tuple(record for record, _ in read_table(table, classes.index)) == records

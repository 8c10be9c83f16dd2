"""Traps of the releases beside the papers' eight: lists that give sides, patients in names, tables that vary."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from petlbench.core.catalog import Catalog
from petlbench.core.errors import InputError
from petlbench.data.card import DatasetCard, load_card
from petlbench.data.images.files import ImageFacts
from petlbench.data.official.read import OfficialImages, read_official
from petlbench.data.readers.prepared import read_table, table_bytes
from petlbench.data.tasks.base import Labels
from tests.data.drawn_files import draw
from tests.data.official_files import make


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Give the made-up files of a release: made once, to be read only."""
    top = tmp_path_factory.mktemp("official")
    return lambda name: top / name if (top / name).is_dir() else make(name, top / name, images_per_class=4)


@pytest.fixture
def copied(made: Callable[[str], Path], tmp_path: Path) -> Callable[[str], Path]:
    """Give a copy of the made-up files that may be changed."""
    return lambda name: Path(shutil.copytree(made(name), tmp_path / "files"))


def card(name: str) -> DatasetCard:
    return load_card(Catalog().find("dataset", name).file)


def read(name: str, root: Path) -> OfficialImages:
    return read_official(card(name), root, name)


def refused(name: str, root: Path) -> InputError:
    with pytest.raises(InputError) as caught:
        read(name, root)
    return caught.value


def change(file: Path, old: str, new: str) -> Path:
    text = file.read_text(encoding="utf-8")
    assert old in text
    file.write_text(text.replace(old, new, 1), encoding="utf-8")
    return file


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
        assert [record for record, _ in read_table(table, classes, Labels())] == sorted(records, key=lambda each: each.image_id)

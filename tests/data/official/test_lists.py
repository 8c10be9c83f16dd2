"""VTAB-1k, FGVC and few-shot sets, read from made-up copies in the layouts that circulate, with their traps."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

import petlbench as pb
from petlbench.core.errors import InputError
from petlbench.core.progress import Progress
from petlbench.data.card import load_card
from petlbench.data.dataset import Dataset, open_dataset
from petlbench.data.draws import Draw
from petlbench.data.official.lists import release_folder
from petlbench.data.official.prepare import PrepareOptions, prepare_dataset
from petlbench.data.official.read import read_official
from tests.data.list_files import FIRST_ID, ID_STEP, NAMES, draw_nothing, make
from tests.data.official_releases import CATALOG, card, change, read, refused

VTAB = {
    "cifar": (100, 10_000),
    "caltech101": (102, 6_084),
    "dtd": (47, 1_880),
    "oxford_flowers102": (102, 6_149),
    "oxford_iiit_pet": (37, 3_669),
    "svhn": (10, 26_032),
    "sun397": (397, 21_750),
    "patch_camelyon": (2, 32_768),
    "eurosat": (10, 5_400),
    "resisc45": (45, 6_300),
    "diabetic_retinopathy": (5, 42_670),
    "clevr_count": (8, 15_000),
    "clevr_dist": (6, 15_000),
    "dmlab": (6, 22_735),
    "kitti": (4, 711),
    "dsprites_loc": (16, 73_728),
    "dsprites_ori": (16, 73_728),
    "smallnorb_azi": (18, 12_150),
    "smallnorb_ele": (9, 12_150),
}
"""Classes and test images of VTAB-1k's tasks, in the order of its tables."""
FGVC = {
    "cub": (200, 5_394, 600, 5_794),
    "nabirds": (555, 21_536, 2_393, 24_633),
    "flowers": (102, 1_020, 1_020, 6_149),
    "dogs": (120, 10_800, 1_200, 8_580),
    "cars": (196, 7_329, 815, 8_041),
}
"""Classes and images of the parts."""
FEW_SHOT = {"aircraft": 100, "food101": 101, "flowers": 102, "pets": 37, "cars": 196}
ALIASES = {
    "vtab1k/cifar": {"cifar", "cifar100", "cifar_100"},
    "vtab1k/oxford_flowers102": {"oxford_flowers102", "flowers102"},
    "vtab1k/oxford_iiit_pet": {"oxford_iiit_pet", "oxford_pet", "pets"},
    "vtab1k/svhn": {"svhn", "svhn_cropped"},
    "fgvc/cub": {"CUB_200_2011", "cub"},
    "fgvc/nabirds": {"nabirds"},
    "fgvc/flowers": {"OxfordFlower", "oxfordflower"},
    "fgvc/dogs": {"Stanford-dogs", "stanforddogs"},
    "fgvc/cars": {"Stanford-cars", "stanfordcars"},
}
LOSSLESS = {"cifar", "svhn", "patch_camelyon", "dsprites_loc", "dsprites_ori", "smallnorb_azi", "smallnorb_ele"}


@pytest.fixture(scope="module")
def copy_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Give a made-up copy without pixels, to be read only: made once."""
    top = tmp_path_factory.mktemp("lists")
    return cache(lambda name: make(name, top / name, draw=draw_nothing))


def prepared(name: str, source: Path, data_root: Path) -> Dataset:
    options = PrepareOptions(source=source)
    prepare_dataset(name, CATALOG, data_root, {}, options, workers=2, progress=Progress())
    return open_dataset(name, catalog=CATALOG, data_root=data_root, settings={})


class TestCards:
    def test_classes_and_counts_are_those_of_the_tables(self) -> None:
        assert {f"vtab1k/{name}" for name in VTAB} | {f"fgvc/{name}" for name in FGVC} <= set(NAMES)
        assert len(NAMES) == 19 + 5 + 5
        for name, expected in VTAB.items():
            counts = card(f"vtab1k/{name}").counts.official
            assert (len(card(f"vtab1k/{name}").classes), counts.test) == expected
            assert (counts.train, counts.val, counts.total) == (800, 200, 1_000 + expected[1])
        for name, (classes, *parts) in FGVC.items():
            counts = card(f"fgvc/{name}").counts.official
            assert (len(card(f"fgvc/{name}").classes), counts.train, counts.val, counts.test) == (classes, *parts)
        assert {name: len(card(f"fewshot/{name}").classes) for name in FEW_SHOT} == FEW_SHOT

    def test_sets_whose_source_keeps_its_pixels_are_marked(self) -> None:
        marked = {name.partition("/")[2] for name in NAMES if card(name).lossless}
        assert marked == LOSSLESS | {"clevr_count", "clevr_dist", "kitti"}

    def test_a_card_takes_a_number_for_its_classes(self, tmp_path: Path) -> None:
        text = Path(CATALOG.find("dataset", "vtab1k/caltech101").file).read_text(encoding="utf-8")
        for wrong in ("0", "-3", "true", "1e9", "999999999"):
            (tmp_path / "card.toml").write_text(text.replace("classes = 102", f"classes = {wrong}"), encoding="utf-8")
            with pytest.raises(InputError, match="classes"):
                load_card(tmp_path / "card.toml")
        assert card("vtab1k/caltech101").classes[:3] == ("0", "1", "2")


class TestCopies:
    @pytest.mark.parametrize("name", NAMES)
    def test_every_copy_is_read_wherever_it_lies(
        self, name: str, copy_of: Callable[[str], Path], tmp_path: Path
    ) -> None:
        own, layout = copy_of(name), card(name).layout
        assert layout is not None
        assert set(layout.folders) >= ALIASES.get(name, set())
        for alias in layout.folders:
            for place in ("vtab-1k", "data", "vtab", "data/vtab-1k"):  # as NOAH and SSF, FacT, PETL-ViT, and one above
                folder = tmp_path / alias / place / alias
                folder.parent.mkdir(parents=True, exist_ok=True)
                folder.symlink_to(own)
                assert release_folder(layout, folder.parent, name) == folder
                assert release_folder(layout, folder, name) == folder
        assert release_folder(layout, tmp_path / layout.folders[-1] / "data", name).resolve() == own
        records = read(name, tmp_path / layout.folders[-1] / "vtab").records
        classes = len(card(name).classes)
        assert Counter(record.label for record in records if record.split == "test") == dict.fromkeys(range(classes), 1)
        assert {record.split for record in records} == {"train", "val", "test"}
        assert [record.path for record in read(name, own).records] == [record.path for record in records]

    def test_another_folder_beside_it_is_not_taken_for_it(self, copy_of: Callable[[str], Path], tmp_path: Path) -> None:
        (tmp_path / "cifar" / "images").mkdir(parents=True)
        (tmp_path / "vtab-1k").mkdir()
        (tmp_path / "vtab-1k" / "cifar100").symlink_to(copy_of("vtab1k/cifar"))
        assert len(read("vtab1k/cifar", tmp_path).records) == 198 + 51 + 100

    def test_few_shot_cars_may_lie_without_a_folder_of_images_and_pets_have_a_list_of_all(self, tmp_path: Path) -> None:
        cars, pets = (make(f"fewshot/{name}", tmp_path, draw=draw_nothing) for name in ("cars", "pets"))
        before = {record.path.removeprefix("images/"): record.label for record in read("fewshot/cars", cars).records}
        for part in (cars / "images").iterdir():
            part.rename(cars / part.name)
        assert {record.path: record.label for record in read("fewshot/cars", cars).records} == before
        (pets / "annotations" / "train_meta.list").write_text("spare.jpg 5\n", encoding="utf-8")
        spare = next(record for record in read("fewshot/pets", pets).records if record.path == "images/spare.jpg")
        assert (spare.label, spare.split, spare.draws) == (5, "train", ())

    def test_two_copies_are_refused_and_none_is_said(self, tmp_path: Path) -> None:
        make("vtab1k/svhn", tmp_path, draw=draw_nothing)
        make("vtab1k/svhn", tmp_path / "other", draw=draw_nothing)
        error = refused("vtab1k/svhn", tmp_path)
        assert (error.kind, "more than once" in error.message) == ("duplicate_image", True)
        error = refused("vtab1k/dtd", tmp_path)
        assert error.kind == "data_missing"
        assert "a folder dtd in it" in error.message


class TestLists:
    """Traps of lists, on a copy that may be changed."""

    @pytest.fixture
    def copy(self, tmp_path: Path) -> Path:
        return make("vtab1k/svhn", tmp_path, draw=draw_nothing)

    @pytest.mark.parametrize(
        ("old", "new", "kind", "said"),
        [
            ("000003.jpg 3", "000003.jpg 10", "unknown_label", "line 4: the label '10' .* 10 classes, numbered 0 to 9"),
            ("000003.jpg 3", "000003.jpg -1", "unknown_label", "line 4: the label '-1'"),
            ("000003.jpg 3", "000003.jpg 3.0", "unknown_label", "line 4: the label '3.0'"),
            ("000003.jpg 3", "gone.jpg 3", "missing_image", "line 4: the row names 'images/train800/gone.jpg'"),
            ("images/train800/000003.jpg 3\n", "", "image_without_row", "in none of the lists"),
            ("000003.jpg 3\n", "000003.jpg 3\nimages/train800/gone.jpg 3\n", "missing_image", "line 5: the row names"),
            (
                "000003.jpg 3\n",
                "000003.jpg 3\n../secret.jpg 3\n",
                "path_outside",
                "line 5: the image is '../secret.jpg'",
            ),
            ("000003.jpg 3\n", "000003.jpg 3\n/etc/passwd 3\n", "path_outside", "line 5: the image is '/etc/passwd'"),
            ("000003.jpg 3\n", "000003.jpg\n", "bad_table", "line 4: the row has 1 cells"),
            ("000003.jpg 3\n", "000003.jpg 3\nimages/test/000001.jpg 1\n", "duplicate_image", "the side test, but was"),
        ],
    )
    def test_a_wrong_line_is_named(self, copy: Path, old: str, new: str, kind: str, said: str) -> None:
        change(copy / "train800.txt", old, new)
        with pytest.raises(InputError, match=said) as caught:
            read("vtab1k/svhn", copy)
        assert caught.value.kind == kind

    def test_the_label_stands_behind_the_last_blank(self, copy: Path) -> None:
        (copy / "images" / "train800" / "a b  c.jpg").touch()
        with (copy / "train800.txt").open("a", encoding="utf-8") as stream:
            stream.write("images/train800/a b  c.jpg \t 7\r\n\n")
        change(copy / "train800val200.txt", "\n", "\nimages/train800val200/999999.jpg 7\n")
        records = {record.path: record.label for record in read("vtab1k/svhn", copy).records}
        assert records["images/train800/a b  c.jpg"] == 7

    def test_the_list_of_both_parts_has_to_agree_where_it_is(self, copy: Path) -> None:
        change(copy / "train800val200.txt", "000003.jpg 3", "000003.jpg 4")
        error = refused("vtab1k/svhn", copy)
        assert "the label '3' 1 times, train800.txt and val200.txt together 2 times" in error.message
        (copy / "train800val200.txt").unlink()
        assert len(read("vtab1k/svhn", copy).records) == 34

    def test_a_list_that_lacks_is_named(self, copy: Path) -> None:
        (copy / "val200.txt").unlink()
        assert "val200.txt of 'vtab1k/svhn' is missing" in refused("vtab1k/svhn", copy).message

    def test_a_list_is_compared_with_its_checksum_where_the_card_has_one(self, copy: Path, tmp_path: Path) -> None:
        text = CATALOG.find("dataset", "vtab1k/svhn").file.read_text(encoding="utf-8")
        checked = f'test = {{ file = "test.txt", sha256 = "{"0" * 64}" }}'
        (tmp_path / "card.toml").write_text(text.replace('test = "test.txt"', checked), encoding="utf-8")
        with pytest.raises(InputError, match="test.txt is not the list of the release") as caught:
            read_official(load_card(tmp_path / "card.toml"), copy, "svhn")
        assert caught.value.kind == "wrong_checksum"


class TestJson:
    """Traps of VPT's lists."""

    @pytest.fixture
    def copy(self, tmp_path: Path) -> Path:
        return make("fgvc/cars", tmp_path, draw=draw_nothing)

    def test_numbers_are_ranked_as_the_training_part_has_them(self, copy: Path) -> None:
        numbers = json.loads((copy / "test.json").read_text("utf-8"))
        for record in read("fgvc/cars", copy).records:
            if record.split == "test":
                assert numbers[record.path] == FIRST_ID + ID_STEP * record.label

    @pytest.mark.parametrize(
        ("value", "kind", "said"),
        [
            ("NaN", "damaged_file", "it has no NaN"),
            ("1.5", "bad_table", "entry 1: .* no whole number, but a float"),
            ("true", "bad_table", "no whole number, but a bool"),
            ('{"a": {"b": 1}}', "bad_table", "no whole number, but a dict"),
            ("[" * 100_000 + "]" * 100_000, "damaged_file", "no JSON"),
            ("1" + "0" * 30, "bad_table", "no whole number"),
            ("5", "unknown_label", "entry 1: the label '5' .* 196 classes, numbered 4 to 1369"),
        ],
    )
    def test_a_wrong_value_is_refused(self, copy: Path, value: str, kind: str, said: str) -> None:
        numbers = list(json.loads((copy / "val.json").read_text("utf-8")).items())
        rest = json.dumps(dict(numbers[1:]))
        (copy / "val.json").write_text(f'{{"{numbers[0][0]}": {value}, {rest[1:]}', encoding="utf-8")
        with pytest.raises(InputError, match=said) as caught:
            read("fgvc/cars", copy)
        assert caught.value.kind == kind

    @pytest.mark.parametrize("path", ["../../x.jpg", "/etc/passwd", "a\\u0000b"])
    def test_a_path_that_leads_out_is_refused(self, copy: Path, path: str) -> None:
        text = (copy / "train.json").read_text("utf-8")
        (copy / "train.json").write_text(f'{{"{path}": {FIRST_ID}, {text[1:]}', encoding="utf-8")
        error = refused("fgvc/cars", copy)
        assert error.kind == "path_outside"
        assert "train.json, entry 1" in error.message

    def test_an_image_with_two_numbers_is_refused(self, copy: Path) -> None:
        text = (copy / "train.json").read_text("utf-8")
        path = next(iter(json.loads(text)))
        (copy / "train.json").write_text(f'{{"{path}": 11, {text[1:]}', encoding="utf-8")
        assert f"the key '{path}' stands in it twice" in refused("fgvc/cars", copy).message

    def test_a_list_and_a_huge_file_are_refused(self, copy: Path) -> None:
        (copy / "val.json").write_text("[1, 2]", encoding="utf-8")
        assert "no JSON object but a list" in refused("fgvc/cars", copy).message
        with (copy / "val.json").open("wb") as stream:
            stream.truncate(1 << 40)
        assert refused("fgvc/cars", copy).kind == "too_large"

    def test_a_class_without_training_images_leaves_the_order_open(self, copy: Path) -> None:
        numbers = json.loads((copy / "train.json").read_text("utf-8"))
        kept = {path: number for path, number in numbers.items() if number != FIRST_ID + ID_STEP}
        for path in numbers.keys() - kept.keys():
            (copy / path).unlink()
        (copy / "train.json").write_text(json.dumps(kept), encoding="utf-8")
        error = refused("fgvc/cars", copy)
        assert (error.kind, "195 different labels" in error.message) == ("class_mismatch", True)


class TestPrepared:
    def test_a_lossy_copy_and_an_absent_class_are_said_and_a_lossless_one_is_not(self, tmp_path: Path) -> None:
        lossy = prepared("vtab1k/svhn", make("vtab1k/svhn", tmp_path / "a").parent, tmp_path / "lossy")
        said = " ".join(lossy.notes)
        assert "34 of 34 images (8x8 pixels) are JPEG files" in said
        assert "the training part has no image of class 9" in said
        assert "train: 18 images, not 800 as the card says" in said
        exact = prepared("vtab1k/svhn", make("vtab1k/svhn", tmp_path / "b", suffix=".png"), tmp_path / "exact")
        assert "JPEG" not in " ".join(exact.notes)
        assert [record.label for record in exact.records] == [record.label for record in lossy.records]

    def test_images_stay_where_they_lie_and_copies_have_one_manifest(self, tmp_path: Path) -> None:
        own = make("vtab1k/clevr_dist", tmp_path / "vtab-1k")
        first = prepared("vtab1k/clevr_dist", tmp_path, tmp_path / "first")
        assert first.file(first.records[0]).is_relative_to(own)  # type: ignore[union-attr]
        assert not (tmp_path / "first" / "vtab1k" / "clevr_dist" / "files").exists()
        own.rename(tmp_path / "mine")
        second = prepared("vtab1k/clevr_dist", tmp_path / "mine", tmp_path / "second")
        tables = [tmp_path / root / "vtab1k" / "clevr_dist" / "images.csv" for root in ("first", "second")]
        assert tables[0].read_bytes() == tables[1].read_bytes()
        assert second.records == first.records

    def test_official_draws_of_few_shots_are_those_of_the_lists(self, tmp_path: Path) -> None:
        dataset = prepared("fewshot/cars", make("fewshot/cars", tmp_path / "few"), tmp_path / "root")
        splits = [record.split for record in dataset.records]
        for number in range(3):
            draw = Draw(shots=2, number=number)
            assert draw.is_official(dataset.records)
            sides = draw.sides(dataset.records, splits, official=True)  # type: ignore[arg-type]
            listed = tmp_path / "few" / "standford-cars" / "annotations" / f"train_meta.list.num_shot_2.seed_{number}"
            paths = {line.rpartition(" ")[0] for line in listed.read_text("utf-8").splitlines()}
            pairs = zip(dataset.records, sides, strict=True)
            assert {record.path.removeprefix("images/") for record, side in pairs if side == "train"} == paths
            assert (sides.count("val"), sides.count("test")) == (196, 196)
        assert any("no list of the few-shot benchmark names it" in note for note in dataset.notes)
        assert not Draw(shots=3).is_official(dataset.records)


def test_a_run_says_what_its_copy_is_and_is_evaluated_under_its_name(tmp_path: Path) -> None:
    make("vtab1k/kitti", tmp_path / "copy")
    prepared("vtab1k/kitti", tmp_path / "copy", tmp_path / "root")
    places = {"data_root": tmp_path / "root", "progress": False}
    small = {"backbone": "petlbench_micro", "image_size": 32, "epochs": 1, "device": "cpu", "tracking_uri": "none"}
    run = pb.run("linear", "vtab1k/kitti", output=tmp_path / "results", **small, **places)
    folder = tmp_path / "results" / run.run_id
    notes = " ".join(json.loads((folder / "result.json").read_text("utf-8"))["data"]["notes"])
    assert run.status == "finished"
    assert "13 of 13 images (8x8 pixels) are JPEG files" in notes
    assert "the training part has no image of class no vehicle" in notes
    pb.evaluate(folder, "vtab1k/kitti", **places)
    assert [file.name.rpartition("-")[0] for file in (folder / "evaluations").glob("*.json")] == ["vtab1k-kitti"]

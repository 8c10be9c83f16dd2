"""The dataset card: every shipped one is whole, and a wrong one is refused with its key."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from petlbench.core.catalog import Catalog
from petlbench.core.entry import Entry
from petlbench.core.errors import InputError
from petlbench.data.card import CountTable, load_card
from petlbench.data.splits import SplitScheme

ENTRIES = [entry for entry in Catalog().entries("dataset").values() if entry.shipped]

GOOD = """
title = "Good"
modality = "X-ray"
task = "multiclass"
classes = ["a", "b", "c"]
licence = "CC0"
version = 1
split = "random"
grouping = "patient"
[reader]
kind = "folder"
"""


def write(folder: Path, text: str) -> Path:
    file = folder / "card.toml"
    file.write_text(text, encoding="utf-8")
    return file


def test_cards_that_need_no_download_and_the_papers_eight_are_shipped() -> None:
    papers = {"messidor2", "isic2018", "ddsm", "covid", "ddr", "isic2016", "cmmd", "chncxr"}
    assert {"digits", "lesions"} | papers <= {entry.name for entry in ENTRIES}


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: str(entry.name))
def test_every_shipped_card_is_whole(entry: Entry) -> None:
    card = load_card(entry.file)
    assert card.counts.official.images
    assert str(SplitScheme.parse(card.split)) == card.split
    assert card.synthetic or card.home.startswith("https://")
    assert card.licence != "unknown" or card.known_issues
    if card.synthetic:
        assert "synthetic" in card.title.lower()


def test_isic2018_tells_its_two_totals_apart() -> None:
    counts = load_card(Catalog().find("dataset", "isic2018").file).counts
    assert (counts.official.images, counts.paper.images) == (11_720, 11_527)


def test_a_good_card_loads(tmp_path: Path) -> None:
    card = load_card(write(tmp_path, GOOD))
    assert card.classes == ("a", "b", "c")
    assert card.reader.kind == "folder"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("licence =", "lisence ="), "unknown key 'lisence'"),
        (('licence = "CC0"', ""), "the key 'licence' is missing"),
        (('title = "Good"', 'title = "Good"\ntitle = "Twice"'), "no TOML"),
        (('kind = "folder"', 'kind = "magic"'), "reader.kind"),
        (('kind = "folder"', 'kind = "folder"\nextra = 1'), "unknown key 'reader.extra'"),
        (('["a", "b", "c"]', '["a", "b", "a"]'), "class names stand twice: a"),
        (('["a", "b", "c"]', '["a"]'), "classes"),
        (('"multiclass"', '"binary"'), "a binary task has 2 classes, not 3"),
        (("version = 1", "version = 0"), "version"),
        (('split = "random"', 'split = "kfold"'), "split"),
        (("version = 1", "version = 1\nmean = [0.5, 0.5, 0.5]"), "mean and std"),
        (('kind = "folder"', 'kind = "folder"\n[counts.official]\ntotal=3\ntrain=1\nval=1\ntest=2'), "total is 3"),
        (('kind = "folder"', 'kind = "folder"\n[counts.official.classes.all]\nzebra=1'), "zebra"),
        (('kind = "folder"', 'kind = "official"'), "a card has a layout exactly where its reader is 'official'"),
        (('kind = "folder"', 'kind = "csv"\nfile = "../../etc/passwd"'), "reader.file"),
        (('kind = "folder"', 'kind = "csv"\nfile = "/etc/passwd"'), "reader.file"),
        (('kind = "folder"', 'kind = "folder"\n[[files]]\nname = "../evil.zip"'), "files.0.name"),
        (('kind = "folder"', 'kind = "folder"\n[[files]]\nname = "/tmp/evil.zip"'), "files.0.name"),
        (('kind = "folder"', 'kind = "folder"\n[[files]]\nname = ".."'), "files.0.name"),
        (('kind = "folder"', 'kind = "folder"\n[[files]]\nname = "C:\\\\evil.zip"'), "files.0.name"),
        (('kind = "folder"', 'kind = "folder"\n[[files]]\nname = ".lock"'), "files.0.name"),
        (
            ('kind = "folder"', 'kind = "folder"\n[counts.official]\ntotal=9\nleft_out=2\nclasses.all = {a=9}'),
            "the classes of 'all' make 9, but the part has 7 images",
        ),
    ],
)
def test_a_wrong_card_is_refused_with_file_and_key(tmp_path: Path, change: tuple[str, str], said: str) -> None:
    assert change[0] in GOOD
    file = write(tmp_path, GOOD.replace(*change))
    with pytest.raises(InputError) as caught:
        load_card(file)
    assert caught.value.kind == "bad_card"
    assert str(file) in caught.value.message
    assert said in caught.value.message


def test_a_misspelt_key_gets_the_nearest_one(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        load_card(write(tmp_path, GOOD.replace("licence =", "lisence =")))
    assert caught.value.hint == "did you mean 'licence'?"


def test_the_example_in_the_readme_is_a_card(tmp_path: Path) -> None:
    readme = ENTRIES[0].file.with_name("README.md").read_text(encoding="utf-8")
    assert load_card(write(tmp_path, readme.split("```toml\n")[1].split("```")[0])).reader.file == "labels.csv"


def test_an_absent_card_is_an_input_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        load_card(tmp_path / "none.toml")


def test_a_pipe_that_is_called_a_card_keeps_nobody_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "card.toml")
    with pytest.raises(InputError, match="a pipe"):
        load_card(tmp_path / "card.toml")


@pytest.mark.parametrize(
    ("table", "images"),
    [
        (CountTable(total=5), 5),
        (CountTable(train=3, test=2), 5),
        (CountTable(classes={"all": {"a": 1, "b": 4}}), 5),
        (CountTable(total=5, left_out=1, classes={"all": {"a": 1, "b": 3}}), 4),
        (CountTable(train=3, test=2, left_out=1, classes={"train": {"a": 1, "b": 1}}), 4),
        (CountTable(), None),
    ],
)
def test_the_number_of_images_comes_from_what_is_known(table: CountTable, images: int | None) -> None:
    assert table.images == images


def test_cards_and_datasets_are_imported_without_heavy_libraries() -> None:
    heavy = ("numpy", "PIL", "pandas", "sklearn", "torch")
    script = f"import sys, petlbench.data.dataset; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"

"""The layout table of a card: templates, and wrong layouts refused with their key."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from petlbench.core.catalog import Catalog
from petlbench.core.errors import InputError
from petlbench.data import layout
from petlbench.data.card import load_card
from petlbench.data.layout import Layout, ends_with, fill, match_pattern, names_in

CARD = """
title = "X-rays"
modality = "X-ray"
task = "binary"
classes = ["ill", "well"]
licence = "CC0"
version = 1
split = "random"
grouping = "patient"

[reader]
kind = "official"

[layout]
shape = "the folder images, and labels.csv"
label = "{finding}"
group = "{patient}"
extra = ["sex"]

[[layout.images]]
pattern = 'images/(?P<patient>\\d+)_(?P<number>\\d+)\\.png'

[[layout.tables]]
file = "labels.csv"
fields = { finding = "Finding", sex = "Sex" }
key = ["{Image}"]
image_key = "{patient}_{number}"

[layout.labels]
0 = "well"
1 = "ill"

[layout.left_out]
9 = "not read"
"""

DRAWS = """
[layout.draws]
file = "{shots}-shot_{side}_{number}.txt"
shots = [1]
numbers = 5
image_key = "{patient}"

[layout.labels]
"""


def card(folder: Path, *changes: tuple[str, str]) -> Path:
    text = CARD
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    file = folder / "card.toml"
    file.write_text(text, encoding="utf-8")
    return file


def test_a_whole_layout(tmp_path: Path) -> None:
    read = load_card(card(tmp_path)).layout
    assert read is not None
    assert read.images[0].fields == {"patient", "number"}
    assert read.tables[0].needs == ("Image", "Finding", "Sex")


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('kind = "official"', 'kind = "folder"', "exactly where its reader is 'official'"),
        ('grouping = "patient"', 'grouping = "unavailable"', "grouping is 'unavailable'"),
        ('split = "random"', 'split = "official"', "does not give train and test"),
        ('0 = "well"', '0 = "fine"', "layout.labels and classes differ in: fine, well"),
        ("9 =", "1 =", "the label '1' is a class and is left out"),
        ("(?P<patient>", "(?P<patient>(", "is no regular expression"),
        ('label = "{finding}"', 'label = "{grade}"', "label uses the field 'grade'"),
        ('group = "{patient}"', 'group = "{lesion}"', "group uses the field 'lesion'"),
        ('extra = ["sex"]', 'extra = ["age"]', "extra uses the field 'age'"),
        ("{patient}_{number}", "{patient}_{view}", "image_key of labels.csv uses the field 'view'"),
        ('sex = "Sex"', 'patient = "Patient", sex = "Sex"', "the field 'patient' of labels.csv stands twice"),
        ('key = ["{Image}"]', 'key = ["{Image}"]\ncolumns = ["Image", "Sex"]', "has no column 'Finding'"),
        ('key = ["{Image}"]', 'key = ["{Image}"]\nunmatched = "leave out"', "a reason is given exactly where"),
        ('key = ["{Image}"]', 'key = ["{Image}"]\nseperator = ";"', "unknown key 'layout.tables.0.seperator'"),
        ('key = ["{Image}"]', 'key = ["{Image}"]\ntext = "(?P<Finding>.)"', "has no column 'Image'"),
        ('key = ["{Image}"]', 'key = ["{Image|Index}"]', "'Image|Index': only 'fields' may name several columns"),
        ('key = ["{Image}"]', 'key = ["{Image}"]\nmulti_hot = { f = ["A|B"] }', "'A|B': only 'fields' may name"),
        ('key = ["{Image}"]', 'key = ["{Image}"]\nseparator = "  "', "separator"),
        (
            'key = ["{Image}"]',
            'key = ["{Image}"]\nside = "train"\nunmatched = "leave out"\nreason = "no"',
            "'unlisted' of the layout says why",
        ),
        ("[layout.labels]", DRAWS.replace("{side}", "val"), "needs {shots}, {side} and {number}"),
        ("[layout.labels]", DRAWS.replace("{patient}", "{name}"), "image_key of draws uses the field 'name'"),
        ("[layout.labels]", DRAWS.replace("[1]", "[0]"), "layout.draws.shots.0"),
        ("[layout.labels]", "[label_sets]\nsome = ['ill', 'sick']\n\n[layout.labels]", "label_sets.some names 'sick'"),
    ],
)
def test_a_wrong_layout_is_refused(tmp_path: Path, old: str, new: str, said: str) -> None:
    file = card(tmp_path, (old, new))
    with pytest.raises(InputError) as caught:
        load_card(file)
    assert caught.value.kind == "bad_card"
    assert str(file) in caught.value.message
    assert said in caught.value.message


def test_the_example_in_the_readme_is_a_layout() -> None:
    readme = Catalog().find("dataset", "isic2018").file.with_name("README.md").read_text(encoding="utf-8")
    blocks = (block.split("```")[0] for block in readme.split("```toml\n") if block.startswith("[layout]"))
    read, lists = (Layout.model_validate(tomllib.loads(block)["layout"]) for block in blocks)
    assert (lists.all_tables[0].file, lists.all_tables[0].side) == ("train800.txt", "train")
    assert read.tables[0].provides == {"finding", "age"}


@given(st.dictionaries(st.text("abc xyz", min_size=1), st.text(), min_size=1))
def test_templates_give_every_field_once(fields: dict[str, str]) -> None:
    template = "|".join(f"{{{name}}}" for name in fields)
    assert names_in(template) == tuple(fields)
    assert fill(template, fields) == "|".join(fields.values())
    assert fill(template, {}) == "|" * (len(fields) - 1)


@pytest.mark.parametrize(
    ("path", "end", "said"),
    [
        ("a/b/labels.csv", "labels.csv", True),
        ("labels.csv", "labels.csv", True),
        ("mylabels.csv", "labels.csv", False),
        ("a/train/x.txt", "train/*.txt", True),
        ("a/train/deep/x.txt", "train/*.txt", False),
        ("labelsxcsv", "labels.csv", False),
    ],
)
def test_ends_of_paths(path: str, end: str, said: bool) -> None:
    assert ends_with(path, end) is said


@pytest.mark.parametrize(
    ("pattern", "text"), [(r"((a|b|ab)*)+[cd]", "ab" * 60), (r"(.*)(.*)(.*)(.*)(.*)(.*)(.*)\1[yz]", "a" * 200)]
)
def test_a_pattern_that_takes_for_ever_is_refused(monkeypatch: pytest.MonkeyPatch, pattern: str, text: str) -> None:
    monkeypatch.setattr(layout, "_SECONDS", 0.2)
    for somewhere in (False, True):
        with pytest.raises(InputError) as caught:
            match_pattern(pattern, text, somewhere=somewhere)
        assert caught.value.kind == "slow_pattern"
        assert pattern in caught.value.message


@pytest.mark.parametrize(
    ("pattern", "text"), [(r"(a+)+[bc]", "a" * 60), (r"(?P<n>(\w+\s?)+)\.png", "a" * 60 + "!.png")]
)
def test_repetitions_in_repetitions_take_no_time(pattern: str, text: str) -> None:
    assert match_pattern(pattern, text) is None
    assert not ends_with("a" * 250 + "bc", "*a" * 40 + "b")


def test_a_field_called_draws_cannot_be_kept(tmp_path: Path) -> None:
    file = card(tmp_path, ('sex = "Sex"', 'draws = "Sex"'), ('extra = ["sex"]', 'extra = ["draws"]'))
    with pytest.raises(InputError, match="extra has the field 'draws'"):
        load_card(file)


LISTS = """
[[layout.tables]]
file = "train.txt"
side = "train"
separator = " "
columns = ["image", "grade"]
fields = { grade = "grade" }
key = ["{image}"]
image_key = "{number}"

[[layout.tables]]
file = "test.txt"
side = "test"
separator = " "
columns = ["image", "grade"]
fields = { grade = "grade" }
key = ["{image}"]
image_key = "{number}"

[layout.labels]
"""


def test_lists_that_give_sides_may_give_the_same_fields(tmp_path: Path) -> None:
    lists = ("[layout.labels]", LISTS)
    found = load_card(card(tmp_path, lists, ('split = "random"', 'split = "official"'))).layout
    assert found is not None
    assert {"train", "test"} <= found.sides
    with pytest.raises(InputError, match=r"the field 'grade' of test\.txt stands twice"):
        load_card(card(tmp_path, ("[layout.labels]", LISTS.replace('side = "test"\n', ""))))

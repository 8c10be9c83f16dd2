"""Whole audits of small folders: planted faults are found, and nothing is where nothing was planted."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from petlbench.audit.audit import Audit, audit, findings_of
from petlbench.audit.baselines import Baseline
from petlbench.audit.leaks import Leaks
from petlbench.core.errors import InputError
from petlbench.core.progress import Progress
from petlbench.data.dataset import Dataset
from petlbench.data.splits import SplitScheme

Draw = Callable[..., Image.Image]
Save = Callable[..., Path]
Opened = Callable[..., Dataset]

NOTHING = Leaks((), (), {}, ())


def audited(dataset: Dataset, split: str | None = None) -> Audit:
    return audit(dataset, None if split is None else SplitScheme.parse(split), 0, 1, Progress())


def kinds(found: Audit) -> set[str]:
    """Kinds of findings, but for the one that all folders have: they know no patients."""
    return {finding.kind for finding in found.findings} - {"missing_groups"}


@pytest.fixture
def split_folder(draw: Draw, save: Save) -> Callable[[], list[Path]]:
    """Twelve different pictures in train and eight in test, two classes."""

    def make() -> list[Path]:
        return [
            save(draw(100 * place + number), f"{side}/{name}/{number}.png")
            for place, (side, name, count) in enumerate(
                [("train", "cat", 6), ("train", "dog", 6), ("test", "cat", 4), ("test", "dog", 4)]
            )
            for number in range(count)
        ]

    return make


def test_a_sound_folder_has_no_finding_but_that_it_knows_no_patients(
    split_folder: Callable[[], list[Path]], opened: Opened
) -> None:
    split_folder()
    found = audited(opened())
    assert (found.split, found.images) == ("official", {"train": [6, 6], "test": [4, 4]})
    assert [finding.kind for finding in found.findings] == ["missing_groups"]
    assert not found.grave
    assert found.verdicts == ()


@pytest.mark.parametrize("how", ["bytes", "jpeg", "smaller"])
def test_a_duplicate_across_an_official_split_is_found(
    split_folder: Callable[[], list[Path]], opened: Opened, save: Save, how: str
) -> None:
    original = split_folder()[0]
    image = Image.open(original)
    copy = {
        "bytes": lambda: shutil.copy(original, original.parents[2] / "test/cat/copy.png"),
        "jpeg": lambda: save(image, "test/cat/copy.jpg", quality=50),
        "smaller": lambda: save(image.resize((119, 119)), "test/cat/copy.png"),
    }[how]()
    found = audited(opened())
    (pair,) = found.leaks.across
    assert pair.images[0].startswith("test/cat/copy")
    assert pair.images[1] == "train/cat/0.png"
    assert pair.kind == ("bytes" if how == "bytes" else "near")
    assert Path(copy).exists()
    assert kinds(found) == {"duplicate_leak"}
    assert found.grave
    assert "1 of 9 test images" in found.findings[0].text


def test_one_image_with_two_labels(split_folder: Callable[[], list[Path]], opened: Opened) -> None:
    original = split_folder()[0]
    shutil.copy(original, original.parents[1] / "dog" / "copy.png")
    found = audited(opened())
    assert kinds(found) == {"duplicates", "two_labels"}
    assert {finding.kind for finding in found.findings if finding.grave} == {"two_labels"}


def table(folder: Path, draw: Draw, save: Save, row: Callable[[int], dict[str, str]], count: int = 40) -> Path:
    """A CSV of different pictures in two classes by turns, with more columns."""
    rows = []
    for number in range(count):
        save(draw(number), f"{number:02d}.png")
        rows.append({"image": f"{number:02d}.png", "label": "ab"[number % 2], **row(number)})
    file = folder / "set" / "labels.csv"
    with file.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return file


def test_groups_on_two_sides_of_an_official_split_are_reported_and_kept(
    tmp_path: Path, draw: Draw, save: Save, opened: Opened
) -> None:
    def row(number: int) -> dict[str, str]:
        return {"split": "test" if number >= 30 else "train", "patient": f"p{min(number // 2, 15)}"}

    table(tmp_path, draw, save, row)
    found = audited(opened("set/labels.csv", group_column="patient"))
    assert found.leaks.groups == ()
    table(tmp_path, draw, save, lambda number: row(number) | ({"patient": "p15"} if number == 4 else {}))
    found = audited(opened("set/labels.csv", group_column="patient"))
    assert found.leaks.groups == ("p15",)
    assert "group_leak" in kinds(found)
    assert found.images == {"train": [15, 15], "test": [5, 5]}


def test_a_drawn_split_keeps_groups_together(tmp_path: Path, draw: Draw, save: Save, opened: Opened) -> None:
    table(tmp_path, draw, save, lambda number: {"patient": f"p{number // 2}"})
    found = audited(opened("set/labels.csv", group_column="patient"), "random")
    assert found.split == "random, seed 0"
    assert found.leaks.groups == ()


def test_where_the_format_tells_the_class_the_dataset_is_a_shortcut(draw: Draw, save: Save, opened: Opened) -> None:
    for number in range(60):
        save(draw(number), f"{'a' if number % 2 else 'b'}/{number}.{'png' if number % 2 else 'jpg'}")
    found = audited(opened())
    assert found.verdicts == ("shortcut",)
    assert found.grave
    assert "without the file size too" in found.findings[0].text
    assert found.confounds[0].column in {"file format", "file size in bytes"}


def test_where_brightness_tells_the_class_the_dataset_is_easy(draw: Draw, save: Save, opened: Opened) -> None:
    for number in range(60):  # 20 of each class are too few to be sure of an AUC over 0.9
        bright = number % 2
        image = Image.new("RGB", (64, 64), (60 + 90 * bright + number // 2,) * 3)
        pixels = np.asarray(image) + np.random.default_rng(number).integers(0, 30, (64, 64, 3))
        save(Image.fromarray(pixels.astype(np.uint8)), f"{'b' if bright else 'a'}/{number}.bmp")
    found = audited(opened())
    assert found.verdicts == ("easy",)
    assert not found.grave


def test_unreadable_images_are_counted_and_named(split_folder: Callable[[], list[Path]], opened: Opened) -> None:
    split_folder()[0].write_bytes(b"no image")
    found = audited(opened())
    assert list(found.unreadable) == ["train/cat/0.png"]
    assert kinds(found) == {"unreadable"}
    assert found.images["train"] == [5, 6]


def test_a_split_that_cannot_be_made_is_a_note_unless_it_was_asked_for(draw: Draw, save: Save, opened: Opened) -> None:
    for number in range(4):
        save(draw(number), f"{'ab'[number % 2]}/{number}.png")
    found = audited(opened())
    assert (found.split, found.images) == ("none", {"all": [2, 2]})
    assert any("the split 'random' cannot be made" in note for note in found.notes)
    for split in ("random", "official"):
        with pytest.raises(InputError):
            audited(opened(), split)


def test_nothing_readable_is_refused(draw: Draw, save: Save, opened: Opened) -> None:
    for name in ("a/1.png", "b/1.png"):
        save(draw(1), name).write_bytes(b"")
    with pytest.raises(InputError, match="fewer than two readable images") as caught:
        audited(opened())
    assert caught.value.hint


def test_the_document_is_plain_json(split_folder: Callable[[], list[Path]], opened: Opened) -> None:
    original = split_folder()[0]
    shutil.copy(original, original.parents[2] / "test/cat/copy.png")
    document = json.loads(json.dumps(audited(opened()).document(), allow_nan=False))
    assert document["duplicates"]["pairs"][0]["images"] == ["test/cat/copy.png", "train/cat/0.png"]
    assert document["duplicates"]["sets"] == [["test/cat/copy.png", "train/cat/0.png"]]
    assert document["duplicates"]["with_duplicate_in_training"] == {"test": {"images": 1, "of": 9}}
    assert document["findings"][0]["kind"] == "duplicate_leak"
    assert document["grave"] is True
    assert {one["name"] for one in document["baselines"]} >= {"file", "grey levels", "pixels", "metadata"}


def baseline(name: str, low: float | None) -> Baseline:
    if low is None:
        return Baseline(name, "things", True, refused="no choice")
    return Baseline(name, "things", True, low + 0.02, low, min(1.0, low + 0.04), 0.9)


@pytest.mark.parametrize(
    ("name", "low", "marked"),
    [
        ("metadata", 0.91, ["shortcut"]),
        ("metadata", 0.9, []),
        ("metadata", 0.88, []),
        ("metadata", None, []),
        ("pixels", 0.91, ["easy"]),
        ("file", 0.99, ["file_statistics"]),
        ("grey levels", 0.84, ["file_statistics"]),
        ("grey levels", 0.82, []),
    ],
)
def test_the_lower_bound_of_baselines_that_do_not_look_marks(name: str, low: float | None, marked: list[str]) -> None:
    assert [finding.kind for finding in findings_of(NOTHING, [baseline(name, low)], {})] == marked


@pytest.mark.parametrize(
    ("others", "said"),
    [
        ([("metadata but file size", 0.5)], "through the file size"),
        ([("metadata but file size", None)], "through the file size"),
        ([("metadata but file size", 0.95)], "without the file size too"),
        ([], "without the file size too"),
    ],
)
def test_a_shortcut_says_whether_the_file_size_is_needed(others: list[tuple[str, float | None]], said: str) -> None:
    (finding,) = findings_of(NOTHING, [baseline("metadata", 0.95), *(baseline(*other) for other in others)], {})
    assert said in finding.text
    assert finding.grave


def test_grave_things_come_first() -> None:
    found = findings_of(NOTHING, [baseline("pixels", 0.95)], {"x.png": "cut off"})
    assert [(finding.kind, finding.grave) for finding in found] == [("unreadable", True), ("easy", False)]

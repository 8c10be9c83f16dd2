"""The contract of a reader, on a right one and on wrong ones."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

GOOD = """
import hashlib
import random

from PIL import Image

from petlbench.data.readers.base import Reader, ReaderCard
from petlbench.data.record import Record
from petlbench.testing import ReaderContract


class Mine(Reader):
    card = ReaderCard(name="mine", title="Mine")

    def __init__(self, source):
        self.root = root = source.path
        names = sorted(path.relative_to(root).as_posix() for path in root.rglob("*.png"))
        self.classes = tuple(sorted({name.split("/")[0] for name in names}))
        self.records = tuple(Record(name, name, self.classes.index(name.split("/")[0])) for name in names)

    def open(self, record):
        with Image.open(self.root / record.path) as image:
            return image.convert("RGB")

    def content_hash(self, record):
        return hashlib.sha256((self.root / record.path).read_bytes()).hexdigest()


class TestMine(ReaderContract):
    reader = Mine
"""

HASHED = "(self.root / record.path).read_bytes()"
BROKEN = {
    "stems": (
        "Record(name,",
        "Record(name[-5],",
        "test_every_image_has_a_name_of_its_own",
        "images '0': take the path below the root, not its stem",
    ),
    "absolute": (
        "name, self",
        "str(root / name), self",
        "test_paths_are_relative_and_sides_are_known",
        "write it relative to the root",
    ),
    "labels": (
        "[0])) for",
        "[0]) + 1) for",
        "test_labels_refer_to_the_classes",
        "the label 2, but there are 2 classes",
    ),
    "grey": ('"RGB"', '"L"', "test_images_open_in_rgb", "in mode L: return image.convert('RGB')"),
    "unsorted": (
        'sorted(path.relative_to(root).as_posix() for path in root.rglob("*.png"))',
        '[path.relative_to(root).as_posix() for path in root.rglob("*.png")]',
        "test_the_order_does_not_depend_on_the_file_system",
        "lists its files in another order (sort what you find)",
    ),
    "noise": (
        'image.convert("RGB")',
        'image.convert("RGB").rotate(random.randrange(1, 360))',
        "test_reading_twice_gives_the_same",
        "with other pixels each time",
    ),
    "hash of nothing": (HASHED, 'b""', "test_content_hashes_are_stable", "the hash of another image"),
    "hash of chance": (HASHED, "random.randbytes(8)", "test_content_hashes_are_stable", "another hash each time"),
    "one class": ('"*.png"', '"ill/*.png"', "test_labels_refer_to_the_classes", "at least two names are needed"),
    "no image": ('"*.png"', '"*.jpg"', "test_images_open_in_rgb", "finds no image in"),
}


Run = Callable[..., tuple[int, str]]


def test_a_right_reader_passes(tmp_path: Path, run: Run) -> None:
    (tmp_path / "test_mine.py").write_text(GOOD, encoding="utf-8")
    _, output = run()
    assert "8 passed" in output, output


@pytest.mark.parametrize("fault", BROKEN)
def test_a_wrong_reader_fails_at_its_rule_in_words(fault: str, tmp_path: Path, run: Run) -> None:
    text, replacement, rule, words = BROKEN[fault]
    assert text in GOOD
    (tmp_path / "test_mine.py").write_text(GOOD.replace(text, replacement, 1), encoding="utf-8")
    _, output = run("-k", rule)
    assert f"::TestMine::{rule}" in output, output
    assert words in output, output


def test_a_file_of_a_reader_needs_no_test_file(tmp_path: Path, run: Run) -> None:
    (tmp_path / "my_reader.py").write_text(GOOD.partition("\n\nclass TestMine")[0], encoding="utf-8")
    _, output = run("--petlbench-reader", "my_reader.py")
    assert "8 passed" in output, output

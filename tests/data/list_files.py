"""Small made-up copies of VTAB-1k, FGVC and the few-shot sets, whose images are named by lists of paths and numbers.

Folders, names and lists are laid out as in the copies that circulate. An image has 8x8 pixels of one colour, which
tells it from every other. In VTAB-1k the last of several classes has no training image: its parts are no stratified
draws.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

from PIL import Image

from tests.data.official_releases import CATALOG, card

NAMES = tuple(name for name in CATALOG.entries("dataset") if name.startswith(("vtab1k/", "fgvc/", "fewshot/")))
ID_STEP, FIRST_ID = 7, 4
"""Class numbers of FGVC's lists are no positions: 4, 11, 18, …, which as texts have another order."""

Draw = Callable[[Path, int], None]
Rows = Sequence[tuple[str, int]]


def draw_image(file: Path, number: int) -> None:
    """Draw the image of a number; the file's suffix says what it is."""
    # JPEG keeps colours that are 4 apart, and there are 262,144 of them.
    colour = (number % 64 * 4, number // 64 % 64 * 4, number // 4096 * 4)
    Image.new("RGB", (8, 8), colour).save(file, quality=95)


def draw_nothing(file: Path, _number: int) -> None:
    """Leave an empty file: lists are read without looking into images."""
    file.touch()


def make(name: str, top: Path, *, suffix: str = ".jpg", draw: Draw = draw_image) -> Path:
    """Write a copy of a dataset into a folder that is called as the copies call it; return that folder.

    Args:
        name: The name of the dataset's card.
        top: Where the folder is made.
        suffix: Of the images.
        draw: Writes the image of a number.
    """
    layout, classes = card(name).layout, len(card(name).classes)
    assert layout is not None
    family, _, short = name.partition("/")
    copy = _Copy(top / layout.folders[0], suffix, draw)
    {"vtab1k": _vtab1k, "fgvc": _fgvc, "fewshot": _fewshot}[family](copy, short, classes)
    return copy.folder


class _Copy:
    """A copy on its way: its images, each with a number of its own, and its lists."""

    def __init__(self, folder: Path, suffix: str, draw: Draw) -> None:
        self.folder, self.suffix, self._draw, self._count = folder, suffix, draw, 0

    def images(self, below: str, stem: Callable[[int, int], str], labels: Sequence[int]) -> Rows:
        """Draw an image for every label; return its path below the folder, made of its number and label, and label."""
        rows = [(stem(number, label) + self.suffix, label) for number, label in enumerate(labels)]
        for path, _ in rows:
            file = self.folder / below / path
            file.parent.mkdir(parents=True, exist_ok=True)
            self._draw(file, self._count)
            self._count += 1
        return rows

    def list(self, name: str, rows: Rows) -> None:
        """Write a list."""
        file = self.folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("".join(f"{path} {label}\n" for path, label in rows), encoding="utf-8")


def _vtab1k(copy: _Copy, _name: str, classes: int) -> None:
    train, val = list(range(max(2, classes - 1))) * 2, [*range(0, classes, 2), 0]
    parts = {"train800": train, "val200": val, "train800val200": train + val, "test": list(range(classes))}
    for part, labels in parts.items():
        rows = copy.images("", lambda number, _, part=part: f"images/{part}/{number:06d}", labels)  # type: ignore[misc]
        copy.list(f"{part}.txt", rows)


def _fgvc(copy: _Copy, name: str, classes: int) -> None:
    below, path = {
        "cub": ("images", "{1:03d}.Black footed_Bird/Bird_{0}"),
        "nabirds": ("images", "{1:04d}/{0}"),
        "flowers": ("", "jpg/image_{0}"),
        "dogs": ("Images", "n{1:08d}-Dog/n_{0}"),
        "cars": ("", "car_ims/{0}"),
    }[name]
    for part, count in {"train": 2, "val": 1, "test": 1}.items():
        labels = [label for label in range(classes) for _ in range(count)]
        rows = copy.images(below, lambda *each, part=part: path.format(*each) + part, labels)  # type: ignore[misc]
        numbers = {image: FIRST_ID + ID_STEP * label for image, label in reversed(rows)}
        (copy.folder / f"{part}.json").write_text(json.dumps(numbers), encoding="utf-8")


def _fewshot(copy: _Copy, name: str, classes: int) -> None:
    """Lists of 1 to 16 shots, in three draws, of four training images a class; and an image that no list names."""
    for part, count in {"train": 4, "val": 1, "test": 1}.items():
        labels = [label for label in range(classes) for _ in range(count)]
        top = f"cars_{'test' if part == 'test' else 'train'}/" if name == "cars" else ""
        rows = copy.images("images", lambda number, _, start=top + part: f"{start} {number}", labels)  # type: ignore[misc]
        if part != "train":
            copy.list(f"annotations/{part}_meta.list", rows)
            continue
        for shots in (1, 2, 4, 8, 16):
            for seed in range(3):
                drawn = [row for index, row in enumerate(rows) if (index - seed) % 4 < shots]
                copy.list(f"annotations/train_meta.list.num_shot_{shots}.seed_{seed}", drawn)
    copy.images("images", lambda *_: "cars_train/spare" if name == "cars" else "spare", [0])

"""One pass: what is known of each image, and each is decoded once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from petlbench.audit.scan import scan_images
from petlbench.core.progress import Progress
from petlbench.data.dataset import Dataset
from petlbench.data.images.files import Header
from petlbench.data.record import Record

Opened = Callable[..., Dataset]


def test_the_content_says_format_depth_and_size(save: Callable[..., Path], opened: Opened) -> None:
    colour = Image.new("RGB", (6, 4), (200, 10, 10))
    deep = Image.fromarray(np.full((4, 6), 40_000, dtype=np.uint16))
    files = [
        save(colour, "a/1.png"),
        save(colour.convert("L"), "a/2.jpg"),
        save(deep, "b/1.png"),
        save(colour.convert("P"), "b/2.png"),
    ]
    png_called_jpg = files[0].rename(files[0].with_suffix(".jpg"))
    scan = scan_images(opened(), 2, Progress())
    facts = {record.image_id: image.file for record, image in zip(scan.records, scan.images, strict=True)}
    assert facts == {
        "a/1.jpg": Header(6, 4, "PNG", "colour, 8 bits", png_called_jpg.stat().st_size),
        "a/2.jpg": Header(6, 4, "JPEG", "grey, 8 bits", files[1].stat().st_size),
        "b/1.png": Header(6, 4, "PNG", "grey, 16 bits", files[2].stat().st_size),
        "b/2.png": Header(6, 4, "PNG", "palette, 8 bits", files[3].stat().st_size),
    }
    assert {(image.width, image.height) for image in scan.images} == {(6, 4)}


def test_grey_levels(save: Callable[..., Path], opened: Opened) -> None:
    pixels = np.array([[0, 5, 6, 100], [249, 250, 255, 100]], dtype=np.uint8)
    save(Image.fromarray(pixels), "a/1.png")
    save(Image.fromarray(pixels), "b/1.png")
    levels = scan_images(opened(), 1, Progress()).images[0].levels
    assert levels.mean == pytest.approx(pixels.mean())
    assert levels.deviation == pytest.approx(pixels.std())
    assert (levels.black, levels.white) == (0.25, 0.25)


def test_each_image_is_decoded_once(
    draw: Callable[..., Image.Image],
    save: Callable[..., Path],
    opened: Opened,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("a/1.png", "a/2.png", "b/1.png"):
        save(draw(1), name)
    dataset, decoded = opened(), Counter[str]()
    plain = Dataset.open

    def counted(self: Dataset, record: Record) -> Image.Image:
        decoded[record.image_id] += 1
        return plain(self, record)

    monkeypatch.setattr(Dataset, "open", counted)
    scan_images(dataset, 2, Progress())
    assert decoded == {"a/1.png": 1, "a/2.png": 1, "b/1.png": 1}


def test_what_cannot_be_read_is_named(
    draw: Callable[..., Image.Image], save: Callable[..., Path], opened: Opened
) -> None:
    save(draw(1), "a/1.png")
    save(draw(2), "b/1.png")
    save(draw(3), "b/2.png").write_bytes(b"")
    scan = scan_images(opened(), 2, Progress())
    assert [record.image_id for record in scan.records] == ["a/1.png", "b/1.png"]
    assert list(scan.unreadable) == ["b/2.png"]
    assert "empty" in scan.unreadable["b/2.png"]


def test_images_without_files_have_no_header(opened: Opened) -> None:
    from petlbench.core.catalog import Catalog
    from petlbench.data.dataset import open_dataset

    digits = open_dataset("digits", catalog=Catalog(), data_root=Path("none"), settings={})
    scan = scan_images(digits.keep(digits.records[:5]), 1, Progress())
    assert [image.file for image in scan.images] == [None] * 5

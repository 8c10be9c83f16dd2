"""Small pictures with a structure of their own, in folders; forests of few trees in few folds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from petlbench.audit import baselines
from petlbench.audit.scan import GreyLevels, ImageStatistics, Scan
from petlbench.core.catalog import Catalog
from petlbench.data.dataset import Dataset, open_dataset
from petlbench.data.duplicates import Fingerprint
from petlbench.data.images.files import Header
from petlbench.data.record import Record

Draw = Callable[..., Image.Image]


@pytest.fixture(autouse=True)
def small_forests(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(baselines, "_TREES", 8)
    monkeypatch.setattr(baselines, "FOLDS", 3)


@pytest.fixture
def draw() -> Draw:
    """Make a picture of 128x128 whose structure is that of its seed; brightness is added to every pixel."""

    def picture(seed: int, brightness: int = 0) -> Image.Image:
        coarse = np.random.default_rng(seed).integers(60, 160, (16, 16, 3)) + brightness
        return Image.fromarray(coarse.astype(np.uint8)).resize((128, 128), Image.Resampling.BICUBIC)

    return picture


@pytest.fixture
def save(tmp_path: Path) -> Callable[..., Path]:
    """Save a picture below ``tmp_path / "set"``."""

    def write(image: Image.Image, name: str, **options: int) -> Path:
        file = tmp_path / "set" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        image.save(file, **options)
        return file

    return write


@pytest.fixture
def opened(tmp_path: Path) -> Callable[..., Dataset]:
    """Open a path below the temporary folder as a dataset, with settings of its reader."""

    def call(name: str = "set", **settings: str) -> Dataset:
        return open_dataset(str(tmp_path / name), catalog=Catalog(), data_root=tmp_path, settings=settings)

    return call


@pytest.fixture
def scan() -> Callable[..., Scan]:
    """Make a scan of made-up images: labels, and what is to differ between them."""

    def make(
        labels: Sequence[int],
        *,
        formats: Sequence[str] | None = None,
        sizes: Sequence[tuple[int, int]] | None = None,
        extras: Sequence[dict[str, str]] | None = None,
        groups: Sequence[str | None] | None = None,
        means: Sequence[float] | None = None,
        file_bytes: Sequence[int] | None = None,
    ) -> Scan:
        rng = np.random.default_rng(0)
        records, images = [], []
        for row, label in enumerate(labels):
            extra = tuple(extras[row].items()) if extras else ()
            records.append(Record(f"i{row:04d}", f"i{row:04d}", label, groups[row] if groups else None, None, extra))
            thumbnail = rng.integers(0, 256, (64, 64), dtype=np.uint8)
            width, height = sizes[row] if sizes else (64, 64)
            size = file_bytes[row] if file_bytes else 1000
            file = Header(width, height, formats[row] if formats else "PNG", "grey, 8 bits", size)
            levels = GreyLevels(means[row] if means else float(rng.normal(100, 10)), float(rng.normal(50, 5)), 0.0, 0.0)
            images.append(ImageStatistics(Fingerprint(f"s{row}", f"p{row}", thumbnail), width, height, levels, file))
        classes = tuple(f"class {label}" for label in range(max(labels) + 1))
        return Scan(tuple(records), tuple(images), classes, {})

    return make

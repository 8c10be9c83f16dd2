"""What names an image in the cache on the disk: whatever can change its pixels changes its key or its folder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from petlbench.core.catalog import Catalog
from petlbench.core.progress import Progress
from petlbench.data.dataset import Dataset, open_dataset
from petlbench.data.loader import ImageStore
from petlbench.data.record import Split
from petlbench.data.views import Augmentation, Normalization, View
from petlbench.features.maintenance import CacheConfig
from petlbench.run import image_cache
from petlbench.run.image_cache import DiskCache, fill_disk, open_images

NORMAL = Normalization((0.5, 0.5, 0.5), (0.2, 0.2, 0.2), "backbone")
COLOURS = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 30, 3), dtype=np.uint8))
GREYS = Image.fromarray(np.random.default_rng(1).uniform(0, 255, (40, 30)).astype(np.float32))

views = st.builds(
    View,
    size=st.integers(8, 24),
    interpolation=st.sampled_from(["bilinear", "bicubic", "lanczos", "unheard of"]),
    normalization=st.sampled_from([NORMAL, replace(NORMAL, mean=(0.1, 0.2, 0.3))]),
    augmentation=st.sampled_from([None, Augmentation(), Augmentation(margin=0.5), Augmentation(jitter=0.0)]),
)


@settings(deadline=None, max_examples=150)
@given(views, views)
def test_views_that_store_other_pixels_have_another_form(first: View, second: View) -> None:
    for image in (COLOURS, GREYS):
        stored = first.store(image), second.store(image)
        is_same = stored[0].shape == stored[1].shape and np.array_equal(*stored)
        assert is_same is (first.form == second.form)


def folders(cache: Path, *named: View) -> set[str]:
    views = {str(number): view for number, view in enumerate(named)}
    by_split: Mapping[Split, Mapping[str, View]] = {"train": views, "val": {}, "test": {}}
    digits = open_dataset("digits", catalog=Catalog(), data_root=cache, settings={})
    disks = open_images("disk", digits, by_split, CacheConfig(cache)).caches.values()
    return {disk.plan.folder.name for disk in disks if isinstance(disk, DiskCache)}


@settings(deadline=None, max_examples=30)
@given(first=st.lists(views, min_size=1, max_size=3), second=st.lists(views, min_size=1, max_size=3))
def test_other_forms_lie_in_another_folder(
    tmp_path_factory: pytest.TempPathFactory, first: list[View], second: list[View]
) -> None:
    cache = tmp_path_factory.getbasetemp()
    is_same = {view.form for view in first} == {view.form for view in second}
    assert (folders(cache, *first) == folders(cache, *second)) is is_same


@pytest.mark.parametrize("package", ["pillow", "torch"])
def test_what_another_version_decodes_lies_in_another_folder(
    package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    view, versions = View(16, "bicubic", NORMAL), image_cache.package_versions()
    before = folders(tmp_path, view)
    monkeypatch.setattr(image_cache, "package_versions", lambda: {**versions, package: "0.0.1"})
    assert folders(tmp_path, view).isdisjoint(before)


def kept(dataset: Dataset, cache: Path) -> list[np.ndarray]:
    """What a run of these images trains on, through the cache on the disk."""
    view = View(8, "bicubic", NORMAL)
    by_split: Mapping[Split, Mapping[str, View]] = {"train": {"fine": view}, "val": {}, "test": {}}
    images = open_images("disk", dataset, by_split, CacheConfig(cache))
    dataset.measure_greys(1, Progress())
    for record in dataset.records:
        images.read(record, "train")
    rows = list(range(len(dataset.records)))
    fill_disk(images, {"train": rows, "val": [], "test": []}, CacheConfig(cache), 1, Progress())
    return [images.get(record, {"fine": view})["fine"] for record in dataset.records]


def test_one_file_under_two_whites_is_two_images(tmp_path: Path) -> None:
    """The same bytes in a dataset of 12 bits and in one of 16, and with a maximum that is given."""
    ramp = np.linspace(0, 4000, 64).reshape(8, 8)
    for name, lightest in (("twelve", 4000), ("sixteen", 60_000)):
        for side, values in (("a", ramp), ("b", np.full((8, 8), lightest))):
            (tmp_path / name / side).mkdir(parents=True)
            Image.fromarray(values.astype(np.uint16)).save(tmp_path / name / side / "0.png")
    for name, maximum in (("twelve", {}), ("sixteen", {}), ("twelve", {"grey_maximum": "8191"}), ("twelve", {})):
        dataset = open_dataset(str(tmp_path / name), catalog=Catalog(), data_root=tmp_path, settings=maximum)
        alone = [View(8, "bicubic", NORMAL).store(dataset.open_deep(record)) for record in dataset.records]
        for cached, pixels in zip(kept(dataset, tmp_path / "cache"), alone, strict=True):
            assert np.array_equal(cached, pixels), (name, maximum)


def test_the_key_of_an_image_follows_its_content(tmp_path: Path) -> None:
    digits = open_dataset("digits", catalog=Catalog(), data_root=tmp_path, settings={})
    store, records = ImageStore(digits), digits.records[:50]
    digests = [store.read(record, "train") for record in records]
    assert len(set(digests)) == len({digits.open(record).tobytes() for record in records})
    assert digests == [store.digest(record) for record in records], "eight bits say themselves what is white"

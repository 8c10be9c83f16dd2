"""Duplicates: copies are found however they were saved, other pictures are not, and groups of them keep together."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageEnhance

from petlbench.core.catalog import Catalog
from petlbench.core.errors import InputError
from petlbench.core.progress import Progress
from petlbench.data import duplicates, record
from petlbench.data.dataset import Dataset, open_dataset
from petlbench.data.duplicates import (
    DuplicatePair,
    close_pairs,
    clusters,
    duplicate_pairs,
    fingerprint,
    near_duplicate_groups,
)


def picture(seed: int) -> Image.Image:
    coarse = np.random.default_rng(seed).integers(30, 220, (20, 20, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((240, 240), Image.Resampling.BICUBIC)


def round_picture(seed: int) -> Image.Image:
    """Pictures of one layout, like the back of an eye: a bright disc, and small spots that differ."""
    y, x = np.mgrid[:240, :240] - 120
    pixels = np.where(x**2 + y**2 < 110**2, 150 - 0.5 * np.hypot(x, y), 0)
    for row, column in np.random.default_rng(seed).integers(60, 180, (40, 2)):
        pixels[row : row + 6, column : column + 6] -= 60
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).convert("RGB")


def as_jpeg(image: Image.Image, quality: int) -> Image.Image:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality)
    return Image.open(file).convert("RGB")


def pairs_of(*images: Image.Image) -> list[DuplicatePair]:
    return duplicate_pairs([fingerprint(image, f"file {row}") for row, image in enumerate(images)])


COPIES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "jpeg": lambda image: as_jpeg(image, 40),
    "slightly smaller": lambda image: image.resize((221, 221), Image.Resampling.BICUBIC),
    "half": lambda image: image.resize((120, 120), Image.Resampling.BILINEAR),
    "squeezed": lambda image: image.resize((240, 180), Image.Resampling.LANCZOS),
    "darker": lambda image: ImageEnhance.Brightness(image).enhance(0.8),
    "contrast": lambda image: ImageEnhance.Contrast(image).enhance(0.8),
    "grey": lambda image: image.convert("L").convert("RGB"),
}


class TestFindPairs:
    @pytest.mark.parametrize("copy", COPIES.values(), ids=list(COPIES))
    @pytest.mark.parametrize("make", [picture, round_picture])
    def test_a_changed_copy_is_near(
        self, make: Callable[[int], Image.Image], copy: Callable[[Image.Image], Image.Image]
    ) -> None:
        (pair,) = pairs_of(make(1), make(2), copy(make(1)))
        assert (pair.first, pair.second) == (0, 2)
        assert pair.kind == ("pixels" if copy(make(1)) == make(1) else "near")

    @pytest.mark.parametrize("make", [picture, round_picture])
    def test_other_pictures_are_not_paired(self, make: Callable[[int], Image.Image]) -> None:
        assert pairs_of(*(make(seed) for seed in range(60))) == []

    def test_the_hash_alone_would_not_do(self) -> None:
        marks = [fingerprint(round_picture(seed), str(seed)) for seed in range(60)]
        hashes = duplicates.perceptual_hashes(np.stack([mark.thumbnail for mark in marks]))
        assert any(len(pairs) for pairs, _ in close_pairs(hashes, hashes, 12))

    def test_equal_images_are_paired_with_the_first(self) -> None:
        marks = [fingerprint(picture(1), digest) for digest in ("one", "two", "one")]
        assert [(p.first, p.second, p.kind) for p in duplicate_pairs(marks)] == [(0, 1, "pixels"), (0, 2, "bytes")]

    def test_a_mirror_image_is_found(self) -> None:
        (pair,) = pairs_of(picture(1), picture(2), picture(1).transpose(Image.Transpose.FLIP_LEFT_RIGHT))
        assert (pair.first, pair.second, pair.kind) == (0, 2, "mirrored")

    def test_even_images_are_equal_or_nothing(self) -> None:
        even = [Image.new("RGB", (64, 64), (level,) * 3) for level in (0, 90, 90, 255)]
        assert [(p.first, p.second, p.kind) for p in pairs_of(*even)] == [(1, 2, "pixels")]

    def test_one_image_has_no_pair(self) -> None:
        assert pairs_of() == pairs_of(picture(1)) == []


@settings(deadline=None)
@given(st.data())
def test_close_pairs_are_those_of_a_plain_search(data: st.DataObject) -> None:
    words = st.integers(0, 2**64 - 1)
    bases = data.draw(st.lists(words, min_size=1, max_size=4))
    near = st.builds(
        lambda base, flips: base ^ sum({1 << flip for flip in flips}),
        st.sampled_from(bases),
        st.lists(st.integers(0, 63), max_size=6),
    )
    hashes = data.draw(st.lists(words | near, max_size=30))
    bits = data.draw(st.integers(0, 8))
    plain = [
        [i, j]
        for i in range(len(hashes))
        for j in range(i + 1, len(hashes))
        if (hashes[i] ^ hashes[j]).bit_count() <= bits
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(duplicates, "_BLOCK", data.draw(st.integers(1, 12)))
        words64 = np.array(hashes, dtype=np.uint64)
        assert sorted(pair for pairs, _ in close_pairs(words64, words64, bits) for pair in pairs.tolist()) == plain


@given(st.integers(1, 20).flatmap(lambda n: st.tuples(st.just(n), st.lists(st.tuples(*[st.integers(0, n - 1)] * 2)))))
def test_clusters_are_what_can_be_reached(drawn: tuple[int, list[tuple[int, int]]]) -> None:
    count, links = drawn
    reached = []
    for start in range(count):
        seen, grown = {start}, True
        while grown:
            more = {b for pair in links for a, b in (pair, pair[::-1]) if a in seen} - seen
            seen, grown = seen | more, bool(more)
        reached.append(min(seen))
    assert clusters(links, count) == reached


class TestGroups:
    def dataset(self, folder: Path) -> Dataset:
        return open_dataset(str(folder), catalog=Catalog(), data_root=folder, settings={})

    def save(self, folder: Path, name: str, image: Image.Image) -> None:
        (folder / name).parent.mkdir(exist_ok=True)
        image.save(folder / name)

    def test_duplicates_share_a_group_and_others_have_none(self, tmp_path: Path) -> None:
        self.save(tmp_path, "a/1.png", picture(1))
        self.save(tmp_path, "a/2.png", picture(2))
        self.save(tmp_path, "b/1.jpg", picture(1))
        self.save(tmp_path, "b/2.png", picture(1).resize((200, 200)))
        (tmp_path / "b" / "broken.png").write_bytes(b"no image")
        groups = near_duplicate_groups(self.dataset(tmp_path), 2, Progress())
        assert set(groups) == {"a/1.png", "b/1.jpg", "b/2.png"}
        assert set(groups.values()) == {"duplicates of a/1.png"}

    def test_every_image_is_told_of(self, tmp_path: Path) -> None:
        for name in ("a/1.png", "a/2.png", "b/1.png"):
            self.save(tmp_path, name, picture(len(name)))
        told: list[int] = []

        class Counting(Progress):
            def phase(self, name: str, total: int) -> None:
                told.append(-total)

            def advance(self, count: int = 1) -> None:
                told.append(count)

        near_duplicate_groups(self.dataset(tmp_path), 2, Counting())
        assert told == [-3, 1, 1, 1]

    def test_a_defect_is_not_taken_for_an_unreadable_image(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for name in ("a/1.png", "b/1.png"):
            self.save(tmp_path, name, picture(1))

        def broken(*_: object) -> None:
            raise RuntimeError("a defect")

        monkeypatch.setattr(duplicates, "fingerprint", broken)
        with pytest.raises(RuntimeError, match="a defect"):
            near_duplicate_groups(self.dataset(tmp_path), 1, Progress())


def test_what_cannot_be_read_is_said(tmp_path: Path) -> None:
    for name in ("a/1.png", "b/1.png"):
        (tmp_path / name).parent.mkdir()
        picture(1).save(tmp_path / name)
    (tmp_path / "b" / "2.png").write_bytes(b"no image")
    dataset = open_dataset(str(tmp_path), catalog=Catalog(), data_root=tmp_path, settings={})
    seen, errors = record.map_images(dataset.records, lambda record: dataset.open(record).size, 2, Progress())
    assert seen == {"a/1.png": (240, 240), "b/1.png": (240, 240)}
    assert list(errors) == ["b/2.png"]
    assert isinstance(errors["b/2.png"], InputError)

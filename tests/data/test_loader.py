"""The loader: the same pixels wherever they are kept, whoever makes them, and a disk that fails says so."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms.v2 import functional

from petlbench.cli.app import run_command
from petlbench.core.bounded_cache import BoundedCache
from petlbench.core.catalog import Catalog
from petlbench.core.errors import InputError, RunError
from petlbench.core.progress import Progress
from petlbench.data.dataset import Dataset, open_dataset
from petlbench.data.loader import Batch, ImageLoader, ImageStore, KeptImages, made_ahead
from petlbench.data.record import Record, Split
from petlbench.data.views import Augmentation, Normalization, View, by_split
from petlbench.features.maintenance import CacheConfig
from petlbench.features.shard import shards_in
from petlbench.run.image_cache import ImageCache, check_disk, fill_disk, open_images

COUNT = 11
COLOURS = Normalization((0.485, 0.456, 0.406), (0.229, 0.224, 0.225), "test")
VIEWS = {
    "fine": View(24, "bicubic", COLOURS, Augmentation()),
    "coarse": View(12, "bilinear", COLOURS, Augmentation()),
}
OTHERS: dict[int, Split] = {3: "val", 4: "test", 8: "val", 9: "test"}
SPLITS: tuple[Split, ...] = tuple(OTHERS.get(index, "train") for index in range(COUNT))
INDICES: dict[Split, list[int]] = {
    name: [index for index, split in enumerate(SPLITS) if split == name] for name in ("train", "val", "test")
}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Eleven files of all kinds in two classes: colours, greys, deep greys, JPEG; one twice."""
    rng, root = np.random.default_rng(0), tmp_path / "images"
    for name in "ab":
        (root / name).mkdir(parents=True)
    for number in range(COUNT):
        file, size = root / "ab"[number % 2] / f"{number:02d}", (30 + number, 41)
        if number % 3 == 0:
            Image.fromarray(rng.integers(0, 256, (*size, 3), dtype=np.uint8)).save(f"{file}.png")
        elif number % 3 == 1:
            Image.fromarray(rng.integers(0, 65536, size, dtype=np.uint16)).save(f"{file}.png")
        else:
            Image.fromarray(rng.integers(0, 256, size, dtype=np.uint8)).save(f"{file}.jpg")
    (root / "b" / "03.png").write_bytes((root / "a" / "00.png").read_bytes())
    return root


def opened(root: Path) -> Dataset:
    return open_dataset(str(root), catalog=Catalog(), data_root=root, settings={})


def looked_at(root: Path, kept: ImageCache, cache: Path, views: dict[str, View] | None = None) -> ImageStore:
    images = open_images(kept, opened(root), by_split(VIEWS if views is None else views), CacheConfig(cache))
    for record, split in zip(images.dataset.records, SPLITS, strict=True):
        images.read(record, split)
    return images


def kept_images(root: Path, kept: ImageCache, cache: Path, workers: int = 2) -> ImageStore:
    images = looked_at(root, kept, cache)
    check_disk(images, INDICES, CacheConfig(cache))
    fill_disk(images, INDICES, CacheConfig(cache), workers, Progress())
    return images


def loaded(images: ImageStore, workers: int = 2) -> list[Batch]:
    train = ImageLoader(images, INDICES["train"], VIEWS, 3, workers)
    val = ImageLoader(images, INDICES["val"] + INDICES["test"], by_split(VIEWS)["val"], 3, workers)
    return [*train.shuffled(7), *train.shuffled(8), *val.in_order()]


def assert_same(ours: list[Batch], others: list[Batch]) -> None:
    assert len(ours) == len(others) == 6
    for one, other in zip(ours, others, strict=True):
        assert torch.equal(one.index, other.index)
        assert torch.equal(one.labels, other.labels)
        assert one.views.keys() == other.views.keys()
        assert all(torch.equal(one.views[name], other.views[name]) for name in one.views)


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The images that were decoded, in whatever order."""
    seen: list[str] = []
    real = Dataset.open_deep

    def counting(dataset: Dataset, record: Record) -> Image.Image:
        seen.append(record.image_id)
        return real(dataset, record)

    monkeypatch.setattr(Dataset, "open_deep", counting)
    return seen


class TestViews:
    def test_a_view_is_what_torchvision_makes_of_the_resized_image(self) -> None:
        pixels = np.random.default_rng(1).integers(0, 256, (2, 24, 24, 3), dtype=np.uint8)
        scaled = functional.to_dtype(torch.from_numpy(pixels).permute(0, 3, 1, 2), torch.float32, scale=True)
        expected = functional.normalize(scaled, list(COLOURS.mean), list(COLOURS.std))
        assert torch.equal(VIEWS["fine"].batch(list(pixels)), expected)

    def test_what_is_cropped_is_stored_larger(self) -> None:
        assert VIEWS["fine"].form == (28, "bicubic")
        assert VIEWS["fine"].without_augmentation().form == (24, "bicubic")

    def test_deep_greys_are_rounded_behind_the_resize(self) -> None:
        deep = Image.fromarray(np.random.default_rng(2).uniform(0, 255, (48, 48)).astype(np.float32))
        stored = VIEWS["coarse"].without_augmentation().store(deep)
        expected = np.rint(np.asarray(deep.resize((12, 12), Image.Resampling.BILINEAR))).astype(np.uint8)
        assert (stored == expected[..., None]).all()


class TestLoading:
    def test_the_pixels_are_the_same_wherever_they_are_kept(self, root: Path, tmp_path: Path) -> None:
        nowhere = loaded(kept_images(root, "none", tmp_path / "cache"))
        for kept in ("ram", "disk", "disk"):
            assert_same(loaded(kept_images(root, kept, tmp_path / "cache")), nowhere)

    def test_one_worker_and_four_make_the_same_batches(self, root: Path, tmp_path: Path) -> None:
        images = kept_images(root, "none", tmp_path)
        assert_same(loaded(images, workers=1), loaded(images, workers=4))

    def test_a_batch_is_its_images_one_by_one(self, root: Path) -> None:
        images, views = ImageStore(opened(root)), by_split(VIEWS)["val"]
        single = [next(ImageLoader(images, [index], views, 1, 1).in_order()) for index in (4, 0, 9)]
        batch = next(ImageLoader(images, [4, 0, 9], views, 3, 3).in_order())
        assert batch.index.tolist() == [4, 0, 9]
        for name in views:
            assert torch.equal(batch.views[name], torch.cat([one.views[name] for one in single]))

    @pytest.mark.parametrize(("keeps", "sizes"), [(False, [4, 4]), (True, [4, 4, 2])])
    def test_a_last_batch_that_is_not_full_is_left_out_or_kept(self, root: Path, keeps: bool, sizes: list[int]) -> None:
        loader = ImageLoader(ImageStore(opened(root)), range(10), VIEWS, 4, 2, keeps_last=keeps)
        assert [len(batch.index) for batch in loader.shuffled(1)] == sizes
        assert loader.steps() == len(sizes)

    def test_without_views_the_order_and_the_labels_are_the_same(self, root: Path) -> None:
        images = ImageStore(opened(root))
        whole = ImageLoader(images, INDICES["train"], VIEWS, batch_size=3, workers=1)
        blind = replace(whole, views={})
        for ours, others in zip(blind.shuffled(5), whole.shuffled(5), strict=True):
            assert (ours.index.tolist(), ours.labels.tolist()) == (others.index.tolist(), others.labels.tolist())
            assert not ours.views

    def test_an_error_in_a_thread_ends_the_loop(self, root: Path) -> None:
        loader = ImageLoader(ImageStore(opened(root)), range(COUNT), VIEWS, 2, 2)
        (root / "a" / "06.png").write_bytes(b"gone bad")
        with pytest.raises(InputError, match=r"06\.png"):
            list(loader.in_order())

    def test_the_first_images_are_one_batch_in_order(self, root: Path) -> None:
        loader = ImageLoader(ImageStore(opened(root)), [4, 0, 9], by_split(VIEWS)["val"], 1, 1)
        assert loader.first(2).index.tolist() == [4, 0]
        assert loader.first(9).index.tolist() == [4, 0, 9]

    @pytest.mark.gpu
    @pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
    def test_batches_for_cuda_are_pinned(self, root: Path) -> None:
        loader = ImageLoader(ImageStore(opened(root)), range(COUNT), VIEWS, 4, 2)
        pinned = list(replace(loader, pinned=True).shuffled(1))
        assert all(tensor.is_pinned() for batch in pinned for tensor in (*batch.views.values(), batch.labels))
        for one, other in zip(pinned, loader.shuffled(1), strict=True):
            assert torch.equal(one.to(torch.device("cuda")).views["fine"].cpu(), other.views["fine"])


def batches(count: int) -> list[Batch]:
    return [Batch(torch.tensor([number]), {}, torch.tensor([number])) for number in range(count)]


class TestMadeAhead:
    @pytest.mark.parametrize("count", [0, 1, 2, 5])
    def test_all_is_made_in_order(self, count: int) -> None:
        assert list(made_ahead(batches(count), lambda batch: int(batch.index))) == list(range(count))

    def test_the_next_one_is_begun_while_one_is_in_use_and_no_further_one(self) -> None:
        begun = [threading.Event() for _ in range(4)]

        def make(batch: Batch) -> int:
            begun[int(batch.index)].set()
            return int(batch.index)

        made = made_ahead(batches(4), make)
        assert next(made) == 0
        assert begun[1].wait(10)
        assert not begun[2].is_set()
        assert list(made) == [1, 2, 3]

    def test_an_error_in_the_thread_comes_when_it_is_its_turn(self) -> None:
        def make(batch: Batch) -> int:
            if int(batch.index) == 1:
                raise RunError("gone")
            return int(batch.index)

        made = made_ahead(batches(3), make)
        assert next(made) == 0
        with pytest.raises(RunError, match="gone"):
            next(made)


def test_micro_batches_have_their_own_features() -> None:
    batch = Batch(torch.arange(5), {}, torch.arange(5), {"final": torch.arange(10).view(5, 2)})
    pieces = list(batch.to(torch.device("cpu")).micro_batches(2))
    assert [piece.features["final"].tolist() for piece in pieces] == [[[0, 1], [2, 3]], [[4, 5], [6, 7]], [[8, 9]]]


class TestDecoding:
    def test_without_a_cache_every_epoch_decodes_each_image_once_for_both_views(
        self, root: Path, decoded: list[str]
    ) -> None:
        list(ImageLoader(ImageStore(opened(root)), range(COUNT), VIEWS, 2, 2).in_order())
        assert len(decoded) == len(set(decoded)) == COUNT

    @pytest.mark.parametrize("kept", ["ram", "disk"])
    def test_with_a_cache_looking_is_the_only_decoding(
        self, root: Path, tmp_path: Path, decoded: list[str], kept: ImageCache
    ) -> None:
        loaded(kept_images(root, kept, tmp_path / "cache"))
        assert len(decoded) == len(set(decoded)) == COUNT

    def test_what_is_on_the_disk_is_not_decoded_by_the_next_run(
        self, root: Path, tmp_path: Path, decoded: list[str]
    ) -> None:
        kept_images(root, "disk", tmp_path / "cache")
        decoded.clear()
        loaded(kept_images(root, "disk", tmp_path / "cache"))
        assert decoded == []

    def test_memory_keeps_to_its_bound(self, root: Path, decoded: list[str]) -> None:
        view = by_split(VIEWS)["val"]["fine"]
        images = ImageStore(opened(root), {"val": {"fine": view}}, kept=KeptImages(BoundedCache(4 * 24 * 24 * 3 + 5)))
        for record in images.dataset.records:
            images.read(record, "val")
        decoded.clear()
        for record in images.dataset.records:
            images.get(record, {"fine": view})
        assert len(decoded) == COUNT - 4


class TestDisk:
    @pytest.fixture
    def cache(self, root: Path, tmp_path: Path) -> Path:
        kept_images(root, "disk", tmp_path / "cache")
        return tmp_path / "cache"

    def test_runs_share_what_has_the_same_content_and_view(self, cache: Path, root: Path) -> None:
        folders = sorted((cache / "features").iterdir())
        assert len(folders) == 2  # with the room for a crop, and without
        before = {file: file.read_bytes() for folder in folders for file in shards_in(folder)}
        kept_images(root, "disk", cache)
        assert {file: file.read_bytes() for folder in folders for file in shards_in(folder)} == before

    def test_a_changed_image_is_another_one(self, cache: Path, root: Path) -> None:
        Image.new("RGB", (50, 50), (250, 3, 3)).save(root / "a" / "00.png")
        assert_same(loaded(kept_images(root, "disk", cache)), loaded(kept_images(root, "none", cache)))

    def test_a_flipped_byte_is_found_and_the_image_made_again(self, cache: Path, root: Path) -> None:
        for folder in (cache / "features").iterdir():
            file = shards_in(folder)[0]
            content = bytearray(file.read_bytes())
            content[-100] ^= 1
            file.write_bytes(content)
        assert_same(loaded(kept_images(root, "disk", cache)), loaded(kept_images(root, "none", cache)))

    def test_a_process_killed_while_it_fills_costs_only_what_it_was_making(self, root: Path, tmp_path: Path) -> None:
        cache = tmp_path / "killed"
        process = subprocess.Popen(
            [sys.executable, "-c", FILL_SLOWLY, __file__, str(root), str(cache)], stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        assert process.stdout.readline() == "making\n"
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
        assert not [file for folder in (cache / "features").iterdir() for file in shards_in(folder)]
        assert_same(loaded(kept_images(root, "disk", cache)), loaded(kept_images(root, "none", cache)))

    def test_a_folder_that_cannot_be_is_refused_before_anything_is_read(self, root: Path, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        with pytest.raises(InputError, match="is a file") as refusal:
            looked_at(root, "disk", tmp_path / "file" / "cache")
        assert (refusal.value.kind, "--cache-images ram" in refusal.value.hint) == ("not_writable", True)

    def test_a_read_only_folder_is_refused(self, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(os, "access", lambda path, mode, **options: not mode & os.W_OK)
        with pytest.raises(InputError, match="read-only") as refusal:
            looked_at(root, "disk", tmp_path / "cache")
        assert "--cache-dir" in refusal.value.hint
        assert not (tmp_path / "cache").exists()

    def test_images_that_do_not_fit_are_refused_and_nothing_is_written(
        self, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        images = looked_at(root, "disk", tmp_path / "cache")
        monkeypatch.setattr("petlbench.features.maintenance.free_bytes", lambda folder: 1000)
        with pytest.raises(InputError, match="keeping the resized images would write") as refusal:
            check_disk(images, INDICES, CacheConfig(tmp_path / "cache"))
        assert (refusal.value.kind, "--cache-images ram" in refusal.value.hint) == ("no_room", True)
        assert not (tmp_path / "cache").exists()

    def test_a_disk_that_becomes_full_is_said(
        self, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def full(file: Path, *rest: object) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr("petlbench.features.shard.write_tensors", full)
        with pytest.raises(RunError, match="No space left") as failure:
            kept_images(root, "disk", tmp_path / "cache")
        assert "--cache-images ram" in failure.value.hint
        assert "--no-preload" not in failure.value.hint


# Says that it makes the first shard's last image, and never ends.
FILL_SLOWLY = """
import importlib.util, sys, time
from pathlib import Path
spec = importlib.util.spec_from_file_location("helpers", sys.argv[1])
helpers = importlib.util.module_from_spec(spec)
sys.modules["helpers"] = helpers
spec.loader.exec_module(helpers)
from petlbench.features import shard, store

def stuck(file, names, tensors):
    file.with_name(f".{file.name}.1.tmp").write_bytes(b"half")
    print("making", flush=True)
    time.sleep(600)

store.write_shard = stuck
helpers.kept_images(Path(sys.argv[2]), "disk", Path(sys.argv[3]))
"""


@pytest.mark.parametrize("kept", ["ram", "disk", "none"])
def test_a_run_is_the_same_wherever_its_images_are_kept(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], kept: str
) -> None:
    root, rng = tmp_path / "noise", np.random.default_rng(0)
    for number in range(24):
        (root / "ab"[number % 2]).mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(0, 256, (40, 40, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(root / "ab"[number % 2] / f"{number:02d}.png")

    def run(*options: str) -> dict[str, Any]:
        command = ["run", "--method", "bitfit", "--dataset", str(root), "--backbone", "petlbench_micro"]
        command += ["--image-size", "32", "--batch-size", "4", "--epochs", "1", "--threads", "1", "--device", "cpu"]
        command += ["--tracking-uri", "none", "--json", "--cache-dir", str(tmp_path / "cache"), "--rerun"]
        status = run_command([*command, "--output", str(tmp_path / "results"), *options])
        document: dict[str, Any] = json.loads(capsys.readouterr().out)
        assert (status, document.get("status")) == (0, "finished"), document
        return document

    default, chosen = run(), run("--cache-images", kept)
    assert (default["run_id"], default["metrics"], default["curve"]) == (
        chosen["run_id"],
        chosen["metrics"],
        chosen["curve"],
    )
    assert bool(list(tmp_path.glob("cache/features/*/*.safetensors"))) == (kept == "disk")

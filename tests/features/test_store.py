"""The feature cache on disk: whole shards or none, found again, and the same whoever makes them."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor

from petlbench.features.store import FeatureStore
from petlbench.models.method import TensorSpec

TENSORS = {"keys": TensorSpec((2, 5)), "scale": TensorSpec((2,), torch.float16)}
EACH = sum(spec.bytes for spec in TENSORS.values())
IMAGES = [f"image-{number:03d}" for number in range(23)]


class Extractor:
    """Features that tell their image, and a count of who was asked."""

    def __init__(self, images: Sequence[str] = IMAGES) -> None:
        self.images = images
        self.asked: list[str] = []

    def __call__(self, positions: Sequence[int]) -> Mapping[str, Tensor]:
        self.asked += [self.images[position] for position in positions]
        number = torch.tensor([float(self.images[position][-3:]) for position in positions])
        return {
            "keys": number[:, None, None] + torch.arange(10).reshape(2, 5) / 16,
            "scale": (number[:, None] / 4).expand(-1, 2),
        }


def opened(folder: Path) -> FeatureStore:
    return FeatureStore(folder, TENSORS, shard_bytes=4 * EACH)


def files(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.glob("*.safetensors")}


def filled(folder: Path, images: Sequence[str] = IMAGES) -> tuple[FeatureStore, Extractor]:
    store, extract = opened(folder), Extractor(images)
    store.fill(images, extract)
    return store, extract


def slowly_filled(folder: Path) -> None:
    extract = Extractor()

    def slow(positions: Sequence[int]) -> Mapping[str, Tensor]:
        time.sleep(0.05)
        with (folder / "asked").open("a") as log:
            log.write("".join(f"{IMAGES[position]}\n" for position in positions))
        return extract(positions)

    opened(folder).fill(IMAGES, slow)


class TestRows:
    def test_features_too_large_for_memory_are_the_same_from_their_shards(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        store, _ = filled(tmp_path)
        rows = store.rows(IMAGES[::-1])
        monkeypatch.setattr("petlbench.features.store._IN_MEMORY", 0)
        large, _ = filled(tmp_path)
        assert all(torch.equal(rows[name], other) for name, other in large.rows(IMAGES[::-1]).items())

    def test_an_image_gets_its_own_features_in_the_stored_type(self, tmp_path: Path) -> None:
        store, extract = filled(tmp_path)
        wanted = [IMAGES[place] for place in (22, 0, 7, 7)]
        rows, expected = store.rows(wanted), extract([22, 0, 7, 7])
        assert torch.equal(rows["keys"], expected["keys"])
        assert torch.equal(rows["scale"], expected["scale"].half())
        assert rows["scale"].dtype == torch.float16

    def test_one_number_an_image_can_be_stored(self, tmp_path: Path) -> None:
        store = FeatureStore(tmp_path, {"scale": TensorSpec((), torch.bfloat16)})
        store.fill(IMAGES, lambda positions: {"scale": torch.tensor(positions).bfloat16()})
        assert store.rows(IMAGES[3:5])["scale"].tolist() == [3.0, 4.0]

    def test_an_unknown_image_is_an_error(self, tmp_path: Path) -> None:
        store, _ = filled(tmp_path)
        assert "image-099" not in store
        with pytest.raises(KeyError):
            store.rows(["image-099"])


class TestFilling:
    def test_each_image_is_computed_once(self, tmp_path: Path) -> None:
        _, first = filled(tmp_path, [*IMAGES, IMAGES[0], IMAGES[20]])
        _, second = filled(tmp_path)
        assert sorted(first.asked) == IMAGES
        assert second.asked == []

    def test_all_images_are_told_however_they_come(self, tmp_path: Path) -> None:
        filled(tmp_path, IMAGES[3:9])
        counts: list[int] = []
        opened(tmp_path).fill(IMAGES, Extractor(), counts.append)
        assert sum(counts) == 6
        opened(tmp_path).fill(IMAGES, Extractor(), counts.append)
        assert sum(counts) == 6 + len(IMAGES)

    def test_nothing_but_shards_is_left(self, tmp_path: Path) -> None:
        filled(tmp_path)
        assert {file.suffix for file in tmp_path.iterdir()} == {".safetensors"}

    def test_what_another_dataset_brought_is_not_computed_again(self, tmp_path: Path) -> None:
        filled(tmp_path, IMAGES[3:9])
        store, extract = filled(tmp_path)
        assert extract.asked == [*IMAGES[:3], *IMAGES[9:]]
        assert all(image in store for image in IMAGES)

    def test_a_full_disk_is_said_and_whole_shards_stay(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        from petlbench.core.errors import RunError
        from petlbench.features import shard as module

        written = module.write_tensors

        def full(file: Path, *rest: object) -> None:
            if len(files(tmp_path)) == 2:
                raise OSError(28, "No space left on device")
            written(file, *rest)  # type: ignore[arg-type]

        monkeypatch.setattr(module, "write_tensors", full)
        with pytest.raises(RunError, match="No space left"):
            filled(tmp_path)
        monkeypatch.undo()
        assert len(files(tmp_path)) == 2
        _, extract = filled(tmp_path)
        assert extract.asked == IMAGES[8:]


class TestSize:
    def test_what_is_missing_is_said_before_it_is_written(self, tmp_path: Path) -> None:
        digests = [f"{number:064d}" for number in range(23)]
        expected = opened(tmp_path / "store").missing_bytes(digests)
        assert not (tmp_path / "store").exists()
        filled(tmp_path / "store", digests)
        written = sum(map(len, files(tmp_path / "store").values()))
        assert written <= expected
        assert expected - written <= 6 * 5 * 1024 + 23 * 72
        assert opened(tmp_path / "store").missing_bytes(digests) == 0

    def test_the_size_of_many_images_is_that_of_their_features(self, tmp_path: Path) -> None:
        store = FeatureStore(tmp_path, {"keys": TensorSpec((12, 12, 205, 64), torch.int8)})
        assert store.bytes_of(1_000, spread_over=1_000) == pytest.approx(1_000 * 12 * 12 * 205 * 64, rel=0.001)

    def test_images_that_are_there_need_no_room(self, tmp_path: Path) -> None:
        filled(tmp_path, IMAGES[:20])
        alone = opened(tmp_path).bytes_of(3, spread_over=23)
        assert opened(tmp_path).missing_bytes([*IMAGES, *IMAGES]) == pytest.approx(alone, abs=3 * 5 * 1024)


class TestSharing:
    def test_two_processes_fill_one_store_and_compute_nothing_twice(self, tmp_path: Path) -> None:
        shared, alone = tmp_path / "shared", tmp_path / "alone"
        shared.mkdir()
        context = multiprocessing.get_context("fork")
        processes = [context.Process(target=slowly_filled, args=(shared,)) for _ in range(2)]
        for process in processes:
            process.start()
        for process in processes:
            process.join()
        filled(alone)
        assert files(shared) == files(alone)
        assert sorted((shared / "asked").read_text().split()) == IMAGES

    @pytest.mark.parametrize("after", [0.03, 0.12, 0.21])
    def test_a_killed_process_leaves_nothing_half_valid(self, tmp_path: Path, after: float) -> None:
        shared, alone = tmp_path / "shared", tmp_path / "alone"
        shared.mkdir()
        process = multiprocessing.get_context("fork").Process(target=slowly_filled, args=(shared,))
        process.start()
        time.sleep(after)
        assert process.pid is not None
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        filled(shared)
        filled(alone)
        assert files(shared) == files(alone)


class TestDamage:
    def test_a_flipped_byte_anywhere_is_found_and_mended(self, tmp_path: Path) -> None:
        filled(tmp_path)
        whole = files(tmp_path)
        name = sorted(whole)[0]
        for place in (0, 9, 60, 200, len(whole[name]) - 300, len(whole[name]) - 1):
            damaged = bytearray(whole[name])
            damaged[place] ^= 1
            (tmp_path / name).write_bytes(bytes(damaged))
            _, extract = filled(tmp_path)
            assert files(tmp_path) == whole, place
            assert 0 < len(extract.asked) <= 4

    def test_a_shortened_file_is_made_again(self, tmp_path: Path) -> None:
        filled(tmp_path)
        whole = files(tmp_path)
        name = sorted(whole)[-1]
        for length in (0, 5, 100, len(whole[name]) - 1):
            (tmp_path / name).write_bytes(whole[name][:length])
            filled(tmp_path)
            assert files(tmp_path) == whole

    def test_a_shard_of_another_form_is_not_taken(self, tmp_path: Path) -> None:
        filled(tmp_path)
        other = FeatureStore(tmp_path, {"keys": TensorSpec((2, 4))}, shard_bytes=64)
        other.fill(IMAGES[:1], lambda positions: {"keys": torch.zeros(len(positions), 2, 4)})
        assert other.rows(IMAGES[:1])["keys"].shape == (1, 2, 4)

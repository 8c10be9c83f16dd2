"""One file of the feature cache: nothing in it can change unnoticed."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from petlbench.features.shard import DamagedShardError, being_written, images_of, only_writer, read_shard, write_shard

IMAGES = ["a" * 64, "b" * 64]


@pytest.fixture
def shard(tmp_path: Path) -> Path:
    file = tmp_path / "s.safetensors"
    write_shard(file, IMAGES, {"final": torch.arange(16).reshape(2, 8), "final.scale": torch.ones(2)})
    return file


def test_what_was_written_is_read(shard: Path) -> None:
    names, tensors = read_shard(shard)
    assert names == images_of(shard) == IMAGES
    assert torch.equal(tensors["final"], torch.arange(16).reshape(2, 8))
    assert tensors["final.scale"].shape == (2,)


def test_every_flipped_bit_is_noticed(shard: Path) -> None:
    whole = shard.read_bytes()
    for place in range(len(whole)):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << place % 8
        shard.write_bytes(bytes(damaged))
        with pytest.raises(DamagedShardError):
            read_shard(shard)


def test_what_is_not_there_is_not_damaged(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_shard(tmp_path / "s.safetensors")
    assert images_of(tmp_path / "s.safetensors") == []


def test_no_images_are_known_of_what_is_no_shard(shard: Path) -> None:
    shard.write_bytes(b"no shard")
    assert images_of(shard) == []


def test_a_shard_has_one_writer(shard: Path) -> None:
    assert not being_written(shard)
    with only_writer(shard) as first, only_writer(shard) as second:
        assert (first, second) == (True, False)
        assert being_written(shard)
    assert not being_written(shard)

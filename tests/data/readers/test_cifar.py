"""CIFAR's archive: what is read from a made-up one in its form, and how each bad one is refused."""

from __future__ import annotations

import gzip
import io
import tarfile
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from petlbench.core.errors import InputError
from petlbench.core.progress import Progress
from petlbench.data.dataset import Dataset, open_dataset
from petlbench.data.official.prepare import PrepareOptions, prepare_dataset
from tests.data.official_files import unchecked_card
from tests.data.official_releases import CATALOG

NAME = "cifar-100-binary.tar.gz"


def rows(count: int, seed: int) -> NDArray[np.uint8]:
    made = np.random.default_rng(seed).integers(0, 256, (count, 3074), dtype=np.uint8)
    made[:, 0], made[:, 1] = np.arange(count) % 20, np.arange(count) % 100
    return made


def archive(folder: Path, **parts: bytes) -> Path:
    """Write the archive, each part as the file of that name with .bin behind it."""
    folder.mkdir(parents=True, exist_ok=True)
    with tarfile.open(folder / NAME, "w:gz") as package:
        for name, content in {"fine_label_names": b"apple\n", **parts}.items():
            info = tarfile.TarInfo(f"cifar-100-binary/{name}.bin")
            info.size = len(content)
            package.addfile(info, io.BytesIO(content))
    return folder / NAME


def opened(root: Path) -> Dataset:
    return open_dataset("cifar100", catalog=CATALOG, data_root=root, settings={})


def refused(root: Path) -> InputError:
    with pytest.raises(InputError) as caught:
        opened(root)
    return caught.value


def test_both_parts_their_fine_labels_and_their_pixels(tmp_path: Path) -> None:
    train, test = rows(200, 0), rows(100, 1)
    archive(tmp_path / "from", train=train.tobytes(), test=test.tobytes())
    card = str(unchecked_card("cifar100", tmp_path))
    options = PrepareOptions(source=tmp_path / "from")
    prepare_dataset(card, CATALOG, tmp_path / "root", {}, options, workers=1, progress=Progress())
    dataset = opened(tmp_path / "root")
    assert [record.split for record in dataset.records] == ["train"] * 200 + ["test"] * 100
    assert [record.label for record in dataset.records[:101]] == [*range(100), 0]
    pixels = np.asarray(dataset.open(dataset.records[207]))
    assert np.array_equal(pixels[3, 5], test[7, 2:].reshape(3, 32, 32)[:, 3, 5])
    assert dataset.card.counts.official.images == 60_000


def test_another_archive_is_not_taken_for_the_official_one(tmp_path: Path) -> None:
    archive(tmp_path / "from", train=rows(1, 0).tobytes(), test=rows(1, 0).tobytes())
    options = PrepareOptions(source=tmp_path / "from")
    with pytest.raises(InputError, match="is not the official file"):
        prepare_dataset("cifar100", CATALOG, tmp_path / "root", {}, options, workers=1, progress=Progress())


def test_a_bad_archive_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, good = tmp_path / "cifar100", rows(100, 0).tobytes()
    assert refused(tmp_path).kind == "data_missing"
    file = archive(folder, train=good)
    assert "it has no test.bin" in refused(tmp_path).message
    archive(folder, train=good, test=good[:-1])
    assert "which is no number of images" in refused(tmp_path).message
    archive(folder, train=good, test=good[:1] + b"\xff" + good[2:])
    assert "255" in refused(tmp_path).message
    archive(folder, train=good, test=good)
    file.write_bytes(file.read_bytes()[:-2000])
    assert "it cannot be read" in refused(tmp_path).message
    file.write_bytes(b"no archive")
    assert refused(tmp_path).kind == "bad_archive"
    monkeypatch.setattr("petlbench.data.readers.cifar._LIMIT", 1 << 20)
    file.write_bytes(gzip.compress(bytes(2 << 20)))
    assert "far more than the official archive" in refused(tmp_path).message

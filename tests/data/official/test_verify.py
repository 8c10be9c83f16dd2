"""Verifying: what is as it was passes, and every kind of change is named."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from PIL import Image

from petlbench.core.catalog import Catalog
from petlbench.core.errors import InputError
from petlbench.core.progress import Progress
from petlbench.data.official.prepare import PrepareOptions, prepare_dataset
from petlbench.data.official.verify import Verified, verify_dataset
from tests.data.official_files import make


@pytest.fixture
def images(tmp_path: Path) -> list[Path]:
    """The images of a prepared dataset, which lie where the user has them."""
    source = make("isic2016", tmp_path / "mine", images_per_class=4)
    prepare_dataset(
        "isic2016",
        Catalog(),
        tmp_path / "data",
        {},
        PrepareOptions(source),
        workers=1,
        progress=Progress(),
    )
    return sorted(source.rglob("*.jpg"))


def verified(tmp_path: Path, progress: Progress | None = None) -> Verified:
    return verify_dataset("isic2016", Catalog(), tmp_path / "data", 2, progress or Progress())


def test_whole(images: list[Path], tmp_path: Path) -> None:
    done: list[int] = []

    class Listening(Progress):
        def advance(self, count: int = 1) -> None:
            done.append(count)

    found = verified(tmp_path, Listening())
    assert (found.images, found.faults) == (len(images), [])
    assert found.bytes == sum(image.stat().st_size for image in images)
    assert sum(done) == len(images)


def test_every_kind_of_change_is_named(images: list[Path], tmp_path: Path) -> None:
    gone, longer, other, *_ = images
    gone.unlink()
    longer.write_bytes(longer.read_bytes() + b"x")
    content = bytearray(other.read_bytes())
    content[-30] ^= 1
    other.write_bytes(content)
    manifest = tmp_path / "data" / "isic2016" / "splits" / "official.csv"
    manifest.write_bytes(manifest.read_bytes().replace(b",train,", b",test,", 1))
    found = verified(tmp_path)
    assert [(fault.kind, fault.file) for fault in found.faults] == [
        ("missing", str(gone)),
        ("size", str(longer)),
        ("checksum", str(other)),
        ("manifest", str(manifest)),
    ]
    assert all(fault.file in fault.message for fault in found.faults)


def test_a_manifest_that_is_gone(images: list[Path], tmp_path: Path) -> None:
    (tmp_path / "data" / "isic2016" / "splits" / "official.csv").unlink()
    assert [fault.kind for fault in verified(tmp_path).faults] == ["manifest"]


def test_another_image_of_the_same_size_is_noticed(images: list[Path], tmp_path: Path) -> None:
    stream = io.BytesIO()
    Image.new("RGB", (32, 32)).save(stream, "PNG")
    content = stream.getvalue()
    images[0].write_bytes(content + bytes(images[0].stat().st_size - len(content)))
    assert [fault.kind for fault in verified(tmp_path).faults] == ["checksum"]


def test_what_is_not_prepared_cannot_be_verified(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        verified(tmp_path)
    assert caught.value.kind == "data_missing"


def test_what_has_no_table_cannot_be_verified(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        verify_dataset("digits", Catalog(), tmp_path, 1, Progress())
    assert caught.value.kind == "nothing_to_verify"

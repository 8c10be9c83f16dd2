"""Decoding: every mode becomes upright 8-bit RGB, and every broken file is named."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from petlbench.data.images import decode_image, read_image, to_rgb
from petlbench.errors import InputError


def encoded(image: Image.Image, form: str = "PNG", **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, form, **options)
    return stream.getvalue()


NOISE = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
PNG = encoded(Image.fromarray(NOISE))
JPEG = encoded(Image.fromarray(NOISE), "JPEG")


@pytest.mark.parametrize("mode", ["1", "L", "P", "LA", "RGB", "RGBA", "CMYK", "YCbCr"])
def test_every_mode_becomes_rgb(mode: str) -> None:
    assert to_rgb(Image.fromarray(NOISE).convert(mode), "x").mode == "RGB"


def test_sixteen_bits_are_scaled_by_the_full_range() -> None:
    levels = np.array([[0, 257, 32896, 65535]], dtype=np.uint16)
    decoded = decode_image(encoded(Image.fromarray(levels)), "x")
    assert np.asarray(decoded)[0, :, 0].tolist() == [0, 1, 128, 255]


def test_floats_from_zero_to_one_are_scaled() -> None:
    decoded = decode_image(encoded(Image.fromarray(np.array([[0.0, 0.5, 1.0]], dtype=np.float32)), "TIFF"), "x")
    assert np.asarray(decoded)[0, :, 0].tolist() == [0, 128, 255]


@pytest.mark.parametrize("level", [-1.0, 70_000.0, float("nan")])
def test_values_of_no_known_range_are_refused(level: float) -> None:
    content = encoded(Image.fromarray(np.array([[0.0, level]], dtype=np.float32)), "TIFF")
    with pytest.raises(InputError, match="range"):
        decode_image(content, "x")


def test_transparent_parts_are_black() -> None:
    image = Image.new("RGBA", (2, 1), (255, 255, 255, 0))
    assert decode_image(encoded(image), "x").getpixel((0, 0)) == (0, 0, 0)


def test_exif_orientation_is_applied() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    assert decode_image(encoded(Image.new("RGB", (4, 2)), "JPEG", exif=exif), "x").size == (2, 4)


@pytest.mark.parametrize("content", [PNG, JPEG], ids=["png", "jpeg"])
@pytest.mark.parametrize("part", [0.0, 0.01, 0.3, 0.9])
def test_a_file_cut_off_is_named(tmp_path: Path, content: bytes, part: float) -> None:
    file = tmp_path / "cut.png"
    file.write_bytes(content[: int(len(content) * part)])
    with pytest.raises(InputError) as caught:
        read_image(file)
    assert caught.value.kind == "corrupt_image"
    assert str(file) in caught.value.message


def test_the_content_decides_not_the_suffix(tmp_path: Path) -> None:
    file = tmp_path / "really_a.png"
    file.write_bytes(JPEG)
    assert read_image(file).size == (40, 40)


@pytest.mark.parametrize("content", [b"hello", b"%!PS-Adobe-3.0 EPSF-3.0\n", bytes(128) + b"DICM" + bytes(99)])
def test_what_is_no_image_is_refused(content: bytes) -> None:
    with pytest.raises(InputError) as caught:
        decode_image(content, "x")
    assert caught.value.kind == "corrupt_image"


def test_an_absent_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        read_image(tmp_path / "none.png")
    assert caught.value.kind == "missing_image"


@given(st.sampled_from([PNG, JPEG]), st.data())
def test_any_damage_gives_an_image_or_an_input_error(content: bytes, data: st.DataObject) -> None:
    damaged = bytearray(content)
    for _ in range(data.draw(st.integers(1, 5))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    try:
        assert decode_image(bytes(damaged), "x").mode == "RGB"
    except InputError as error:
        assert error.kind == "corrupt_image"

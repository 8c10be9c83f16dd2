"""Decoding: every mode becomes upright 8-bit RGB, and every broken file is named."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from petlbench.core.errors import InputError
from petlbench.data.images.decode import Decoding, decode_image, is_image, read_bytes, read_image, to_rgb
from petlbench.data.images.files import read_facts, read_header
from petlbench.data.views import Normalization, View


def encoded(image: Image.Image, form: str = "PNG", **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, form, **options)
    return stream.getvalue()


NOISE = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
PNG = encoded(Image.fromarray(NOISE))
JPEG = encoded(Image.fromarray(NOISE), "JPEG")
TIFF = encoded(Image.fromarray(NOISE), "TIFF", compression="tiff_lzw")
DEEP = encoded(Image.fromarray(NOISE[..., 0].astype(np.uint16) * 257))
VIEW = View(64, "bilinear", Normalization((0.5, 0.5, 0.5), (0.5, 0.5, 0.5), "test"))


@pytest.mark.parametrize("mode", ["1", "L", "P", "LA", "RGB", "RGBA", "CMYK", "YCbCr"])
def test_every_mode_becomes_rgb(mode: str) -> None:
    content = encoded(Image.fromarray(NOISE).convert(mode), "TIFF")
    assert to_rgb(decode_image(content, "x")).mode == "RGB"


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "CMYK"])
def test_eight_bits_are_taken_as_pillow_converts_them(mode: str) -> None:
    image = Image.fromarray(NOISE).convert(mode)
    decoded = decode_image(encoded(image, "TIFF"), "x")
    assert decoded.mode == "RGB"
    assert to_rgb(decoded) is decoded
    assert np.array_equal(np.asarray(decoded), np.asarray(image.convert("RGB")))


@pytest.mark.parametrize("form", ["PNG", "TIFF"])
def test_sixteen_bits_are_scaled_by_the_full_range(form: str) -> None:
    levels = np.array([[0, 257, 32896, 65535]], dtype=np.uint16)
    decoded = decode_image(encoded(Image.fromarray(levels), form), "x")
    assert decoded.mode == "F"
    assert np.asarray(to_rgb(decoded))[0, :, 0].tolist() == [0, 1, 128, 255]


def test_sixteen_bits_are_rounded_once() -> None:
    levels = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    rounded = np.asarray(to_rgb(decode_image(encoded(Image.fromarray(levels)), "x")))[..., 0]
    assert np.array_equal(rounded, np.rint(levels / 257).astype(np.uint8))


def test_a_deep_gradient_keeps_more_levels_when_it_is_resized_before_it_is_reduced() -> None:
    # A slow rise over few levels of 8 bits: reduced first, it is a staircase, and resizing blurs its steps.
    rise = np.linspace(0, 256 * 64, 512)
    levels = np.stack([rise + 100, rise + 28], axis=0).repeat(256, axis=0).astype(np.uint16)
    deep = decode_image(encoded(Image.fromarray(levels)), "x")
    first_resized = np.asarray(VIEW.store(deep))[..., 0]
    first_reduced = np.asarray(VIEW.store(to_rgb(deep)))[..., 0]
    exact = np.asarray(deep.resize((64, 64), Image.Resampling.BILINEAR))
    assert len(np.unique(exact)) > 2 * len(np.unique(first_resized))
    assert np.abs(first_resized - exact).max() <= 0.5 + 1e-4 < np.abs(first_reduced - exact).max()


def test_resizing_that_overshoots_is_cut() -> None:
    edge = np.zeros((64, 64), dtype=np.uint16)
    edge[:, 32:] = 65535
    stored = np.asarray(
        View(200, "lanczos", VIEW.normalization).store(decode_image(encoded(Image.fromarray(edge)), "x"))
    )
    assert stored[:, :90].max() < 30
    assert stored[:, 110:].min() > 225


def test_floats_from_zero_to_one_are_scaled() -> None:
    decoded = decode_image(encoded(Image.fromarray(np.array([[0.0, 0.5, 1.0]], dtype=np.float32)), "TIFF"), "x")
    assert np.asarray(to_rgb(decoded))[0, :, 0].tolist() == [0, 128, 255]


@pytest.mark.parametrize("level", [-1.0, 70_000.0, float("nan")])
def test_values_of_no_known_range_are_refused(level: float) -> None:
    content = encoded(Image.fromarray(np.array([[0.0, level]], dtype=np.float32)), "TIFF")
    with pytest.raises(InputError, match="range"):
        decode_image(content, "x")


def test_transparent_parts_are_black() -> None:
    image = Image.new("RGBA", (2, 1), (255, 255, 255, 0))
    assert decode_image(encoded(image), "x").getpixel((0, 0)) == (0, 0, 0)


@pytest.mark.parametrize("form", ["JPEG", "PNG", "TIFF", "WEBP"])
def test_exif_orientation_is_applied(form: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    half = Image.new("RGB", (40, 20))
    half.paste((255, 255, 255), (0, 0, 20, 20))
    upright = decode_image(encoded(half, form, exif=exif), "x")
    assert upright.size == (20, 40)
    assert upright.getpixel((10, 5)) > (200, 200, 200)
    assert upright.getpixel((10, 35)) < (50, 50, 50)


def test_deep_greys_are_turned_too() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    levels = np.zeros((2, 4), dtype=np.uint16)
    assert decode_image(encoded(Image.fromarray(levels), exif=exif), "x").size == (2, 4)


@pytest.mark.parametrize("content", [PNG, JPEG, DEEP, TIFF], ids=["png", "jpeg", "deep", "tiff"])
@pytest.mark.parametrize("part", [0.0, 0.01, 0.3, 0.9])
def test_a_file_cut_off_is_named(tmp_path: Path, content: bytes, part: float) -> None:
    file = tmp_path / "cut.png"
    file.write_bytes(content[: int(len(content) * part)])
    with pytest.raises(InputError) as caught:
        read_image(file)
    assert caught.value.kind == "corrupt_image"
    assert str(file) in caught.value.message


@pytest.mark.parametrize("name", ["really_a.png", "UPPER.JPG", "old.jfif", "none", "wrong.txt"])
def test_the_content_decides_not_the_suffix(tmp_path: Path, name: str) -> None:
    file = tmp_path / name
    file.write_bytes(JPEG)
    assert read_image(file).size == (40, 40)
    assert is_image(file)


@pytest.mark.parametrize("content", [b"", b"hello", b"BM", b"P3 patients", b"%!PS-Adobe-3.0 EPSF-3.0\n", bytes(300)])
def test_what_is_no_image_is_refused(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(InputError) as caught:
        decode_image(content, "x")
    assert caught.value.kind == "corrupt_image"
    (tmp_path / "x").write_bytes(content)
    assert not is_image(tmp_path / "x")


def test_an_absent_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        read_image(tmp_path / "none.png")
    assert caught.value.kind == "missing_image"


@given(st.sampled_from([PNG, JPEG, DEEP, TIFF]), st.data())
def test_any_damage_gives_an_image_or_an_input_error(content: bytes, data: st.DataObject) -> None:
    damaged = bytearray(content)
    for _ in range(data.draw(st.integers(1, 5))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    try:
        assert to_rgb(decode_image(bytes(damaged), "x")).mode == "RGB"
    except InputError as error:
        assert error.kind == "corrupt_image"


def test_an_image_of_too_many_pixels_names_the_setting_that_allows_it(monkeypatch: pytest.MonkeyPatch) -> None:
    content = encoded(Image.new("L", (40, 30)))
    with pytest.raises(InputError, match=r"has 40 x 30 pixels, more than dataset\.most_pixels = 1199") as caught:
        decode_image(content, "x", Decoding(most_pixels=1199))
    assert (caught.value.kind, "dataset.most_pixels=1200" in caught.value.hint) == ("too_many_pixels", True)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    assert decode_image(content, "x", Decoding(most_pixels=1200)).size == (40, 30), "whatever Pillow bears"
    assert Image.MAX_IMAGE_PIXELS == 100, "which others may rely on"


@pytest.mark.parametrize("make", ["pipe", "zero", "loop", "folder"])
def test_what_is_no_regular_file_keeps_nobody_waiting(make: str, tmp_path: Path) -> None:
    file = tmp_path / "x.png"
    {"pipe": os.mkfifo, "zero": _zero, "loop": _loop, "folder": Path.mkdir}[make](file)
    assert not is_image(file)
    for read in (read_header, read_image, read_bytes, read_facts):
        with pytest.raises(InputError, match=r"x\.png (is a|cannot be read)"):
            read(file)


def test_a_file_of_more_bytes_than_its_pixels_can_take_is_not_read(tmp_path: Path) -> None:
    file = tmp_path / "x.png"
    file.write_bytes(bytes(200))
    with pytest.raises(InputError, match="holds more than") as caught:
        read_image(file, Decoding(most_pixels=10))
    assert "dataset.most_pixels" in caught.value.hint


def _zero(file: Path) -> None:
    file.symlink_to("/dev/zero")


def _loop(file: Path) -> None:
    file.symlink_to(file)

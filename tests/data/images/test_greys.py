"""Greys of more than 8 bits: what is white follows from the whole dataset, is named in the caches, and is said."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from petlbench.core.catalog import Catalog
from petlbench.core.errors import InputError
from petlbench.core.progress import Progress
from petlbench.data.dataset import Dataset, open_dataset
from petlbench.data.images.decode import Decoding, decode_image, grey_range
from petlbench.data.images.files import read_header
from petlbench.data.images.greys import GreyRange, Greys, Kind
from petlbench.data.loader import ImageStore
from petlbench.data.overview import overview_of

PICTURE = np.linspace(0.0, 0.98, 64).reshape(8, 8)
FORMS: dict[str, tuple[str, Callable[[np.ndarray], Image.Image]]] = {
    "10 bits": (".png", lambda p: Image.fromarray(np.rint(p * 1023).astype(np.uint16))),
    "12 bits": (".tif", lambda p: Image.fromarray(np.rint(p * 4095).astype(np.uint16))),
    "16 bits": (".png", lambda p: Image.fromarray(np.rint(p * 65535).astype(np.uint16))),
    "floats to 1": (".tif", lambda p: Image.fromarray(p.astype(np.float32))),
    "floats to 255": (".tif", lambda p: Image.fromarray((p * 255).astype(np.float32))),
    "floats to 4095": (".tif", lambda p: Image.fromarray((p * 4095).astype(np.float32))),
    "32 bits": (".tif", lambda p: Image.fromarray(np.rint(p * 255).astype(np.int32))),
}


def write(folder: Path, form: str, brightness: float = 1.0) -> Path:
    suffix, make = FORMS[form]
    for number, name in enumerate(("a", "b", "a", "b")):
        (folder / name).mkdir(parents=True, exist_ok=True)
        make(PICTURE * (brightness if number else 1.0)).save(folder / name / f"{number}{suffix}")
    return folder


def opened(folder: Path, **settings: Any) -> Dataset:
    return open_dataset(str(folder), catalog=Catalog(), data_root=Path(), settings=settings)


def means(dataset: Dataset) -> list[float]:
    return [float(np.asarray(dataset.open(record), dtype=float).mean()) for record in dataset.records]


@pytest.mark.parametrize("form", FORMS)
def test_a_picture_is_as_bright_whatever_it_is_coded_in(form: str, tmp_path: Path) -> None:
    dataset = opened(write(tmp_path, form, brightness=0.5))
    assert means(dataset) == pytest.approx([125.0, 62.5, 62.5, 62.5], abs=0.6), "and brightness compares"
    levels = np.unique(np.asarray(dataset.open(dataset.records[0]))[..., 0])
    assert len(levels) == 64, "no level is lost that eight bits can hold"


def test_what_was_found_is_said_once_it_was_measured(tmp_path: Path) -> None:
    dataset = opened(write(tmp_path, "12 bits"))
    assert dataset.notes == ()
    overview_of(dataset, {}, 2, Progress())
    (note,) = dataset.notes
    assert note.startswith("4 images have greys of more than 8 bits (whole numbers from 0 to 4,013): 4,095 is white")
    assert "--set dataset.grey_maximum=NUMBER" in note
    assert not {"grey_maximum", "most_pixels", "order"} & set(dataset.settings), "run ids are what they were"


def test_a_maximum_that_is_given_says_what_it_costs(tmp_path: Path) -> None:
    dataset = opened(write(tmp_path, "12 bits", brightness=0.25), grey_maximum="2047")
    assert means(dataset)[1] == pytest.approx(62.5, abs=0.6)
    assert np.asarray(dataset.open(dataset.records[0])).max() == 255
    dataset.measure_greys(1, Progress())
    (note,) = dataset.notes
    assert "2,047 is white, as dataset.grey_maximum says; what is below 0 or above it in 1 of them is lost" in note


def test_a_maximum_without_deep_greys_is_said_to_do_nothing(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        Image.new("L", (8, 8), 7).save(tmp_path / name / "0.png")
    dataset = opened(tmp_path, grey_maximum="100")
    dataset.measure_greys(1, Progress())
    assert dataset.notes == ("dataset.grey_maximum is given, and no image has greys of more than 8 bits",)
    assert means(dataset) == [7.0, 7.0]


def test_negative_greys_need_a_maximum(tmp_path: Path) -> None:
    write(tmp_path, "floats to 255")
    Image.fromarray((PICTURE * 255 - 100).astype(np.float32)).save(tmp_path / "a/0.tif")
    with pytest.raises(InputError, match=r"from -100 to 149\.9, .* to 255 \(white: dataset\.grey_maximum\)") as caught:
        means(opened(tmp_path))
    assert "dataset.grey_maximum=NUMBER" in caught.value.hint
    assert means(opened(tmp_path, grey_maximum="255"))[0] < 125


def test_whole_and_floating_numbers_have_whites_of_their_own(tmp_path: Path) -> None:
    write(tmp_path, "12 bits")
    Image.fromarray(PICTURE.astype(np.float32)).save(tmp_path / "a/0.tif")
    dataset = opened(tmp_path)
    assert dataset.greys.whites() == {"whole": 4095.0, "floating": 1.0}
    assert means(dataset) == pytest.approx([125.0] * 4, abs=0.6)


def test_another_white_has_another_key_and_full_numbers_have_the_plain_one(tmp_path: Path) -> None:
    twelve, sixteen = opened(write(tmp_path / "x", "12 bits")), opened(write(tmp_path / "y", "16 bits"))
    given_one = opened(tmp_path / "x", grey_maximum="8191")
    keys = {dataset.pixel_key("d") for dataset in (twelve, sixteen, given_one)}
    assert len(keys) == 3
    assert sixteen.pixel_key("d") == "d", "as before there was a choice"
    store = ImageStore(twelve)
    digest = store.read(twelve.records[0], "train")
    assert (digest, store.digest(twelve.records[0])) == (
        twelve.content_hash(twelve.records[0]),
        twelve.pixel_key(digest),
    )


def test_a_part_of_a_dataset_has_the_white_of_the_whole(tmp_path: Path) -> None:
    dataset = opened(write(tmp_path, "12 bits", brightness=0.1))
    darker = dataset.keep(dataset.records[1:])
    assert means(darker) == pytest.approx([12.5] * 3, abs=0.6)


@given(st.floats(0.001, 65535), st.sampled_from(["whole", "floating", "colour"]))
def test_white_is_no_darker_than_the_lightest_and_less_than_twice_as_light(high: float, kind: Kind) -> None:
    high = high if kind == "floating" else float(round(high))
    white = Greys(lambda: [GreyRange(0.0, high, kind)]).white(kind)
    assert white in {1.0, *(2.0**bits - 1 for bits in range(8, 17))}
    assert high <= white
    assert white <= 255 or high >= white / 2


def test_an_image_alone_has_the_white_of_its_numbers() -> None:
    buffer = io.BytesIO()
    FORMS["16 bits"][1](PICTURE).save(buffer, "PNG")
    content = buffer.getvalue()
    alone, recorded = decode_image(content, "x"), decode_image(content, "x", Decoding(Greys.recorded({})))
    assert np.array_equal(np.asarray(alone), np.asarray(recorded))
    with pytest.raises(InputError, match=r"to 4095 \(white"):
        decode_image(content, "x", Decoding(Greys.recorded({"whole": 4095.0})))


def test_a_format_that_says_itself_what_is_white_is_taken_at_its_word(tmp_path: Path) -> None:
    """PGM names its greatest value: a dark image of such files is dark, whatever the others are."""
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        pixels = np.full((2, 2), 1000, dtype=">u2").tobytes()
        (tmp_path / name / "0.pgm").write_bytes(b"P5\n2 2\n4000\n" + pixels)
    dataset = opened(tmp_path, grey_maximum="1000")
    assert means(dataset) == pytest.approx([255 / 4] * 2, abs=0.6)
    assert dataset.greys.whites() == {}


CHANNELS = np.stack([PICTURE, PICTURE[::-1], PICTURE.T], axis=-1)


def png(numbers: np.ndarray) -> bytes:
    """A PNG file of 16 bits; Pillow writes none with channels."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    height, width, channels = numbers.shape
    head = struct.pack(">IIBBBBB", width, height, 16, {2: 4, 3: 2, 4: 6}[channels], 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in numbers)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def tiff(numbers: np.ndarray, order: str, packed: bool, planes: int = 1) -> bytes:
    """A TIFF file of 16 bits a channel, big- or little-endian, compressed or not."""
    height, width, channels = numbers.shape
    data = numbers.astype(f"{order}u2").tobytes()
    data = zlib.compress(data) if packed else data
    tags = {256: width, 257: height, 258: 0, 259: 8 if packed else 1, 262: 2, 273: 0, 277: channels, 279: len(data)}
    tags |= {284: planes, **({338: 2} if channels == 4 else {})}
    bits_at = 10 + 12 * len(tags) + 4
    tags[273] = bits_at + 2 * channels
    entries = [struct.pack(f"{order}HHII", tag, 4, 1, value) for tag, value in tags.items() if tag != 258]
    entries.insert(2, struct.pack(f"{order}HHII", 258, 3, channels, bits_at))
    head = (b"II" if order == "<" else b"MM") + struct.pack(f"{order}HI", 42, 8)
    bits = struct.pack(f"{order}{channels}H", *[16] * channels)
    return head + struct.pack(f"{order}H", len(tags)) + b"".join(entries) + bytes(4) + bits + data


DEEP_COLOURS: dict[str, Callable[[np.ndarray], bytes]] = {
    "PNG": png,
    **{
        f"TIFF {order} {'packed' if packed else 'plain'}": partial(tiff, order=order, packed=packed)
        for order in "<>"
        for packed in (True, False)
    },
}


@pytest.mark.parametrize("form", DEEP_COLOURS)
@pytest.mark.parametrize("white", [65535, 4095])
def test_colours_are_as_bright_whatever_they_are_coded_in(form: str, white: int, tmp_path: Path) -> None:
    for number, name in enumerate("abab"):
        (tmp_path / name).mkdir(exist_ok=True)
        content = DEEP_COLOURS[form](np.rint(CHANNELS * white / (number + 1)))
        (tmp_path / name / f"{number}.{form[:4].strip().lower()}").write_bytes(content)
    dataset = opened(tmp_path)
    first, third = (np.asarray(dataset.open(record)) for record in dataset.records[:2])
    assert np.abs(first - 255 * CHANNELS).max() <= 0.5 + 255 / white
    assert np.abs(third - 255 * CHANNELS / 3).max() <= 0.5 + 255 / white
    dataset.measure_greys(1, Progress())
    assert (
        f"4 images have colours of more than 8 bits (whole numbers from 0 to {int(white * 0.98 + 0.5):,})"
        in (dataset.notes[0])
    )
    assert dataset.pixel_key("d") != "d", "caches may hold the upper 8 bits"
    assert "16 bits" in read_header(tmp_path / dataset.records[0].path).depth


def test_what_is_transparent_is_black_and_alpha_has_no_part_in_the_range() -> None:
    alpha = np.full((8, 8, 1), 65535)
    alpha[:4] = 0
    numbers = np.rint(np.concatenate([CHANNELS * 65535, alpha], axis=-1))
    expected = np.where(alpha > 0, 255 * CHANNELS, 0)
    for content in (png(numbers), tiff(numbers, "<", packed=True)):
        assert np.abs(np.asarray(decode_image(content, "x")) - expected).max() <= 0.5
    greys = decode_image(png(numbers[..., [0, 3]]), "x")
    assert greys.mode == "F"
    assert np.abs(np.asarray(greys) - expected[..., 0]).max() < 0.01
    assert grey_range(io.BytesIO(png(numbers[..., [0, 3]] // 16)), "x", Decoding()) == GreyRange(0.0, 4014.0, "whole")


@pytest.mark.parametrize("packed", [True, False])
def test_planes_of_deep_colours_are_refused(packed: bool) -> None:
    with pytest.raises(InputError, match="in planes"):
        decode_image(tiff(np.rint(CHANNELS * 65535), "<", packed=packed, planes=2), "x")

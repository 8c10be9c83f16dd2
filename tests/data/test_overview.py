"""A look at a dataset: counts by side agree with its split, sizes and formats with its files."""

from __future__ import annotations

import os
import statistics
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from petlbench.core.catalog import Catalog
from petlbench.core.errors import InputError
from petlbench.core.progress import Progress
from petlbench.data.dataset import Dataset, open_dataset
from petlbench.data.images.files import Header, read_facts, read_header
from petlbench.data.overview import Spread, _spread, draw_contact_sheet, overview_of, sample_images
from tests.data.drawn_files import write_dicom


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for label, name in enumerate(("cat", "dog")):
        (tmp_path / "pets" / name).mkdir(parents=True)
        for number in range(10):
            image = Image.new("RGB", (20 + number, 30), (100 * label, 10 * number, 0))
            image.save(tmp_path / "pets" / name / f"{number}.{'png' if number % 2 else 'jpg'}")
    return tmp_path / "pets"


def opened(folder: Path | str) -> Dataset:
    return open_dataset(str(folder), catalog=Catalog(), data_root=Path("data"), settings={})


def test_counts_sizes_and_formats(folder: Path) -> None:
    done: list[int] = []

    class Listening(Progress):
        def advance(self, count: int = 1) -> None:
            done.append(count)

    seen = overview_of(opened(folder), {}, 2, Listening())
    assert (seen.width, seen.height) == (Spread(20, 24.5, 29), Spread(30, 30, 30))
    assert (seen.formats, seen.unmeasured, seen.refused) == ({"PNG": 10, "JPEG": 10}, 0, "")
    assert seen.by_split == {
        "train": {"cat": 7, "dog": 7},
        "val": {"cat": 1, "dog": 1},
        "test": {"cat": 2, "dog": 2},
    }
    assert sum(done) == 20


@given(st.lists(st.integers(1, 5), min_size=1))
def test_a_spread_is_told_from_counts(values: list[int]) -> None:
    spread = _spread(Counter(values))
    assert spread == Spread(min(values), statistics.median(values), max(values))
    assert spread is not None
    assert type(spread.median) is type(statistics.median(values))


def test_what_is_known_is_not_measured_again(folder: Path) -> None:
    dataset = opened(folder)
    known = {record.image_id: read_facts(folder / record.path) for record in dataset.records}
    for file in folder.rglob("*.*"):
        file.write_bytes(b"")
    assert overview_of(dataset, known, 1, Progress()).width == Spread(20, 24.5, 29)
    unknown = overview_of(dataset, {}, 1, Progress())
    assert (unknown.width, unknown.unmeasured) == (None, 20)


def test_what_cannot_be_measured_is_named_with_the_reason(folder: Path) -> None:
    files = sorted(folder.rglob("*.*"))
    for file in files[:7]:
        file.unlink()
    os.mkfifo(files[0])
    files[1].symlink_to("/dev/zero")
    files[2].symlink_to(files[2].name)
    seen = overview_of(opened(folder), {}, 1, Progress())
    assert seen.unmeasured == len(seen.unreadable) == 3
    [note] = seen.notes
    for reason in ("3 images cannot be read: ", "is a pipe, not a file; ", "is a device", "levels of symbolic links"):
        assert reason in note
    for file in files[3:7]:
        file.write_bytes(b"no picture")
    [note] = overview_of(opened(folder), {}, 1, Progress()).notes
    assert note.count("no image in a known format") == 2
    assert note.endswith(" and 2 more")


def test_made_images_have_no_file_to_measure() -> None:
    seen = overview_of(opened("digits"), {}, 1, Progress())
    assert (seen.width, seen.formats, seen.unmeasured) == (None, {}, 1797)
    assert seen.by_split is not None


def test_the_content_gives_the_format_and_the_head_the_size(tmp_path: Path) -> None:
    Image.new("L", (7, 9)).save(tmp_path / "a.jpg", "PNG")
    write_dicom(tmp_path / "b.dcm", "D1-0001", "L", "CC", 0, 0)
    (tmp_path / "c.png").write_bytes(b"no image")
    sizes = [(tmp_path / name).stat().st_size for name in ("a.jpg", "b.dcm")]
    assert read_header(tmp_path / "a.jpg") == Header(7, 9, "PNG", "grey, 8 bits", sizes[0])
    assert read_header(tmp_path / "b.dcm") == Header(32, 32, "DICOM", "grey, 8 bits", sizes[1])
    for name in ("c.png", "d.png"):
        with pytest.raises(InputError, match=name):
            read_header(tmp_path / name)
    facts = read_facts(tmp_path / "b.dcm")
    assert (facts.width, facts.height, facts.format, facts.bytes) == (
        32,
        32,
        "DICOM",
        (tmp_path / "b.dcm").stat().st_size,
    )
    with pytest.raises(InputError, match=r"c\.png"):
        read_facts(tmp_path / "c.png")


def test_a_contact_sheet_shows_images_of_every_class(folder: Path, tmp_path: Path) -> None:
    dataset = opened(folder)
    chosen = sample_images(dataset, 1, 4)
    assert [record.path for record in chosen] == ["dog/0.jpg", "dog/2.jpg", "dog/5.png", "dog/7.png"]
    assert len(sample_images(dataset, 0, 99)) == 10
    draw_contact_sheet(dataset, tmp_path / "sheet.png", Progress(), per_class=4)
    with Image.open(tmp_path / "sheet.png") as sheet:
        colours = {colour for _, colour in sheet.convert("RGB").getcolors(1 << 24) or ()}
    for record in chosen:
        if record.path.endswith(".png"):  # JPEG changes colours a little
            assert (100, 10 * int(record.path[4]), 0) in colours
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["sheet.png"]

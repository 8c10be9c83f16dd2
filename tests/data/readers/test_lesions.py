"""The synthetic images: the same bytes each time, graded by their lesions and by nothing else."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from petlbench.core.catalog import Catalog
from petlbench.data.dataset import open_dataset
from petlbench.data.readers.base import Source
from petlbench.data.readers.drawn_eyes import draw, grade_of, lesion_count, patient_of
from petlbench.data.readers.drawn_xrays import draw_xray
from petlbench.data.readers.lesions import LesionReader, LesionSettings

SMALL = LesionSettings(image_size=160, image_count=60)


def reader(settings: LesionSettings) -> LesionReader:
    return LesionReader(Source("lesions", Path("none"), settings))


def test_an_image_is_the_same_whatever_else_is_made() -> None:
    many = reader(LesionSettings(image_size=160, image_count=90))
    few = reader(SMALL)
    assert few.records == many.records[:60]
    for index in (7, 0, 7):
        assert few.content_hash(few.records[index]) == many.content_hash(many.records[index])
        assert np.array_equal(np.asarray(few.open(few.records[index])), draw(SMALL, index))


def test_images_differ_between_indices_and_seeds() -> None:
    other = SMALL.model_copy(update={"seed": 1})
    assert len({draw(SMALL, 0).tobytes(), draw(SMALL, 1).tobytes(), draw(other, 0).tobytes()}) == 3


@pytest.mark.parametrize("size", [128, 200, 512])
def test_shape_and_range(size: int) -> None:
    pixels = draw(LesionSettings(image_size=size), 3)
    assert pixels.shape == (size, size, 3)
    assert pixels.dtype == np.uint8
    assert pixels[0, 0].max() < 16
    assert pixels[size // 2, size // 2].max() > 60


@pytest.mark.parametrize("per_grade", [1, 2, 4, 10])
def test_counts_of_two_grades_never_meet(per_grade: int) -> None:
    settings = LesionSettings(lesions_per_grade=per_grade, image_count=400)
    counts = {grade: set[int]() for grade in range(5)}
    for index in range(settings.image_count):
        counts[grade_of(settings, index)].add(lesion_count(settings, index))
    assert counts[0] == {0}
    for grade in range(4):
        assert max(counts[grade]) < min(counts[grade + 1])


def test_only_lesions_tell_the_grade() -> None:
    settings = LesionSettings()
    for index in range(8):
        changed = (draw(settings, index) != draw(settings, index, 0)).any(axis=2)
        lesions = lesion_count(settings, index)
        assert bool(changed.any()) == (lesions > 0)
        assert changed.sum() <= lesions * (settings.lesion_max_size + 2) ** 2


def test_lesions_have_the_size_that_was_asked_for() -> None:
    settings = LesionSettings(lesion_min_size=6, lesion_max_size=6, lesions_per_grade=1)
    index = next(n for n in range(60) if lesion_count(settings, n) == 1)
    rows, columns = np.nonzero((draw(settings, index) != draw(settings, index, 0)).any(axis=2))
    for places in (rows, columns):
        assert 5 <= places.max() - places.min() + 1 <= 8


def test_grades_are_balanced_and_eyes_are_paired() -> None:
    records = reader(LesionSettings()).records
    assert Counter(record.label for record in records) == dict.fromkeys(range(5), 120)
    assert set(Counter(record.group for record in records).values()) == {2}
    assert patient_of(0) == patient_of(1) != patient_of(2)
    assert any(a.label != b.label for a, b in zip(records[::2], records[1::2], strict=True))


def test_the_two_eyes_of_a_patient_resemble_each_other() -> None:
    colours = np.array([draw(SMALL, index, 0).mean(axis=(0, 1)) for index in range(24)])
    hues = colours[:, 1:] / colours[:, :1]
    same = np.abs(hues[::2] - hues[1::2]).mean()
    other = np.abs(hues[::2] - np.roll(hues[1::2], 1, axis=0)).mean()
    assert same < other / 2


def test_the_most_lesions_that_are_allowed_can_be_placed() -> None:
    settings = LesionSettings(image_size=160, lesions_per_grade=10, lesion_max_size=8)
    for index in range(8):
        draw(settings, index)


XRAYS = SMALL.model_copy(update={"look": "xray"})


def test_an_xray_is_grey_and_only_nodules_tell_its_grade() -> None:
    for index in range(6):
        pixels = draw_xray(XRAYS, index)
        assert pixels.shape == (160, 160, 3)
        assert np.ptp(pixels.astype(np.int64), axis=2).max() < 8  # the camera's noise
        changed = (pixels != draw_xray(XRAYS, index, 0)).any(axis=2)
        assert bool(changed.any()) == (lesion_count(XRAYS, index) > 0)
    assert np.array_equal(np.asarray(reader(XRAYS).open(reader(XRAYS).records[3])), draw_xray(XRAYS, 3))
    assert {draw_xray(XRAYS, index).tobytes() for index in range(2)}.isdisjoint({draw(SMALL, 0).tobytes()})


def test_runs_on_eyes_keep_their_names_and_xrays_are_called_so() -> None:
    assert "look" not in SMALL.model_dump()
    assert XRAYS.model_dump()["look"] == "xray"
    opened = [
        open_dataset("lesions", catalog=Catalog(), data_root=Path("none"), settings=settings)
        for settings in ({}, {"look": "xray"})
    ]
    assert [dataset.card.title for dataset in opened] == ["Lesions (synthetic)", "X-rays (synthetic)"]

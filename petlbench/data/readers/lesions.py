"""The synthetic dataset ``lesions``: images of an eye or a chest, graded by how many tiny lesions they hold.

It exists because fine detail is what the compared methods differ in: the grade is decided by spots of 2 to 8
pixels in 512, which an image shrunk to 224 loses in part. No image is stored: image i is made from (seed, i).
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Literal

import numpy as np
from PIL import Image
from pydantic import Field, model_validator

from petlbench.data.readers.base import Reader, ReaderCard, Source
from petlbench.data.readers.drawn_eyes import GRADES, draw, grade_of, patient_of
from petlbench.data.readers.drawn_xrays import draw_xray
from petlbench.data.readers.settings import ReaderSettings, silent
from petlbench.data.record import Record

if TYPE_CHECKING:
    from petlbench.data.card import DatasetCard

_XRAYS = {"title": "X-rays (synthetic)", "modality": "synthetic images like chest X-rays"}


class LesionSettings(ReaderSettings):
    """What the generated images are like."""

    image_count: int = Field(default=600, ge=60, le=100_000, description="Number of images.")
    image_size: int = Field(default=512, ge=128, le=2048, description="Width and height in pixels.")
    lesion_min_size: int = Field(default=2, ge=1, le=64, description="Smallest lesion's diameter in pixels.")
    lesion_max_size: int = Field(default=8, ge=1, le=64, description="Largest lesion's diameter in pixels.")
    lesions_per_grade: int = Field(default=4, ge=1, le=10, description="Grade g has about g times as many lesions.")
    seed: int = Field(default=0, ge=0, le=2**32 - 1, description="Seed of the images, not of the run.")
    look: Literal["fundus", "xray"] = silent("fundus", description="Like the back of an eye, or like a chest X-ray.")

    def card_as_set(self, card: DatasetCard) -> DatasetCard:
        """Return the card with the title and the modality of what is drawn."""
        return card if self.look == "fundus" else card.model_copy(update=_XRAYS)

    @model_validator(mode="after")
    def _fits(self) -> LesionSettings:
        if self.lesion_min_size > self.lesion_max_size:
            raise ValueError(
                f"lesion_min_size {self.lesion_min_size} is greater than lesion_max_size {self.lesion_max_size}"
            )
        most = (GRADES - 1) * self.lesions_per_grade + 1
        if 4 * most * (self.lesion_max_size + 4) ** 2 > self.image_size**2:
            raise ValueError(
                f"{most} lesions of up to {self.lesion_max_size} pixels do not fit into {self.image_size} pixels"
            )
        return self


class LesionReader(Reader):
    """Makes the images when they are opened; the group is the patient."""

    card = ReaderCard(name="lesions", title="synthetic lesions")
    Settings = LesionSettings

    def __init__(self, source: Source) -> None:
        self._settings: LesionSettings = source.settings
        self.classes = source.classes or tuple(str(grade) for grade in range(GRADES))
        # An image takes tens of milliseconds: one that was opened once need not be made again to be hashed.
        self._hashes: dict[str, str] = {}
        names = [f"lesions/{index:06d}" for index in range(self._settings.image_count)]
        self.records = tuple(
            Record(name, name, grade_of(self._settings, index), f"patient-{patient_of(index):05d}")
            for index, name in enumerate(names)
        )

    def open(self, record: Record) -> Image.Image:
        """Return the image in RGB, made anew."""
        pixels = self._pixels(record)
        self._hashes.setdefault(record.path, hashlib.sha256(pixels.tobytes()).hexdigest())
        return Image.fromarray(pixels)

    def content_hash(self, record: Record) -> str:
        """Return the SHA-256 of the RGB pixels."""
        if record.path not in self._hashes:
            self._hashes[record.path] = hashlib.sha256(self._pixels(record).tobytes()).hexdigest()
        return self._hashes[record.path]

    def _pixels(self, record: Record) -> np.ndarray:
        painter = draw_xray if self._settings.look == "xray" else draw
        return painter(self._settings, int(record.path.rpartition("/")[2]))

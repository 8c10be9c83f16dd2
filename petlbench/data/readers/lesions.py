"""The synthetic dataset ``lesions``: round images like the back of an eye, graded by how many tiny lesions they hold.

It exists because fine detail is what the compared methods differ in: the grade is decided by spots of 2 to 8
pixels in 512, which an image shrunk to 224 loses in part. No image is stored: image i is made from (seed, i).
"""

from __future__ import annotations

import hashlib

import numpy as np
from PIL import Image

from petlbench.data.readers.base import Reader, ReaderCard, Source
from petlbench.data.readers.lesion_images import GRADES, LesionSettings, draw, grade_of, patient_of
from petlbench.data.record import Record

__all__ = ["LesionReader"]


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
        return draw(self._settings, int(record.path.rpartition("/")[2]))

"""The reader for scikit-learn's digits: 1,797 real handwritten digits of 8x8 pixels that need no download."""

from __future__ import annotations

import numpy as np
from PIL import Image

from petlbench.data.readers.base import Reader, ReaderCard, Source
from petlbench.data.record import Record

_BRIGHTEST = 16


class DigitsReader(Reader):
    """Reads the images that scikit-learn brings with it, in its order."""

    card = ReaderCard(name="sklearn_digits", title="scikit-learn's digits")

    def __init__(self, source: Source) -> None:
        from sklearn.datasets import load_digits

        digits = load_digits()
        self._images = digits.images
        self.classes = tuple(str(digit) for digit in range(10))
        names = [f"digits/{index:04d}" for index in range(len(digits.target))]
        self.records = tuple(Record(name, name, int(label)) for name, label in zip(names, digits.target, strict=True))

    def open(self, record: Record) -> Image.Image:
        """Return the 8x8 image in RGB; its 17 grey levels are spread over 0 to 255."""
        levels = self._images[int(record.path.rpartition("/")[2])]
        return Image.fromarray(np.rint(levels * (255 / _BRIGHTEST)).astype(np.uint8)).convert("RGB")

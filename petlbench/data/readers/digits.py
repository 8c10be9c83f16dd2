"""The reader for scikit-learn's digits: 1,797 real handwritten digits of 8x8 pixels that need no download."""

from __future__ import annotations

import hashlib
from functools import cached_property
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict

from petlbench.data.record import Record

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["DigitsReader", "DigitsSettings"]

_BRIGHTEST = 16


class DigitsSettings(BaseModel):
    """The digits need no settings."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class DigitsReader:
    """Reads the images that scikit-learn brings with it."""

    notes: tuple[str, ...] = ()
    classes: tuple[str, ...] = tuple(str(digit) for digit in range(10))

    @cached_property
    def records(self) -> tuple[Record, ...]:
        """Every digit, in scikit-learn's order."""
        names = [f"digits/{index:04d}" for index in range(len(self._bunch.target))]
        labels = [int(label) for label in self._bunch.target]
        return tuple(Record(name, name, label) for name, label in zip(names, labels, strict=True))

    def open(self, record: Record) -> Image:
        """Return the 8x8 image in RGB; its 17 grey levels are spread over 0 to 255."""
        import numpy as np
        from PIL import Image

        levels = self._bunch.images[int(record.path.rpartition("/")[2])]
        return Image.fromarray(np.rint(levels * (255 / _BRIGHTEST)).astype(np.uint8)).convert("RGB")

    def file(self, record: Record) -> None:
        """There is none."""

    def content_hash(self, record: Record) -> str:
        """Return the SHA-256 of the RGB pixels."""
        return hashlib.sha256(self.open(record).tobytes()).hexdigest()

    @cached_property
    def _bunch(self) -> Any:
        from sklearn.datasets import load_digits

        return load_digits()

"""What is white among greys of more than 8 bits: by the range that all files of a dataset have together.

A file says how many bits a grey is stored in, not how many of them a scanner uses: 12 bits in files of 16 would come
out black. So the greatest value of the whole dataset decides, rounded up to a number of bits, and is the same for every
image, so that brightness compares.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL.Image import Image


FULL = 65535
"""White among whole numbers of 16 bits, where nothing else is known."""

GREY_HELP = "What is white among greys of more than 8 bits; without it, what the images' range says."

_LEAST_BITS = 8
_KINDS = {False: "whole", True: "floating"}
_PLAIN = {False: float(FULL), True: 1.0}


@dataclass(frozen=True)
class GreyRange:
    """The least and the greatest value of one image's deep greys, and whether they are floating-point numbers."""

    low: float
    high: float
    floating: bool

    @property
    def has_format(self) -> bool:
        """Whether some format fixes such a range: no value is negative, more than 16 bits or no number."""
        return self.low >= 0.0 and self.high <= FULL


_OWN_WHITE = frozenset(("PPM",))
"""Formats whose files say what is white; Pillow spreads their greys over 16 bits by that."""


def is_deep(image: Image) -> bool:
    """Whether the greys of an image, decoded or not, have more than 8 bits."""
    return image.mode in ("I", "F") or image.mode.startswith("I;16")


def needs_white(image: Image) -> bool:
    """Whether they have, and its file does not say what is white."""
    return is_deep(image) and image.format not in _OWN_WHITE


def range_of(image: Image) -> GreyRange:
    """Return the range of a decoded image whose greys are deep."""
    import numpy as np

    values = np.asarray(image)
    return GreyRange(float(values.min()), float(values.max()), image.mode == "F")


class Greys:
    """What is white among a dataset's deep greys: given, or measured over all its images when that is first asked.

    Whole and floating-point numbers have a white of their own. Threads may share it.

    Args:
        measure: Gives the range of every image with deep greys that can be read.
        maximum: What is white; None to measure it.
    """

    def __init__(self, measure: Callable[[], Iterable[GreyRange]], maximum: float | None = None) -> None:
        self._measure = measure
        self._maximum = maximum
        self._ranges: tuple[GreyRange, ...] = ()
        self._whites: dict[bool, float] | None = None
        self._lock = threading.Lock()

    @classmethod
    def recorded(cls, whites: Mapping[str, float]) -> Greys:
        """Return what `whites` told; the numbers that were not there have the white of 16 bits, or 1."""
        greys = cls(tuple)
        greys._whites = {floating: whites[kind] for floating, kind in _KINDS.items() if kind in whites}
        return greys

    def measure(self, measure: Callable[[], Iterable[GreyRange]] | None = None) -> None:
        """Look at all images, unless that was done; `measure` does so in another way, such as under a progress bar."""
        with self._lock:
            if self._whites is None:
                self._ranges = tuple((measure or self._measure)())
                self._whites = {kind: self._found(kind) for kind in {each.floating for each in self._ranges}}

    def white(self, floating: bool) -> float:
        """Return what is white among whole numbers, or among floating-point ones."""
        if self._maximum is not None:
            return self._maximum
        self.measure()
        return (self._whites or {}).get(floating, _PLAIN[floating])

    def scaled(self, values: NDArray[np.float64], own: GreyRange) -> NDArray[np.float64] | None:
        """Return an image's greys from 0 (black) to 255 (white); None where what is white does not fit their range.

        Where the maximum was given, what is darker than 0 is black, and what is lighter than it white.
        """
        white = self.white(own.floating)
        if self._maximum is not None and not math.isnan(own.high):
            return (values * (255.0 / white)).clip(0.0, 255.0)
        return values * (255.0 / white) if own.low >= 0.0 and own.high <= white else None

    def whites(self) -> dict[str, float]:
        """Return what is white, by ``whole`` and ``floating``, for the numbers that there are."""
        self.measure()
        return {_KINDS[floating]: self.white(floating) for floating in sorted(self._whites or ())}

    def tag(self) -> str:
        """Return what names pixels beside a file's content; empty where white is what it is for an image alone."""
        plain = {kind: _PLAIN[floating] for floating, kind in _KINDS.items()}
        return ", ".join(f"{kind} {white!r}" for kind, white in self.whites().items() if white != plain[kind])

    def notes(self) -> tuple[str, ...]:
        """Return in words what range was measured, what is white, and what is lost."""
        if self._whites == {} and self._maximum is not None:
            return ("dataset.grey_maximum is given, and no image has greys of more than 8 bits",)
        return tuple(self._note(floating) for floating in sorted({each.floating for each in self._ranges}))

    def _found(self, floating: bool) -> float:
        """The greatest value, rounded up to what a format has for white: 1, or all bits of a number of 8 to 16."""
        greatest = [each.high for each in self._ranges if each.floating == floating and each.has_format]
        if not greatest:
            return _PLAIN[floating]
        high = max(greatest)
        return 1.0 if floating and high <= 1.0 else 2.0 ** max(_LEAST_BITS, math.ceil(high).bit_length()) - 1.0

    def _note(self, floating: bool) -> str:
        ranges, white = [each for each in self._ranges if each.floating == floating], self.white(floating)
        low, high = min(each.low for each in ranges), max(each.high for each in ranges)
        images = f"{len(ranges):,} images have" if len(ranges) > 1 else "1 image has"
        numbers = f"{_KINDS[floating]} numbers from {low:,.6g} to {high:,.6g}"
        text = f"{images} greys of more than 8 bits ({numbers}): {white:,.6g} is white"
        if self._maximum is None:
            return f"{text}, and a view keeps 256 levels; --set dataset.grey_maximum=NUMBER says otherwise"
        outside = sum(each.low < 0 or each.high > white for each in ranges)
        lost = f"; what is below 0 or above it in {outside:,} of them is lost" if outside else ""
        return f"{text}, as dataset.grey_maximum says{lost}; a view keeps 256 levels"

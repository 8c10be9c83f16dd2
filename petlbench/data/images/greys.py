"""What is white among greys and colours of more than 8 bits: by the range that all files of a dataset have together.

A file says how many bits a grey is stored in, not how many of them a scanner uses: 12 bits in files of 16 would come
out black. So the greatest value of the whole dataset decides, rounded up to a number of bits, and is the same for every
image, so that brightness compares.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from petlbench.data.images.colours import has_deep_colours

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL.Image import Image


FULL = 65535
"""White among whole numbers of 16 bits, where nothing else is known."""

GREY_HELP = "What is white among greys and colours of more than 8 bits; without it, what the images' range says."

Kind = Literal["whole", "floating", "colour"]
"""Greys that are whole numbers, greys that are floating-point ones, and colours, which are whole numbers."""

_LEAST_BITS = 8
_PLAIN: dict[Kind, float] = {"whole": float(FULL), "floating": 1.0, "colour": float(FULL)}
_WORDS: dict[Kind, str] = {
    "whole": "greys of more than 8 bits (whole numbers",
    "floating": "greys of more than 8 bits (floating numbers",
    "colour": "colours of more than 8 bits (whole numbers",
}


@dataclass(frozen=True)
class GreyRange:
    """The least and the greatest value of one image's deep greys or colours, and what kind they are of."""

    low: float
    high: float
    kind: Kind

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
    """Whether they have, or its colours where it is not yet decoded, and its file does not say what is white."""
    return (is_deep(image) and image.format not in _OWN_WHITE) or has_deep_colours(image)


def range_of(image: Image) -> GreyRange:
    """Return the range of a decoded image whose greys are deep."""
    import numpy as np

    return range_of_numbers(np.asarray(image), "floating" if image.mode == "F" else "whole")


def range_of_numbers(values: NDArray[Any], kind: Kind) -> GreyRange:
    """Return the range of an image's deep greys or colours."""
    return GreyRange(float(values.min()), float(values.max()), kind)


class Greys:
    """What is white among a dataset's deep greys: given, or measured over all its images when that is first asked.

    Each kind of greys and colours has a white of its own. Threads may share it.

    Args:
        measure: Gives the range of every image with deep greys that can be read.
        maximum: What is white; None to measure it.
    """

    def __init__(self, measure: Callable[[], Iterable[GreyRange]], maximum: float | None = None) -> None:
        self._measure = measure
        self._maximum = maximum
        self._ranges: tuple[GreyRange, ...] = ()
        self._whites: dict[Kind, float] | None = None
        self._lock = threading.Lock()

    @classmethod
    def recorded(cls, whites: Mapping[str, float]) -> Greys:
        """Return what `whites` told; the numbers that were not there have the white of 16 bits, or 1."""
        greys = cls(tuple)
        greys._whites = {kind: whites[kind] for kind in _PLAIN if kind in whites}
        return greys

    def measure(self, measure: Callable[[], Iterable[GreyRange]] | None = None) -> None:
        """Look at all images, unless that was done; `measure` does so in another way, such as under a progress bar."""
        with self._lock:
            if self._whites is None:
                self._ranges = tuple((measure or self._measure)())
                self._whites = {kind: self._found(kind) for kind in {each.kind for each in self._ranges}}

    def white(self, kind: Kind) -> float:
        """Return what is white among greys or colours of that kind."""
        if self._maximum is not None:
            return self._maximum
        self.measure()
        return (self._whites or {}).get(kind, _PLAIN[kind])

    def scaled(self, values: NDArray[np.float64], own: GreyRange) -> NDArray[np.float64] | None:
        """Return an image's greys from 0 (black) to 255 (white); None where what is white does not fit their range.

        Where the maximum was given, what is darker than 0 is black, and what is lighter than it white.
        """
        white = self.white(own.kind)
        if self._maximum is not None and not math.isnan(own.high):
            return (values * (255.0 / white)).clip(0.0, 255.0)
        return values * (255.0 / white) if own.low >= 0.0 and own.high <= white else None

    def whites(self) -> dict[str, float]:
        """Return what is white, by ``whole``, ``floating`` and ``colour``, for the numbers that there are."""
        self.measure()
        return {kind: self.white(kind) for kind in _PLAIN if kind in (self._whites or ())}

    def tag(self) -> str:
        """Return what names pixels beside a file's content; empty where white is what it is for an image alone."""
        # Colours always have one: caches may hold those that were read by their upper 8 bits.
        whites = self.whites()
        named = [kind for kind in _PLAIN if kind in whites and (kind == "colour" or whites[kind] != _PLAIN[kind])]
        return ", ".join(f"{kind} {whites[kind]!r}" for kind in named)

    def notes(self) -> tuple[str, ...]:
        """Return in words what range was measured, what is white, and what is lost."""
        if self._whites == {} and self._maximum is not None:
            return ("dataset.grey_maximum is given, and no image has greys of more than 8 bits",)
        return tuple(self._note(kind) for kind in _PLAIN if kind in {each.kind for each in self._ranges})

    def _found(self, kind: Kind) -> float:
        """The greatest value, rounded up to what a format has for white: 1, or all bits of a number of 8 to 16."""
        greatest = [each.high for each in self._ranges if each.kind == kind and each.has_format]
        if not greatest:
            return _PLAIN[kind]
        high = max(greatest)
        if kind == "floating" and high <= 1.0:
            return 1.0
        return 2.0 ** max(_LEAST_BITS, math.ceil(high).bit_length()) - 1.0

    def _note(self, kind: Kind) -> str:
        ranges, white = [each for each in self._ranges if each.kind == kind], self.white(kind)
        low, high = min(each.low for each in ranges), max(each.high for each in ranges)
        images = f"{len(ranges):,} images have" if len(ranges) > 1 else "1 image has"
        text = f"{images} {_WORDS[kind]} from {low:,.6g} to {high:,.6g}): {white:,.6g} is white"
        if self._maximum is None:
            return f"{text}, and a view keeps 256 levels; --set dataset.grey_maximum=NUMBER says otherwise"
        outside = sum(each.low < 0 or each.high > white for each in ranges)
        lost = f"; what is below 0 or above it in {outside:,} of them is lost" if outside else ""
        return f"{text}, as dataset.grey_maximum says{lost}; a view keeps 256 levels"

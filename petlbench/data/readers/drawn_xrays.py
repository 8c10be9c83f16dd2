"""Images like chest X-rays for the synthetic dataset ``lesions``: grey, with two lungs and nodules in them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from petlbench.data.readers.drawn_eyes import (
    Pixels,
    Spot,
    cloud,
    grain,
    lesion_count,
    patient_of,
    stamp,
    stream,
)

if TYPE_CHECKING:
    from petlbench.data.readers.lesions import LesionSettings

_BODY, _PATIENT, _NODULES, _NOISE = range(20, 24)  # other random numbers than those of eyes
_CELLS = 64  # of what is drawn before it is enlarged, which makes edges soft
_LUNG, _HEART, _SPINE, _TISSUE, _AIR = 62, 176, 196, 150, 12
_RIB = 26  # levels by which a rib is lighter
_LUNG_X, _LUNG_Y, _LUNG_HALF = (0.30, 0.70), 0.48, (0.155, 0.30)
_NODULE = (226.0, 226.0, 226.0)


def draw_xray(settings: LesionSettings, index: int, lesions: int | None = None) -> Pixels:
    """Draw image `index`, the same on every machine.

    Args:
        settings: What the images are like; the sizes of lesions are those of nodules.
        index: Which image.
        lesions: How many of its nodules are drawn, if not all; every other pixel is the same.

    Returns:
        RGB pixels (S, S, 3) of three equal channels but for the noise, where S is the image size.
    """
    size = settings.image_size
    own, shared = stream(settings, index, _BODY), stream(settings, patient_of(index), _PATIENT)
    shift = (shared.random(2) - 0.5) * 0.06
    body = _body(shift, own)
    shade = np.asarray(body, dtype=np.float32) * (1 + cloud(own, _CELLS, 5, 0.12) + cloud(own, _CELLS, _CELLS, 0.05))
    grey = Image.fromarray(np.clip(shade, 0, 255).astype(np.uint8)).resize((size, size), Image.Resampling.BICUBIC)
    pixels = np.array(Image.merge("RGB", [grey] * 3))
    for spot in _nodules(settings, index, shift)[:lesions]:
        stamp(pixels, spot, _NODULE)
    return grain(pixels, size, stream(settings, index, _NOISE))


def _body(shift: NDArray[np.float64], rng: np.random.Generator) -> Image.Image:
    """Chest, lungs, ribs, spine and heart in grey, (_CELLS, _CELLS)."""
    scale = 4 * _CELLS
    image = Image.new("L", (scale, scale), _AIR)
    pen = ImageDraw.Draw(image)
    width, tilt = rng.random(2).tolist()

    def ellipse(x: float, y: float, half_x: float, half_y: float, level: int) -> None:
        x, y = x + float(shift[0]), y + float(shift[1])
        pen.ellipse([round(scale * side) for side in (x - half_x, y - half_y, x + half_x, y + half_y)], fill=level)

    ellipse(0.5, 0.56, 0.44 + 0.03 * width, 0.56, _TISSUE)
    for x in _LUNG_X:
        ellipse(x, _LUNG_Y, *_LUNG_HALF, _LUNG)
    for rib in range(7):
        top = round(scale * (0.2 + 0.085 * rib + 0.01 * tilt + float(shift[1])))
        for left, right in ((0.12, 0.47), (0.53, 0.88)):
            box = [round(scale * left), top, round(scale * right), top + round(0.12 * scale)]
            pen.arc(box, 190, 350, fill=_LUNG + _RIB, width=scale // 60)
    ellipse(0.5, 0.5, 0.035, 0.6, _SPINE)
    ellipse(0.56, 0.62, 0.12 + 0.02 * width, 0.13, _HEART)
    return image.reduce(4)


def _nodules(settings: LesionSettings, index: int, shift: NDArray[np.float64]) -> list[Spot]:
    """As many soft nodules as the grade asks for, inside of the lungs."""
    rng, size = stream(settings, index, _NODULES), settings.image_size
    low, high = settings.lesion_min_size, settings.lesion_max_size
    spots = []
    for _ in range(lesion_count(settings, index)):
        side, across, up, width, shape, strength = rng.random(6).tolist()
        # Products keep a place off the rim; signs come from the same numbers.
        x = _LUNG_X[side < 0.5] + float(shift[0]) + 0.75 * _LUNG_HALF[0] * (2 * across - 1)
        y = _LUNG_Y + float(shift[1]) + 0.7 * _LUNG_HALF[1] * (2 * up - 1) * (1 - 0.3 * abs(2 * across - 1))
        wide = low + (high - low) * width
        tall = wide * (0.8 + 0.4 * shape)
        spots.append(Spot(x * size, y * size, wide, tall, 0.55 + 0.35 * strength, bright=True, soft=True))
    return spots

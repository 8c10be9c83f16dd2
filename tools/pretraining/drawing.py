"""Draws the images that a backbone is pre-trained on: no photograph and no medical image is among them.

Each family draws one kind of structure, after published work on learning to see without natural images: leaves that
occlude one another and noise of natural spectra (Baradad et al., "Learning to See by Looking at Noise", NeurIPS 2021),
fractals of iterated function systems (Kataoka et al., "Pre-training without Natural Images", ACCV 2020), contours
(Takashima et al., "Visual Atoms", CVPR 2023). Strokes, shadows and spots are of our own making.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter, ImageOps

__all__ = ["FAMILIES", "SIZE", "draw"]

SIZE = 128
"""Width and height in pixels."""

Pixels = NDArray[np.uint8]
Field = NDArray[np.floating[Any]]
Generator = np.random.Generator

_AXIS = (np.arange(SIZE, dtype=np.float32) + 0.5) / SIZE
_X, _Y = np.meshgrid(_AXIS, _AXIS)
_FREQUENCY = np.hypot(np.fft.fftfreq(SIZE)[:, None], np.fft.rfftfreq(SIZE)[None, :]) * SIZE


def draw(seed: int, index: int) -> Pixels:
    """Draw one image.

    Args:
        seed: Seed of the whole collection.
        index: Number of the image in it; the same number gives the same image.

    Returns:
        RGB pixels, (128, 128, 3).
    """
    rng = np.random.default_rng([seed, index])
    families = list(FAMILIES.values())
    image = families[rng.integers(len(families))](rng)
    if rng.random() < 0.2:
        other = families[rng.integers(len(families))](rng)
        mask = (_spectrum(rng, 3.0) > rng.uniform(-0.8, 0.8))[..., None]
        image = np.where(mask, image, other)
    return _photographed(rng, image)


def _leaves(rng: Generator) -> Field:
    """Discs, ellipses and polygons that cover one another, each with a texture of its own."""
    image, *fillings = (Image.fromarray(_bytes(_texture(rng))) for _ in range(5))
    smallest = rng.uniform(3, 16)
    for _ in range(rng.integers(10, 60)):
        # Sizes fall as their inverse cube, which makes such pictures look the same at every scale.
        radius = min(smallest / np.sqrt(1 - rng.random() * (1 - (smallest / 60) ** 2)), 60.0)
        mask = Image.new("L", image.size)
        ImageDraw.Draw(mask).polygon(_outline(rng, radius), fill=255)
        if rng.random() < 0.1:
            mask = mask.filter(ImageFilter.GaussianBlur(rng.uniform(0.5, 3)))
        if radius > 10 and rng.random() < 0.5:
            image.paste(fillings[rng.integers(len(fillings))], (0, 0), mask)
        else:
            image.paste(tuple(rng.integers(0, 256, 3).tolist()), (0, 0), mask)
    return _field(image)


def _noise(rng: Generator) -> Field:
    """Noise whose power falls with frequency, as it does in natural images."""
    return _coloured(rng, [_spectrum(rng, exponent) for exponent in [rng.uniform(0.4, 3.2)] * 3])


def _fractal(rng: Generator) -> Field:
    """The attractor of a random iterated function system."""
    maps = rng.integers(2, 7)
    while True:
        rotations = rng.uniform(-np.pi, np.pi, (2, maps))
        scales = np.sort(rng.uniform(0.15, 0.95, (2, maps)), axis=0)[::-1] * rng.choice([-1, 1], (2, maps))
        turn, back = (np.array([[np.cos(a), -np.sin(a)], [np.sin(a), np.cos(a)]]) for a in rotations)
        weights = np.einsum("ijm,jm,jkm->mik", turn, scales, back)
        shares = np.abs(scales.prod(axis=0)) + 0.02
        density = _attractor(rng, weights, rng.uniform(-1, 1, (maps, 2)), shares / shares.sum())
        if (density > 0).mean() > 0.08:
            break
    level = np.log1p(density) / np.log1p(density.max())
    back, front = _colours(rng, 2)
    ramp = level ** rng.uniform(0.4, 1.2)
    drawn: Field = back + ramp[..., None] * (front - back) * (1 if rng.random() < 0.5 else _texture(rng))
    return drawn


def _attractor(rng: Generator, weights: Field, shifts: Field, shares: Field) -> Field:
    """How often each pixel is met when points are sent through the maps again and again."""
    points, met = rng.uniform(-1, 1, (400, 2)), []
    limits = np.cumsum(shares)[:-1]
    for step in range(70):
        chosen = np.searchsorted(limits, rng.random(len(points)))
        points = np.einsum("pij,pj->pi", weights[chosen], points) + shifts[chosen]
        if step >= 20:
            met.append(points)
    found = np.concatenate(met)
    low, high = np.percentile(found, [0.5, 99.5], axis=0)
    spread = max(float((high - low).max()), 1e-6)
    place = ((found - (low + high) / 2) / spread * rng.uniform(0.6, 1.2) + 0.5) * SIZE
    inside = ((place >= 0) & (place < SIZE)).all(axis=1)
    density, _, _ = np.histogram2d(place[inside, 1], place[inside, 0], bins=SIZE, range=[[0, SIZE], [0, SIZE]])
    drawn: Field = density.astype(np.float32)
    return drawn


def _contours(rng: Generator) -> Field:
    """Nested closed curves whose radius is a sum of waves."""
    angles = np.linspace(0, 2 * np.pi, 160, endpoint=False)
    image = Image.fromarray(_bytes(_texture(rng)))
    pen = ImageDraw.Draw(image)
    for _ in range(rng.integers(1, 5)):
        waves = sum(rng.uniform(0, 0.35) * np.cos(rng.integers(1, 20) * angles + rng.uniform(0, 7)) for _ in range(2))
        centre, radius = rng.uniform(20, SIZE - 20, 2), rng.uniform(12, 60)
        for ring in range(rng.integers(1, 9)):
            at = radius * 0.82**ring * (1 + waves)
            line = [*zip(centre[0] + at * np.cos(angles), centre[1] + at * np.sin(angles), strict=True)]
            colour = tuple(rng.integers(0, 256, 3).tolist())
            pen.line([*line, line[0]], fill=colour, width=int(rng.integers(1, 4)))
    return _field(image)


def _strokes(rng: Generator) -> Field:
    """Thick bent lines like those of letters and digits, sometimes seen through a coarse grid."""
    back, front = _colours(rng, 2)
    mask = Image.new("L", (SIZE, SIZE))
    pen, width = ImageDraw.Draw(mask), int(rng.integers(3, 22))
    for _ in range(rng.integers(1, 5)):
        corners = rng.uniform(15, SIZE - 15, (rng.integers(2, 6), 2))
        line = [tuple(point) for point in _smooth(corners)]
        pen.line(line, fill=int(rng.integers(120, 256)), width=width, joint="curve")
    if rng.random() < 0.5:
        cells = int(rng.integers(6, 33))
        mask = mask.resize((cells, cells), Image.Resampling.BOX).resize(mask.size, Image.Resampling.BICUBIC)
    level = np.asarray(mask, dtype=np.float32)[..., None] / 255
    drawn: Field = back + level * (front - back)
    return drawn


def _shadows(rng: Generator) -> Field:
    """Soft overlapping densities and bands, as if something were shone through."""
    density = 0.5 * _spectrum(rng, rng.uniform(2, 3.5))
    for _ in range(rng.integers(2, 7)):
        x, y, wide, high = rng.uniform([0, 0, 0.08, 0.08], [1, 1, 0.5, 0.6])
        edge = 1 - np.hypot((_X - x) / wide, (_Y - y) / high)
        density += rng.uniform(-2, 2) / (1 + np.exp(-edge * rng.uniform(3, 40)))
    for side in (-1, 1):
        bend = (_X - 0.5) * side
        phase = (_Y + rng.uniform(-1, 1) * bend + rng.uniform(-1, 1) * bend**2) * rng.uniform(5, 14)
        bands = np.clip(np.sin(2 * np.pi * phase) - rng.uniform(-0.3, 0.7), 0, None)
        density += np.where(bend > 0, rng.uniform(0, 0.8) * bands, 0)
    density += rng.uniform(0, 0.25) * rng.standard_normal(density.shape)
    low, high = np.percentile(density, [1, 99])
    level = np.clip((density - low) / (high - low + 1e-6), 0, 1).astype(np.float32)
    return np.repeat(level[..., None], 3, axis=2)


def _spots(rng: Generator) -> Field:
    """A smooth ground, thin branching lines, and small dots: the fine detail that large structures hide."""
    ground = _coloured(rng, [_spectrum(rng, 3.0)] * 3) * rng.uniform(0.2, 0.6) + _colours(rng, 1)[0] * 0.6
    image = Image.fromarray(_bytes(ground))
    pen = ImageDraw.Draw(image)
    dark, light = (tuple((colour * 255).astype(int).tolist()) for colour in _colours(rng, 2))
    for _ in range(rng.integers(0, 8)):
        walk = np.cumsum(rng.normal(rng.uniform(-4, 4, 2), 4, (20, 2)), axis=0) + rng.uniform(0, SIZE, 2)
        pen.line([tuple(point) for point in walk], fill=dark, width=int(rng.integers(1, 4)))
    for _ in range(rng.integers(0, 40)):
        (x, y), radius = rng.uniform(0, SIZE, 2), rng.uniform(0.5, 4)
        pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=light if rng.random() < 0.7 else dark)
    return _field(image)


FAMILIES: dict[str, Callable[[Generator], Field]] = {
    "leaves": _leaves,
    "noise": _noise,
    "fractal": _fractal,
    "contours": _contours,
    "strokes": _strokes,
    "shadows": _shadows,
    "spots": _spots,
}
"""What is drawn: each takes random numbers and gives an image (128, 128, 3) between 0 and 1."""


def _photographed(rng: Generator, image: Field) -> Pixels:
    """What light, lens, sensor and file make of a picture: contrast, blur, grain, coarse pixels, JPEG."""
    if rng.random() < 0.4:
        image = np.repeat(image.mean(axis=2, keepdims=True), 3, axis=2)
    image = np.clip(image, 0, 1) ** rng.uniform(0.5, 1.8)
    image = 0.5 + (image - 0.5) * rng.uniform(0.4, 1.1) + rng.uniform(-0.15, 0.15)
    picture = Image.fromarray(_bytes(image))
    if rng.random() < 0.4:
        picture = ImageOps.autocontrast(picture, cutoff=1)
    if rng.random() < 0.3:
        picture = picture.filter(ImageFilter.GaussianBlur(rng.uniform(0.3, 2)))
    if rng.random() < 0.15:
        cells = int(rng.integers(32, 100))
        picture = picture.resize((cells, cells), Image.Resampling.BICUBIC).resize(
            (SIZE, SIZE), Image.Resampling.BICUBIC
        )
    pixels = np.asarray(picture)
    if rng.random() < 0.3:
        grain = rng.standard_normal((SIZE, SIZE, 1), dtype=np.float32) * rng.uniform(2, 20)
        pixels = np.clip(pixels + grain, 0, 255).astype(np.uint8)
    if rng.random() < 0.3:
        kept = io.BytesIO()
        Image.fromarray(pixels).save(kept, "JPEG", quality=int(rng.integers(30, 95)))
        pixels = np.asarray(Image.open(kept))
    return pixels


def _texture(rng: Generator) -> Field:
    """A surface: plain, shaded, striped or rough."""
    first, second = _colours(rng, 2)
    kind, angle = rng.integers(4), rng.uniform(0, np.pi)
    along = _X * np.cos(angle) + _Y * np.sin(angle)
    if kind == 0:
        level = np.zeros_like(along)
    elif kind == 1:
        level = along - 0.5
    elif kind == 2:
        level = np.sin(2 * np.pi * along * rng.uniform(2, 30)) * rng.uniform(0.2, 1)
    else:
        level = _spectrum(rng, rng.uniform(0.5, 3)) * rng.uniform(0.2, 0.6)
    drawn: Field = np.clip(first + (second - first) * (level[..., None] / 2 + 0.5), 0, 1).astype(np.float32)
    return drawn


def _spectrum(rng: Generator, exponent: float) -> Field:
    """Noise of mean 0 and deviation 1 whose amplitude falls as frequency to the power of ``exponent`` / 1.6."""
    amplitude = np.maximum(_FREQUENCY, 1) ** (-exponent / 1.6)
    amplitude[0, 0] = 0
    waves = amplitude * np.exp(2j * np.pi * rng.random(amplitude.shape))
    noise = np.fft.irfft2(waves, s=(SIZE, SIZE))
    drawn: Field = (noise / (noise.std() + 1e-9)).astype(np.float32)
    return drawn


def _coloured(rng: Generator, fields: list[Field]) -> Field:
    """Mix three fields into colours that go together."""
    mixing = np.ones((3, 3)) * rng.uniform(0, 1) + rng.normal(0, 0.4, (3, 3))
    mixed = np.stack(fields, axis=-1) @ mixing.T
    return (0.5 + mixed * rng.uniform(0.08, 0.25)).astype(np.float32)


def _colours(rng: Generator, count: int) -> Field:
    return rng.random((count, 3), dtype=np.float32)


def _outline(rng: Generator, radius: float) -> list[tuple[float, float]]:
    """The corners of a leaf: a polygon, or an ellipse of so many corners that none is seen."""
    corners = int(rng.choice([3, 4, 5, 6, 24]))
    angles = np.sort(rng.uniform(0, 2 * np.pi, corners)) if corners < 24 else np.linspace(0, 2 * np.pi, 24)
    turn, squeeze = rng.uniform(0, np.pi), rng.uniform(0.4, 1)
    x, y = radius * np.cos(angles), radius * np.sin(angles) * squeeze
    centre = rng.uniform(0, SIZE, 2)
    turned = (x * np.cos(turn) - y * np.sin(turn) + centre[0], x * np.sin(turn) + y * np.cos(turn) + centre[1])
    return [*zip(*(axis.tolist() for axis in turned), strict=True)]


def _smooth(corners: Field) -> Field:
    """Cut the corners of a line off, three times."""
    for _ in range(3):
        before, after = corners[:-1], corners[1:]
        cut = np.stack([0.75 * before + 0.25 * after, 0.25 * before + 0.75 * after], axis=1).reshape(-1, 2)
        corners = np.concatenate([corners[:1], cut, corners[-1:]])
    return corners


def _bytes(image: Field) -> Pixels:
    return np.clip(image * 255, 0, 255).astype(np.uint8)


def _field(image: Image.Image) -> Field:
    return np.asarray(image, dtype=np.float32) / 255

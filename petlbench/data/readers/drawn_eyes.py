"""Images like the back of an eye for the synthetic dataset ``lesions``: round, with lesions and what looks like them.

Pixels come from integer operations of Pillow and from additions, products and square roots of NumPy, which give
the same bytes on every machine; the few sines and cosines only place points that are then rounded.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageChops, ImageDraw

if TYPE_CHECKING:
    from petlbench.data.readers.lesions import LesionSettings

GRADES = 5
_BLOCK = 2 * GRADES

Pixels = NDArray[np.uint8]
Grid = NDArray[np.float32]

_GRADE, _COUNT, _EYE, _PATIENT, _VESSELS, _SPOTS, _NOISE = range(7)
_SCALE = 8
_RADIUS = 0.47
_STEP, _STEPS = 0.018, 4
_DARK = (0.50, 0.28, 0.34)
_BRIGHT = (250.0, 226.0, 150.0)


def stream(settings: LesionSettings, index: int, purpose: int) -> np.random.Generator:
    """Return the random numbers that one image has for one purpose, whatever other images are made."""
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence([settings.seed, index, purpose])))


def patient_of(index: int) -> int:
    """Return the patient whose eye image `index` shows: two eyes a patient."""
    return index // 2


def grade_of(settings: LesionSettings, index: int) -> int:
    """Return the grade of image `index`, 0 to 4: in every ten images in a row each grade occurs twice."""
    order = stream(settings, index // _BLOCK, _GRADE).permutation(_BLOCK)
    return int(order[index % _BLOCK]) % GRADES


def lesion_count(settings: LesionSettings, index: int) -> int:
    """Return how many lesions image `index` has: none in grade 0, and never as many as in the next grade."""
    grade = grade_of(settings, index)
    if grade == 0:
        return 0
    spread = min(1, (settings.lesions_per_grade - 1) // 2)
    return grade * settings.lesions_per_grade + int(stream(settings, index, _COUNT).integers(-spread, spread + 1))


@dataclass(frozen=True)
class _Eye:
    """Where things lie, in fractions of the image's width."""

    side: int
    disc: tuple[float, float]
    disc_radius: float
    macula: tuple[float, float]
    colour: tuple[float, float, float]
    brightness: float


@dataclass(frozen=True)
class Spot:
    """A lesion or a distractor: centre and diameters in pixels, strength 0 to 1."""

    x: float
    y: float
    width: float
    height: float
    strength: float
    bright: bool
    soft: bool


def draw(settings: LesionSettings, index: int, lesions: int | None = None) -> Pixels:
    """Draw image `index`.

    Args:
        settings: What the images are like.
        index: Which image.
        lesions: How many of its lesions are drawn, if not all; every other pixel is the same.

    Returns:
        RGB pixels (S, S, 3), where S is the image size.
    """
    size = settings.image_size
    eye = _eye(settings, index)
    vessels = _vessels(eye, size, stream(settings, index, _VESSELS))
    scene = ImageChops.multiply(_background(eye, size, stream(settings, index, _EYE)), _tint(vessels))
    pixels = np.array(scene)
    distractors, spots = _spots(settings, eye, vessels, stream(settings, index, _SPOTS), lesion_count(settings, index))
    for spot in (*distractors, *spots[:lesions]):
        stamp(pixels, spot)
    return grain(pixels, size, stream(settings, index, _NOISE))


def _eye(settings: LesionSettings, index: int) -> _Eye:
    """Both eyes of a patient share colour and layout, mirrored: this is why a split must keep them together."""
    own = stream(settings, index, _EYE + 100)
    shared = stream(settings, patient_of(index), _PATIENT)
    side = 1 if index % 2 == 0 else -1
    red, green, blue, disc_x, disc_y, disc_size = shared.random(6)
    colour = (168 + 60 * red, 78 + 46 * green, 34 + 34 * blue)
    disc = (0.5 + side * (0.245 + 0.03 * disc_x), 0.47 + 0.06 * disc_y + 0.02 * own.random())
    macula = (0.5 - side * (0.02 + 0.03 * own.random()), disc[1] + 0.03)
    return _Eye(side, disc, 0.068 + 0.016 * disc_size, macula, colour, 0.78 + 0.3 * own.random())


@lru_cache(maxsize=4)
def _axes(cells: int) -> tuple[Grid, Grid]:
    centres = (np.arange(cells, dtype=np.float32) + np.float32(0.5)) / np.float32(cells)
    return centres[None, :], centres[:, None]


def _fall(x: Grid, y: Grid, centre: tuple[float, float], radius: float) -> Grid:
    """A smooth hill (S/8, S/8): 1 at the centre, 0 from the radius on."""
    squared = ((x - np.float32(centre[0])) ** 2 + (y - np.float32(centre[1])) ** 2) / np.float32(radius**2)
    return np.maximum(np.float32(1) - squared, np.float32(0)) ** 2


def _background(eye: _Eye, size: int, rng: np.random.Generator) -> Image.Image:
    """The retina without vessels: colour, vignette, texture, macula and optic disc, on black."""
    cells = max(16, size // _SCALE)
    x, y = _axes(cells)
    shade = np.float32(0.45) + np.float32(0.75) * _fall(x, y, (0.5, 0.5), 0.75)
    shade = shade * (np.float32(1) - np.float32(0.35) * _fall(x, y, eye.macula, 0.13))
    shade = shade * (np.float32(1) + np.float32(0.25) * _fall(x, y, eye.disc, 0.2)) * np.float32(eye.brightness)
    shade = shade * (cloud(rng, cells, 6, 0.16) + cloud(rng, cells, 24, 0.09) + cloud(rng, cells, cells, 0.06) + 1)
    base = shade[:, :, None] * np.array(eye.colour, dtype=np.float32)
    small = Image.fromarray(np.clip(base, 0, 255).astype(np.uint8))
    image = small.resize((size, size), Image.Resampling.BILINEAR)
    _paste_disc(image, eye)
    outside = Image.new("RGB", (size, size), (3, 2, 2))
    return Image.composite(image, outside, _retina(size))


def cloud(rng: np.random.Generator, cells: int, grain: int, depth: float) -> Grid:
    """Smooth noise (cells, cells) of at most ± depth, with `grain` independent values along each side."""
    raw = Image.frombytes("L", (grain, grain), rng.bytes(grain * grain))
    values = np.asarray(raw.resize((cells, cells), Image.Resampling.BICUBIC), dtype=np.float32)
    return (values / np.float32(127.5) - np.float32(1)) * np.float32(depth)


@lru_cache(maxsize=4)
def _retina(size: int) -> Image.Image:
    """The mask (S, S) of the round field that the camera sees."""
    return _ellipse(size, size * _RADIUS, size * _RADIUS)


def _ellipse(size: int, half_x: float, half_y: float) -> Image.Image:
    """A mask (S, S) of one ellipse in the middle, drawn at twice the size for a smooth edge."""
    mask = Image.new("L", (2 * size, 2 * size), 0)
    box = (size - 2 * half_x, size - 2 * half_y, size + 2 * half_x, size + 2 * half_y)
    ImageDraw.Draw(mask).ellipse([round(side) for side in box], fill=255)
    return mask.reduce(2)


def _paste_disc(image: Image.Image, eye: _Eye) -> None:
    """The optic disc, and in it the paler cup."""
    size = image.width
    for scale, gain, strength in ((1.0, (1.25, 1.85, 2.4), 180), (0.5, (1.35, 2.35, 3.6), 150)):
        colour = tuple(min(255, round(level * eye.brightness * g)) for level, g in zip(eye.colour, gain, strict=True))
        radius = eye.disc_radius * scale * size
        side = 2 * int(radius + 2)
        mask = _ellipse(side, 0.92 * radius, radius).point([level * strength // 255 for level in range(256)])
        corner = (round(eye.disc[0] * size) - side // 2, round(eye.disc[1] * size) - side // 2)
        image.paste(colour, (*corner, corner[0] + side, corner[1] + side), mask)


def _vessels(eye: _Eye, size: int, rng: np.random.Generator) -> Image.Image:
    """A mask (S, S) of the vessels, drawn at twice the size for smooth edges."""
    canvas = Image.new("L", (2 * size, 2 * size), 0)
    pen = ImageDraw.Draw(canvas)
    toward = math.pi if eye.side > 0 else 0.0
    for up in (-1, 1):
        for lean, bend in ((0.95, -0.030), (2.2, 0.005)):
            for strength, width in ((200, 0.0125), (150, 0.0085)):
                angle = toward + up * eye.side * (lean + 0.5 * (rng.random() - 0.5))
                walk = _Walk(*eye.disc, angle, up * eye.side * bend, width, strength, depth=2)
                _branch(pen, rng, 2 * size, walk)
    return canvas.reduce(2)


@dataclass(frozen=True)
class _Walk:
    """Where a vessel starts and how it goes on: lengths in fractions of the image's width, angles in radians."""

    x: float
    y: float
    angle: float
    bend: float
    width: float
    strength: int
    depth: int


def _branch(pen: ImageDraw.ImageDraw, rng: np.random.Generator, size: int, walk: _Walk) -> None:
    """Draw one vessel, bending and wobbling, thinner after every piece, and the branches that leave it."""
    x, y, angle, width = walk.x, walk.y, walk.angle, walk.width
    # A last twig has no branches and no taper worth drawing: one line instead of four saves half the time.
    pieces, steps = (4 + 2 * walk.depth, _STEPS) if walk.depth else (1, 4 * _STEPS)
    chance = rng.random((pieces, steps + 1)).tolist()
    side = 1 if chance[0][0] < 0.5 else -1
    for *wobbles, forks in chance:
        if (x - 0.5) ** 2 + (y - 0.5) ** 2 > _RADIUS**2:
            return
        points = [(x * size, y * size)]
        for wobble in wobbles:
            angle += walk.bend + 0.32 * (wobble - 0.5)
            x, y = x + _STEP * math.cos(angle), y + _STEP * math.sin(angle)
            points.append((x * size, y * size))
        pen.line(points, fill=walk.strength, width=max(2, round(width * size)))
        width *= 0.90
        if walk.depth and forks < 0.6:
            turn, strength = angle + side * 0.7, walk.strength * 9 // 10
            _branch(pen, rng, size, _Walk(x, y, turn, 0.3 * walk.bend, width * 0.66, strength, walk.depth - 1))
            side = -side


def _tint(vessels: Image.Image) -> Image.Image:
    """The colour (S, S, RGB) by which vessels darken what is under them."""
    keep = (0.38, 0.58, 0.50)
    return Image.merge("RGB", [vessels.point([255 - round(level * part) for level in range(256)]) for part in keep])


def _spots(
    settings: LesionSettings, eye: _Eye, vessels: Image.Image, rng: np.random.Generator, lesions: int
) -> tuple[list[Spot], list[Spot]]:
    """Choose the distractors, as many in every grade, and then the lesions, clear of vessels and of each other."""
    count = int(rng.integers(6, 31))
    places = _places(settings, eye, np.asarray(vessels), rng, count + lesions)
    distractors = [_distractor(settings, place, rng) for place in places[:count]]
    return distractors, [_lesion(settings, place, rng) for place in places[count:]]


def _places(
    settings: LesionSettings, eye: _Eye, vessels: Pixels, rng: np.random.Generator, count: int
) -> list[tuple[int, int]]:
    """Draw `count` pixel positions inside the retina, off the optic disc; off vessels and apart while there is room."""
    size, centres = settings.image_size, list[tuple[int, int]]()
    apart = settings.lesion_max_size + 3
    for attempt in range(64):
        clear = 24 if attempt < 32 else 255
        least = (apart if attempt < 48 else 0) ** 2
        for x, y in rng.integers(0, size, (8 * count, 2)).tolist():
            if len(centres) == count:
                return centres
            if not _in_retina(x / size, y / size, eye) or vessels[y - 2 : y + 3, x - 2 : x + 3].max() > clear:
                continue
            if all((x - a) ** 2 + (y - b) ** 2 >= least for a, b in centres):
                centres.append((x, y))
    raise ValueError(f"{count} spots do not fit into an image of {size} pixels")


def _in_retina(x: float, y: float, eye: _Eye) -> bool:
    from_disc = (x - eye.disc[0]) ** 2 + (y - eye.disc[1]) ** 2
    return (x - 0.5) ** 2 + (y - 0.5) ** 2 < (0.88 * _RADIUS) ** 2 and from_disc > (1.35 * eye.disc_radius) ** 2


def _lesion(settings: LesionSettings, place: tuple[int, int], rng: np.random.Generator) -> Spot:
    """Small sizes are the common ones; two in five are bright exudates, the others dark dots and haemorrhages."""
    size, shape, strength, bright, dx, dy = rng.random(6).tolist()
    low, high = settings.lesion_min_size, settings.lesion_max_size
    width = low + (high - low) * size**3
    height = min(high, max(low, width * (0.8 + 0.4 * shape)))
    return Spot(place[0] + dx, place[1] + dy, width, height, 0.72 + 0.25 * strength, bright < 0.4, soft=False)


def _distractor(settings: LesionSettings, place: tuple[int, int], rng: np.random.Generator) -> Spot:
    """A faint soft blot, such as pigment or a reflex: shrunk, it resembles a shrunk lesion."""
    size, shape, strength, bright, dx, dy = rng.random(6).tolist()
    width = settings.lesion_max_size * (0.7 + 0.8 * size)
    height = width * (0.8 + 0.4 * shape)
    return Spot(place[0] + dx, place[1] + dy, width, height, 0.22 + 0.24 * strength, bright < 0.4, soft=True)


def stamp(pixels: Pixels, spot: Spot, light: tuple[float, float, float] = _BRIGHT) -> None:
    """Blend a spot into the image (S, S, 3) in place; ``light`` is the colour of bright ones."""
    reach = int(max(spot.width, spot.height) / 2) + 2
    column, row = int(spot.x), int(spot.y)
    top, left = max(0, row - reach), max(0, column - reach)
    patch = pixels[top : row + reach + 1, left : column + reach + 1]
    y = np.arange(top, top + patch.shape[0], dtype=np.float64)[:, None] + 0.5 - spot.y
    x = np.arange(left, left + patch.shape[1], dtype=np.float64)[None, :] + 0.5 - spot.x
    from_centre = np.sqrt((2 * x / spot.width) ** 2 + (2 * y / spot.height) ** 2)
    if spot.soft:
        cover = np.maximum(1 - from_centre * from_centre, 0)
    else:
        cover = np.clip((1 - from_centre) * min(spot.width, spot.height) / 2 + 0.5, 0, 1)
    alpha = (cover * spot.strength)[:, :, None]
    goal = np.array(light) if spot.bright else patch * np.array(_DARK)
    patch[:] = np.rint(patch * (1 - alpha) + goal * alpha).astype(np.uint8)


def grain(pixels: Pixels, size: int, rng: np.random.Generator) -> Pixels:
    """Add the camera's noise: whole numbers from -4 to 3, one for each value."""
    words = rng.bit_generator.random_raw(-(-pixels.size // 8)).astype("<u8")
    noise = words.view(np.uint8)[: pixels.size].reshape(size, size, 3) >> 5
    # Levels that leave room on both sides, so that adding bytes to bytes cannot run over.
    np.clip(pixels, 4, 251, out=pixels)
    pixels -= np.uint8(4)
    pixels += noise
    return pixels

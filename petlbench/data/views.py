"""Views of an image: resized once, augmented by seed, normalised.

All of it is done image by image, in threads, by Pillow, NumPy and the one operator of torch that works in the thread
that calls it, which resizes pixels of 8 bits in a third of Pillow's time. Others, called from several threads at once,
each bring a pool of their own, and the pools then fight for the cores.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as _functional

from petlbench.core.errors import InputError
from petlbench.data.images.decode import to_rgb
from petlbench.data.record import Split

# torchvision declares tensors where it takes Pillow images as well.
F: Any = _functional


RGB = NDArray[np.uint8]
"""An RGB image, (height, width, 3)."""

Form = tuple[int, str]
"""What a view stores of an image: the side of the square in pixels, and the filter that resizes."""

_FILTERS = ("bilinear", "bicubic", "lanczos")

# Those of Pillow's filters that torch has, too, for pixels of 8 bits: the same up to one level.
_TORCH_FILTERS = ("bilinear", "bicubic")


@dataclass(frozen=True)
class Normalization:
    """Mean and standard deviation per colour channel, for images in 0 to 1, and where they come from."""

    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    origin: str


Colour = tuple[float, float, float]
# The first is that of ImageNet's training images, the third that of OpenAI's CLIP; half brings 0 to 1 to -1 to 1.
_NAMED: Mapping[str, tuple[Colour, Colour]] = {
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "half": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    "clip": ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)),
    "none": ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
}


def named_normalization(name: str) -> Normalization:
    """The normalisation that a name of `_NAMED`, or two or six numbers with commas between them, mean.

    Raises:
        InputError: When a deviation is zero.
    """
    if name in _NAMED:
        return Normalization(*_NAMED[name], name)
    numbers = [float(number) for number in name.split(",")]
    mean, std = (numbers[:3], numbers[3:]) if len(numbers) == 6 else (numbers[:1] * 3, numbers[1:] * 3)
    if min(std) <= 0:
        message = f"--normalize {name}: a standard deviation has to be greater than 0"
        raise InputError(message, hint="give mean and deviation, or three and three", kind="bad_setting")
    return Normalization(cast("Colour", tuple(mean)), cast("Colour", tuple(std)), name)


@dataclass(frozen=True)
class Augmentation:
    """Random crop, mirror and colour change of a training image.

    Args:
        margin: Side of the view over the side that the image is stored at, as in the common 224-of-256 crop.
        smallest_area: Smallest area of the crop, as a share of the image.
        mirror: Probability of a left-right mirror image.
        jitter: Largest relative change of brightness, contrast and saturation.
    """

    margin: float = 0.875
    smallest_area: float = 0.5
    mirror: float = 0.5
    jitter: float = 0.2

    def __call__(self, image: Image.Image, size: int, rng: np.random.Generator) -> Image.Image:
        """Return a stored square RGB image augmented, size by size pixels; `rng` draws every choice."""
        stored = image.width
        side = max(1, round(stored * math.sqrt(rng.uniform(self.smallest_area, 1.0))))
        top, left = rng.integers(0, stored - side + 1, size=2).tolist()
        image = F.resized_crop(image, top, left, side, side, [size, size], InterpolationMode.BILINEAR)
        if rng.random() < self.mirror:
            image = F.horizontal_flip(image)
        brightness, contrast, saturation = rng.uniform(1 - self.jitter, 1 + self.jitter, size=3).tolist()
        image = F.adjust_brightness(image, brightness)
        image = F.adjust_contrast(image, contrast)
        return cast("Image.Image", F.adjust_saturation(image, saturation))

    def describe(self, size: int) -> str:
        """One line for the result."""
        return (
            f"square crop of {self.smallest_area:.0%} to 100% of the area to {size}, mirror p={self.mirror}, "
            f"brightness, contrast and saturation ±{self.jitter:.0%}"
        )


@dataclass(frozen=True)
class View:
    """How one view of an image is made: resize to a square, perhaps augment, normalise.

    Args:
        size: Side of the view in pixels.
        interpolation: timm's name of the resizing filter.
        normalization: Mean and standard deviation.
        augmentation: What training images get, or None.
    """

    size: int
    interpolation: str
    normalization: Normalization
    augmentation: Augmentation | None = None

    @property
    def filter(self) -> str:
        """The filter that resizes: the one that was asked for, or bicubic where that is unknown."""
        return self.interpolation if self.interpolation in _FILTERS else "bicubic"

    @property
    def form(self) -> Form:
        """What is stored of each image: a square a little larger than the view where it will be cropped."""
        side = self.size if self.augmentation is None else math.ceil(self.size / self.augmentation.margin)
        return side, self.filter

    def store(self, image: Image.Image) -> RGB:
        """Resize a decoded image to the square that is kept, (side, side, 3)."""
        side, name = self.form
        if image.mode == "RGB" and name in _TORCH_FILTERS:
            return _resized(np.array(image), side, name)
        return np.asarray(to_rgb(image.resize((side, side), Image.Resampling[name.upper()])))

    def pixels(self, stored: RGB, rng: np.random.Generator) -> RGB:
        """Turn what is stored of an image into the pixels of the view, (size, size, 3), augmented where wanted."""
        if self.augmentation is None:
            return stored
        return np.asarray(self.augmentation(Image.fromarray(stored), self.size, rng))

    def write(self, pixels: RGB, row: NDArray[np.float32]) -> None:
        """Normalise the pixels of an image, (size, size, 3), into its place in a batch, (3, size, size)."""
        for channel, levels in enumerate(_levels(self.normalization)):
            # No pixel lies outside; "clip" only spares NumPy the buffer that it would need to find one that does.
            np.take(levels, pixels[..., channel], out=row[channel], mode="clip")

    def batch(self, images: Sequence[RGB]) -> Tensor:
        """Normalise the pixels of B images, each (size, size, 3), for a module: float32, (B, 3, size, size)."""
        batch = torch.empty(len(images), 3, self.size, self.size)
        for pixels, row in zip(images, batch.numpy(), strict=True):
            self.write(pixels, row)
        return batch

    def without_augmentation(self) -> View:
        """The same view for evaluation, or for features that are computed once."""
        return replace(self, augmentation=None)

    def describe(self) -> str:
        """One line for the result."""
        text = (
            f"resize to {self.size} ({self.interpolation}), normalised with the mean of the {self.normalization.origin}"
        )
        return f"{text}; {self.augmentation.describe(self.size)}" if self.augmentation else f"{text}; no augmentation"


def by_split(views: Mapping[str, View]) -> dict[Split, dict[str, View]]:
    """The views of each split, by their names: those of training, and the same without augmentation."""
    plain = {name: view.without_augmentation() for name, view in views.items()}
    return {"train": dict(views), "val": plain, "test": plain}


@lru_cache
def _levels(normalization: Normalization) -> NDArray[np.float32]:
    """What each of the 256 levels of a channel becomes, (3, 256): an image is then looked up, not computed."""
    pixels = torch.arange(256, dtype=torch.uint8).expand(3, 1, 256)
    scaled = F.to_dtype(pixels, torch.float32, scale=True)
    levels: Tensor = F.normalize(scaled, list(normalization.mean), list(normalization.std))
    return cast("NDArray[np.float32]", levels.reshape(3, 256).numpy())


def _resized(pixels: RGB, side: int, mode: str) -> RGB:
    channels_last = torch.from_numpy(pixels).permute(2, 0, 1).unsqueeze(0)
    resized = nn.functional.interpolate(channels_last, size=(side, side), mode=mode, antialias=True)
    return cast("RGB", resized[0].permute(1, 2, 0).contiguous().numpy())

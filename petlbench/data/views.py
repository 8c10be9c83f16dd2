"""Views of an image: resized once, augmented by seed, normalised."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2 import functional as F

__all__ = ["Augmentation", "Normalization", "View"]

_INTERPOLATION = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}


@dataclass(frozen=True)
class Normalization:
    """Mean and standard deviation per colour channel, for images in 0 to 1, and where they come from."""

    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    origin: str


@dataclass(frozen=True)
class Augmentation:
    """Random crop, mirror and colour change of a training image.

    Args:
        margin: Share of the stored side that the crop's side takes on average size; the image is stored larger by
            its inverse, as in the common 224-of-256 crop.
        smallest_area: Smallest area of the crop, as a share of the image.
        mirror: Probability of a left-right mirror image.
        jitter: Largest relative change of brightness, contrast and saturation.
    """

    margin: float = 0.875
    smallest_area: float = 0.5
    mirror: float = 0.5
    jitter: float = 0.2

    def __call__(self, image: Tensor, size: int, rng: np.random.Generator) -> Tensor:
        """Augment one image.

        Args:
            image: Stored image, uint8, (3, R, R).
            size: Side of the result in pixels.
            rng: Draws every choice, so that the result depends on its seed alone.

        Returns:
            The augmented image, uint8, (3, size, size).
        """
        stored = image.shape[-1]
        side = max(1, round(stored * math.sqrt(rng.uniform(self.smallest_area, 1.0))))
        top, left = rng.integers(0, stored - side + 1, size=2).tolist()
        image = F.resized_crop(image, top, left, side, side, [size, size], antialias=True)
        if rng.random() < self.mirror:
            image = F.horizontal_flip(image)
        brightness, contrast, saturation = rng.uniform(1 - self.jitter, 1 + self.jitter, size=3).tolist()
        image = F.adjust_brightness(image, brightness)
        image = F.adjust_contrast(image, contrast)
        return F.adjust_saturation(image, saturation)

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

    def store(self, image: Image.Image) -> Tensor:
        """Resize an RGB image to the square that is kept: uint8, (3, R, R), R a little larger where it is cropped."""
        side = self.size if self.augmentation is None else math.ceil(self.size / self.augmentation.margin)
        resized = image.resize((side, side), _INTERPOLATION.get(self.interpolation, Image.Resampling.BICUBIC))
        return torch.from_numpy(np.array(resized)).permute(2, 0, 1).contiguous()

    def finish(self, stored: Tensor, rng: np.random.Generator) -> Tensor:
        """Turn a stored image (3, R, R) into what a module eats: float32, (3, size, size)."""
        if self.augmentation is not None:
            stored = self.augmentation(stored, self.size, rng)
        mean, std = self.normalization.mean, self.normalization.std
        return F.normalize(F.to_dtype(stored, torch.float32, scale=True), list(mean), list(std))

    def without_augmentation(self) -> View:
        """The same view for evaluation, or for features that are computed once."""
        return View(self.size, self.interpolation, self.normalization)

    def describe(self) -> str:
        """One line for the result."""
        text = f"resize to {self.size} ({self.interpolation}), normalised with the mean of the {self.normalization.origin}"
        return f"{text}; {self.augmentation.describe(self.size)}" if self.augmentation else f"{text}; no augmentation"

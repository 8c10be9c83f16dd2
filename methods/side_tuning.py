"""Side-tuning: a small network beside the frozen backbone, blended with it at the final feature."""

from __future__ import annotations

from typing import cast

import torch
from pydantic import Field
from torch import Tensor, nn

from petlbench import (
    Adapted,
    Backbone,
    BackboneInfo,
    FinalFeature,
    FrozenFeatures,
    Inputs,
    Method,
    MethodCard,
    MethodSettings,
    TrainingDefaults,
    ViewSpec,
    new_head,
)

__all__ = ["BlendedClassifier", "SideTuning", "SideTuningSettings", "alexnet_features"]

# AlexNet's convolutions leave nothing of a smaller image.
_SMALLEST = 63
# Height and width of what AlexNet's own classifier reads.
_GRID = 6


class SideTuningSettings(MethodSettings):
    """Settings of the side network."""

    side_size: int = Field(
        224, ge=_SMALLEST, le=4096, description="largest side of the side network's image, in pixels"
    )


class SideTuning(Method[SideTuningSettings]):
    """Learns the side network S and the share a in R(x) = a B(x) + (1 - a) S(x) (Side-Tuning, section 3).

    S is AlexNet's convolutions and a projection to the backbone's width, a the sigmoid of one number, as VPT's authors
    reproduced it. Theirs start from ImageNet weights; these start from random ones, because a run never fetches
    weights that nobody named.
    """

    card = MethodCard(
        name="side_tuning",
        title="Side-tuning",
        family="side network",
        year=2020,
        paper="https://arxiv.org/abs/1912.13503",
        summary="Learns a small convolutional network that is blended with the frozen final feature.",
    )
    Settings = SideTuningSettings
    defaults = TrainingDefaults(lr=1e-3, lr_range=(5e-5, 5e-3))

    def views(self, backbone: BackboneInfo, image_size: int) -> dict[str, ViewSpec]:
        """The fine view is for the frozen backbone and never augmented; the other one is the side network's."""
        side = max(min(self.settings.side_size, image_size), _SMALLEST)
        return {"fine": ViewSpec(image_size, augment=False), "side": ViewSpec(side)}

    def features(self, backbone: BackboneInfo) -> FrozenFeatures:
        """What the side network is blended with."""
        return FinalFeature()

    def adapt(self, backbone: Backbone, num_classes: int) -> Adapted:
        """Build the side network; the backbone stays outside the trained module."""
        module = BlendedClassifier(backbone.info.feature_width, num_classes)
        return Adapted(module, frozenset(name for name, _ in module.named_parameters()))


class BlendedClassifier(nn.Module):
    """A head on the blend of the backbone's feature and a side network's.

    Args:
        width: Channels of the backbone's final feature, D.
        num_classes: Number of classes C.
    """

    def __init__(self, width: int, num_classes: int) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.zeros(()))
        self.side = alexnet_features()
        self.project = nn.Linear(256 * _GRID**2, width, bias=False)
        self.head = new_head(width, num_classes)

    def forward(self, inputs: Inputs) -> Tensor:
        """Map the side view (B, 3, h, w) and the final feature (B, D) to logits (B, C)."""
        maps = self.side(inputs.views["side"])
        if maps.shape[-2:] != (_GRID, _GRID):
            # Not at the usual size, where it would change nothing: its gradient cannot be repeated bit by bit on a GPU.
            maps = nn.functional.adaptive_avg_pool2d(maps, _GRID)
        share = torch.sigmoid(self.alpha)
        blended = share * inputs.features["final"] + (1 - share) * self.project(maps.flatten(1))
        return cast("Tensor", self.head(blended))


def alexnet_features() -> nn.Sequential:
    """Make AlexNet's convolutions as torchvision has them (Krizhevsky, arXiv:1404.5997), with random weights."""
    return nn.Sequential(
        *_convolution(3, 64, kernel=11, stride=4, padding=2),
        nn.MaxPool2d(3, stride=2),
        *_convolution(64, 192, kernel=5, padding=2),
        nn.MaxPool2d(3, stride=2),
        *_convolution(192, 384, kernel=3, padding=1),
        *_convolution(384, 256, kernel=3, padding=1),
        *_convolution(256, 256, kernel=3, padding=1),
        nn.MaxPool2d(3, stride=2),
    )


def _convolution(inside: int, outside: int, *, kernel: int, padding: int, stride: int = 1) -> tuple[nn.Module, ...]:
    return nn.Conv2d(inside, outside, kernel, stride=stride, padding=padding), nn.ReLU(inplace=True)

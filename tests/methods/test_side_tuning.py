"""Side-tuning: the blend against plain tensor operations, AlexNet against torchvision's, and the published size."""

from __future__ import annotations

import pytest
import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional

from petlbench.methods.side_tuning import BlendedClassifier, SideTuning, alexnet_features
from petlbench.models.method import Inputs, ViewSpec
from petlbench.models.registry import build_backbone, probe_backbone, resolve_backbone

CLASSES, WIDTH = 3, 8


def alexnet(convolutions: list[Tensor], image: Tensor) -> Tensor:
    """AlexNet's convolutions, written out: strides and paddings of the five, pooling behind the first two and last."""
    x = image
    for number, (stride, padding) in enumerate([(4, 2), (1, 2), (1, 1), (1, 1), (1, 1)]):
        weight, bias = convolutions[2 * number : 2 * number + 2]
        x = functional.conv2d(x, weight, bias, stride=stride, padding=padding).relu()
        if number in {0, 1, 4}:
            x = functional.max_pool2d(x, 3, 2)
    return x


@pytest.mark.parametrize("size", [63, 224])
def test_the_features_are_blended_and_classified(size: int) -> None:
    torch.manual_seed(0)
    module = BlendedClassifier(WIDTH, CLASSES).double()
    for tensor in module.parameters():
        nn.init.normal_(tensor, std=0.05)
    with torch.no_grad():
        module.alpha.fill_(0.7)
    image = torch.randn(2, 3, size, size, dtype=torch.float64)
    final = torch.randn(2, WIDTH, dtype=torch.float64)
    maps = alexnet(list(module.side.parameters()), image)
    grid = maps if size == 224 else maps.expand(-1, -1, 6, 6)  # the pooled map of the smallest image has one place
    assert grid.shape == (2, 256, 6, 6)
    share = 1 / (1 + torch.exp(torch.tensor(-0.7, dtype=torch.float64)))
    feature = share * final + (1 - share) * functional.linear(grid.reshape(2, -1), module.project.weight)
    expected = functional.linear(feature, module.head.weight, module.head.bias)
    torch.testing.assert_close(module(Inputs({"side": image}, {"final": final})), expected, rtol=1e-10, atol=1e-10)


def test_both_features_count_alike_at_the_start() -> None:
    module = BlendedClassifier(WIDTH, CLASSES)
    assert torch.sigmoid(module.alpha).item() == 0.5
    assert module.project.bias is None


def test_the_convolutions_are_alexnet_s() -> None:
    with torch.device("meta"):
        theirs = torchvision.models.alexnet(weights=None).features
        ours = alexnet_features()
    assert [repr(layer) for layer in ours] == [repr(layer) for layer in theirs]
    assert sum(tensor.numel() for tensor in ours.parameters()) == 2_469_696


def test_the_fine_view_is_never_augmented_and_the_side_view_never_too_small() -> None:
    info = probe_backbone("tiny_vit", 32)
    for settings, image_size, side in [({}, 32, 63), ({}, 384, 224), ({"side_size": 96}, 128, 96)]:
        views = SideTuning.from_settings(settings).views(info, image_size)
        assert views == {"fine": ViewSpec(image_size, augment=False), "side": ViewSpec(side)}


def test_it_counts_as_published() -> None:
    meta, width = torch.device("meta"), 768
    backbone = build_backbone(resolve_backbone("vit_base_patch16_224"), 224, "none", meta)
    with meta:
        learned = SideTuning.from_settings({}).adapt(backbone, CLASSES).parameters()
    extra = 2_469_696 + 256 * 36 * width + 1
    assert sum(tensor.numel() for name, tensor in learned.items() if not name.startswith("head.")) == extra
    # 24 models of VPT's tables, their heads for 2,113 classes together, over one backbone.
    assert round(1 + (24 * extra + 2113 * (width + 1)) / 85_798_656, 2) == 3.69

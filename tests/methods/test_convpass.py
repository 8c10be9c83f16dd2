"""Convpass: what its bypasses read, convolve and add, against plain tensor operations."""

from __future__ import annotations

import copy
from typing import Any, cast

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from petlbench.methods.convpass import Convpass
from petlbench.models.backbone import Backbone
from petlbench.models.method import Adapted, Inputs
from petlbench.models.registry import build_backbone, probe_backbone, resolve_backbone
from tests.methods import stirred
from tests.methods.stirred import image, stirred_backbone

CPU, META = torch.device("cpu"), torch.device("meta")


def adapt(backbone: Backbone, **settings: Any) -> Adapted:
    return stirred.adapt(Convpass.from_settings(settings), backbone)


def bypass_of(adapted: Adapted, place: str, prefix: int, x: Tensor) -> Tensor:
    """Every prefix token is convolved as a picture of one pixel, by the convolution that the patches go through."""
    got = dict(adapted.module.named_parameters())
    if f"backbone.{place}.bypass.up.bias" not in got:
        return torch.zeros_like(x)
    names = ("down.weight", "down.bias", "conv.weight", "conv.bias", "up.weight", "up.bias")
    down, down_bias, kernel, bias, up, up_bias = (got[f"backbone.{place}.bypass.{name}"] for name in names)
    middle = F.linear(x, down, down_bias)
    middle = middle * torch.sigmoid(1.702 * middle)
    batch, tokens, channels = middle.shape
    convolved = [
        F.conv2d(middle[:, index].reshape(batch, channels, 1, 1), kernel, bias, padding=1).reshape(batch, 1, channels)
        for index in range(prefix)
    ]
    side = round((tokens - prefix) ** 0.5)
    picture = torch.stack([middle[:, prefix + row * side : prefix + (row + 1) * side] for row in range(side)], dim=1)
    picture = F.conv2d(picture.permute(0, 3, 1, 2), kernel, bias, padding=1).permute(0, 2, 3, 1)
    middle = torch.cat([*convolved, picture.reshape(batch, -1, channels)], dim=1)
    middle = middle * torch.sigmoid(1.702 * middle)
    return 0.7 * F.linear(middle, up, up_bias)


# With a class token and 4 x 4 patches; with layer scale, a class and four register tokens and 2 x 2 patches; with a
# class and a distillation token.
@pytest.mark.parametrize(("name", "size"), [("test_vit", 64), ("tiny_registers", 28), ("tiny_distilled", 32)])
@pytest.mark.parametrize("placement", ["attention_mlp", "attention"])
def test_bypasses_read_normed_tokens_and_add_past_layer_scale(name: str, size: int, placement: str) -> None:
    backbone = stirred_backbone(name, size)
    plain, prefix = Backbone(backbone.info, copy.deepcopy(backbone.module)), backbone.info.prefix_tokens
    adapted = adapt(backbone, bottleneck=5, scale=0.7, placement=placement)
    tokens = next(plain.states(image(size)))
    for index, block in enumerate(plain.blocks()):
        normed = block.norm1(tokens)
        tokens = tokens + block.ls1(block.attn(normed)) + bypass_of(adapted, f"blocks.{index}.attn", prefix, normed)
        normed = block.norm2(tokens)
        tokens = tokens + block.ls2(block.mlp(normed)) + bypass_of(adapted, f"blocks.{index}.mlp", prefix, normed)
    expected = adapted.module.get_submodule("head")(plain.pooled_from(tokens))
    got = cast("Tensor", adapted.module(Inputs({"fine": image(size)})))
    torch.testing.assert_close(got, expected, rtol=1e-10, atol=1e-10)
    assert any(".mlp.bypass." in learned for learned in adapted.learnable) == (placement == "attention_mlp")


def test_the_convolution_can_start_as_the_identity_and_up_starts_at_zero() -> None:
    module = Convpass.from_settings({"convolution": "identity"}).adapt(stirred_backbone("test_vit", 32), 3).module
    bypass: Any = module.get_submodule("backbone.blocks.3.mlp.bypass")
    x = torch.randn(2, 8, 5, 5)
    torch.testing.assert_close(bypass.conv(x), x)
    assert not any(tensor.any() for tensor in (bypass.up.weight, bypass.up.bias, bypass.down.bias, bypass.conv.bias))
    # Xavier's uniform draw stays within √(6 / (D + h)) and fills that range.
    bound = (6 / (64 + 8)) ** 0.5
    assert 0.9 * bound < float(bypass.down.weight.detach().abs().max()) <= bound
    assert bypass.dropout.p == 0.1


def test_the_convolution_starts_from_xaviers_draw() -> None:
    module = Convpass.from_settings({}).adapt(stirred_backbone("test_vit", 32), 3).module
    weight = module.get_parameter("backbone.blocks.3.mlp.bypass.conv.weight").detach()
    bound = (6 / (9 * (8 + 8))) ** 0.5
    assert 0.9 * bound < float(weight.abs().max()) <= bound


@pytest.mark.parametrize(("placement", "parts", "printed"), [("attention_mlp", 2, "0.33"), ("attention", 1, "0.16")])
def test_the_count_is_the_papers(placement: str, parts: int, printed: str) -> None:
    backbone = build_backbone(resolve_backbone("vit_base_patch16_224"), 224, "none", META)
    with META:
        learned = Convpass.from_settings({"placement": placement}).adapt(backbone, 100).parameters()
    count = sum(tensor.numel() for name, tensor in learned.items() if not name.startswith("head."))
    width, hidden = 768, 8
    down, conv, up = width * hidden + hidden, 9 * hidden**2 + hidden, hidden * width + width
    assert count == 12 * parts * (down + conv + up)
    assert f"{count / 1e6:.2f}" == printed  # VTAB, without the heads


def test_tokens_of_several_widths_are_refused() -> None:
    method = Convpass.from_settings({})
    assert method.refuse(probe_backbone(resolve_backbone("test_vit"), 32)) is None
    assert "tokens of one width" in (method.refuse(probe_backbone("tiny_swin", 32)) or "")

"""Adapters: where they stand and what they compute, against plain tensor operations, and what folding leaves."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from petlbench.methods.adapter import Adapter
from petlbench.models.backbone import Backbone
from petlbench.models.method import Adapted
from petlbench.models.registry import build_backbone, resolve_backbone
from tests.methods.stirred import adapt_beside, check_folding, image, logits

CPU, META = torch.device("cpu"), torch.device("meta")
PLACEMENTS = ["houlsby", "pfeiffer", "parallel"]


def build(name: str, size: int, **settings: Any) -> tuple[Adapted, Backbone, Backbone]:
    return adapt_beside(Adapter.from_settings({"bottleneck": 5, "scale": 0.7, **settings}), name, size)


def adapter_of(adapted: Adapted, place: str, activation: str, x: Tensor) -> Tensor:
    got = dict(adapted.module.named_parameters())
    names = ("down.weight", "down.bias", "up.weight", "up.bias")
    if f"backbone.{place}.adapter.up.bias" not in got:
        return torch.zeros_like(x)
    down, down_bias, up, up_bias = (got[f"backbone.{place}.adapter.{name}"] for name in names)
    middle = F.linear(x, down, down_bias)
    middle = {"gelu": F.gelu(middle), "relu": middle.clamp(min=0), "none": middle}[activation]
    return 0.7 * F.linear(middle, up, up_bias)


@pytest.mark.parametrize("placement", PLACEMENTS)
@pytest.mark.parametrize("activation", ["gelu", "relu", "none"])
def test_adapters_stand_where_their_placement_says(placement: str, activation: str) -> None:
    adapted, _, plain = build("tiny_registers", 28, placement=placement, activation=activation)
    tokens = next(plain.states(image(28)))
    for index, block in enumerate(plain.blocks()):
        attended = block.attn(block.norm1(tokens))
        attended = attended + adapter_of(adapted, f"blocks.{index}.attn", activation, attended)
        tokens = tokens + block.ls1(attended)
        normed = block.norm2(tokens)
        output = block.mlp(normed)
        read = normed if placement == "parallel" else output
        tokens = tokens + block.ls2(output + adapter_of(adapted, f"blocks.{index}.mlp", activation, read))
    expected = adapted.module.get_submodule("head")(plain.pooled_from(tokens))
    torch.testing.assert_close(logits(adapted, 28), expected, rtol=1e-10, atol=1e-10)
    assert any(".attn.adapter." in name for name in adapted.learnable) == (placement == "houlsby")


@pytest.mark.parametrize(("name", "size"), [("tiny_registers", 28), ("tiny_eva", 28), ("tiny_swin", 32)])
@pytest.mark.parametrize("placement", ["houlsby", "pfeiffer"])
def test_folding_linear_adapters_leaves_a_plain_model_that_says_the_same(name: str, size: int, placement: str) -> None:
    adapted, backbone, plain = build(name, size, placement=placement, activation="none")
    check_folding(adapted, backbone, plain, size)


@pytest.mark.parametrize(
    "settings", [{"placement": "parallel", "activation": "none"}, {"activation": "gelu"}, {"activation": "relu"}]
)
def test_other_adapters_are_not_folded(settings: dict[str, str]) -> None:
    assert build("test_vit", 32, **settings)[0].merge is None


@pytest.mark.parametrize("placement", PLACEMENTS)
def test_up_and_the_biases_are_zero_at_the_start(placement: str) -> None:
    torch.manual_seed(0)
    backbone = build_backbone(resolve_backbone("test_vit"), 32, "none", CPU)
    module = Adapter.from_settings({"placement": placement}).adapt(backbone, 3).module
    adapter: Any = module.get_submodule("backbone.blocks.3.mlp.adapter")
    assert not any(tensor.any() for tensor in (adapter.up.weight, adapter.up.bias, adapter.down.bias))
    assert abs(float(adapter.down.weight.detach().std()) - 0.02) < 0.002


@pytest.mark.parametrize(("placement", "parts"), [("houlsby", 2), ("pfeiffer", 1), ("parallel", 1)])
@pytest.mark.parametrize("bottleneck", [8, 64])
def test_the_count_is_two_layers_and_their_biases_a_place(placement: str, parts: int, bottleneck: int) -> None:
    backbone = build_backbone(resolve_backbone("vit_base_patch16_224"), 224, "none", META)
    method = Adapter.from_settings({"placement": placement, "bottleneck": bottleneck})
    with META:
        learned = method.adapt(backbone, 100).parameters()
    count = sum(tensor.numel() for name, tensor in learned.items() if not name.startswith("head."))
    assert count == 12 * parts * (768 * bottleneck + bottleneck + bottleneck * 768 + 768)

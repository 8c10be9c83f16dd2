"""RepAdapter: what its adapters compute, against plain tensor operations, and what is left after folding."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from petlbench.methods.repadapter import RepAdapter
from petlbench.models.backbone import Backbone
from petlbench.models.method import Adapted
from petlbench.models.registry import build_backbone, probe_backbone, resolve_backbone
from tests.methods.stirred import adapt_beside, check_folding, image, logits

CPU, META = torch.device("cpu"), torch.device("meta")


def build(name: str, size: int, **settings: Any) -> tuple[Adapted, Backbone, Backbone]:
    return adapt_beside(RepAdapter.from_settings({"scale": 0.7, **settings}), name, size)


def adapter_of(adapted: Adapted, place: str, x: Tensor) -> Tensor:
    """A dense layer and one that a grouped convolution of one pixel computes, as the authors have it."""
    got = dict(adapted.module.named_parameters())
    if f"backbone.{place}.adapter.up" not in got:
        return x
    names = ("down.weight", "down.bias", "up", "bias")
    down, down_bias, up, bias = (got[f"backbone.{place}.adapter.{name}"] for name in names)
    middle = F.linear(x, down, down_bias).transpose(1, 2)
    return x + 0.7 * F.conv1d(middle, up.flatten(0, 1)[:, :, None], bias, groups=len(up)).transpose(1, 2)


@pytest.mark.parametrize("placement", ["attention_mlp", "attention"])
@pytest.mark.parametrize("groups", [2, 4])
def test_adapters_stand_between_the_norms_and_the_parts(placement: str, groups: int) -> None:
    adapted, _, plain = build("tiny_registers", 28, placement=placement, groups=groups)
    tokens = next(plain.states(image(28)))
    for index, block in enumerate(plain.blocks()):
        normed = adapter_of(adapted, f"blocks.{index}.attn", block.norm1(tokens))
        tokens = tokens + block.ls1(block.attn(normed))
        normed = adapter_of(adapted, f"blocks.{index}.mlp", block.norm2(tokens))
        tokens = tokens + block.ls2(block.mlp(normed))
    expected = adapted.module.get_submodule("head")(plain.pooled_from(tokens))
    torch.testing.assert_close(logits(adapted, 28), expected, rtol=1e-10, atol=1e-10)


# A size at which Swin's last windows are padded with zeros is among them.
@pytest.mark.parametrize(
    ("name", "size"),
    [("test_vit", 32), ("tiny_registers", 28), ("tiny_swin", 32), ("tiny_swin", 40)],
)
@pytest.mark.parametrize("placement", ["attention_mlp", "attention"])
def test_folding_leaves_a_plain_model_that_says_the_same(name: str, size: int, placement: str) -> None:
    adapted, backbone, plain = build(name, size, placement=placement)
    check_folding(adapted, backbone, plain, size)


def test_what_has_no_bias_to_fold_into_is_not_folded() -> None:
    assert build("tiny_eva", 28)[0].merge is None


def test_up_is_zero_at_the_start_and_a_tenth_of_the_middle_is_dropped() -> None:
    torch.manual_seed(0)
    backbone = build_backbone(resolve_backbone("test_vit"), 32, "none", CPU)
    module = RepAdapter.from_settings({}).adapt(backbone, 3).module
    adapter: Any = module.get_submodule("backbone.blocks.3.mlp.adapter")
    assert not any(tensor.any() for tensor in (adapter.up, adapter.bias, adapter.down.bias))
    bound = (6 / (64 + 8)) ** 0.5
    assert 0.9 * bound < float(adapter.down.weight.detach().abs().max()) <= bound
    assert (adapter.dropout.p, adapter.scale) == (0.1, 1.0)


@pytest.mark.parametrize(("placement", "parts", "printed"), [("attention_mlp", 2, "0.22"), ("attention", 1, "0.11")])
def test_the_count_is_the_papers_with_the_biases_that_it_leaves_out(placement: str, parts: int, printed: str) -> None:
    backbone = build_backbone(resolve_backbone("vit_base_patch16_224"), 224, "none", META)
    with META:
        learned = RepAdapter.from_settings({"placement": placement}).adapt(backbone, 100).parameters()
    count = sum(tensor.numel() for name, tensor in learned.items() if not name.startswith("head."))
    width, hidden = 768, 8
    weights, biases = width * hidden + width * hidden // 2, hidden + width
    assert count == 12 * parts * (weights + biases)
    assert f"{12 * parts * weights / 1e6:.2f}" == printed  # VTAB, without the heads


def test_groups_that_do_not_divide_are_refused() -> None:
    info = probe_backbone(resolve_backbone("test_vit"), 32)
    assert RepAdapter.from_settings({}).refuse(info) is None
    assert "bottleneck of 8" in (RepAdapter.from_settings({"groups": 3}).refuse(info) or "")
    assert "width of 64" in (RepAdapter.from_settings({"groups": 3, "bottleneck": 9}).refuse(info) or "")
    # The first of Swin's widths is an eighth of the last.
    swin = probe_backbone(resolve_backbone("swin_tiny_patch4_window7_224"), 224)
    assert "width of 96" in (RepAdapter.from_settings({"groups": 64, "bottleneck": 64}).refuse(swin) or "")

"""Partial-k, norm tuning and Mlp-k: what is learned, how much it is, and what the deep head computes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from petlbench.methods.linear import MLPHead
from petlbench.methods.partial import NormTuning, PartialTuning
from petlbench.models.backbone import Backbone
from petlbench.models.method import Inputs, Method
from petlbench.models.registry import build_backbone, probe_backbone, resolve_backbone

CLASSES = 5
# The 24 tasks of VPT's tables: their classes together, and ViT-B/16 without a head.
TASKS, TASK_CLASSES, BASE = 24, 2113, 85_798_656
D, L = 768, 12


def tiny(name: str = "tiny_vit") -> Backbone:
    torch.manual_seed(0)
    return build_backbone(name, 28 if name in {"tiny_eva", "tiny_registers"} else 32, "none", torch.device("cpu"))


def learned_without_head(method: Method[Any]) -> int:
    meta = torch.device("meta")
    backbone = build_backbone(resolve_backbone("vit_base_patch16_224"), 224, "none", meta)
    with meta:
        adapted = method.adapt(backbone, CLASSES)
    return sum(tensor.numel() for name, tensor in adapted.parameters().items() if not name.startswith("head."))


def published_total(extra: int) -> float:
    """The whole of 24 adapted models over one backbone, as VPT's tables count it."""
    return round(1 + (TASKS * extra + TASK_CLASSES * (D + 1)) / BASE, 2)


def test_partial_learns_the_last_blocks_the_final_norm_and_the_head() -> None:
    adapted = PartialTuning.from_settings({"num_blocks": 2}).adapt(tiny(), CLASSES)
    tops = {".".join(name.split(".")[1:3]) for name in adapted.learnable if name.startswith("backbone.")}
    assert tops == {"blocks.2", "blocks.3", "norm.weight", "norm.bias"}
    last = [*adapted.module.get_submodule("backbone.blocks.2").parameters()]
    last += [*adapted.module.get_submodule("backbone.blocks.3").parameters()]
    assert len(adapted.learnable) == len(last) + 2 + 2


def test_partial_counts_as_published() -> None:
    block = 12 * D**2 + 13 * D
    for k in (1, 3):
        assert learned_without_head(PartialTuning.from_settings({"num_blocks": k})) == k * block + 2 * D
    assert published_total(block + 2 * D) == 3.00


def test_partial_keeps_nothing_for_gradients_in_front_of_what_is_learned() -> None:
    backbone = tiny()
    adapted = PartialTuning.from_settings({}).adapt(backbone, CLASSES)
    adapted.freeze_the_rest()
    needed: list[bool] = []
    for block in backbone.blocks():
        block.register_forward_hook(lambda _module, _args, out: needed.append(out.requires_grad))
    adapted.module(Inputs({"fine": torch.randn(2, 3, 32, 32)}))
    assert needed == [False, False, False, True]


def test_partial_takes_the_last_blocks_of_swins_last_stage() -> None:
    learned = PartialTuning.from_settings({"num_blocks": 2}).adapt(tiny("tiny_swin"), CLASSES).learnable
    places = {".".join(name.split(".")[1:5]) for name in learned if ".blocks." in name}
    assert places == {"layers.1.blocks.0", "layers.1.blocks.1"}
    assert {"backbone.norm.weight", "backbone.norm.bias"} <= learned
    assert not any("downsample" in name for name in learned)


def test_partial_refuses_more_blocks_than_there_are() -> None:
    info = probe_backbone("tiny_vit", 32)
    assert PartialTuning.from_settings({"num_blocks": 4}).refuse(info) is None
    reason = PartialTuning.from_settings({"num_blocks": 5}).refuse(info)
    assert reason is not None
    assert "5 blocks" in reason
    assert "has 4" in reason


def test_norm_counts_two_vectors_a_norm() -> None:
    assert learned_without_head(NormTuning.from_settings({})) == 2 * D * (2 * L + 1) == 38_400


@pytest.mark.parametrize(
    ("name", "examples"),
    [
        ("tiny_vit", {"norm", "blocks.0.norm1", "blocks.3.norm2"}),
        ("tiny_eva", {"blocks.1.mlp.norm"}),
        ("tiny_swin", {"layers.1.downsample.norm", "patch_embed.norm", "norm"}),
    ],
)
def test_norm_learns_every_layer_norm_and_nothing_else(name: str, examples: set[str]) -> None:
    adapted = NormTuning.from_settings({}).adapt(tiny(name), CLASSES)
    owners = {learned.rpartition(".")[0] for learned in adapted.learnable} - {"head"}
    assert all(type(adapted.module.get_submodule(owner)).__name__.startswith("LayerNorm") for owner in owners)
    assert {f"backbone.{example}" for example in examples} <= owners
    kinds = [layer for layer in adapted.module.modules() if isinstance(layer, nn.LayerNorm)]
    assert len(kinds) == len(owners)


def deep_head(**settings: Any) -> nn.Module:
    torch.manual_seed(0)
    return MLPHead.from_settings(settings).adapt(tiny(), CLASSES).module


def test_the_deep_head_is_three_linear_layers_with_relu_between() -> None:
    module = deep_head().double().eval()
    for tensor in module.parameters():
        nn.init.normal_(tensor)
    feature = torch.randn(6, 64, dtype=torch.float64)
    tensors = list(module.parameters())
    assert len(tensors) == 6
    x: Tensor = feature
    for weight, bias in zip(tensors[:-2:2], tensors[1:-2:2], strict=True):
        x = functional.linear(x, weight, bias).clamp(min=0)
    torch.testing.assert_close(
        module(Inputs({}, {"final": feature})), functional.linear(x, *tensors[-2:]), rtol=1e-10, atol=1e-10
    )


def test_the_deep_head_is_drawn_for_relus_and_drops_only_in_training() -> None:
    torch.manual_seed(0)
    backbone = build_backbone(resolve_backbone("vit_tiny_patch16_224"), 32, "none", torch.device("cpu"))
    module = MLPHead.from_settings({}).adapt(backbone, CLASSES).module
    weights = [tensor for name, tensor in module.named_parameters() if name.endswith("weight")]
    assert [weight.std().item() for weight in weights[:-1]] == pytest.approx([(2 / 192) ** 0.5] * 2, rel=0.03)
    assert weights[-1].std().item() == pytest.approx(0.02, rel=0.1)
    inputs = Inputs({}, {"final": torch.randn(4, 192)})
    assert not torch.equal(module.train()(inputs), module(inputs))
    assert torch.equal(module.eval()(inputs), module(inputs))


def test_the_deep_head_counts_as_published() -> None:
    hidden = D**2 + D
    assert learned_without_head(MLPHead.from_settings({})) == 2 * hidden
    assert learned_without_head(MLPHead.from_settings({"layers": 5})) == 4 * hidden
    assert published_total(2 * hidden) == 1.35
    # With the scales and shifts of the batch norms that are left out it would be the same figure.
    assert published_total(2 * (hidden + 2 * D)) == 1.35

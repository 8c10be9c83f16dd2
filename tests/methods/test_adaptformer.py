"""AdaptFormer: what its adapters read and add, against plain tensor operations."""

from __future__ import annotations

import copy
import dataclasses
from typing import Any, cast

import pytest
import torch
from timm.models.eva import Eva
from torch import Tensor
from torch.nn import functional as F

from petlbench.methods.adaptformer import AdaptFormer
from petlbench.models.backbone import Backbone
from petlbench.models.method import Adapted, Inputs
from petlbench.models.registry import build_backbone, probe_backbone, resolve_backbone
from tests.methods import stirred
from tests.methods.stirred import image, redraw, stirred_backbone

CPU, META = torch.device("cpu"), torch.device("meta")


def adapt(backbone: Backbone, **settings: Any) -> Adapted:
    return stirred.adapt(AdaptFormer.from_settings(settings), backbone)


def scaled_eva() -> Backbone:
    """EVA's blocks with layer scale, as in DINOv3: a bare parameter of the block."""
    torch.manual_seed(0)
    module = Eva(img_size=32, patch_size=16, embed_dim=64, depth=2, num_heads=2, init_values=0.5, num_classes=0)
    info = dataclasses.replace(
        probe_backbone(resolve_backbone("test_vit"), 32), name="scaled_eva", blocks=2, widths=(64, 64)
    )
    module.double().eval()
    redraw(module.parameters())
    return Backbone(info, module)


def logits(adapted: Adapted) -> Tensor:
    return cast("Tensor", adapted.module(Inputs({"fine": image()})))


def adapter_of(adapted: Adapted, place: str, scale: float, x: Tensor) -> Tensor:
    got = dict(adapted.module.named_parameters())
    here = f"backbone.{place}.mlp.adapter"
    if f"{here}.norm.weight" in got:
        x = F.layer_norm(x, x.shape[-1:], got[f"{here}.norm.weight"], got[f"{here}.norm.bias"])
    middle = F.relu(F.linear(x, got[f"{here}.down.weight"], got[f"{here}.down.bias"]))
    return scale * F.linear(middle, got[f"{here}.up.weight"], got[f"{here}.up.bias"])


@pytest.mark.parametrize("layer_norm", ["none", "in"])
@pytest.mark.parametrize("name", ["test_vit", "test_vit2"])
def test_adapters_read_the_sum_behind_the_attention_and_add_past_layer_scale(name: str, layer_norm: str) -> None:
    backbone = stirred_backbone(name, 32)
    plain = Backbone(backbone.info, copy.deepcopy(backbone.module))
    adapted = adapt(backbone, bottleneck=5, scale=0.7, layer_norm=layer_norm)
    tokens = next(plain.states(image()))
    for index, block in enumerate(plain.blocks()):
        tokens = tokens + block.ls1(block.attn(block.norm1(tokens)))
        added = adapter_of(adapted, f"blocks.{index}", 0.7, tokens)
        tokens = tokens + block.ls2(block.mlp(block.norm2(tokens))) + added
    head = adapted.module.get_submodule("head")
    torch.testing.assert_close(logits(adapted), head(plain.pooled_from(tokens)), rtol=1e-10, atol=1e-10)


def test_evas_layer_scale_is_passed_by_too() -> None:
    backbone = scaled_eva()
    plain = Backbone(backbone.info, copy.deepcopy(backbone.module))
    adapted = adapt(backbone, bottleneck=5, scale=0.7)
    tokens = next(plain.states(image()))
    for index, block in enumerate(plain.blocks()):
        tokens = tokens + block.gamma_1 * block.attn(block.norm1(tokens))
        added = adapter_of(adapted, f"blocks.{index}", 0.7, tokens)
        tokens = tokens + block.gamma_2 * block.mlp(block.norm2(tokens)) + added
    head = adapted.module.get_submodule("head")
    torch.testing.assert_close(logits(adapted), head(plain.pooled_from(tokens)), rtol=1e-10, atol=1e-10)


def test_every_width_of_swin_is_served() -> None:
    backbone = stirred_backbone("tiny_swin", 32)
    plain: Any = copy.deepcopy(backbone.module)
    adapted = adapt(backbone, bottleneck=5, scale=0.7)
    tokens = plain.patch_embed(image())
    for stage, layer in enumerate(plain.layers):
        tokens = layer.downsample(tokens)
        for index, block in enumerate(layer.blocks):
            tokens = tokens + block._attn(block.norm1(tokens))
            added = adapter_of(adapted, f"layers.{stage}.blocks.{index}", 0.7, tokens)
            tokens = tokens + block.mlp(block.norm2(tokens)) + added
    expected = adapted.module.get_submodule("head")(plain.forward_head(plain.norm(tokens), pre_logits=True))
    torch.testing.assert_close(logits(adapted), expected, rtol=1e-10, atol=1e-10)


def test_up_and_the_biases_are_zero_at_the_start_and_a_tenth_of_the_middle_is_dropped() -> None:
    module = AdaptFormer.from_settings({}).adapt(stirred_backbone("test_vit", 32), 3).module
    adapter: Any = module.get_submodule("backbone.blocks.3.mlp.adapter")
    assert adapter.scale == 0.1
    assert adapter.dropout.p == 0.1
    assert not any(tensor.any() for tensor in (adapter.up.weight, adapter.up.bias, adapter.down.bias))
    assert adapter.down.weight.shape == (64, 64)
    # Kaiming's uniform draw with a slope of √5 stays within 1/√D and fills that range.
    assert 0.12 < float(adapter.down.weight.detach().abs().max()) <= 1 / 8


def test_the_middle_is_dropped_behind_the_activation_in_training() -> None:
    module = (
        AdaptFormer.from_settings({"bottleneck": 4, "dropout": 0.5}).adapt(stirred_backbone("test_vit", 32), 3).module
    )
    adapter: Any = module.get_submodule("backbone.blocks.0.mlp.adapter")
    seen: list[Tensor] = []
    adapter.dropout.register_forward_pre_hook(lambda _m, args: seen.append(args[0]))
    adapter(torch.randn(2, 3, 64))
    assert seen[0].shape == (2, 3, 4)
    assert bool((seen[0] >= 0).all())


def test_a_copy_says_the_same_and_the_module_can_be_exported() -> None:
    adapted = adapt(scaled_eva())
    torch.testing.assert_close(copy.deepcopy(adapted).module(Inputs({"fine": image()})), logits(adapted))
    exported = torch.export.export(adapted.module.get_submodule("backbone"), (image(),))
    torch.testing.assert_close(exported.module()(image()), adapted.module.get_submodule("backbone")(image()))


@pytest.mark.parametrize(
    ("bottleneck", "classes", "printed"),
    # The paper's counts for CIFAR-100, with the head and cut after two digits; and what later tables print for VTAB,
    # without a head and rounded.
    [(64, 100, "1.26"), (4, 100, "0.15"), (1, 100, "0.10"), (8, 0, "0.16")],
)
def test_the_count_is_the_papers(bottleneck: int, classes: int, printed: str) -> None:
    backbone = build_backbone(resolve_backbone("vit_base_patch16_224"), 224, "none", META)
    with META:
        learned = AdaptFormer.from_settings({"bottleneck": bottleneck}).adapt(backbone, max(classes, 1)).parameters()
    adapters = sum(tensor.numel() for name, tensor in learned.items() if not name.startswith("head."))
    assert adapters == 12 * (768 * bottleneck + bottleneck + bottleneck * 768 + 768)
    total = (adapters + classes * 769) / 1e6
    assert f"{total - 0.005 if classes else total:.2f}" == printed


def test_blocks_that_norm_elsewhere_are_refused() -> None:
    method = AdaptFormer.from_settings({})
    assert method.refuse(probe_backbone(resolve_backbone("test_vit"), 32)) is None
    assert "beit_base" in (method.refuse(probe_backbone(resolve_backbone("beit_base_patch16_224"), 224)) or "")

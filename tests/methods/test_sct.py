"""SCT: the map on salient channels against plain tensor operations, how they are chosen, and the published size."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from petlbench.methods.sct import SCT, SalientChannels
from petlbench.models.backbone import Backbone
from petlbench.models.method import Adapted, Inputs
from petlbench.models.registry import build_backbone, resolve_backbone

CLASSES = 3
SIZES = {"tiny_vit": 32, "tiny_registers": 28, "tiny_swin": 32}


def plain(name: str) -> Backbone:
    torch.manual_seed(0)
    backbone = build_backbone(name, SIZES[name], "none", torch.device("cpu"))
    for tensor in backbone.module.double().eval().parameters():
        nn.init.normal_(tensor, std=0.2)
    return backbone


def adapted_and_backbone(name: str = "tiny_vit", **settings: Any) -> tuple[Adapted, Backbone]:
    backbone = plain(name)
    torch.manual_seed(1)
    adapted = SCT.from_settings(settings).adapt(backbone, CLASSES)
    adapted.module.double().eval()
    adapted.freeze_the_rest()
    return adapted, backbone


def batches(size: int) -> list[tuple[Inputs, Tensor]]:
    torch.manual_seed(2)
    labels = [[0, 1, 0], [2, 0]]
    return [
        (Inputs({"fine": torch.randn(len(each), 3, size, size, dtype=torch.float64)}), torch.tensor(each))
        for each in labels
    ]


def maps(backbone: Backbone) -> list[SalientChannels]:
    return [block.norm2 for block in backbone.blocks()]


def test_the_chosen_channels_are_tuned_between_attention_and_mlp() -> None:
    adapted, backbone = adapted_and_backbone(share=0.25, scale=0.3)
    reference: Any = plain("tiny_vit").module
    for tensor in adapted.parameters().values():
        nn.init.normal_(tensor, std=0.2)
    for number, tuned in enumerate(maps(backbone)):
        tuned.index.copy_(torch.randperm(64, generator=torch.Generator().manual_seed(number))[:16])
    image = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    x = reference._pos_embed(reference.patch_embed(image))
    for block, tuned in zip(reference.blocks, maps(backbone), strict=True):
        x = x + block.attn(block.norm1(x))
        added = functional.linear(x[..., tuned.index], tuned.linear.weight, tuned.linear.bias)
        x = x.clone()
        x[..., tuned.index] += 0.3 * added
        x = x + block.mlp(block.norm2(x))
    head: Any = adapted.module.get_submodule("head")
    expected = head(reference.norm(x)[:, 0])
    torch.testing.assert_close(adapted.module(Inputs({"fine": image})), expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", SIZES)
def test_the_channels_with_the_largest_norms_by_class_are_chosen(name: str) -> None:
    adapted, backbone = adapted_and_backbone(name)
    assert adapted.prepare is not None
    adapted.prepare(iter(batches(SIZES[name])))
    reference = plain(name)
    seen: list[list[Tensor]] = [[] for _ in reference.blocks()]
    for block, found in zip(reference.blocks(), seen, strict=True):
        block.norm2.register_forward_pre_hook(lambda _module, args, found=found: found.append(args[0].detach()))
    for inputs, _ in batches(SIZES[name]):
        reference.pooled(inputs.views["fine"])
    labels = torch.cat([labels for _, labels in batches(SIZES[name])])
    for tuned, found in zip(maps(backbone), seen, strict=True):
        patches = torch.cat(found)[:, reference.info.prefix_tokens :]
        norms = [patches[labels == label].flatten(0, 1).norm(dim=0) for label in range(CLASSES)]
        salient = torch.stack(norms).mean(dim=0)
        assert sorted(tuned.index.tolist()) == sorted(salient.argsort()[-len(tuned.index) :].tolist())


def test_choosing_leaves_no_trace_but_the_places() -> None:
    adapted, backbone = adapted_and_backbone()
    before = {name: tensor.clone() for name, tensor in adapted.module.state_dict().items()}
    assert adapted.prepare is not None
    adapted.prepare(batches(32))
    after = adapted.module.state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed
    assert changed <= adapted.chosen == {f"backbone.blocks.{layer}.norm2.index" for layer in range(4)}
    assert [tuned.scale for tuned in maps(backbone)] == [1.0] * 4
    assert not any(tuned._forward_pre_hooks for tuned in maps(backbone))


def test_every_block_has_its_share_of_channels_and_starts_near_the_backbone() -> None:
    for name, channels in [("tiny_vit", [8] * 4), ("tiny_swin", [4, 4, 8, 8])]:
        adapted, backbone = adapted_and_backbone(name)
        assert [len(tuned.index) for tuned in maps(backbone)] == channels
        assert all(tensor.abs().max() < 0.1 for key, tensor in adapted.parameters().items() if "linear" in key)
        assert all(not tuned.linear.bias.any() and tuned.linear.weight.any() for tuned in maps(backbone))


@pytest.mark.parametrize(("share", "channels", "figure"), [(0.125, 96, 0.11), (0.25, 192, 0.44)])
def test_it_counts_as_published(share: float, channels: int, figure: float) -> None:
    meta = torch.device("meta")
    backbone = build_backbone(resolve_backbone("vit_base_patch16_224"), 224, "none", meta)
    with meta:
        learned = SCT.from_settings({"share": share}).adapt(backbone, CLASSES).parameters()
    count = sum(tensor.numel() for name, tensor in learned.items() if not name.startswith("head."))
    assert count == 12 * (channels**2 + channels)
    assert round(count / 1e6, 2) == figure

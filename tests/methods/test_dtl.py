"""DTL and DTL+: the side path against plain tensor operations, where it enters, and what is kept for gradients."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from petlbench.methods.dtl import DTL, DTLPlus
from petlbench.models.backbone import Backbone
from petlbench.models.method import Adapted, Inputs
from petlbench.models.registry import build_backbone, probe_backbone, resolve_backbone

CLASSES, BETA = 3, 100.0
SIZES = {"tiny_vit": 32, "tiny_registers": 28}


def adapted_and_backbone(method: type[DTL], name: str = "tiny_vit", **settings: Any) -> tuple[Adapted, Backbone]:
    torch.manual_seed(0)
    backbone = build_backbone(name, SIZES[name], "none", torch.device("cpu"))
    return method.from_settings(settings).adapt(backbone, CLASSES), backbone


def redrawn(module: nn.Module) -> dict[str, Tensor]:
    """Draw every tensor from a normal distribution, in float64; the side path small, where its activation bends."""
    torch.manual_seed(0)
    for name, tensor in module.double().eval().named_parameters():
        nn.init.normal_(tensor, std=0.05 if name.startswith("side.") else 0.2)
    return dict(module.named_parameters())


def by_hand(backbone: Backbone, tensors: dict[str, Tensor], image: Tensor, first: int) -> Tensor:
    """The logits; the backbone's own parts are timm's."""
    model: Any = backbone.module
    x = model.norm_pre(model._pos_embed(model.patch_embed(image)))
    h = torch.zeros_like(x)
    for layer, block in enumerate(model.blocks):
        h = h + x @ tensors["side.down"][layer].T @ tensors["side.up"][layer].T
        x = block(x)
        if layer >= first:
            entering = h / (1 + torch.exp(-BETA * h))
            if "side.convolution.weight" in tensors:
                entering = convolved(entering, tensors["side.convolution.weight"], backbone.info.prefix_tokens)
            x = x + entering
    return functional.linear(model.norm(x)[:, 0], tensors["head.weight"], tensors["head.bias"])


def convolved(x: Tensor, kernel: Tensor, prefix: int) -> Tensor:
    """Move a 3 x 3 kernel of each channel over the grid of patches, nine products added up."""
    batch, tokens, width = x.shape
    rows = round((tokens - prefix) ** 0.5)
    grid = functional.pad(x[:, prefix:].reshape(batch, rows, rows, width), (0, 0, 1, 1, 1, 1))
    total = sum(grid[:, i : i + rows, j : j + rows] * kernel[:, 0, i, j] for i in range(3) for j in range(3))
    assert isinstance(total, Tensor)
    return torch.cat([x[:, :prefix], total.reshape(batch, rows * rows, width)], dim=1)


@pytest.mark.parametrize("name", SIZES)
@pytest.mark.parametrize("method", [DTL, DTLPlus])
@pytest.mark.parametrize("first", [None, 0, 3])
def test_the_side_path_is_the_paper_s(method: type[DTL], name: str, first: int | None) -> None:
    adapted, backbone = adapted_and_backbone(method, name, rank=3, first_block=first)
    tensors = redrawn(adapted.module)
    image = torch.randn(2, 3, SIZES[name], SIZES[name], dtype=torch.float64)
    expected = by_hand(backbone, tensors, image, 2 if first is None else first)
    torch.testing.assert_close(adapted.module(Inputs({"fine": image})), expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("method", [DTL, DTLPlus])
def test_what_is_learned_is_drawn_as_the_authors_do(method: type[DTL]) -> None:
    tensors = adapted_and_backbone(method)[0].parameters()
    assert not tensors["side.up"].any()
    # kaiming_uniform with a = sqrt(5) draws from -1 / sqrt(inputs) to 1 / sqrt(inputs).
    bounds = {"side.down": 64**-0.5, "side.convolution.weight": 1 / 3}
    for name in bounds.keys() & tensors.keys():
        assert 0.9 * bounds[name] < tensors[name].abs().max() <= bounds[name]
        assert tensors[name].std().item() == pytest.approx(bounds[name] / 3**0.5, rel=0.1)
    assert ("side.convolution.weight" in tensors) == (method is DTLPlus)
    assert "side.convolution.bias" not in tensors


def test_the_early_blocks_keep_nothing_for_gradients() -> None:
    adapted, backbone = adapted_and_backbone(DTL)
    adapted.freeze_the_rest()
    needed: list[tuple[bool, bool]] = []
    for block in backbone.blocks():
        block.register_forward_hook(
            lambda _module, args, out: needed.append((args[0].requires_grad, out.requires_grad))
        )
    adapted.module(Inputs({"fine": torch.randn(2, 3, 32, 32)})).sum().backward()
    assert needed == [(False, False)] * 3 + [(True, True)]
    assert all(tensor.grad is not None for tensor in adapted.parameters().values())


@pytest.mark.parametrize(("method", "convolution", "figure"), [(DTL, 0, 0.04), (DTLPlus, 9 * 768, 0.04)])
def test_it_counts_as_published(method: type[DTL], convolution: int, figure: float) -> None:
    meta = torch.device("meta")
    backbone = build_backbone(resolve_backbone("vit_base_patch16_224"), 224, "none", meta)
    with meta:
        learned = method.from_settings({}).adapt(backbone, CLASSES).parameters()
    count = sum(tensor.numel() for name, tensor in learned.items() if not name.startswith("head."))
    assert count == 2 * 12 * 768 * 2 + convolution
    assert round(count / 1e6, 2) == figure


def test_it_refuses_a_first_block_that_is_not_there_and_windows() -> None:
    info = probe_backbone("tiny_vit", 32)
    assert DTL.from_settings({"first_block": 3}).refuse(info) is None
    assert "first_block is 4" in str(DTL.from_settings({"first_block": 4}).refuse(info))
    assert "one width" in str(DTL.from_settings({}).refuse(probe_backbone("tiny_swin", 32)))

"""Backbones and adapted modules in which no tensor is trivial, in float64: what the methods' formulas are tried on."""

from __future__ import annotations

import copy
import dataclasses
from typing import Any, cast

import torch
from timm.models.eva import Eva
from torch import Tensor

from petlbench.models.backbone import Backbone
from petlbench.models.method import Adapted, Inputs, Method
from petlbench.models.registry import build_backbone, probe_backbone, resolve_backbone

__all__ = ["adapt", "adapt_beside", "check_folding", "fused_eva", "image", "logits", "redraw", "stirred_backbone"]


def redraw(tensors: Any) -> None:
    for tensor in tensors:
        tensor.data = torch.randn(tensor.shape, dtype=torch.float64) * 0.3


def fused_eva() -> Backbone:
    """EVA's blocks with a plain MLP, and with biases of their own beside a fused layer."""
    module = Eva(img_size=32, patch_size=16, embed_dim=64, depth=2, num_heads=2, num_classes=0)
    info = probe_backbone(resolve_backbone("test_vit"), 32)
    return Backbone(dataclasses.replace(info, name="fused_eva", blocks=2, widths=(64, 64)), module)


def stirred_backbone(name: str, size: int) -> Backbone:
    torch.manual_seed(0)
    plain = fused_eva() if name == "fused_eva" else None
    backbone = plain or build_backbone(resolve_backbone(name), size, "none", torch.device("cpu"))
    backbone.module.double().eval()
    redraw(backbone.module.parameters())
    return backbone


def adapt(method: Method[Any], backbone: Backbone) -> Adapted:
    """Adapt a backbone to three classes and redraw what is learned."""
    adapted = method.adapt(backbone, 3)
    redraw(adapted.parameters().values())
    adapted.module.double().eval()
    return adapted


def adapt_beside(method: Method[Any], name: str, size: int) -> tuple[Adapted, Backbone, Backbone]:
    """An adapted backbone, the backbone in it, and as it was before."""
    backbone = stirred_backbone(name, size)
    plain = Backbone(backbone.info, copy.deepcopy(backbone.module))
    return adapt(method, backbone), backbone, plain


def image(size: int = 32) -> Tensor:
    return torch.randn(2, 3, size, size, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def logits(adapted: Adapted, size: int = 32) -> Tensor:
    with torch.no_grad():
        return cast("Tensor", adapted.module(Inputs({"fine": image(size)})))


def check_folding(adapted: Adapted, backbone: Backbone, plain: Backbone, size: int) -> None:
    """What was learned matters, and once it is folded in, timm's own model says the same with the same head."""
    head, before = adapted.module.get_submodule("head"), logits(adapted, size)
    with torch.no_grad():
        assert not torch.allclose(head(plain.pooled(image(size))), before)
    assert adapted.merge is not None
    adapted.merge()
    plain.module.load_state_dict(backbone.module.state_dict(), strict=True)
    with torch.no_grad():
        torch.testing.assert_close(head(plain.pooled(image(size))), before, rtol=1e-10, atol=1e-10)

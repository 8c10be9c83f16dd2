"""The compared methods as people write them: timm's model, peft for LoRA, a plain module for prompts and adapters.

Each learns as many parameters as petlbench's method does in its default settings.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import peft
import timm
import torch
from torch import Tensor, nn

__all__ = ["BY_HAND"]

PROMPTS, BOTTLENECK, RANK = 16, 48, 16


def full(vit: Any) -> nn.Module:
    """All is learned."""
    module: nn.Module = vit
    return module


def linear(vit: Any) -> nn.Module:
    return _only(_Probed(vit), ("vit.head.",))


def attention(vit: Any) -> nn.Module:
    return _only(vit, (".attn.", "head."))


def bitfit(vit: Any) -> nn.Module:
    return _only(vit, (".bias", "head."))


def vpt_shallow(vit: Any) -> nn.Module:
    return _only(_Prompted(vit, 1), ("prompts", "vit.head."))


def vpt_deep(vit: Any) -> nn.Module:
    return _only(_Prompted(vit, len(vit.blocks)), ("prompts", "vit.head."))


def adapter(vit: Any) -> nn.Module:
    for block in vit.blocks:
        block.attn, block.mlp = _Adapted(block.attn, vit.embed_dim), _Adapted(block.mlp, vit.embed_dim)
    return _only(vit, (".down.", ".up.", "head."))


def lora(vit: Any) -> nn.Module:
    config = peft.LoraConfig(r=RANK, lora_alpha=RANK, target_modules=["qkv"], modules_to_save=["head"])
    module: nn.Module = peft.get_peft_model(vit, config)
    return module


BY_HAND: dict[str, tuple[Callable[[Any], nn.Module], dict[str, Any]]] = {
    "full": (full, {}),
    "linear": (linear, {}),
    "vpt": (vpt_deep, {"depth": "deep"}),
    "vpt shallow": (vpt_shallow, {"depth": "shallow"}),
    "attention": (attention, {}),
    "adapter": (adapter, {}),
    "bitfit": (bitfit, {}),
    "lora": (lora, {}),
}
"""By what petlbench calls them: what makes the module of a timm model, and the settings of petlbench's method."""


def made(name: str, backbone: str, size: int, classes: int) -> nn.Module:
    """Images (B, 3, H, W) to logits (B, C), on random weights."""
    return BY_HAND[name][0](timm.create_model(backbone, num_classes=classes, img_size=size))


def _only(module: nn.Module, parts: tuple[str, ...]) -> nn.Module:
    for name, tensor in module.named_parameters():
        tensor.requires_grad_(any(part in name for part in parts))
    return module


class _Probed(nn.Module):
    def __init__(self, vit: Any) -> None:
        super().__init__()
        self.vit = vit

    def forward(self, images: Tensor) -> Tensor:
        with torch.no_grad():
            features = self.vit.forward_head(self.vit.forward_features(images), pre_logits=True)
        logits: Tensor = self.vit.head(features)
        return logits


class _Prompted(nn.Module):
    def __init__(self, vit: Any, layers: int) -> None:
        super().__init__()
        self.vit = vit
        self.prompts = nn.Parameter(torch.randn(layers, PROMPTS, vit.embed_dim) * 0.02)

    def forward(self, images: Tensor) -> Tensor:
        tokens = self.vit.norm_pre(self.vit._pos_embed(self.vit.patch_embed(images)))
        count = tokens.shape[1]
        for number, block in enumerate(self.vit.blocks):
            if number < len(self.prompts):
                prompts = self.prompts[number].expand(len(tokens), -1, -1)
                tokens = torch.cat([tokens[:, :1], prompts, tokens[:, -(count - 1) :]], dim=1)
            tokens = block(tokens)
        logits: Tensor = self.vit.forward_head(self.vit.norm(tokens))
        return logits


class _Adapted(nn.Module):
    def __init__(self, inner: nn.Module, width: int) -> None:
        super().__init__()
        self.inner, self.down, self.up = inner, nn.Linear(width, BOTTLENECK), nn.Linear(BOTTLENECK, width)
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)

    def forward(self, x: Tensor, **options: Any) -> Tensor:
        out = self.inner(x, **options)
        added: Tensor = out + self.up(nn.functional.gelu(self.down(out)))
        return added

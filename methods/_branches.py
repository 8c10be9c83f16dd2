"""What the methods share that put something of their own into the blocks of a frozen backbone."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from petlbench import BackboneInfo

__all__ = ["learned_names", "norms_elsewhere", "take_layer_scale"]


def learned_names(module: nn.Module, *parts: str) -> frozenset[str]:
    """The names of the parameters whose name holds one of some parts, and of the head's."""
    names = (name for name, _ in module.named_parameters())
    return frozenset(name for name in names if name.startswith("head.") or any(part in name for part in parts))


def norms_elsewhere(backbone: BackboneInfo) -> str | None:
    """Say so where a block may do more than norm(x), attention or MLP, layer scale and residual sum, in this order."""
    # Projections that can be adapted one by one are found only in blocks whose code is known line by line.
    if (lacking := backbone.lacks("blocks")) or "qkv" in backbone.capabilities:
        return lacking
    return f"{backbone.name} has blocks that may norm elsewhere than in front of their attention and MLP"


def take_layer_scale(block: Any, half: int) -> nn.Module:
    """Take the layer scale out of one half of a block, so that something can be added behind it.

    Args:
        block: A block of timm's; it scales nothing in this half from now on.
        half: 1 for the attention, 2 for the MLP.

    Returns:
        The layer scale as a module, or the identity where the block has none.
    """
    gamma = getattr(block, f"gamma_{half}", None)
    if gamma is not None:
        setattr(block, f"gamma_{half}", None)
        return _Scale(gamma)
    scale: nn.Module = getattr(block, f"ls{half}", nn.Identity())
    if hasattr(block, f"ls{half}"):
        setattr(block, f"ls{half}", nn.Identity())
    return scale


class _Scale(nn.Module):
    """EVA's layer scale, which is a bare parameter there."""

    def __init__(self, gamma: nn.Parameter) -> None:
        super().__init__()
        self.gamma = gamma

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gamma

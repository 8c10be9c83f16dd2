"""What the methods share that put something of their own into the blocks of a frozen backbone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal, Self, cast

import torch
from torch import Tensor, nn

from petlbench import Backbone, BackboneInfo

__all__ = [
    "Activation",
    "Behind",
    "BehindMLP",
    "BesideAttention",
    "BesideMLP",
    "Bottleneck",
    "fold_in_front",
    "learned_names",
    "norms_elsewhere",
    "quick_gelu",
    "take_layer_scale",
    "takes_constants",
]


def quick_gelu(x: Tensor) -> Tensor:
    """An approximation of GELU: x · sigmoid(1.702 x)."""
    return x * torch.sigmoid(1.702 * x)


Activation = Literal["gelu", "quick_gelu", "relu", "none"]

_ACTIVATIONS: Mapping[Activation, Callable[[Tensor], Tensor]] = {
    "gelu": nn.functional.gelu,
    "quick_gelu": quick_gelu,
    "relu": nn.functional.relu,
    "none": lambda x: x,
}


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


def _readers(part: Any) -> list[Any]:
    """The layers that read the input of an attention or an MLP of timm's."""
    names = ("qkv", "q_proj", "k_proj", "v_proj", "gate", "fc1", "fc1_g", "fc1_x")
    return [layer for name in names if (layer := getattr(part, name, None)) is not None]


def takes_constants(backbone: Backbone, *parts: str) -> bool:
    """Whether it is known what reads the inputs of some parts of the blocks, and all of it can take up a constant."""
    readers = [layer for block in backbone.blocks() for part in parts for layer in _readers(getattr(block, part))]
    return "qkv" in backbone.info.capabilities and all(layer.bias is not None for layer in readers)


@torch.no_grad()
def fold_in_front(part: nn.Module, change: Tensor, constant: Tensor) -> None:
    """Give a part that reads x + M x + c the form that reads x: W + W M and b + W c in each layer that reads it.

    Args:
        part: An attention or an MLP of timm's that `takes_constants`.
        change: M (D, D).
        constant: c (D).
    """
    for layer in _readers(part):
        layer.bias.add_(layer.weight @ constant)
        layer.weight.add_(layer.weight @ change)


class BesideAttention(nn.Module):
    """A block's attention with all that stands in front of its residual sum, and an adapter beside all of that."""

    def __init__(self, block: Any, adapter: nn.Module) -> None:
        super().__init__()
        self.norm, self.attn, self.drop_path = block.norm1, block.attn, block.drop_path1
        self.layer_scale = take_layer_scale(block, 1)
        self.adapter = adapter

    @classmethod
    def put_in(cls, block: Any, adapter: nn.Module) -> Self:
        """Put an adapter, tokens (B, N, D) to what is added to them, into a block of timm's beside the attention."""
        head = cls(block, adapter)
        block.attn, block.norm1, block.drop_path1 = head, nn.Identity(), nn.Identity()
        return head

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        added = self.drop_path(self.layer_scale(self.attn(self.norm(x), *args, **kwargs)))
        return cast("Tensor", added + self.adapter(x))


class BesideMLP(nn.Module):
    """A block's MLP with all that stands between the two residual sums, and an adapter beside all of that."""

    def __init__(self, block: Any, adapter: nn.Module) -> None:
        super().__init__()
        self.norm, self.mlp, self.drop_path = block.norm2, block.mlp, block.drop_path2
        self.layer_scale = take_layer_scale(block, 2)
        self.adapter = adapter

    @classmethod
    def put_in(cls, block: Any, adapter: nn.Module) -> Self:
        """Put an adapter, tokens (B, N, D) to what is added to them, into a block of timm's in the MLP's place."""
        tail = cls(block, adapter)
        block.mlp, block.norm2, block.drop_path2 = tail, nn.Identity(), nn.Identity()
        return tail

    def branch(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """What the frozen MLP adds to tokens x, (B, N, D)."""
        return cast("Tensor", self.drop_path(self.layer_scale(self.mlp(self.norm(x), *args, **kwargs))))

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        return cast("Tensor", self.branch(x, *args, **kwargs) + self.adapter(x))


class BehindMLP(BesideMLP):
    """The same with the adapter behind the second residual sum."""

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        added = self.branch(x, *args, **kwargs)
        return cast("Tensor", added + self.adapter(x + added))


class Bottleneck(nn.Module):
    """Two linear maps with a narrow middle: s · up(dropout(act(down(x)))).

    Args:
        width: Channels of a token, D.
        bottleneck: Channels of the middle.
        scale: The factor s.
        activation: Between the two maps.
        dropout: Dropout on the middle.
    """

    def __init__(
        self, width: int, bottleneck: int, scale: float, activation: Activation = "gelu", dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.down, self.up = nn.Linear(width, bottleneck), nn.Linear(bottleneck, width)
        self.scale, self.activation = scale, activation
        self.dropout = nn.Dropout(dropout) if dropout else nn.Identity()
        nn.init.trunc_normal_(self.down.weight, std=0.02)
        for tensor in (self.down.bias, self.up.weight, self.up.bias):
            nn.init.zeros_(tensor)

    def forward(self, x: Tensor) -> Tensor:
        """Map tokens (B, N, D) to what is added to them, (B, N, D)."""
        middle = self.dropout(_ACTIVATIONS[self.activation](self.down(x)))
        return self.scale * cast("Tensor", self.up(middle))

    @torch.no_grad()
    def fold_into(self, layer: nn.Linear) -> None:
        """Make a layer y = W x + b give y + s · up(down(y)); exact where there is no activation."""
        layer.bias.add_(self.scale * (self.up.weight @ (self.down.weight @ layer.bias + self.down.bias) + self.up.bias))
        layer.weight.add_(self.scale * self.up.weight @ (self.down.weight @ layer.weight))


class Behind(nn.Module):
    """A layer with an adapter on its output."""

    def __init__(self, inner: nn.Module, adapter: Bottleneck) -> None:
        super().__init__()
        self.inner, self.adapter = inner, adapter

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        output: Tensor = self.inner(x, *args, **kwargs)
        return output + cast("Tensor", self.adapter(output))

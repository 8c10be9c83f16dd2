"""What methods share that put a layer of their own around linear layers of a frozen backbone."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, ClassVar, TypeVar, cast

import torch
from timm.layers.norm import LayerNorm2d
from torch import Tensor, nn

from petlbench import Backbone, Companion, MethodSettings
from petlbench.methods._peft import LayerMethod

__all__ = ["OwnLayerMethod", "ScaledAndShifted", "UpdatedLinear"]

S = TypeVar("S", bound=MethodSettings)


class UpdatedLinear(nn.Module):
    """A frozen linear layer with what a method learns about it.

    Args:
        base: The frozen layer, W (O, I).
    """

    adapter_layer_names: ClassVar[tuple[str, ...]]
    """The parameters that are learned, or what holds them."""

    def __init__(self, base: nn.Linear) -> None:
        super().__init__()
        self.base = base

    @abstractmethod
    def update(self) -> tuple[Tensor, Tensor | None]:
        """What is added to the layer's weight, (O, I), and to its bias, (O,), outside training; None for nothing."""

    @torch.no_grad()
    def merge(self) -> None:
        """Fold what was learned into the layer."""
        weight, bias = self.update()
        self.base.weight.add_(weight)
        if bias is not None:
            before: Tensor | None = self.base.bias
            self.base.bias = nn.Parameter(bias if before is None else before + bias)

    def get_base_layer(self) -> nn.Linear:
        """The layer that is wrapped."""
        return self.base


class OwnLayerMethod(LayerMethod[S]):
    """Puts a layer of its own around each target; a subclass makes it."""

    @abstractmethod
    def layer(self, base: nn.Linear) -> UpdatedLinear:
        """The layer around a target."""

    def wrap(self, backbone: Backbone, names: list[str]) -> Companion | None:
        """Put them in, in the order of the names, in which they draw from torch's generator."""
        for name in names:
            backbone.replace(name, self.layer(backbone.module.get_submodule(name)))  # type: ignore[arg-type]
        return None


# timm's norm of maps is a layer norm whose channels stand in front.
_CHANNELS_FIRST = (nn.Conv2d, nn.BatchNorm2d, LayerNorm2d)


class ScaledAndShifted(nn.Module):
    """A layer and what is learned behind it.

    Args:
        inner: A convolution or a norm of maps, with its channels on axis 1, or a layer with them on the last axis.
    """

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner
        self._shape = (-1, 1, 1) if isinstance(inner, _CHANNELS_FIRST) else (-1,)
        channels = len(cast("Tensor", inner.weight))
        self.scale = nn.Parameter(nn.init.normal_(torch.empty(channels), mean=1, std=0.02))
        has_bias = getattr(inner, "bias", None) is not None
        self.shift = nn.Parameter(nn.init.normal_(torch.empty(channels), std=0.02)) if has_bias else None

    def forward(self, x: Tensor) -> Tensor:
        """Map what the layer maps, and scale and shift its channels."""
        scaled: Tensor = self.inner(x) * self.scale.view(self._shape)
        return scaled if self.shift is None else scaled + self.shift.view(self._shape)

    @torch.no_grad()
    def merged(self) -> nn.Module:
        """Fold scale and shift into the layer: γ W and γ b + β."""
        inner: Any = self.inner
        inner.weight.mul_(self.scale.view(-1, *[1] * (inner.weight.dim() - 1)))
        if self.shift is not None:
            inner.bias.mul_(self.scale).add_(self.shift)
        return self.inner

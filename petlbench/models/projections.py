"""Fused query-key-value layers, taken apart and put together again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["SplitQKV", "fuse", "split"]


class SplitQKV(nn.Module):
    """A fused query-key-value layer taken apart, so that each part can be adapted alone.

    Args:
        fused: timm's fused layer, D -> 3 D; its parameters are copied.
    """

    def __init__(self, fused: nn.Linear) -> None:
        super().__init__()
        self.q, self.k, self.v = (_part_of(fused, index) for index in range(3))

    def forward(self, x: Tensor) -> Tensor:
        """Map tokens (B, N, D) to queries, keys and values side by side, (B, N, 3 D)."""
        return torch.cat([self.q(x), self.k(x), self.v(x)], dim=-1)


def split(attention: Any) -> None:
    """Give the queries, keys and values of a timm attention layer a linear layer each, in place.

    One that has such layers already is left as it is.
    """
    if not isinstance(getattr(attention, "qkv", None), nn.Linear):
        return
    if not hasattr(attention, "q_proj"):
        attention.qkv = SplitQKV(attention.qkv)
        return
    # EVA keeps the biases beside its fused layer, none for the keys, and knows a form with three layers itself.
    parts = [_part_of(attention.qkv, index) for index in range(3)]
    for part, bias in zip(parts, (attention.q_bias, None, attention.v_bias), strict=True):
        part.bias = bias
    attention.q_proj, attention.k_proj, attention.v_proj = parts
    attention.qkv = attention.q_bias = attention.v_bias = None
    attention.was_fused = True


def fuse(attention: Any) -> None:
    """Put back together what `split` took apart, in place.

    Raises:
        TypeError: When a part is no plain linear layer, because what was learned is not merged yet.
    """
    qkv = getattr(attention, "qkv", None)
    if isinstance(qkv, SplitQKV):
        attention.qkv = _whole((qkv.q, qkv.k, qkv.v))
    elif getattr(attention, "was_fused", False):
        parts = (attention.q_proj, attention.k_proj, attention.v_proj)
        attention.qkv = _whole(parts)
        attention.q_bias, attention.v_bias = parts[0].bias, parts[2].bias
        attention.q_proj = attention.k_proj = attention.v_proj = None
        del attention.was_fused


def _whole(parts: tuple[nn.Linear, ...]) -> nn.Linear:
    """One layer of several side by side, with a bias where each of them has one."""
    for part in parts:
        if type(part) is not nn.Linear:
            raise TypeError(f"a {type(part).__name__} cannot be put back into a fused layer")
    with_bias = all(part.bias is not None for part in parts)
    with torch.device("meta"):
        whole = nn.Linear(parts[0].in_features, sum(part.out_features for part in parts), bias=with_bias)
    whole.weight = _joined([part.weight for part in parts])
    if with_bias:
        whole.bias = _joined([part.bias for part in parts])
    return whole


def _joined(parts: Sequence[Tensor]) -> nn.Parameter:
    return nn.Parameter(torch.cat([part.detach() for part in parts]), requires_grad=parts[0].requires_grad)


def _part_of(fused: nn.Linear, index: int) -> nn.Linear:
    """A layer of its own with a copy of one third of a fused layer's rows."""
    rows = fused.out_features // 3
    third = slice(index * rows, (index + 1) * rows)
    with torch.device("meta"):
        part = nn.Linear(fused.in_features, rows, bias=fused.bias is not None)
    part.weight = nn.Parameter(fused.weight.detach()[third].clone(), requires_grad=fused.weight.requires_grad)
    if fused.bias is not None:
        part.bias = nn.Parameter(fused.bias.detach()[third].clone(), requires_grad=fused.bias.requires_grad)
    return part

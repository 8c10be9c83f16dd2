"""Fused attention on device ``meta``: the kernel that a device would choose."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from petlbench.models.precision import autocast_type

__all__ = ["FusedKernel"]


_ALIGNMENT = 8

# What meta does by itself, and devices where no fused kernel serves: for tensors that are not (B, H, N, D), say.
_explicit = nn.functional.scaled_dot_product_attention


class FusedKernel(TorchFunctionMode):
    """Sends fused attention to the kernel that a device would choose.

    Left to itself, device ``meta`` falls back on explicit attention, which keeps the whole attention matrix. CUDA takes
    the flash kernel for half precision without a mask, and else the memory-efficient one.

    Args:
        device: The type of device, ``cuda`` or ``cpu``.
    """

    def __init__(self, device: str) -> None:
        super().__init__()
        self._attend = _attend_on_cpu if device == "cpu" else _attend_on_cuda

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """The result of one function; attention by the device's kernel."""
        if func is not nn.functional.scaled_dot_product_attention:
            return func(*args, **(kwargs or {}))
        return self._attend(*args, **(kwargs or {}))


def _attend_on_cuda(  # noqa: PLR0917  # the arguments are those of torch's function
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
) -> Tensor:
    if query.dim() != 4:
        return _explicit(query, key, value, attn_mask, dropout_p, is_causal, scale=scale)
    ops: Any = torch.ops.aten
    dtype = autocast_type() or query.dtype
    query, key, value = (tensor.to(dtype) for tensor in (query, key, value))
    if attn_mask is None and dtype != torch.float32:
        output = ops._scaled_dot_product_flash_attention(query, key, value, dropout_p, is_causal, scale=scale)
    else:
        mask = None
        if attn_mask is not None:
            mask = _aligned(_added(attn_mask, dtype)).expand(*query.shape[:3], key.shape[2])
        output = ops._scaled_dot_product_efficient_attention(
            query, key, value, mask, torch.is_grad_enabled(), dropout_p, is_causal, scale=scale
        )
    return cast("Tensor", output[0])


def _added(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """A mask as it is added to the scores: torch makes such a one from a boolean mask."""
    if mask.dtype != torch.bool:
        return mask.to(dtype)
    return torch.where(mask, torch.zeros((), dtype=dtype, device=mask.device), -torch.inf)


def _aligned(mask: Tensor) -> Tensor:
    """Give a mask rows that begin at multiples of eight elements, which the memory-efficient kernel asks for.

    Torch copies one whose rows do not (the 49 of a window of 7 by 7, say) into wider rows.
    """
    if mask.stride(-1) == 1 and all(stride % _ALIGNMENT == 0 for stride in mask.stride()[:-1]):
        return mask
    width = mask.shape[-1]
    return nn.functional.pad(mask, (0, _ALIGNMENT - width % _ALIGNMENT))[..., :width]


def _attend_on_cpu(  # noqa: PLR0917  # as above
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
) -> Tensor:
    dtype = autocast_type() or query.dtype
    query, key, value = (tensor.to(dtype) for tensor in (query, key, value))
    if query.dim() != 4 or dropout_p > 0 or (attn_mask is not None and attn_mask.requires_grad):
        # The CPU has no fused kernel that drops out or that learns a mask.
        return _explicit(query, key, value, attn_mask, dropout_p, is_causal, scale=scale)
    ops: Any = torch.ops.aten
    mask = _added(attn_mask, dtype) if attn_mask is not None else None
    output = ops._scaled_dot_product_flash_attention_for_cpu(
        query, key, value, dropout_p, is_causal, attn_mask=mask, scale=scale
    )
    return cast("Tensor", output[0])

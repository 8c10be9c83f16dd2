"""Fused attention on device ``meta``: the kernel that a device would choose."""

from __future__ import annotations

from functools import partial
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
        self._device = device

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """The result of one function; attention by the device's kernel."""
        if func is not nn.functional.scaled_dot_product_attention:
            return func(*args, **(kwargs or {}))
        return _attend(self._device, *args, **(kwargs or {}))


def _attend(  # noqa: PLR0917  # those behind the device are the arguments of torch's function
    device: str,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
) -> Tensor:
    explicit = partial(_explicit, attn_mask=attn_mask, dropout_p=dropout_p, is_causal=is_causal, scale=scale)
    if device != "cpu" and query.dim() != 4:
        return explicit(query, key, value)
    dtype = autocast_type() or query.dtype
    query, key, value = (tensor.to(dtype) for tensor in (query, key, value))
    learns_mask = attn_mask is not None and attn_mask.requires_grad
    if device == "cpu" and (query.dim() != 4 or dropout_p > 0 or learns_mask):
        return explicit(query, key, value)  # the CPU has no fused kernel that drops out or that learns a mask
    ops: Any = torch.ops.aten
    mask = _added(attn_mask, dtype) if attn_mask is not None else None
    if device == "cpu":
        kernel = partial(ops._scaled_dot_product_flash_attention_for_cpu, attn_mask=mask)
    elif mask is None and dtype != torch.float32:
        kernel = ops._scaled_dot_product_flash_attention
    else:
        mask = _aligned(mask).expand(*query.shape[:3], key.shape[2]) if mask is not None else None
        options = {"attn_bias": mask, "compute_log_sumexp": torch.is_grad_enabled()}
        kernel = partial(ops._scaled_dot_product_efficient_attention, **options)
    return cast("Tensor", kernel(query, key, value, dropout_p=dropout_p, is_causal=is_causal, scale=scale)[0])


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

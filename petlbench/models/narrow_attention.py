"""Attention of heads with few channels, as side networks have them, on a CPU.

torch's fused kernel is made for wide heads: with 8 channels a head it takes up to twice as long. Here every matrix has
the channels as its rows, which is the form in which a CPU multiplies narrow matrices fast, and the probabilities of a
few heads at a time stay in its cache. They are computed again in the backward pass, so that no more is kept for it than
by the fused kernel.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from petlbench.models.precision import meta_stands_for

__all__ = ["attend_in_narrow_heads", "has_narrow_heads"]

# More channels a head, and the fused kernel is as fast.
_MOST_CHANNELS = 16
# About what a core's cache holds beside the rest: bytes of the probabilities that are there at once.
_BYTES_AT_ONCE = 2**20


def has_narrow_heads(packed: Tensor, queries: int) -> bool:
    """Whether `attend_in_narrow_heads`, which takes the same arguments, is the faster way.

    It is in training (the rest is for torch, which can also export it), in fp32 on a CPU, and where the probabilities
    of one head fit the cache.
    """
    device = meta_stands_for.get() if packed.device.type == "meta" else packed.device.type
    return (
        device == "cpu"
        and packed.dtype == torch.float32
        and packed.requires_grad
        and torch.is_grad_enabled()
        and packed.shape[4] <= _MOST_CHANNELS
        and 1 < queries <= _BYTES_AT_ONCE // (packed.element_size() * packed.shape[1])
    )


def attend_in_narrow_heads(packed: Tensor, queries: int) -> Tensor:
    """The attention output (B, M, H d) of the first tokens: softmax(q k^T / sqrt(d)) v, head by head.

    Args:
        packed: Queries, keys and values of all tokens, (B, N, 3, H, d).
        queries: How many of the first tokens are queries, M.
    """
    result: Tensor = _NarrowHeads.apply(packed, queries)
    return result


class _NarrowHeads(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, packed: Tensor, queries: int) -> Tensor:
        batch, _, _, heads, _ = packed.shape
        rows = packed.permute(2, 0, 3, 4, 1).flatten(1, 2).contiguous()
        query, key, value = _split(rows, queries)
        read = torch.empty_like(query)
        for part in _parts(query, key):
            probabilities = _probabilities(query[part], key[part])
            torch.bmm(value[part], probabilities.transpose(1, 2), out=read[part])
        ctx.save_for_backward(rows, read)
        ctx.heads = heads
        return read.view(batch, heads, -1, queries).permute(0, 3, 1, 2).flatten(2)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        rows, read = ctx.saved_tensors
        queries = read.shape[2]
        query, key, value = _split(rows, queries)
        incoming = (
            gradient.reshape(-1, queries, ctx.heads, rows.shape[2]).permute(0, 2, 3, 1).flatten(0, 1).contiguous()
        )
        # What the softmax's derivative takes off every score of a query: sum(p * dp) = sum(read * d read).
        common = (incoming * read).sum(dim=1).unsqueeze(2)
        gradients = torch.empty_like(rows)
        gradients[0, :, :, queries:] = 0
        for part in _parts(query, key):
            probabilities = _probabilities(query[part], key[part])
            torch.bmm(incoming[part], probabilities, out=gradients[2, part])
            scores = torch.bmm(incoming[part].transpose(1, 2), value[part]).sub_(common[part]).mul_(probabilities)
            torch.bmm(query[part], scores, out=gradients[1, part])
            gradients[0, part, :, :queries] = torch.bmm(key[part], scores.transpose(1, 2))
        gradients[0] *= _scale(rows)
        return gradients.view(3, -1, ctx.heads, *gradients.shape[2:]).permute(1, 4, 0, 2, 3), None


def _split(rows: Tensor, queries: int) -> tuple[Tensor, Tensor, Tensor]:
    """Scaled queries (B H, d, M), keys and values (B H, d, N)."""
    query, key, value = rows.unbind(0)
    return query[:, :, :queries] * _scale(rows), key, value


def _scale(rows: Tensor) -> float:
    return float(rows.shape[2] ** -0.5)


def _parts(query: Tensor, key: Tensor) -> Iterator[slice]:
    """Slices of the heads of all images whose probabilities fit the cache."""
    heads = len(key)
    size = max(_BYTES_AT_ONCE // (query.element_size() * query.shape[2] * key.shape[2]), 1)
    return (slice(first, first + size) for first in range(0, heads, size))


def _probabilities(query: Tensor, key: Tensor) -> Tensor:
    return torch.bmm(query.transpose(1, 2), key).softmax(dim=2)

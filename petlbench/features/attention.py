"""Attention with the frozen backbone: what its own layers compute, and what a method asks of its keys and values."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from petlbench.autocast import autocast_type

__all__ = ["attend_and_weigh", "attend_to_stored", "importance"]

# Rows of the attention matrix that are held at once: few enough for a core's cache, many enough for a matrix product.
_QUERY_BLOCK = 64


def importance(query: Tensor, key: Tensor) -> Tensor:
    """Mean over the queries of the attention that each token receives, per head.

    Args:
        query: Queries, (B, H, M, d), not scaled.
        key: Keys, (B, H, N, d).

    Returns:
        Importance, (B, H, N), each row adding up to one.
    """
    total = _zeros(key)
    for probabilities in _by_queries(query, key):
        total += probabilities.sum(dim=2)
    return total / query.shape[2]


def attend_and_weigh(query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
    """Attend, and learn from the same probabilities how important each token is.

    Args:
        query: Queries, (B, H, M, d), not scaled.
        key: Keys, (B, H, N, d).
        value: Values, (B, H, N, d).

    Returns:
        What the queries read, (B, H, M, d), and the importance of each token, (B, H, N).
    """
    total, read = _zeros(key), []
    for probabilities in _by_queries(query, key):
        total += probabilities.sum(dim=2)
        read.append(probabilities.to(value.dtype) @ value)
    return torch.cat(read, dim=2), total / query.shape[2]


def attend_to_stored(query: Tensor, key: Sequence[Tensor], value: Sequence[Tensor]) -> Tensor:
    """Attend to keys and values in the precision that they are stored in; no gradient flows to them.

    What is kept for the backward pass is the probabilities, which are small because the queries are few; keys and
    values are brought to the queries' precision once more there, and nothing of their size is kept. Their scales are
    applied to the scores and probabilities, which are smaller than they are.

    Args:
        query: Queries, (B, H, P, d), not scaled.
        key: Keys as they are stored, (B, H, K, d), with a scale for each, (B, H, K), where they are integers.
        value: Values, likewise.

    Returns:
        What the queries read, (B, H, P, d).
    """
    dtype = autocast_type(query.device.type) or query.dtype
    if not torch.is_grad_enabled():
        return _read(_weigh(query, key, dtype), value, dtype)
    result: Tensor = _AttendToStored.apply(query, dtype, len(key), *key, *value)
    return result


class _AttendToStored(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, query: Tensor, dtype: torch.dtype, parts: int, *stored: Tensor) -> Tensor:
        probabilities = _weigh(query, stored[:parts], dtype)
        ctx.save_for_backward(probabilities, *stored)
        ctx.query_dtype, ctx.dtype, ctx.parts = query.dtype, dtype, parts
        return _read(probabilities, stored[parts:], dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        probabilities, *stored = ctx.saved_tensors
        key, value = stored[: ctx.parts], stored[ctx.parts :]
        # The softmax's derivative (of its scores), then the product's (of the queries).
        reached = _scores(gradients[0], value, ctx.dtype)
        reached -= (probabilities * reached).sum(dim=3, keepdim=True)
        found = _read(reached.mul_(probabilities), key, ctx.dtype).mul_(key[0].shape[-1] ** -0.5)
        return found.to(ctx.query_dtype), None, None, *(None for _ in stored)


def _weigh(query: Tensor, key: Sequence[Tensor], dtype: torch.dtype) -> Tensor:
    """Probabilities of the stored tokens, (B, H, P, K)."""
    return _scores(query * query.shape[-1] ** -0.5, key, dtype).softmax(dim=3)


def _scores(query: Tensor, stored: Sequence[Tensor], dtype: torch.dtype) -> Tensor:
    """Products with each stored vector, (B, H, P, K), in fp32 at least."""
    # The larger factor first, and the smaller one turned by itself: the product takes half the time so on a CPU.
    turned = query.to(dtype).transpose(-2, -1).contiguous()
    scores = _at_least_single(stored[0].to(dtype) @ turned).transpose(-2, -1).contiguous()
    # The scale of a vector is that of its products, which are fewer than its numbers.
    return scores if len(stored) == 1 else scores.mul_(_row(stored[1], scores))


def _read(weights: Tensor, stored: Sequence[Tensor], dtype: torch.dtype) -> Tensor:
    """Sums of the stored vectors by weights (B, H, P, K), (B, H, P, d)."""
    scaled = weights if len(stored) == 1 else weights * _row(stored[1], weights)
    return scaled.to(dtype) @ stored[0].to(dtype)


def _row(scale: Tensor, like: Tensor) -> Tensor:
    # In one type: products of two types are slow on a CPU.
    return scale.to(like.dtype).unsqueeze(-2)


def _by_queries(query: Tensor, key: Tensor) -> Iterator[Tensor]:
    """Probabilities of a few queries at a time, (B, H, M', N): the whole matrix is never there."""
    turned, scale = key.transpose(-2, -1), key.shape[-1] ** -0.5
    for block in torch.split(query, _QUERY_BLOCK, dim=2):
        yield _softmax(_at_least_single((block * scale) @ turned))


def _softmax(scores: Tensor) -> Tensor:
    """Softmax in place: on a CPU, fresh memory takes longer than the arithmetic."""
    scores.sub_(scores.amax(dim=3, keepdim=True)).exp_()
    return scores.div_(scores.sum(dim=3, keepdim=True))


def _zeros(key: Tensor) -> Tensor:
    return _at_least_single(key.new_zeros(key.shape[:3]))


def _at_least_single(tensor: Tensor) -> Tensor:
    """Half precision would lose what many tokens add."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))

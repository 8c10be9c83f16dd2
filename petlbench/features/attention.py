"""Attention without the whole matrix in memory: on stored keys and values, with its weights, and in narrow heads."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, cast

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from petlbench.features import by_head
from petlbench.features.by_head import is_by_head
from petlbench.models.precision import autocast_type, meta_stands_for

# Rows of the attention matrix that are held at once: few enough for a core's cache, many enough for a matrix product.
_QUERY_BLOCK = 64

# Parts in which the heads of stored vectors are brought to the queries' precision: memory that is fresh costs more on a
# CPU than the arithmetic.
_PARTS = 4

# More channels a head, and the fused kernel is as fast.
_MOST_CHANNELS = 16
# About what a core's cache holds beside the rest: bytes of the probabilities that are there at once.
_BYTES_AT_ONCE = 2**20


def importance(query: Tensor, key: Tensor) -> Tensor:
    """The importance of each token per head, (B, H, N): the mean of the attention that it receives.

    Queries (B, H, M, d) are not scaled; keys are (B, H, N, d).
    """
    if is_by_head(query, key):
        return by_head.importance(query, key)
    total = _zeros(key)
    for probabilities in _by_queries(query, key):
        total += probabilities.sum(dim=2)
    return total / query.shape[2]


def attend_and_weigh(query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
    """The attention output (B, H, M, d), and from the same probabilities the importance of each token, (B, H, N).

    Queries (B, H, M, d) are not scaled; keys and values are (B, H, N, d).
    """
    if is_by_head(query, key):
        return by_head.attend_and_weigh(query, key, value)
    total, read = _zeros(key), []
    for probabilities in _by_queries(query, key):
        total += probabilities.sum(dim=2)
        read.append(probabilities.to(value.dtype) @ value)
    return torch.cat(read, dim=2), total / query.shape[2]


def attend_to_stored(query: Tensor, key: Sequence[Tensor], value: Sequence[Tensor]) -> Tensor:
    """The output (B, H, P, d) of the same queries for each image's stored keys and values; no gradient flows to those.

    What is kept for the backward pass is the probabilities, which are small because the queries are few; keys and
    values are brought to the queries' precision once more there, a few heads at a time. Their scales are applied to
    the scores and probabilities, which are smaller than they are.

    Args:
        query: Queries of all images alike, (H, P, d), not scaled.
        key: Keys as they are stored, (B, H, K, d), with a scale for each, (B, H, K), where they are integers.
        value: Values, likewise.
    """
    dtype = autocast_type(query.device.type) or query.dtype
    if not torch.is_grad_enabled():
        return _attend(query, key, value, dtype)[0]
    return cast("Tensor", _AttendToStored.apply(query, dtype, len(key), *key, *value))


class _AttendToStored(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, query: Tensor, dtype: torch.dtype, parts: int, *stored: Tensor) -> Tensor:
        read, probabilities = _attend(query, stored[:parts], stored[parts:], dtype)
        ctx.save_for_backward(probabilities, *stored)
        ctx.query_dtype, ctx.dtype, ctx.parts = query.dtype, dtype, parts
        return read

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        probabilities, *stored = ctx.saved_tensors
        key, value = stored[: ctx.parts], stored[ctx.parts :]
        incoming = gradients[0].to(ctx.dtype).permute(1, 0, 3, 2).contiguous()
        # The gradients of the softmax's scores, then of the queries.
        scores = _scaled(torch.cat([part @ incoming[heads] for heads, part in _by_heads(value, ctx.dtype)]), value)
        scores -= (probabilities * scores).sum(dim=2, keepdim=True)
        scores = _scaled(scores.mul_(probabilities), key).to(ctx.dtype).flatten(1, 2).transpose(1, 2)
        query = torch.cat([scores[heads] @ part.flatten(1, 2) for heads, part in _by_heads(key, ctx.dtype)])
        return query.mul_(key[0].shape[-1] ** -0.5).to(ctx.query_dtype), None, None, *(None for _ in stored)


def _attend(query: Tensor, key: Sequence[Tensor], value: Sequence[Tensor], dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """The output of queries (H, P, d), (B, H, P, d), and the probabilities, (H, B, K, P)."""
    scaled, images = (query * query.shape[-1] ** -0.5).to(dtype).transpose(1, 2), key[0].shape[0]
    # Queries are the same for all images: one product a head.
    scores = torch.cat([part.flatten(1, 2) @ scaled[heads] for heads, part in _by_heads(key, dtype)])
    scores = _at_least_single(scores.reshape(len(query), images, -1, query.shape[1]))
    probabilities = _scaled(scores, key).softmax(dim=2)
    weights = (probabilities if len(value) == 1 else _scaled(probabilities.clone(), value)).to(dtype).transpose(2, 3)
    read = torch.cat([weights[heads] @ part for heads, part in _by_heads(value, dtype)])
    return read.transpose(0, 1), probabilities


def _by_heads(stored: Sequence[Tensor], dtype: torch.dtype) -> Iterator[tuple[slice, Tensor]]:
    """A few heads at a time, (H', B, K, d), in the precision but not scaled; each overwrites those before."""
    vectors = stored[0].transpose(0, 1)
    heads = len(vectors)
    size = -(-heads // _PARTS)
    buffer = torch.empty(size, *vectors.shape[1:], dtype=dtype, device=vectors.device)
    for first in range(0, heads, size):
        part = vectors[first : first + size]
        yield slice(first, first + size), buffer[: len(part)].copy_(part)


def _scaled(scores: Tensor, stored: Sequence[Tensor]) -> Tensor:
    """Apply the scale of each stored vector to its products, (H, B, K, P), in place: there are fewer of them."""
    if len(stored) == 1:
        return scores
    # In one type: products of two types are slow on a CPU.
    return scores.mul_(stored[1].to(scores.dtype).transpose(0, 1).unsqueeze(-1))


def _by_queries(query: Tensor, key: Tensor) -> Iterator[Tensor]:
    """Probabilities of a few queries at a time, (B, H, M', N): the whole matrix is never there."""
    transposed, scale = key.transpose(-2, -1), key.shape[-1] ** -0.5
    for block in torch.split(query, _QUERY_BLOCK, dim=2):
        scores = _at_least_single((block * scale) @ transposed)
        # In place: on a CPU, fresh memory takes longer than the arithmetic.
        scores.sub_(scores.amax(dim=3, keepdim=True)).exp_()
        yield scores.div_(scores.sum(dim=3, keepdim=True))


def _zeros(key: Tensor) -> Tensor:
    return _at_least_single(key.new_zeros(key.shape[:3]))


def _at_least_single(tensor: Tensor) -> Tensor:
    """Half precision would lose what many tokens add."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


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

    torch's fused kernel is made for wide heads: with 8 channels a head, as side networks have them, it takes up to
    twice as long. Here every matrix has the channels as its rows, which is the form in which a CPU multiplies narrow
    matrices fast, and the probabilities of a few heads at a time stay in its cache. They are computed again in the
    backward pass, so that no more is kept for it than by the fused kernel.

    Args:
        packed: Queries, keys and values of all tokens, (B, N, 3, H, d).
        queries: How many of the first tokens are queries, M.
    """
    return cast("Tensor", _NarrowHeads.apply(packed, queries))


class _NarrowHeads(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, packed: Tensor, queries: int) -> Tensor:
        batch, _, _, heads, _ = packed.shape
        rows = packed.permute(2, 0, 3, 4, 1).flatten(1, 2).contiguous()
        query, key, value = _split_rows(rows, queries)
        read = torch.empty_like(query)
        for part in _head_parts(query, key):
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
        query, key, value = _split_rows(rows, queries)
        incoming = (
            gradient.reshape(-1, queries, ctx.heads, rows.shape[2]).permute(0, 2, 3, 1).flatten(0, 1).contiguous()
        )
        # What the softmax's derivative takes off every score of a query: sum(p * dp) = sum(read * d read).
        common = (incoming * read).sum(dim=1).unsqueeze(2)
        gradients = torch.empty_like(rows)
        gradients[0, :, :, queries:] = 0
        for part in _head_parts(query, key):
            probabilities = _probabilities(query[part], key[part])
            torch.bmm(incoming[part], probabilities, out=gradients[2, part])
            scores = torch.bmm(incoming[part].transpose(1, 2), value[part]).sub_(common[part]).mul_(probabilities)
            torch.bmm(query[part], scores, out=gradients[1, part])
            gradients[0, part, :, :queries] = torch.bmm(key[part], scores.transpose(1, 2))
        gradients[0] *= _query_scale(rows)
        return gradients.view(3, -1, ctx.heads, *gradients.shape[2:]).permute(1, 4, 0, 2, 3), None


def _split_rows(rows: Tensor, queries: int) -> tuple[Tensor, Tensor, Tensor]:
    """Scaled queries (B H, d, M), keys and values (B H, d, N)."""
    query, key, value = rows.unbind(0)
    return query[:, :, :queries] * _query_scale(rows), key, value


def _query_scale(rows: Tensor) -> float:
    return float(rows.shape[2] ** -0.5)


def _head_parts(query: Tensor, key: Tensor) -> Iterator[slice]:
    """Slices of the heads of all images whose probabilities fit the cache."""
    heads = len(key)
    size = max(_BYTES_AT_ONCE // (query.element_size() * query.shape[2] * key.shape[2]), 1)
    return (slice(first, first + size) for first in range(0, heads, size))


def _probabilities(query: Tensor, key: Tensor) -> Tensor:
    return torch.bmm(query.transpose(1, 2), key).softmax(dim=2)

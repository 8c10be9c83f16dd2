"""Attention without the whole matrix in memory: on stored keys and values, with its weights, and in narrow heads."""

from __future__ import annotations

import math
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

# Parts in which the heads of stored vectors are asked: memory that is fresh costs more on a CPU than the arithmetic.
_PARTS = 4

# More channels a head, and the fused kernel is as fast.
_MOST_CHANNELS = 16
# Powers of two of scores up to this one, down to its negative, and sums of them are far from what fp32 cannot hold.
_LARGEST_SCORE = 60
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
        incoming = gradients[0].to(ctx.dtype).permute(1, 0, 3, 2)
        query = incoming.new_empty(len(incoming), incoming.shape[3], incoming.shape[2])
        for heads, buffer in _by_heads(key[0], ctx.dtype):
            # The gradients of the softmax's scores, then of the queries.
            scores = _at_least_single(_brought(value, heads, buffer) @ incoming[heads])
            scores = _scaled(scores, value, heads)
            scores -= (probabilities[heads] * scores).sum(dim=2, keepdim=True)
            scores = _scaled(scores.mul_(probabilities[heads]), key, heads).to(ctx.dtype)
            keys = _brought(key, heads, buffer).flatten(1, 2)
            query[heads] = scores.flatten(1, 2).transpose(1, 2) @ keys
        return query.mul_(key[0].shape[-1] ** -0.5).to(ctx.query_dtype), None, None, *(None for _ in stored)


def _attend(query: Tensor, key: Sequence[Tensor], value: Sequence[Tensor], dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """The output of queries (H, P, d), (B, H, P, d), and the probabilities, (H, B, K, P)."""
    scaled, (images, _, tokens, _) = (query * query.shape[-1] ** -0.5).to(dtype).transpose(1, 2), key[0].shape
    count, channels, prompts = scaled.shape
    read = scaled.new_empty(count, images, prompts, channels)
    probabilities = _at_least_single(scaled.new_empty(count, images, tokens, prompts))
    for heads, buffer in _by_heads(key[0], dtype):
        # Queries are the same for all images: one product a head.
        scores = _at_least_single(_brought(key, heads, buffer).flatten(1, 2) @ scaled[heads])
        scores = scores.view_as(probabilities[heads])
        torch.softmax(_scaled(scores, key, heads), dim=2, out=probabilities[heads])
        weights = _scaled(probabilities[heads], value, heads)
        read[heads] = weights.to(dtype).transpose(2, 3) @ _brought(value, heads, buffer)
    return read.transpose(0, 1), probabilities


def _by_heads(vectors: Tensor, dtype: torch.dtype) -> Iterator[tuple[slice, Tensor]]:
    """A few heads of vectors (B, H, K, d) at a time, and room for theirs, (H', B, K, d), in the precision."""
    count = vectors.shape[1]
    size = -(-count // _PARTS)
    buffer = vectors.new_empty(size, *vectors[:, 0].shape, dtype=dtype)
    for first in range(0, count, size):
        heads = slice(first, min(first + size, count))
        yield heads, buffer[: heads.stop - first]


def _brought(stored: Sequence[Tensor], heads: slice, buffer: Tensor) -> Tensor:
    """Stored vectors of a few heads in the buffer, whose precision they take; not scaled."""
    return buffer.copy_(stored[0][:, heads].transpose(0, 1))


def _scaled(scores: Tensor, stored: Sequence[Tensor], heads: slice) -> Tensor:
    """Products of stored vectors of a few heads, (H', B, K, P), times the scale of each: there are fewer of them."""
    if len(stored) == 1:
        return scores
    # In one type: products of two types are slow on a CPU.
    return scores * stored[1][:, heads].to(scores.dtype).transpose(0, 1).unsqueeze(-1)


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
    of one head fit the cache. What is compiled has torch's own kernel, since this way reads a number back.
    """
    device = meta_stands_for.get() if packed.device.type == "meta" else packed.device.type
    return (
        device == "cpu"
        and packed.dtype == torch.float32
        and packed.requires_grad
        and torch.is_grad_enabled()
        and not torch.compiler.is_compiling()
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
        batch, _, _, heads, channels = packed.shape
        rows = packed.permute(2, 0, 3, 4, 1).clone(memory_format=torch.contiguous_format).flatten(1, 2)
        query, key, value = _split_rows(rows, queries)
        # So that two to the power of a score is what the exponential of q k / sqrt(d) is, and faster.
        query *= channels**-0.5 / math.log(2)
        read = torch.empty_like(query, memory_format=torch.contiguous_format)
        largest, total = (rows.new_zeros(batch * heads, 1, queries) for _ in range(2))
        are_large = _may_be_large(query, key)
        for q, k, v, out, most, whole in _parts(query, key, value, read, largest, total):
            powers = torch.bmm(k.transpose(1, 2), q)
            if are_large:
                powers -= torch.amax(powers, dim=1, keepdim=True, out=most)
            torch.sum(powers.exp2_(), dim=1, keepdim=True, out=whole)
            torch.bmm(v, powers, out=out)
        ctx.save_for_backward(rows, read.div_(total), largest.add_(total.log2_()))
        ctx.heads = heads
        return read.view(batch, heads * channels, queries).transpose(1, 2).contiguous()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        rows, read, logarithms = ctx.saved_tensors
        query, key, value = _split_rows(rows, read.shape[2])
        incoming = gradient.transpose(1, 2).contiguous().view_as(read)
        # What the softmax's derivative takes off every score of a query: sum(p * dp) = sum(read * d read).
        common = (incoming * read).sum(dim=1, keepdim=True)
        gradients = torch.zeros_like(rows)
        of_query, of_key, of_value = _split_rows(gradients, read.shape[2])
        tensors = (query, key, value, logarithms, incoming, common, of_query, of_key, of_value)
        for q, k, v, logarithm, asked, c, dq, dk, dv in _parts(*tensors):
            probabilities = torch.baddbmm(logarithm, k.transpose(1, 2), q, beta=-1).exp2_()
            torch.bmm(asked, probabilities.transpose(1, 2), out=dv)
            scores = torch.baddbmm(c, v.transpose(1, 2), asked, beta=-1).mul_(probabilities)
            torch.bmm(q, scores.transpose(1, 2), out=dk)
            dq.copy_(torch.bmm(k, scores))
        of_query *= rows.shape[2] ** -0.5
        of_key *= math.log(2)
        return gradients.view(3, -1, ctx.heads, *gradients.shape[2:]).permute(1, 4, 0, 2, 3), None


def _split_rows(rows: Tensor, queries: int) -> tuple[Tensor, Tensor, Tensor]:
    """Queries (B H, d, M), keys and values (B H, d, N)."""
    query, key, value = rows.unbind(0)
    return query[..., :queries], key, value


def _may_be_large(query: Tensor, key: Tensor) -> bool:
    """Whether powers of two of scores may leave the range of fp32; on ``meta``, where nothing is known, they may."""
    if query.is_meta:
        return True
    squares = query.square().sum(dim=1).amax(dim=1) * key.square().sum(dim=1).amax(dim=1)
    return not bool((squares < _LARGEST_SCORE**2).all())


def _parts(query: Tensor, key: Tensor, *others: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Of each tensor (B H, ...), as many heads at a time as have probabilities that fit the cores' caches."""
    caches = _BYTES_AT_ONCE * torch.get_num_threads()
    size = max(caches // (query.element_size() * query.shape[2] * key.shape[2]), 1)
    return zip(*(torch.split(tensor, size) for tensor in (query, key, *others)), strict=True)

"""Attention to keys and values that are linear in stored tokens, without projecting a token."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from petlbench.features.learned_linear import product
from petlbench.features.quantization import dequantize
from petlbench.models.precision import autocast_type, meta_stands_for

# Parts in which the images of a batch are brought to the queries' precision; on a CPU, one by one.
_PARTS = 4


def attend_to_tokens(
    query: Tensor, tokens: Sequence[Tensor], weight: Tensor, bias: Tensor | None, rows: Tensor | None = None
) -> Tensor:
    """The output (B, H, P, d) of the same queries for each image's stored tokens; no gradient flows to those.

    With keys W t + b and values V t + c of tokens t, a query's scores are (W^T q) t but for what they have in common,
    and its output is V (sum of p t) + c, p its probabilities. So what is projected is queries and outputs, which are
    few, and for the backward pass little more than probabilities is kept.

    Args:
        query: Queries of all images alike, (H, P, d), not scaled.
        tokens: Normed tokens as they are stored, (B, U, G, D / G), with a scale for each group, (B, U, G), where they
            are integers.
        weight: The key map above the value map, (2 D, D); no gradient flows to it.
        bias: The biases of both, (2 D), or None.
        rows: Which tokens each head sees, (B, H, K); None where all see all.
    """
    heads, prompts, channels = query.shape
    keys, values = weight.view(2, heads, channels, -1).unbind(0)
    asked = (query * channels**-0.5) @ keys.to(query.dtype)
    dtype = autocast_type(query.device.type) or query.dtype
    summed = cast("Tensor", _SumTokens.apply(asked, dtype, rows, *tokens))
    # One product a head: (H, B P, D) with (H, D, d).
    read = summed.transpose(0, 1).flatten(1, 2) @ values.transpose(1, 2).to(summed.dtype)
    read = read.view(heads, -1, prompts, channels).transpose(0, 1)
    return read if bias is None else read + bias[len(bias) // 2 :].view(heads, 1, channels).to(read.dtype)


def restore_keys_values(
    heads: int, tokens: Sequence[Tensor], weight: Tensor, bias: Tensor | None, rows: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Keys and values (B, H, K, d) of stored tokens, by the arguments of `attend_to_tokens`."""
    restored = dequantize(*tokens).flatten(2)
    both = nn.functional.linear(restored, weight.to(restored.dtype), None if bias is None else bias.to(restored.dtype))
    key, value = both.view(*both.shape[:2], 2, heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
    if rows is None:
        return key, value
    kept = rows.long().unsqueeze(-1).expand(-1, -1, -1, key.shape[-1])
    return key.gather(2, kept), value.gather(2, kept)


class _SumTokens(torch.autograd.Function):
    """Sums of tokens, (B, H, P, D), by the probabilities of queries (H, P, D) that ask the tokens themselves."""

    @staticmethod
    def forward(ctx: Any, asked: Tensor, dtype: torch.dtype, rows: Tensor | None, *tokens: Tensor) -> Tensor:
        heads, prompts, width = asked.shape
        queries, images, number = asked.to(dtype).flatten(0, 1), len(tokens[0]), tokens[0].shape[1]
        summed = queries.new_empty(images, heads * prompts, width)
        wide = torch.promote_types(dtype, torch.float32)
        probabilities = queries.new_empty(images, number, heads * prompts, dtype=wide)
        hidden = None if rows is None else _hidden(rows, number)
        for part, vectors in _by_images(tokens, dtype):
            scores = product(vectors, queries.expand(len(vectors), -1, -1)).to(wide)
            if hidden is not None:
                scores.view(-1, number, heads, prompts).masked_fill_(hidden[part], -torch.inf)
            torch.softmax(scores, dim=1, out=probabilities[part])
            summed[part] = product(probabilities[part].to(dtype).transpose(1, 2), vectors.transpose(1, 2))
        ctx.save_for_backward(probabilities, *tokens)
        ctx.asked_dtype, ctx.dtype = asked.dtype, dtype
        return summed.view(images, heads, prompts, width)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        probabilities, *tokens = ctx.saved_tensors
        incoming = gradients[0].to(ctx.dtype).flatten(1, 2)
        asked = probabilities.new_zeros(incoming.shape[1:])
        for part, vectors in _by_images(tokens, ctx.dtype):
            # The gradients of the softmax's scores, then of what asked.
            scores = product(vectors, incoming[part]).to(probabilities.dtype)
            scores -= (probabilities[part] * scores).sum(dim=1, keepdim=True)
            scores = scores.mul_(probabilities[part]).to(ctx.dtype)
            asked += product(scores.flatten(0, 1).T.unsqueeze(0), vectors.flatten(0, 1).T.unsqueeze(0))[0]
        asked = asked.view(gradients[0].shape[1:]).to(ctx.asked_dtype)
        return asked, None, None, *(None for _ in tokens)


def _by_images(tokens: Sequence[Tensor], dtype: torch.dtype) -> Iterator[tuple[slice, Tensor]]:
    """The tokens of a few images at a time, (B', U, D), in the precision; each overwrites those before."""
    values, *scale = tokens
    device = meta_stands_for.get() if values.device.type == "meta" else values.device.type
    size = 1 if device == "cpu" else -(-len(values) // _PARTS)
    buffer = torch.empty(size, *values.shape[1:], dtype=dtype, device=values.device)
    for first in range(0, len(values), size):
        part = slice(first, first + size)
        vectors = buffer[: len(values[part])].copy_(values[part])
        if scale:
            vectors.mul_(scale[0][part].to(dtype).unsqueeze(-1))
        yield part, vectors.flatten(2)


def _hidden(rows: Tensor, number: int) -> Tensor:
    """Which of so many tokens each head does not see, (B, U, H, 1)."""
    hidden = torch.ones(*rows.shape[:2], number, dtype=torch.bool, device=rows.device)
    return hidden.scatter_(2, rows.long(), False).transpose(1, 2).unsqueeze(-1)

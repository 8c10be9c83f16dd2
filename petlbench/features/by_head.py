"""Attention of a frozen backbone on the CPU, one head after the other: its probabilities stay in the cache."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn

from petlbench.features import products
from petlbench.models.backbone import plain_attention

# Probabilities that are held at once: what the last cache holds beside the rest.
_AT_ONCE = 2**21
# Of fewer a head, all heads at once are as fast where they are weighed, and torch's own kernel where they are not.
_LEAST_WEIGHED, _LEAST_ATTENDED = 2**15, 2**16


def fast_attention(device: torch.device) -> AbstractContextManager[object]:
    """A context in which fused attention to all tokens alike takes the fastest way known."""
    is_here = device.type == "cpu" and products.mkl_is_slow() and not torch.compiler.is_compiling()
    return plain_attention(_attend) if is_here else nullcontext()


def is_by_head(query: Tensor, key: Tensor) -> bool:
    """Whether the functions here are the faster way for queries (B, H, M, d) and keys (B, H, N, d)."""
    is_here = query.device.type == "cpu" and query.dtype in (torch.float32, torch.bfloat16) and products.mkl_is_slow()
    is_plain = not (torch.is_grad_enabled() or torch.compiler.is_compiling())
    return is_here and is_plain and query.shape[2] * key.shape[2] >= _LEAST_WEIGHED


def importance(query: Tensor, key: Tensor) -> Tensor:
    """As `petlbench.features.attention.importance`."""
    total = torch.zeros(key.shape[:3])
    sums = _heads(total)
    for head, _, probabilities in _by_head(query, key):
        sums[head] += probabilities.sum(dim=0)
    return total / query.shape[2]


def attend_and_weigh(query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
    """As `petlbench.features.attention.attend_and_weigh`."""
    total, read, columns = torch.zeros(key.shape[:3]), _empty(query), _columns(value)
    sums, parts = _heads(total), _heads(read)
    for head, rows, probabilities in _by_head(query, key):
        sums[head] += probabilities.sum(dim=0)
        parts[head][rows] = products.product(probabilities, columns[head])
    return read, total / query.shape[2]


def _attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """The attention output (B, H, M, d); queries (B, H, M, d) are not scaled, keys and values are (B, H, N, d)."""
    if not is_by_head(query, key) or query.shape[2] * key.shape[2] < _LEAST_ATTENDED:
        return nn.functional.scaled_dot_product_attention(query, key, value)
    read, columns = _empty(query), _columns(value)
    parts = _heads(read)
    for head, rows, probabilities in _by_head(query, key):
        parts[head][rows] = products.product(probabilities, columns[head])
    return read


def _by_head(query: Tensor, key: Tensor) -> Iterator[tuple[int, slice, Tensor]]:
    """Probabilities in fp32, (M', N), with their head and queries; each block ends before the next is made."""
    queries = query.shape[2]
    size = -(-queries // -(-queries * key.shape[2] // _AT_ONCE))
    rows = _heads((query.float() * query.shape[-1] ** -0.5).contiguous())
    for head, columns in enumerate(_heads(key.float().contiguous())):
        for first in range(0, queries, size):
            block = slice(first, first + size)
            scores = products.product(rows[head][block], columns)
            yield head, block, torch.softmax(scores, dim=-1, out=scores)


def _heads(tensor: Tensor) -> list[Tensor]:
    """Each head of each image, (...), of a tensor (B, H, ...): B H views."""
    return [head for image in tensor.unbind(0) for head in image.unbind(0)]


def _empty(query: Tensor) -> Tensor:
    """Room for an output (B, H, M, d), which lies in memory as (B, M, H, d): so the next layer reads it."""
    return torch.empty_like(query.transpose(1, 2), memory_format=torch.contiguous_format).transpose(1, 2)


def _columns(value: Tensor) -> list[Tensor]:
    """The columns of each head's values, of (B, H, N, d), as rows: (d, N)."""
    return _heads(value.float().transpose(2, 3).contiguous())

"""Attention of narrow heads: the same as torch's, in values and gradients, whatever the sizes."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from petlbench.features import attention
from petlbench.features.attention import attend_in_narrow_heads, has_narrow_heads
from petlbench.models.precision import meta_stands_for


def fused(packed: Tensor, count: int) -> Tensor:
    query, key, value = packed.permute(2, 0, 3, 1, 4).unbind(0)
    read = nn.functional.scaled_dot_product_attention(query[:, :, :count], key, value)
    return read.transpose(1, 2).flatten(2)


def packed(
    batch: int, tokens: int, heads: int, width: int, dtype: torch.dtype = torch.float64, size: float = 2
) -> Tensor:
    chance = torch.Generator().manual_seed(0)
    return torch.randn(batch, tokens, 3, heads, width, dtype=dtype, generator=chance).mul_(size).requires_grad_()


@settings(deadline=None, max_examples=30)
@given(
    st.integers(1, 3),
    st.integers(1, 9),
    st.integers(1, 3),
    st.integers(1, 5),
    st.sampled_from([1, 600, 2**20]),
    st.sampled_from([0.5, 2, 30]),
    st.data(),
)
def test_values_and_gradients_are_those_of_the_fused_kernel(
    batch: int, tokens: int, heads: int, width: int, bytes_at_once: int, size: float, data: st.DataObject
) -> None:
    count = data.draw(st.integers(1, tokens))
    before = attention._BYTES_AT_ONCE
    attention._BYTES_AT_ONCE = bytes_at_once
    try:
        results = []
        for attend in (attend_in_narrow_heads, fused):
            queries = packed(batch, tokens, heads, width, size=size)
            read = attend(queries, count)
            read.backward(torch.linspace(-1, 1, read.numel(), dtype=read.dtype).view_as(read))
            results.append((read, queries.grad))
    finally:
        attention._BYTES_AT_ONCE = before
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_the_gradient_is_the_derivative() -> None:
    assert torch.autograd.gradcheck(lambda queries: attend_in_narrow_heads(queries, 3), packed(2, 5, 2, 3))


def test_scores_that_would_overflow_do_not() -> None:
    queries = packed(1, 4, 1, 2, torch.float32).detach().mul_(1e4).requires_grad_()
    read = attend_in_narrow_heads(queries, 4)
    read.sum().backward()
    torch.testing.assert_close(read, fused(queries, 4))
    assert queries.grad is not None
    assert queries.grad.isfinite().all()


def test_the_maximum_is_taken_off_where_scores_may_be_large() -> None:
    small, large = (packed(2, 9, 3, 2, torch.float32, size).detach() for size in (0.5, 8))
    for queries, are_large in ((small, False), (large, True)):
        query, key, _ = queries.permute(2, 0, 3, 4, 1).flatten(1, 2).unbind(0)
        assert attention._may_be_large(query, key) == are_large
        exact = fused(queries.double(), 9).float()
        torch.testing.assert_close(attend_in_narrow_heads(queries, 9), exact, rtol=1e-4, atol=1e-5)


def test_it_is_for_narrow_heads_in_training_on_a_cpu() -> None:
    narrow = packed(1, 65, 12, 8, torch.float32)
    assert has_narrow_heads(narrow, 65)
    assert not has_narrow_heads(narrow, 1)
    assert not has_narrow_heads(narrow.detach(), 65)
    assert not has_narrow_heads(narrow.bfloat16(), 65)
    assert not has_narrow_heads(narrow.to("meta"), 65)
    token = meta_stands_for.set("cpu")
    assert has_narrow_heads(narrow.to("meta"), 65)
    meta_stands_for.reset(token)
    assert not has_narrow_heads(packed(1, 65, 2, 64, torch.float32), 65)
    assert not has_narrow_heads(packed(1, 1041, 1, 8, torch.float32), 1025)
    with torch.no_grad():
        assert not has_narrow_heads(narrow, 65)


@pytest.mark.parametrize("count", [9, 4])
def test_what_is_kept_is_what_the_fused_kernel_keeps(count: int) -> None:
    """Queries, keys, values, what was read, and a number a query and head; never the probabilities, (B, H, M, N)."""

    def numbers_kept(attend: Callable[[Tensor, int], Tensor], queries: Tensor) -> int:
        kept: list[Tensor] = []

        def keep(tensor: Tensor) -> Tensor:
            kept.append(tensor)
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            read = attend(queries, count)
        assert read.requires_grad
        return sum(tensor.numel() for tensor in kept)

    queries = packed(2, 9, 3, 2)
    ours, all_numbers, read = numbers_kept(attend_in_narrow_heads, queries), queries.numel(), 2 * count * 3 * 2
    assert ours == all_numbers + read + 2 * count * 3
    assert ours <= numbers_kept(fused, queries) + (9 - count) * 2 * 3 * 2

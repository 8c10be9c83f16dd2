"""Attention head by head: the same as all heads at once, and only where it is the faster way."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from petlbench.features import attention, by_head, products
from petlbench.features.by_head import fast_attention, is_by_head

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def slow_mkl(monkeypatch: pytest.MonkeyPatch) -> None:
    if not torch.backends.mkldnn.is_available():
        pytest.skip("torch has no oneDNN here")
    monkeypatch.setattr(products, "mkl_is_slow", lambda: True)


def draw(batch: int = 2, queries: int = 260, tokens: int = 270, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    """Queries, keys and values as a fused layer gives them: views in another order than they have."""
    chance = torch.Generator().manual_seed(0)
    shapes = [(batch, count, 3, 16) for count in (queries, tokens, tokens)]
    return [torch.randn(*shape, generator=chance).to(dtype).transpose(1, 2) for shape in shapes]


def plain(query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
    probabilities = (query @ key.transpose(-2, -1) * query.shape[-1] ** -0.5).softmax(dim=-1)
    return probabilities @ value, probabilities.mean(dim=2)


@pytest.mark.parametrize("at_once", [2**21, 270 * 100])  # all queries of a head, or some of them
def test_it_reads_and_weighs_as_all_heads_at_once(at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(by_head, "_AT_ONCE", at_once)
    query, key, value = draw()
    expected_read, expected_weights = plain(query, key, value)
    with torch.no_grad():
        assert is_by_head(query, key)
        read, weights = attention.attend_and_weigh(query, key, value)
        torch.testing.assert_close(attention.importance(query, key), expected_weights)
        with fast_attention(CPU):
            torch.testing.assert_close(nn.functional.scaled_dot_product_attention(query, key, value), expected_read)
    torch.testing.assert_close(read, expected_read)
    torch.testing.assert_close(weights, expected_weights)
    assert read.transpose(1, 2).is_contiguous()


def test_large_scores_do_not_overflow() -> None:
    query, key, _ = draw()
    with torch.no_grad():
        read, weights = by_head.attend_and_weigh(query * 1e3, key * 1e3, key)
    assert read.isfinite().all()
    torch.testing.assert_close(weights.sum(dim=-1), torch.ones(2, 3))


def test_bf16_is_weighed_in_fp32() -> None:
    rounded = draw(dtype=torch.bfloat16)
    expected_read, expected_weights = plain(*(tensor.float() for tensor in rounded))
    with torch.no_grad():
        read, weights = attention.attend_and_weigh(*rounded)
    assert (read.dtype, weights.dtype) == (torch.bfloat16, torch.float32)
    torch.testing.assert_close(read.float(), expected_read, rtol=2**-7, atol=1e-3)
    torch.testing.assert_close(weights, expected_weights)


def test_it_is_for_many_tokens_of_which_no_gradient_is_asked() -> None:
    with torch.no_grad():
        assert is_by_head(*draw()[:2])
        assert not is_by_head(*draw(queries=1)[:2])
        assert not is_by_head(*draw(dtype=torch.float64)[:2])
        assert not is_by_head(*(tensor.to("meta") for tensor in draw()[:2]))
    assert not is_by_head(*draw()[:2])


def test_elsewhere_attention_stays_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    query, key, value = draw(queries=3)
    with torch.no_grad():
        expected = nn.functional.scaled_dot_product_attention(query, key, value)
        with fast_attention(CPU):
            assert torch.equal(nn.functional.scaled_dot_product_attention(query, key, value), expected)
    monkeypatch.setattr(products, "mkl_is_slow", lambda: False)
    with torch.no_grad():
        assert not is_by_head(*draw()[:2])

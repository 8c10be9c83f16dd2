"""Attention with frozen keys and values: the same as the plain formulas, in values and in gradients."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from petlbench.features.attention import attend_and_weigh, attend_to_stored, importance
from petlbench.features.frozen import ImportantTokens
from petlbench.features.quantization import compact, dequantize
from petlbench.features.source import extraction_batch
from petlbench.models.backbone import Backbone, set_attention_kernel
from petlbench.models.registry import build_backbone

CPU = torch.device("cpu")


def draw(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def plain(query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
    probabilities = (query @ key.transpose(-2, -1) * query.shape[-1] ** -0.5).softmax(dim=-1)
    return probabilities @ value, probabilities.mean(dim=2)


@given(tokens=st.integers(1, 200), queries=st.integers(1, 150), seed=st.integers(0, 100))
def test_a_few_queries_at_a_time_read_and_weigh_as_all_at_once(tokens: int, queries: int, seed: int) -> None:
    query, key, value = draw(2, 3, queries, 4, seed=seed), draw(2, 3, tokens, 4, seed=seed + 1), draw(2, 3, tokens, 4)
    read, weights = attend_and_weigh(query, key, value)
    expected_read, expected_weights = plain(query, key, value)
    torch.testing.assert_close(read, expected_read)
    torch.testing.assert_close(weights, expected_weights)
    torch.testing.assert_close(importance(query, key), expected_weights)


def test_large_scores_do_not_overflow() -> None:
    query, key = draw(1, 1, 3, 4, dtype=torch.float32) * 1e3, draw(1, 1, 5, 4, seed=1, dtype=torch.float32) * 1e3
    read, weights = attend_and_weigh(query, key, key)
    assert read.isfinite().all()
    torch.testing.assert_close(weights.sum(dim=-1), torch.ones(1, 1))


def test_half_precision_adds_up_in_single() -> None:
    query, key, value = (draw(1, 2, 900, 8, seed=seed, dtype=torch.float32) for seed in range(3))
    _, exact = attend_and_weigh(query, key, value)
    read, weights = attend_and_weigh(query.bfloat16(), key.bfloat16(), value.bfloat16())
    assert read.dtype == torch.bfloat16
    assert weights.dtype == torch.float32
    torch.testing.assert_close(weights, exact, rtol=0.02, atol=1e-6)


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16", "int8"])
def test_stored_keys_and_values_give_what_restored_ones_give(precision: Any) -> None:
    stored = compact({"keys": draw(2, 3, 7, 4, dtype=torch.float32), "values": draw(2, 3, 7, 4, seed=1)}, precision)
    key, value = ([part for name, part in stored.items() if name.startswith(kind)] for kind in ("keys", "values"))
    ours, theirs = (draw(3, 5, 4, seed=2, dtype=torch.float32).requires_grad_() for _ in range(2))
    read = attend_to_stored(ours, key, value)
    expected, _ = plain(theirs.expand(2, -1, -1, -1), dequantize(*key), dequantize(*value))
    torch.testing.assert_close(read, expected)
    weights = draw(2, 3, 5, 4, seed=3, dtype=torch.float32)
    (read * weights).sum().backward()
    (expected * weights).sum().backward()
    torch.testing.assert_close(ours.grad, theirs.grad)
    with torch.no_grad():
        torch.testing.assert_close(attend_to_stored(ours, key, value), read)


def test_the_gradient_is_that_of_finite_differences() -> None:
    key, value = draw(2, 3, 7, 4), draw(2, 3, 7, 4, seed=1)
    query = draw(3, 5, 4, seed=2).requires_grad_()
    assert torch.autograd.gradcheck(lambda asked: attend_to_stored(asked, (key,), (value,)), (query,))


def test_nothing_as_large_as_keys_and_values_is_kept_for_the_backward_pass() -> None:
    stored = compact({"keys": draw(2, 3, 64, 32, dtype=torch.float32)}, "int8")
    parts, query = list(stored.values()), draw(3, 4, 32, dtype=torch.float32).requires_grad_()
    kept: list[Tensor] = []

    def note(tensor: Tensor) -> Tensor:
        kept.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        attend_to_stored(query, parts, parts)
    given = {part.data_ptr() for part in parts}
    assert max(tensor.numel() for tensor in kept if tensor.data_ptr() not in given) == 2 * 3 * 64 * 4


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    torch.manual_seed(0)
    built = build_backbone("test_vit", 64, "none", CPU)
    built.module.eval()
    return built


@pytest.mark.parametrize("score", ["global", "class_token"])
def test_features_are_the_same_whichever_attention_runs(backbone: Backbone, score: str) -> None:
    frozen, image = ImportantTokens((1, 3, 5), 0.3, score), draw(2, 3, 64, 64, dtype=torch.float32)
    found = {}
    for kernel in ("eager", "fused"):
        set_attention_kernel(backbone.module, kernel)
        with torch.no_grad():
            found[kernel] = frozen.extract(backbone, image)
    for name in ("keys", "values"):
        torch.testing.assert_close(found["eager"][name], found["fused"][name])


def test_the_last_layer_that_is_read_attends_to_nothing(backbone: Backbone) -> None:
    set_attention_kernel(backbone.module, "fused")
    asked: list[tuple[int, ...]] = []

    def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        asked.append(tuple(query.shape))
        return plain(query, key, value)[0]

    with torch.no_grad():
        list(backbone.queries_keys_values(draw(1, 3, 64, 64, dtype=torch.float32), [1, 3], attend))
    assert asked == [(1, backbone.info.heads, backbone.info.tokens, backbone.info.width // backbone.info.heads)]


def test_the_batch_of_an_extraction_hangs_on_the_backbone_alone(backbone: Backbone) -> None:
    assert extraction_batch(backbone.info, "cuda") == 16
    assert extraction_batch(backbone.info, "cpu") == 16
    large = build_backbone("vit_base_patch16_384", 512, "none", torch.device("meta")).info
    assert extraction_batch(large, "cpu") == 1

"""Learned linear layers by oneDNN: what torch's own give, in values and gradients, within rounding."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from petlbench.features import learned_linear as module
from petlbench.features.learned_linear import fast_learned_linear, learned_linear
from petlbench.models.precision import autocast

pytestmark = pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="torch has no oneDNN here")  # type: ignore[no-untyped-call]


def layer(inner: int = 96, outer: int = 288) -> tuple[torch.Tensor, nn.Linear]:
    torch.manual_seed(0)
    return torch.randn(2, 50, inner, requires_grad=True), nn.Linear(inner, outer)


@pytest.mark.parametrize("has_bias", [True, False])
def test_values_and_gradients_are_those_of_torch(has_bias: bool) -> None:
    tokens, linear = layer()
    inputs = [tokens, linear.weight, *([linear.bias] if has_bias else [])]
    ours, theirs = learned_linear(*inputs), nn.functional.linear(*inputs)
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
    weights = torch.randn(ours.shape)
    gradients = [torch.autograd.grad((answer * weights).sum(), inputs) for answer in (ours, theirs)]
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


def test_a_frozen_weight_has_no_gradient() -> None:
    tokens, linear = layer()
    linear.requires_grad_(False)
    learned_linear(tokens, linear.weight, linear.bias).sum().backward()
    assert tokens.grad is not None
    assert linear.weight.grad is linear.bias.grad is None


@pytest.mark.parametrize(
    ("change", "takes"),
    [
        ({}, True),
        ({"inner": 16}, False),
        ({"outer": 3}, False),
        ({"precision": "bf16"}, False),
        ({"slow": False}, False),
    ],
)
def test_it_is_taken_where_it_is_faster(monkeypatch: pytest.MonkeyPatch, change: dict[str, Any], takes: bool) -> None:
    calls: list[tuple[int, ...]] = []
    monkeypatch.setattr(module, "mkl_is_slow", lambda: change.get("slow", True))
    monkeypatch.setattr(module, "learned_linear", lambda *given: calls.append(given[1].shape) or learned_linear(*given))
    tokens, linear = layer(change.get("inner", 96), change.get("outer", 288))
    with autocast(tokens.device, change.get("precision", "fp32")), fast_learned_linear(tokens):
        linear(tokens)
    assert bool(calls) == takes

"""Copies of a module are as deep copies are: equal, apart, with what is one tensor still one."""

from __future__ import annotations

import torch
from torch import nn

from petlbench.run.copies import Original


class Tied(nn.Module):
    def __init__(self, *, local: bool) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(3, 3), nn.Linear(3, 3)
        self.second.weight = self.first.weight
        self.first.bias.requires_grad_(False)
        self.register_buffer("steps", torch.arange(3))
        self.sizes = [1, 2]
        # A function inside another cannot be pickled, and a deep copy takes it as it is.
        self.act = (lambda x: 2 * x) if local else torch.tanh

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(self.act(self.first(x)))


def test_a_copy_is_equal_and_shares_nothing_that_changes() -> None:
    for local in (False, True):
        module, x = Tied(local=local).eval(), torch.randn(2, 3)
        original = Original(module)
        before = module(x)
        copies = [original.copy() for _ in range(2)]
        for copied in copies:
            assert isinstance(copied, Tied)
            assert torch.equal(copied(x), before)
            assert not copied.training
            assert copied.second.weight is copied.first.weight
            assert [p.requires_grad for p in copied.parameters()] == [p.requires_grad for p in module.parameters()]
            with torch.no_grad():
                copied.first.weight.zero_()
                copied.steps.zero_()
            copied.sizes.append(3)
            copied.extra = nn.Identity()
        assert torch.equal(module(x), before)
        assert module.sizes == [1, 2]
        assert module.steps.tolist() == [0, 1, 2]
        assert not hasattr(module, "extra")
        assert copies[0].first is not copies[1].first


def test_copies_of_a_parametrized_module_are_apart_too() -> None:
    module, x = nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(3, 3))), torch.randn(2, 3)
    original, before = Original(module), module(x)
    copies = [original.copy() for _ in range(2)]
    with torch.no_grad():
        for parameter in copies[0].parameters():
            parameter.zero_()
    assert torch.equal(copies[1](x), before)
    assert torch.equal(module(x), before)
    assert not torch.equal(copies[0](x), before)

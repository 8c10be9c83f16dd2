"""Linear layers that are learned, by the fastest way that this processor knows, their gradients too."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.overrides import TorchFunctionMode

from petlbench.features.products import mkl_is_slow
from petlbench.features.products import product as one_product
from petlbench.models.precision import autocast_type

# Below, oneDNN saves less than it takes to call it.
_LEAST_ROWS, _LEAST_WIDTH = 32, 32


def fast_learned_linear(tokens: Tensor) -> AbstractContextManager[object]:
    """A context in which ``nn.functional.linear`` of tokens like these takes the fastest way known.

    torch multiplies fp32 matrices by MKL, which leaves AVX-512 unused on AMD's processors; oneDNN, which comes with
    torch as well, takes half the time there. Sums are added up in another order, and so differ by rounding. Elsewhere,
    in other precisions and in a graph that is exported nothing changes.
    """
    is_here = tokens.device.type == "cpu" and tokens.dtype == torch.float32 and autocast_type("cpu") is None
    is_faster = is_here and not torch.compiler.is_compiling() and mkl_is_slow()
    return _ByOneDNN() if is_faster else nullcontext()


class _ByOneDNN(TorchFunctionMode):
    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run one function; linear layers by oneDNN."""
        if func is nn.functional.linear and not kwargs and _is_wide(args[0], args[1]):
            return learned_linear(*args)
        return func(*args, **(kwargs or {}))


def _is_wide(tokens: Tensor, weight: Tensor) -> bool:
    width = weight.shape[1]
    is_single = tokens.dtype == weight.dtype == torch.float32
    return is_single and min(weight.shape) >= _LEAST_WIDTH and tokens.numel() >= _LEAST_ROWS * width


def learned_linear(tokens: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """What ``nn.functional.linear`` gives, (..., O), of fp32 tokens (..., I) on the CPU: by oneDNN."""
    return cast("Tensor", _Linear.apply(tokens, weight, bias))


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tokens: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(tokens, weight)
        return one_product(tokens.reshape(-1, tokens.shape[-1]), weight, bias).view(*tokens.shape[:-1], len(weight))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        tokens, weight = ctx.saved_tensors
        rows = gradient.reshape(-1, gradient.shape[-1])
        needs_tokens, needs_weight, needs_bias = ctx.needs_input_grad
        return (
            one_product(rows, weight.T).view_as(tokens) if needs_tokens else None,
            _of_weight(rows, tokens.reshape(-1, tokens.shape[-1])) if needs_weight else None,
            rows.sum(dim=0) if needs_bias else None,
        )


def _of_weight(gradient: Tensor, tokens: Tensor) -> Tensor:
    """The gradient of a weight, (O, I), of rows (R, O) and (R, I).

    oneDNN puts its first factor into another order, where that is transposed; the narrower one is the cheaper.
    """
    if gradient.shape[1] > tokens.shape[1]:
        return one_product(tokens.T, gradient.T).T.contiguous()
    return one_product(gradient.T, tokens.T)


def product(rows: Tensor, columns: Tensor) -> Tensor:
    """The matrices (B, M, N) of rows (B, M, K) times columns, which are given as rows (B, N, K); not differentiated.

    They take the fastest way known, one by one where that is oneDNN's.
    """
    if len(rows) == 1 and rows.dtype == torch.float32 and rows.device.type == "cpu" and mkl_is_slow():
        return one_product(rows[0], columns[0]).unsqueeze(0)
    return torch.bmm(rows, columns.transpose(1, 2))

"""Matrix products of a frozen backbone by the fastest way that this processor knows; for what is not differentiated.

torch multiplies fp32 matrices by MKL, which leaves AVX-512 unused on AMD's processors. oneDNN comes with torch as well
and uses it, in fp32 and, where the processor has it, in bf16.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from petlbench.core.environment import processor_vendor

# Below, oneDNN saves less than it takes to call it.
_LEAST_ROWS, _LEAST_WIDTH = 32, 64

PackedWeights = dict[int, tuple[nn.Parameter, Tensor]]
"""Parameters, and what they are in oneDNN's order and the precision of the products, by the parameters' identity."""


def fast_linear(
    device: torch.device, precision: str, packed: PackedWeights | None = None
) -> AbstractContextManager[object]:
    """A context in which wide ``nn.functional.linear`` take the fastest way known.

    What comes out is in the precision of the products, as under autocast. Which way is taken depends on processor and
    precision alone, so that images have the same features in every run there.

    Args:
        device: Where the products are made; elsewhere than on a CPU nothing changes.
        precision: Of the products: ``fp32``, ``bf16`` or ``fp16``.
        packed: Where parameters are kept in the order that oneDNN has for them, which takes as much memory as they do;
            those that come up are added. None brings them into that order in each product.
    """
    if device.type != "cpu" or torch.compiler.is_compiling():  # a graph that is exported is to hold the product itself
        return nullcontext()
    if precision == "fp32" and mkl_is_slow():
        return _ByOneDNN(torch.float32, packed)
    return _ByOneDNN(torch.bfloat16, packed) if precision == "bf16" and has_avx512() else nullcontext()


@cache
def mkl_is_slow() -> bool:
    """Whether this processor has AVX-512 that MKL does not use."""
    return has_avx512() and torch.backends.mkl.is_available() and processor_vendor() == "AuthenticAMD"  # type: ignore[no-untyped-call]


@cache
def has_avx512() -> bool:
    """Whether this processor has AVX-512, and torch the library that uses it on all of them."""
    library: bool = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    return library and torch.backends.cpu.get_cpu_capability() == "AVX512"


def product(rows: Tensor, columns: Tensor, bias: Tensor | None = None) -> Tensor:
    """The matrix (M, N), by oneDNN, of M rows (M, d) times N columns, given as rows (N, d), and a bias (N)."""
    multiplied: Tensor = torch.ops.mkldnn._linear_pointwise(rows, columns, bias, "none", [], "")
    return multiplied


class _ByOneDNN(TorchFunctionMode):
    def __init__(self, dtype: torch.dtype, packed: PackedWeights | None) -> None:
        super().__init__()
        self._dtype, self._packed = dtype, packed

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run one function; wide linear layers by oneDNN."""
        if func is nn.functional.linear and not kwargs and self._is_for(args[0], args[1]):
            return self._multiply(*args)
        return func(*args, **(kwargs or {}))

    def _multiply(self, tokens: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        rows = tokens.reshape(-1, tokens.shape[-1]).to(self._dtype)
        bias = None if bias is None else bias.to(self._dtype)
        return product(rows, self._pack(weight, len(rows)), bias).view(*tokens.shape[:-1], -1)

    def _pack(self, weight: Tensor, rows: int) -> Tensor:
        """The weight as oneDNN wants it for so many rows."""
        if self._packed is None or not isinstance(weight, nn.Parameter):
            return weight.to(self._dtype)
        if id(weight) not in self._packed:
            order = torch.ops.mkldnn._reorder_linear_weight(weight.detach().to(self._dtype), rows)
            self._packed[id(weight)] = weight, order  # both: no other may take its identity while this is kept
        return self._packed[id(weight)][1]

    def _is_for(self, tokens: Tensor, weight: Tensor) -> bool:
        width = weight.shape[1]
        return (
            weight.dtype == torch.float32
            and tokens.dtype in (torch.float32, self._dtype)
            and width >= _LEAST_WIDTH
            and tokens.numel() >= _LEAST_ROWS * width
        )

"""The matrix products of a frozen backbone, on processors that torch's usual library does not serve well.

torch multiplies fp32 matrices by MKL, which leaves AVX-512 unused on AMD's processors. oneDNN, which comes with torch
as well, uses it: wide layers then take 0.5 to 0.7 of the time (measured on a Zen 5).
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from petlbench.core.environment import processor_vendor

__all__ = ["fast_linear", "mkl_is_slow"]

# Below, the copies that oneDNN's tensors take cost more than its products save.
_LEAST_ROWS, _LEAST_WIDTH = 32, 384


def fast_linear(device: torch.device) -> AbstractContextManager[object]:
    """A context in which wide ``nn.functional.linear`` take the fastest way known; for what is not differentiated.

    Which way that is depends on the processor alone, so that images have the same features in every run there.
    """
    return _ByOneDNN() if device.type == "cpu" and mkl_is_slow() else nullcontext()


@cache
def mkl_is_slow() -> bool:
    """Whether this processor has AVX-512 that MKL does not use."""
    libraries: bool = torch.backends.mkl.is_available() and torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    return libraries and torch.backends.cpu.get_cpu_capability() == "AVX512" and processor_vendor() == "AuthenticAMD"


class _ByOneDNN(TorchFunctionMode):
    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run one function; wide linear layers by oneDNN."""
        if func is nn.functional.linear and not kwargs and _is_wide(args[0], args[1]):
            weight_and_bias = [None if tensor is None else tensor.to_mkldnn() for tensor in args[1:]]
            return torch.ops.aten.mkldnn_linear(args[0].to_mkldnn(), *weight_and_bias).to_dense()
        return func(*args, **(kwargs or {}))


def _is_wide(tokens: Tensor, weight: Tensor) -> bool:
    width = weight.shape[1]
    return (
        tokens.dtype == weight.dtype == torch.float32
        and not torch.is_autocast_enabled("cpu")
        and width >= _LEAST_WIDTH
        and tokens.numel() >= _LEAST_ROWS * width
    )

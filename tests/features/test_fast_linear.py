"""Linear layers by oneDNN: the same numbers as torch's own, and only where they are the faster ones."""

from __future__ import annotations

from contextlib import nullcontext

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from petlbench.features import source as products
from petlbench.features.source import fast_linear, mkl_is_slow

CPU = torch.device("cpu")


class Calls(TorchDispatchMode):
    """Notes which kernels run."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        self.names.append(func.overloadpacket.__name__)
        return func(*args, **(kwargs or {}))


@pytest.fixture
def slow_mkl(monkeypatch: pytest.MonkeyPatch) -> None:
    if not torch.backends.mkldnn.is_available():
        pytest.skip("torch has no oneDNN here")
    monkeypatch.setattr(products, "mkl_is_slow", lambda: True)


def kernels(layer: nn.Module, shape: tuple[int, ...]) -> list[str]:
    with torch.no_grad(), fast_linear(CPU), Calls() as calls:
        layer(torch.ones(shape))
    return calls.names


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(2, 17, 384), (64, 384)])
def test_wide_layers_give_the_same(slow_mkl: None, bias: bool, shape: tuple[int, ...]) -> None:
    layer, tokens = nn.Linear(384, 100, bias=bias), torch.randn(shape)
    with torch.no_grad():
        expected = layer(tokens)
        with fast_linear(CPU):
            output = layer(tokens)
    torch.testing.assert_close(output, expected)
    assert "mkldnn_linear" in kernels(layer, shape)


def test_what_follows_a_transpose_gives_the_same(slow_mkl: None) -> None:
    layer, tokens = nn.Linear(384, 100), torch.randn(384, 64).t()
    with torch.no_grad(), fast_linear(CPU):
        torch.testing.assert_close(layer(tokens), tokens @ layer.weight.t() + layer.bias)


@pytest.mark.parametrize(
    ("width", "rows", "dtype", "precision"),
    [
        (192, 64, torch.float32, None),
        (384, 8, torch.float32, None),
        (384, 64, torch.float64, None),
        (384, 64, torch.float32, torch.bfloat16),
    ],
)
def test_other_layers_are_left_alone(
    slow_mkl: None, width: int, rows: int, dtype: torch.dtype, precision: torch.dtype | None
) -> None:
    layer, tokens = nn.Linear(width, 10, dtype=dtype), torch.randn(rows, width, dtype=dtype)
    half = nullcontext() if precision is None else torch.autocast("cpu", precision)
    with torch.no_grad(), half:
        expected = layer(tokens)
        with fast_linear(CPU):
            assert torch.equal(layer(tokens), expected)


def test_it_is_for_processors_whose_avx_512_mkl_leaves_unused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")
    for library in (torch.backends.mkl, torch.backends.mkldnn):
        monkeypatch.setattr(library, "is_available", lambda: True)
    for vendor, slow in (("AuthenticAMD", True), ("GenuineIntel", False), ("", False)):
        monkeypatch.setattr(products, "processor_vendor", lambda said=vendor: said)
        assert mkl_is_slow.__wrapped__() is slow
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")
    monkeypatch.setattr(products, "processor_vendor", lambda: "AuthenticAMD")
    assert not mkl_is_slow.__wrapped__()


def test_a_gpu_computes_as_ever(slow_mkl: None) -> None:
    assert isinstance(fast_linear(torch.device("cuda")), nullcontext)


@pytest.mark.parametrize("strict", [False, True])
def test_an_exported_graph_holds_the_product_itself(slow_mkl: None, strict: bool) -> None:
    class Frozen(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(384, 100)

        def forward(self, tokens: torch.Tensor) -> torch.Tensor:
            with torch.no_grad(), fast_linear(CPU):
                return self.layer(tokens)

    module, tokens = Frozen(), torch.randn(64, 384)
    exported = torch.export.export(module, (tokens,), strict=strict)
    assert "mkldnn" not in str(exported.graph)
    torch.testing.assert_close(exported.module()(tokens), module(tokens))

"""Linear layers by oneDNN: the same numbers as torch's own, and only where they are the faster ones."""

from __future__ import annotations

from contextlib import nullcontext

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from petlbench.features import products
from petlbench.features.products import PackedWeights, fast_linear, has_avx512, mkl_is_slow

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


@pytest.fixture
def avx512() -> None:
    if not products.has_avx512():
        pytest.skip("this processor has no AVX-512")


def call(layer: nn.Module, tokens: torch.Tensor, precision: str = "fp32") -> tuple[torch.Tensor, list[str]]:
    """What a layer gives, and the kernels that ran."""
    with torch.no_grad(), fast_linear(CPU, precision, {}), Calls() as calls:
        return layer(tokens), calls.names


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(2, 17, 384), (64, 64)])
def test_wide_layers_give_the_same(slow_mkl: None, bias: bool, shape: tuple[int, ...]) -> None:
    layer, tokens = nn.Linear(shape[-1], 100, bias=bias), torch.randn(shape)
    output, kernels = call(layer, tokens)
    torch.testing.assert_close(output, layer(tokens))
    assert "_linear_pointwise" in kernels


def test_what_follows_a_transpose_gives_the_same(slow_mkl: None) -> None:
    layer, tokens = nn.Linear(384, 100), torch.randn(384, 64).t()
    torch.testing.assert_close(call(layer, tokens)[0], tokens @ layer.weight.t() + layer.bias)


def test_in_bf16_the_same_comes_out_as_under_autocast(avx512: None) -> None:
    layer, tokens = nn.Linear(384, 100), torch.randn(2, 40, 384)
    output, kernels = call(layer, tokens, "bf16")
    assert "_linear_pointwise" in kernels
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(output, layer(tokens), rtol=2**-7, atol=1e-2)
        assert torch.equal(call(layer, tokens.bfloat16(), "bf16")[0], output)


def test_a_weight_is_packed_once_and_a_new_one_is_another(slow_mkl: None) -> None:
    packed: PackedWeights = {}
    tokens, layers = torch.randn(64, 384), [nn.Linear(384, 100) for _ in range(2)]
    with torch.no_grad(), Calls() as calls:
        outputs = []
        for layer in (*layers, *layers):
            with fast_linear(CPU, "fp32", packed):
                outputs.append(layer(tokens))
    assert calls.names.count("_reorder_linear_weight") == len(packed) == 2
    for output, layer in zip(outputs, (*layers, *layers), strict=True):
        torch.testing.assert_close(output, layer(tokens))


def test_what_is_no_parameter_is_not_kept(slow_mkl: None) -> None:
    packed: PackedWeights = {}
    tokens, weight = torch.randn(64, 384), torch.randn(100, 384) / 20
    with torch.no_grad(), fast_linear(CPU, "fp32", packed):
        torch.testing.assert_close(nn.functional.linear(tokens, weight), tokens @ weight.t())
    assert not packed


@pytest.mark.parametrize(
    ("width", "rows", "dtype", "precision"),
    [
        (48, 64, torch.float32, "fp32"),
        (384, 8, torch.float32, "fp32"),
        (384, 64, torch.float64, "fp32"),
        (384, 64, torch.float32, "fp16"),
    ],
)
def test_other_layers_are_left_alone(slow_mkl: None, width: int, rows: int, dtype: torch.dtype, precision: str) -> None:
    layer, tokens = nn.Linear(width, 10, dtype=dtype), torch.randn(rows, width, dtype=dtype)
    output, kernels = call(layer, tokens, precision)
    assert "_linear_pointwise" not in kernels
    assert torch.equal(output, layer(tokens))


def test_it_is_for_processors_whose_avx_512_mkl_leaves_unused(monkeypatch: pytest.MonkeyPatch) -> None:
    def decide(capability: str, vendor: str) -> tuple[bool, bool]:
        monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
        monkeypatch.setattr(products, "processor_vendor", lambda: vendor)
        monkeypatch.setattr(products, "has_avx512", has_avx512.__wrapped__)
        return has_avx512.__wrapped__(), mkl_is_slow.__wrapped__()

    for library in (torch.backends.mkl, torch.backends.mkldnn):
        monkeypatch.setattr(library, "is_available", lambda: True)
    assert decide("AVX512", "AuthenticAMD") == (True, True)
    assert decide("AVX512", "GenuineIntel") == (True, False)
    assert decide("AVX512", "") == (True, False)
    assert decide("AVX2", "AuthenticAMD") == (False, False)


def test_a_gpu_computes_as_ever(slow_mkl: None) -> None:
    assert isinstance(fast_linear(torch.device("cuda"), "bf16", {}), nullcontext)


@pytest.mark.parametrize("strict", [False, True])
def test_an_exported_graph_holds_the_product_itself(slow_mkl: None, strict: bool) -> None:
    class Frozen(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(384, 100)

        def forward(self, tokens: torch.Tensor) -> torch.Tensor:
            with torch.no_grad(), fast_linear(CPU, "fp32", {}):
                return self.layer(tokens)

    module, tokens = Frozen(), torch.randn(64, 384)
    exported = torch.export.export(module, (tokens,), strict=strict)
    assert "mkldnn" not in str(exported.graph)
    torch.testing.assert_close(exported.module()(tokens), module(tokens))

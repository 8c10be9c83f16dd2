"""Stored features: how many bytes, and how far from what they were."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from petlbench.core.catalog import Catalog
from petlbench.features.quantization import (
    CachePrecision,
    StoredFeatures,
    compact,
    dequantize,
    stored_parts,
    stored_tensors,
)
from petlbench.models.method import FeatureSpec, Inputs, TensorSpec, load_method
from petlbench.models.registry import build_backbone, resolve_backbone

FPT = FeatureSpec("fine", {}, {"keys": TensorSpec((12, 12, 205, 64)), "values": TensorSpec((12, 12, 205, 64))})


@pytest.mark.parametrize(("precision", "share"), [("fp32", 1.0), ("fp16", 0.5), ("bf16", 0.5), ("int8", 0.2578125)])
def test_an_image_takes_this_share_of_fp32(precision: CachePrecision, share: float) -> None:
    stored = sum(tensor.bytes for tensor in stored_tensors(FPT, precision).values())
    assert stored == share * FPT.bytes_per_image


@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16", "int8"])
def test_what_is_stored_is_what_was_announced(precision: CachePrecision) -> None:
    spec = FeatureSpec("fine", {}, {"keys": TensorSpec((2, 3, 8)), "final": TensorSpec((5,))})
    features = {name: torch.randn(4, *tensor.shape) for name, tensor in spec.tensors.items()}
    stored = compact(features, precision)
    announced = stored_tensors(spec, precision)
    assert set(stored) == set(announced)
    for name, value in stored.items():
        assert (value.shape, value.dtype) == ((4, *announced[name].shape), announced[name].dtype)


@given(st.integers(0, 10_000), st.floats(-4, 3))
def test_integers_are_off_by_half_a_step_at_most(seed: int, magnitude: float) -> None:
    value = torch.randn(3, 5, 16, generator=torch.Generator().manual_seed(seed)) * 10**magnitude
    stored = compact({"keys": value}, "int8")
    restored = dequantize(stored["keys"], stored["keys.scale"])
    step = value.abs().amax(dim=-1, keepdim=True) / 127
    assert ((restored - value).abs() <= 0.51 * step + 1e-6).all()


def test_a_vector_of_zeros_stays_one() -> None:
    stored = compact({"keys": torch.zeros(1, 2, 4)}, "int8")
    assert torch.equal(dequantize(stored["keys"], stored["keys.scale"]), torch.zeros(1, 2, 4))


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_nothing_becomes_infinite(precision: CachePrecision) -> None:
    stored = compact({"keys": torch.full((1, 4), 1e6)}, precision)
    assert dequantize(stored["keys"], stored.get("keys.scale")).isfinite().all()


def test_stored_features_are_a_mapping_of_restored_ones() -> None:
    features = {"keys": torch.randn(2, 3, 8), "final": torch.randn(2, 5)}
    stored = StoredFeatures(compact(features, "int8"))
    assert set(stored) == set(features)
    assert len(stored) == 2
    for name, value in features.items():
        assert torch.allclose(stored[name], value, atol=0.05)
        assert [part.dtype for part in stored_parts(stored, name)] == [torch.int8, torch.bfloat16]
        assert stored_parts(features, name) == (value,)


@pytest.mark.parametrize("implementation", ["lean", "published"])
def test_fpt_reads_stored_features_as_it_reads_restored_ones(implementation: str) -> None:
    torch.manual_seed(0)
    method = load_method(Catalog().find("method", "fpt")).from_settings({"implementation": implementation})
    backbone = build_backbone(resolve_backbone("vit_tiny_patch16_224"), 64, "none", torch.device("cpu"))
    module = method.adapt(backbone, 3).module.eval()
    frozen = method.features(backbone.info)
    assert frozen is not None
    image = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        stored = StoredFeatures(compact(frozen.extract(backbone, image), "int8"))
    views = {"coarse": image[..., :16, :16]} if module.side.patch_embed.img_size[0] == 16 else {"coarse": image}
    torch.nn.init.normal_(module.side.head.weight)
    # In float64: in float32 the rounding of gradients, which sum to nearly nothing, hangs on the processor.
    module, views = module.double(), {"coarse": views["coarse"].double()}
    restored = {name: tensor.double() for name, tensor in stored.items()}
    from_stored, from_restored = (module(Inputs(views, features)) for features in (stored, restored))
    assert torch.allclose(from_stored, from_restored, atol=1e-12)
    gradients = [
        torch.autograd.grad(logits.square().sum(), module.fusion.prompts)[0] for logits in (from_stored, from_restored)
    ]
    assert gradients[0].abs().sum() > 0
    assert torch.allclose(*gradients, atol=1e-12)

"""Features kept as tokens: keys and values follow from them, in half the bytes where all heads keep the same ones."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from petlbench.core.catalog import Catalog
from petlbench.core.request import Request
from petlbench.data.views import View
from petlbench.features.frozen import CacheForm, in_form, shared_tensors
from petlbench.features.quantization import CachePrecision, StoredFeatures, compact, stored_tensors
from petlbench.features.token_attention import attend_to_tokens, restore_keys_values
from petlbench.models.build import Assembled, assemble
from petlbench.models.method import Inputs, load_method
from petlbench.models.registry import probe_backbone, resolve_backbone
from petlbench.run.resolve import build_views, resolve
from tests.features.test_attention import draw, plain

CPU = torch.device("cpu")
CATALOG = Catalog()
XRAYS = Path(os.environ.get("PETLBENCH_XRAYS") or Path(__file__).parents[3] / "shared" / "data" / "covid_xray")


def share_of_naive(method: str, form: CacheForm, **settings: Any) -> float:
    """Bytes of an image in int8 over those of keys and values in fp32, ViT-B at 512 pixels."""
    info = probe_backbone(resolve_backbone("vit_base_patch16_384"), 512)
    frozen = load_method(CATALOG.find("method", method)).from_settings(settings).features(info)
    assert frozen is not None
    kept = stored_tensors(in_form(frozen, form).spec(info), "int8")
    return sum(spec.bytes for spec in kept.values()) / frozen.spec(info).bytes_per_image


@pytest.mark.parametrize("method", ["fpt", "fpt_plus"])
@pytest.mark.parametrize("alike", [{"token_score": "all_heads"}, {"token_selection": False}])
def test_tokens_that_all_heads_keep_take_half(method: str, alike: dict[str, Any]) -> None:
    assert share_of_naive(method, "tokens", **alike) <= 0.132
    assert share_of_naive(method, "keys_values", **alike) == 0.2578125


def test_where_each_head_keeps_its_own_tokens_pay_from_half_of_them_on() -> None:
    shares = [share_of_naive("fpt", "tokens", token_ratio=ratio) / 0.2578125 for ratio in (0.2, 0.5, 0.6)]
    assert [share < 1 for share in shares] == [False, False, True]
    assert shares[0] == pytest.approx(2.52, abs=0.01)


class TestAttention:
    rows = torch.tensor([[[0, 2], [1, 2], [4, 0]], [[3, 4], [0, 1], [2, 3]]], dtype=torch.int16)

    def parts(self, dtype: torch.dtype = torch.float64) -> tuple[list[Tensor], Tensor, Tensor]:
        return [draw(2, 5, 3, 4, dtype=dtype)], draw(24, 12, seed=1, dtype=dtype), draw(24, seed=2, dtype=dtype)

    @pytest.mark.parametrize("is_alike", [True, False])
    @pytest.mark.parametrize("has_bias", [True, False])
    def test_prompts_read_what_they_read_of_projected_tokens(self, is_alike: bool, has_bias: bool) -> None:
        tokens, weight, bias = self.parts()
        given = (tokens, weight, bias if has_bias else None, None if is_alike else self.rows)
        query = draw(3, 2, 4, seed=3)
        expected, _ = plain(query.expand(2, -1, -1, -1), *restore_keys_values(3, *given))
        torch.testing.assert_close(attend_to_tokens(query, *given), expected, rtol=0, atol=1e-12)

    @pytest.mark.parametrize("is_alike", [True, False])
    def test_the_gradient_is_that_of_finite_differences(self, is_alike: bool) -> None:
        tokens, weight, bias = self.parts()
        rows = None if is_alike else self.rows
        query = draw(3, 2, 4, seed=3).requires_grad_()
        assert torch.autograd.gradcheck(lambda asked: attend_to_tokens(asked, tokens, weight, bias, rows), (query,))

    def test_no_token_in_the_queries_precision_is_kept_for_the_backward_pass(self) -> None:
        stored = list(compact({"tokens": draw(2, 64, 4, 32, dtype=torch.float32)}, "int8").values())
        weight, query = draw(256, 128, dtype=torch.float32), draw(4, 2, 32, dtype=torch.float32).requires_grad_()
        sizes: list[int] = []

        def note(tensor: Tensor) -> Tensor:
            if tensor.dtype == torch.float32 and tensor.untyped_storage().data_ptr() != weight.data_ptr():
                sizes.append(tensor.numel())
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            attend_to_tokens(query, stored, weight, None)
        assert max(sizes) <= 2 * 64 * 8 < 2 * 64 * 128


def finished(method: str, size: int, **settings: Any) -> Assembled:
    """FPT on the backbone that travels with petlbench, with prompts that ask and a head that answers."""
    request = Request(method, "digits", backbone="petlbench_micro", image_size=size, device="cpu", threads=1)
    run = resolve(Request(**{**vars(request), "method_settings": {"dropout": 0.0, **settings}}), CATALOG, Path())
    parts = assemble(run.config, run.method, 3, CPU, CATALOG)
    torch.manual_seed(0)
    for name, tensor in parts.adapted.module.named_parameters():
        if name in ("fusion.prompts", "side.head.weight"):
            torch.nn.init.normal_(tensor, std=1.0)
    parts.adapted.module.eval()
    parts.backbone.module.eval()
    return parts


def logits(parts: Assembled, images: dict[str, Tensor], form: CacheForm, precision: CachePrecision) -> Tensor:
    assert parts.frozen is not None
    kept = in_form(parts.frozen, form)
    with torch.no_grad():
        features = compact(kept.extract(parts.backbone, images["fine"]), precision)
        shared = shared_tensors(kept, parts.backbone, CPU)
        answer: Tensor = parts.adapted.module(Inputs(images, StoredFeatures(features), shared))
    return answer


def read(parts: Assembled, size: int) -> dict[str, Tensor]:
    """Eight X-rays in each of the views."""
    from PIL import Image

    run = resolve(Request("fpt", "digits", backbone="petlbench_micro", image_size=size, device="cpu"), CATALOG, Path())
    views: dict[str, View] = dict(build_views(run.config, parts.method, parts.backbone.info, run.normalization))
    files = sorted(XRAYS.glob("*/*.jpg"))[::141][:8]
    pictures = [Image.open(file).convert("RGB") for file in files]
    return {name: view.batch([view.store(each) for each in pictures]) for name, view in views.items()}


@pytest.mark.skipif(not XRAYS.is_dir(), reason="the X-rays are not here; PETLBENCH_XRAYS may name their folder")
@pytest.mark.parametrize("method", ["fpt", "fpt_plus"])
@pytest.mark.parametrize("settings", [{}, {"token_score": "all_heads"}], ids=["global", "all_heads"])
def test_logits_of_real_images_are_those_of_keys_and_values(method: str, settings: dict[str, Any]) -> None:
    parts = finished(method, 128, **settings)
    images = read(parts, 128)
    exact, keys_values, tokens, unrounded = (
        logits(parts, images, form, precision)  # type: ignore[arg-type]
        for form, precision in (
            ("keys_values", "fp32"),
            ("keys_values", "int8"),
            ("tokens", "int8"),
            ("tokens", "fp32"),
        )
    )
    differs = logits(parts, {**images, "fine": images["fine"].flip(0)}, "tokens", "int8")
    size = exact.norm()
    assert (unrounded - exact).norm() < 1e-5 * size
    assert (tokens - keys_values).norm() < 0.003 * size
    assert (tokens - exact).norm() < 0.003 * size
    assert (differs - exact).norm() > 0.01 * size  # the logits hang on what is stored

"""Methods by peft, and BOFT: counts, refusals, and the structures that they work on."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from functools import cache
from typing import Any, cast

import peft
import pytest
import torch
from peft.tuners.boft import layer as peft_boft
from torch import Tensor, nn

from petlbench.core.catalog import Catalog
from petlbench.models.backbone import Backbone
from petlbench.models.method import Inputs, load_method
from petlbench.models.registry import build_backbone, probe_backbone, resolve_backbone

CPU, META = torch.device("cpu"), torch.device("meta")
NAME, SIZE = resolve_backbone("test_vit"), 32
BASE = resolve_backbone("vit_base_patch16_224")


@cache
def method_class(method: str) -> Any:
    return load_method(Catalog().find("method", method))


def load(method: str, settings: Mapping[str, Any] | None = None) -> Any:
    return method_class(method).from_settings(settings or {})


def redraw(tensors: Any) -> None:
    generator = torch.Generator().manual_seed(7)
    for tensor in tensors:
        tensor.data = torch.randn(tensor.shape, generator=generator).to(tensor) * 0.1 + tensor.data


def _low_rank(rank: int) -> int:
    return 24 * rank * 2 * 768


# Learned tensors on ViT-B/16 beside the head, with the method's own defaults: 12 blocks of width 768.
COUNTS: dict[str, int] = {
    "lora": _low_rank(16),
    "rslora": _low_rank(16),
    "dora": _low_rank(16) + 24 * 768,
    "pissa": _low_rank(16),
    "adalora": _low_rank(12) + 24 * 12,
    "ia3": 12 * (768 + 768 + 4 * 768),
    "vera": 24 * (256 + 768),
    "pvera": 24 * (2 * 256 + 768),
    "oft": 24 * (768 // 32) * (32 * 31 // 2),
    "boft": 12 * (5 * 768 + 4 * 768) * (4 * 3 // 2 + 2),
    "loha": 2 * _low_rank(8),
    "lokr": 24 * (24 * 24 + 8 * (32 + 32)),
    "fourierft": 24 * 3000,
    "hra": 24 * 8 * 768,
    "randlora": 24 * (768 // 32) * (32 + 768),
    "c3a": 24 * 768 * 768 // 64,
    "delora": _low_rank(8) + 24,
    "road": 24 * 768,
    "miss": 24 * 32 * 768,
    "gralora": _low_rank(32),
    "hira": _low_rank(32),
    "psoft": 24 * (32 * 31 // 2 + 2 * 32),
    "peanut": _low_rank(32),
    "beft": 12 * 768,
}


@pytest.fixture(scope="module")
def vit_base() -> Backbone:
    return build_backbone(BASE, 224, "none", META)


def count(backbone: Backbone, method: str, settings: Mapping[str, Any]) -> int:
    with META:
        adapted = load(method, settings).adapt(Backbone(backbone.info, copy.deepcopy(backbone.module)), 7)
    adapted.freeze_the_rest()
    assert all(tensor.device == META for tensor in (*adapted.module.parameters(), *adapted.module.buffers()))
    return sum(tensor.numel() for tensor in adapted.parameters().values()) - 7 * 769


@pytest.mark.parametrize("method", COUNTS)
def test_the_count_on_vit_base_is_that_of_the_formula(method: str, vit_base: Backbone) -> None:
    assert count(vit_base, method, {}) == COUNTS[method]


PUBLISHED: dict[str, tuple[str, dict[str, Any], float]] = {
    "vera, table 5, ViT-B": ("vera", {}, 24.6e3),
    "vera, table 5, LoRA": ("lora", {"rank": 8}, 294.9e3),
    "fourierft, table 5": ("fourierft", {}, 72e3),
    "fourierft, table 5, n = 10000": ("fourierft", {"coefficients": 10_000}, 239e3),
    "c3a, table A2, LoRA": ("lora", {}, 0.59e6),
    "c3a, table A2": ("c3a", {}, 0.22e6),
    "c3a, table A2, BOFT": ("boft", {"targets": "q,v", "block_size": 8, "factors": 2}, 0.166e6),
    "boft, BERT of the same widths": ("boft", {"block_size": 8, "factors": 2}, 0.75e6),
    "boft, OFT on the same": ("boft", {"block_size": 16, "factors": 1}, 0.79e6),
}


@pytest.mark.parametrize("source", PUBLISHED)
def test_the_count_on_vit_base_is_the_published_one(source: str, vit_base: Backbone) -> None:
    method, settings, printed = PUBLISHED[source]
    assert count(vit_base, method, settings) == pytest.approx(printed, rel=8e-3)


def test_lora_draws_what_peft_draws_by_itself() -> None:
    learned, direct = [], []
    for drawn in (learned, direct):
        torch.manual_seed(0)
        backbone = build_backbone(NAME, SIZE, "none", CPU)
        torch.manual_seed(1)
        if drawn is learned:
            parameters = load("lora").adapt(backbone, 3).parameters().items()
        else:
            backbone.split_qkv()
            config = peft.LoraConfig(r=16, lora_alpha=16, target_modules=r"blocks\.\d+\.attn\.qkv\.(q|v)")
            parameters = peft.inject_adapter_in_model(config, backbone.module).named_parameters()
        drawn.extend(tensor for name, tensor in parameters if ".lora_" in name)
    assert len(learned) == len(direct) == 2 * 2 * 6
    assert all(torch.equal(one, other) for one, other in zip(learned, direct, strict=True))


def test_boft_is_that_of_peft_with_its_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its CUDA kernel only sets blocks on a diagonal, which plain torch does too."""

    class Kernel:
        @staticmethod
        def forward(blocks: Tensor) -> list[Tensor]:
            return [torch.stack([torch.block_diag(*factor) for factor in blocks])]

    monkeypatch.setattr(peft_boft, "get_fbd_cuda", lambda: Kernel)
    backbone = build_backbone(NAME, SIZE, "none", CPU)
    base = copy.deepcopy(cast("nn.Linear", backbone.module.get_submodule("blocks.0.mlp.fc2")))
    adapted = load("boft").adapt(backbone, 3)
    redraw(tensor for name, tensor in adapted.parameters().items() if not name.endswith("bias"))
    ours: Any = backbone.module.get_submodule("blocks.0.mlp.fc2")
    theirs = peft_boft.Linear(base, "default", peft.BOFTConfig(boft_block_size=4, boft_n_butterfly_factor=4))
    upper = torch.zeros_like(theirs.boft_R["default"])
    upper[..., *torch.triu_indices(4, 4, 1)] = 2 * ours.angles.detach()
    theirs.boft_R["default"].data, theirs.boft_s["default"].data = upper, ours.scale.detach()[:, None]
    x = torch.randn(2, 5, base.in_features)
    with torch.no_grad():
        torch.testing.assert_close(ours(x), theirs(x), rtol=0, atol=1e-5)
    assert {name.rpartition(".")[2] for name in adapted.learnable} == {"angles", "scale", "bias", "weight"}


def test_shapes_that_do_not_suit_are_refused_before_anything_is_built() -> None:
    info = probe_backbone(NAME, SIZE)
    refused = {
        "pissa": ({"rank": 65}, "65 is more than the 64"),
        "psoft": ({"rank": 65}, "65 is more than the 64"),
        "randlora": ({"rank": 65}, "65 is more than the 64"),
        "miss": ({"rank": 65}, "65 is more than the 64"),
        "oft": ({"block_size": 24}, "blocks of 24"),
        "boft": ({"factors": 6}, "groups of blocks of 128"),
        "road": ({"group_size": 24}, "groups of 24"),
        "gralora": ({"rank": 8, "blocks": 3}, "cannot be shared"),
        "adalora": ({"target_rank": 12}, "not below initial_rank"),
    }
    for method, (settings, reason) in refused.items():
        refused_because = load(method, settings).refuse(info) or ""
        assert reason in refused_because, method
        assert NAME in refused_because or "rank" in refused_because, method
        assert load(method).refuse(info) is None, method
    assert "into 7 blocks" in load("gralora", {"rank": 14, "blocks": 7}).refuse(info)


def test_blocks_and_spectra_are_as_large_as_the_targets_allow(vit_base: Backbone) -> None:
    assert count(vit_base, "c3a", {"block_size": 40}) == 24 * 768 * 768 // 8
    assert count(vit_base, "fourierft", {"coefficients": 10**6}) == 24 * 768 * 768


@pytest.mark.parametrize(
    ("method", "settings"),
    [
        ("lora", {"targets": "q,k,v,proj,fc1,fc2"}),
        ("vera", {"targets": "q,k,v,proj,fc1,fc2"}),
        ("ia3", {"targets": "q,k,v,proj,fc2"}),
        ("hra", {"targets": "q,k,v,proj,fc1,fc2"}),
        ("boft", {"targets": "q,k,v,proj", "block_size": 2, "factors": 2}),
    ],
)
def test_layers_of_every_structure_can_be_adapted_and_merged(method: str, settings: dict[str, Any]) -> None:
    for name, size in (("tiny_eva", 28), ("tiny_swin", 32), ("tiny_distilled", 32)):
        torch.manual_seed(0)
        backbone = build_backbone(name, size, "none", CPU)
        keys = list(backbone.module.state_dict())
        adapted = load(method, settings).adapt(backbone, 3)
        adapted.module.eval()
        redraw(adapted.parameters().values())
        image = torch.randn(2, 3, size, size)
        with torch.no_grad():
            before = adapted.module(Inputs({"fine": image}))
            cast("Any", adapted.merge)()
            torch.testing.assert_close(adapted.module(Inputs({"fine": image})), before, rtol=0, atol=1e-4)
        assert sorted(keys) == sorted(backbone.module.state_dict())

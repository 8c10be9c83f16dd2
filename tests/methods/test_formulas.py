"""Methods whose authors' tensors are not at hand, against plain tensor operations, and what each learns on ViT-B/16."""

from __future__ import annotations

from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from petlbench.core.catalog import Catalog
from petlbench.models.backbone import Backbone
from petlbench.models.method import Adapted, Method, load_method
from petlbench.models.registry import build_backbone, resolve_backbone
from tests.methods.stirred import adapt_beside, image, logits

BACKBONES = ["test_vit", "test_vit2"]
# The counts that papers and reruns print, without the head: DiffFit 140,544, Hydra 0.28 M, MLAE 0.30 M.
COUNTS = {
    "difffit": 102_912 + 25 * 768 + 24 * 768,
    "hydra": 12 * (4 * (4 * 768 + 768 + 768 + 768) + 2 * (4 + 768)),
    "mlae": 24 * (2 * 768 * 8 + 8),
    "adapter_plus": 12 * (2 * 768 * 8 + 8 + 2 * 768),
    "rlrr": 12 * (4 * 3 * 768 + (4 + 1 + 4) * 768 + (1 + 4 + 1) * 768) + 26 * 2 * 768,
    "arc": 2 * 768 * 50 + 24 * (50 + 768),
    "bi_adaptformer": 12 * 2 * 768 * 32,
    "bi_lora": 24 * 2 * 768 * 32,
}


def method_of(name: str, **settings: Any) -> Method[Any]:
    return load_method(Catalog().find("method", name)).from_settings(settings)


def learned(adapted: Adapted, place: str) -> dict[str, Tensor]:
    prefix = f"backbone.{place}."
    return {n.removeprefix(prefix): p for n, p in adapted.parameters().items() if n.startswith(prefix)}


def through_blocks(plain: Backbone, one_block: Any) -> Tensor:
    """The frozen backbone's final feature, each block computed by a function of its index, itself and the tokens."""
    tokens = next(plain.states(image()))
    for index, block in enumerate(plain.blocks()):
        tokens = one_block(index, block, tokens)
    return plain.pooled_from(tokens)


def check(adapted: Adapted, feature: Tensor) -> None:
    head = adapted.module.get_submodule("head")
    with torch.no_grad():
        torch.testing.assert_close(logits(adapted), cast("Tensor", head(feature)), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", BACKBONES)
@torch.no_grad()
def test_adapter_plus_reads_and_adds_behind_the_last_sum_of_a_block(name: str) -> None:
    adapted, _, plain = adapt_beside(method_of("adapter_plus", bottleneck=5), name, 32)

    def one_block(index: int, block: Any, tokens: Tensor) -> Tensor:
        tokens, p = block(tokens), learned(adapted, f"blocks.{index}.mlp.adapter")
        middle = F.gelu(F.linear(tokens, p["down.weight"], p["down.bias"]))
        return tokens + p["factor"] * F.linear(middle, p["up.weight"], p["up.bias"])

    check(adapted, through_blocks(plain, one_block))


@pytest.mark.parametrize("name", BACKBONES)
@torch.no_grad()
def test_difffit_weighs_the_channels_that_attention_and_mlp_add(name: str) -> None:
    adapted, backbone, plain = adapt_beside(method_of("difffit"), name, 32)
    own = plain.module.state_dict()
    plain.module.load_state_dict({k: backbone.module.state_dict()[k] for k in own if k in backbone.module.state_dict()})

    def one_block(index: int, block: Any, tokens: Tensor) -> Tensor:
        factors = [learned(adapted, f"blocks.{index}.drop_path{half}")["factor"] for half in (1, 2)]
        tokens = tokens + factors[0] * block.ls1(block.attn(block.norm1(tokens)))
        return cast("Tensor", tokens + factors[1] * block.ls2(block.mlp(block.norm2(tokens))))

    check(adapted, through_blocks(plain, one_block))


def test_difffit_learns_biases_norms_and_factors() -> None:
    adapted, _, _ = adapt_beside(method_of("difffit"), "test_vit", 32)
    frozen = {name for name, _ in adapted.module.named_parameters()} - adapted.learnable
    assert frozen
    assert all(name.endswith(("weight", "token", "embed")) and ".norm" not in name for name in frozen)


@torch.no_grad()
def test_hydra_adds_a_map_of_the_input_and_one_of_the_output() -> None:
    adapted, backbone, plain = adapt_beside(method_of("hydra", rank=3, scale=0.7), "test_vit", 32)
    place = "blocks.0.mlp.fc2"
    layer, frozen = backbone.module.get_submodule(place), cast("nn.Linear", plain.module.get_submodule(place))
    p, x = learned(adapted, place), torch.randn(2, 3, frozen.in_features, dtype=torch.float64)
    y = frozen(x)

    def branch(name: str, reads: Tensor) -> Tensor:
        down = F.linear(reads, p[f"{name}.down.weight"], p[f"{name}.down.bias"])
        return F.linear(down, p[f"{name}.up.weight"], p[f"{name}.up.bias"])

    torch.testing.assert_close(layer(x), y + 0.7 * (branch("parallel", x) + branch("sequential", y)))


@torch.no_grad()
def test_mlaes_experts_sit_out_whole_and_the_others_weigh_more() -> None:
    adapted, backbone, plain = adapt_beside(method_of("mlae", rank=4, drop_rate=0.5), "test_vit", 32)
    plain.split_qkv()
    place = "blocks.0.attn.qkv.q"
    layer, frozen = backbone.module.get_submodule(place), cast("nn.Linear", plain.module.get_submodule(place))
    p, x = learned(adapted, place), torch.randn(2, 3, frozen.in_features, dtype=torch.float64)
    experts = torch.stack([p["coefficients"][i] * torch.outer(p["b"][:, i], p["a"][i]) for i in range(4)])
    torch.testing.assert_close(layer(x), frozen(x) + F.linear(x, experts.sum(0)))
    layer.train()
    seen = set()
    for _ in range(40):
        added = layer(x) - frozen(x)
        sums = [
            sum(2 * experts[i] for i in range(4) if mask >> i & 1) + torch.zeros_like(experts[0]) for mask in range(16)
        ]
        matches = [mask for mask, total in enumerate(sums) if torch.allclose(added, F.linear(x, total))]
        assert len(matches) == 1
        seen.update(matches)
    assert len(seen) > 4


@torch.no_grad()
def test_rlrr_rescales_rows_and_columns_beside_the_frozen_matrix() -> None:
    adapted, backbone, plain = adapt_beside(method_of("rlrr"), "test_vit", 32)
    place = "blocks.0.mlp.fc1"
    layer, frozen = backbone.module.get_submodule(place), cast("nn.Linear", plain.module.get_submodule(place))
    p, x = learned(adapted, place), torch.randn(2, 3, frozen.in_features, dtype=torch.float64)
    weight = frozen.weight + p["rows"] * frozen.weight * p["columns"]
    torch.testing.assert_close(layer(x), F.linear(x, weight, frozen.bias + p["shift"]))


@pytest.mark.parametrize("name", COUNTS)
def test_they_learn_what_was_counted(name: str) -> None:
    meta = torch.device("meta")
    backbone = build_backbone(resolve_backbone("vit_base_patch16_224"), 224, "none", meta)
    with meta:
        adapted = method_of(name).adapt(backbone, 10)
    numbers = sum(parameter.numel() for parameter in adapted.parameters().values())
    assert numbers - 10 * (768 + 1) == COUNTS[name]

"""Methods whose authors' tensors are not at hand, against plain tensor operations, and what each learns on ViT-B/16."""

from __future__ import annotations

from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from petlbench.core.catalog import Catalog
from petlbench.models.backbone import Backbone, set_attention_kernel
from petlbench.models.method import Adapted, Inputs, Method, load_method
from petlbench.models.registry import build_backbone, probe_backbone, resolve_backbone
from tests.methods.stirred import adapt_beside, image, logits, stirred_backbone

BACKBONES = ["test_vit", "test_vit2"]
INFO = probe_backbone("test_vit", 32)
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
    "vfpt": 12 * 16 * 768,
    "vqt": 12 * 768 + 10 * 12 * 768,
    "noah": 72 * 768 + 69 * 4 * 768 + 69 * (2 * 768 + 1) + 12 * 768,
    "gist": 768 + 12 * (2 * 768 * 4 + 4 + 768),
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


def test_vfpt_reads_some_prompts_through_a_transform_of_both_axes() -> None:
    adapted, _, plain = adapt_beside(method_of("vfpt", num_tokens=5, share=0.7), "test_vit", 32)
    prompts, positions = adapted.parameters()["prompts"].detach(), torch.arange(3, dtype=torch.float64)
    channels = torch.arange(plain.info.width, dtype=torch.float64)
    # What is left of a sum over n and c of p[n, c] exp(-2 pi i (m n / 3 + d c / D)) without its imaginary part.
    angles = positions[:, None, None, None] * positions[:, None] / 3
    angles = angles + channels[:, None, None] * channels / plain.info.width
    waves = torch.cos(2 * torch.pi * angles)

    def one_block(index: int, block: Any, tokens: Tensor) -> Tensor:
        read = torch.cat([torch.einsum("mdnc,nc->md", waves, prompts[index, :3]), prompts[index, 3:]])
        return cast("Tensor", block(torch.cat([tokens, read.expand(len(tokens), -1, -1)], dim=1))[:, : tokens.shape[1]])

    with torch.no_grad():
        check(adapted, through_blocks(plain, one_block))


def test_vfpt_refuses_a_share_that_makes_no_prompt() -> None:
    assert "0.1 of num_tokens=5" in str(method_of("vfpt", num_tokens=5, share=0.1).refuse(INFO))


@pytest.mark.parametrize("kernel", ["eager", "fused"])
@torch.no_grad()
def test_vqts_queries_ask_frozen_tokens_that_do_not_see_them(kernel: str) -> None:
    adapted, backbone, plain = adapt_beside(method_of("vqt", num_tokens=3), "test_vit2", 32)
    set_attention_kernel(backbone.module, kernel)
    *states, last = plain.states(image())
    read = [plain.pooled_from(last)]
    for queries, block, tokens in zip(adapted.parameters()["queries"], plain.blocks(), states, strict=True):
        whole = torch.cat([queries.expand(len(tokens), -1, -1), tokens], dim=1)
        # Nobody may read the three queries.
        seen = torch.arange(whole.shape[1]) >= 3
        read.append(block(whole, attn_mask=seen.expand(whole.shape[1], -1))[:, :3].flatten(1))
    feature = torch.cat([each / each.norm(dim=1, keepdim=True) for each in read], dim=1)
    check(adapted, feature)


def test_no_gradient_passes_through_vqts_tokens() -> None:
    adapted, backbone, _ = adapt_beside(method_of("vqt"), "test_vit", 32)
    adapted.freeze_the_rest()
    before = [torch.is_grad_enabled()]
    for block in backbone.blocks():
        block.register_forward_hook(lambda _module, _args, output: before.append(output.requires_grad))
    adapted.module(Inputs({"fine": image()})).sum().backward()
    assert before == [True] + [False] * backbone.info.blocks
    assert float(cast("Tensor", adapted.parameters()["queries"].grad).abs().min()) > 0


@torch.no_grad()
def test_noah_has_prompts_an_update_and_an_adapter_by_block() -> None:
    sizes = {"prompts": "3,2,0,0,4,0", "lora": "2,0,0,1,0,0", "adapter": "0,3,0,0,1,0"}
    adapted, _, plain = adapt_beside(method_of("noah", **sizes), "test_vit", 32)
    prompts = {int(n[8:]): p for n, p in adapted.parameters().items() if n.startswith("prompts.")}
    assert {index: len(tokens) for index, tokens in prompts.items()} == {0: 3, 1: 2, 4: 4}
    count = plain.info.tokens

    def one_block(index: int, block: Any, tokens: Tensor) -> Tensor:
        if index in prompts:
            # Of the prompts of block 1, blocks 2 and 3 make new ones, and block 4 reads those beside its own.
            tokens = tokens[:, :count] if index == 1 else tokens
            tokens = torch.cat([tokens, prompts[index].expand(len(tokens), -1, -1)], dim=1)
        p = learned(adapted, f"blocks.{index}")
        if "attn.qkv.lora_A.default.weight" in p:
            block.attn.qkv.weight += p["attn.qkv.lora_B.default.weight"] @ p["attn.qkv.lora_A.default.weight"]
        tokens = tokens + block.attn(block.norm1(tokens))
        added = block.mlp(block.norm2(tokens))
        if "mlp.adapter.down.weight" in p:
            middle = F.linear(added, p["mlp.adapter.down.weight"], p["mlp.adapter.down.bias"])
            middle = middle / (1 + torch.exp(-1.702 * middle))
            added = added + F.linear(middle, p["mlp.adapter.up.weight"], p["mlp.adapter.up.bias"])
        tokens = tokens + added
        return tokens if index < 5 else tokens[:, :count]

    check(adapted, through_blocks(plain, one_block))
    assert [len(learned(adapted, f"blocks.{index}.attn.qkv")) for index in range(6)] == [2, 0, 0, 2, 0, 0]


def test_noah_spreads_its_numbers_over_the_blocks_and_refuses_none_at_all() -> None:
    adapted = method_of("noah", prompts="1,5", lora="0", adapter="0").adapt(stirred_backbone("test_vit", 32), 3)
    assert [len(tokens) for tokens in cast("nn.ParameterList", adapted.module.prompts)] == [1, 1, 1, 5, 5, 5]
    nothing = method_of("noah", prompts="0", lora="0,0", adapter="0")
    assert "6 blocks" in str(nothing.refuse(INFO))


@pytest.mark.parametrize("name", BACKBONES)
def test_gists_token_is_classified_too_and_predicts_what_the_feature_does(name: str) -> None:
    settings = {"bottleneck": 5, "scale": 0.7, "gist_weight": 0.4, "interaction_weight": 0.6, "temperature": 2.0}
    adapted, _, plain = adapt_beside(method_of("gist", **settings, dropout=0), name, 32)
    labels, kept = torch.tensor([0, 2]), list[Tensor]()

    def one_block(index: int, block: Any, tokens: Tensor) -> Tensor:
        p = learned(adapted, f"blocks.{index}.attn.adapter")

        def added(x: Tensor) -> Tensor:
            middle = F.gelu(F.linear(x, p["down.weight"], p["down.bias"]))
            return 0.7 * F.linear(middle, p["up.weight"], p["up.bias"])

        if index == 0:
            tokens = torch.cat([tokens, adapted.parameters()["gist"].expand(len(tokens), -1, -1)], dim=1)
        tokens = tokens + block.ls1(block.attn(block.norm1(tokens))) + added(tokens)
        tokens = tokens + block.ls2(block.mlp(block.norm2(tokens))) + added(tokens)
        if index < len(plain.blocks()) - 1:
            return tokens
        kept.append(plain.module.norm(tokens[:, -1]))  # type: ignore[operator]
        return tokens[:, :-1]

    with torch.no_grad():
        feature = through_blocks(plain, one_block)
        check(adapted, feature)
        head, task = adapted.module.get_submodule("head"), lambda logits: F.cross_entropy(logits, labels)
        gist = plain.module.fc_norm(kept[0])  # type: ignore[operator]
        first, second = head(feature), head(gist)
        p, q = (torch.softmax(each / 2, dim=1) for each in (first, second))
        divergences = (p * (p / q).log()).sum(1).mean() + (q * (q / p).log()).sum(1).mean()
        assert adapted.loss is not None
        expected = task(first) + 0.4 * task(second) + 0.6 * divergences
        torch.testing.assert_close(adapted.loss(Inputs({"fine": image()}), task), expected, rtol=1e-10, atol=1e-10)

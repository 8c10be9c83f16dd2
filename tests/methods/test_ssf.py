"""SSF: what is scaled and shifted, against plain tensor operations, and what is left after folding."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from petlbench.methods.ssf import SSF
from petlbench.models.backbone import Backbone
from petlbench.models.method import Adapted
from petlbench.models.registry import build_backbone, probe_backbone, resolve_backbone
from tests.methods.stirred import adapt_beside, image, logits

CPU, META = torch.device("cpu"), torch.device("meta")


def build(name: str, size: int) -> tuple[Adapted, Backbone, nn.Module]:
    adapted, backbone, plain = adapt_beside(SSF.from_settings({}), name, size)
    return adapted, backbone, plain.module


def test_every_operation_is_scaled_and_shifted_as_the_definition_says() -> None:
    adapted, backbone, _ = build("test_vit", 32)
    got = dict(adapted.module.named_parameters())

    def operation(name: str, output: Tensor) -> Tensor:
        return output * got[f"backbone.{name}.scale"] + got[f"backbone.{name}.shift"]

    def linear(name: str, x: Tensor) -> Tensor:
        weight, bias = got[f"backbone.{name}.inner.weight"], got[f"backbone.{name}.inner.bias"]
        return operation(name, F.linear(x, weight, bias))

    def norm(name: str, x: Tensor) -> Tensor:
        weight, bias = got[f"backbone.{name}.inner.weight"], got[f"backbone.{name}.inner.bias"]
        return operation(name, F.layer_norm(x, (64,), weight, bias, 1e-6))

    model: Any = backbone.module
    patches = F.conv2d(
        image(32),
        got["backbone.patch_embed.proj.inner.weight"],
        got["backbone.patch_embed.proj.inner.bias"],
        stride=16,
    )
    tokens = operation("patch_embed.proj", patches.flatten(2).transpose(1, 2))
    tokens = torch.cat([model.cls_token.expand(2, -1, -1), tokens], dim=1) + model.pos_embed
    for index in range(6):
        here = f"blocks.{index}"
        qkv = linear(f"{here}.attn.qkv", norm(f"{here}.norm1", tokens))
        q, k, v = qkv.reshape(2, 5, 3, 2, 32).permute(2, 0, 3, 1, 4)
        attended = ((q @ k.transpose(-2, -1) / 32**0.5).softmax(dim=-1) @ v).transpose(1, 2).reshape(2, 5, 64)
        tokens = tokens + linear(f"{here}.attn.proj", attended)
        middle = F.gelu(linear(f"{here}.mlp.fc1", norm(f"{here}.norm2", tokens)))
        tokens = tokens + linear(f"{here}.mlp.fc2", middle)
    expected = F.linear(norm("norm", tokens)[:, 0], got["head.weight"], got["head.bias"])
    torch.testing.assert_close(logits(adapted, 32), expected, rtol=1e-10, atol=1e-10)


# Plain; with layer scale and register tokens; with norms that have no bias; with biases beside a fused layer; with
# three layers of their own and a gated MLP; and with windows.
@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("test_vit", 32),
        ("tiny_registers", 28),
        ("test_vit4", 32),
        ("fused_eva", 32),
        ("tiny_eva", 28),
        ("tiny_swin", 32),
    ],
)
def test_folding_leaves_a_plain_model_that_says_the_same(name: str, size: int) -> None:
    adapted, backbone, plain = build(name, size)
    before = logits(adapted, size)
    assert not torch.allclose(
        before, adapted.module.get_submodule("head")(Backbone(backbone.info, plain).pooled(image(size)))
    )
    assert adapted.merge is not None
    adapted.merge()
    plain.load_state_dict(backbone.module.state_dict(), strict=True)
    with torch.no_grad():
        after = adapted.module.get_submodule("head")(Backbone(backbone.info, plain).pooled(image(size)))
    torch.testing.assert_close(after, before, rtol=1e-10, atol=1e-10)


def test_a_layer_without_a_bias_is_scaled_alone() -> None:
    learnable = build("tiny_eva", 28)[0].learnable
    assert "backbone.blocks.0.attn.k_proj.scale" in learnable
    assert "backbone.blocks.0.attn.k_proj.shift" not in learnable
    assert "backbone.blocks.0.attn.q_proj.shift" in learnable


def test_swins_merging_is_scaled_and_shifted_behind_its_norm_alone() -> None:
    learnable = build("tiny_swin", 32)[0].learnable
    assert "backbone.layers.1.downsample.norm.shift" in learnable
    assert not any(".reduction." in name for name in learnable)
    assert {"backbone.patch_embed.norm.scale", "backbone.norm.scale"} <= learnable


def test_scales_start_around_one_and_shifts_around_zero() -> None:
    torch.manual_seed(0)
    backbone = build_backbone(resolve_backbone("test_vit"), 32, "none", CPU)
    learned = SSF.from_settings({}).adapt(backbone, 3).parameters()
    for ending, mean in ((".scale", 1.0), (".shift", 0.0)):
        drawn = torch.cat([tensor.detach().flatten() for name, tensor in learned.items() if name.endswith(ending)])
        assert abs(float(drawn.mean()) - mean) < 0.002
        assert abs(float(drawn.std()) - 0.02) < 0.001


def test_the_count_is_the_papers() -> None:
    backbone = build_backbone(resolve_backbone("vit_base_patch16_224"), 224, "none", META)
    with META:
        learned = SSF.from_settings({}).adapt(backbone, 100).parameters()
    count = sum(tensor.numel() for tensor in learned.values())
    depth, width = 12, 768
    # Behind two norms, the joint queries, keys and values, the output, and the two layers of the MLP; behind the patch
    # embedding and the last norm.
    outputs = depth * (2 * width + 3 * width + width + 4 * width + width) + 2 * width
    assert count == 2 * outputs + 100 * (width + 1) == 282_724
    assert f"{count / 1e6:.2f}" == "0.28"  # CIFAR-100 with its head, table 2 of the paper


def test_an_attention_that_reads_its_weights_is_refused() -> None:
    method = SSF.from_settings({})
    assert method.refuse(probe_backbone(resolve_backbone("test_vit"), 32)) is None
    assert "beit_base" in (method.refuse(probe_backbone(resolve_backbone("beit_base_patch16_224"), 224)) or "")

"""Ladder side-tuning: its side network against plain tensor operations, its size and what it reads."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from petlbench.methods.lst import LST, LadderNetwork, LSTSettings
from petlbench.models.method import Inputs
from petlbench.models.registry import build_backbone, probe_backbone, resolve_backbone

CLASSES, TEMPERATURE = 3, 0.1


def redrawn(module: nn.Module) -> dict[str, Tensor]:
    """Draw every tensor from a normal distribution, in float64."""
    torch.manual_seed(0)
    for tensor in module.double().eval().parameters():
        nn.init.normal_(tensor, std=0.3)
    return dict(module.named_parameters())


def linear(tensors: dict[str, Tensor], name: str, x: Tensor) -> Tensor:
    return functional.linear(x, tensors[f"{name}.weight"], tensors[f"{name}.bias"])


def norm(tensors: dict[str, Tensor], name: str, x: Tensor) -> Tensor:
    return functional.layer_norm(x, x.shape[-1:], tensors[f"{name}.weight"], tensors[f"{name}.bias"], 1e-6)


def block(tensors: dict[str, Tensor], name: str, x: Tensor, heads: int) -> Tensor:
    """A plain transformer block, written out."""
    batch, count, width = x.shape
    qkv = linear(tensors, f"{name}.attn.qkv", norm(tensors, f"{name}.norm1", x))
    q, k, v = (part.reshape(batch, count, heads, -1).transpose(1, 2) for part in qkv.split(width, dim=-1))
    seen = (q @ k.transpose(-2, -1) / (width / heads) ** 0.5).softmax(dim=-1) @ v
    x = x + linear(tensors, f"{name}.attn.proj", seen.transpose(1, 2).reshape(batch, count, width))
    inner = functional.gelu(linear(tensors, f"{name}.mlp.fc1", norm(tensors, f"{name}.norm2", x)))
    return x + linear(tensors, f"{name}.mlp.fc2", inner)


def ladder(tensors: dict[str, Tensor], states: Tensor, heads: int) -> Tensor:
    """The side network's last tokens, (B, N, d), normed."""
    side = linear(tensors, "downs.0", states[:, 0])
    for layer in range(states.shape[1] - 1):
        gate = 1 / (1 + torch.exp(-tensors["gates"][layer] / TEMPERATURE))
        read = linear(tensors, f"downs.{layer + 1}", states[:, layer + 1])
        side = block(tensors, f"blocks.{layer}", gate * side + (1 - gate) * read, heads)
    return norm(tensors, "norm", side)


@pytest.mark.parametrize(("capabilities", "pooled"), [({"class_token"}, "class token"), (set(), "mean")])
def test_the_side_network_is_the_paper_s(capabilities: set[str], pooled: str) -> None:
    info = dataclasses.replace(probe_backbone("tiny_vit", 32), capabilities=frozenset(capabilities))
    module = LadderNetwork(info, LSTSettings(reduction=4), CLASSES)
    tensors = redrawn(module)
    states = torch.randn(2, info.blocks + 1, info.tokens, info.width, dtype=torch.float64)
    tokens = ladder(tensors, states, info.heads)
    feature = tokens[:, 0] if pooled == "class token" else tokens[:, 1:].mean(dim=1)
    expected = linear(tensors, "head", linear(tensors, "up", feature))
    torch.testing.assert_close(module(Inputs({}, {"states": states})), expected, rtol=1e-10, atol=1e-10)


def test_every_gate_starts_half_open() -> None:
    module = LadderNetwork(probe_backbone("tiny_vit", 32), LSTSettings(), CLASSES)
    assert torch.equal(module.gates, torch.zeros(4))
    deviations = [layer.weight.std().item() for name, layer in named_linears(module) if ".mlp." in name]
    assert 0.01 < sum(deviations) / len(deviations) < 0.03


def named_linears(module: nn.Module) -> list[tuple[str, Any]]:
    return [(name, layer) for name, layer in module.named_modules() if isinstance(layer, nn.Linear)]


def test_the_states_are_those_around_the_blocks() -> None:
    torch.manual_seed(0)
    backbone = build_backbone("tiny_registers", 28, "none", torch.device("cpu"))
    backbone.module.eval()
    image, seen = torch.randn(2, 3, 28, 28), []
    for block_ in backbone.blocks():
        block_.register_forward_hook(lambda _module, args, out: seen.append((args[0], out)))
    features = LST.from_settings({}).features(backbone.info)
    assert features is not None
    with torch.no_grad():
        states = features.extract(backbone, image)["states"]
    assert states.shape[1:] == features.spec(backbone.info).tensors["states"].shape == (5, 4 + 5, 64)
    assert torch.equal(states[:, 0], seen[0][0])
    assert all(torch.equal(states[:, layer + 1], out) for layer, (_, out) in enumerate(seen))


def test_the_backbone_stays_outside_and_is_preloaded_on_request_alone() -> None:
    backbone = build_backbone("tiny_vit", 32, "none", torch.device("cpu"))
    module = LST.from_settings({}).adapt(backbone, CLASSES).module
    assert not {id(tensor) for tensor in module.parameters()} & {id(t) for t in backbone.module.parameters()}
    assert not LST.preloads_by_default


def test_it_counts_as_published() -> None:
    width, depth, reduction = 768, 12, 8
    side = width // reduction
    blocks = depth * (12 * side**2 + 13 * side)
    maps = (depth + 1) * (width * side + side) + side * width + width
    expected = blocks + maps + depth + 2 * side
    meta = torch.device("meta")
    backbone = build_backbone(resolve_backbone("vit_base_patch16_224"), 224, "none", meta)
    with meta:
        learned = LST.from_settings({}).adapt(backbone, CLASSES).parameters()
    assert sum(tensor.numel() for name, tensor in learned.items() if not name.startswith("head.")) == expected
    assert round(expected / 1e6, 2) == 2.38


def test_it_refuses_a_width_that_the_heads_cannot_share_and_windows() -> None:
    info = probe_backbone("tiny_vit", 32)
    assert LST.from_settings({"reduction": 16}).refuse(info) is None
    for reduction in (5, 64):
        reason = LST.from_settings({"reduction": reduction}).refuse(info)
        assert reason is not None
        assert "2 heads" in reason
    assert "one width" in str(LST.from_settings({}).refuse(probe_backbone("tiny_swin", 32)))

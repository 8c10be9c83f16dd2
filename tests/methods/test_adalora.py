"""AdaLoRA: the penalty, the allocation of ranks and a training that goes on after a stop."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, cast

import pytest
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor
from torch.nn import functional as F

from petlbench.methods.adalora import AdaLoRA, RankAllocation
from petlbench.models.backbone import Backbone
from petlbench.models.method import Adapted, Inputs
from petlbench.models.registry import probe_backbone, resolve_backbone

CPU, META = torch.device("cpu"), torch.device("meta")
SIZE = 32


def build(settings: Mapping[str, Any], device: torch.device = CPU) -> Adapted:
    """AdaLoRA on two blocks, so that four projections share their ranks."""
    torch.manual_seed(0)
    with device:
        module = VisionTransformer(img_size=SIZE, patch_size=16, embed_dim=64, depth=2, num_heads=2, num_classes=0)
        info = dataclasses.replace(probe_backbone(resolve_backbone("test_vit"), SIZE), blocks=2)
        adapted = AdaLoRA.from_settings(settings).adapt(Backbone(info, module), 3)
    adapted.freeze_the_rest()
    return adapted


def redraw(tensors: Any) -> None:
    generator = torch.Generator().manual_seed(7)
    for tensor in tensors:
        tensor.data = tensor.data + torch.randn(tensor.shape, generator=generator) * 0.1


def allocation(adapted: Adapted) -> RankAllocation:
    return cast("RankAllocation", adapted.companion)


def adalora_steps(adapted: Adapted, optimizer: torch.optim.Optimizer, steps: range, total: int = 10) -> list[int]:
    """Train and return the number of ranks that are left after each step."""
    generator, left = torch.Generator().manual_seed(3), []
    batches = [torch.randn(2, 3, SIZE, SIZE, generator=generator) for _ in range(total)]
    diagonals = [tensor for name, tensor in adapted.parameters().items() if ".lora_E." in name]
    for step in steps:
        optimizer.zero_grad()
        loss = F.cross_entropy(adapted.module(Inputs({"fine": batches[step - 1]})), torch.tensor([0, 2]))
        (loss + allocation(adapted).penalty()).backward()  # type: ignore[no-untyped-call, unused-ignore]
        optimizer.step()
        allocation(adapted).after_step(step, total)
        left.append(sum(int((tensor != 0).sum()) for tensor in diagonals))
    return left


def adalora(settings: Mapping[str, Any]) -> tuple[Adapted, torch.optim.Optimizer]:
    adapted = build(settings)
    return adapted, torch.optim.AdamW(adapted.parameters().values(), lr=1e-2)


def test_adalora_penalises_what_is_not_orthogonal() -> None:
    adapted = build({"orthogonality": 0.25})
    redraw(adapted.parameters().values())
    distances = []
    for name, tensor in adapted.parameters().items():
        if ".lora_A." in name:
            distances.append((tensor @ tensor.T - torch.eye(12)).square().sum().sqrt())
        elif ".lora_B." in name:
            distances.append((tensor.T @ tensor - torch.eye(12)).square().sum().sqrt())
    assert len(distances) == 8
    torch.testing.assert_close(allocation(adapted).penalty(), 0.25 * sum(distances) / 8)
    with META:
        dry = build({}, META)
    assert dry.companion is not None
    assert dry.companion.penalty().shape == ()
    assert dry.companion.penalty().device == META


def test_adalora_cuts_ranks_along_a_cubic_schedule_to_their_target() -> None:
    adapted, optimizer = adalora({"warmup_share": 0.2, "final_share": 0.3})
    left = adalora_steps(adapted, optimizer, range(1, 11))
    most, target = 4 * 12, 4 * 8
    budgets = [int((most - target) * (1 - (step - 2) / 5) ** 3 + target) for step in range(3, 8)]
    assert left == [most, most, *budgets, target, target, target]


def test_adalora_cuts_the_least_important_ranks() -> None:
    adapted, optimizer = adalora({"warmup_share": 0.0, "final_share": 0.0})
    adalora_steps(adapted, optimizer, range(1, 2))
    state = allocation(adapted).state_dict()
    gradients = {name: tensor.grad for name, tensor in adapted.parameters().items()}
    assert all(tensor is not None for tensor in gradients.values())
    name = "blocks.0.attn.qkv.q.lora_A.default"
    # One step: the average is 0.15 of the sensitivity, the uncertainty 0.15 of what that leaves.
    importance = state[f"importance/{name}"]
    torch.testing.assert_close(state[f"uncertainty/{name}"], 0.15 * (importance / 0.15 - importance).abs())
    scores = {}
    for key in [key for key in state if ".lora_E." in key and key.startswith("importance/")]:
        diagonal = key.partition("/")[2]
        parts = []
        for factor, axis in (("lora_E", 1), ("lora_A", 1), ("lora_B", 0)):
            other = diagonal.replace("lora_E", factor)
            parts.append((state[f"importance/{other}"] * state[f"uncertainty/{other}"]).mean(axis))
        scores[diagonal] = sum(parts)
    kept = torch.cat([state[f"left/{diagonal}"] for diagonal in scores])
    order = torch.cat([cast("Tensor", score) for score in scores.values()])
    assert order[kept].min() > order[~kept].max()


def test_adalora_goes_on_after_a_stop_to_the_same_bits() -> None:
    settings = {"warmup_share": 0.1, "final_share": 0.3, "interval": 2}
    whole, optimizer = adalora(settings)
    expected = adalora_steps(whole, optimizer, range(1, 11))
    for stop in (4, 8):
        first, optimizer = adalora(settings)
        adalora_steps(first, optimizer, range(1, stop + 1))
        second, fresh = adalora(settings)
        with torch.no_grad():
            for name, tensor in second.parameters().items():
                tensor.copy_(first.parameters()[name])
        fresh.load_state_dict(optimizer.state_dict())
        allocation(second).load_state_dict(allocation(first).state_dict())
        assert adalora_steps(second, fresh, range(stop + 1, 11)) == expected[stop:]
        for name, tensor in second.parameters().items():
            assert torch.equal(tensor, whole.parameters()[name]), name


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_adalora_trains_with_hardly_any_steps(steps: int) -> None:
    adapted, optimizer = adalora({})
    assert len(adalora_steps(adapted, optimizer, range(1, steps + 1), steps)) == steps

"""FacT: the updates of both forms, matrix by matrix, against plain tensor operations, and what folding leaves."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from petlbench.methods.fact import FacTTK, FacTTT
from petlbench.models.backbone import Backbone
from petlbench.models.method import Adapted, Inputs, Method
from petlbench.models.registry import build_backbone, probe_backbone, resolve_backbone
from tests.methods.stirred import adapt_beside, image, logits

CPU, META = torch.device("cpu"), torch.device("meta")
BOTH = pytest.mark.parametrize("method", [FacTTT, FacTTK])
WIDTH, RANK, SCALE = 64, 4, 0.7


def build(method: type[Method[Any]], name: str, size: int) -> tuple[Adapted, Backbone, Backbone]:
    return adapt_beside(method.from_settings({"rank": RANK, "scale": SCALE}), name, size)


def middles(adapted: Adapted, ratio: int) -> list[list[Tensor]]:
    """For every block the r x r matrices of q, k, v, output, first layer (from above) and second layer (from left)."""
    got = dict(adapted.module.named_parameters())
    in_block = 4 + 2 * ratio
    if "factors.core" in got:
        core, mixture = got["factors.core"], got["factors.p"]
        every = [
            torch.stack([core[t] * mixture[t, j] for t in range(RANK)]).sum(dim=0) for j in range(mixture.shape[1])
        ]
    else:
        every = []
        for index in range(len([name for name in got if name.startswith("factors.sigmas.")])):
            sigma = got[f"factors.sigmas.{index}"]
            every += [part for row in sigma.split(RANK, dim=0) for part in row.split(RANK, dim=1)]
    return [every[start : start + in_block] for start in range(0, len(every), in_block)]


def updated(adapted: Adapted, plain: Backbone, ratio: int) -> nn.Module:
    """The plain model, with s · V Σ U added to every D x D matrix by hand."""
    got = dict(adapted.module.named_parameters())
    u, v = got["factors.u"], got["factors.v"]
    with torch.no_grad():
        for block, sigmas in zip(plain.blocks(), middles(adapted, ratio), strict=True):
            changes = [SCALE * v @ sigma @ u for sigma in sigmas]
            block.attn.qkv.weight.add_(torch.cat(changes[:3]))
            block.attn.proj.weight.add_(changes[3])
            block.mlp.fc1.weight.add_(torch.cat(changes[4 : 4 + ratio], dim=0))
            block.mlp.fc2.weight.add_(torch.cat(changes[4 + ratio :], dim=1))
    return plain.module


@BOTH
def test_every_matrix_is_updated_by_its_own_middle_between_shared_factors(method: type[Method[Any]]) -> None:
    adapted, backbone, plain = build(method, "test_vit", 32)
    before = logits(adapted, 32)
    model = updated(adapted, plain, ratio=3)
    head = adapted.module.get_submodule("head")
    with torch.no_grad():
        torch.testing.assert_close(head(plain.pooled(image(32))), before, rtol=1e-10, atol=1e-10)
    assert adapted.merge is not None
    adapted.merge()
    merged = backbone.module.state_dict()
    assert list(merged) == list(model.state_dict())
    torch.testing.assert_close(merged, model.state_dict(), rtol=1e-10, atol=1e-10)


@BOTH
@pytest.mark.parametrize(("name", "size"), [("tiny_registers", 28), ("fused_eva", 32)])
def test_folding_leaves_a_plain_model_that_says_the_same(method: type[Method[Any]], name: str, size: int) -> None:
    adapted, backbone, plain = build(method, name, size)
    before = logits(adapted, size)
    assert adapted.merge is not None
    adapted.merge()
    plain.module.load_state_dict(backbone.module.state_dict(), strict=True)
    with torch.no_grad():
        after = adapted.module.get_submodule("head")(plain.pooled(image(size)))
    torch.testing.assert_close(after, before, rtol=1e-10, atol=1e-10)


@BOTH
def test_the_last_factor_starts_at_zero_and_the_others_as_torch_draws_them(method: type[Method[Any]]) -> None:
    torch.manual_seed(0)
    backbone = build_backbone(resolve_backbone("test_vit"), 32, "none", CPU)
    learned = method.from_settings({"rank": 8}).adapt(backbone, 3).parameters()
    # Whether it is drawn, and the largest value that can be.
    bounds = {"factors.v": 0.0, "factors.u": WIDTH**-0.5}
    if method is FacTTK:
        bounds |= {"factors.core": (6 / (8 * 8 + 8 * 8)) ** 0.5, "factors.p": (6 / (8 + 6 * 10)) ** 0.5}
    else:
        # Attention, first and second layer of the first block's MLP: 8, 8 and 3 x 8 numbers are read.
        bounds |= {"factors.sigmas.0": 8**-0.5, "factors.sigmas.4": 8**-0.5, "factors.sigmas.5": 24**-0.5}
    for name, bound in bounds.items():
        assert 0.9 * bound <= float(learned[name].detach().abs().max()) <= bound


@BOTH
def test_a_tenth_of_the_mixed_channels_is_dropped_in_training(method: type[Method[Any]]) -> None:
    adapted = build(method, "test_vit", 32)[0]
    factors: Any = adapted.module.get_submodule("factors")
    assert factors.dropout.p == 0.1
    seen: list[tuple[int, ...]] = []
    factors.dropout.register_forward_pre_hook(lambda _m, args: seen.append(tuple(args[0].shape)))
    logits(adapted, 32)
    # q, k, v, output, first and second layer of an MLP of ratio 3.
    assert seen[:6] == [(2, 5, 4)] * 4 + [(2, 5, 12), (2, 5, 4)]
    assert len(seen) == 36


@BOTH
def test_the_factors_are_one_thing_to_all_layers(method: type[Method[Any]]) -> None:
    module = build(method, "test_vit", 32)[0].module
    names = [name for name in module.state_dict() if name.endswith(("factors.u", "factors.v"))]
    assert names == ["factors.u", "factors.v"]
    other = copy.deepcopy(module)
    other.get_parameter("factors.v").data.zero_()
    assert not torch.allclose(other(Inputs({"fine": image(32)})), module(Inputs({"fine": image(32)})))


@pytest.mark.parametrize(
    ("method", "rank", "count"),
    [
        (FacTTT, 4, 8_448),  # the paper's smallest, 8 K
        (FacTTT, 8, 2 * 768 * 8 + 12 * 12 * 8**2),
        (FacTTT, 16, 2 * 768 * 16 + 12 * 12 * 16**2),
        (FacTTK, 16, 2 * 768 * 16 + 144 * 16 + 16**3),
        (FacTTK, 32, 2 * 768 * 32 + 144 * 32 + 32**3),
    ],
)
def test_the_count_is_the_papers(method: type[Method[Any]], rank: int, count: int) -> None:
    backbone = build_backbone(resolve_backbone("vit_base_patch16_224"), 224, "none", META)
    with META:
        learned = method.from_settings({"rank": rank}).adapt(backbone, 100).parameters()
    assert sum(tensor.numel() for name, tensor in learned.items() if not name.startswith("head.")) == count


@BOTH
def test_mlps_that_are_not_made_of_square_matrices_are_refused(method: type[Method[Any]]) -> None:
    made = method.from_settings({})
    assert made.refuse(probe_backbone(resolve_backbone("test_vit"), 32)) is None
    assert "MLPs of two linear layers" in (made.refuse(probe_backbone("tiny_eva", 28)) or "")
    assert "tokens of one width" in (made.refuse(probe_backbone("tiny_swin", 32)) or "")

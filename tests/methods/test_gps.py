"""GPS: its loss, the weights that it chooses, what it computes with them, and the published size."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from petlbench.methods.gps import GPS, SparseUpdate, contrastive_loss
from petlbench.models.backbone import Backbone
from petlbench.models.method import Adapted, Inputs
from petlbench.models.registry import build_backbone, probe_backbone, resolve_backbone

CLASSES, TEMPERATURE = 3, 0.07
UPDATE = "parametrizations.weight.0"


def adapted_and_backbone(connections: int = 2, name: str = "tiny_vit", size: int = 32) -> tuple[Adapted, Backbone]:
    torch.manual_seed(0)
    backbone = build_backbone(name, size, "none", torch.device("cpu"))
    for tensor in backbone.module.double().parameters():
        nn.init.normal_(tensor, std=0.2)
    torch.manual_seed(1)
    adapted = GPS.from_settings({"connections": connections}).adapt(backbone, CLASSES)
    adapted.module.double().eval()
    adapted.freeze_the_rest()
    return adapted, backbone


def batches() -> list[tuple[Inputs, Tensor]]:
    torch.manual_seed(2)
    labels = [[0, 1, 0, 2], [2, 2, 1, 1, 0]]
    return [
        (Inputs({"fine": torch.randn(len(each), 3, 32, 32, dtype=torch.float64)}), torch.tensor(each))
        for each in labels
    ]


def loss_by_hand(features: Tensor, labels: Tensor) -> Tensor:
    """Khosla et al., equation 2, anchor by anchor."""
    z = features / features.norm(dim=1, keepdim=True)
    anchors = []
    for i in range(len(z)):
        others = [a for a in range(len(z)) if a != i]
        positives = [p for p in others if labels[p] == labels[i]]
        total = sum(torch.exp(z[i] @ z[a] / TEMPERATURE) for a in others)
        if positives:
            terms = [torch.log(torch.exp(z[i] @ z[p] / TEMPERATURE) / total) for p in positives]
            anchors.append(-torch.stack(terms).mean())
    return torch.stack(anchors).mean()


def test_the_loss_is_supervised_contrastive() -> None:
    torch.manual_seed(0)
    features = torch.randn(6, 5, dtype=torch.float64)
    labels = torch.tensor([0, 1, 0, 2, 1, 0])
    found = contrastive_loss(features, labels, TEMPERATURE)
    torch.testing.assert_close(found, loss_by_hand(features, labels), rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(contrastive_loss(3 * features, labels, TEMPERATURE), found)


def test_the_loss_of_images_that_share_no_class_is_zero_and_so_is_its_gradient() -> None:
    features = torch.randn(3, 5, requires_grad=True)
    loss = contrastive_loss(features, torch.tensor([0, 1, 2]), TEMPERATURE)
    loss.backward()
    assert loss.item() == 0
    assert features.grad is not None
    assert not features.grad.any()


def test_the_weights_with_the_largest_summed_gradients_are_chosen() -> None:
    adapted, _ = adapted_and_backbone(connections=3)
    untouched, plain = adapted_and_backbone(connections=3)
    assert untouched.merge is not None
    untouched.merge()
    plain.module.requires_grad_(True)
    sum((loss_by_hand(plain.pooled(i.views["fine"]), labels) for i, labels in batches()), torch.zeros(())).backward()
    assert adapted.prepare is not None
    adapted.prepare(iter(batches()))
    layers = {name.removesuffix(f".{UPDATE}.index") for name in adapted.chosen}
    assert {"backbone.patch_embed.proj", "backbone.blocks.0.attn.qkv", "backbone.blocks.3.mlp.fc2"} <= layers
    assert len(layers) == 4 * 4 + 1
    for name in layers:
        gradient = plain.module.get_parameter(f"{name.removeprefix('backbone.')}.weight").grad
        assert gradient is not None
        rows = gradient.flatten(1).abs().tolist()
        expected = [set(sorted(range(len(row)), key=row.__getitem__)[-3:]) for row in rows]
        index = adapted.module.get_buffer(f"{name}.{UPDATE}.index")
        assert [set(row) for row in index.tolist()] == expected


def test_choosing_leaves_no_trace_but_the_places() -> None:
    adapted, _ = adapted_and_backbone()
    before = {name: tensor.clone() for name, tensor in adapted.module.state_dict().items()}
    assert adapted.prepare is not None
    adapted.prepare(batches())
    after = adapted.module.state_dict()
    assert {name for name in before if not torch.equal(before[name], after[name])} <= adapted.chosen
    assert {name for name, t in adapted.module.named_parameters() if t.requires_grad} == adapted.learnable
    assert all(tensor.grad is None for tensor in adapted.module.parameters())


def test_what_is_added_is_added_to_the_chosen_weights_alone() -> None:
    torch.manual_seed(0)
    weight = torch.randn(4, 3, 2, 2, dtype=torch.float64)
    update = SparseUpdate(weight, 2)
    assert update.index.tolist() == [[0, 1]] * 4
    update.choose(torch.arange(48.0).reshape(4, 3, 2, 2).sub(20))
    nn.init.normal_(update.delta)
    expected = weight.flatten(1).tolist()
    for row, (places, deltas) in enumerate(zip(update.index.tolist(), update.delta.tolist(), strict=True)):
        for place, delta in zip(places, deltas, strict=True):
            expected[row][place] += delta
    assert sorted(update.index[0].tolist()) == [0, 1]  # the first row's gradients are -20, -19, ...
    assert sorted(update.index[3].tolist()) == [10, 11]
    torch.testing.assert_close(update(weight), torch.tensor(expected, dtype=torch.float64).view_as(weight))


@pytest.mark.parametrize(("name", "size"), [("tiny_vit", 32), ("tiny_eva", 28), ("tiny_swin", 32)])
def test_merged_weights_compute_the_same(name: str, size: int) -> None:
    adapted, backbone = adapted_and_backbone(2, name, size)
    for learned in adapted.parameters().values():
        nn.init.normal_(learned, std=0.2)
    image = torch.randn(2, 3, size, size, dtype=torch.float64)
    before = adapted.module(Inputs({"fine": image}))
    assert adapted.merge is not None
    adapted.merge()
    fresh = build_backbone(name, size, "none", torch.device("cpu")).module
    fresh.double().load_state_dict(backbone.module.state_dict())
    head: Any = adapted.module.get_submodule("head")
    feature = Backbone(backbone.info, fresh.eval()).pooled(image)
    torch.testing.assert_close(head(feature), before, rtol=1e-10, atol=1e-10)


def test_biases_outside_norms_scales_and_position_tables_are_learned_too() -> None:
    for name, size, some in [
        ("tiny_vit", 32, {"backbone.patch_embed.proj.bias", "backbone.blocks.0.attn.qkv.bias"}),
        ("tiny_registers", 28, {"backbone.blocks.0.ls1.gamma"}),
        ("tiny_swin", 32, {"backbone.layers.0.blocks.0.attn.relative_position_bias_table"}),
    ]:
        learnable = adapted_and_backbone(2, name, size)[0].learnable
        assert some <= learnable
        assert not any("norm" in learned or "token" in learned or "pos_embed" in learned for learned in learnable)


@pytest.mark.parametrize("connections", [1, 2])
def test_it_counts_as_published(connections: int) -> None:
    width, depth, meta = 768, 12, torch.device("meta")
    backbone = build_backbone(resolve_backbone("vit_base_patch16_224"), 224, "none", meta)
    with meta:
        learned = GPS.from_settings({"connections": connections}).adapt(backbone, CLASSES).parameters()
    count = sum(tensor.numel() for name, tensor in learned.items() if not name.startswith("head."))
    neurons = depth * (3 * width + width + 4 * width + width) + width
    assert count == connections * neurons + neurons
    # Of VTAB, one connection a neuron, the paper prints 0.25 % with the heads of 50 classes on average.
    share = 100 * (2 * neurons + 50 * (width + 1)) / 85_798_656
    assert math.isclose(share, 0.25, abs_tol=0.015)


def test_it_refuses_more_connections_than_a_neuron_has() -> None:
    info = probe_backbone("tiny_vit", 32)
    assert GPS.from_settings({"connections": 64}).refuse(info) is None
    assert "has 64" in str(GPS.from_settings({"connections": 65}).refuse(info))

"""What every method promises, tried on every method of the catalogue with a tiny backbone."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from petlbench.artifacts import load_learned, write_learned
from petlbench.assemble import Assembled, assemble, count_parameters, new_step
from petlbench.backbone import probe_backbone
from petlbench.catalog import Catalog
from petlbench.config import RunConfig, TrainingConfig
from petlbench.features.source import LiveFeatures
from petlbench.method import Inputs, load_method

CATALOG = Catalog()
METHODS = tuple(CATALOG.entries("method"))
BACKBONE, CLASSES, BATCH = "vit_tiny_patch16_224.augreg_in21k_ft_in1k", 3, 4


def config(method: str, image_size: int = 64, seed: int = 0) -> RunConfig:
    return RunConfig(
        method=method,
        dataset="digits",
        split="random",
        backbone=BACKBONE,
        weights="none",
        image_size=image_size,
        training=TrainingConfig(lr=1e-3, weight_decay=0.1),
        preload=False,
        seed=seed,
        device="cpu",
        threads=1,
    )


def build(method: str, image_size: int = 64, seed: int = 0) -> Assembled:
    return assemble(config(method, image_size, seed), CATALOG, CLASSES, torch.device("cpu"))


def batch(assembled: Assembled, image_size: int = 64) -> tuple[Inputs, Tensor]:
    """A seeded batch as the engine would hand it over: views for the module, features from the frozen backbone."""
    generator = torch.Generator().manual_seed(1)
    views = {
        name: torch.randn(BATCH, 3, view.size, view.size, generator=generator)
        for name, view in assembled.method.views(assembled.backbone.info, image_size).items()
    }
    labels = torch.arange(BATCH) % CLASSES
    if assembled.frozen is None:
        return Inputs(views), labels
    live = LiveFeatures(assembled.backbone, assembled.frozen, "fp32")
    with torch.no_grad():
        features = assembled.frozen.extract(assembled.backbone, views.pop(live.spec.view))
    return Inputs(views, features), labels


def state(assembled: Assembled) -> dict[str, Tensor]:
    """Every tensor of the module and of the backbone, buffers included."""
    found = {f"backbone.{name}": tensor for name, tensor in assembled.backbone.module.state_dict().items()}
    # What is shared with the module keeps the module's name.
    shared = {tensor.data_ptr() for tensor in assembled.adapted.module.state_dict().values()}
    found = {name: tensor for name, tensor in found.items() if tensor.data_ptr() not in shared}
    found |= dict(assembled.adapted.module.state_dict())
    return {name: tensor.detach().clone() for name, tensor in found.items()}


def train(assembled: Assembled, steps: int = 3, image_size: int = 64) -> list[float]:
    inputs, labels = batch(assembled, image_size)
    step = new_step(config(assembled.method.card.name), assembled.adapted, None)
    assembled.adapted.module.train()
    torch.manual_seed(5)
    return [float(step(inputs, labels)) for _ in range(steps)]


def logits(assembled: Assembled) -> Tensor:
    with torch.no_grad():
        output: Tensor = assembled.adapted.module.eval()(batch(assembled)[0])
    return output


@pytest.mark.parametrize("method", METHODS)
def test_exactly_what_is_declared_changes(method: str) -> None:
    assembled = build(method)
    before = state(assembled)
    train(assembled)
    after = state(assembled)
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == set(assembled.adapted.learnable)


@pytest.mark.parametrize("method", METHODS)
def test_exactly_what_is_declared_has_finite_gradients(method: str) -> None:
    assembled = build(method)
    train(assembled)
    for name, tensor in assembled.adapted.module.named_parameters():
        assert tensor.requires_grad == (name in assembled.adapted.learnable), name
        if tensor.requires_grad:
            assert tensor.grad is not None, name
            assert torch.isfinite(tensor.grad).all(), name


@pytest.mark.parametrize("method", METHODS)
def test_the_counts_are_those_of_the_tensors_and_the_same_on_meta(method: str) -> None:
    real = build(method)
    counts = count_parameters(real)
    assert counts.learnable == sum(tensor.numel() for tensor in real.adapted.parameters().values())
    assert 0 < counts.ratio_published <= counts.ratio <= 1
    assert counts == count_parameters(assemble(config(method), CATALOG, CLASSES, torch.device("meta")))


@pytest.mark.parametrize("method", METHODS)
def test_training_is_decided_by_the_seed(method: str) -> None:
    runs = []
    for seed in (0, 0, 1):
        assembled = build(method, seed=seed)
        runs.append((train(assembled), logits(assembled)))
    assert runs[0][0] == runs[1][0]
    assert torch.equal(runs[0][1], runs[1][1])
    assert not torch.equal(runs[0][1], runs[2][1])


@pytest.mark.parametrize("method", METHODS)
def test_what_was_learned_can_be_stored_and_put_back(method: str, tmp_path: Path) -> None:
    trained, fresh = build(method), build(method)
    train(trained)
    assert not torch.equal(logits(trained), logits(fresh))
    write_learned(tmp_path / "learned.safetensors", trained.adapted.parameters(), "run")
    load_learned(tmp_path / "learned.safetensors", fresh.adapted)
    assert torch.equal(logits(trained), logits(fresh))


@pytest.mark.parametrize("method", METHODS)
def test_it_works_at_another_image_size(method: str) -> None:
    assembled = build(method, image_size=96)
    losses = train(assembled, image_size=96)
    assert all(torch.isfinite(torch.tensor(losses)))


@pytest.mark.parametrize("method", METHODS)
def test_features_are_as_declared(method: str) -> None:
    assembled = build(method)
    if assembled.frozen is None:
        pytest.skip(f"{method} takes no frozen features")
    spec = assembled.frozen.spec(assembled.backbone.info)
    features = batch(assembled)[0].features
    assert {name: (tuple(tensor.shape[1:]), tensor.dtype) for name, tensor in features.items()} == {
        name: (tensor.shape, tensor.dtype) for name, tensor in spec.tensors.items()
    }


@pytest.mark.parametrize("method", METHODS)
def test_the_loss_falls(method: str) -> None:
    losses = train(build(method), steps=30)
    assert losses[-1] < losses[0]


def test_no_two_methods_are_the_same() -> None:
    built = {method: build(method) for method in METHODS}
    prints: dict[str, Any] = {}
    for method, assembled in built.items():
        names = tuple((name, tuple(tensor.shape)) for name, tensor in sorted(assembled.adapted.parameters().items()))
        train(assembled)
        prints[method] = (names, logits(assembled))
    for one, other in combinations(METHODS, 2):
        same_names = prints[one][0] == prints[other][0]
        assert not (same_names and torch.equal(prints[one][1], prints[other][1])), (one, other)


@pytest.mark.parametrize("method", METHODS)
def test_every_setting_is_described(method: str) -> None:
    settings = load_method(CATALOG.find("method", method)).Settings
    assert all(field.description for field in settings.model_fields.values())


def test_lora_leaves_the_keys_alone_and_starts_at_the_frozen_backbone() -> None:
    lora, linear = build("lora"), build("full")
    names = {name for name in lora.adapted.learnable if ".lora_" in name}
    assert {name.split(".qkv.")[1][0] for name in names} == {"q", "v"}
    assert len({name for name in names if ".lora_A." in name}) == 2 * lora.backbone.info.blocks
    # Both heads are drawn from the same seed right after the backbone, so equal logits mean equal features.
    lora.adapted.module.get_parameter("head.weight").data.copy_(linear.adapted.module.get_parameter("head.weight"))
    torch.testing.assert_close(logits(lora), logits(linear), rtol=0, atol=1e-5)


def test_fpt_refuses_a_side_network_that_its_heads_cannot_share() -> None:
    method = load_method(CATALOG.find("method", "fpt")).from_settings({"reduction": 48})
    reason = method.refuse(probe_backbone(BACKBONE, 64))
    assert reason is not None
    assert "3 heads" in reason
    assert load_method(CATALOG.find("method", "fpt")).from_settings({}).refuse(probe_backbone(BACKBONE, 64)) is None


@pytest.mark.parametrize("settings", [{"placement": placement} for placement in ("houlsby", "pfeiffer", "parallel")])
def test_adapters_start_at_the_frozen_backbone(settings: dict[str, str]) -> None:
    full = build("full")
    assembled = build("full")
    method = load_method(CATALOG.find("method", "adapter")).from_settings(settings)
    torch.manual_seed(0)
    module = method.adapt(assembled.backbone, CLASSES).module.eval()
    module.get_parameter("head.weight").data.copy_(full.adapted.module.get_parameter("head.weight"))
    with torch.no_grad():
        torch.testing.assert_close(module(batch(full)[0]), logits(full), rtol=0, atol=1e-6)


def test_a_backbone_run_block_by_block_gives_its_own_final_feature() -> None:
    backbone = build("full").backbone
    image = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        stepwise = backbone.pooled_through(image, lambda _layer, tokens: tokens, lambda tokens: tokens)
        torch.testing.assert_close(stepwise, backbone.pooled(image))


@pytest.mark.parametrize("depth", ["shallow", "deep"])
def test_prompts_are_replaced_and_never_added_up(depth: str) -> None:
    method = load_method(CATALOG.find("method", "vpt")).from_settings({"depth": depth, "num_tokens": 5})
    assembled = build("full")
    seen: list[int] = []
    for block in assembled.backbone.blocks():
        block.register_forward_pre_hook(lambda _module, args: seen.append(args[0].shape[1]))
    module: Any = method.adapt(assembled.backbone, CLASSES).module.eval()
    module(batch(assembled)[0])
    assert set(seen) == {assembled.backbone.info.tokens + 5}


@pytest.mark.parametrize(("which", "endings"), [("blocks", {"bias"}), ("query_mlp", {"q.bias", "fc1.bias"})])
def test_bitfit_learns_the_chosen_biases(which: str, endings: set[str]) -> None:
    method = load_method(CATALOG.find("method", "bitfit")).from_settings({"which": which})
    learned = method.adapt(build("full").backbone, CLASSES).learnable - {"head.weight", "head.bias"}
    assert learned
    assert all(".blocks." in name and name.endswith(tuple(endings)) for name in learned)

"""What every method promises, tried on every method of the catalogue with a tiny backbone of every structure."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations
from typing import Any, ClassVar

import pytest
import torch
from sklearn.datasets import load_digits

from petlbench.core.catalog import Catalog
from petlbench.models.activation_checkpointing import checkpoint_blocks
from petlbench.models.compatibility import check_compatibility
from petlbench.models.method import Method, load_method
from petlbench.models.registry import probe_backbone
from petlbench.testing import MethodContract
from petlbench.testing.method import check_merge, check_start
from petlbench.testing.subject import CLASSES, Model, Subject, trained

CATALOG = Catalog()
METHODS = tuple(CATALOG.entries("method"))
# What the papers' table compares; the rest learn in the slow tests.
COMPARED = ("full", "linear", "vpt", "attention", "adapter", "bitfit", "lora", "fpt", "fpt_plus")
OTHERS = [name for name in METHODS if name not in COMPARED]
# The other structures, each with an image size that suits its patch; see conftest.py.
# So large that FPT keeps two tokens at least: where there is but one to attend to, no query learns anything.
STRUCTURES = {"tiny_distilled": 32, "tiny_registers": 42, "tiny_eva": 28, "tiny_swin": 32}
# What medical backbones are made of besides, and convolutions, which few methods take.
SWIGLU_AND_OTHERS = {"tiny_swiglu": 42, "tiny_siglip": 32, "tiny_subnorm": 32, "tiny_beit": 32}
CONVOLUTIONS = {"tiny_resnet": 32, "tiny_convnext": 32, "tiny_efficientnet": 32}
SIZES = {**STRUCTURES, **SWIGLU_AND_OTHERS, **CONVOLUTIONS}
DEAR = [pytest.param(name, marks=pytest.mark.slow) for name in (*SWIGLU_AND_OTHERS, *CONVOLUTIONS)]
BACKBONE, SIZE = "tiny_vit", 32


def subject(method: str, backbone: str = BACKBONE) -> Subject:
    return Subject(method_class(method), backbone, {BACKBONE: SIZE, **SIZES}[backbone])


def build(method: str, backbone: str = BACKBONE) -> Model:
    return subject(method, backbone).build()


def method_class(method: str) -> type[Method[Any]]:
    return load_method(CATALOG.find("method", method))


class TestContract(MethodContract):
    """The contract that a user's method is put through, on one backbone."""

    backbones: ClassVar = {BACKBONE: SIZE}

    @classmethod
    def methods(cls) -> list[type[Method[Any]]]:
        return [method_class(name) for name in METHODS]

    @pytest.mark.slow
    def test_its_memory_can_be_forecast(self, subject: Subject) -> None:
        super().test_its_memory_can_be_forecast(subject)

    def test_another_seed_learns_something_else(self, subject: Subject) -> None:
        other = subject.build(seed=1)
        other.train()
        assert not torch.equal(trained(subject).model.logits(), other.logits())


def test_what_was_chosen_stays_in_training() -> None:
    model = build("gps")
    before = model.state()
    model.train()
    assert model.adapted.chosen
    assert model.changes(before) == model.adapted.learnable


@pytest.mark.parametrize("method", METHODS)
def test_the_plain_structure_is_never_refused(method: str) -> None:
    assert subject(method).refusal() is None
    assert replace(subject(method), image_size=2 * SIZE).refusal() is None


@pytest.mark.slow
@pytest.mark.parametrize("backbone", STRUCTURES)
@pytest.mark.parametrize("method", ["full", "lora", "sct", "dtl", "lst"])
def test_checkpointing_changes_no_gradient_on_any_structure(method: str, backbone: str) -> None:
    if subject(method, backbone).refusal():
        return
    model = build(method, backbone)
    plain = model.gradients()
    checkpoint_blocks(model.module)
    again = model.gradients()
    assert [name for name in plain if not torch.equal(plain[name], again[name])] == []


@pytest.mark.parametrize("method", [*COMPARED, *(pytest.param(name, marks=pytest.mark.slow) for name in OTHERS)])
def test_sixty_steps_on_digits_bring_the_loss_down(method: str) -> None:
    digits = load_digits()
    kept = digits.target < CLASSES
    images = torch.tensor(digits.images[kept] / 8 - 1, dtype=torch.float32)[:, None].expand(-1, 3, -1, -1)
    images, labels = torch.nn.functional.interpolate(images, size=(SIZE, SIZE)), torch.tensor(digits.target[kept])
    model = build(method)
    step, losses = model.step(lr=5e-3), []
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    for number in range(60):
        rows = order[torch.arange(16) + 16 * number if 16 * (number + 1) <= len(order) else torch.arange(16)]
        batch = model.batch(images[rows], labels[rows])
        model.module.train()
        losses.append(float(model.take(step, batch, number + 1, 60)))
    assert sum(losses[-10:]) < 0.95 * sum(losses[:10])


def test_every_methods_head_is_counted_apart() -> None:
    counts = {each.entry.name: each.parameters for each in check_compatibility(Catalog(), "petlbench_micro", None, 7)}
    heads = {name: count.head for name, count in counts.items() if count is not None}
    width, blocks = 192, 6
    assert heads["linear"] == 7 * (width + 1)
    assert counts["linear"] is not None
    assert counts["linear"].learnable == heads["linear"]
    # FPT's is that of its side network, which is an eighth as wide.
    assert {name for name, head in heads.items() if head != heads["linear"]} == {"fpt", "fpt_plus", "vqt"}
    assert heads["fpt"] == 7 * (width // 8 + 1)
    # VQT's reads what one query of every block was answered, too.
    assert heads["vqt"] == 7 * (width * (1 + blocks) + 1)


def test_no_two_methods_are_the_same() -> None:
    prints: dict[str, Any] = {}
    for method in METHODS:
        model = build(method)
        names = {name: tuple(tensor.shape) for name, tensor in model.adapted.parameters().items()}
        start = model.logits()
        model.train()
        prints[method] = (names, start, model.logits())
    for one, other in combinations(METHODS, 2):
        same = [prints[one][0] == prints[other][0]]
        same += [
            torch.allclose(a, b, rtol=0, atol=1e-6) for a, b in zip(prints[one][1:], prints[other][1:], strict=True)
        ]
        assert not all(same), (one, other)


@pytest.mark.parametrize("backbone", [*STRUCTURES, *DEAR])
@pytest.mark.parametrize("method", METHODS)
def test_every_structure_is_refused_or_adapted(method: str, backbone: str) -> None:
    if reason := subject(method, backbone).refusal():
        assert backbone in reason or any(character.isdigit() for character in reason)
        return
    model = build(method, backbone)
    check_start(model)
    before = model.state()
    model.train()
    assert model.changes(before) == model.adapted.learnable
    check_merge(model)


@pytest.mark.parametrize("backbone", CONVOLUTIONS)
def test_convolutions_are_for_the_methods_that_have_sense_there(backbone: str) -> None:
    suited = {name for name in METHODS if subject(name, backbone).refusal() is None}
    anywhere = {"full", "linear", "mlp_head", "partial", "bitfit", "norm", "side_tuning"}
    assert anywhere <= suited <= anywhere | {"ssf", "hydra"}  # Hydra takes the MLPs, which ConvNeXt has
    assert ("ssf" in suited) == (backbone != "tiny_efficientnet")  # its norms hold their activations
    linear = load_method(CATALOG.find("method", "lora")).from_settings({"targets": "fc1,fc2"})
    assert (linear.refuse(probe_backbone(backbone, SIZE)) is None) == (backbone == "tiny_convnext")


def test_batch_norms_keep_their_statistics_in_training() -> None:
    model = build("full", "tiny_resnet")
    before = {name: tensor.clone() for name, tensor in model.module.named_buffers()}
    model.train()
    assert before
    assert all(torch.equal(before[name], tensor) for name, tensor in model.module.named_buffers())


def test_fpt_refuses_a_side_network_that_its_heads_cannot_share() -> None:
    method = load_method(CATALOG.find("method", "fpt")).from_settings({"reduction": 64})
    reason = method.refuse(probe_backbone(BACKBONE, SIZE))
    assert reason is not None
    assert "2 heads" in reason
    assert load_method(CATALOG.find("method", "fpt")).from_settings({}).refuse(probe_backbone(BACKBONE, SIZE)) is None


def test_a_backbone_run_block_by_block_gives_its_own_final_feature() -> None:
    backbone = build("full").assembled.backbone
    image = torch.randn(2, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        stepwise = backbone.pooled_through(image, lambda _layer, tokens: tokens, lambda tokens: tokens)
        torch.testing.assert_close(stepwise, backbone.pooled(image))


@pytest.mark.parametrize("depth", ["shallow", "deep"])
def test_prompts_are_replaced_and_never_added_up(depth: str) -> None:
    method = load_method(CATALOG.find("method", "vpt")).from_settings({"depth": depth, "num_tokens": 5})
    model = build("full")
    backbone, seen = model.assembled.backbone, list[int]()
    for block in backbone.blocks():
        block.register_forward_pre_hook(lambda _module, args: seen.append(args[0].shape[1]))
    module: Any = method.adapt(backbone, CLASSES).module.eval()
    module(model.inputs())
    assert set(seen) == {backbone.info.tokens + 5}


@pytest.mark.parametrize(("which", "endings"), [("blocks", {"bias"}), ("query_mlp", {"q.bias", "fc1.bias"})])
def test_bitfit_learns_the_chosen_biases(which: str, endings: set[str]) -> None:
    method = load_method(CATALOG.find("method", "bitfit")).from_settings({"which": which})
    learned = method.adapt(build("full").assembled.backbone, CLASSES).learnable - {"head.weight", "head.bias"}
    assert learned
    assert all(".blocks." in name and name.endswith(tuple(endings)) for name in learned)

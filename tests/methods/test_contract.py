"""What every method promises, tried on every method of the catalogue with a tiny backbone of every structure."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from sklearn.datasets import load_digits
from torch import Tensor

from petlbench.core.catalog import Catalog
from petlbench.core.config import RunConfig, TrainingConfig
from petlbench.data.loader import Batch
from petlbench.features.source import FeatureSource, LiveFeatures, NoFeatures
from petlbench.models.activation_checkpointing import checkpoint_blocks
from petlbench.models.build import Assembled, assemble, count_parameters
from petlbench.models.method import Inputs, Method, configured_method, load_method
from petlbench.models.registry import build_backbone, probe_backbone
from petlbench.run.artifacts import load_learned, write_learned
from petlbench.training.step import Step, new_step

CATALOG = Catalog()
METHODS = tuple(CATALOG.entries("method"))
# What the papers' table compares; the rest learn in the slow tests.
COMPARED = ("full", "linear", "vpt", "attention", "adapter", "bitfit", "lora", "fpt", "fpt_plus")
OTHERS = [name for name in METHODS if name not in COMPARED]
# The other structures, each with an image size that suits its patch; see conftest.py.
# So large that FPT keeps two tokens at least: where there is but one to attend to, no query learns anything.
STRUCTURES = {"tiny_distilled": 32, "tiny_registers": 42, "tiny_eva": 28, "tiny_swin": 32}
BACKBONE, SIZE, CLASSES, BATCH = "tiny_vit", 32, 3, 4


@pytest.fixture(scope="session", autouse=True)
def weights(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Path]]:
    """Weights in which no tensor is trivial: timm starts biases at zero and scales at one, which hides mistakes."""
    folder = tmp_path_factory.mktemp("weights")
    for name, size in {BACKBONE: SIZE, **STRUCTURES}.items():
        torch.manual_seed(7)
        module = build_backbone(name, size, "none", torch.device("cpu")).module
        state = {key: value + 0.1 * torch.randn_like(value) for key, value in module.state_dict().items()}
        save_file(state, folder / f"{name}.safetensors")
        WEIGHTS[name] = folder / f"{name}.safetensors"
    yield WEIGHTS
    WEIGHTS.clear()


WEIGHTS: dict[str, Path] = {}


def config(method: str, image_size: int = SIZE, seed: int = 0, backbone: str = BACKBONE, **training: Any) -> RunConfig:
    return RunConfig(
        method=method,
        dataset="digits",
        split="random",
        backbone=backbone,
        weights=str(WEIGHTS[backbone]),
        image_size=image_size,
        # Without weight decay a tensor changes by its gradient alone.
        training=TrainingConfig(**{"lr": 1e-3, "weight_decay": 0.0, **training}),
        preload=False,
        seed=seed,
        device="cpu",
        threads=1,
    )


def build(method: str, **choices: Any) -> Assembled:
    """Build a method as the engine does, and let it choose from the data where it does."""
    chosen = config(method, **choices)
    assembled = assemble(chosen, configured_method(chosen, CATALOG), CLASSES, torch.device("cpu"))
    if assembled.adapted.prepare is not None:
        assembled.adapted.prepare([(inputs(assembled), batch(assembled).labels)])
    return assembled


def batch(assembled: Assembled, images: Tensor | None = None, labels: Tensor | None = None) -> Batch:
    """A batch as the engine would load it."""
    info = assembled.backbone.info
    sizes = {name: view.size for name, view in assembled.method.views(info, info.image_size).items()}
    if images is None or labels is None:
        images = torch.randn(BATCH, 3, info.image_size, info.image_size, generator=torch.Generator().manual_seed(1))
        labels = torch.arange(BATCH) % CLASSES
    views = {name: torch.nn.functional.interpolate(images, size=(size, size)) for name, size in sizes.items()}
    return Batch(torch.arange(len(labels)), views, labels)


def source(assembled: Assembled) -> FeatureSource:
    """Where the module's features come from, if it takes any: from the frozen backbone."""
    if assembled.frozen is None:
        return NoFeatures()
    return LiveFeatures(assembled.backbone, assembled.frozen, "fp32")


def inputs(assembled: Assembled) -> Inputs:
    return source(assembled)(batch(assembled))


def state(assembled: Assembled) -> dict[str, Tensor]:
    """Every tensor of the module and of the backbone, buffers included."""
    found = {f"backbone.{name}": tensor for name, tensor in _tensors(assembled.backbone.module)}
    # What is shared with the module keeps the module's name.
    shared = {tensor.data_ptr() for _, tensor in _tensors(assembled.adapted.module)}
    found = {name: tensor for name, tensor in found.items() if tensor.data_ptr() not in shared}
    found |= dict(_tensors(assembled.adapted.module))
    return {name: tensor.detach().clone() for name, tensor in found.items()}


def _tensors(module: torch.nn.Module) -> Iterator[tuple[str, Tensor]]:
    yield from module.named_parameters()
    yield from module.named_buffers()


def train(assembled: Assembled, steps: int = 3) -> list[float]:
    step = stepper(assembled)
    images = batch(assembled)
    return [take(step, assembled, images, number, steps) for number in range(1, steps + 1)]


def stepper(assembled: Assembled, **training: Any) -> Step:
    chosen = config(assembled.method.card.name, **training)
    assembled.adapted.module.train()
    torch.manual_seed(5)
    return new_step(chosen, assembled.adapted, source(assembled), None)


def take(step: Step, assembled: Assembled, images: Batch, number: int, steps: int) -> float:
    """One step as the engine takes it."""
    loss = float(step(images))
    if assembled.adapted.companion is not None:
        assembled.adapted.companion.after_step(number, steps)
    return loss


def gradients(assembled: Assembled, steps: int = 1, draws: bool = True, **training: Any) -> dict[str, Tensor]:
    """Losses and last gradients of some steps, after which the parameters are put back."""
    learnable = assembled.adapted.parameters()
    before = {name: tensor.detach().clone() for name, tensor in learnable.items()}
    step, images = stepper(assembled, **training), batch(assembled)
    assembled.adapted.module.train(draws)
    found = {"losses": torch.stack([step(images) for _ in range(steps)])}
    with torch.no_grad():
        for name, tensor in learnable.items():
            assert tensor.grad is not None, name
            found[name] = tensor.grad.clone()
            tensor.copy_(before[name])
    return found


def logits(assembled: Assembled) -> Tensor:
    with torch.no_grad():
        output: Tensor = assembled.adapted.module.eval()(inputs(assembled))
    return output


def of_the_backbone(assembled: Assembled, backbone: Any) -> Tensor:
    """Logits of a backbone's final feature through a method's head."""
    head: Any = assembled.adapted.module.get_submodule("head")
    images = torch.randn(BATCH, 3, *[backbone.info.image_size] * 2, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        output: Tensor = head.eval()(backbone.pooled(images))
    return output


def untouched(backbone: str, image_size: int) -> Any:
    built = build_backbone(backbone, image_size, str(WEIGHTS[backbone]), torch.device("cpu"))
    built.module.eval()
    return built


def method_class(method: str) -> type[Method[Any]]:
    return load_method(CATALOG.find("method", method))


def check_start(assembled: Assembled, backbone: str, image_size: int) -> None:
    if assembled.method.starts_at_backbone:
        expected = of_the_backbone(assembled, untouched(backbone, image_size))
        torch.testing.assert_close(logits(assembled), expected, rtol=0, atol=2e-5)


def check_merge(assembled: Assembled, backbone: str, image_size: int) -> None:
    before, merge = logits(assembled), assembled.adapted.merge
    if merge is None:
        return
    merge()
    torch.testing.assert_close(of_the_backbone(assembled, assembled.backbone), before, rtol=1e-4, atol=1e-4)
    plain = untouched(backbone, image_size).module.state_dict()
    merged = assembled.backbone.module.state_dict()
    assert {name: value.shape for name, value in merged.items()} == {name: value.shape for name, value in plain.items()}


@pytest.mark.parametrize("method", METHODS)
def test_exactly_what_is_declared_has_finite_gradients_and_changes(method: str) -> None:
    assembled = build(method)
    before = state(assembled)
    assert all(torch.isfinite(torch.tensor(train(assembled))))
    for name, tensor in assembled.adapted.module.named_parameters():
        assert tensor.requires_grad == (name in assembled.adapted.learnable), name
        if tensor.requires_grad:
            assert tensor.grad is not None, name
            assert torch.isfinite(tensor.grad).all(), name
    after = state(assembled)
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == set(assembled.adapted.learnable)


@pytest.mark.parametrize("method", METHODS)
def test_the_counts_are_those_of_the_tensors_and_the_same_on_meta(method: str) -> None:
    real = build(method)
    counts = count_parameters(real)
    assert counts.learnable == sum(tensor.numel() for tensor in real.adapted.parameters().values())
    assert 0 < counts.ratio_published <= counts.ratio <= 1
    assert counts == count_parameters(assemble(config(method), CATALOG, CLASSES, torch.device("meta")))


@pytest.mark.parametrize("method", METHODS)
def test_it_starts_at_the_frozen_backbone_where_it_promises_to(method: str) -> None:
    if not method_class(method).starts_at_backbone:
        pytest.skip(f"{method} does not promise to start at the backbone")
    check_start(build(method), BACKBONE, SIZE)


@pytest.mark.parametrize("method", METHODS)
def test_merged_and_unmerged_agree(method: str) -> None:
    assembled = build(method)
    if assembled.adapted.merge is None:
        pytest.skip(f"{method} cannot be merged")
    train(assembled)
    check_merge(assembled, BACKBONE, SIZE)


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
def test_blocks_that_are_computed_again_give_the_same_gradients(method: str) -> None:
    assembled = build(method)
    plain = gradients(assembled, steps=2)
    checkpoint_blocks(assembled.adapted.module)
    again = gradients(assembled, steps=2)
    assert plain.keys() == again.keys()
    assert [name for name in plain if not torch.equal(plain[name], again[name])] == []


@pytest.mark.slow
@pytest.mark.parametrize("backbone", STRUCTURES)
@pytest.mark.parametrize("method", ["full", "lora", "sct", "dtl", "lst"])
def test_so_do_those_of_every_structure(method: str, backbone: str) -> None:
    info = probe_backbone(backbone, STRUCTURES[backbone])
    if method_class(method).from_settings({}).refuse(info):
        return
    assembled = build(method, backbone=backbone, image_size=STRUCTURES[backbone])
    plain = gradients(assembled)
    checkpoint_blocks(assembled.adapted.module)
    again = gradients(assembled)
    assert [name for name in plain if not torch.equal(plain[name], again[name])] == []


@pytest.mark.parametrize("method", METHODS)
def test_the_gradients_of_pieces_add_up_to_those_of_the_batch(method: str) -> None:
    assembled = build(method)
    # Dropout and the like would draw for each piece anew.
    whole = gradients(assembled, draws=False, batch_size=BATCH)
    pieces = gradients(assembled, draws=False, batch_size=BATCH, accumulate=2)
    largest = max(float(tensor.abs().max()) for tensor in whole.values())
    for name, expected in whole.items():
        torch.testing.assert_close(pieces[name], expected, rtol=1e-3, atol=1e-5 * largest)


@pytest.mark.parametrize("method", METHODS)
def test_what_was_learned_can_be_stored_and_put_back(method: str, tmp_path: Path) -> None:
    trained, fresh = build(method), build(method)
    train(trained)
    assert not torch.equal(logits(trained), logits(fresh))
    file = tmp_path / "learned.safetensors"
    write_learned(file, trained.adapted.kept(), "run")
    assert set(load_file(file)) == trained.adapted.learnable | trained.adapted.chosen
    load_learned(file, fresh.adapted)
    assert torch.equal(logits(trained), logits(fresh))


@pytest.mark.parametrize("method", METHODS)
def test_it_works_at_another_image_size(method: str) -> None:
    assembled = build(method, image_size=2 * SIZE)
    assert all(torch.isfinite(torch.tensor(train(assembled))))


@pytest.mark.parametrize("method", METHODS)
def test_features_are_as_declared(method: str) -> None:
    assembled = build(method)
    if assembled.frozen is None:
        pytest.skip(f"{method} takes no frozen features")
    spec = assembled.frozen.spec(assembled.backbone.info)
    features = inputs(assembled).features
    assert {name: (tuple(tensor.shape[1:]), tensor.dtype) for name, tensor in features.items()} == {
        name: (tensor.shape, tensor.dtype) for name, tensor in spec.tensors.items()
    }


@pytest.mark.parametrize("method", [*COMPARED, *(pytest.param(name, marks=pytest.mark.slow) for name in OTHERS)])
def test_sixty_steps_on_digits_bring_the_loss_down(method: str) -> None:
    digits = load_digits()
    kept = digits.target < CLASSES
    images = torch.tensor(digits.images[kept] / 8 - 1, dtype=torch.float32)[:, None].expand(-1, 3, -1, -1)
    images, labels = torch.nn.functional.interpolate(images, size=(SIZE, SIZE)), torch.tensor(digits.target[kept])
    assembled = build(method)
    step, losses = stepper(assembled, lr=5e-3), []
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    for number in range(60):
        rows = order[torch.arange(16) + 16 * number if 16 * (number + 1) <= len(order) else torch.arange(16)]
        shown = batch(assembled, images[rows], labels[rows])
        assembled.adapted.module.train()
        losses.append(take(step, assembled, shown, number + 1, 60))
    assert sum(losses[-10:]) < 0.95 * sum(losses[:10])


def test_no_two_methods_are_the_same() -> None:
    prints: dict[str, Any] = {}
    for method in METHODS:
        assembled = build(method)
        names = {name: tuple(tensor.shape) for name, tensor in assembled.adapted.parameters().items()}
        start = logits(assembled)
        train(assembled)
        prints[method] = (names, start, logits(assembled))
    for one, other in combinations(METHODS, 2):
        same = [prints[one][0] == prints[other][0]]
        same += [
            torch.allclose(a, b, rtol=0, atol=1e-6) for a, b in zip(prints[one][1:], prints[other][1:], strict=True)
        ]
        assert not all(same), (one, other)


@pytest.mark.parametrize("backbone", STRUCTURES)
@pytest.mark.parametrize("method", METHODS)
def test_every_structure_is_refused_or_adapted(method: str, backbone: str) -> None:
    info = probe_backbone(backbone, STRUCTURES[backbone])
    if reason := method_class(method).from_settings({}).refuse(info):
        assert backbone in reason or any(character.isdigit() for character in reason)
        return
    assembled = build(method, backbone=backbone, image_size=STRUCTURES[backbone])
    check_start(assembled, backbone, STRUCTURES[backbone])
    before = state(assembled)
    train(assembled)
    after = state(assembled)
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == set(assembled.adapted.learnable)
    check_merge(assembled, backbone, STRUCTURES[backbone])


@pytest.mark.parametrize("method", METHODS)
def test_every_setting_is_described(method: str) -> None:
    settings = method_class(method).Settings
    assert all(field.description for field in settings.model_fields.values())


def test_fpt_refuses_a_side_network_that_its_heads_cannot_share() -> None:
    method = load_method(CATALOG.find("method", "fpt")).from_settings({"reduction": 64})
    reason = method.refuse(probe_backbone(BACKBONE, SIZE))
    assert reason is not None
    assert "2 heads" in reason
    assert load_method(CATALOG.find("method", "fpt")).from_settings({}).refuse(probe_backbone(BACKBONE, SIZE)) is None


def test_a_backbone_run_block_by_block_gives_its_own_final_feature() -> None:
    backbone = build("full").backbone
    image = torch.randn(2, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
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
    module(inputs(assembled))
    assert set(seen) == {assembled.backbone.info.tokens + 5}


@pytest.mark.parametrize(("which", "endings"), [("blocks", {"bias"}), ("query_mlp", {"q.bias", "fc1.bias"})])
def test_bitfit_learns_the_chosen_biases(which: str, endings: set[str]) -> None:
    method = load_method(CATALOG.find("method", "bitfit")).from_settings({"which": which})
    learned = method.adapt(build("full").backbone, CLASSES).learnable - {"head.weight", "head.bias"}
    assert learned
    assert all(".blocks." in name and name.endswith(tuple(endings)) for name in learned)

"""The contract of a method, rule by rule: what the engine, its forecasts and its comparisons rely on."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from petlbench.memory.predict import predict_inference, predict_training
from petlbench.models.activation_checkpointing import checkpoint_blocks
from petlbench.models.build import count_parameters
from petlbench.run.artifacts import load_learned, write_learned
from petlbench.testing.messages import explained, fail, few
from petlbench.testing.settings import SettingsContract
from petlbench.testing.subject import BATCH, CLASSES, Model, Subject, graph_leaves, random_images

__all__ = ["MethodContract", "check_merge", "check_start"]

_NO_VALUES = "there tensors have no values, so nothing may be read back: no .item(), float(x), x.numpy(), `if x`"


class MethodContract(SettingsContract):
    """Tests of one method; a subclass whose name begins with ``Test`` names it.

    Attributes:
        method: The method's class.
        settings: Settings that differ from the method's defaults.
        backbones: Backbones that it is tried on, with their image sizes in pixels; what it refuses is passed over.
    """

    backbones: ClassVar[Mapping[str, int]] = {"petlbench_micro": 64, "vit_tiny_patch16_224": 64}

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """Repeat a rule for each method and, where it builds one, for each backbone."""
        super().pytest_generate_tests(metafunc)
        if "subject" in metafunc.fixturenames:
            pairs = [(method, *backbone) for method in self.methods() for backbone in self.backbones.items()]
            metafunc.parametrize("subject", [Subject(*pair, self.settings) for pair in pairs], ids=str, scope="class")

    @pytest.fixture(autouse=True)
    def _alone(self) -> Iterator[None]:
        """Leave torch's generator and threads as they were; so small a model gains nothing from a second thread."""
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        with torch.random.fork_rng(devices=[]):
            yield
        torch.set_num_threads(threads)

    # What it makes of a backbone.

    def test_it_adapts_or_refuses_with_a_reason(self, subject: Subject) -> None:
        """A method refuses in a sentence that names the backbone or a size, or it can be built."""
        with explained(f"{subject.title} cannot be built: mend adapt, or let refuse() say why not"):
            reason = subject.refusal()
            if not reason:
                subject.adapt()
                subject.build()
        if reason and subject.info.name not in reason and not any(character.isdigit() for character in reason):
            fail(f"{subject.title} is refused with {reason!r}: name the backbone or the size, as lacks() does")
        if reason and all(replace(subject, backbone=n, image_size=s).refusal() for n, s in self.backbones.items()):
            fail(f"{subject.title} is refused, as is every backbone here: name one with --petlbench-backbone NAME@SIZE")

    def test_what_is_declared_learnable_exists(self, subject: Subject) -> None:
        """Names in ``learnable`` are parameters of the module, and those in ``chosen`` are buffers."""
        adapted = _try(subject.adapt, subject)
        parameters = [name for name, _ in adapted.module.named_parameters()]
        buffers = [name for name, _ in adapted.module.named_buffers()]
        for declared, names, what in (
            (adapted.learnable, parameters, "learnable, but the module has no parameter"),
            (adapted.chosen, buffers, "chosen, but the module has no buffer"),
        ):
            if absent := declared - set(names):
                fail(f"{subject.title} declares {few(absent)} {what} of that name; it has {few(names)}")
        if not adapted.learnable:
            fail(f"{subject.title} learns nothing: name the parameters in Adapted(learnable=...)")

    def test_only_what_is_declared_is_learned(self, subject: Subject) -> None:
        """Nothing else wants a gradient, gets one or, to the last bit, changes in training."""
        hint = "which it did not declare: add it to learnable, or freeze it"
        adapted = _try(subject.adapt, subject)
        left = {name for name, tensor in adapted.module.named_parameters() if tensor.requires_grad}
        if undeclared := left - adapted.learnable:
            fail(f"{subject.title} learns {few(undeclared)}, {hint}")
        training = _training(subject)
        model = training.model
        names = {id(tensor): name for name, tensor in model.tensors().items()}
        for leaf in graph_leaves(model.module.train()(model.inputs())):
            name = names.get(id(leaf), f"a tensor of shape {tuple(leaf.shape)} that is no parameter of the module")
            if name not in model.adapted.learnable:
                fail(f"{subject.title} learns {few([name])}, {hint}")
        if changed := training.changed - model.adapted.learnable - _buffers(model):
            fail(f"{subject.title} learns {few(changed)}, {hint}")

    def test_no_buffer_changes_in_training(self, subject: Subject) -> None:
        """Buffers are what they were, so that what was learned is all that a run keeps; ``chosen`` is kept too."""
        training = _training(subject)
        if changed := training.changed & (_buffers(training.model) - training.model.adapted.chosen):
            fail(
                f"{subject.title} changes the buffer {few(changed)} in training, which no run keeps: freeze it (a "
                "batch norm in eval mode), make it a learnable parameter, or set it in prepare and name it in chosen"
            )

    def test_all_that_is_declared_is_learned(self, subject: Subject) -> None:
        """Each learnable parameter has finite gradients and changes within three steps."""
        training = _training(subject)
        model = training.model
        if not all(map(math.isfinite, training.losses)):
            fail(f"{subject.title} has the losses {training.losses}: they have to be finite")
        for name, tensor in model.module.named_parameters():
            if tensor.requires_grad != (name in model.adapted.learnable):
                fail(f"{subject.title} sets requires_grad of '{name}' after adapt: leave it to the engine")
            if tensor.requires_grad and (tensor.grad is None or not torch.isfinite(tensor.grad).all()):
                what = "no gradient" if tensor.grad is None else "a gradient that is not finite"
                fail(f"{subject.title}: '{name}' is declared learnable and has {what}: use it in forward, or drop it")
        if unchanged := model.adapted.learnable - training.changed:
            fail(f"{subject.title} does not change {few(unchanged)} in three steps: is its gradient zero throughout?")

    def test_the_count_is_what_is_declared_and_the_same_on_meta(self, subject: Subject) -> None:
        """What is counted is the learnable tensors' numbers; a dry run, which has no values, counts the same."""
        model = _training(subject).model
        shapes, counts = _shapes(model), count_parameters(model.assembled)
        with explained(f"{subject.title} cannot be built on device meta; {_NO_VALUES}"):
            dry = subject.build(device="meta")
        if differing := dict(_shapes(dry).items() ^ shapes.items()):
            fail(
                f"{subject.title} learns {counts.learnable:,} parameters, on device meta "
                f"{count_parameters(dry.assembled).learnable:,}; {few(differing)} differ: let settings and shapes "
                "alone decide what is learned"
            )
        if counts != count_parameters(dry.assembled):
            fail(f"{subject.title} has other totals on device meta: {counts} and {count_parameters(dry.assembled)}")
        if counts.learnable != sum(map(math.prod, shapes.values())):
            fail(f"{subject.title} counts {counts.learnable:,}, but its tensors have {shapes}")
        if not 0 < counts.ratio_published <= counts.ratio <= 1:
            fail(
                f"{subject.title} has a ratio of {counts.ratio:.4g}, by the paper's total "
                f"{counts.ratio_published:.4g}: published_extra_total is what the paper counts more, so zero or larger"
            )

    # What it computes.

    def test_logits_have_a_row_an_image_and_a_column_a_class(self, subject: Subject) -> None:
        """The module gives finite logits (B, C)."""
        logits = _training(subject).start
        if tuple(logits.shape) != (BATCH, CLASSES):
            fail(f"{subject.title} gives logits of shape {tuple(logits.shape)}, not (B, C) = {(BATCH, CLASSES)}")
        if not torch.isfinite(logits).all():
            fail(f"{subject.title} gives logits that are not finite: {logits.tolist()}")

    def test_logits_depend_on_what_is_learned(self, subject: Subject) -> None:
        """Three steps change the logits."""
        training = _training(subject)
        if torch.equal(training.model.logits(), training.start):
            fail(f"{subject.title} gives the same logits after training: forward does not use what is learned")

    def test_an_image_is_judged_alone_in_evaluation(self, subject: Subject) -> None:
        """In evaluation mode neither the batch's other images nor chance nor another call changes an image's logits."""
        model = _training(subject).model
        images, before = random_images(subject.image_size), model.state()
        together = model.logits(images)
        alone = torch.cat([model.logits(image[None]) for image in images])
        if not torch.equal(together, model.logits(images)):
            fail(f"{subject.title} gives other logits each time in evaluation mode: let eval() switch chance off")
        if not _close(together, alone, 1e-4):
            fail(
                f"{subject.title} gives an image other logits alone than in a batch (by {_gap(together, alone):.2g}) "
                "in evaluation mode: no statistics over the batch there; use a layer norm, or fixed statistics"
            )
        if changed := model.changes(before):
            fail(f"{subject.title} changes {few(changed)} in evaluation mode: change nothing in forward")

    def test_it_starts_at_the_frozen_backbone_where_it_promises_to(self, subject: Subject) -> None:
        """With ``starts_at_backbone`` the first logits are those of the frozen backbone through the new head."""
        if not subject.method.starts_at_backbone:
            pytest.skip(f"{subject.method.__name__} does not promise to start at the backbone")
        check_start(_built(subject))

    def test_merged_and_unmerged_agree(self, subject: Subject) -> None:
        """After ``merge`` timm's own model, with the head, gives the logits that the adapted one gave."""
        model = _built(subject)
        if model.adapted.merge is None:
            pytest.skip(f"{subject.method.__name__} cannot be merged")
        model.train()
        check_merge(model)

    def test_what_was_learned_can_be_stored_and_put_back(self, subject: Subject, tmp_path: Path) -> None:
        """The stored file holds what was learned and what was chosen, and brings a fresh module to the same logits."""
        trained, fresh = _training(subject).model, _built(subject)
        file = tmp_path / "learned.safetensors"
        write_learned(file, trained.adapted.kept(), "run")
        if set(load_file(file)) != trained.adapted.learnable | trained.adapted.chosen:
            fail(f"{subject.title} stores {few(load_file(file))}, which is not what it declares")
        load_learned(file, fresh.adapted)
        if not torch.equal(trained.logits(), fresh.logits()):
            fail(
                f"{subject.title} gives other logits (by {_gap(trained.logits(), fresh.logits()):.2g}) once what it "
                "learned is loaded into a fresh module: it keeps what is neither learnable nor chosen, or draws it"
            )

    def test_training_is_decided_by_the_seed(self, subject: Subject) -> None:
        """Two builds and trainings with one seed are the same to the last bit."""
        training, again = _training(subject), _built(subject)
        losses = again.train()
        if losses != training.losses or not torch.equal(again.logits(), training.model.logits()):
            fail(
                f"{subject.title} trains in another way each time with one seed ({losses}, {training.losses}): "
                "draw from torch's global generator alone, and keep nothing between builds"
            )

    # What the engine does with it.

    def test_a_step_works_on_meta(self, subject: Subject) -> None:
        """Forward, backward and update read no value back to the host."""
        _training(subject)
        with explained(f"{subject.title} cannot take a step on device meta; {_NO_VALUES}"):
            model = subject.build(device="meta")
            model.take(model.step(), model.batch(), 1, 1)
            shape = tuple(model.logits().shape)
        if shape != (BATCH, CLASSES):
            fail(f"{subject.title} gives logits of shape {shape} on device meta, not (B, C) = {(BATCH, CLASSES)}")

    def test_its_memory_can_be_forecast(self, subject: Subject) -> None:
        """A dry run says what a step and a prediction take, with preloaded features and without."""
        for preload in [False, True] if _training(subject).model.assembled.frozen is not None else [False]:
            config = subject.config().model_copy(update={"device": "cuda", "preload": preload})
            with explained(f"the memory of {subject.title} cannot be forecast; {_NO_VALUES}"):
                assembled = subject.build(device="meta").assembled
                training, inference = predict_training(config, assembled), predict_inference(config, assembled)
            if not (training.allocated and inference.allocated):
                fail(f"{subject.title} is forecast to take nothing: {training}, {inference}")

    def test_it_works_in_float64(self, subject: Subject) -> None:
        """In float64 it computes what it computes in float32, more exactly; no type is fixed."""
        single = _training(subject).start
        with explained(f"{subject.title} does not work in float64: take dtype and device from the tensors at hand"):
            model = _built(subject).double()
            double = model.logits()
            model.train(1)
        if double.dtype != torch.float64 or not _close(single.double(), double, 1e-3):
            fail(
                f"{subject.title} gives {double.dtype} logits in float64 that differ from float32's by "
                f"{_gap(single.double(), double):.2g}: take dtype and device from the tensors at hand"
            )

    def test_it_works_at_another_image_size(self, subject: Subject) -> None:
        """Twice the size is trained or refused, too."""
        larger = subject.at(2 * subject.image_size)
        if larger.refusal():
            return
        losses = _built(larger).train()
        if not all(map(math.isfinite, losses)):
            fail(f"{larger.title} has the losses {losses}: they have to be finite")

    def test_features_are_as_declared(self, subject: Subject) -> None:
        """Frozen features have the names, shapes and types that ``spec`` says."""
        model = _training(subject).model
        if model.assembled.frozen is None:
            pytest.skip(f"{subject.method.__name__} takes no frozen features")
        spec = model.assembled.frozen.spec(model.assembled.backbone.info)
        declared = {name: (tuple(tensor.shape), tensor.dtype) for name, tensor in spec.tensors.items()}
        features = {n: (tuple(tensor.shape[1:]), tensor.dtype) for n, tensor in model.inputs().features.items()}
        if features != declared:
            fail(f"{subject.title} extracts {features}, but spec declares {declared}, both without the batch axis")

    def test_blocks_that_are_computed_again_give_the_same_gradients(self, subject: Subject) -> None:
        """``--checkpointing`` changes memory and time, and no bit of a gradient."""
        model = _built(subject)
        plain = model.gradients(steps=2)
        checkpoint_blocks(model.module)
        again = model.gradients(steps=2)
        if differing := [name for name in plain if not torch.equal(plain[name], again[name])]:
            fail(
                f"{subject.title} has other gradients with --checkpointing: {few(differing)}; keep no state in forward"
            )

    def test_the_gradients_of_micro_batches_add_up_to_those_of_the_batch(self, subject: Subject) -> None:
        """``--accumulate`` changes memory, and no gradient beyond rounding."""
        model = _built(subject)
        # Dropout and the like would draw for each micro-batch anew.
        whole = model.gradients(training=False)
        parts = model.gradients(training=False, accumulate=2)
        largest = max(float(tensor.abs().max()) for tensor in whole.values())
        for name, expected in whole.items():
            if not torch.allclose(parts[name], expected, rtol=1e-3, atol=1e-5 * largest):
                fail(f"{subject.title} has another gradient of '{name}' with --accumulate: no statistics over a batch")


@dataclass(frozen=True)
class _Training:
    """A model that took three steps, for rules that look and change nothing.

    Args:
        model: The trained model.
        start: Its logits (B, C) before the first step.
        losses: Those of the steps.
        changed: Names of the tensors that the steps changed.
    """

    model: Model
    start: Tensor
    losses: list[float]
    changed: set[str]


@lru_cache(maxsize=2)
def _training(subject: Subject) -> _Training:
    model = _built(subject)
    start, before = model.logits(), model.state()
    losses = model.train()
    return _Training(model, start, losses, model.changes(before))


def check_start(model: Model) -> None:
    """Fail where a method that promises to start at the frozen backbone does not."""
    if not model.subject.method.starts_at_backbone:
        return
    logits, expected = model.logits(), model.logits_of(model.subject.plain_backbone())
    if not torch.allclose(logits, expected, rtol=0, atol=2e-5):
        fail(
            f"{model.subject.title} promises to start at the backbone, but its first logits differ by "
            f"{_gap(logits, expected):.2g}: start what it adds at zero, or drop starts_at_backbone"
        )


def check_merge(model: Model) -> None:
    """Merge a model, where it can be, and fail where timm's own model is then another or gives other logits."""
    before, merge = model.logits(), model.adapted.merge
    if merge is None:
        return
    merge()
    title, merged, plain = model.subject.title, model.assembled.backbone, model.subject.plain_backbone()
    shapes = [{name: t.shape for name, t in each.module.state_dict().items()} for each in (merged, plain)]
    if differing := dict(shapes[0].items() ^ shapes[1].items()):
        fail(f"{title} is merged, but {few(differing)} are not those of the plain backbone")
    after = model.logits_of(merged)
    if not torch.allclose(after, before, rtol=1e-4, atol=1e-4):
        fail(f"{title}: merge changes the logits by {_gap(after, before):.2g}: fold in all that it learned")


def _built(subject: Subject) -> Model:
    """A subject, built; the test is skipped where it is refused, or where the rules on building say what is wrong."""
    model: Model = _try(subject.build, subject)
    return model


def _try(build: Any, subject: Subject) -> Any:
    try:
        reason = subject.refusal()
        result = None if reason else build()
    except Exception as error:  # noqa: BLE001, RUF100 - whatever it is, a rule of its own reports it
        reason = f"cannot be built, see test_it_adapts_or_refuses_with_a_reason: {error}"
    if reason:
        pytest.skip(f"{subject.title}: {reason}")
    return result


def _buffers(model: Model) -> set[str]:
    return set(model.tensors()) - {
        name
        for prefix, module in (("", model.module), ("backbone.", model.assembled.backbone.module))
        for name, _ in module.named_parameters(prefix.rstrip("."))
    }


def _shapes(model: Model) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in model.adapted.parameters().items()}


def _gap(first: Tensor, second: Tensor) -> float:
    return float((first - second).abs().max())


def _close(first: Tensor, second: Tensor, tolerance: float) -> bool:
    return torch.allclose(first, second, rtol=tolerance, atol=tolerance * float(second.abs().max()))

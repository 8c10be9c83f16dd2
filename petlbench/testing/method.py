"""The contract of a method, rule by rule: what the engine, its forecasts and its comparisons rely on."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from petlbench.core.entry import MethodCard
from petlbench.core.errors import InputError
from petlbench.core.files import write_tensors
from petlbench.memory.predict import predict_inference, predict_training
from petlbench.models.activation_checkpointing import checkpoint_blocks
from petlbench.models.build import count_parameters
from petlbench.models.method import Method, TrainingDefaults
from petlbench.testing import explained, fail, few
from petlbench.testing.subject import (
    BATCH,
    CLASSES,
    Model,
    Subject,
    attempt,
    built,
    graph_leaves,
    random_images,
    trained,
)

_NO_VALUES = "there tensors have no values, so nothing may be read back: no .item(), float(x), x.numpy(), `if x`"


class MethodContract:
    """Tests of one method; a subclass whose name begins with ``Test`` names it.

    Attributes:
        method: The method's class.
        settings: Settings that differ from the method's defaults.
        backbones: Backbones that it is tried on, with their image sizes in pixels; what it refuses is passed over.
    """

    method: ClassVar[type[Method[Any]]]
    settings: ClassVar[Mapping[str, Any]] = {}
    backbones: ClassVar[Mapping[str, int]] = {"petlbench_micro": 64, "vit_tiny_patch16_224": 64}

    @classmethod
    def methods(cls) -> Sequence[type[Method[Any]]]:
        """The methods that are tried: one, unless a subclass tries more."""
        return [cls.method]

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """Repeat a rule for each method and, where it builds one, for each backbone."""
        named = {getattr(getattr(each, "card", None), "name", each.__name__): each for each in self.methods()}
        if "candidate" in metafunc.fixturenames:
            metafunc.parametrize("candidate", named.values(), ids=named.keys())
        if "subject" in metafunc.fixturenames:
            pairs = [(*method, *backbone) for method in named.items() for backbone in self.backbones.items()]
            subjects = [Subject(method, backbone, size, self.settings) for _, method, backbone, size in pairs]
            metafunc.parametrize("subject", subjects, ids=[f"{each[0]}-{each[2]}" for each in pairs], scope="class")

    @pytest.fixture(autouse=True)
    def _alone(self) -> Iterator[None]:
        """Leave torch's generator and threads as they were; so small a model gains nothing from a second thread."""
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        with torch.random.fork_rng(devices=[]):
            yield
        torch.set_num_threads(threads)

    # What it says of itself.

    def test_the_card_and_the_defaults_are_there(self, candidate: type[Method[Any]]) -> None:
        """A method has a card and the training that its paper used, within what a search tries."""
        name, defaults = candidate.__name__, getattr(candidate, "defaults", None)
        if not isinstance(getattr(candidate, "card", None), MethodCard):
            fail(name, "has no card: write card = MethodCard(name=..., title=..., family=..., year=..., paper=...)")
        if not isinstance(defaults, TrainingDefaults):
            fail(name, "has no defaults: write defaults = TrainingDefaults(lr=...), the paper's learning rate")
        low, high = defaults.lr_range
        if not low <= defaults.lr <= high:
            fail(f"{name}:", f"lr {defaults.lr:g} is outside lr_range ({low:g} to {high:g}): widen lr_range")

    def test_every_setting_has_a_description_bounds_and_a_default(self, candidate: type[Method[Any]]) -> None:
        """A setting says what it is, from where to where it goes and what the paper used."""
        for name, setting in candidate.Settings.model_fields.items():
            missing = [] if setting.description else ["description"]
            missing += ["default"] if setting.is_required() else []
            missing += ["bounds (ge=, le=)"] if setting.annotation in (int, float) and not _beyond(setting) else []
            if missing:
                fail(_setting(candidate, name), f"has no {', no '.join(missing)}: add to its Field")

    def test_settings_out_of_bounds_are_refused(self, candidate: type[Method[Any]]) -> None:
        """What no run can use is refused before a run, with a message."""
        wrong = {name: _beyond(setting) for name, setting in candidate.Settings.model_fields.items()}
        for name, values in {"no_such_setting": [1], **wrong}.items():
            for value in values:
                try:
                    candidate.from_settings({name: value})
                except InputError:
                    continue
                fail(candidate.__name__, f"takes {name} = {value!r}, which it must refuse: see its Settings")

    def test_the_values_of_a_search_are_valid(self, candidate: type[Method[Any]]) -> None:
        """What a search tries of a setting is plain and within its bounds, and the default is among it."""
        for name, setting in candidate.Settings.model_fields.items():
            extra, title = setting.json_schema_extra, _setting(candidate, name)
            if not isinstance(extra, dict) or (values := extra.get("search")) is None:
                continue
            if not isinstance(values, list) or setting.default not in values:
                fail(title, f"searches {values!r}: write a list with the default {setting.default!r} in it")
            for value in values:
                if not isinstance(value, bool | int | float | str):
                    fail(title, f"searches {value!r}: write plain values")
                with explained(f"{title} searches {value!r}, which it refuses: change the list or the bounds"):
                    candidate.from_settings({name: value})

    # What it makes of a backbone.

    def test_it_adapts_or_refuses_with_a_reason(self, subject: Subject) -> None:
        """A method refuses in a sentence that names the backbone or a size, or it can be built."""
        with explained(f"{subject} cannot be built: mend adapt, or let refuse() say why not"):
            reason = subject.refusal()
            if not reason:
                subject.adapt()
                subject.build()
        if reason and subject.backbone not in reason and not any(character.isdigit() for character in reason):
            fail(subject, f"is refused with {reason!r}: name the backbone or the size, as lacks() does")
        if reason and all(replace(subject, backbone=n, image_size=s).refusal() for n, s in self.backbones.items()):
            fail(subject, "is refused, as is every backbone here: name one with --petlbench-backbone NAME@SIZE")

    def test_what_is_declared_learnable_exists(self, subject: Subject) -> None:
        """Names in ``learnable`` are parameters of the module, and those in ``chosen`` are buffers."""
        adapted = attempt(subject, subject.adapt)
        parameters = [name for name, _ in adapted.module.named_parameters()]
        buffers = [name for name, _ in adapted.module.named_buffers()]
        for declared, names, what in (
            (adapted.learnable, parameters, "learnable, but the module has no parameter"),
            (adapted.chosen, buffers, "chosen, but the module has no buffer"),
        ):
            if absent := declared - set(names):
                fail(subject, f"declares {few(absent)} {what} of that name; it has {few(names)}")
        if not adapted.learnable:
            fail(subject, "learns nothing: name the parameters in Adapted(learnable=...)")

    def test_only_what_is_declared_is_learned(self, subject: Subject) -> None:
        """Nothing else wants a gradient, gets one or, to the last bit, changes in training."""
        hint = "which it did not declare: add it to learnable, or freeze it"
        adapted = attempt(subject, subject.adapt)
        trainable = {name for name, tensor in adapted.module.named_parameters() if tensor.requires_grad}
        if undeclared := trainable - adapted.learnable:
            fail(subject, f"learns {few(undeclared)}, {hint}")
        training = trained(subject)
        model = training.model
        names = {id(tensor): name for name, tensor in model.tensors().items()}
        for leaf in graph_leaves(model.module.train()(model.inputs())):
            name = names.get(id(leaf), f"a tensor of shape {tuple(leaf.shape)} that is no parameter of the module")
            if name not in model.adapted.learnable:
                fail(subject, f"learns {few([name])}, {hint}")
        if changed := training.changed - model.adapted.learnable - model.buffers():
            fail(subject, f"learns {few(changed)}, {hint}")

    def test_no_buffer_changes_in_training(self, subject: Subject) -> None:
        """Buffers are what they were, so that what was learned is all that a run keeps; ``chosen`` is kept too."""
        training = trained(subject)
        if changed := training.changed & (training.model.buffers() - training.model.adapted.chosen):
            advice = "freeze it (a batch norm in eval mode), learn it, or set it in prepare and name it in chosen"
            fail(subject, f"changes the buffer {few(changed)} in training, which no run keeps: {advice}")

    def test_all_that_is_declared_is_learned(self, subject: Subject) -> None:
        """Each learnable parameter has finite gradients and changes within three steps."""
        training = trained(subject)
        model = training.model
        if not all(map(math.isfinite, training.losses)):
            fail(subject, f"has the losses {training.losses}: they have to be finite")
        for name, tensor in model.module.named_parameters():
            if tensor.requires_grad != (name in model.adapted.learnable):
                fail(subject, f"sets requires_grad of '{name}' after adapt: leave it to the engine")
            if tensor.requires_grad and (tensor.grad is None or not torch.isfinite(tensor.grad).all()):
                what = "no gradient" if tensor.grad is None else "a gradient that is not finite"
                fail(f"{subject}:", f"'{name}' is declared learnable and has {what}: use it in forward, or drop it")
        if unchanged := model.adapted.learnable - training.changed:
            fail(subject, f"does not change {few(unchanged)} in three steps: is its gradient zero throughout?")

    def test_the_count_is_what_is_declared_and_the_same_on_meta(self, subject: Subject) -> None:
        """What is counted is the learnable tensors' numbers; a dry run, which has no values, counts the same."""
        model = trained(subject).model
        with explained(f"{subject} cannot be built on device meta; {_NO_VALUES}"):
            dry = subject.build(device="meta")
        shapes, counts = _shapes(model), count_parameters(model.assembled)
        counts_on_meta = count_parameters(dry.assembled)
        if differing := dict(_shapes(dry).items() ^ shapes.items()):
            numbers = f"{counts.learnable:,} parameters, on device meta {counts_on_meta.learnable:,}; {few(differing)}"
            fail(subject, f"learns {numbers} differ: let settings and shapes alone decide what is learned")
        if counts != counts_on_meta:
            fail(subject, f"has other totals on device meta: {counts} and {counts_on_meta}")
        if counts.learnable != sum(map(math.prod, shapes.values())):
            fail(subject, f"counts {counts.learnable:,}, but its tensors have {shapes}")
        if not 0 < counts.ratio_published <= counts.ratio <= 1:
            ratios = f"a ratio of {counts.ratio:.4g}, by the paper's total {counts.ratio_published:.4g}"
            fail(subject, f"has {ratios}: published_extra_total is what the paper counts more, so zero or larger")

    # What it computes.

    def test_logits_have_a_row_an_image_and_a_column_a_class(self, subject: Subject) -> None:
        """The module gives finite logits (B, C)."""
        logits = trained(subject).start
        if tuple(logits.shape) != (BATCH, CLASSES):
            fail(subject, f"gives logits of shape {tuple(logits.shape)}, not (B, C) = {(BATCH, CLASSES)}")
        if not torch.isfinite(logits).all():
            fail(subject, f"gives logits that are not finite: {logits.tolist()}")

    def test_logits_depend_on_what_is_learned(self, subject: Subject) -> None:
        """Three steps change the logits."""
        training = trained(subject)
        if torch.equal(training.model.logits(), training.start):
            fail(subject, "gives the same logits after training: forward does not use what is learned")

    def test_an_image_is_judged_alone_in_evaluation(self, subject: Subject) -> None:
        """In evaluation mode neither the batch's other images nor chance nor another call changes an image's logits."""
        model = trained(subject).model
        images, before = random_images(subject.image_size), model.state()
        together = model.logits(images)
        alone = torch.cat([model.logits(image[None]) for image in images])
        if not torch.equal(together, model.logits(images)):
            fail(subject, "gives other logits each time in evaluation mode: let eval() switch chance off")
        if not _close(together, alone, 1e-4):
            advice = "no statistics over the batch there; use a layer norm, or fixed statistics"
            gap = f"(by {_gap(together, alone):.2g}) in evaluation mode"
            fail(subject, f"gives an image other logits alone than in a batch {gap}: {advice}")
        if changed := model.changes(before):
            fail(subject, f"changes {few(changed)} in evaluation mode: change nothing in forward")

    def test_it_starts_at_the_frozen_backbone_where_it_promises_to(self, subject: Subject) -> None:
        """With ``starts_at_backbone`` the first logits are those of the frozen backbone through the new head."""
        if not subject.method.starts_at_backbone:
            pytest.skip(f"{subject.method.__name__} does not promise to start at the backbone")
        check_start(built(subject))

    def test_merged_and_unmerged_agree(self, subject: Subject) -> None:
        """After ``merge`` timm's own model, with the head, gives the logits that the adapted one gave."""
        model = built(subject)
        if model.adapted.merge is None:
            pytest.skip(f"{subject.method.__name__} cannot be merged")
        model.train()
        check_merge(model)

    def test_what_was_learned_can_be_stored_and_put_back(self, subject: Subject, tmp_path: Path) -> None:
        """The stored file holds what was learned and what was chosen, and brings a fresh module to the same logits."""
        model, fresh = trained(subject).model, built(subject)
        file = tmp_path / "learned.safetensors"
        write_tensors(file, model.adapted.kept(), {})
        if set(load_file(file)) != model.adapted.learnable | model.adapted.chosen:
            fail(subject, f"stores {few(load_file(file))}, which is not what it declares")
        fresh.adapted.load(file, "it", "")
        if gap := _gap(model.logits(), fresh.logits()):
            advice = "it keeps what is neither learnable nor chosen, or draws it"
            what = f"gives other logits (by {gap:.2g}) once what it learned is loaded into a new module"
            fail(subject, f"{what}: {advice}")

    def test_training_is_decided_by_the_seed(self, subject: Subject) -> None:
        """Two builds and trainings with one seed are the same to the last bit."""
        training, again = trained(subject), built(subject)
        losses = again.train()
        if losses != training.losses or not torch.equal(again.logits(), training.model.logits()):
            advice = "draw from torch's global generator alone, and keep nothing between builds"
            fail(subject, f"trains in another way with the same seed ({losses}, {training.losses}): {advice}")

    # What the engine does with it.

    def test_a_step_works_on_meta(self, subject: Subject) -> None:
        """Forward, backward and update read no value back to the host."""
        trained(subject)
        with explained(f"{subject} cannot take a step on device meta; {_NO_VALUES}"):
            model = subject.build(device="meta")
            model.take(model.step(), model.batch(), 1, 1)
            shape = tuple(model.logits().shape)
        if shape != (BATCH, CLASSES):
            fail(subject, f"gives logits of shape {shape} on device meta, not (B, C) = {(BATCH, CLASSES)}")

    def test_its_memory_can_be_forecast(self, subject: Subject) -> None:
        """A dry run says what a step and a prediction take, with preloaded features and without."""
        for preload in [False, True] if trained(subject).model.assembled.frozen is not None else [False]:
            config = subject.config().model_copy(update={"device": "cuda", "preload": preload})
            with explained(f"the memory of {subject} cannot be forecast; {_NO_VALUES}"):
                assembled = subject.build(device="meta").assembled
                training, inference = predict_training(config, assembled), predict_inference(config, assembled)
            if not (training.allocated and inference.allocated):
                fail(subject, f"is forecast to take nothing: {training}, {inference}")

    def test_it_works_in_float64(self, subject: Subject) -> None:
        """In float64 it computes what it computes in float32, more exactly; no type is fixed."""
        single = trained(subject).start
        with explained(f"{subject} does not work in float64: take dtype and device from the tensors at hand"):
            model = built(subject)
            model.assembled.backbone.module.double()
            model.module.double()
            double = model.logits()
            model.train(1)
        gap = _gap(single.double(), double)
        if double.dtype != torch.float64 or not _close(single.double(), double, 1e-3):
            what = f"{double.dtype} logits in float64 that differ from float32's by {gap:.2g}"
            fail(subject, f"gives {what}: take dtype and device from the tensors at hand")

    def test_it_works_at_another_image_size(self, subject: Subject) -> None:
        """Twice the size is trained or refused, too."""
        larger = replace(subject, image_size=2 * subject.image_size)
        if larger.refusal():
            return
        losses = built(larger).train()
        if not all(map(math.isfinite, losses)):
            fail(larger, f"has the losses {losses}: they have to be finite")

    def test_features_are_as_declared(self, subject: Subject) -> None:
        """Frozen features have the names, shapes and types that ``spec`` says."""
        model = trained(subject).model
        if model.assembled.frozen is None:
            pytest.skip(f"{subject.method.__name__} takes no frozen features")
        spec = model.assembled.frozen.spec(model.assembled.backbone.info)
        declared = {name: (tuple(tensor.shape), tensor.dtype) for name, tensor in spec.tensors.items()}
        features = {n: (tuple(tensor.shape[1:]), tensor.dtype) for n, tensor in model.inputs().features.items()}
        if features != declared:
            fail(subject, f"extracts {features}, but spec declares {declared}, both without the batch axis")

    def test_blocks_that_are_computed_again_give_the_same_gradients(self, subject: Subject) -> None:
        """``--checkpointing`` changes memory and time, and no bit of a gradient."""
        model = built(subject)
        plain = model.gradients(steps=2)
        checkpoint_blocks(model.module)
        again = model.gradients(steps=2)
        if differing := [name for name in plain if not torch.equal(plain[name], again[name])]:
            fail(subject, f"has other gradients with --checkpointing: {few(differing)}; keep no state in forward")

    def test_the_gradients_of_micro_batches_add_up_to_those_of_the_batch(self, subject: Subject) -> None:
        """``--accumulate`` changes memory, and no gradient beyond rounding."""
        model = built(subject)
        # Dropout and the like would draw for each micro-batch anew.
        whole = model.gradients(training=False)
        parts = model.gradients(training=False, accumulate=2)
        largest = max(float(tensor.abs().max()) for tensor in whole.values())
        for name, expected in whole.items():
            if not torch.allclose(parts[name], expected, rtol=1e-3, atol=1e-5 * largest):
                fail(subject, f"has another gradient of '{name}' with --accumulate: no statistics over a batch")


def check_start(model: Model) -> None:
    """Fail where a method that promises to start at the frozen backbone does not."""
    if not model.subject.method.starts_at_backbone:
        return
    logits, expected = model.logits(), model.logits_of(model.subject.plain_backbone())
    if not torch.allclose(logits, expected, rtol=0, atol=2e-5):
        what = f"promises to start at the backbone, but its first logits differ by {_gap(logits, expected):.2g}"
        fail(model.subject, f"{what}: start what it adds at zero, or drop starts_at_backbone")


def check_merge(model: Model) -> None:
    """Merge a model, where it can be, and fail where timm's own model is then another or gives other logits."""
    before, merge = model.logits(), model.adapted.merge
    if merge is None:
        return
    merge()
    subject, merged, plain = model.subject, model.assembled.backbone, model.subject.plain_backbone()
    shapes = [{name: t.shape for name, t in each.module.state_dict().items()} for each in (merged, plain)]
    if differing := dict(shapes[0].items() ^ shapes[1].items()):
        fail(subject, f"is merged, but {few(differing)} are not those of the plain backbone")
    after = model.logits_of(merged)
    if not torch.allclose(after, before, rtol=1e-4, atol=1e-4):
        fail(f"{subject}:", f"merge changes the logits by {_gap(after, before):.2g}: fold in all that it learned")


def _setting(method: type[Method[Any]], name: str) -> str:
    return f"the setting '{name}' of {method.__name__}"


def _beyond(setting: Any) -> list[Any]:
    """Values just outside the bounds of a setting."""
    steps = {"ge": -1, "gt": 0, "le": 1, "lt": 0}
    return [
        getattr(limit, key) + step for limit in setting.metadata for key, step in steps.items() if hasattr(limit, key)
    ]


def _shapes(model: Model) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in model.adapted.parameters().items()}


def _gap(first: Tensor, second: Tensor) -> float:
    return float((first - second).abs().max())


def _close(first: Tensor, second: Tensor, tolerance: float) -> bool:
    return torch.allclose(first, second, rtol=tolerance, atol=tolerance * float(second.abs().max()))

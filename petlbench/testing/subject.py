"""A method on a backbone so small that all of its contract takes seconds."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache, lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from petlbench.core.config import RunConfig, TrainingConfig
from petlbench.data.loader import Batch
from petlbench.features.source import LiveFeatures, NoFeatures
from petlbench.models.backbone import Backbone
from petlbench.models.build import Assembled, assemble
from petlbench.models.method import Adapted, Inputs, Method
from petlbench.models.registry import build_backbone, probe_backbone
from petlbench.training.step import Step, new_step

T = TypeVar("T")

BATCH, CLASSES = 4, 3
_CPU = torch.device("cpu")
_FOLDER = TemporaryDirectory(prefix="petlbench-testing-")


@cache
def _stirred_weights(backbone: str, image_size: int) -> Path:
    """Return a file of weights in which no tensor is trivial: zero biases and unit scales would hide mistakes."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        module = build_backbone(backbone, image_size, "none", _CPU).module
        tensors = {name: value for name, value in module.state_dict().items() if value.is_floating_point()}
        stirred = {name: value + 0.1 * torch.randn_like(value) for name, value in tensors.items()}
        state = {**module.state_dict(), **stirred}  # counts stay
    file = Path(_FOLDER.name) / f"{backbone}-{image_size}.safetensors"
    save_file(state, file)
    return file


def _plain_backbone(name: str, image_size: int) -> Backbone:
    """Return a backbone with stirred weights, in evaluation mode."""
    backbone = build_backbone(name, image_size, str(_stirred_weights(name, image_size)), _CPU)
    backbone.module.eval()
    return backbone


_shared_backbone = lru_cache(maxsize=16)(_plain_backbone)


def random_images(image_size: int) -> Tensor:
    """Return the same random images (B, 3, H, W) each time."""
    return torch.randn(BATCH, 3, image_size, image_size, generator=torch.Generator().manual_seed(1))


def graph_leaves(output: Tensor) -> list[Tensor]:
    """Return every tensor that a backward pass from ``output`` would give a gradient."""
    nodes, visited, leaves = [output.grad_fn], set[Any](), []
    while nodes:
        node: Any = nodes.pop()
        if node is None or node in visited:
            continue
        visited.add(node)
        if hasattr(node, "variable"):
            leaves.append(node.variable)
        nodes += [following for following, _ in node.next_functions]
    return leaves


@dataclass(frozen=True)
class Subject:
    """A method, with settings that differ from its defaults, and the backbone that it is tried on, at some pixels."""

    method: type[Method[Any]]
    backbone: str
    image_size: int
    settings: Mapping[str, Any] = field(default_factory=dict, hash=False)

    def __str__(self) -> str:
        """Name it in a message."""
        return f"{self.method.__name__} on {self.backbone} at {self.image_size} pixels"

    def refusal(self) -> str | None:
        """Why the method refuses the backbone; None where it does not."""
        return self.method.from_settings(self.settings).refuse(probe_backbone(self.backbone, self.image_size))

    def config(self, seed: int = 0, **training: Any) -> RunConfig:
        """The run that stands for this subject; without weight decay a tensor changes by its gradient alone."""
        config: dict[str, Any] = {
            "method": self.method.card.name,
            "method_settings": self.settings,
            "dataset": "digits",
        }
        config |= {"backbone": self.backbone, "image_size": self.image_size, "split": "random", "seed": seed}
        config |= {"weights": str(_stirred_weights(self.backbone, self.image_size)), "device": "cpu", "threads": 1}
        steps = TrainingConfig(**{"lr": 1e-3, "weight_decay": 0.0, "batch_size": BATCH, **training})
        return RunConfig.model_validate({**config, "training": steps, "preload": False})

    def adapt(self) -> Adapted:
        """Return what the method makes of a frozen backbone, before the engine freezes what is not declared."""
        backbone = _plain_backbone(self.backbone, self.image_size)
        backbone.module.requires_grad_(False)
        torch.manual_seed(0)
        adapted: Any = self.method.from_settings(self.settings).adapt(backbone, CLASSES)
        if not isinstance(adapted, Adapted):
            raise TypeError(f"adapt returns a {type(adapted).__name__}, not an Adapted(module, learnable)")
        return adapted

    def plain_backbone(self) -> Backbone:
        """Return the backbone as it is before it is adapted, to look at: it is one for all subjects."""
        return _shared_backbone(self.backbone, self.image_size)

    def build(self, seed: int = 0, device: str = "cpu") -> Model:
        """Build the method as the engine does, on ``cpu`` or ``meta``, and let it choose from the data if it does."""
        method = self.method.from_settings(self.settings)
        model = Model(self, assemble(self.config(seed), method, CLASSES, torch.device(device)))
        if model.adapted.prepare is not None and device != "meta":
            model.adapted.prepare([(model.inputs(), model.batch().labels)])
        return model


class Model:
    """A subject that was built, and its parts: what is learned, and the module."""

    def __init__(self, subject: Subject, assembled: Assembled) -> None:
        self.subject, self.assembled = subject, assembled
        self.adapted, self.module = assembled.adapted, assembled.adapted.module

    def batch(self, images: Tensor | None = None, labels: Tensor | None = None) -> Batch:
        """A batch as the engine would load it, of images (B, 3, H, W), random by default, and their labels (B,)."""
        info = self.assembled.backbone.info
        like = next(self.assembled.backbone.module.parameters())
        images = (random_images(info.image_size) if images is None else images).to(like)
        labels = torch.arange(len(images)) % CLASSES if labels is None else labels
        sizes = {name: view.size for name, view in self.assembled.method.views(info, info.image_size).items()}
        views = {name: nn.functional.interpolate(images, size=(size, size)) for name, size in sizes.items()}
        return Batch(torch.arange(len(labels)), views, labels.to(like.device))

    def source(self, batch: Batch) -> Inputs:
        """What the module takes of a batch: views, and features of the frozen backbone where it takes any."""
        if self.assembled.frozen is None:
            return NoFeatures()(batch)
        inputs = LiveFeatures(self.assembled.backbone, self.assembled.frozen, "fp32")(batch)
        if next(self.assembled.backbone.module.parameters()).dtype != torch.float64:
            return inputs
        return Inputs(inputs.views, {n: t.double() if t.is_floating_point() else t for n, t in inputs.features.items()})

    def inputs(self, images: Tensor | None = None) -> Inputs:
        """What the module takes of some images (B, 3, H, W)."""
        return self.source(self.batch(images))

    def tensors(self) -> dict[str, Tensor]:
        """Every tensor of the module and, under ``backbone.``, of a backbone beside it; buffers included."""
        inside = dict(_tensors(self.module))
        # What is shared with the module keeps the module's name; a storage, since two wrappers may hold one tensor.
        shared = {tensor.data_ptr() for tensor in inside.values()}
        beside = _tensors(self.assembled.backbone.module)
        return {**{f"backbone.{n}": t for n, t in beside if t.data_ptr() not in shared}, **inside}

    def buffers(self) -> set[str]:
        """Names of the tensors that are no parameters."""
        return {name for name, tensor in self.tensors().items() if not isinstance(tensor, nn.Parameter)}

    def state(self) -> dict[str, Tensor]:
        """A copy of every tensor, by name."""
        return {name: tensor.detach().clone() for name, tensor in self.tensors().items()}

    def changes(self, before: Mapping[str, Tensor]) -> set[str]:
        """Names of the tensors that are no longer what they were, to the last bit."""
        after = self.tensors()
        return {name for name in before if name not in after or not torch.equal(before[name], after[name])}

    def step(self, **training: Any) -> Step:
        """The engine's step, ready to be taken."""
        self.module.train()
        torch.manual_seed(5)
        return new_step(self.subject.config(**training), self.adapted, self.source, None)

    def take(self, step: Step, batch: Batch, number: int, steps: int) -> Tensor:
        """Take a step as the engine does, the ``number``-th of ``steps`` from 1, and return the loss, a scalar."""
        loss = step(batch)
        if self.adapted.companion is not None:
            self.adapted.companion.after_step(number, steps)
        return loss

    def train(self, steps: int = 3) -> list[float]:
        """Train on one batch and return the losses."""
        step, batch = self.step(), self.batch()
        return [float(self.take(step, batch, number, steps)) for number in range(1, steps + 1)]

    def gradients(self, steps: int = 1, training: bool = True, **settings: Any) -> dict[str, Tensor]:
        """Losses and last gradients of some steps, in training mode or not, after which parameters are put back."""
        before, step, batch = self.state(), self.step(**settings), self.batch()
        self.module.train(training)
        gradients = {"losses": torch.stack([step(batch) for _ in range(steps)])}
        with torch.no_grad():
            for name, tensor in self.adapted.parameters().items():
                assert tensor.grad is not None, name  # noqa: S101 - a rule of its own
                gradients[name] = tensor.grad.clone()
                tensor.copy_(before[name])
        return gradients

    def logits(self, images: Tensor | None = None) -> Tensor:
        """Logits (B, C) in evaluation mode."""
        with torch.no_grad():
            output: Tensor = self.module.eval()(self.inputs(images))
        return output

    def logits_of(self, backbone: Backbone) -> Tensor:
        """Logits (B, C) of a backbone's final feature through the method's head."""
        head: Any = self.module.get_submodule("head")
        with torch.no_grad():
            output: Tensor = head.eval()(backbone.pooled(random_images(backbone.info.image_size)))
        return output


@dataclass(frozen=True)
class Training:
    """A model after three steps, for rules that look and change nothing: its logits (B, C) before, and what changed."""

    model: Model
    start: Tensor
    losses: list[float]
    changed: set[str]


@lru_cache(maxsize=2)
def trained(subject: Subject) -> Training:
    """A subject after three steps, in common for the rules that change nothing."""
    model = built(subject)
    start, before = model.logits(), model.state()
    losses = model.train()
    return Training(model, start, losses, model.changes(before))


def built(subject: Subject) -> Model:
    """A subject that was built; the test is skipped where that cannot be."""
    return attempt(subject, subject.build)


def attempt(subject: Subject, build: Callable[[], T]) -> T:
    """What is built; the test is skipped where it is refused, or where the rule on building says what is wrong."""
    try:
        if not (reason := subject.refusal()):
            return build()
    except Exception as error:  # noqa: BLE001, RUF100 - whatever it is, a rule of its own reports it
        reason = f"cannot be built, see test_it_adapts_or_refuses_with_a_reason: {error}"
    pytest.skip(f"{subject}: {reason}")


def _tensors(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    yield from module.named_parameters()
    yield from module.named_buffers()

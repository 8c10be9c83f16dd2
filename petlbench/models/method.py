"""What a method is: the contract between the engine and the files in ``methods/``.

The engine asks a method for what differs between methods and never asks for its name.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Generic, Literal, Protocol, TypeVar, cast

import torch
from pydantic import BaseModel, ConfigDict
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from petlbench.core.catalog import Catalog
from petlbench.core.config import RunConfig, validate_settings
from petlbench.core.entry import Entry, MethodCard
from petlbench.core.errors import InputError, RunError
from petlbench.core.text import printable
from petlbench.core.user_files import open_file
from petlbench.models.backbone import Backbone
from petlbench.models.info import BackboneInfo

S = TypeVar("S", bound="MethodSettings")

TaskLoss = Callable[[Tensor], Tensor]
"""From logits (B, C) of a batch's images to the mean of the task's loss over them, a scalar."""


class MethodSettings(BaseModel):
    """Base of every method's settings: frozen, unknown keys refused, each field described and bounded."""

    model_config = ConfigDict(frozen=True, extra="forbid")


@dataclass(frozen=True)
class TrainingDefaults:
    """What a run uses when the user says nothing.

    Args:
        lr: Learning rate of AdamW.
        weight_decay: Decoupled weight decay.
        decay: What it acts on: ``all`` that is learned, or ``matrices`` alone, where vectors start at one, say.
        lr_range: Lowest and highest learning rate of AdamW that a search tries; holds ``lr``.
        sgd_lr_range: The same for SGD with a batch of 256 images, scaled with the batch; None where a search keeps to
            AdamW.
        published_lr: The authors' own learning rate by dataset, where they print one; a search's first trial takes it.
        published_rates: Lowest and highest rate of AdamW in the authors' own scripts; ``lr_range`` holds them.
    """

    lr: float
    weight_decay: float = 1e-4
    decay: Literal["all", "matrices"] = "all"
    lr_range: tuple[float, float] = (1e-5, 1e-2)
    sgd_lr_range: tuple[float, float] | None = None
    published_lr: Mapping[str, float] = field(default_factory=dict, hash=False)
    published_rates: tuple[float, ...] = ()


@dataclass(frozen=True)
class ViewSpec:
    """How one image is shown to a module: height and width in pixels, and whether it is augmented in training."""

    size: int
    augment: bool = True


@dataclass(frozen=True)
class TensorSpec:
    """The shape of one image's tensor, without the batch axis, and its type."""

    shape: tuple[int, ...]
    dtype: torch.dtype = torch.float32

    @property
    def bytes(self) -> int:
        """Size of one image's tensor in bytes."""
        return torch.Size(self.shape).numel() * self.dtype.itemsize


@dataclass(frozen=True)
class FeatureSpec:
    """What frozen features look like: one declaration for the cache, the dry run and the meta batch.

    Args:
        view: Name of the view that the backbone reads. It is made for the features alone.
        key: What determines the features beside backbone and image; plain values.
        tensors: One image's tensors by name.
    """

    view: str
    key: Mapping[str, str | int | float | bool]
    tensors: Mapping[str, TensorSpec]

    @property
    def bytes_per_image(self) -> int:
        """Size of one image's features in bytes."""
        return sum(spec.bytes for spec in self.tensors.values())


@dataclass(frozen=True)
class Inputs:
    """What every adapted module takes: images by view, each (B, 3, H, W), and frozen features, each (B, ...).

    ``shared`` are tensors of the frozen backbone, without a batch axis, that features in another form are read by.
    """

    views: Mapping[str, Tensor] = field(default_factory=dict)
    features: Mapping[str, Tensor] = field(default_factory=dict)
    shared: Mapping[str, Tensor] = field(default_factory=dict)


Solve = Callable[[Inputs, TaskLoss], None]
"""Finds what a module learns in one go, given all that it is trained on and the mean of the task's loss over that."""


class FrozenFeatures(Protocol):
    """What a method takes from the frozen backbone; computed once per image when preloaded."""

    def spec(self, backbone: BackboneInfo) -> FeatureSpec:
        """Describe the features without computing them."""
        ...

    def extract(self, backbone: Backbone, image: Tensor) -> dict[str, Tensor]:
        """Compute the features of a batch.

        The engine calls it in evaluation mode and without gradients.

        Args:
            backbone: The frozen backbone.
            image: The view that `spec` names, (B, 3, H, W).

        Returns:
            The tensors that `spec` declares, each with a batch axis in front.
        """
        ...


class Companion(Protocol):
    """What goes along with a training, for methods that need more than a loss and gradients."""

    def penalty(self) -> Tensor:
        """A scalar that is added to the loss in every step; it reads nothing back to the host."""
        ...

    def after_step(self, step: int, steps: int) -> None:
        """Act behind optimiser step ``step`` (from 1) of ``steps``, while its gradients are still there."""
        ...

    def state_dict(self) -> dict[str, Tensor]:
        """What a training that is resumed needs beside the learnable parameters."""
        ...

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Put back what `state_dict` gave."""
        ...


@dataclass(frozen=True)
class Adapted:
    """A backbone made ready for a task.

    Args:
        module: ``forward(Inputs) -> logits (B, C)``. Everything outside ``learnable`` stays frozen.
        learnable: Names of the parameters of ``module`` that are learned; they are what is counted and saved.
        published_extra_total: Parameters that the method's own paper counts in the total and we do not.
        chosen: Names of buffers of ``module`` that ``prepare`` or a step sets; saved with what is learned, not counted.
        prepare: Called once before the training with its images, not augmented and in a seeded order, as pairs of
            inputs and labels (B,). For methods that choose from the data what they learn.
        companion: Goes along with the training, or None.
        merge: Folds what was learned into the backbone's own layers, in place: then the backbone is timm's model
            again, and its final feature through ``module.head`` gives the logits. None where that cannot be.
        loss: What a step minimises, a mean over the inputs' images, given the task's loss. For methods that train more
            than the module's logits; None for the task's loss of these.
        solve: Finds what is learned in one go, in place of all steps, given the inputs of all training images, N of
            them, and the task's mean loss of their logits (N, C). None for methods that are trained step by step;
            `Method.is_solved` says which.
    """

    module: nn.Module
    learnable: frozenset[str]
    published_extra_total: int = 0
    chosen: frozenset[str] = frozenset()
    prepare: Callable[[Iterable[tuple[Inputs, Tensor]]], None] | None = None
    companion: Companion | None = None
    merge: Callable[[], None] | None = None
    loss: Callable[[Inputs, TaskLoss], Tensor] | None = None
    solve: Solve | None = None

    def parameters(self) -> dict[str, nn.Parameter]:
        """The learnable parameters by name, in the module's order."""
        return {name: tensor for name, tensor in self.module.named_parameters() if name in self.learnable}

    def kept(self) -> dict[str, Tensor]:
        """What a run keeps: the learnable parameters and the buffers that were chosen from the data."""
        chosen = {name: tensor for name, tensor in self.module.named_buffers() if name in self.chosen}
        return {**self.parameters(), **chosen}

    def load(self, file: Path, owner: str, hint: str) -> None:
        """Put back what a safetensors file keeps of it; nothing is changed where the file is not good.

        Args:
            file: The file.
            owner: What learns such tensors, for the error.
            hint: The next step where it does not.

        Raises:
            InputError: When the file cannot be read (kind ``bad_result``), or holds other tensors by name, shape or
                type, or numbers that are not finite (``bad_weights``).
        """
        try:
            open_file(file, what="file of what was learned").close()
            stored, own = load_file(file), self.kept()
        except (InputError, OSError, SafetensorError) as error:
            raise InputError(f"{file} cannot be read: {error}", hint=hint, kind="bad_result") from error
        faults = [printable(name) for name in sorted(set(stored) ^ set(own))]
        faults += [
            f"{name} is {stored[name].dtype} {tuple(stored[name].shape)} for {tensor.dtype} {tuple(tensor.shape)}"
            for name, tensor in own.items()
            if name in stored and (stored[name].shape, stored[name].dtype) != (tensor.shape, tensor.dtype)
        ]
        if faults:
            message = f"{file} is not what {owner} learns: {', '.join(faults[:3])}"
            raise InputError(message, hint=hint, kind="bad_weights")
        if wrong := next((name for name, tensor in stored.items() if not torch.isfinite(tensor).all()), None):
            message = f"{file} holds numbers in {printable(wrong)} that are not finite"
            raise InputError(message, hint=hint, kind="bad_weights")
        with torch.no_grad():
            for name, tensor in own.items():
                tensor.copy_(stored[name])

    def check(self, inputs: Inputs, labels: Tensor, num_classes: int) -> None:
        """Check once what the module says of a few images (B, ...) with labels (B,), in evaluation mode.

        Raises:
            RunError: When it is no logits (B, C), they are not finite, or what is learned has no part in them (kind
                ``bad_module``).
        """
        self.module.eval()
        devices = [labels.device] if labels.device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices), torch.enable_grad():
            logits = self.module(inputs)
            if not isinstance(logits, Tensor) or logits.shape != (len(labels), num_classes):
                shape = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
                raise _bad_module(f"gives {shape} for {len(labels)} images of {num_classes} classes")
            if not torch.isfinite(logits).all():
                raise _bad_module("gives logits that are not finite, before any training")
            learnable = list(self.parameters().values())
            is_used = logits.requires_grad and any(
                gradient is not None for gradient in torch.autograd.grad(logits.sum(), learnable, allow_unused=True)
            )
        if not is_used:
            raise _bad_module("gives logits in which nothing that is learned has a part")

    def freeze_the_rest(self) -> None:
        """Let gradients reach the learnable parameters and nothing else.

        Raises:
            ValueError: When a declared name is not a parameter of the module.
        """
        present = {name for name, _ in self.module.named_parameters()}
        if absent := sorted(self.learnable - present):
            raise ValueError(f"declared learnable but not in the module: {', '.join(absent[:5])}")
        for name, tensor in self.module.named_parameters():
            tensor.requires_grad_(name in self.learnable)


def _bad_module(fault: str) -> RunError:
    hint = "adapt() has to return a module that maps Inputs to logits (B, C); see docs/adding_a_method.md"
    return RunError(f"the method's module {fault}", hint=hint, kind="bad_module")


class Method(ABC, Generic[S]):
    """A way to adapt a backbone; one class in one file of ``methods/``.

    A subclass sets ``card``, ``Settings`` and ``defaults``. The engine calls, in this order: `refuse` and `views`
    before any weight is loaded, `features` to know whether the backbone can be left out of training, `adapt` once.

    Attributes:
        starts_at_backbone: A promise: before the first step the logits are those of the frozen backbone's final feature
            through the new head.
        preloads_by_default: Whether frozen features, where there are any, are preloaded without being asked for; for
            features of moderate size.

    Args:
        settings: Validated settings; None to make them of the values.
        values: Settings by name; what is left out takes its default.

    Raises:
        InputError: When a name is unknown or a value is out of bounds.

    Example:
        >>> LoRA(rank=4).settings.rank  # doctest: +SKIP
        4
    """

    card: ClassVar[MethodCard]
    Settings: ClassVar[type[MethodSettings]] = MethodSettings
    defaults: ClassVar[TrainingDefaults] = TrainingDefaults(lr=1e-3)
    starts_at_backbone: ClassVar[bool] = False
    preloads_by_default: ClassVar[bool] = True

    def __init__(self, settings: S | None = None, **values: Any) -> None:
        owner = f"method {self.card.name}" if hasattr(self, "card") else type(self).__name__
        self.settings = settings or cast("S", validate_settings(self.Settings, values, owner))

    @property
    def is_solved(self) -> bool:
        """Whether no step is taken, as `Adapted.solve` finds what is learned; settings of steps then play no part."""
        return False

    def refuse(self, backbone: BackboneInfo) -> str | None:
        """Say why this method cannot work on a backbone, or return None when it can."""
        return None

    def views(self, backbone: BackboneInfo, image_size: int) -> dict[str, ViewSpec]:
        """Name the views of an image that the module or its frozen features need."""
        return {"fine": ViewSpec(image_size)}

    def features(self, backbone: BackboneInfo) -> FrozenFeatures | None:
        """The frozen features that the module eats, or None when it reads images alone."""
        return None

    @abstractmethod
    def adapt(self, backbone: Backbone, num_classes: int) -> Adapted:
        """Build the module to train.

        Torch's global generator is seeded before the call, so plain initialisers repeat to the last bit. The call
        must also work when the backbone lives on device ``meta``.

        Args:
            backbone: The pre-trained backbone; may be changed in place.
            num_classes: Number of classes C.

        Returns:
            The module and the names of what it learns.
        """

    @classmethod
    def from_settings(cls, values: Mapping[str, Any]) -> Method[Any]:
        """Return the method with settings by name, as its constructor takes them."""
        return cls(**values)


class Classifier(nn.Module):
    """A backbone that reads the fine view, as the child ``backbone``, with a new ``head``: what most methods adapt."""

    def __init__(self, backbone: Backbone, num_classes: int) -> None:
        super().__init__()
        self._pooled = backbone.pooled
        self.backbone = backbone.module
        self.head = new_head(backbone.info.feature_width, num_classes)

    def forward(self, inputs: Inputs) -> Tensor:
        """Map the fine view (B, 3, H, W) to logits (B, C)."""
        return cast("Tensor", self.head(self._pooled(inputs.views["fine"])))


def nothing_to_merge() -> None:
    """The ``merge`` of methods that learn the backbone's own tensors and a linear head, and add nothing."""


def new_head(width: int, num_classes: int) -> nn.Linear:
    """The linear layer on top of a feature: truncated normal weights (0.02) and zero bias, as in ViT."""
    head = nn.Linear(width, num_classes)
    nn.init.trunc_normal_(head.weight, std=0.02)
    nn.init.zeros_(head.bias)
    return head


def configured_method(config: RunConfig, catalog: Catalog) -> Method[Any]:
    """The method of a run with its settings.

    Raises:
        InputError: When the method is unknown, or one of its settings.
    """
    return load_method(catalog.find("method", config.method)).from_settings(config.method_settings)


def load_method(entry: Entry) -> type[Method[Any]]:
    """The method class of a catalogue entry, whose file is imported.

    Raises:
        InputError: When the file cannot be imported or its class is no `Method`; the file is named.
    """
    return cast("type[Method[Any]]", entry.load(Method))  # type: ignore[type-abstract]

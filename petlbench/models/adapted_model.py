"""A user's own timm model, adapted: a plain module from images to logits, for anybody's training loop."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from pathlib import Path
from typing import Any, cast

import torch
from timm.models import PretrainedCfg
from torch import Tensor, nn
from torch.nn import functional as F

from petlbench.core.errors import InputError
from petlbench.core.files import write_tensors
from petlbench.models.backbone import Backbone, freeze_statistics
from petlbench.models.info import BackboneInfo
from petlbench.models.method import Inputs, Method, TaskLoss
from petlbench.models.structure import describe_module

_FACTS = ("input_size", "num_classes", "mean", "std", "interpolation")


def adapt_model(model: nn.Module, method: Method[Any], num_classes: int) -> AdaptedModel:
    """A timm model with a method put on it.

    Args:
        model: A vision transformer of timm's, with or without a classifier; it is changed in place, and its weights
            are those that the method starts from.
        method: The method.
        num_classes: Number of classes C of the new head.

    Raises:
        InputError: When it is no vision transformer, or the method cannot adapt it.
    """
    if reset := getattr(model, "reset_classifier", None):
        reset(0)
    freeze_statistics(model)
    info = _describe(model)
    if reason := method.refuse(info):
        raise InputError(
            f"{method.card.name} cannot adapt {info.name}: {reason}",
            hint="choose another model, or other settings",
            kind="unsupported",
        )
    return AdaptedModel(Backbone(info, model), method, num_classes)


class AdaptedModel(nn.Module):
    """A backbone and what a method learns on it, as one module: images (B, 3, H, W) to logits (B, C).

    The images are normalised as the backbone wants them, H and W are its image size. What the method reads besides (a
    smaller view, or what the frozen backbone says of the image) is made here, the latter without gradients.

    Args:
        backbone: The backbone; changed in place.
        method: The method.
        num_classes: Number of classes C.
    """

    def __init__(self, backbone: Backbone, method: Method[Any], num_classes: int) -> None:
        super().__init__()
        self.info, self.method_name = backbone.info, method.card.name
        self._views = method.views(backbone.info, backbone.info.image_size)
        self._frozen = method.features(backbone.info)
        self._adapted = method.adapt(backbone, num_classes)
        self._adapted.freeze_the_rest()
        self._backbone = backbone
        self.module = self._adapted.module.to(backbone.device)
        if self._frozen is not None:  # it is not part of the module that learns, and moves along with it all the same
            self.frozen_backbone = backbone.module.eval().requires_grad_(False)

    def forward(self, images: Tensor) -> Tensor:
        """The logits (B, C) of normalised images (B, 3, H, W).

        Raises:
            InputError: When H or W is not the backbone's image size.
        """
        return cast("Tensor", self.module(self._inputs(images)))

    def _inputs(self, images: Tensor) -> Inputs:
        """What the module takes of images (B, 3, H, W): the views, and the features of the frozen backbone."""
        side = self.info.image_size
        if images.shape[-2:] != (side, side):
            raise InputError(
                f"images of {images.shape[-2]} x {images.shape[-1]} pixels, and {self.info.name} reads {side} x {side}",
                hint="resize them, or create the model with img_size=",
                kind="bad_image_size",
            )
        views = {name: _resized(images, spec.size) for name, spec in self._views.items()}
        if self._frozen is None:
            return Inputs(views)
        spec = self._frozen.spec(self.info)
        with torch.no_grad():
            features = self._frozen.extract(self._backbone, views.pop(spec.view))
        return Inputs(views, {name: value.to(spec.tensors[name].dtype) for name, value in features.items()})

    def train(self, mode: bool = True) -> AdaptedModel:
        """Set what learns to training; a frozen backbone beside it stays in evaluation mode."""
        super().train(mode)
        if self._frozen is not None:
            self.frozen_backbone.eval()
        return self

    def learnable_parameters(self) -> list[nn.Parameter]:
        """The parameters that an optimiser is to be given, in the module's order."""
        return list(self._adapted.parameters().values())

    def loss(self, images: Tensor, task_loss: TaskLoss) -> Tensor:
        """What a training step minimises, a scalar; for most methods the task's loss of the images' logits.

        Args:
            images: Normalised images, (B, 3, H, W).
            task_loss: From logits (B, C) of these images to the mean of the task's loss over them.

        Raises:
            InputError: When H or W is not the backbone's image size.
        """
        if self._adapted.loss is None:
            return task_loss(self(images))
        return self._adapted.loss(self._inputs(images), task_loss)

    def penalty(self) -> Tensor:
        """What the method adds to the loss of every step, a scalar; zero for most methods."""
        companion = self._adapted.companion
        return torch.zeros((), device=self._backbone.device) if companion is None else companion.penalty()

    def after_step(self, step: int, steps: int) -> None:
        """Let the method act behind optimiser step ``step`` (from 1) of ``steps``, its gradients there; most do not."""
        if self._adapted.companion is not None:
            self._adapted.companion.after_step(step, steps)

    def prepare(self, batches: Iterable[tuple[Tensor, Tensor]]) -> None:
        """Let the method choose from training images what it learns; most choose nothing. Called once, before training.

        Args:
            batches: Pairs of normalised images (B, 3, H, W) and labels (B,).
        """
        if self._adapted.prepare is not None:
            self._adapted.prepare((self._inputs(images), labels) for images, labels in batches)

    def save(self, file: str | Path) -> None:
        """Write what was learned, and nothing else, to a safetensors file."""
        tensors = {name: tensor.detach().cpu() for name, tensor in self._adapted.kept().items()}
        write_tensors(Path(file), tensors, {"method": self.method_name, "backbone": self.info.name})

    def load(self, file: str | Path) -> AdaptedModel:
        """Put back what `save` wrote, or what a run has learned.

        Raises:
            InputError: When the file holds other tensors than this model learns.
        """
        hint = "adapt the model with the method and the settings that it was learned with"
        self._adapted.load(Path(file), f"{self.method_name} on {self.info.name}", hint)
        return self

    def merge(self) -> nn.Module:
        """The user's own model again, what was learned folded in and the new head in front; this object is spent.

        Raises:
            InputError: When the method cannot be folded into the backbone's own layers.
        """
        if self._adapted.merge is None:
            raise InputError(
                f"what {self.method_name} learns cannot be folded into the backbone's own layers",
                hint="keep the model as it is, and save() what it learned",
                kind="cannot_merge",
            )
        with torch.no_grad():
            self._adapted.merge()
            head, model = cast("Any", self.module.get_submodule("head")), cast("Any", self._backbone.module)
            model.reset_classifier(head.out_features)
            model.get_classifier().load_state_dict(head.state_dict())
        return cast("nn.Module", model.to(self._backbone.device))


def _resized(images: Tensor, size: int) -> Tensor:
    """Images (B, 3, H, W) as a view of another size, (B, 3, size, size)."""
    if images.shape[-1] == size:
        return images
    return F.interpolate(images, size=(size, size), mode="bicubic", antialias=True, align_corners=False)


def _describe(model: nn.Module) -> BackboneInfo:
    """The structure of a model that a user made; a copy without values is taken apart for it."""
    # Parameters and buffers are put in the memo without values, so that the copy takes no room.
    hollow: dict[int, Any] = {id(buffer): torch.empty_like(buffer, device="meta") for buffer in model.buffers()}
    for parameter in model.parameters():
        hollow[id(parameter)] = nn.Parameter(torch.empty_like(parameter, device="meta"), parameter.requires_grad)
    facts = dict(getattr(model, "pretrained_cfg", None) or {})
    cfg = PretrainedCfg(**{name: facts[name] for name in _FACTS if name in facts})
    name = ".".join(part for part in (facts.get("architecture"), facts.get("tag")) if part) or type(model).__name__
    return describe_module(copy.deepcopy(model, hollow), name, cfg)

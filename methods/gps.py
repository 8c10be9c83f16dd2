"""Gradient-based parameter selection: of every neuron's incoming weights, those with the largest gradients."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.utils import parametrize

from petlbench import (
    Adapted,
    Backbone,
    BackboneInfo,
    Classifier,
    Inputs,
    Method,
    MethodCard,
    MethodSettings,
    TrainingDefaults,
)

__all__ = ["GPS", "GPSSettings", "SparseUpdate", "contrastive_loss"]

# Where the update of a layer's weight, and what it is added to, are found by name.
_UPDATE, _ORIGINAL = "parametrizations.weight.0", "parametrizations.weight.original"


class GPSSettings(MethodSettings):
    """How much is learned; the temperature is that of the supervised contrastive loss's authors."""

    connections: int = Field(
        1, ge=1, le=96, description="learned weights of a neuron, K", json_schema_extra={"search": [1, 2, 15, 20]}
    )
    temperature: float = Field(0.07, gt=0, le=100, description="temperature of the loss that chooses them")


class GPS(Method[GPSSettings]):
    """Learns K incoming weights of every neuron, those with the largest gradients at the start (GPS, section 3).

    The gradients are those of a supervised contrastive loss on the final feature, added up over the training images,
    so that the new head plays no part. As in the authors' code, and unlike in the paper's text, biases outside norms
    are learned too, and so are the scales of layer scale and the tables of relative positions. The authors show each
    image in two random views; here it is shown once, not augmented, and an image without another of its class in the
    batch is no anchor.
    """

    card = MethodCard(
        name="gps",
        title="GPS",
        family="sparse",
        year=2024,
        paper="https://arxiv.org/abs/2312.10136",
        summary="Learns, of every neuron, the incoming weights with the largest gradients, and the biases.",
    )
    Settings = GPSSettings
    # Of the twelve rates of the authors' 24 scripts the one that most of them have; they use no weight decay.
    defaults = TrainingDefaults(lr=2e-3, weight_decay=0.0, published_rates=(1e-4, 1e-2))
    starts_at_backbone = True

    def refuse(self, backbone: BackboneInfo) -> str | None:
        """Needs blocks, and neurons with as many incoming weights as are to be learned."""
        if lacking := backbone.lacks("blocks"):
            return lacking
        fewest = min(3 * backbone.patch**2, backbone.width)
        if self.settings.connections > fewest:
            return f"{self.settings.connections} connections are wanted; a neuron of {backbone.name} has {fewest}"
        return None

    def adapt(self, backbone: Backbone, num_classes: int) -> Adapted:
        """Put a sparse update on every weight matrix and name it, the biases and a head as learnable."""
        layers = {name: layer for name, layer in backbone.module.named_modules() if _has_neurons(layer)}
        for layer in layers.values():
            update = SparseUpdate(layer.weight, self.settings.connections)
            parametrize.register_parametrization(layer, "weight", update)
        module = Classifier(backbone, num_classes)
        names = (name for name, _ in module.named_parameters())
        return Adapted(
            module,
            learnable=frozenset(name for name in names if _is_learned(name)),
            chosen=frozenset(f"backbone.{name}.{_UPDATE}.index" for name in layers),
            prepare=lambda batches: self._choose(backbone, list(layers.values()), batches),
            merge=lambda: _merge(layers.values()),
        )

    def _choose(self, backbone: Backbone, layers: list[Any], batches: Iterable[tuple[Inputs, Tensor]]) -> None:
        """Add up the gradients of every weight matrix and keep the places of the largest."""
        weights = [layer.get_parameter(_ORIGINAL) for layer in layers]
        totals = [torch.zeros_like(weight) for weight in weights]
        backbone.module.eval()
        for weight in weights:
            weight.requires_grad_(True)
        for inputs, labels in batches:
            loss = contrastive_loss(backbone.pooled(inputs.views["fine"]), labels, self.settings.temperature)
            gradients = torch.autograd.grad(loss, weights)
            totals = [total + gradient for total, gradient in zip(totals, gradients, strict=True)]
        for layer, weight, total in zip(layers, weights, totals, strict=True):
            weight.requires_grad_(False)
            layer.get_submodule(_UPDATE).choose(total)


class SparseUpdate(nn.Module):
    """Adds a learned number to K weights of every neuron: W.scatter_add(1, index, delta).

    Args:
        weight: The weights W, one neuron a row, (R, ...).
        connections: Learned weights of a neuron, K.
    """

    index: Tensor

    def __init__(self, weight: Tensor, connections: int) -> None:
        super().__init__()
        self.delta = nn.Parameter(weight.new_zeros(len(weight), connections))
        self.register_buffer("index", torch.arange(connections, device=weight.device).repeat(len(weight), 1))

    def forward(self, weight: Tensor) -> Tensor:
        """Map the frozen weights to those that the layer uses, both (R, ...)."""
        return weight.flatten(1).scatter_add(1, self.index, self.delta).view_as(weight)

    def choose(self, gradient: Tensor) -> None:
        """Learn the weights with the largest absolute gradients, (R, ...)."""
        largest = gradient.flatten(1).abs().topk(self.index.shape[1], dim=1)
        self.index.copy_(largest.indices)


def contrastive_loss(features: Tensor, labels: Tensor, temperature: float) -> Tensor:
    """Supervised contrastive loss (Khosla et al., 2020, eq. 2), over the anchors that have a positive.

    Args:
        features: Features, (B, D); only their directions count.
        labels: Classes, (B,).
        temperature: Divides the cosines.

    Returns:
        A scalar; zero where no two images share a class.
    """
    directions = nn.functional.normalize(features, dim=1)
    itself = torch.eye(len(labels), dtype=torch.bool, device=labels.device)
    scores = (directions @ directions.T / temperature).masked_fill(itself, float("-inf"))
    log_shares = scores.log_softmax(dim=1)
    positive = (labels[:, None] == labels[None, :]) & ~itself
    counts = positive.sum(dim=1)
    each = -log_shares.masked_fill(~positive, 0.0).sum(dim=1) / counts.clamp(min=1)
    return each.sum() / (counts > 0).sum().clamp(min=1)


def _has_neurons(layer: nn.Module) -> bool:
    return isinstance(layer, nn.Linear | nn.Conv2d)


def _is_learned(name: str) -> bool:
    if name.startswith("head.") or name.endswith(f"{_UPDATE}.delta"):
        return True
    last = name.rpartition(".")[2]
    return "norm" not in name and ("bias" in last or "gamma" in last)


def _merge(layers: Iterable[Any]) -> None:
    for layer in layers:
        parametrize.remove_parametrizations(layer, "weight", leave_parametrized=True)

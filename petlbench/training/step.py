"""ONE optimiser step, tensors only: the same code trains on real tensors and is predicted on device ``meta``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from petlbench.core.config import RunConfig
from petlbench.data.loader import Batch
from petlbench.data.tasks.base import Scale
from petlbench.models.method import Adapted, Companion, Inputs, TaskLoss
from petlbench.models.precision import autocast
from petlbench.training.loss import Loss, Objective
from petlbench.training.losses.cross_entropy import CROSS_ENTROPY
from petlbench.training.optim import new_optimizer


@dataclass
class Step:
    """Everything that one optimiser step needs.

    Nothing here reads a value back to the host: on device ``meta`` there is none.

    Args:
        module: ``forward(Inputs) -> logits``.
        source: Turns a batch into what the module takes.
        objective: The loss.
        optimizer: Updates the learnable parameters.
        clip_grad_norm: Largest gradient norm; 0 for no clipping.
        precision: ``fp32``, ``bf16`` or ``fp16``.
        scaler: Scales the loss so that fp16 gradients do not vanish; disabled otherwise.
        micro_batch_size: Images that go through the module at once. The gradients of a larger batch's parts add up
            to its own.
        companion: Adds its penalty to the loss, where a method has one.
        loss: The method's own loss, which is given the task's; None for the task's loss of the module's logits.
    """

    module: nn.Module
    source: Callable[[Batch], Inputs]
    objective: Objective
    optimizer: torch.optim.Optimizer
    clip_grad_norm: float
    precision: str
    scaler: torch.amp.GradScaler
    micro_batch_size: int
    companion: Companion | None = None
    loss: Callable[[Inputs, TaskLoss], Tensor] | None = None

    def __call__(self, batch: Batch) -> Tensor:
        """The loss before the step that is taken, a detached scalar, of a batch on the device."""
        self.optimizer.zero_grad(set_to_none=True)
        losses: list[Tensor] = []
        for piece in batch.micro_batches(self.micro_batch_size):
            # The penalty counts once a step, however many pieces there are.
            losses.append(self._backward(piece, batch.labels, self.companion if not losses else None))
        self._update()
        return torch.stack(losses).sum()

    def _backward(self, piece: Batch, whole: Tensor, companion: Companion | None) -> Tensor:
        """A piece's part of the loss, its gradients added; all that it needs ends here, before the next one begins."""
        inputs = self.source(piece)
        with autocast(whole.device, self.precision):
            loss = self._loss(inputs, piece.labels, whole)
            if companion is not None:
                loss = loss + companion.penalty()
        self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call, unused-ignore]
        return loss.detach()

    def _loss(self, inputs: Inputs, labels: Tensor, whole: Tensor) -> Tensor:
        """A piece's part of the mean loss over the batch, a scalar."""
        in_parts = len(labels) < len(whole)
        share = self.objective.share(labels, whole) if in_parts else 1.0
        if self.loss is None:
            loss = self.objective(self.module(inputs), labels)
            return loss * share if in_parts else loss
        # What a method adds is a mean over images, whatever their classes weigh.
        images = len(labels) / len(whole)
        return images * self.loss(inputs, lambda logits: share / images * self.objective(logits, labels))

    def _update(self) -> None:
        if self.clip_grad_norm > 0:
            self.scaler.unscale_(self.optimizer)
            self._clip()
        self.scaler.step(self.optimizer)
        self.scaler.update()

    def _clip(self) -> None:
        # torch's clip_grad_norm_ refuses meta tensors in its foreach form and the two forms differ in memory, so the
        # device decides in one place only.
        parameters = [tensor for group in self.optimizer.param_groups for tensor in group["params"]]
        on_meta = parameters[0].device.type == "meta"
        nn.utils.clip_grad_norm_(parameters, self.clip_grad_norm, foreach=None if not on_meta else False)


def new_step(
    config: RunConfig,
    adapted: Adapted,
    source: Callable[[Batch], Inputs],
    class_weights: Tensor | None,
    loss: Loss = CROSS_ENTROPY,
    *,
    scale: Scale | None = None,
) -> Step:
    """The optimiser step that a config describes.

    Args:
        config: The run.
        adapted: The module and what it learns.
        source: Turns a batch into what the module takes.
        class_weights: Weight of each class, (C,), or None.
        loss: The loss that the config names.
        scale: What the module's outputs are in, where that is not the labels' own unit.
    """
    training, parameters = config.training, adapted.parameters()
    device = next(iter(parameters.values())).device.type
    return Step(
        module=adapted.module,
        source=source,
        objective=Objective(loss, training.label_smoothing, class_weights, scale),
        optimizer=new_optimizer(parameters, training, config.device),
        clip_grad_norm=training.clip_grad_norm,
        precision=config.precision,
        scaler=torch.amp.GradScaler(
            device if device != "meta" else "cpu", enabled=config.precision == "fp16" and device != "meta"
        ),
        micro_batch_size=training.micro_batch_size,
        companion=adapted.companion,
        loss=adapted.loss,
    )

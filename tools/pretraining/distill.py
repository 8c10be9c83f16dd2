"""The student learns to say what the teacher says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from timm.layers.pos_embed import resample_abs_pos_embed
from torch import Tensor, nn
from torch.nn import functional as F

from petlbench.core.files import write_atomically, write_tensors
from petlbench.core.interrupt import check_interrupt
from petlbench.core.progress import Progress
from petlbench.models.micro import petlbench_micro
from tools.pretraining.drawing import SIZE
from tools.pretraining.pool import Pool
from tools.pretraining.teacher import TARGETS

__all__ = ["Recipe", "distill"]

_PATCH = 16
# What a step sees of the images: their size in pixels, and the share of the patches. Half of them, in other places in
# each step, teach as much in half the time; smaller images are seen because the backbone is used on them, too.
_VIEWS = ((SIZE, 0.5), (SIZE, 0.5), (SIZE, 1.0), (96, 1.0), (64, 1.0))


@dataclass(frozen=True)
class Recipe:
    """How the student is trained.

    Args:
        epochs: How often each image of the pool is seen.
        batch_size: Images a step.
        learning_rate: Highest of a cosine with a warm-up of 5 % of the steps; AdamW.
        weight_decay: Of all matrices.
        seed: Of weights, order, sizes and flips.
    """

    epochs: int = 10
    batch_size: int = 64
    learning_rate: float = 1e-3
    weight_decay: float = 0.05
    seed: int = 0


def distill(pool: Pool, recipe: Recipe, folder: Path, output: Path, progress: Progress) -> None:
    """Train the student and write its weights in fp16.

    Args:
        pool: Images and targets.
        recipe: How.
        folder: Where a checkpoint is kept after every epoch; a training that was stopped goes on from it. That of
            another recipe or pool is ignored.
        output: The safetensors file.
        progress: Told of steps and epochs.
    """
    training = _Training(pool, recipe)
    checkpoint, made_by = folder / "checkpoint.pt", f"{recipe} on {len(pool)} images"
    if checkpoint.exists():
        state = torch.load(checkpoint, map_location="cpu", weights_only=True)
        if state.get("made_by") == made_by:
            training.load_state_dict(state)
    progress.phase("distilling", recipe.epochs * training.steps)
    progress.advance(training.epoch * training.steps)
    while training.epoch < recipe.epochs:
        loss = training.run_epoch(progress)
        with write_atomically(checkpoint) as temporary:
            torch.save({"made_by": made_by, **training.state_dict()}, temporary)
        progress.say(f"epoch {training.epoch} of {recipe.epochs}: loss {loss:.4f}")
    weights = {name: value.half() for name, value in training.student.backbone.state_dict().items()}
    with write_atomically(output) as temporary:
        # One entry: the library writes several in any order, and the same weights would be other bytes.
        write_tensors(temporary, weights, {"made_by": made_by})


class _Student(nn.Module):
    """The backbone, with one layer for each target that reads it off the tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone: Any = petlbench_micro(img_size=SIZE, num_classes=0)
        width = self.backbone.embed_dim
        self.image = nn.Linear(width, TARGETS["image"][0])
        self.tokens = nn.Linear(width, TARGETS["tokens"][0])

    def forward(self, pixels: Tensor, kept: Tensor) -> dict[str, Tensor]:
        """Predict the targets of images (B, 3, S, S) from K of their (S / 16)^2 patches: (B, C) and (B, C, K)."""
        model = self.backbone
        patches = model.patch_embed.proj(pixels)
        grid = (int(patches.shape[2]), int(patches.shape[3]))
        places = resample_abs_pos_embed(model.pos_embed, grid, num_prefix_tokens=1)
        patches = patches.flatten(2).transpose(1, 2) + places[:, 1:]
        first = (model.cls_token + places[:, :1]).expand(len(pixels), -1, -1)
        tokens = model.norm(model.blocks(torch.cat((first, patches[:, kept]), dim=1)))
        return {"image": self.image(tokens[:, 0]), "tokens": self.tokens(tokens[:, 1:]).transpose(1, 2)}


class _Training:
    def __init__(self, pool: Pool, recipe: Recipe) -> None:
        torch.manual_seed(recipe.seed)
        self._pool, self._recipe = pool, recipe
        self.student = _Student()
        self.epoch = 0
        self.steps = len(pool) // recipe.batch_size
        self._optimizer = torch.optim.AdamW(
            _groups(self.student, recipe.weight_decay), lr=recipe.learning_rate, betas=(0.9, 0.98)
        )
        self._schedule = torch.optim.lr_scheduler.OneCycleLR(
            self._optimizer,
            max_lr=recipe.learning_rate,
            total_steps=recipe.epochs * self.steps,
            pct_start=0.05,
            cycle_momentum=False,
        )

    def run_epoch(self, progress: Progress) -> float:
        """See every image once and return the mean loss."""
        chance = torch.Generator().manual_seed(1000 * self._recipe.seed + self.epoch)
        order = torch.randperm(len(self._pool), generator=chance)
        total = 0.0
        for rows in torch.split(order, self._recipe.batch_size)[: self.steps]:
            total += self._step(*self._view(*self._pool.batch(rows), chance))
            check_interrupt()
            progress.advance()
        self.epoch += 1
        return total / self.steps

    @staticmethod
    def _view(
        pixels: Tensor, targets: Mapping[str, Tensor], chance: torch.Generator
    ) -> tuple[Tensor, dict[str, Tensor], Tensor]:
        """Flip, shrink and thin out a batch, and with it what the teacher finds at each place."""
        size, share = _VIEWS[int(torch.randint(len(_VIEWS), (), generator=chance))]
        tokens = targets["tokens"]
        if torch.rand((), generator=chance) < 0.5:
            pixels, tokens = pixels.flip(-1), tokens.flip(-1)
        if size != SIZE:
            pixels = F.interpolate(pixels, size=(size, size), mode="area")
            tokens = F.adaptive_avg_pool2d(tokens, size // _PATCH)
        tokens = tokens.flatten(2)
        kept = torch.randperm(tokens.shape[2], generator=chance)[: int(share * tokens.shape[2])]
        return pixels, {"image": targets["image"], "tokens": tokens[:, :, kept]}, kept

    def _step(self, pixels: Tensor, targets: Mapping[str, Tensor], kept: Tensor) -> float:
        answers = self.student(pixels, kept)
        loss = torch.stack([F.mse_loss(answers[name], target) for name, target in targets.items()]).sum()
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call, unused-ignore]
        nn.utils.clip_grad_norm_(self.student.parameters(), 1.0)
        self._optimizer.step()
        self._schedule.step()
        return float(loss.detach())

    def state_dict(self) -> dict[str, Any]:
        """All that goes on from epoch to epoch."""
        return {
            "student": self.student.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "schedule": self._schedule.state_dict(),
            "epoch": self.epoch,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from there."""
        self.student.load_state_dict(state["student"])
        self._optimizer.load_state_dict(state["optimizer"])
        self._schedule.load_state_dict(state["schedule"])
        self.epoch = state["epoch"]


def _groups(module: nn.Module, decay: float) -> list[dict[str, Any]]:
    matrices = [tensor for tensor in module.parameters() if tensor.ndim > 1]
    vectors = [tensor for tensor in module.parameters() if tensor.ndim <= 1]
    return [{"params": matrices, "weight_decay": decay}, {"params": vectors, "weight_decay": 0.0}]

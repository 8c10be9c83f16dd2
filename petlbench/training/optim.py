"""The optimiser of a run, and its learning rate over the steps: timm's by name."""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import torch
from timm.optim._optim_factory import create_optimizer_v2, get_optimizer_class, list_optimizers
from timm.scheduler.scheduler_factory import create_scheduler_v2
from torch import nn

from petlbench.core.config import TrainingConfig
from petlbench.core.errors import InputError, unknown_name

# timm's sgd has Nesterov's momentum; papers that say SGD mean the plain one.
_NAMES = {"sgd": "momentum"}
_MOMENTUM = 0.9
# Optimisers that do the same to the last bit with one tensor after the other. On a CPU they do it in half the time,
# where more numbers are learned than its caches hold.
_ALIKE_IN_TURN = ("adamw", "momentum")
_IN_CACHES = 2**18
# What a step schedule multiplies the rate by after every third of the epochs.
_DECAY_RATE = 0.1


def check_optimizer(name: str) -> None:
    """Raise an InputError where timm knows no optimiser of a name."""
    names = list(map(str, list_optimizers()))
    if name not in names:
        raise InputError(
            f"training: optimizer = '{name}' is refused (--optimizer): timm has 'adamw', 'sgd', 'lamb', 'lion' and "
            f"{len(names) - 4} more, and not that",
            hint=unknown_name("optimizer", name, names).hint,
            kind="bad_setting",
        )


def new_optimizer(
    parameters: Mapping[str, nn.Parameter], training: TrainingConfig, device: str = "cuda"
) -> torch.optim.Optimizer:
    """The optimiser that a config names, as timm builds it, of what is learned, by name, for a type of device."""
    name = _NAMES.get(training.optimizer, training.optimizer)
    is_plain = training.layer_decay == 1 and training.decay == "all"
    tensors: Any = [*parameters.values()] if is_plain else _groups(parameters, training)
    # On CUDA AdamW is one kernel that keeps nothing beside its state, and reads nothing back with scaled gradients.
    places = {tensor.device.type for tensor in parameters.values()}
    is_fused = device == "cuda" and name == "adamw" and places <= {"cuda", "meta"}
    # One kernel for many tensors, where the optimiser has that.
    in_turn = device == "cpu" and name in _ALIKE_IN_TURN and sum(map(torch.numel, parameters.values())) > _IN_CACHES
    has_foreach = "foreach" in inspect.signature(get_optimizer_class(name, bind_defaults=False)).parameters
    optimizer = create_optimizer_v2(
        tensors,
        name,
        lr=training.lr,
        weight_decay=training.weight_decay,
        momentum=_MOMENTUM,
        **({"fused": True} if is_fused else {"foreach": not in_turn if has_foreach else None}),
    )
    if is_fused and "meta" in places:
        optimizer.register_step_pre_hook(_begin_fused)
    return optimizer


def _begin_fused(optimizer: torch.optim.Optimizer, *_: object) -> None:
    """Make the state that fused AdamW makes in its first step, where torch refuses to: on device ``meta``."""
    for tensor in (tensor for group in optimizer.param_groups for tensor in group["params"]):
        if tensor.grad is not None and not optimizer.state[tensor]:
            optimizer.state[tensor] = {
                "step": torch.zeros((), device=tensor.device),
                "exp_avg": torch.zeros_like(tensor),
                "exp_avg_sq": torch.zeros_like(tensor),
            }


def _groups(parameters: Mapping[str, nn.Parameter], training: TrainingConfig) -> list[dict[str, Any]]:
    """Groups of one rate and one decay.

    The rate falls by a factor with every block towards the image (H. Bao et al., BEiT, appendix). What belongs to no
    block counts as in front of the first one where it embeds patches, and else as behind the last.
    """
    blocks = sorted({match[0] for match in map(_block, parameters) if match is not None}, key=_numbers)
    depth = {block: number for number, block in enumerate(blocks, start=1)}
    groups: dict[tuple[int, float], list[nn.Parameter]] = {}
    for name, tensor in parameters.items():
        match = _block(name)
        embeds = any(part in name for part in ("patch_embed", "pos_embed", "cls_token", "reg_token"))
        level = depth[match[0]] if match is not None else 0 if embeds else len(blocks) + 1
        # A vector may be written with axes of length one, as peft writes those of (IA)³.
        is_spared = training.decay == "matrices" and sum(side > 1 for side in tensor.shape) <= 1
        group = (level if training.layer_decay < 1 else len(blocks) + 1, 0.0 if is_spared else training.weight_decay)
        groups.setdefault(group, []).append(tensor)
    last = len(blocks) + 1
    return [
        {"params": tensors, "lr_scale": training.layer_decay ** (last - level), "weight_decay": decay}
        for (level, decay), tensors in sorted(groups.items())
    ]


def _block(name: str) -> re.Match[str] | None:
    return re.search(r"(layers\.\d+\.)?blocks\.\d+", name)


def _numbers(block: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", block)]


def learning_rate(config: TrainingConfig, position: float, step: float) -> float:
    """Learning rate of one step: linear warm-up from ``warmup_lr``, then the schedule.

    Args:
        config: How to train.
        position: Epochs done before the step, fractions included.
        step: Length of one step in epochs.

    Returns:
        With ``cosine`` half a wave from ``lr`` to ``min_lr``, with ``constant`` always ``lr``, else timm's schedule of
        that name.
    """
    if position < config.warmup_epochs:
        share = min(1.0, (position + step) / config.warmup_epochs)
        return config.warmup_lr + (config.lr - config.warmup_lr) * share
    if config.schedule == "constant":
        return config.lr
    if config.schedule != "cosine":
        steps = round(1 / step)
        schedule, bearer = _schedule(config.schedule, config.lr, config.min_lr, config.epochs, steps)
        schedule.step_update(round(position * steps))
        return float(bearer.param_groups[0]["lr"])
    share = (position - config.warmup_epochs) / max(config.epochs - config.warmup_epochs, step)
    return config.min_lr + (config.lr - config.min_lr) * 0.5 * (1 + math.cos(math.pi * min(1.0, share)))


@lru_cache(maxsize=1)
def _schedule(name: str, lr: float, min_lr: float, epochs: int, steps: int) -> tuple[Any, torch.optim.Optimizer]:
    bearer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=lr)
    schedule, _ = create_scheduler_v2(
        bearer,
        name,
        num_epochs=epochs,
        min_lr=min_lr,
        decay_epochs=max(1, epochs // 3),
        decay_milestones=[max(1, epochs // 3), max(2, 2 * epochs // 3)],
        decay_rate=1.0 if name == "poly" else _DECAY_RATE,  # of poly it is the power
        warmup_lr=lr,
        step_on_epochs=False,
        updates_per_epoch=steps,
    )
    return schedule, bearer

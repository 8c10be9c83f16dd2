"""How methods start: the prompts' first gradient, LoHa's first steps, what decay leaves of scales, sixty steps.

``python -m tests.bench.starts [METHOD ...]`` prints JSON lines. Figures depend on the defaults of the methods alone,
and are to be compared between two versions; nothing here is a test.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from sklearn.datasets import load_digits
from torch import nn

import petlbench as pb
from petlbench.core.catalog import Catalog
from petlbench.core.config import TrainingConfig
from petlbench.models.method import Method, load_method
from petlbench.models.registry import build_backbone
from petlbench.training.optim import new_optimizer

SIZE, CLASSES, STEPS = 32, 10, 60
METHODS = (
    "vpt",
    "loha",
    "ssf",
    "norm",
    "ia3",
    "dora",
    "boft",
    "road",
    "psoft",
    "delora",
    "vera",
    "sct",
    "gps",
    "convpass",
)
SCALES = ("ssf", "norm", "ia3", "dora", "boft", "road", "psoft", "delora", "vera")


def method_class(name: str) -> type[Method[Any]]:
    return load_method(Catalog().find("method", name))


def adapted(name: str, classes: int = CLASSES) -> Any:
    torch.manual_seed(0)
    backbone = build_backbone("petlbench_micro.distilled", SIZE, "default", torch.device("cpu"))
    torch.manual_seed(1)
    return pb.adapt(backbone.module, name, classes)


def digits() -> tuple[torch.Tensor, torch.Tensor]:
    data = load_digits()
    images = torch.tensor(data.images / 8 - 1, dtype=torch.float32)[:, None].expand(-1, 3, -1, -1)
    return nn.functional.interpolate(images, size=(SIZE, SIZE)), torch.tensor(data.target)


def optimizer_of(name: str, model: Any) -> torch.optim.Optimizer:
    defaults = method_class(name).defaults
    fields = {"lr": defaults.lr, "weight_decay": defaults.weight_decay, "decay": getattr(defaults, "decay", None)}
    training = TrainingConfig(**{key: value for key, value in fields.items() if value is not None})
    return new_optimizer(model._adapted.parameters(), training)


def losses(name: str) -> dict[str, float]:
    """Mean loss over the first and the last ten of sixty steps, at the method's default rate and decay."""
    images, labels = digits()
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    model = adapted(name)
    batches = order[: STEPS * 16].split(16)
    model.prepare((images[rows], labels[rows]) for rows in batches)
    optimizer, curve = optimizer_of(name, model.train()), []
    for step, rows in enumerate(batches, start=1):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(images[rows]), labels[rows]) + model.penalty()
        loss.backward()
        nn.utils.clip_grad_norm_(model.learnable_parameters(), 1.0)
        optimizer.step()
        model.after_step(step, STEPS)
        curve.append(float(loss.detach()))
    return {"first ten": sum(curve[:10]) / 10, "last ten": sum(curve[-10:]) / 10}


def prompts_gradient(classes: int) -> dict[str, float]:
    """Norm of the prompts' first gradient through the head as built, and through one by the authors' rule."""
    images, labels = digits()
    rows = (labels < classes).nonzero().flatten()[:16]
    norms = {}
    for rule in ("as built", "authors"):
        model = adapted("vpt", classes)
        head = model.module.head.weight
        if rule == "authors":
            nn.init.kaiming_normal_(head.detach(), a=0, mode="fan_out")
        loss = nn.functional.cross_entropy(model(images[rows]), labels[rows])
        norms[rule] = float(torch.autograd.grad(loss, model.module.prompts)[0].norm())
    return {**norms, "authors over as built": norms["authors"] / norms["as built"]}


def loha_update() -> float:
    """Root mean square of LoHa's updates after five steps of AdamW at its default rate."""
    images, labels = digits()
    model = adapted("loha")
    optimizer = optimizer_of("loha", model.train())
    for number in range(5):
        rows = slice(16 * number, 16 * number + 16)
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(images[rows]), labels[rows]).backward()
        optimizer.step()
    layers = [layer for layer in model.module.modules() if hasattr(layer, "hada_w1_a")]
    squares = [layer.get_delta_weight("default").detach().square().mean() for layer in layers]
    return math.sqrt(float(torch.stack(squares).mean()))


def decay_factors(name: str, steps: int = 1000) -> dict[str, float]:
    """What so many steps of decay alone leave of the vectors that are learned, by the default rate; head left out."""
    model = adapted(name)
    groups = optimizer_of(name, model).param_groups
    decays = {id(tensor): group["lr"] * group["weight_decay"] for group in groups for tensor in group["params"]}
    named = model._adapted.parameters().items()
    vectors = [t for n, t in named if sum(side > 1 for side in t.shape) <= 1 and not n.startswith("head.")]
    return {"vectors": len(vectors), "left": (1 - max(decays[id(tensor)] for tensor in vectors)) ** steps}


def main(names: list[str]) -> None:
    torch.set_num_threads(1)
    figures: list[tuple[str, Callable[[], Any]]] = []
    if not names:
        figures += [(f"prompts' first gradient, {c} classes", partial(prompts_gradient, c)) for c in (2, 5, 10)]
        figures += [("loha's update after five steps", loha_update)]
        figures += [(f"decay of {name}", partial(decay_factors, name)) for name in SCALES]
    figures += [(f"losses of {name}", partial(losses, name)) for name in names or METHODS]
    for what, figure in figures:
        print(json.dumps({what: figure()}), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])

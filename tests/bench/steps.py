"""``python -m tests.bench.steps``: a training step of every compared method, over the same written by hand.

By hand: timm, peft, AdamW, clipping, as in ``by_hand.py``; FPT and FPT+ as in ``naive.py``, from features in fp32. The
two take turns, step by step; the seconds are those of the wall, or with ``--clock cpu``, on a machine that others use
too, those of the process.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import nn

from petlbench.core.catalog import Catalog
from petlbench.core.config import RunConfig
from petlbench.core.request import Request
from petlbench.data.loader import Batch
from petlbench.features.quantization import StoredFeatures, compact
from petlbench.features.source import LiveFeatures, NoFeatures
from petlbench.models.build import Assembled, assemble
from petlbench.models.method import Inputs, configured_method
from petlbench.run.resolve import resolve
from petlbench.training.step import new_step
from tests.bench.by_hand import BY_HAND, made
from tests.bench.naive import NaiveFPT
from tests.bench.turns import in_turns

__all__ = ["METHODS", "Ours", "Row", "Setting", "measure", "ours"]

CLASSES = 7
METHODS = (*BY_HAND, "fpt", "fpt_plus")
CATALOG = Catalog()

Step = Callable[[], object]


@dataclass(frozen=True)
class Setting:
    """What a step is measured on."""

    backbone: str = "vit_tiny_patch16_224"
    size: int = 224
    batch: int = 16
    device: str = "cpu"
    precision: str = "fp32"
    threads: int = 1


@dataclass(frozen=True)
class Row:
    """Seconds a step, petlbench's and by hand, and the median of their ratios."""

    method: str
    ratio: float
    ours: float
    by_hand: float


def measure(method: str, setting: Setting, rounds: int, clock: Callable[[], float] = time.perf_counter) -> Row:
    """A step of a method, over the same by hand."""
    torch.set_num_threads(setting.threads)
    mine, theirs = _pair_of_fpt(method, setting) if method.startswith("fpt") else _pair(method, setting)
    wait: Step = torch.cuda.synchronize if setting.device == "cuda" else lambda: None
    return Row(method, *in_turns(lambda: (mine(), wait()), lambda: (theirs(), wait()), rounds, clock))


def _configure(method: str, setting: Setting, **options: Any) -> RunConfig:
    request = Request(
        method,
        "isic2018",
        backbone=setting.backbone,
        weights="none",
        image_size=setting.size,
        device=setting.device,
        threads=setting.threads,
        precision=setting.precision,
        **options,
    )
    return resolve(request, CATALOG, Path()).config


@dataclass(frozen=True)
class Ours:
    """petlbench's part of a comparison: a method, and a batch with what it takes from the frozen backbone."""

    config: RunConfig
    assembled: Assembled
    source: Callable[[Batch], Inputs]
    batch: Batch
    features: dict[str, torch.Tensor]

    def step(self) -> Step:
        """What takes a step of the batch."""
        step = new_step(self.config, self.assembled.adapted, self.source, None)
        self.assembled.adapted.module.train()
        return lambda: step(self.batch)


def ours(method: str, setting: Setting) -> Ours:
    """A method on a batch of random pixels, FPT and FPT+ with features that stand for preloaded ones."""
    return _from_features(method, setting) if method.startswith("fpt") else _from_images(method, setting)


def _from_images(method: str, setting: Setting) -> Ours:
    name, settings = method.partition(" ")[0], BY_HAND[method][1]
    config = _configure(name, setting, method_settings=settings, **({"preload": False} if name == "linear" else {}))
    device = torch.device(setting.device)
    assembled = assemble(config, configured_method(config, CATALOG), CLASSES, device)
    live = assembled.frozen and LiveFeatures(assembled.backbone, assembled.frozen, config.precision)
    images = torch.randn(setting.batch, 3, setting.size, setting.size, device=device)
    batch = Batch(torch.arange(setting.batch), {"fine": images}, _labels(setting))
    return Ours(config, assembled, live or NoFeatures(), batch, {})


def _from_features(method: str, setting: Setting) -> Ours:
    config, device = _configure(method, setting), torch.device(setting.device)
    assembled = assemble(config, configured_method(config, CATALOG), CLASSES, device)
    assert assembled.frozen is not None
    info = assembled.backbone.info
    specs = assembled.frozen.spec(info).tensors.items()
    features = {name: torch.randn(setting.batch, *spec.shape, device=device) for name, spec in specs}
    coarse = assembled.method.views(info, setting.size)["coarse"].size
    images = torch.randn(setting.batch, 3, coarse, coarse, device=device)
    batch = Batch(torch.arange(setting.batch), {"coarse": images}, _labels(setting))
    inputs = Inputs(batch.views, StoredFeatures(compact(features, config.cache_precision or "fp32")))
    return Ours(config, assembled, lambda batch: inputs, batch, features)


def _pair(method: str, setting: Setting) -> tuple[Step, Step]:
    """Both without preloading: the backbone is at work in every step."""
    mine = ours(method, setting)
    module = made(method, setting.backbone, setting.size, CLASSES).to(setting.device)
    _require_equal(method, mine.assembled.adapted.module, module)
    return mine.step(), _by_hand(setting, module, mine.batch, (mine.batch.views["fine"],))


def _pair_of_fpt(method: str, setting: Setting) -> tuple[Step, Step]:
    """Both from preloaded features, in the form that each stores them."""
    mine, device = ours(method, setting), torch.device(setting.device)
    other = assemble(mine.config, configured_method(mine.config, CATALOG), CLASSES, device)
    info, module = other.backbone.info, other.adapted.module
    layers, prompts, prompt_width = module.get_parameter("fusion.prompts").shape
    side: Any = module.side
    naive = NaiveFPT(
        side, layers=layers, prompts=prompts, prompt_width=prompt_width, width=info.width, heads=info.heads, dropout=0.5
    ).to(device)
    inputs = (mine.batch.views["coarse"], mine.features["keys"], mine.features["values"])
    return mine.step(), _by_hand(setting, naive, mine.batch, inputs)


def _by_hand(setting: Setting, module: nn.Module, batch: Batch, inputs: Sequence[Any]) -> Step:
    learnable = [tensor for tensor in module.parameters() if tensor.requires_grad]
    optimizer = torch.optim.AdamW(learnable, lr=1e-3, weight_decay=1e-4)
    module.train()
    half = setting.precision == "bf16"

    def step() -> None:
        optimizer.zero_grad()
        with torch.autocast(setting.device, torch.bfloat16) if half else nullcontext():
            loss = nn.functional.cross_entropy(module(*inputs), batch.labels)
        loss.backward()
        nn.utils.clip_grad_norm_(learnable, 1.0)
        optimizer.step()

    return step


def _labels(setting: Setting) -> torch.Tensor:
    return (torch.arange(setting.batch) % CLASSES).to(setting.device)


def _require_equal(method: str, *modules: nn.Module) -> None:
    counts = [sum(t.numel() for t in module.parameters() if t.requires_grad) for module in modules]
    if counts[0] != counts[1]:
        raise ValueError(f"{method}: petlbench learns {counts[0]} parameters, and the form by hand {counts[1]}")


def rows(methods: Sequence[str], setting: Setting, rounds: int, clock: str) -> Iterator[Row]:
    """Every method's row, in turn."""
    time_of = {"wall": time.perf_counter, "cpu": time.process_time}[clock]
    yield from map(partial(measure, setting=setting, rounds=rounds, clock=time_of), methods)


def table_of(found: Sequence[Row], title: str) -> Table:
    """The rows as a table."""
    table = Table("method", "ratio", "petlbench, ms", "by hand, ms", title=title)
    for row in found:
        table.add_row(row.method, f"{row.ratio:.3f}", f"{1000 * row.ours:.1f}", f"{1000 * row.by_hand:.1f}")
    return table


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.steps", description="Steps over those by hand.")
    parser.add_argument("--methods", default=",".join(METHODS), help="names with commas between them")
    for name, default in asdict(Setting()).items():
        kind: Any = {"action": "store_true"} if default is False else {"type": type(default), "default": default}
        parser.add_argument(f"--{name}", **kind)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--clock", choices=["wall", "cpu"], default="wall")
    parser.add_argument("--json", action="store_true")
    asked = vars(parser.parse_args())
    methods, rounds, clock, as_json = (asked.pop(name) for name in ("methods", "rounds", "clock", "json"))
    setting = Setting(**asked)
    found = list(rows(methods.split(","), setting, rounds, clock))
    if as_json:
        print(json.dumps({"setting": asdict(setting), "rows": list(map(asdict, found))}))
    else:
        Console(width=None if sys.stdout.isatty() else 120).print(table_of(found, f"A training step: {setting}"))


if __name__ == "__main__":
    main()

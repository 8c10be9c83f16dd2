"""``make bench``: petlbench's own parts against a plain way of doing the same, as ratios within one run.

Seconds differ from machine to machine and from hour to hour; each pair is therefore measured in turns, and the median
of the ratios is what is told.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import nn

from petlbench.assemble import Assembled, assemble, build_views, new_step, normalization
from petlbench.catalog import Catalog
from petlbench.data.loader import Batch, ImageLoader, StoredImages
from petlbench.data.task import load_task_data
from petlbench.features.source import CachedFeatures, LiveFeatures, NoFeatures
from petlbench.progress import Progress
from petlbench.resolve import Request, resolve

ROUNDS = 7
CATALOG = Catalog()
TINY: dict[str, Any] = {"backbone": "vit_tiny_patch16_224", "weights": "none", "device": "cpu"}


def seconds(action: Callable[[], object]) -> float:
    began = time.perf_counter()
    action()
    return time.perf_counter() - began


def ratio(ours: Callable[[], object], plain: Callable[[], object]) -> tuple[float, float, float]:
    """Median of ours over plain, and the median seconds of both, measured in turns after one warm-up."""
    ours(), plain()
    pairs = [(seconds(ours), seconds(plain)) for _ in range(ROUNDS)]
    mine, theirs = ([pair[side] for pair in pairs] for side in (0, 1))
    return statistics.median(a / b for a, b in pairs), statistics.median(mine), statistics.median(theirs)


def put_together(method: str, image_size: int, preload: bool | None = None) -> tuple[Any, Assembled]:
    config = resolve(Request(method, "digits", image_size=image_size, preload=preload, **TINY), CATALOG, Path("data"))
    torch.set_num_threads(config.threads)
    return config, assemble(config, CATALOG, 10, torch.device("cpu"))


def training_step() -> tuple[float, float, float]:
    """A step of full fine-tuning through petlbench, and the same step written by hand."""
    config, ours = put_together("full", 128)
    _, theirs = put_together("full", 128)
    step = new_step(config, ours.adapted, NoFeatures(), None)
    images, labels = torch.randn(16, 3, 128, 128), torch.randint(10, (16,))
    batch = Batch(torch.arange(16), {"fine": images}, labels)
    module: Any = theirs.adapted.module
    optimizer = torch.optim.AdamW(module.parameters(), lr=1e-4, weight_decay=1e-4, foreach=True)

    def by_hand() -> None:
        optimizer.zero_grad(set_to_none=True)
        loss = nn.functional.cross_entropy(module.head(theirs.backbone.pooled(images)), labels)
        loss.backward()
        nn.utils.clip_grad_norm_(module.parameters(), 1.0)
        optimizer.step()

    return ratio(lambda: step(batch), by_hand)


def epoch_of_linear_probing() -> tuple[float, float, float]:
    """An epoch of linear probing from preloaded features, and one that runs the backbone on every batch."""
    config, assembled = put_together("linear", 64)
    data = load_task_data(config, CATALOG, Path("data"), 2, Progress())
    chosen = normalization(config, data.dataset.card)
    views = build_views(config, assembled.method, assembled.backbone.info, chosen, augmentation=None)
    images = StoredImages(data.dataset)
    decoding = ImageLoader(images, data.indices["train"], views, 16, 2)
    blind = ImageLoader(images, data.indices["train"], {}, 16, 2)
    assert assembled.frozen is not None
    live = LiveFeatures(assembled.backbone, assembled.frozen, "fp32")
    cached = CachedFeatures(live, len(data.dataset.records), torch.device("cpu"), free=1 << 30)
    cached.fill(decoding.in_order())

    def epoch(loader: ImageLoader, source: Any) -> None:
        step = new_step(config, assembled.adapted, source, None)
        for batch in loader.shuffled(0):
            step(batch)

    return ratio(lambda: epoch(blind, cached), lambda: epoch(decoding, live))


def start_up() -> tuple[float, float, float]:
    """``petlbench list methods``, and Python starting with typer alone."""
    ours = [sys.executable, "-m", "petlbench", "list", "methods"]
    plain = [sys.executable, "-c", "import typer"]
    return ratio(
        lambda: subprocess.run(ours, check=True, capture_output=True),
        lambda: subprocess.run(plain, check=True, capture_output=True),
    )


BENCHMARKS: dict[str, Callable[[], tuple[float, float, float]]] = {
    "training step, over the same step by hand": training_step,
    "epoch of linear probing preloaded, over not preloaded": epoch_of_linear_probing,
    "list methods, over Python with typer": start_up,
}


def main() -> None:
    table = Table("what", "ratio", "ours", "plain", title="petlbench against a plain way, in one run")
    for name, measure in BENCHMARKS.items():
        value, ours, plain = measure()
        table.add_row(name, f"{value:.3f}", f"{1000 * ours:.1f} ms", f"{1000 * plain:.1f} ms")
    Console().print(table)


if __name__ == "__main__":
    main()

"""``make bench``: petlbench's own parts against a plain way of doing the same, as ratios within one run.

Seconds differ from machine to machine and from hour to hour; each pair is therefore measured in turns, and the median
of the ratios is what is told.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import nn

from petlbench.core.bounded_cache import BoundedCache
from petlbench.core.catalog import Catalog
from petlbench.core.request import Request
from petlbench.data.loader import Batch, ImageLoader, ImageStore, KeptImages
from petlbench.features.quantization import DEFAULT_CACHE_PRECISION, stored_tensors
from petlbench.features.source import CachedFeatures, LiveFeatures, NoFeatures
from petlbench.features.store import FeatureStore
from petlbench.models.build import Assembled, assemble
from petlbench.run.data import load_run_data, opened_dataset
from petlbench.run.image_cache import memory_bound
from petlbench.run.options import RunContext, RunOptions
from petlbench.run.resolve import ResolvedRun, resolve
from petlbench.training.step import new_step
from tests.bench import loading, overhead, preloading, workers
from tests.bench.turns import in_turns

ROUNDS = 7
CATALOG = Catalog()
TINY: dict[str, Any] = {"backbone": "vit_tiny_patch16_224", "weights": "none", "device": "cpu"}


def put_together(method: str, image_size: int, preload: bool | None = None) -> tuple[ResolvedRun, Assembled]:
    run = resolve(Request(method, "digits", image_size=image_size, preload=preload, **TINY), CATALOG, Path("data"))
    torch.set_num_threads(run.config.threads)
    return run, assemble(run.config, run.method, 10, torch.device("cpu"))


def training_step() -> tuple[float, float, float]:
    """A step of full fine-tuning through petlbench, and the same step written by hand."""
    run, ours = put_together("full", 128)
    _, theirs = put_together("full", 128)
    step = new_step(run.config, ours.adapted, NoFeatures(), None)
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

    return in_turns(lambda: step(batch), by_hand, ROUNDS)


def epoch_of_linear_probing() -> tuple[float, float, float]:
    """An epoch of linear probing from preloaded features, and one that runs the backbone on every batch."""
    run, assembled = put_together("linear", 64)
    context = RunContext(RunOptions(Path("results"), Path("data"), Path("cache")))
    data = load_run_data(run, context, ImageStore(opened_dataset(run, context)))
    views = {name: view.without_augmentation() for name, view in run.views.items()}
    images = ImageStore(data.dataset, kept=KeptImages(BoundedCache(memory_bound())))
    decoding = ImageLoader(images, data.indices["train"], views, 16, 2)
    blind = ImageLoader(images, data.indices["train"], {}, 16, 2)
    assert assembled.frozen is not None
    live = LiveFeatures(assembled.backbone, assembled.frozen, "fp32")

    def epoch(loader: ImageLoader, source: Any) -> None:
        step = new_step(run.config, assembled.adapted, source, None)
        for batch in loader.shuffled(0):
            step(batch)

    with TemporaryDirectory() as folder:
        store = FeatureStore(Path(folder), stored_tensors(live.spec, DEFAULT_CACHE_PRECISION))
        names = [str(position) for position in range(len(data.dataset.records))]
        cached = CachedFeatures(live, store, names, DEFAULT_CACHE_PRECISION, torch.device("cpu"))
        cached.fill(lambda positions: ImageLoader(images, positions, views, 16, 2).in_order())
        return in_turns(lambda: epoch(blind, cached), lambda: epoch(decoding, live), ROUNDS)


def start_up() -> tuple[float, float, float]:
    """``petlbench list methods``, and Python starting with typer alone."""
    ours = [sys.executable, "-m", "petlbench", "list", "methods"]
    plain = [sys.executable, "-c", "import typer"]
    return in_turns(
        lambda: subprocess.run(ours, check=True, capture_output=True),
        lambda: subprocess.run(plain, check=True, capture_output=True),
        ROUNDS,
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
    console = Console()
    console.print(table)
    preloading.report(console)
    loading.report(console)
    workers.report(console)
    overhead.report(console)


if __name__ == "__main__":
    main()

"""What the harness costs: a run through petlbench, against a bare PyTorch loop of the same steps in the same process.

The two take turns, epoch by epoch, so that a machine that changes its speed changes it for both. petlbench's epoch
holds all that it does beside the steps: loading, validation, selection, checkpoint, journal and MLflow. The bare one
is what people write: timm's model, ``DataLoader``, AdamW, clipping, validation, the best weights kept in memory.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import timm
import torch
from PIL import Image
from rich.console import Console
from rich.table import Table
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from petlbench.core.catalog import Catalog
from petlbench.core.config import RunConfig
from petlbench.core.errors import Stopped
from petlbench.core.progress import Progress
from petlbench.core.request import Request
from petlbench.data.loader import ImageStore
from petlbench.data.views import View
from petlbench.run.data import RunData, load_run_data, opened_dataset
from petlbench.run.execute import execute
from petlbench.run.options import RunContext, RunOptions
from petlbench.run.resolve import ResolvedRun, resolve
from tests.bench.loading import plain_transform

__all__ = ["report"]

STEADY_SECONDS = 300.0
THREADS = 2
REQUEST = Request(
    "full",
    "lesions",
    backbone="vit_tiny_patch16_224",
    weights="none",
    image_size=128,
    device="cpu",
    threads=THREADS,
    training={"epochs": 10_000, "schedule": "constant"},
)


class InMemory(Dataset[tuple[Tensor, int]]):
    """Decoded and resized images through a transform."""

    def __init__(self, images: list[Image.Image], labels: list[int], view: View) -> None:
        self.images, self.labels, self.transform = images, labels, plain_transform(view)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.transform(self.images[index]), self.labels[index]


@dataclass
class BareLoop:
    """A training as people write it, one epoch at a time."""

    config: RunConfig
    train: DataLoader[Any]
    val: DataLoader[Any]
    num_classes: int
    seconds: list[float] = field(default_factory=list)
    best: float = 0.0

    def __post_init__(self) -> None:
        size, training = self.config.image_size, self.config.training
        self.model = timm.create_model("vit_tiny_patch16_224", num_classes=self.num_classes, img_size=size)
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(), lr=training.lr, weight_decay=training.weight_decay, foreach=True
        )

    def epoch(self) -> None:
        """Train and validate once."""
        began = time.perf_counter()
        self.model.train()
        for images, labels in self.train:
            self.optimizer.zero_grad(set_to_none=True)
            nn.functional.cross_entropy(self.model(images), labels).backward()
            nn.utils.clip_grad_norm_(self.model.parameters(), self.config.training.clip_grad_norm)
            self.optimizer.step()
        auc = self._validate()
        if auc > self.best:
            self.best, self.kept = auc, copy.deepcopy(self.model.state_dict())
        self.seconds.append(time.perf_counter() - began)

    @torch.no_grad()
    def _validate(self) -> float:
        self.model.eval()
        outputs = [(self.model(images).softmax(dim=1), labels) for images, labels in self.val]
        probabilities, labels = (torch.cat(parts).numpy() for parts in zip(*outputs, strict=True))
        return float(roc_auc_score(labels, probabilities, multi_class="ovr"))


class InTurns(Progress):
    """Lets the bare loop do an epoch behind each of petlbench's, and notes how long petlbench's took."""

    def __init__(self, bare: BareLoop) -> None:
        self.bare = bare
        self.seconds: list[float] = []
        self.first_epoch_done = 0.0
        self._since = 0.0

    def epoch(self, entry: Mapping[str, Any], score: str) -> None:
        """Take the time, unless it is the first epoch's, which warms both up."""
        now = time.perf_counter()
        if self._since:
            self.seconds.append(now - self._since)
        else:
            self.first_epoch_done = now
        self.bare.epoch()
        if sum(self.seconds) >= STEADY_SECONDS:
            raise Stopped("pruned", "measured for long enough")
        self._since = time.perf_counter()


def bare_loop(run: ResolvedRun, context: RunContext) -> BareLoop:
    """The bare loop on the very images of a run, in the sizes that the run stores."""
    data = load_run_data(run, context, ImageStore(opened_dataset(run, context)))
    loaders = dict(_loaders(run.config, data, run.views["fine"]))
    return BareLoop(run.config, loaders["train"], loaders["val"], len(data.dataset.classes))


def _loaders(config: RunConfig, data: RunData, view: View) -> Iterator[tuple[str, DataLoader[Any]]]:
    for split, shown in (("train", view), ("val", view.without_augmentation())):
        records = data.records(split)  # type: ignore[arg-type]
        stored = [Image.fromarray(np.asarray(shown.store(data.dataset.open(record)))) for record in records]
        dataset = InMemory(stored, [record.label for record in records], shown)
        training = split == "train"
        yield (
            split,
            DataLoader(
                dataset,
                config.training.batch_size,
                shuffle=training,
                drop_last=training,
                num_workers=THREADS,
                persistent_workers=True,
            ),
        )


def report(console: Console) -> None:
    """Measure for `STEADY_SECONDS` of petlbench's own time and print the ratio; start-up stands apart."""
    catalog = Catalog()
    with TemporaryDirectory() as name:
        folder = Path(name)
        options = RunOptions(folder / "results", folder, folder / "cache", workers=THREADS)
        run = resolve(REQUEST, catalog, folder)
        turns = InTurns(bare_loop(run, RunContext(options)))
        began = time.perf_counter()
        execute(run, RunContext(replace(options, workers=2), turns))
    ours, bare = sum(turns.seconds), sum(turns.bare.seconds[1:])
    table = Table("what", "ratio", "petlbench", "bare loop", title="a run through petlbench, over a bare loop")
    median = float(np.median(np.array(turns.seconds) / np.array(turns.bare.seconds[1:])))
    epochs = len(turns.seconds)
    table.add_row(f"{epochs} epochs in turns, their sum", f"{ours / bare:.3f}", f"{ours:.0f} s", f"{bare:.0f} s")
    table.add_row("an epoch, median of the ratios", f"{median:.3f}", f"{ours / epochs:.2f} s", f"{bare / epochs:.2f} s")
    first = turns.first_epoch_done - began
    table.add_row("start-up and the first epoch", "", f"{first:.1f} s", f"{turns.bare.seconds[0]:.1f} s")
    console.print(table)

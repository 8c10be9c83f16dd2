"""Peak memory of real runs on a device, against the prediction of the config that each says it had.

Each setting is a run of its own in a process of its own (``petlbench run``, one short epoch on random pixels), so that
the driver's figure holds nothing of another one and the figures come from the very meters that runs use.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from rich.console import Console
from rich.table import Table

from petlbench.core.catalog import Catalog
from petlbench.core.config import RunConfig
from petlbench.memory.predict import predict_training
from petlbench.models.build import assemble
from petlbench.models.method import configured_method

__all__ = ["PRECISIONS", "Row", "rows", "run_until", "show", "summary"]

CATALOG = Catalog()
PRECISIONS = ("fp32", "bf16")
FIGURES = ("allocated", "reserved", "process")
CLASSES = 7
MIB = 2**20
ROOT = Path(__file__).parents[2]
# Runs at a time, and the device memory that one may take.
_MOST_JOBS, _BYTES_A_JOB = 4, 30 * 2**30


@dataclass
class Row:
    """One setting: measured and predicted bytes by figure, or why there are none."""

    method: str
    attention_kernel: str
    precision: str
    status: str
    message: str = ""
    measured: dict[str, int | None] = field(default_factory=dict)
    predicted: dict[str, int | None] = field(default_factory=dict)

    @property
    def difference(self) -> dict[str, float | None]:
        """Predicted over measured, less one: positive where too much is predicted."""
        return {name: _difference(self.predicted.get(name), self.measured.get(name)) for name in FIGURES}


def _difference(predicted: int | None, measured: int | None) -> float | None:
    return None if predicted is None or not measured else predicted / measured - 1


def draw_images(folder: Path, batch_size: int, size: int) -> None:
    """Fill a folder of class folders with as many images of random pixels as two whole batches of training take."""
    rng = np.random.default_rng(0)
    for label in range(CLASSES):
        (folder / f"class{label}").mkdir(parents=True)
        # Seven in ten images are for training, of each class rounded down.
        for number in range(math.ceil(2 * batch_size / CLASSES / 0.7) + 3):
            pixels = rng.integers(0, 256, (size, size, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / f"class{label}" / f"{number}.png")


def run_until(deadline: float, command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    """Run a command, which is ended at a moment of `time.monotonic`.

    Raises:
        subprocess.TimeoutExpired: When it was.
    """
    left = deadline - time.monotonic()
    if left <= 0:
        raise subprocess.TimeoutExpired(command, 0)
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT, timeout=left)


def rows(asked: argparse.Namespace, folder: Path, deadline: float) -> Iterator[Row]:
    """A row for each run: several go on at a time where the device's memory is good for that."""
    draw_images(folder / "images", asked.batch_size, asked.image_size)
    methods = list(CATALOG.entries("method")) if asked.methods == "all" else asked.methods.split(",")
    settings = [*product(methods, asked.kernels.split(","), PRECISIONS)]
    with ThreadPoolExecutor(jobs_at_a_time(asked.device)) as pool:
        documents = pool.map(lambda setting: run(asked, folder, deadline, *setting), settings)
        for setting, document in zip(settings, documents, strict=True):
            row = _row(*setting, document)
            print(f"{' '.join(setting)}: {row.status}", file=sys.stderr)
            yield row


def jobs_at_a_time(device: str) -> int:
    """How many runs may go on at a time: one on the CPU."""
    return 1 if device == "cpu" else min(_MOST_JOBS, max(1, torch.cuda.mem_get_info()[1] // _BYTES_A_JOB))


def run(
    asked: argparse.Namespace, folder: Path, deadline: float, method: str, kernel: str, precision: str
) -> dict[str, Any]:
    """Carry out one run in a process of its own; returns its JSON document."""
    options = {
        "method": method,
        "dataset": folder / "images",
        "split": "random",
        "backbone": asked.backbone,
        "weights": "random",
        "image-size": asked.image_size,
        "batch-size": asked.batch_size,
        "epochs": 1,
        "device": asked.device,
        "precision": precision,
        "attention-kernel": kernel,
        "output": folder / "results",
        "tracking-uri": "none",
        "measure-inference": "off",
    }
    words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    try:
        done = run_until(deadline, [sys.executable, "-m", "petlbench", "run", *words, "--json"])
    except subprocess.TimeoutExpired:
        return {"error": {"kind": "left out", "message": f"{asked.minutes:g} minutes are over"}}
    try:
        document: dict[str, Any] = json.loads(done.stdout)
    except ValueError:
        last = (done.stderr.strip() or f"exit status {done.returncode}").splitlines()[-1]
        document = {"error": {"kind": "failed", "message": last}}
    return document


def _row(method: str, kernel: str, precision: str, document: dict[str, Any]) -> Row:
    error = document.get("error") or {}
    row = Row(method, kernel, precision, document.get("status", error.get("kind", "failed")), error.get("message", ""))
    if "config" in document:
        config = RunConfig.model_validate(document["config"])
        assembled = assemble(config, configured_method(config, CATALOG), CLASSES, torch.device("meta"))
        predicted = predict_training(config, assembled)
        row.predicted = {name: getattr(predicted, name) for name in FIGURES}
    if row.status == "finished":
        row.measured = {name: document["memory"][name] for name in FIGURES}
    return row


def summary(found: Sequence[Row]) -> dict[str, dict[str, float | None]]:
    """The worst and the mean difference of each figure, both without their signs."""
    ends: dict[str, dict[str, float | None]] = {}
    for name in FIGURES:
        sizes = [abs(difference) for row in found if (difference := row.difference[name]) is not None]
        ends[name] = {"worst": max(sizes, default=None), "mean": sum(sizes) / len(sizes) if sizes else None}
    return ends


def show(console: Console, found: Sequence[Row], title: str) -> None:
    table = Table(title=title, show_footer=True)
    ends = summary(found)
    for name, footer in (("method", "worst / mean"), ("kernel", ""), ("precision", "")):
        table.add_column(name, footer)
    for name in FIGURES:
        table.add_column(f"{name}, MiB", justify="right")
        table.add_column("predicted", justify="right")
        worst, mean = (_percent(ends[name][end], "") for end in ("worst", "mean"))
        table.add_column("%", f"{worst} / {mean}", justify="right", no_wrap=True)
    for row in found:
        cells = [
            text
            for name in FIGURES
            for text in (_mib(row.measured.get(name)), _mib(row.predicted.get(name)), _percent(row.difference[name]))
        ]
        table.add_row(row.method, row.attention_kernel, row.precision, *cells)
    console.print(table)
    for row in found:
        if row.status != "finished":
            console.print(f"{row.method} {row.attention_kernel} {row.precision}: {row.status}: {row.message}")


def _mib(size: int | None) -> str:
    return "–" if size is None else f"{size / MIB:,.1f}"


def _percent(fraction: float | None, sign: str = "+") -> str:
    return "–" if fraction is None else f"{100 * fraction:{sign}.2f}"

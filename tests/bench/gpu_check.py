"""``make gpu-check``: what is to be seen on a GPU, in one call: golden data, the time of a step, and peak memory.

Golden data and steps come first, as they take least: FPT and FPT+ in float64 against ``tests/golden``, then the step of
every compared method over the same by hand (``steps.py``), by image size and precision. Memory follows, of real runs
against the prediction; what does not fit into ``--minutes`` is left out and said to be.

Each setting of memory is a run of its own in a process of its own (``petlbench run``, one short epoch on random
pixels), so that the driver's figure holds nothing of another one and the figures come from the very meters that runs
use. The prediction is made for the config that the run says it had.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
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
from petlbench.core.environment import available_devices
from petlbench.memory.predict import predict_training
from petlbench.models.build import assemble
from petlbench.models.method import configured_method
from tests.bench.on_device import compare_golden
from tests.bench.steps import METHODS, Setting, measure, table_of
from tests.bench.steps import Row as StepRow

CATALOG = Catalog()
PRECISIONS = ("fp32", "bf16")
COMPARED = ("full", "linear", "vpt", "attention", "adapter", "bitfit", "lora", "fpt", "fpt_plus")
FIGURES = ("allocated", "reserved", "process")
CLASSES = 7
MIB = 2**20


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


def asked_for(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make gpu-check ARGS=...", description="What is to be seen on a GPU.")
    parser.add_argument(
        "--methods", default=",".join(COMPARED), help="names with commas between them, or all (the compared ones)"
    )
    parser.add_argument("--backbone", default="vit_base_patch16_224", help="timm name; its weights are random")
    parser.add_argument("--kernels", default="fused", help="attention kernels of the runs: eager, fused or both")
    parser.add_argument("--step-sizes", default="224,512", help="image sizes that steps are timed at; empty for none")
    parser.add_argument("--rounds", type=int, default=10, help="steps that are timed, of each")
    parser.add_argument("--minutes", type=float, default=8, help="no run for memory begins that would end later")
    parser.add_argument("--tiny", action="store_true", help="smallest backbone, images and batches: to try this script")
    parser.add_argument("--image-size", type=int, default=224, help="pixels")
    parser.add_argument("--batch-size", type=int, default=16, help="images a step")
    parser.add_argument(
        "--device", choices=["cuda", "cpu"], default="cuda", help="the CPU shows allocated memory alone"
    )
    parser.add_argument("--json", action="store_true", help="one JSON document on standard output")
    asked = parser.parse_args(arguments)
    if asked.tiny:
        asked.backbone, asked.image_size, asked.batch_size = "vit_tiny_patch16_224", 32, 2
        asked.step_sizes, asked.rounds = "32", 1
    return asked


def draw_images(folder: Path, batch_size: int, size: int) -> None:
    """Fill a folder of class folders with as many images of random pixels as two whole batches of training take."""
    rng = np.random.default_rng(0)
    for label in range(CLASSES):
        (folder / f"class{label}").mkdir(parents=True)
        # Seven in ten images are for training, of each class rounded down.
        for number in range(math.ceil(2 * batch_size / CLASSES / 0.7) + 3):
            pixels = rng.integers(0, 256, (size, size, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / f"class{label}" / f"{number}.png")


def time_steps(asked: argparse.Namespace) -> Iterator[tuple[Setting, list[StepRow]]]:
    """The time of a step of each compared method, by image size and precision."""
    names = [name for name in METHODS if asked.methods == "all" or name.partition(" ")[0] in asked.methods.split(",")]
    for size, precision in product(filter(None, asked.step_sizes.split(",")), PRECISIONS):
        setting = Setting(asked.backbone, int(size), asked.batch_size, asked.device, precision)
        yield setting, [row for name in names if (row := _timed(name, setting, asked.rounds)) is not None]
        print(f"steps at {size} in {precision}: done", file=sys.stderr)


def _timed(method: str, setting: Setting, rounds: int) -> StepRow | None:
    try:
        return measure(method, setting, rounds)
    except torch.OutOfMemoryError:
        print(f"{method} at {setting.size} in {setting.precision}: no memory for its step", file=sys.stderr)
        return None


def rows(asked: argparse.Namespace, folder: Path, deadline: float = math.inf) -> Iterator[Row]:
    draw_images(folder / "images", asked.batch_size, asked.image_size)
    methods = list(CATALOG.entries("method")) if asked.methods == "all" else asked.methods.split(",")
    longest = 0.0
    for method, kernel, precision in product(methods, asked.kernels.split(","), PRECISIONS):
        began = time.monotonic()
        if began + longest > deadline:
            yield Row(method, kernel, precision, "left out", f"{asked.minutes:g} minutes are over")
            continue
        row = _row(method, kernel, precision, run(asked, folder, method, kernel, precision))
        longest = max(longest, time.monotonic() - began)
        print(f"{method} {kernel} {precision}: {row.status}", file=sys.stderr)
        yield row


def run(asked: argparse.Namespace, folder: Path, method: str, kernel: str, precision: str) -> dict[str, Any]:
    """Carry out one run in a process of its own; returns its JSON document."""
    options = {
        "method": method,
        "dataset": folder / "images",
        "split": "random",
        "backbone": asked.backbone,
        "weights": "none",
        "image-size": asked.image_size,
        "batch-size": asked.batch_size,
        "epochs": 1,
        "device": asked.device,
        "precision": precision,
        "attention-kernel": kernel,
        "output": folder / "results",
        "tracking-uri": "none",
    }
    words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    command = [sys.executable, "-m", "petlbench", "run", *words, "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
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


def show(found: Sequence[Row], title: str) -> None:
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
    # Elsewhere than in a terminal, as in a file, nothing is to be cut off.
    console = Console(width=None if sys.stdout.isatty() else 160)
    console.print(table)
    for row in found:
        if row.status != "finished":
            console.print(f"{row.method} {row.attention_kernel} {row.precision}: {row.status}: {row.message}")


def _mib(size: int | None) -> str:
    return "–" if size is None else f"{size / MIB:,.1f}"


def _percent(fraction: float | None, sign: str = "+") -> str:
    return "–" if fraction is None else f"{100 * fraction:{sign}.2f}"


def main() -> int:
    asked = asked_for()
    if asked.device not in available_devices():
        print(f"gpu-check: no device {asked.device} here; --device cpu compares allocated memory", file=sys.stderr)
        return 2
    deadline = time.monotonic() + 60 * asked.minutes
    golden, steps = compare_golden(asked.device), list(time_steps(asked))
    with tempfile.TemporaryDirectory(prefix="petlbench-gpu-check-") as folder:
        found = list(rows(asked, Path(folder), deadline))
    device = torch.cuda.get_device_name() if asked.device == "cuda" else "CPU"
    if asked.json:
        each = [{**asdict(row), "difference": row.difference} for row in found]
        document = {
            "device": device,
            "settings": vars(asked),
            "golden": [{**asdict(row), "agrees": row.agrees} for row in golden],
            "steps": [{"setting": asdict(setting), "rows": list(map(asdict, timed))} for setting, timed in steps],
            "rows": each,
            "summary": summary(found),
        }
        print(json.dumps(document))
    else:
        console = Console(width=None if sys.stdout.isatty() else 160)
        for row in golden:
            verdict = "agrees" if row.agrees else "DIFFERS"
            console.print(f"{row.file} {verdict}: logits within {row.logits:.1e}, gradients within {row.gradients:.1e}")
        for setting, timed in steps:
            where = f"{setting.size} pixels, {setting.batch} images, {setting.precision}, {device}"
            console.print(table_of(timed, f"A training step, {setting.backbone}, {where}"))
        size = f"{asked.image_size} pixels, {asked.batch_size} images a step"
        show(found, f"Peak of a training step, {asked.backbone}, {size}, {device}, torch {torch.__version__}")
    return 0 if all(row.agrees for row in golden) else 1


if __name__ == "__main__":
    sys.exit(main())

"""``make gpu-check``: what is to be seen on a GPU, in one call that ends by itself, whatever it has come to.

What matters most comes first: golden data (FPT and FPT+ in float64 against ``tests/golden``), peak memory of real runs
against the prediction and beside it the tests that need a GPU, the step of every compared method over the same by hand
(``steps.py``) by image size and precision, and methods compiled against themselves (``compiled.py``). When
``--minutes`` are over, what is under way is ended, and all that is there is printed; what was left out is named.
"""

from __future__ import annotations

import argparse
import json
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from petlbench.core.environment import available_devices
from tests.bench.compiled import CompiledRow, compare_compiled, table_of_compiled
from tests.bench.gpu_memory import PRECISIONS, Row, rows, run_until, show, summary
from tests.bench.on_device import GoldenRow, compare_golden
from tests.bench.steps import METHODS, Setting, measure, table_of
from tests.bench.steps import Row as StepRow

COMPARED = ("full", "linear", "vpt", "attention", "adapter", "bitfit", "lora", "fpt", "fpt_plus")
TESTS = Path(__file__).parents[1]


def asked_for(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make gpu-check ARGS=...", description="What is to be seen on a GPU.")
    parser.add_argument(
        "--methods", default=",".join(COMPARED), help="names with commas between them, or all (the compared ones)"
    )
    parser.add_argument("--backbone", default="vit_base_patch16_224", help="timm name; its weights are random")
    parser.add_argument("--kernels", default="fused", help="attention kernels of the runs: eager, fused or both")
    parser.add_argument("--step-sizes", default="224,512", help="image sizes that steps are timed at; empty for none")
    parser.add_argument("--rounds", type=int, default=10, help="steps that are timed, of each")
    parser.add_argument(
        "--compiled",
        default="lora,fpt,full",
        help="methods that are compiled, at the first image size; empty for none",
    )
    parser.add_argument("--minutes", type=float, default=7.5, help="all of it; what is not done by then is left out")
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
        asked.step_sizes, asked.rounds, asked.compiled = "32", 1, asked.compiled and "linear"
    return asked


class TimeIsUp(BaseException):  # as an Exception, torch's compiler would take it for one of its own
    """The minutes are over."""


@contextmanager
def ends_at(deadline: float) -> Iterator[None]:
    """Raise a `TimeIsUp` in whatever runs inside at a moment of `time.monotonic`."""

    def ring(*_: object) -> None:
        raise TimeIsUp

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, max(deadline - time.monotonic(), 0.001))
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@dataclass
class Found:
    """What has been seen so far."""

    golden: list[GoldenRow] = field(default_factory=list)
    steps: list[tuple[Setting, list[StepRow]]] = field(default_factory=list)
    compiled: list[CompiledRow] = field(default_factory=list)
    memory: list[Row] = field(default_factory=list)
    tests: str = ""
    left_out: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)

    @property
    def agrees(self) -> bool:
        """Whether nothing that was compared differs, and golden data was."""
        differs = not all(row.agrees for row in (*self.golden, *self.compiled))
        return bool(self.golden) and not differs and not self.failed


@dataclass
class Check:
    """The whole of it, part by part, the most important one first.

    Args:
        asked: The command's options.
        folder: Where runs may write.
        deadline: The moment of `time.monotonic` at which all ends.
    """

    asked: argparse.Namespace
    folder: Path
    deadline: float
    found: Found = field(default_factory=Found)

    def carry_out(self) -> Found:
        """All parts; those that time is up for are named."""
        parts = {"golden data": self._golden, "memory, tests": self._beside, **dict(self._timed())}
        for name, part in parts.items():
            try:
                with ends_at(self.deadline):
                    part()
                print(f"{name}: done", file=sys.stderr)
            except TimeIsUp:
                self.found.left_out.append(name)
            except Exception as error:  # what else there is to be seen is seen
                self.found.failed.append(f"{name}: {type(error).__name__}: {error}")
        return self.found

    def _golden(self) -> None:
        self.found.golden = compare_golden(self.asked.device)

    def _beside(self) -> None:
        """Memory of runs, some at a time, and the tests beside them: nothing here is timed."""
        with ThreadPoolExecutor(1) as beside:
            tests = beside.submit(gpu_tests, self.deadline) if self.asked.device == "cuda" else None
            for row in rows(self.asked, self.folder, self.deadline):
                self.found.memory.append(row)
            if tests is not None:
                self.found.tests = tests.result()

    def _timed(self) -> Iterator[tuple[str, Callable[[], None]]]:
        """Steps by image size and precision, and compiled methods at the first size."""
        sizes = [int(size) for size in self.asked.step_sizes.split(",") if size]
        settings = [self._setting(size, precision) for size in sizes for precision in PRECISIONS]
        for setting in settings:
            yield f"steps at {setting.size} in {setting.precision}", partial(self._steps, setting)
        if settings and self.asked.compiled:
            yield "compiled methods", partial(self._compiled, settings[0])

    def _setting(self, size: int, precision: str) -> Setting:
        return Setting(self.asked.backbone, size, self.asked.batch_size, self.asked.device, precision)

    def _steps(self, setting: Setting) -> None:
        chosen = self.asked.methods.split(",")
        names = [name for name in METHODS if self.asked.methods == "all" or name.partition(" ")[0] in chosen]
        timed: list[StepRow] = []
        self.found.steps.append((setting, timed))
        for name in names:
            try:
                timed.append(measure(name, setting, self.asked.rounds))
            except torch.OutOfMemoryError:
                self.found.left_out.append(f"{name} at {setting.size} in {setting.precision}: no memory for its step")

    def _compiled(self, setting: Setting) -> None:
        for name in self.asked.compiled.split(","):
            self.found.compiled.append(compare_compiled(name, setting, self.asked.rounds))


def gpu_tests(deadline: float) -> str:
    """The last line of pytest on the tests that are marked gpu."""
    marked = sorted(str(file) for file in TESTS.rglob("test_*.py") if "mark.gpu" in file.read_text())
    command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider", *marked]
    try:
        return (run_until(deadline, command).stdout.strip() or "pytest said nothing").splitlines()[-1]
    except subprocess.TimeoutExpired:
        return "left out: time was up"


def document(asked: argparse.Namespace, found: Found, device: str) -> dict[str, Any]:
    """All that was seen, for ``--json``."""
    return {
        "device": device,
        "settings": vars(asked),
        "golden": [{**asdict(row), "agrees": row.agrees} for row in found.golden],
        "tests": found.tests,
        "rows": [{**asdict(row), "difference": row.difference} for row in found.memory],
        "summary": summary(found.memory),
        "steps": [{"setting": asdict(setting), "rows": list(map(asdict, timed))} for setting, timed in found.steps],
        "compiled": [{**asdict(row), "agrees": row.agrees} for row in found.compiled],
        "left_out": found.left_out,
        "failed": found.failed,
    }


def show_all(asked: argparse.Namespace, found: Found, device: str) -> None:
    """All that was seen, as tables."""
    # Elsewhere than in a terminal, as in a file, nothing is to be cut off.
    console = Console(width=None if sys.stdout.isatty() else 160)
    for row in found.golden:
        verdict = "agrees" if row.agrees else "DIFFERS"
        console.print(f"{row.file} {verdict}: logits within {row.logits:.1e}, gradients within {row.gradients:.1e}")
    if found.tests:
        console.print(f"tests marked gpu: {found.tests}")
    size = f"{asked.image_size} pixels, {asked.batch_size} images a step"
    show(
        console, found.memory, f"Peak of a training step, {asked.backbone}, {size}, {device}, torch {torch.__version__}"
    )
    for setting, timed in found.steps:
        where = f"{setting.size} pixels, {setting.batch} images, {setting.precision}, {device}"
        console.print(table_of(timed, f"A training step, {setting.backbone}, {where}"))
    if found.compiled:
        console.print(table_of_compiled(found.compiled, f"Compiled, {asked.backbone}, fp32, {device}"))
    for name in found.left_out:
        console.print(f"left out or cut short, {asked.minutes:g} minutes: {name}")
    for name in found.failed:
        console.print(f"FAILED: {name}")


def main() -> int:
    asked = asked_for()
    if asked.device not in available_devices():
        print(f"gpu-check: no device {asked.device} here; --device cpu compares allocated memory", file=sys.stderr)
        return 2
    deadline = time.monotonic() + 60 * asked.minutes
    with tempfile.TemporaryDirectory(prefix="petlbench-gpu-check-") as folder:
        found = Check(asked, Path(folder), deadline).carry_out()
    device = torch.cuda.get_device_name() if asked.device == "cuda" else "CPU"
    if asked.json:
        print(json.dumps(document(asked, found, device)))
    else:
        show_all(asked, found, device)
    return 0 if found.agrees else 1


if __name__ == "__main__":
    sys.exit(main())

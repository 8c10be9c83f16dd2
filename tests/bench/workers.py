"""Two worker processes against one: how much of the second core a study gets.

Beside it stands what two processes of nothing but matrix products get, which is what the machine has to give: two
cores of one chip share its clock, its cache and its memory.
"""

from __future__ import annotations

import multiprocessing
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from rich.console import Console
from rich.table import Table

from petlbench.core.catalog import Catalog
from petlbench.core.request import Request
from petlbench.run.options import RunOptions
from petlbench.run.resolve import resolve
from petlbench.study.executors.job import Action, Ended, Event, ExecutorOptions, Job, Started, open_executor

__all__ = ["report"]

RUNS, ROUNDS = 6, 3
REQUEST = Request(
    "lora", "digits", backbone="petlbench_micro", image_size=32, device="cpu", threads=1, training={"epochs": 3}
)


def study_seconds(workers: int) -> tuple[float, float]:
    """Carry out the same runs with so many workers; seconds until the first began, and from there to the last's end."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        config = resolve(REQUEST, Catalog(), folder).config
        options = RunOptions(folder / "results", folder, folder / "cache", tracking_uri="none")
        jobs = [Job(config.model_copy(update={"seed": seed}), options) for seed in range(RUNS)]
        times: dict[type[Event], list[float]] = {Started: [], Ended: []}

        def note(job: Job, event: Event) -> Action:
            times.get(type(event), []).append(time.perf_counter())
            if isinstance(event, Ended) and event.status != "finished":
                raise RuntimeError(f"{job.config.run_id} is {event.status}: {event.error}")
            return Action.GO_ON

        began = time.perf_counter()
        open_executor("local", ExecutorOptions(workers=workers), Catalog()).run(iter(jobs), note)
    return times[Started][0] - began, times[Ended][-1] - times[Started][0]


def products(seconds: float) -> int:
    """How many matrix products one thread does in some seconds."""
    torch.set_num_threads(1)
    matrix, count, end = torch.randn(512, 512), 0, time.perf_counter() + seconds
    while time.perf_counter() < end:
        matrix @ matrix
        count += 1
    return count


def ceiling() -> float:
    """What two processes of matrix products get of twice one's."""
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        pool.map(products, [0.5, 0.5])
        alone = pool.apply(products, (5.0,))
        together = sum(pool.map(products, [5.0, 5.0], chunksize=1))
    return together / (2 * alone)


def report(console: Console) -> None:
    """Measure in turns and print the efficiency: the time of one worker over twice that of two."""
    pairs = [(study_seconds(1), study_seconds(2)) for _ in range(ROUNDS)]
    limits = [ceiling() for _ in range(ROUNDS)]

    def median(pick: Callable[[tuple[tuple[float, float], tuple[float, float]]], float]) -> float:
        return statistics.median(pick(pair) for pair in pairs)

    table = Table("what", "two workers", "one worker", title=f"{RUNS} runs side by side, one thread each")
    efficiency = median(lambda pair: pair[0][1] / (2 * pair[1][1]))
    table.add_row("seconds", f"{median(lambda pair: pair[1][1]):.1f}", f"{median(lambda pair: pair[0][1]):.1f}")
    table.add_row("start-up, seconds", f"{median(lambda p: p[1][0]):.1f}", f"{median(lambda p: p[0][0]):.1f}")
    table.add_row("parallel efficiency", f"{efficiency:.3f}", "1")
    table.add_row("that of matrix products", f"{statistics.median(limits):.3f}", "1")
    console.print(table)

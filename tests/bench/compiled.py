"""What ``--compile`` changes: nothing beyond 1e-5 in what a method gives, and the time of a step."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from rich.table import Table
from torch import Tensor

from petlbench.models.precision import autocast
from petlbench.run.compilation import compile_module
from tests.bench.steps import Ours, Setting, ours
from tests.bench.turns import seconds

__all__ = ["CompiledRow", "compare_compiled", "table_of_compiled"]

BOUND = 1e-5
_STEPS = 3


@dataclass(frozen=True)
class CompiledRow:
    """A method compiled, against the same as it is written.

    Args:
        method: Its name.
        losses: The largest difference of the losses of three steps, dropout included; as of the logits.
        logits: The largest difference of logits before them, over the largest logit where that is above one.
        start: Seconds that compiling takes.
        plain: Seconds of a step as it is written.
        compiled: Seconds of a step compiled.
    """

    method: str
    losses: float
    logits: float
    start: float
    plain: float
    compiled: float

    @property
    def agrees(self) -> bool:
        """Whether both give the same."""
        return max(self.losses, self.logits) <= BOUND


@dataclass(frozen=True)
class _Taken:
    losses: Tensor
    logits: Tensor
    seconds: float


def compare_compiled(method: str, setting: Setting, rounds: int) -> CompiledRow:
    """A method's row, on random weights and pixels."""
    torch.set_num_threads(setting.threads)
    plain, mine = _take(ours(method, setting), rounds), ours(method, setting)
    began = time.perf_counter()
    compile_module(mine.assembled.adapted, mine.source(mine.batch), mine.config)
    start = time.perf_counter() - began
    compiled = _take(mine, rounds)
    losses, logits = _apart(plain.losses, compiled.losses), _apart(plain.logits, compiled.logits)
    return CompiledRow(method, losses, logits, start, plain.seconds, compiled.seconds)


def _apart(plain: Tensor, compiled: Tensor) -> float:
    """The largest difference, over the largest of the numbers where that is above one: they have so many digits."""
    return float((plain - compiled).abs().max() / plain.abs().max().clamp(min=1))


def _take(mine: Ours, rounds: int) -> _Taken:
    """Give logits, take steps, then take the time of further ones."""
    step, module = mine.step(), mine.assembled.adapted.module
    device = torch.device(mine.config.device)
    with torch.no_grad(), autocast(device, mine.config.precision):
        logits = module.eval()(mine.source(mine.batch)).float()
    module.train()
    torch.manual_seed(0)
    losses = torch.tensor([float(step()) for _ in range(_STEPS)])
    return _Taken(losses, logits, statistics.median(seconds(lambda: float(step())) for _ in range(rounds)))


def table_of_compiled(found: Sequence[CompiledRow], title: str) -> Table:
    """The rows as a table."""
    table = Table("method", "losses apart", "logits apart", "plain, ms", "compiled, ms", "start, s", title=title)
    for row in found:
        apart = (f"{row.losses:.1e}", f"{row.logits:.1e}")
        table.add_row(row.method, *apart, f"{1000 * row.plain:.1f}", f"{1000 * row.compiled:.1f}", f"{row.start:.0f}")
    return table

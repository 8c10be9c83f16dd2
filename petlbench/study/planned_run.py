"""One run of a study before it is carried out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from petlbench.core.config import RunConfig
from petlbench.core.request import Request
from petlbench.results.result import Origin

Plain = int | float | str


@dataclass(frozen=True)
class PlannedRun:
    """One combination of a grid.

    Args:
        dataset: The dataset as it was asked for; empty where no image is to be read.
        request: What was asked for.
        config: The run; None where the combination cannot be had.
        refusal: Why it cannot be had.
        is_defect: Whether that is a defect of the method's code, or of its search, rather than a refusal.
        varied: The value of what is varied, by its name; empty where nothing is.
        draw: Which draw of few labels.
        origin: The protocol, recipe or sweep that its settings are from; None for none.
    """

    method: str
    dataset: str
    seed: int
    request: Request
    config: RunConfig | None = None
    refusal: str | None = None
    is_defect: bool = False
    varied: Mapping[str, Plain] = field(default_factory=dict)
    draw: int = 0
    origin: Origin | None = None

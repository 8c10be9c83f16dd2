"""Stored results as evidence for `petlbench.statistics`."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from petlbench.metrics.metric import Metric
from petlbench.report.grid import Line
from petlbench.results.stored import Stored

if TYPE_CHECKING:
    from petlbench.results.predictions import Predictions
    from petlbench.statistics.comparison import Evidence
    from petlbench.statistics.runs import Scored

__all__ = ["evidence_of", "predictions_of"]


def evidence_of(lines: Sequence[Line], metric: Metric) -> Evidence:
    """Give the finished runs of all rows as evidence; rows take the place of methods.

    Predictions are read when something asks for them, once a run.
    """
    from petlbench.statistics.comparison import Evidence

    records = [
        scored
        for line in lines
        for name, runs in line.runs.items()
        for one in runs
        if (scored := _scored(one, line.key, name, metric.name)) is not None
    ]
    return Evidence(records, metric)


def predictions_of(stored: Stored, split: str) -> Predictions | None:
    """Read the predictions that a run kept; None where there are none."""
    from petlbench.results.predictions import read_predictions

    name = stored.document.get("artifacts", {}).get("predictions")
    return None if stored.folder is None or name is None else read_predictions(Path(stored.folder / name), split)


def _scored(stored: Stored, row: str, dataset: str, metric: str) -> Scored | None:
    from petlbench.statistics.runs import Scored

    score = stored.score(metric)
    if score is None:
        return None
    images = stored.document.get("data", {}).get("images") or {}
    return Scored(
        row,
        dataset,
        stored.seed,
        stored.split,
        score,
        partial(predictions_of, stored, "test"),
        images["test"] / images["train"] if images.get("test") and images.get("train") else None,
        (stored.document.get("intervals") or {}).get("test", {}).get(metric),
    )

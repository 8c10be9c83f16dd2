"""The figures of a result as plain numbers by name, as a tracker takes them."""

from __future__ import annotations

from petlbench.results.result import Result
from petlbench.results.stored import Stored

__all__ = ["final_metrics"]


def final_metrics(result: Result) -> dict[str, float]:
    """The figures of a result that a tracker shows beside the curves."""
    figures = Stored(result.document()).figures
    # The curve owns the names val_…; the best epoch's figures must not become another point of it.
    return {f"best_{name}" if name.startswith("val_") else name: value for name, value in figures.items()}

"""The figures of a result as plain numbers by name, as a tracker takes them."""

from __future__ import annotations

from petlbench.results.result import Inference, Result

__all__ = ["final_metrics"]


# The figures of memory that a tracker is told.
_MEMORY = ("allocated", "reserved", "process")


def final_metrics(result: Result) -> dict[str, float]:
    """The figures of a result that a tracker shows beside the curves."""
    found: dict[str, float | None] = {}
    # The curve owns the names val_…; the best epoch's figures must not become another point of it.
    prefixes = {"val": "best_val", "test": "test", "external": "external"}
    for split, metrics in result.metrics.items():
        found |= {f"{prefixes[split]}_{name}": value for name, value in metrics.items() if isinstance(value, float)}
    if result.parameters is not None:
        found |= {"learnable_parameters": result.parameters.learnable, "learnable_ratio": result.parameters.ratio}
    if result.memory is not None:
        found |= {f"memory_{name}": getattr(result.memory, name) for name in _MEMORY}
    found |= _inference_figures(result.inference)
    found |= {"ppe": result.scores.ppe, "pme": result.scores.pme}
    found |= {f"seconds_{name}": value for name, value in result.timing.items()}
    return {name: float(value) for name, value in found.items() if value is not None}


def _inference_figures(inference: Inference | None) -> dict[str, float | None]:
    if inference is None:
        return {}
    figures = {"latency": inference.latency, "images_per_second": inference.images_per_second}
    if inference.memory is not None:
        figures |= {f"memory_{name}": getattr(inference.memory, name) for name in _MEMORY}
    return {f"inference_{name}": value for name, value in figures.items()}

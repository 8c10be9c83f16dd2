"""PPE and PME of a run, and the run of ``full`` that its memory is compared with."""

from __future__ import annotations

import math
from collections.abc import Iterable
from itertools import chain

from petlbench.results.result import Result, Scores

__all__ = ["REFERENCE", "pme", "ppe", "score"]


REFERENCE = "full"

# What must agree before two runs' memory is compared.
_SAME = ("backbone", "image_size", "precision", "attention_kernel", "checkpointing", "device")
_SAME_STEP = ("batch_size", "accumulate", "optimizer")


def score(result: Result, others: Iterable[Result]) -> Scores:
    """Weigh a run's test AUC by its learnable parameters and by its peak memory.

    Args:
        result: The run, with metrics, parameters and memory.
        others: Stored results among which the reference is looked for.

    Returns:
        PPE; and PME where a finished run of ``full`` with the same backbone, image size, precision, attention kernel,
        checkpointing, batch size, accumulation, optimiser, device and memory source is known, or the run is that one.
    """
    auc = result.metrics.get("test", {}).get("auc")
    if auc is None or result.parameters is None:
        return Scores()
    by_parameters = ppe(auc, result.parameters.ratio)
    for other in chain([result], others):
        if _is_reference(other, result) and result.memory and result.memory.allocated and other.memory:
            reference = {"run_id": other.run_id, "allocated": other.memory.allocated, "source": other.memory.source}
            ratio = result.memory.allocated / (other.memory.allocated or 1)
            return Scores(ppe=by_parameters, pme=pme(auc, ratio), pme_reference=reference)
    return Scores(ppe=by_parameters)


def _is_reference(other: Result, result: Result) -> bool:
    return (
        other.config.method == REFERENCE
        and other.status == "finished"
        and bool(other.memory and other.memory.allocated and result.memory)
        and other.memory.source == result.memory.source  # type: ignore[union-attr]  # both were just seen to be there
        and all(getattr(other.config, name) == getattr(result.config, name) for name in _SAME)
        and all(getattr(other.config.training, name) == getattr(result.config.training, name) for name in _SAME_STEP)
    )


def ppe(score: float, ratio: float) -> float:
    """Performance-parameter efficiency: ``score * exp(-log10(r + 1))``.

    Source: Fine-grained Prompt Tuning (MICCAI 2024, arXiv 2403.07576), the evaluation measures.

    Args:
        score: Performance, as a fraction or in percent; the result has the same unit.
        ratio: Learnable parameters / (backbone as adapted, method and head), a fraction (1.81 % is 0.0181).

    Returns:
        The score, reduced by what it costs in parameters.

    Raises:
        ValueError: An argument is negative or not finite.
    """
    return _discount(score, ratio, "ratio")


def pme(score: float, memory_ratio: float) -> float:
    """Performance-memory efficiency: ``score * exp(-log10(m + 1))``.

    Source: Fine-grained Prompt Tuning (MICCAI 2024, arXiv 2403.07576), the evaluation measures.

    Args:
        score: Performance, as a fraction or in percent; the result has the same unit.
        memory_ratio: Peak memory of training / that of the method ``full``, both measured in the same way.

    Returns:
        The score, reduced by what it costs in memory.

    Raises:
        ValueError: An argument is negative or not finite.
    """
    return _discount(score, memory_ratio, "memory_ratio")


def _discount(score: float, cost: float, name: str) -> float:
    for label, value in (("score", score), (name, cost)):
        if not (math.isfinite(value) and value >= 0):
            raise ValueError(f"{label} is {value}, but it has to be a finite number of at least 0")
    return score * math.exp(-math.log10(cost + 1))

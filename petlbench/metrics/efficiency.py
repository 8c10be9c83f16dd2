"""PPE and PME of a run, and the run of ``full`` that its memory is compared with."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from itertools import product
from typing import Any

REFERENCE = "full"

# What must agree before two runs' memory is compared.
_SAME = ("backbone", "image_size", "precision", "attention_kernel", "checkpointing", "compile", "device")
_SAME_STEP = ("batch_size", "accumulate", "optimizer")

# Which of data, split and seed a reference shares with a run, the nearest one first.
_MASKS = tuple(product((True, False), repeat=3))

_Document = Mapping[str, Any]


class References:
    """The runs of ``full`` among results, each the measure of memory in its setting.

    Args:
        results: Result documents, as ``result.json`` holds them; others than finished runs of ``full`` are passed over.
    """

    def __init__(self, results: Iterable[_Document]) -> None:
        # By setting and what of data, split and seed is looked for: the one whose name comes first.
        self._first: dict[tuple[Any, ...], _Document] = {}
        for result in filter(_is_reference, results):
            setting, parts = _setting(result), _parts(result)
            for mask in _MASKS:
                key = (setting, *_masked(parts, mask))
                first = self._first.get(key)
                if first is None or result["run_id"] < first["run_id"]:
                    self._first[key] = result

    def scores(self, result: _Document) -> dict[str, Any]:
        """Weigh a run's test AUC by its learnable parameters and by its peak memory.

        The reference is a finished run of ``full`` with the same backbone, image size, precision, attention kernel,
        checkpointing, compilation, batch size, accumulation, optimiser, device and memory source: the run itself where
        it is one, else one on the same data, with the same split and seed, as far as there is one.

        Args:
            result: The run's document.

        Returns:
            The section ``scores``: ``ppe``; ``pme`` and its ``pme_reference`` where there is a reference; else None.
        """
        scores: dict[str, Any] = {"ppe": None, "pme": None, "pme_reference": None}
        auc = result["metrics"].get("test", {}).get("auc")
        if auc is None or not result.get("parameters"):
            return scores
        scores["ppe"] = ppe(auc, result["parameters"]["ratio"])
        reference = self._nearest(result)
        if reference is not None:
            allocated, source = reference["memory"]["allocated"], reference["memory"]["source"]
            scores["pme"] = pme(auc, result["memory"]["allocated"] / allocated)
            scores["pme_reference"] = {"run_id": reference["run_id"], "allocated": allocated, "source": source}
        return scores

    def _nearest(self, result: _Document) -> _Document | None:
        if not (result.get("memory") or {}).get("allocated"):
            return None
        if _is_reference(result):
            return result
        setting, parts = _setting(result), _parts(result)
        keys = ((setting, *_masked(parts, mask)) for mask in _MASKS)
        return next((self._first[key] for key in keys if key in self._first), None)


def _is_reference(result: _Document) -> bool:
    config = result["config"]
    is_finished = config["method"] == REFERENCE and result["status"] == "finished"
    return is_finished and not config.get("test_every_epoch") and bool((result.get("memory") or {}).get("allocated"))


def _setting(result: _Document) -> tuple[Any, ...]:
    config, training = result["config"], result["config"]["training"]
    values = [*(config.get(name) for name in _SAME), *(training.get(name) for name in _SAME_STEP)]
    return (result["memory"]["source"], *values)


def _parts(result: _Document) -> tuple[str, str, str]:
    """A run's data, split and seed, as texts."""
    config = result["config"]
    groups = (("dataset", "dataset_settings"), ("split", "split_seed"), ("seed",))
    data, split, seed = (json.dumps([config.get(name) for name in names], sort_keys=True) for names in groups)
    return data, split, seed


def _masked(parts: tuple[str, ...], mask: tuple[bool, ...]) -> tuple[str | None, ...]:
    return tuple(part if kept else None for part, kept in zip(parts, mask, strict=True))


def ppe(score: float, ratio: float) -> float:
    """Return the performance-parameter efficiency: ``score * exp(-log10(r + 1))``.

    Source: Fine-grained Prompt Tuning (MICCAI 2024, arXiv 2403.07576), the evaluation measures.

    Args:
        score: Performance, as a fraction or in percent; the result has the same unit.
        ratio: Learnable parameters / (backbone as adapted, method and head), a fraction (1.81 % is 0.0181).

    Raises:
        ValueError: An argument is negative or not finite.
    """
    return _discount(score, ratio, "ratio")


def pme(score: float, memory_ratio: float) -> float:
    """Return the performance-memory efficiency: that of `ppe`, with peak memory / that of the method ``full`` as r."""
    return _discount(score, memory_ratio, "memory_ratio")


def _discount(score: float, cost: float, name: str) -> float:
    for label, value in (("score", score), (name, cost)):
        if not (math.isfinite(value) and value >= 0):
            raise ValueError(f"{label} is {value}, but it has to be a finite number of at least 0")
    return score * math.exp(-math.log10(cost + 1))

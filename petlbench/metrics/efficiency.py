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
        self._descriptions: dict[str, dict[str, Any]] = {}
        for result in results:
            config, memory = result["config"], result.get("memory") or {}
            if not _is_reference(result, config, memory):
                continue
            setting, parts = _setting(config, memory), _parts(config)
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
        auc, parameters = result["metrics"].get("test", {}).get("auc"), result.get("parameters")
        if auc is None or not parameters:
            return scores
        scores["ppe"] = ppe(auc, parameters["ratio"])
        memory = result.get("memory") or {}
        reference = self._nearest(result, memory)
        if reference is not None:
            scores["pme"] = pme(auc, memory["allocated"] / reference["allocated"])
            scores["pme_reference"] = reference
        return scores

    def _nearest(self, result: _Document, memory: _Document) -> dict[str, Any] | None:
        config = result["config"]
        if not memory.get("allocated"):
            return None
        if _is_reference(result, config, memory):
            return self._described(result, memory)
        setting, parts = _setting(config, memory), _parts(config)
        keys = ((setting, *_masked(parts, mask)) for mask in _MASKS)
        nearest = next((self._first[key] for key in keys if key in self._first), None)
        return None if nearest is None else self._described(nearest, nearest["memory"])

    def _described(self, reference: _Document, memory: _Document) -> dict[str, Any]:
        """What scores say of a reference: the same object to all runs that are compared with it."""
        run = str(reference["run_id"])
        if run not in self._descriptions:
            self._descriptions[run] = {"run_id": run, **{name: memory[name] for name in ("allocated", "source")}}
        return self._descriptions[run]


def _is_reference(result: _Document, config: _Document, memory: _Document) -> bool:
    is_finished = config["method"] == REFERENCE and result["status"] == "finished"
    return is_finished and not config.get("test_every_epoch") and bool(memory.get("allocated"))


def _setting(config: _Document, memory: _Document) -> tuple[Any, ...]:
    training = config["training"]
    values = [*(config.get(name) for name in _SAME), *(training.get(name) for name in _SAME_STEP)]
    return (memory["source"], *values)


def _parts(config: _Document) -> tuple[Any, ...]:
    """A run's data, split and seed."""
    settings = config.get("dataset_settings")
    data = (config.get("dataset"), json.dumps(settings, sort_keys=True) if settings else "")
    return data, (config.get("split"), config.get("split_seed")), (config.get("seed"),)


def _masked(parts: tuple[Any, ...], mask: tuple[bool, ...]) -> tuple[Any, ...]:
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

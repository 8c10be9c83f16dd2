"""Runs whose truth is known."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from scipy.special import ndtri

from petlbench.metrics.classification import compute_intervals
from petlbench.metrics.influence import auc_influences
from petlbench.results.predictions import Predictions
from petlbench.statistics.runs import Scored


def scored_run(
    method: str, dataset: str, seed: int, labels: np.ndarray, scores: np.ndarray, *, split: str = "official@0"
) -> Scored:
    """A run with two classes, of which `scores` is the positive one's logit."""
    logits = np.stack([np.zeros(len(scores)), scores], axis=1)
    predictions = Predictions([f"{split} {row}" for row in range(len(labels))], [None] * len(labels), labels, logits)
    auc = float(auc_influences(labels, logits)[0][0])
    return Scored(method, dataset, seed, split, auc, lambda: predictions, 0.25)


def with_interval(record: Scored) -> Scored:
    """The same with the interval that a run stores."""
    predictions = record.predictions()
    assert predictions is not None
    interval = compute_intervals(predictions.labels, predictions.logits)["auc_logits"]
    return replace(record, interval=interval)


def draw_study(
    rng: np.random.Generator,
    aucs: Mapping[str, float],
    *,
    spread: float = 0.0,
    seeds: int = 3,
    positives: int = 100,
    negatives: int = 100,
    datasets: int = 1,
    splits: int = 1,
) -> list[Scored]:
    """Draw runs: half of a score's variance is the image's, three tenths the method's view of it, the rest the seed's.

    A seed also moves the true AUC of its run, by `spread` (a standard deviation).
    """
    labels = np.repeat([1, 0], [positives, negatives])
    count, found = len(labels), []
    for place in [(dataset, split) for dataset in range(datasets) for split in range(splits)]:
        image = rng.normal(0, 0.5**0.5, count)
        for method, auc in aucs.items():
            view = image + rng.normal(0, 0.3**0.5, count)
            for seed in range(seeds):
                gap = 2**0.5 * ndtri(np.clip(auc + spread * rng.normal(), 0.3, 0.9999))
                scores = view + rng.normal(0, 0.2**0.5, count) + gap * labels
                split = f"kfold:{splits}/{place[1]}@0" if splits > 1 else "official@0"
                found.append(scored_run(method, f"dataset {place[0]}", seed, labels, scores, split=split))
    return found

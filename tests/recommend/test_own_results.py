"""What a user's own results say of the next dataset, and what a bound on the time of prediction leaves out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import petlbench as pb
from petlbench.core.config import RunConfig, TrainingConfig
from petlbench.core.errors import InputError
from petlbench.recommend.prior import SHIPPED, Prior, load_prior
from petlbench.recommend.trials import Candidate, own_trials
from tests.study.acting import acted_result, store


def finished(output: Path, method: str, dataset: str, auc: float, *, lr: float = 0.01, **changes: Any) -> Candidate:
    """Store a run with a score on validation, and return the candidate that it is of."""
    training = TrainingConfig(lr=lr, weight_decay=0.0)
    values = {"split": "official", "backbone": "petlbench_micro", "image_size": 32, "preload": False, **changes}
    config = RunConfig(method=method, dataset=dataset, training=training, device="cpu", threads=1, **values)
    store(output, acted_result(config, metrics={"val": {"auc": auc}, "test": {"auc": 1 - auc}}))
    return Candidate.of(method, lr, 0.0, {})


def test_own_runs_are_tasks_by_dataset_and_means_over_seeds(tmp_path: Path) -> None:
    lora = finished(tmp_path, "lora", "/data/a", 0.9)
    finished(tmp_path, "lora", "/data/a", 0.8, seed=1)
    linear = finished(tmp_path / "trials", "linear", "/data/a", 0.6)
    finished(tmp_path, "lora", "/data/lonely", 0.9)  # compares nothing
    for method in ("lora", "linear"):
        finished(tmp_path, method, "/data/mine", 0.5)
    [(name, task)] = own_trials(tmp_path, "auc", but="/data/mine").items()
    assert "/data/a" in name
    assert dict(zip(task.candidates, task.scores, strict=True)) == pytest.approx({lora: 85.0, linear: 60.0})


def test_they_move_the_shipped_prior_and_keep_what_it_says_of_others(tmp_path: Path) -> None:
    for dataset in "abcdefgh":
        own = [
            finished(tmp_path, "linear", f"/data/{dataset}", 0.95),
            finished(tmp_path, "lora", f"/data/{dataset}", 0.6),
        ]
    shipped, learned = load_prior(SHIPPED), Prior.of(own_trials(tmp_path, "auc", but=""))
    united = learned.united(shipped)
    before, after = (prior.belief(own).mean for prior in (shipped, united))
    assert before[0] < before[1]
    assert after[0] > after[1]
    known = shipped.candidates[:3]
    assert len(united.tasks) == len(shipped.tasks) + 8
    assert np.isfinite(united.belief(known).covariance).all()
    assert Prior.of({}).united(shipped) is shipped


def test_a_bound_on_prediction_leaves_out_what_is_slower(tmp_path: Path) -> None:
    options: dict[str, Any] = {"backbone": "petlbench_micro", "image_size": 32, "output": tmp_path, "epochs": 1}
    with pytest.raises(InputError, match=r"predicting an image takes [\d.]+ ms here, more than 0.0001 ms"):
        pb.recommend("digits", hours=1, methods=["linear"], max_latency=1e-7, progress=False, **options)

"""What a result tells a tracker, and how a failure becomes an ending."""

from __future__ import annotations

import pytest

from petlbench.config import RunConfig, TrainingConfig
from petlbench.errors import RunError
from petlbench.recording import describe_failure, final_metrics
from petlbench.result import Result


def result() -> Result:
    config = RunConfig(
        method="full",
        dataset="digits",
        split="random",
        backbone="vit_tiny_patch16_224.augreg_in21k_ft_in1k",
        image_size=32,
        training=TrainingConfig(lr=1e-3, weight_decay=0.0),
        preload=False,
        device="cpu",
        threads=1,
    )
    metrics = {"val": {"auc": 0.9, "kappa": None}, "test": {"auc": 0.8, "confusion_matrix": [[1]]}}
    curve = [{"epoch": 1, "train_loss": 1.0, "val_auc": 0.9}]
    return Result(run_id="r", status="finished", config=config, metrics=metrics, curve=curve, timing={"total": 2.0})


def test_final_figures_are_no_further_points_of_the_curve() -> None:
    told = final_metrics(result())
    assert told == {"best_val_auc": 0.9, "test_auc": 0.8, "seconds_total": 2.0}
    assert not set(told) & set(result().curve[0])


@pytest.mark.parametrize(
    ("error", "status", "kind", "resumable"),
    [
        (KeyboardInterrupt(), "interrupted", "interrupted", True),
        (MemoryError("no room"), "oom", "oom", False),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"), "oom", "oom", False),
        (OSError(28, "No space left on device", "x"), "failed", "io", True),
        (RunError("nan", kind="nan_loss"), "failed", "nan_loss", False),
        (ZeroDivisionError("by zero"), "failed", "exception", False),
    ],
)
def test_whatever_stops_a_run_has_its_ending(error: BaseException, status: str, kind: str, resumable: bool) -> None:
    ending = describe_failure(error)
    assert ending.error is not None
    assert (ending.status, ending.error["kind"], ending.resumable) == (status, kind, resumable)
    assert ending.error["message"]

"""Results on the disk, as a study leaves them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from petlbench.core.config import RunConfig, TrainingConfig
from petlbench.results.result import Memory, Parameters, Result, Scores, Status, write_result

AUC = {0: 0.8, 1: 0.9, 2: 0.7}


def make(
    method: str = "fpt", dataset: str = "digits", seed: int = 0, *, status: Status = "finished", **fields: Any
) -> Result:
    config = RunConfig(
        method=method,
        dataset=dataset,
        split="random",
        backbone="petlbench_micro",
        image_size=64,
        training=TrainingConfig(lr=1e-3, weight_decay=0.0),
        preload=False,
        device="cpu",
        threads=1,
        seed=seed,
    )
    finished = {
        "metrics": {"val": {"auc": 0.75}, "test": {"auc": AUC[seed], "accuracy": 0.5}},
        "curve": [{"epoch": epoch, "train_loss": 1 / epoch, "val_auc": 0.7, "note": "x"} for epoch in (1, 2)],
        "parameters": Parameters(learnable=10, total=1000, ratio=0.01, ratio_published=0.01),
        "memory": Memory(allocated=100, reserved=None, process=None, source="cpu"),
        "scores": Scores(ppe=AUC[seed] - 0.1),
        "timing": {"total": 2.0},
        "data": {"title": dataset.title(), "synthetic": True},
    }
    values = {**(finished if status == "finished" else {}), **fields}
    return Result(run_id=config.run_id, status=status, config=config, **values)


def store(output: Path, *results: Result) -> None:
    for result in results:
        (output / result.run_id).mkdir(parents=True, exist_ok=True)
        write_result(output / result.run_id, result)


def write_study(output: Path, name: str, *results: Result) -> None:
    runs = [
        {"method": one.config.method, "dataset": one.config.dataset, "seed": one.config.seed, "run_id": one.run_id}
        for one in results
    ]
    (output / "studies").mkdir(exist_ok=True)
    (output / "studies" / f"{name}.json").write_text(json.dumps({"schema": 1, "name": name, "runs": runs}))

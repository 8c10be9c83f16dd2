"""Stored results without runs: valid documents, with predictions where a test wants them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from petlbench.core.config import RunConfig, TrainingConfig
from petlbench.metrics.classification import compute_intervals, evaluate
from petlbench.results.result import Memory, Parameters, Result, write_result

MIB = 2**20
RATIOS = {"full": 1.0, "linear": 0.0001, "lora": 0.007, "fpt": 0.018}
MEMORY = {"full": 1000, "linear": 200, "lora": 900, "fpt": 130}
FPT_SETTINGS = {
    "side_only": False,
    "asymmetric_input": True,
    "token_selection": True,
    "token_ratio": 0.2,
    "num_prompts": 16,
}


def store(
    output: Path,
    method: str = "full",
    dataset: str = "digits",
    seed: int = 0,
    *,
    auc: float | None = 0.9,
    status: str = "finished",
    message: str = "",
    training: Mapping[str, Any] | None = None,
    method_settings: Mapping[str, Any] | None = None,
    memory: int | None = None,
    title: str = "",
    preload_seconds: float = 0.0,
    seconds: float = 100.0,
    curve: Sequence[float] = (0.5, 0.6),
    test_curve: Sequence[float] = (),
    features: int | None = None,
    data: Mapping[str, Any] | None = None,
    score_forms: Mapping[str, str] | None = None,
    **config: Any,
) -> Result:
    """Write one result; its scores are what they are told to be."""
    preload = config.pop("preload", method == "fpt")
    described = RunConfig(
        **{
            "method": method,
            "method_settings": method_settings or (FPT_SETTINGS if method == "fpt" else {}),
            "dataset": dataset,
            "split": "random",
            "backbone": "vit_tiny_patch16_224.augreg_in21k_ft_in1k",
            "image_size": 224,
            "training": TrainingConfig(**{"epochs": 2, "lr": 1e-3, "weight_decay": 0.0, **(training or {})}),
            "preload": preload,
            "cache_precision": "int8" if preload else None,
            "seed": seed,
            "device": "cpu",
            "threads": 1,
            **config,
        }
    )
    finished = status == "finished"
    size = (memory or MEMORY.get(method, 500)) * MIB
    phases = {"train_step": {"allocated": size}, **({"preload": {"allocated": 300 * MIB}} if preload else {})}
    counts = {"images": {"train": 80, "test": 40}}
    data = {"title": title or dataset, "classes": ["no", "yes"], **counts, **(data or {})}
    if preload:
        data["features"] = {"bytes": features or 5 * MIB}
    scores = {"auc": auc, "auc_logits": auc, "accuracy": auc, "confusion_matrix": [[10, 0], [0, 10]]}
    if score_forms is not None:
        data["score_forms"] = score_forms
        scores |= dict.fromkeys(score_forms, auc)
    result = Result(
        run_id=described.run_id,
        status=status,  # type: ignore[arg-type]
        config=described,
        best_epoch=2 if finished else None,
        metrics={"val": scores, "test": scores} if finished else {},
        curve=[
            {"epoch": n + 1, "train_loss": 1 / (n + 1), "val_auc": value}
            | ({"test_auc": test_curve[n]} if test_curve else {})
            for n, value in enumerate(curve)
        ],
        parameters=Parameters(
            learnable=int(1e6 * RATIOS.get(method, 0.01)),
            total=10**6,
            ratio=RATIOS.get(method, 0.01),
            ratio_published=RATIOS.get(method, 0.01),
        ),
        memory=Memory(allocated=size, reserved=None, process=None, source="cpu", phases=phases),
        timing={"total": seconds + preload_seconds, "preload": preload_seconds},
        data=data,
        environment={"hardware": {"processor": "a CPU", "gpus": []}},
        artifacts={"predictions": "predictions.parquet"} if finished else {},
        error=None if finished else {"kind": status, "message": message, "hint": ""},
    )
    folder = output / result.run_id
    folder.mkdir(parents=True)
    write_result(folder, result)
    return result


def store_predicted(output: Path, method: str, dataset: str, seed: int, strength: float, **given: Any) -> Result:
    """Write one result with predictions of 120 images; the images are the same for all runs on a dataset."""
    result = store(output, method, dataset, seed, **given)
    labels, noise = _images(dataset)
    own = np.random.default_rng([seed, len(method), sum(map(ord, method))]).normal(size=len(labels))
    logits = np.stack([np.zeros(len(labels)), strength * (labels - 0.5) + noise + 0.3 * own], axis=1)
    logits = logits.astype(np.float32)
    half = len(labels) // 2
    parts = {"val": slice(0, half), "test": slice(half, None)}
    document = result.document()
    document["metrics"] = {name: evaluate(labels[part], logits[part]) for name, part in parts.items()}
    document["intervals"] = {name: compute_intervals(labels[part], logits[part]) for name, part in parts.items()}
    folder = output / result.run_id
    write_result(folder, Result.model_validate(document))
    table = {
        "image_id": [f"{dataset}/{number}" for number in range(len(labels))],
        "group": pa.array([None] * len(labels), pa.string()),
        "split": ["val"] * half + ["test"] * (len(labels) - half),
        "label": labels,
        "logits": logits.tolist(),
    }
    pq.write_table(pa.table(table), folder / "predictions.parquet")
    return result


def store_study(output: Path, name: str, runs: Sequence[Mapping[str, Any]], **given: Any) -> None:
    """Write what a study asked for."""
    study = {
        "schema": 1,
        "name": name,
        "kind": "bench",
        "methods": list(dict.fromkeys(run["method"] for run in runs)),
        "datasets": list(dict.fromkeys(run["dataset"] for run in runs)),
        "seeds": sorted({run["seed"] for run in runs}),
        "runs": [{"run_id": None, "status": None, "error": None, **run} for run in runs],
        **given,
    }
    (output / "studies").mkdir(parents=True, exist_ok=True)
    (output / "studies" / f"{name}.json").write_text(json.dumps(study))


def _images(dataset: str) -> tuple[Any, Any]:
    rng = np.random.default_rng(len(dataset))
    return np.tile([0, 1], 60), rng.normal(size=120)

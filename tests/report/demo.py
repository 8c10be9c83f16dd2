"""A report as a study would make it: nine methods, four datasets, three seeds, some runs failed or out of memory."""

from __future__ import annotations

import math
import random
from typing import Any

from petlbench.report.document import Axis, Cell, Column, Figure, Row, Series, Table
from petlbench.report.formats import Document

METHODS = {  # learnable %, memory MiB at 224 pixels, AUC in percent
    "full": (100.0, 23128, 91.2),
    "linear": (0.01, 3416, 84.1),
    "vpt": (0.12, 20010, 86.7),
    "attention": (33.05, 20792, 90.1),
    "adapter": (2.03, 19360, 89.9),
    "bitfit": (0.23, 20382, 88.3),
    "lora": (0.68, 21200, 90.4),
    "fpt": (1.79, 1824, 90.7),
    "fpt_plus": (1.02, 736, 91.1),
}
DATASETS = ("isic2018", "messidor2", "ddsm", "covid")
HOSTILE = """<script>alert("x")</script>'&amp;$_{"""
EPOCHS = 20


def demo_document(*, seeds: int = 3, name: str = "demo", first_title: str = "full") -> Document:
    """A report.

    Args:
        seeds: Runs of each method on each dataset.
        name: What the report is called.
        first_title: What the first method is called in tables and figures.
    """
    titles = {method: first_title if method == "full" else method for method in METHODS}
    runs = [
        demo_run(method, dataset, seed, first_title)
        for method in METHODS
        for dataset in DATASETS
        for seed in range(seeds)
    ]
    return Document(
        name=name,
        title=f"Methods on four datasets ({name})",
        tables=[_main_table(titles), _comparison(titles)],
        figures=[
            _tradeoff(titles),
            _curves(titles),
            _resolution(titles),
            _budget(titles),
            _calibration(),
            _bars(titles),
            _ranks(titles),
            _intervals(titles),
            _confusion(),
        ],
        notes=["full on ddsm: 3 runs of 3 ended out of memory", f"lora on {first_title}: run 'petlbench bench'"],
        runs=runs,
        source="results/",
        settings={"setting": "best-practice", "study": name, "precision": "bf16"},
    )


def demo_run(method: str, dataset: str, seed: int, title: str = "full") -> dict[str, Any]:
    """One run as its result.json has it."""
    ratio, memory, score = METHODS[method]
    rng = random.Random(f"{method} {dataset} {seed}")
    status = {("full", "ddsm"): "oom", ("vpt", "covid"): "failed"}.get((method, dataset), "finished")
    auc = (score + rng.gauss(0, 1.2) + 2 * DATASETS.index(dataset) - 3) / 100
    run: dict[str, Any] = {
        "schema": 1,
        "run_id": f"{method}-{dataset}-s{seed}-{rng.getrandbits(48):012x}",
        "status": status,
        "config": {
            "method": title if method == "full" else method,
            "method_settings": {"num_prompts": 16} if method.startswith("fpt") else {},
            "dataset": dataset,
            "dataset_settings": {},
            "split": "official",
            "split_seed": 0,
            "backbone": "vit_base_patch16_224.augreg_in21k",
            "image_size": 512,
            "training": {"epochs": EPOCHS, "batch_size": 16, "lr": 0.001, "weight_decay": 0.0001},
            "preload": method.startswith("fpt"),
            "seed": seed,
            "device": "cuda",
            "threads": 4,
            "precision": "bf16",
        },
        "metrics": {},
        "curve": [],
        "parameters": {
            "learnable": int(ratio * 860_000),
            "total": 86_000_000,
            "ratio": ratio / 100,
            "ratio_published": ratio / 100,
        },
        "scores": {"ppe": None, "pme": None},
        "intervals": {},
        "memory": None,
        "timing": {},
        "data": {
            "title": dataset.upper(),
            "classes": ["benign", "malignant", HOSTILE if title != "full" else "normal"],
        },
        "environment": {
            "petlbench": "0.1.0",
            "python": "3.11.7",
            "packages": {"torch": "2.15.0", "timm": "1.0.31"},
            "git": {"commit": "3f42eb056b8a31a540039d38db59d26a6256565f", "dirty": False},
            "hardware": {"processor": "Xeon", "gpus": [{"name": "NVIDIA H200", "memory": 150_000_000_000}]},
        },
        "error": None,
        "folder": f"results/{method}-{dataset}-s{seed}",
    }
    if status != "finished":
        message = "out of memory: tried to allocate 2.1 GiB" if status == "oom" else f"ValueError: {title} diverged"
        return {**run, "error": {"kind": status, "message": message, "hint": "a smaller --batch-size"}}
    confusion = [[60 + rng.randrange(9), 4, 2], [7, 40 + rng.randrange(9), 3], [1, 5, 20 + rng.randrange(9)]]
    run["metrics"] = {
        "val": {"auc": auc + 0.01, "accuracy": auc - 0.1, "loss": 0.5, "confusion_matrix": confusion},
        "test": {"auc": auc, "accuracy": auc - 0.11, "loss": 0.55, "confusion_matrix": confusion},
    }
    run["best_epoch"] = EPOCHS - seed
    run["curve"] = [
        {
            "epoch": epoch,
            "train_loss": 1.2 * math.exp(-epoch / 6) + rng.random() * 0.05,
            "val_loss": 1.1 * math.exp(-epoch / 8) + 0.2 + rng.random() * 0.05,
            "val_auc": auc - 0.3 * math.exp(-epoch / 4) + rng.random() * 0.01,
        }
        for epoch in range(1, EPOCHS + 1)
    ]
    run["scores"] = {
        "ppe": auc * math.exp(-math.log10(1 + ratio / 100)),
        "pme": auc * math.exp(-math.log10(1 + memory / 23128)),
    }
    run["intervals"] = {
        "test": {"auc": {"low": auc - 0.02, "high": auc + 0.015, "level": 0.95, "method": "newcombe", "few": False}}
    }
    run["memory"] = {
        "allocated": memory * 2**20,
        "reserved": memory * 2**20 * 5 // 4,
        "process": None,
        "source": "cuda",
    }
    run["timing"] = {"total": memory / 10.0 + rng.random() * 60, "train": memory / 11.0, "preload": 30.0}
    return run


def _main_table(titles: dict[str, str]) -> Table:
    columns = [Column("ratio", "learnable", "%", "lower"), Column("memory", "memory", "MiB", "lower")]
    columns += [Column(dataset, dataset, "%", "higher", group="AUC") for dataset in DATASETS]
    columns += [
        Column(key, key.upper() if key != "average" else key, "", "higher") for key in ("average", "ppe", "pme")
    ]
    rows = [Row(method, titles[method], _cells(method), runs=(f"{method}-0",)) for method in METHODS]
    pixels = {"isic2018": Cell(71.2, "71.2", 69.0, 73.3), "average": Cell(None, "", reason="not run on ddsm")}
    rows.append(Row("pixels", "32x32 pixels, logistic regression", pixels, kind="baseline"))
    return Table(
        "main",
        "AUC by method",
        columns,
        rows,
        caption="Mean and standard deviation of 3 seeds. Memory: allocated, CUDA, bf16, fused attention, batch 16.",
        notes=["full on ddsm is empty: out of memory (3 of 3 runs)"],
        commands=["petlbench bench --method full --dataset ddsm --seed 0,1,2"],
    )


def _cells(method: str) -> dict[str, Cell]:
    ratio, memory, score = METHODS[method]
    cells = {
        "ratio": Cell(ratio, f"{ratio:.2f}", mark={"linear": "best", "vpt": "second"}.get(method, "")),
        "memory": Cell(memory, f"{memory:,}", mark={"fpt_plus": "best", "fpt": "second"}.get(method, "")),
        "ppe": Cell(
            score * math.exp(-math.log10(1 + ratio / 100)), f"{score * math.exp(-math.log10(1 + ratio / 100)):.2f}"
        ),
        "pme": Cell(
            score * math.exp(-math.log10(1 + memory / 23128)),
            f"{score * math.exp(-math.log10(1 + memory / 23128)):.2f}",
        ),
        "average": Cell(
            score,
            f"{score:.1f}",
            score - 1.5,
            score + 1.2,
            0.6,
            mark={"full": "best", "fpt_plus": "second"}.get(method, ""),
        ),
    }
    for number, dataset in enumerate(DATASETS):
        value = score + 2 * number - 3
        cells[dataset] = Cell(
            value, f"{value:.1f} ± 1.2", value - 2, value + 1.5, 1.2, flags=("few",) if number == 1 else ()
        )
    if method == "full":
        cells["ddsm"] = Cell(reason="out of memory (3 of 3 runs)")
    if method == "vpt":
        cells["covid"] = Cell(reason="failed: ValueError: diverged")
    return cells


def _comparison(titles: dict[str, str]) -> Table:
    columns = [Column("effect", "difference", "AUC points", "higher"), Column("p", "P(A > B)", "", None)]
    columns.append(Column("verdict", "verdict", numeric=False))
    rows = [
        Row(
            method,
            titles[method],
            {"effect": Cell(1.2, "1.2", -0.4, 2.8), "p": Cell(0.91, "0.91"), "verdict": Cell(text="not separable")},
        )
        for method in METHODS
    ]
    return Table("comparison", "Against lora", columns, rows, caption="Effect with its 95 % interval.")


def _tradeoff(titles: dict[str, str]) -> Figure:
    axes = [
        Axis("auc", "AUC", "%", "linear", "higher"),
        Axis("memory", "peak memory, allocated", "MiB", "log", "lower"),
        Axis("parameters", "learnable parameters", "%", "log", "lower"),
        Axis("time", "training time", "s", "log", "lower"),
    ]
    series = [
        Series(
            method, titles[method], {"auc": [score], "memory": [memory], "parameters": [ratio], "time": [memory / 10]}
        )
        for method, (ratio, memory, score) in METHODS.items()
    ]
    return Figure("tradeoff", "scatter", "Score against memory", axes, "memory", "auc", series, size="parameters")


def _curves(titles: dict[str, str]) -> Figure:
    epochs = list(range(1, EPOCHS + 1))
    series = []
    for method, (_, _, score) in METHODS.items():
        mean = [score - 30 * math.exp(-epoch / 4) for epoch in epochs]
        band = {"auc_low": [value - 1 for value in mean], "auc_high": [value + 1 for value in mean]}
        series.append(Series(method, titles[method], {"epoch": epochs, "auc": mean, **band}))
    axes = [Axis("epoch", "epoch"), Axis("auc", "validation AUC", "%", better="higher")]
    return Figure("curves-isic2018", "lines", "Validation AUC on isic2018", axes, "epoch", "auc", series)


def _resolution(titles: dict[str, str]) -> Figure:
    sizes = [224, 384, 512, 768, 1024]
    series = [
        Series(method, titles[method], {"size": sizes, "memory": [memory * (size / 224) ** 2 for size in sizes]})
        for method, (_, memory, _) in METHODS.items()
    ]
    axes = [Axis("size", "image size", "pixels"), Axis("memory", "peak memory, allocated", "MiB", "log", "lower")]
    return Figure("memory_vs_resolution", "lines", "Memory by resolution", axes, "size", "memory", series)


def _budget(titles: dict[str, str]) -> Figure:
    trials = list(range(1, 31))
    series = [
        Series(method, titles[method], {"trials": trials, "auc": [METHODS[method][2] - 5 / trial for trial in trials]})
        for method in ("lora", "fpt", "full")
    ]
    axes = [Axis("trials", "trials"), Axis("auc", "expected best validation AUC", "%", better="higher")]
    return Figure("budget", "lines", "Budget", axes, "trials", "auc", series)


def _calibration() -> Figure:
    steps = [0.05 + number / 10 for number in range(10)]
    low, high = ([max(0.0, min(1.0, value**1.3 + shift)) for value in steps] for shift in (-0.06, 0.06))
    series = [
        Series("perfect", "perfect", {"said": [0, 1], "seen": [0, 1]}, role="reference"),
        Series(
            "fpt", "fpt", {"said": steps, "seen": [value**1.3 for value in steps], "seen_low": low, "seen_high": high}
        ),
        Series("lora", "lora", {"said": steps, "seen": [value**0.7 for value in steps]}),
    ]
    axes = [Axis("said", "predicted probability"), Axis("seen", "observed share")]
    return Figure("calibration", "lines", "Calibration", axes, "said", "seen", series, marks={"square": True})


def _bars(titles: dict[str, str]) -> Figure:
    series = []
    for method in ("full", "lora", "fpt"):
        values = [METHODS[method][2] + 2 * number - 3 for number in range(len(DATASETS))]
        ends = {"auc_low": [value - 2 for value in values], "auc_high": [value + 1.5 for value in values]}
        series.append(Series(method, titles[method], {"auc": values, **ends}, labels=DATASETS))
    axes = [Axis("dataset", "dataset"), Axis("auc", "AUC", "%", better="higher")]
    return Figure("bars", "bars", "AUC by dataset", axes, "dataset", "auc", series)


def _ranks(titles: dict[str, str]) -> Figure:
    values = dict(zip(METHODS, (2.1, 8.8, 7.5, 4.6, 5.2, 6.9, 3.4, 3.0, 1.5), strict=True))
    series = [Series(method, titles[method], {"rank": [rank]}) for method, rank in values.items()]
    marks = {
        "critical_difference": 2.4,
        "cliques": [["fpt_plus", "full", "fpt", "lora"], ["lora", "attention", "adapter"], ["bitfit", "vpt", "linear"]],
    }
    return Figure(
        "ranks", "ranks", "Mean ranks", [Axis("rank", "mean rank", better="lower")], "rank", "rank", series, marks=marks
    )


def _intervals(titles: dict[str, str]) -> Figure:
    series = [
        Series(
            method,
            titles[method],
            {"effect": [score - 90.4], "effect_low": [score - 92], "effect_high": [score - 89.1]},
        )
        for method, (_, _, score) in METHODS.items()
    ]
    axes = [Axis("effect", "difference to lora", "AUC points", better="higher")]
    return Figure("intervals", "intervals", "Against lora", axes, "effect", "effect", series, marks={"line": 0})


def _confusion() -> Figure:
    values = {"0": [62, 4, 2], "1": [7, 44, 3], "2": [1, 5, 23]}
    series = [Series("fpt", "fpt", values, labels=["benign", "malignant", "normal"])]
    axes = [Axis("predicted", "predicted class"), Axis("true", "true class")]
    return Figure("confusion-fpt", "matrix", "Confusion of fpt on isic2018", axes, "predicted", "true", series)

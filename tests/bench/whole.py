"""A whole run against the naive form of the same: FPT from images on the disk to test scores, end to end.

``python -m tests.bench.whole FOLDER --images 90 --threads 2`` takes so many images of a folder of class folders, and
runs the naive form beside this file and ``petlbench run`` on them, each in a process of its own: ViT-B/16 at 512 pixels
with random weights, an empty cache, four epochs. What is behind ``--`` goes to a further run of petlbench.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from rich.console import Console
from rich.table import Table

BACKBONE, SIZE, COARSE, BATCH = "vit_base_patch16_384", 512, 224, 16


@dataclass(frozen=True)
class Cost:
    """What a whole run takes, in seconds.

    Args:
        wall: From the command to its end.
        cpu: Of the process and those that it starts.
        parts: Its own account of the time.
    """

    wall: float
    cpu: float
    parts: Mapping[str, float]

    def rows(self) -> dict[str, float]:
        preload = self.parts["preload"]
        learn = self.parts["train"] + self.parts["evaluate"]
        return {
            "preload": preload,
            "train, evaluate": learn,
            "all else": self.wall - preload - learn,
            "total": self.wall,
            "total but preload": self.wall - preload,
            "total, CPU": self.cpu,
        }


def take(source: Path, count: int, into: Path) -> None:
    """Link so many images of class folders, as many of each class as there can be, in the order of their names."""
    classes = sorted(folder for folder in source.iterdir() if folder.is_dir())
    for number, folder in enumerate(classes):
        (into / folder.name).mkdir(parents=True)
        share = count // len(classes) + (number < count % len(classes))
        for file in sorted(folder.iterdir())[:share]:
            (into / folder.name / file.name).symlink_to(file.resolve())


def run_naively(images: Path, threads: int, epochs: int) -> dict[str, float]:
    """Preload, train and evaluate in the plain way; the seconds of each part.

    Images are split 70/10/20, the small views stay decoded in memory, validation is read after each epoch.
    """
    import numpy as np
    import timm
    import torch
    from PIL import Image
    from timm.models.vision_transformer import VisionTransformer
    from torch import nn

    from tests.bench.naive import NaiveFPT, extract, load_features, save_features

    torch.set_num_threads(threads)
    files = sorted(images.glob("*/*"))
    classes = sorted({file.parent.name for file in files})
    labels = torch.tensor([classes.index(file.parent.name) for file in files])
    order = np.random.default_rng(0).permutation(len(files))
    cuts = round(0.7 * len(files)), round(0.8 * len(files))
    train, val, test = (part.tolist() for part in np.split(order, cuts))

    def view(file: Path, size: int) -> Any:
        pixels = np.asarray(Image.open(file).convert("RGB").resize((size, size), Image.Resampling.BICUBIC))
        return torch.from_numpy(pixels / np.float32(127.5) - np.float32(1)).permute(2, 0, 1)

    vit: Any = timm.create_model(BACKBONE, img_size=SIZE, num_classes=0).eval()
    layers, began = range(len(vit.blocks)), time.perf_counter()
    with TemporaryDirectory() as name:
        folder = Path(name)
        with torch.no_grad():
            for number, file in enumerate(files):
                save_features(folder, number, *extract(vit, view(file, SIZE)[None], layers, 0.2))
        preloaded = time.perf_counter()
        side = VisionTransformer(
            img_size=COARSE, patch_size=16, embed_dim=96, depth=12, num_heads=12, num_classes=len(classes)
        )
        module = NaiveFPT(side, layers=12, prompts=16, prompt_width=96, width=768, heads=12, dropout=0.5)
        optimizer = torch.optim.AdamW(module.parameters(), lr=1e-3, weight_decay=0.1)
        coarse = torch.stack([view(file, COARSE) for file in files])

        def logits(numbers: Sequence[int]) -> Any:
            return module(coarse[numbers], *load_features(folder, numbers))

        def evaluate(numbers: Sequence[int]) -> None:
            module.eval()
            with torch.no_grad():
                for first in range(0, len(numbers), BATCH):
                    logits(numbers[first : first + BATCH])

        for epoch in range(epochs):
            module.train()
            shuffled = np.random.default_rng(epoch).permutation(train).tolist()
            size = len(shuffled) // BATCH * BATCH or len(shuffled)
            for first in range(0, size, BATCH):
                numbers = shuffled[first : first + BATCH]
                optimizer.zero_grad()
                nn.functional.cross_entropy(logits(numbers), labels[numbers]).backward()
                nn.utils.clip_grad_norm_(module.parameters(), 1.0)
                optimizer.step()
            evaluate(val)
        evaluate(test)
    ended = time.perf_counter()
    return {"preload": preloaded - began, "train": ended - preloaded, "evaluate": 0.0}


def measure(words: Sequence[str]) -> tuple[float, float, dict[str, Any]]:
    """Seconds and CPU seconds of a command, and the JSON document that it prints."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run([sys.executable, *words], capture_output=True, text=True, check=False)
    wall, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise SystemExit(f"{' '.join(words)}\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return wall, cpu, json.loads(done.stdout)


def naive(images: Path, asked: argparse.Namespace) -> Cost:
    words = ["-m", "tests.bench.whole", str(images), "--threads", str(asked.threads), "--epochs", str(asked.epochs)]
    return Cost(*measure([*words, "--as", "naive"]))


def petlbench(images: Path, asked: argparse.Namespace, *options: str) -> Cost:
    with TemporaryDirectory() as folder:
        places = ["--output", f"{folder}/results", "--cache-dir", f"{folder}/cache"]
        what = f"--method fpt --backbone {BACKBONE} --weights random --image-size {SIZE} --batch-size {BATCH}"
        how = ["--dataset", str(images), "--epochs", str(asked.epochs), "--threads", str(asked.threads), "--json"]
        wall, cpu, result = measure(["-m", "petlbench", "run", *what.split(), *how, *places, *options])
    return Cost(wall, cpu, result["timing"])


def main() -> None:
    words = sys.argv[1:]
    cut = words.index("--") if "--" in words else len(words)
    own, more = words[:cut], words[cut + 1 :]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="class folders")
    parser.add_argument("--images", type=int, default=90)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--as", dest="form", choices=["naive"], help=argparse.SUPPRESS)
    asked = parser.parse_args(own)
    if asked.form:
        print(json.dumps(run_naively(asked.folder, asked.threads, asked.epochs)))
        return
    with TemporaryDirectory() as folder:
        images = Path(folder) / "images"
        take(asked.folder, asked.images, images)
        costs = {"naive": naive(images, asked), "petlbench": petlbench(images, asked)}
        if more:
            costs[" ".join(["petlbench", *more])] = petlbench(images, asked, *more)
    table = Table(
        f"seconds, {asked.images} images, {asked.threads} threads", *costs, *(f"{name}, ratio" for name in costs)
    )
    plain = costs["naive"].rows()
    for part in plain:
        figures = [cost.rows()[part] for cost in costs.values()]
        table.add_row(part, *(f"{each:.1f}" for each in figures), *(f"{each / plain[part]:.2f}" for each in figures))
    Console(width=140).print(table)


if __name__ == "__main__":
    main()

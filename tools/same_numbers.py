"""A net under work on the engine: small runs recorded before, repeated after, and compared to the last byte.

    python tools/same_numbers.py record BEFORE --petlbench /path/to/old/.venv/bin/petlbench
    python tools/same_numbers.py record AFTER
    python tools/same_numbers.py compare BEFORE AFTER

`record` carries out fourteen runs of thirteen methods on three datasets, a search with a study behind it, and every
report of them as CSV. `compare` prints what differs, and exits with 1 where something does. Run ids, times, digests,
package versions and the like are left out, and so are
settings that only the later code has; whatever else differs was either meant, or is a fault.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

COMMON = (
    "--backbone petlbench_micro --image-size 64 --epochs 2 --batch-size 16 --device cpu --threads 1 --tracking-uri none"
)
LESIONS = (
    "--dataset lesions --set dataset.image_count=120 --set dataset.image_size=256 "
    "--set dataset.lesion_min_size=6 --set dataset.lesion_max_size=16"
)
RUNS = {
    "full": "--method full --dataset TABLE",
    "linear": "--method linear --dataset digits",
    "vpt": "--method vpt --dataset TABLE",
    "attention": "--method attention --dataset TABLE",
    "adapter": f"--method adapter {LESIONS}",
    "bitfit": "--method bitfit --dataset TABLE",
    "lora": f"--method lora {LESIONS}",
    "fpt": "--method fpt --dataset TABLE",
    "fpt_plus": f"--method fpt_plus {LESIONS}",
    "adalora": "--method adalora --dataset TABLE",
    "gps": "--method gps --dataset TABLE",
    "ssf": "--method ssf --dataset TABLE --split kfold:5/1",
    "lst": "--method lst --dataset TABLE --no-preload",
    "in pieces": "--method lora --dataset TABLE --accumulate 3 --checkpointing --optimizer sgd --lr 0.01",
}
STUDY = (
    "sweep quick --method full,lora,bitfit --dataset digits --trials 2 --no-final --set training.accumulate=1 SMALL",
    "bench --method full,lora,bitfit --dataset digits --seed 0,1 --from-sweep quick --study study SMALL",
)
SMALL = COMMON.replace("--image-size 64 --epochs 2", "--image-size 32 --epochs 1")
# Curves are a figure alone: they have no CSV.
REPORTS = ("table1", "tradeoff", "clinical", "budget")
# What two recordings of one and the same code differ in, and what names the code.
UNLIKE = {"run_id", "timing", "digests", "environment", "inference", "latency", "seconds", "scores"}
TIMES = re.compile(r"second|hour|time|latency|images/s|preloading", re.IGNORECASE)


def main() -> int:
    """Record or compare, as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True, dest="command")
    record_ = commands.add_parser("record")
    record_.add_argument("folder", type=Path)
    record_.add_argument("--petlbench", default=str(Path(sys.executable).with_name("petlbench")))
    compare_ = commands.add_parser("compare")
    compare_.add_argument("before", type=Path)
    compare_.add_argument("after", type=Path)
    given = parser.parse_args()
    if given.command == "record":
        record(given.folder.resolve(), given.petlbench)
        return 0
    differences = list(compare(given.before, given.after))
    print("\n".join(differences) or "nothing differs")
    return 1 if differences else 0


def record(folder: Path, petlbench: str) -> None:
    """Carry out all runs in a folder that is made anew.

    Args:
        folder: Where results and reports go; what is there is removed.
        petlbench: The command to run.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    table = draw_table(folder / "images")
    environment = {**os.environ, "PETLBENCH_CACHE": str(folder / "cache")}

    def call(arguments: str) -> None:
        filled = arguments.replace("TABLE", str(table)).replace("SMALL", SMALL)
        print("petlbench", filled, flush=True)
        command = [petlbench, *filled.split()]
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"exit {done.returncode}: {done.stderr[-2000:]}")

    for name, arguments in RUNS.items():
        call(f"run {arguments} {COMMON} --output {folder / 'runs' / name.replace(' ', '_')}")
    for arguments in STUDY:
        call(f"{arguments} --output {folder / 'study'}")
    for name in REPORTS:
        call(f"report {name} --study study --results study --format csv --output {folder / 'reports' / name}")
    call(f"report table1 --results papers:miccai2024 --format csv --output {folder / 'reports' / 'papers'}")


def draw_table(folder: Path) -> Path:
    """Draw 90 images of three classes, whose stripes differ in direction, and write a CSV that names them."""
    folder.mkdir()
    random = np.random.default_rng(0)
    rows = ["image,label,patient"]
    across, down = np.meshgrid(np.arange(80), np.arange(80))
    for index in range(90):
        label = index % 3
        wave = np.sin((across * label + down * (2 - label)) / 5 + random.uniform(0, 6))
        noisy = 128 + 60 * wave[..., None] + random.normal(0, 40, (80, 80, 3))
        Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(folder / f"{index}.png")
        rows.append(f"{index}.png,stripes {label},p{index // 2}")
    table = folder / "stripes.csv"
    table.write_text("\n".join(rows) + "\n")
    return table


def compare(before: Path, after: Path) -> Iterator[str]:
    """Name what differs between two recordings.

    Yields:
        A line a difference.
    """
    old, new = results_of(before), results_of(after)
    yield from (f"{name}: only in one of the two" for name in sorted(old.keys() ^ new.keys()))
    for name in sorted(old.keys() & new.keys()):
        yield from compare_runs(name, old[name], new[name])
    for file in sorted((before / "reports").rglob("*.csv")):
        other = after / file.relative_to(before)
        if not other.is_file():
            yield f"{file.relative_to(before)}: missing"
        elif (left := lines_of(file)) != (right := lines_of(other)):
            pairs = [(a, b) for a, b in zip(left, right, strict=False) if a != b][:3]
            yield f"{file.relative_to(before)}: {len(left)} and {len(right)} lines, such as {pairs}"


def results_of(folder: Path) -> dict[str, Path]:
    """Every run's folder by what names the run, whatever its digest is."""
    found = {}
    for file in sorted(folder.rglob("result.json")):
        document = json.loads(file.read_text())
        config = json.dumps({k: v for k, v in document["config"]["training"].items() if k in {"lr", "weight_decay"}})
        found[f"{file.parent.parent.relative_to(folder)}/{file.parent.name.rpartition('-')[0]} {config}"] = file.parent
    return found


def compare_runs(name: str, before: Path, after: Path) -> Iterator[str]:
    """Compare the files of one run: predictions, learned tensors and manifest as bytes, the result by its values."""
    for file in ("predictions.parquet", "learned.safetensors", "manifest.csv"):
        digests = [content_of(folder / file) for folder in (before, after)]
        if digests[0] != digests[1]:
            yield f"{name}: {file} differs"
    old, new = (values_of(json.loads((folder / "result.json").read_text())) for folder in (before, after))
    for key in sorted(old.keys() | new.keys()):
        is_new_setting = key.startswith(".config.") and key not in old
        if old.get(key) != new.get(key) and not is_new_setting:
            yield f"{name}: {key}: {old.get(key)} -> {new.get(key)}"


def content_of(file: Path) -> str:
    """A digest of a file; learned tensors are digested without the header, which holds the run's id."""
    if not file.is_file():
        return "absent"
    data = file.read_bytes()
    if file.suffix == ".safetensors":
        data = data[8 + int.from_bytes(data[:8], "little") :]
    return hashlib.sha256(data.replace(str(file.parents[3]).encode(), b"")).hexdigest()


def values_of(document: Any, path: str = "") -> dict[str, Any]:
    """Flatten a result, without what is never alike."""
    if isinstance(document, dict):
        parts = [(key, value) for key, value in document.items() if key not in UNLIKE and not TIMES.search(key)]
    elif isinstance(document, list):
        parts = [(str(index), value) for index, value in enumerate(document)]
    else:
        return {path: re.sub(r"/\S*/images/", "", document) if isinstance(document, str) else document}
    flat: dict[str, Any] = {}
    for key, value in parts:
        flat |= values_of(value, f"{path}.{key}")
    # The resident size of a process is the system's; only what tensors take repeats.
    return {key: value for key, value in flat.items() if not key.endswith((".resident", ".others", ".process"))}


def lines_of(file: Path) -> list[str]:
    """The rows of a CSV without the columns of times, and without the digests of run ids."""
    rows = list(csv.reader(line for line in file.read_text().splitlines() if not line.startswith("#")))
    if not rows:
        return []
    kept = [index for index, heading in enumerate(rows[0]) if not TIMES.search(heading)]
    return [re.sub(r"-[0-9a-f]{12}\b", "", ",".join(row[i] for i in kept if i < len(row))) for row in rows]


if __name__ == "__main__":
    sys.exit(main())

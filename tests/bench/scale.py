"""``make bench-scale``: what petlbench costs against how much it is given, in seconds of CPU, seconds, and bytes.

``python -m tests.bench.scale [--quick] [--only NAME,…] [--output FOLDER]`` writes ``scale.json``, ``tables.md`` and a
figure a curve. Every point is a command in a process of its own, with a cache of its own; tiny images and networks
stand for large ones, so that what grows is petlbench's share. The short form takes two minutes on a free machine.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory, TemporaryFile
from typing import Any

import numpy as np
from PIL import Image

from petlbench.core.plotting import COLOURS, MARKERS, figure_file
from tests.bench.stored_runs import make_runs

MIB = 2**20
MICRO = ("--backbone", "petlbench_micro", "--epochs", "1", "--device", "cpu", "--measure-inference", "off")
UNTRACKED = ("--tracking-uri", "none")
# Links to one file that a file system allows for sure.
LINKS = 30_000


@dataclass(frozen=True)
class Cost:
    """What a command took: seconds of CPU of its process and those it waited for, seconds, and peak bytes in memory."""

    cpu: float
    seconds: float
    resident: int
    answer: Mapping[str, Any]

    def row(self, **values: Any) -> dict[str, Any]:
        return {"CPU, s": self.cpu, "time, s": self.seconds, "memory, MiB": self.resident / MIB, **values}


def petlbench(*arguments: object, cache: Path) -> Cost:
    """Carry out a command; one that fails ends the measurement with what it says."""
    command = [sys.executable, "-m", "petlbench", *map(str, arguments)]
    with TemporaryFile() as output, TemporaryFile() as errors:
        began = time.perf_counter()
        process = subprocess.Popen(
            command, stdout=output, stderr=errors, env={**os.environ, "PETLBENCH_CACHE": str(cache)}
        )
        _, status, usage = os.wait4(process.pid, 0)
        seconds, process.returncode = time.perf_counter() - began, os.waitstatus_to_exitcode(status)
        for stream in (output, errors):
            stream.seek(0)
        if process.returncode:
            raise SystemExit(f"{' '.join(command)}: {errors.read().decode()[-2000:]}")
        answer = json.load(output) if "--json" in arguments else {}
    return Cost(usage.ru_utime + usage.ru_stime, seconds, usage.ru_maxrss * 1024, answer)


def bytes_below(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def make_images(folder: Path, count: int, side: int) -> Path:
    """Two folders of grey noise, a class each; the brighter one is the second class."""
    random = np.random.default_rng(0)
    for number in range(count):
        place = folder / f"class{number % 2}"
        place.mkdir(parents=True, exist_ok=True)
        pixels = random.integers(60 * (number % 2), 190 + 60 * (number % 2), (side, side), dtype=np.uint8)
        Image.fromarray(pixels).save(place / f"{number:07}.png")
    return folder


def make_links(folder: Path, count: int) -> Path:
    """So many images in ten folders, of which thousands share a file."""
    for number in range(count):
        place = folder / f"class{number % 10}" / f"{number:07}.png"
        if number < 10:
            place.parent.mkdir(parents=True)
        if number % LINKS == 0:
            source = place
            Image.new("L", (8, 8), number // LINKS).save(source)
        else:
            os.link(source, place)
    return folder


def phases(cost: Cost) -> dict[str, float]:
    timing = cost.answer["timing"]
    return {f"{name}, s": timing.get(name, 0.0) for name in ("start", "data", "preload", "train", "evaluate")}


@dataclass(frozen=True)
class Curve:
    """A curve: its points are rows, of which the first column is what grows.

    Args:
        title: What is shown.
        points: What is measured at, in the long and in the short form.
        measure: Yields the rows of a point, in a folder of its own.
        figure: The columns that are drawn.
    """

    title: str
    points: Sequence[Any]
    quick: Sequence[Any]
    measure: Callable[[Any, Path], Iterator[dict[str, Any]]]
    figure: Sequence[str]


def images(count: int, folder: Path) -> Iterator[dict[str, Any]]:
    data = make_images(folder / "images", count, 16)
    run = ("run", "--method", "linear", "--dataset", data, "--image-size", 32, *MICRO, *UNTRACKED, "--json")
    cost = petlbench(*run, "--output", folder / "results", cache=folder / "cache")
    kept = bytes_below(folder / "cache") / MIB
    yield {"images": count, **cost.row(), **phases(cost), "cache, MiB": kept}


def image_size(side: int, folder: Path) -> Iterator[dict[str, Any]]:
    data = make_images(folder / "images", 24, side)
    backbone = ("--backbone", "vit_tiny_patch16_224", "--weights", "random", "--epochs", 1, "--device", "cpu")
    off = ("--measure-inference", "off", "--batch-size", 4)
    run = ("run", "--method", "fpt", "--dataset", data, "--image-size", side, *backbone, *off, *UNTRACKED, "--json")
    cost = petlbench(*run, "--output", folder / "results", cache=folder / "cache")
    each = cost.answer["data"].get("features", {}).get("bytes_per_image", 0) / MIB
    yield {"pixels": side, **cost.row(), **phases(cost), "cache of an image, MiB": each}


def methods(name: str, folder: Path) -> Iterator[dict[str, Any]]:
    run = ("run", "--method", name, "--dataset", "digits", "--image-size", 64, *MICRO, *UNTRACKED, "--json")
    cost = petlbench(*run, "--output", folder / "results", cache=folder / "cache")
    yield {"method": name, **cost.row(), **phases(cost)}


def seeds(count: int, folder: Path) -> Iterator[dict[str, Any]]:
    yield {"seeds": count, **_bench(count, folder).row()}


def workers(count: int, folder: Path) -> Iterator[dict[str, Any]]:
    yield {"workers": count, **_bench(8, folder, "--executor", "local", "--workers", count).row()}


def _bench(count: int, folder: Path, *options: object) -> Cost:
    numbers = ",".join(map(str, range(count)))
    data = ("--dataset", "digits", "--image-size", 64, *MICRO, *UNTRACKED)
    run = ("bench", "--method", "linear", "--seed", numbers, *data, *options)
    return petlbench(*run, "--output", folder / "results", cache=folder / "cache")


def stored_runs(count: int, folder: Path) -> Iterator[dict[str, Any]]:
    cache, output = folder / "cache", folder / "results"
    run = ("run", "--method", "linear", "--dataset", "digits", "--image-size", 64, *MICRO, *UNTRACKED, "--json")
    document = petlbench(*run, "--output", folder / "one", cache=cache).answer
    document = json.loads((folder / "one" / document["run_id"] / "result.json").read_text())
    make_runs(document, output, count)
    time.sleep(1.5)  # a file of this moment is not kept in the index
    name = min(path.name for path in output.iterdir())
    commands: dict[str, tuple[object, ...]] = {
        "results list, first": ("results", "list", "--output", output),
        "results list": ("results", "list", "--output", output),
        "results list, filtered": ("results", "list", "--method", "fpt", "--dataset", "set00", "--output", output),
        "results show": ("results", "show", name, "--output", output),
        "report table1": ("report", "table1", "--results", output),
        "report tradeoff": ("report", "tradeoff", "--results", output),
    }
    for what, command in commands.items():
        cost = petlbench(*command, cache=cache)
        yield {"stored runs": count, "command": what, **cost.row(**{"index, MiB": bytes_below(cache) / MIB})}


def folder_of_images(count: int, folder: Path) -> Iterator[dict[str, Any]]:
    cost = petlbench("data", "info", make_links(folder / "images", count), cache=folder / "cache")
    yield {"images in the folder": count, **cost.row()}


def commands(count: int, folder: Path) -> Iterator[dict[str, Any]]:
    cache, output = folder / "cache", folder / "results"
    run = ("run", "--method", "linear", "--dataset", "digits", "--image-size", 64, *MICRO, "--output", output)
    numbers = ",".join(map(str, range(100, 100 + count)))
    study = ("bench", "--method", "linear", "--seed", numbers, *run[3:], *UNTRACKED)
    steps: dict[str, tuple[object, ...]] = {
        "--help": ("--help",),
        "list methods": ("list", "methods"),
        "list methods --backbone, first": ("list", "methods", "--backbone", "petlbench_micro"),
        "list methods --backbone": ("list", "methods", "--backbone", "petlbench_micro"),
        "run, untracked": (*run, "--seed", 8, *UNTRACKED),
        "run, tracked": (*run, "--seed", 9),
        "run, finished already": (*run, "--seed", 8, *UNTRACKED),
        "results list": ("results", "list", "--output", output),
        "results show": ("results", "show", "linear", "--output", output),
        "results diff": ("results", "diff", "linear-digits-s8", "linear-digits-s9", "--output", output),
        "report table1": ("report", "table1", "--results", output),
        f"study of {count} runs": study,
        f"study of {count} runs, finished already": study,
    }
    for name, command in steps.items():
        yield {"command": name, **petlbench(*command, cache=cache).row()}


NINE = ("full", "linear", "bitfit", "vpt", "attention", "adapter", "lora", "fpt", "fpt_plus")
TIMES = ("data, s", "preload, s", "train, s", "evaluate, s")
CURVES = {
    "commands": Curve("What commands cost that do little", (100,), (3,), commands, ()),
    "images": Curve("A run against the number of images", (100, 1000, 10_000, 100_000), (100, 1000), images, TIMES),
    "image_size": Curve(
        "24 images of FPT against their size", (224, 384, 512, 768, 1024, 1536), (64, 128), image_size, TIMES
    ),
    "methods": Curve("An epoch of each method", NINE, ("linear", "fpt"), methods, ()),
    "seeds": Curve("A study against its seeds", (1, 2, 4, 8, 16), (1, 2), seeds, ("CPU, s", "time, s")),
    "workers": Curve("Eight runs against workers", (1, 2, 4), (), workers, ("CPU, s", "time, s")),
    "stored_runs": Curve(
        "Commands against the number of stored runs", (10, 1000, 10_000, 100_000), (10, 300), stored_runs, ("CPU, s",)
    ),
    "folder_of_images": Curve(
        "data info against the images of a folder",
        (1000, 10_000, 100_000, 1_000_000),
        (1000, 5000),
        folder_of_images,
        ("CPU, s", "memory, MiB"),
    ),
}


def measure(curve: Curve, points: Sequence[Any]) -> list[dict[str, Any]]:
    rows = []
    for point in points:
        with TemporaryDirectory(dir=os.environ.get("TMPDIR")) as folder:
            for row in curve.measure(point, Path(folder)):
                print(json.dumps(row), file=sys.stderr, flush=True)
                rows.append(row)
    return rows


def table(title: str, rows: Sequence[Mapping[str, Any]]) -> str:
    lines = [list(rows[0]), ["---"] * len(rows[0]), *([_shown(value) for value in row.values()] for row in rows)]
    return f"## {title}\n\n" + "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _shown(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def draw(curve: Curve, rows: Sequence[Mapping[str, Any]], file: Path) -> None:
    """Draw the curve's columns against what grows, one line a column, or a command, with both axes logarithmic."""
    across = next(iter(rows[0]))
    names = list(dict.fromkeys(row.get("command", "") for row in rows))
    lines = [(column, name) for column in curve.figure for name in names]
    with figure_file(file, (5.2, 3.2)) as figure:
        axes = figure.add_subplot()
        for number, (column, name) in enumerate(lines):
            points = [(row[across], row[column]) for row in rows if row.get("command", "") == name and row[column] > 0]
            style = {"color": COLOURS[number % len(COLOURS)], "marker": MARKERS[number % len(MARKERS)]}
            axes.plot(*zip(*points, strict=True), label=name or column, markersize=4, **style)
        axes.set(xscale="log", yscale="log", xlabel=across, title=curve.title)
        measured = list(dict.fromkeys(row[across] for row in rows))
        axes.set_xticks(measured, [f"{each:,}" for each in measured])
        axes.minorticks_off()
        axes.set_ylabel(curve.figure[0] if len(curve.figure) == 1 else "")
        axes.legend(fontsize=7, frameon=False)


def main(arguments: Sequence[str]) -> None:
    """Measure what the command line asks for."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.scale", description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--only", default=",".join(CURVES))
    parser.add_argument("--output", type=Path, default=Path("results/scale"))
    options = parser.parse_args(arguments)
    options.output.mkdir(parents=True, exist_ok=True)
    file = options.output / "scale.json"
    measured = json.loads(file.read_text()) if file.exists() else {}
    for name in options.only.split(","):
        curve = CURVES[name]
        if rows := measure(curve, curve.quick if options.quick else curve.points):
            measured[name] = rows
            file.write_text(json.dumps(measured, indent=1) + "\n")
            if curve.figure:
                draw(curve, rows, options.output / f"{name}.svg")
    tables = [table(CURVES[name].title, rows) for name, rows in measured.items()]
    (options.output / "tables.md").write_text("\n".join(tables))
    print("\n".join(tables))


if __name__ == "__main__":
    main(sys.argv[1:])

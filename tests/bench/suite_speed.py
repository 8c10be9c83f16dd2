"""One study of a suite against a study for each method: images decoded, backbone passes, seconds.

``python -m tests.bench.suite_speed [METHODS] [TASKS]`` makes up images of as many tasks, 6 methods and 19 tasks by
default, and prints one JSON document. The separate studies share the feature cache, as they would anyway; all are
carried out with ``--workers 0``, each study in a process of its own, so that what is counted is all there is.

Counts are the same in every run. Seconds are ratios within one run, to be measured on an idle machine; seconds of the
processor are fair on any.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

__all__ = ["compare"]

METHODS = ("full", "linear", "fpt", "fpt_plus", "lora", "vpt")
CLASSES, IMAGES_A_CLASS, SIDE = ("red", "green"), 16, 48
CARD = f"""
title = "Task"
modality = "made up"
task = "binary"
split = "random"
grouping = "unavailable"
classes = {list(CLASSES)}
licence = "none"
version = 1
[reader]
kind = "folder"
"""
SETTINGS = {
    "backbone": "petlbench_micro",
    "image_size": 32,
    "epochs": 2,
    "batch_size": 8,
    "device": "cpu",
    "threads": 1,
    "tracking_uri": "none",
    "measure_inference": "off",
}


def make_suite(folder: Path, tasks: int) -> None:
    """Write the images of so many tasks, their cards, and the suite ``tiny``."""
    import numpy as np
    from PIL import Image

    rng = np.random.default_rng(0)
    names = [f"task{number}" for number in range(tasks)]
    (folder / "catalog" / "datasets").mkdir(parents=True)
    (folder / "catalog" / "reports").mkdir()
    for name in names:
        (folder / "catalog" / "datasets" / f"{name}.toml").write_text(CARD)
        for place, label in enumerate(CLASSES):
            (folder / "data" / name / label).mkdir(parents=True)
            for number in range(IMAGES_A_CLASS):
                pixels = rng.integers(0, 200, (SIDE, SIDE, 3))
                pixels[..., place] += rng.integers(0, 55)
                Image.fromarray(pixels.astype(np.uint8)).save(folder / "data" / name / label / f"{number:02d}.png")
    listed = ", ".join(f'{{ dataset = "{name}" }}' for name in names)
    suite = 'title = "Tiny"\nkind = "suite"\nmetric = "accuracy"\ncolumns = ["datasets"]\n[[groups]]\ntitle = "All"\n'
    (folder / "catalog" / "reports" / "tiny.toml").write_text(f"{suite}tasks = [{listed}]\n")


def asked(folder: Path, cache: str, methods: Sequence[str], images: str) -> Any:
    """The results of the suite with some methods."""
    import petlbench as pb

    return pb.bench(
        methods,
        seeds=[0],
        suite="tiny",
        catalog=folder / "catalog",
        data_root=folder / "data",
        output=folder / f"{cache}-{'-'.join(methods)}",
        cache_dir=folder / cache,
        cache_images=images,
        workers=0,
        progress=False,
        **SETTINGS,
    )


def again(folder: Path, cache: str, methods: Sequence[str], images: str) -> dict[str, Any]:
    """Ask for a study that is finished: the seconds of the processor since this process began."""
    results = asked(folder, cache, methods, images)
    seconds = time.process_time()
    return {"runs": len(results.runs), "cpu_seconds_of_process": seconds, "torch": "torch" in sys.modules}


def study(folder: Path, cache: str, methods: Sequence[str], images: str) -> dict[str, Any]:
    """Carry out the suite with some methods, and count: what this process does for one study."""
    from petlbench.data.dataset import Dataset
    from petlbench.features.source import LiveFeatures

    decodes, passes = Counter[str](), Counter[str]()
    decode, extract = Dataset.open_deep, LiveFeatures.extract

    def counted_decode(self: Dataset, record: Any) -> Any:
        decodes[f"{self.name}/{record.image_id}"] += 1
        return decode(self, record)

    def counted_extract(self: LiveFeatures, batch: Any) -> Any:
        passes[json.dumps(dict(self.spec.key), sort_keys=True)] += len(batch.index)
        return extract(self, batch)

    Dataset.open_deep, LiveFeatures.extract = counted_decode, counted_extract  # type: ignore[method-assign]
    began = time.perf_counter(), time.process_time()
    results = asked(folder, cache, methods, images)
    seconds, cpu = time.perf_counter() - began[0], time.process_time() - began[1]
    statuses = Counter(run.status for run in results.runs)
    return {"runs": statuses, "decodes": decodes, "passes": passes, "seconds": seconds, "cpu_seconds": cpu}


def in_its_own_process(
    action: Callable[..., dict[str, Any]], folder: Path, cache: str, methods: Sequence[str], images: str = "ram"
) -> dict[str, Any]:
    """What `study` or `again` says in a new process, and seconds from its start to its end."""
    code = (
        f"import json, sys; from pathlib import Path; from tests.bench.suite_speed import {action.__name__} as act; "
        "print(json.dumps(act(Path(sys.argv[1]), sys.argv[2], sys.argv[3].split(','), sys.argv[4])))"
    )
    arguments = [sys.executable, "-c", code, str(folder), cache, ",".join(methods), images]
    began = time.perf_counter()
    done = subprocess.run(arguments, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr)
    return {**json.loads(done.stdout.splitlines()[-1]), "process_seconds": time.perf_counter() - began}


def summary(studies: Sequence[dict[str, Any]], images: int) -> dict[str, Any]:
    """What some studies did together."""
    decodes, passes, runs = Counter[str](), Counter[str](), Counter[str]()
    for each in studies:
        decodes.update(each["decodes"])
        passes.update(each["passes"])
        runs.update(each["runs"])
    return {
        "runs": runs,
        "decodes_an_image": {"mean": sum(decodes.values()) / images, "most": max(decodes.values())},
        "passes_an_image": {kind: count / images for kind, count in sorted(passes.items())},
        **{
            name: round(sum(each[name] for each in studies), 2)
            for name in ("process_seconds", "seconds", "cpu_seconds")
        },
    }


def compare(methods: Sequence[str], tasks: int) -> dict[str, Any]:
    """One study with all methods, its images in memory and on the disk, and one study for each method."""
    images = tasks * len(CLASSES) * IMAGES_A_CLASS
    with TemporaryDirectory() as name:
        folder = Path(name)
        make_suite(folder, tasks)
        kept = {kind: [in_its_own_process(study, folder, f"one-{kind}", methods, kind)] for kind in ("ram", "disk")}
        separate = [in_its_own_process(study, folder, "separate", [method]) for method in methods]
        asked_again = in_its_own_process(again, folder, "one-ram", methods)
        parts = {**{f"one_study_{kind}": each for kind, each in kept.items()}, "a_study_for_each_method": separate}
        document = {name: summary(each, images) for name, each in parts.items()}
    ratio = {
        name: round(document["one_study_ram"][name] / document["a_study_for_each_method"][name], 3)
        for name in ("process_seconds", "cpu_seconds")
    }
    rest = {"one_over_separate": ratio, "one_study_asked_again": asked_again}
    return {"methods": list(methods), "tasks": tasks, "images": images, **document, **rest}


if __name__ == "__main__":
    given = [int(text) for text in sys.argv[1:]]
    methods, tasks = (*given, *(6, 19)[len(given) :])
    print(json.dumps(compare(METHODS[:methods], tasks), indent=1))

"""Many stored runs made of one: ``python -m tests.bench.stored_runs RUN_FOLDER OUTPUT COUNT``."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from petlbench.core.config import RunConfig
from petlbench.results.result import FILE, Result

METHODS = ("full", "linear", "lora", "fpt", "vpt", "adapter", "bitfit", "ssf", "fpt_plus", "attention")


def make_runs(document: Mapping[str, Any], output: Path, count: int) -> None:
    """Store runs that are as another one but for method, dataset, seed and scores: ten methods on a hundred datasets.

    Args:
        document: The result of a run, as ``result.json`` has it.
        output: The folder of all results; runs that are there already stay.
        count: How many.
    """
    for number in range(count):
        method, dataset, seed = METHODS[number % 10], f"set{number // 10 % 100:02}", number // 1000
        score = (number * 7919 % 10_000) / 10_000
        config = RunConfig(**{**document["config"], "method": method, "dataset": dataset, "seed": seed})
        test = {**document["metrics"]["test"], "auc": score}
        folder = output / config.run_id
        if not folder.exists():
            metrics = {**document["metrics"], "test": test}
            changes = {"run_id": config.run_id, "config": config.model_dump(mode="json"), "metrics": metrics}
            folder.mkdir(parents=True)
            (folder / FILE).write_text(json.dumps({**document, **changes}, indent=1) + "\n", encoding="utf-8")


def main(arguments: list[str]) -> None:
    """Make the runs that the command line asks for, of the result that lies in a folder."""
    run, output, count = arguments
    document = json.loads((Path(run) / FILE).read_text(encoding="utf-8"))
    Result.model_validate_json(json.dumps(document), strict=True)
    make_runs(document, Path(output), int(count))


if __name__ == "__main__":
    main(sys.argv[1:])

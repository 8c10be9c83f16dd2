"""Whether another value of a setting costs test AUC: seeds in pairs, each run with its default and with that value.

``python -m tests.bench.noninferior --set extract_precision=bf16`` trains ``fpt`` and ``fpt_plus`` with ten seeds on the
datasets that are named and prints, for each, the mean of the paired differences and its one-sided 95 % lower bound
(Student's t). The value is not inferior where that bound is above minus the margin. Finished runs are not run again, so
that it can be stopped and goes on. The exit status is 1 where one pair of method and dataset is inferior or open.
"""

from __future__ import annotations

import argparse
import ast
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from scipy.stats import t as student

import petlbench as pb

COMMON: dict[str, Any] = {"backbone": "petlbench_micro", "image_size": 256, "progress": False, "tracking_uri": "none"}


@dataclass(frozen=True)
class Pairs:
    """Test scores of the same seeds, with the default and with the other value, as fractions."""

    default: Sequence[float]
    other: Sequence[float]

    @property
    def differences(self) -> list[float]:
        return [other - default for default, other in zip(self.default, self.other, strict=True)]

    @property
    def deviation(self) -> float:
        return statistics.stdev(self.differences)

    def lower_bound(self, level: float = 0.95) -> float:
        """Above this the mean difference is, at so high a level."""
        count = len(self.differences)
        error = self.deviation / count**0.5
        return statistics.mean(self.differences) - float(student.ppf(level, count - 1)) * error


def settings(pairs: Sequence[str]) -> dict[str, Any]:
    """``KEY=VALUE`` as keywords of `petlbench.run`; ``method.KEY`` is a setting of the method."""
    values: dict[str, Any] = {}
    for name, text in (pair.split("=", 1) for pair in pairs):
        try:
            value = ast.literal_eval(text)
        except (ValueError, SyntaxError):
            value = text
        group, _, key = name.rpartition(".")
        if group:
            values.setdefault(f"{group}_settings", {})[key] = value
        else:
            values[name] = value
    return values


def score(method: str, dataset: str, seed: int, metric: str, **options: Any) -> float:
    result = pb.run(method, dataset, seed=seed, measure_inference="off", **options)
    if result.status != "finished":
        raise SystemExit(f"{result.run_id}: {result.status}: {result.error}")
    return result.metrics["test"][metric]


def paired(method: str, dataset: str, asked: argparse.Namespace) -> Pairs:
    """The scores of all seeds; a seed's two runs follow each other."""
    places = {"output": asked.output, "cache_dir": asked.output / "cache"}
    common = {**COMMON, **places, **settings(asked.common)}
    forms = (common, {**common, **settings(asked.set)})
    scores = [[score(method, dataset, seed, asked.metric, **form) for form in forms] for seed in range(asked.seeds)]
    return Pairs(*zip(*scores, strict=True))


def main(words: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--set", action="append", required=True, metavar="KEY=VALUE", help="the other value")
    parser.add_argument("--common", action="append", default=[], metavar="KEY=VALUE", help="a setting of all runs")
    parser.add_argument("--methods", nargs="+", default=["fpt", "fpt_plus"])
    parser.add_argument("--datasets", nargs="+", default=["lesions"], help="names, folders, tables or cards")
    parser.add_argument("--seeds", type=int, default=10, help="how many, from 0")
    parser.add_argument("--margin", type=float, default=0.5, help="in points")
    parser.add_argument("--metric", default="auc")
    parser.add_argument("--output", type=Path, default=Path("results/noninferior"))
    asked = parser.parse_args(words)
    names = ("method", "dataset", "seeds", "default", "other", "difference", "deviation", "lower bound", "inferior?")
    table = Table(*names, title=f"test {asked.metric} in points, {', '.join(asked.set)} against the default")
    worst = float("inf")
    for dataset in asked.datasets:
        for method in asked.methods:
            pairs = paired(method, dataset, asked)
            means = [statistics.mean(each) for each in (pairs.default, pairs.other, pairs.differences)]
            figures = [f"{100 * value:.3f}" for value in (*means, pairs.deviation, pairs.lower_bound())]
            worst = min(worst, 100 * pairs.lower_bound())
            verdict = "no" if 100 * pairs.lower_bound() > -asked.margin else "not excluded"
            table.add_row(method, Path(dataset).name, str(asked.seeds), *figures, verdict)
    Console(width=120).print(table)
    return 0 if worst > -asked.margin else 1


if __name__ == "__main__":
    sys.exit(main())

"""How good `petlbench recommend` is on real data: against the exhaustive study of the same methods.

    python tools/recommend_study.py FOLDER [--covid /data/covid_xray] [--datasets digits,lesions,covid3,covid2]
        [--hours 0.25] [--repetitions 5] [--trials 20] [--image-size 32] [--epochs 5] [--methods a,b,…]
        [--batch-size 64 …]

Of each dataset: the exhaustive study, 20 trials of every method, whose winners are tested on three seeds; then
`recommend` within some hours, so many times with another seed each. Regret is the best method's mean test score less
the recommended one's, both of the exhaustive study. A stated interval is the one around the recommended run's test
score, and around each difference to the others; the truth of it are the exhaustive study's means, taken as they are
and `allowing` for their own standard error.

All else that is given goes to every command: `--batch-size 64`, `--train-fraction 0.5`.
Each piece that is done stands as a line in FOLDER/study.jsonl and is not done again; a piece that was stopped goes on.
`covid2` is the two classes of covid_xray that have one source.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from recommend_truth import Truth

METHODS = "linear,bitfit,lora,adapter,adaptformer,vpt,ssf,fact_tt,convpass,fpt,attention,full"
COVID_TWO = ("no_findings", "pneumonia")
SEEDS = (0, 1, 2)


class Study:
    """The pieces of the comparison, each done once.

    Args:
        options: The command line.
        more: What else every command is given.
    """

    def __init__(self, options: argparse.Namespace, more: Sequence[str]) -> None:
        self.options, self.more, self.folder = options, more, options.folder
        self.folder.mkdir(parents=True, exist_ok=True)
        self.file = self.folder / "study.jsonl"
        lines = self.file.read_text().splitlines() if self.file.exists() else []
        self.pieces: dict[str, dict[str, Any]] = {piece["piece"]: piece for piece in map(json.loads, lines)}

    def dataset(self, name: str) -> str:
        """What the command takes for a dataset of the study."""
        if name == "covid3":
            return str(self.options.covid)
        if name != "covid2":
            return name
        folder: Path = self.folder / "covid2"
        for label in COVID_TWO:
            if not (folder / label).exists():
                shutil.copytree(self.options.covid / label, folder / f"{label}.part", dirs_exist_ok=True)
                (folder / f"{label}.part").rename(folder / label)
        return str(folder)

    def piece(self, name: str, **facts: Any) -> dict[str, Any]:
        """Write down what was done."""
        self.pieces[name] = {"piece": name, **facts}
        with self.file.open("a") as file:
            file.write(json.dumps(self.pieces[name]) + "\n")
        return self.pieces[name]

    def call(self, command: str, dataset: str, output: str, *words: str) -> dict[str, Any]:
        """What a command of petlbench answers."""
        options = self.options
        shared = {
            "dataset": self.dataset(dataset),
            "backbone": options.backbone,
            "image-size": options.image_size,
            "epochs": options.epochs,
            "workers": options.workers,
            "output": self.folder / output,
            "cache-dir": self.folder / "cache",
            "tracking-uri": "none",
        }
        values = [word for name, value in shared.items() for word in (f"--{name}", str(value))]
        call = [sys.executable, "-m", "petlbench", *command.split(), *values, *words, *self.more, "--json"]
        # A method that the backbone does not suit makes the status another one; the others stand.
        answer = dict(json.loads(subprocess.run(call, check=False, stdout=subprocess.PIPE, text=True).stdout))
        if "error" in answer:
            raise SystemExit(f"{' '.join(call)}: {answer['error']}")
        return answer

    def exhaust(self, dataset: str) -> dict[str, Any]:
        """The hours that the exhaustive study took, carried out where it was not."""
        name, output = f"{dataset}/exhaustive", f"{dataset}-exhaustive"
        if name in self.pieces:
            return self.pieces[name]
        methods = ("--method", self.options.methods)
        self.call("sweep recommend", dataset, output, *methods, "--trials", str(self.options.trials), "--no-final")
        seeds = ",".join(map(str, SEEDS))
        self.call("bench", dataset, output, *methods, "--from-sweep", "recommend", "--seed", seeds)
        files = [
            *(self.folder / output).glob("*/result.json"),
            *(self.folder / output / "trials").glob("*/result.json"),
        ]
        seconds = [json.loads(file.read_text())["timing"]["total"] for file in files]
        return self.piece(name, hours=sum(seconds) / 3600, runs=len(files))

    def race(self, dataset: str, seed: int) -> dict[str, Any]:
        """What `recommend` says with a seed."""
        name, output = f"{dataset}/recommend-{self.options.hours:g}-{seed}", f"{dataset}-recommend-{seed}"
        if name in self.pieces:
            return self.pieces[name]
        hours, methods = ("--hours", str(self.options.hours)), ("--methods", self.options.methods)
        return self.piece(name, answer=self.call("recommend", dataset, output, *hours, *methods, "--seed", str(seed)))


def judge(truth: Truth, answer: dict[str, Any]) -> dict[str, Any]:
    """How good an answer was: regret, hours, and which intervals hold the truth."""
    test, best = truth.scores, answer["recommended"]
    mine = test[best["method"]]
    held, allowing = truth.held(answer["differences"], best["method"])
    costs, rows = answer["hours"]["costs"], answer["methods"]
    timed = [costs[row["arm"]]["low"] <= row["seconds"] <= costs[row["arm"]]["high"] for row in rows]
    interval = best["interval"]
    return {
        "method": best["method"],
        "regret": 100 * (max(test.values()) - mine),
        "hours": answer["hours"]["spent"],
        "trials": answer["trials"],
        "score": interval["low"] <= mine <= interval["high"] if interval else None,
        "differences": held,
        "allowing": allowing,
        "times": fmean(timed),
    }


def main() -> None:
    """Carry out what is missing, and print a row a race."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--covid", type=Path, help="folder of covid_xray, for covid3 and covid2")
    parser.add_argument("--datasets", default="digits,lesions,covid3,covid2")
    parser.add_argument("--methods", default=METHODS)
    parser.add_argument("--backbone", default="petlbench_micro")
    parser.add_argument("--hours", type=float, default=0.25)
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--image-size", type=int, default=32)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--workers", type=int, default=0)
    options, more = parser.parse_known_args()
    names = options.datasets.split(",")
    if options.covid is None and any(name.startswith("covid") for name in names):
        parser.error("covid3 and covid2 need --covid FOLDER")
    study = Study(options, more)
    print(
        "dataset  seed  recommended  regret  hours  exhaustive  trials  score held  differences held  allowing  times"
    )
    for dataset in names:
        hours = study.exhaust(dataset)["hours"]
        truth = Truth(study.folder / f"{dataset}-exhaustive")
        for seed in range(options.repetitions):
            row = judge(truth, study.race(dataset, seed)["answer"])
            print(
                f"{dataset:7}  {seed:4}  {row['method']:11}  {row['regret']:6.2f}  {row['hours']:.3f}  "
                f"{hours:10.3f}  {row['trials']:6}  {row['score']!s:10}  {row['differences']:16.2f}  "
                f"{row['allowing']:8.2f}  {row['times']:.2f}",
                flush=True,
            )


if __name__ == "__main__":
    main()

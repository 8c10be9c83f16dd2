"""How `petlbench recommend` decides on the exhaustive study's own trials: many races, and nothing is trained.

    python tools/recommend_replay.py FOLDER [--datasets digits,lesions,covid3,covid2] [--trials 24,48,96]
        [--repetitions 20] [--candidates 12]

FOLDER is that of tools/recommend_study.py, whose exhaustive studies have ended. Each repetition draws so many of every
method's trials as the entrants of a race; the race chooses among them as the command does, drops methods by the same
intervals of the trials' own predictions, and ends after so many trials. `random` takes as many of the entrants in
random order. Both choose the method of the best trial. Regret is the best method's mean test score less the chosen
one's; an interval is that of a method's difference to the chosen one, and its truth that of their mean test scores.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from types import SimpleNamespace
from typing import Any, NamedTuple, cast

import numpy as np

from petlbench.metrics.classification import AUC
from petlbench.recommend.field import Field, Standing
from petlbench.recommend.prior import SHIPPED, load_prior
from petlbench.recommend.trials import Candidate
from petlbench.sweep.search import TRIALS, TrialFacts


class Recorded(NamedTuple):
    """A trial of the exhaustive study.

    Args:
        candidate: What it trained.
        trial: What came of it.
    """

    candidate: Candidate
    trial: TrialFacts


def read_pool(folder: Path) -> dict[str, list[Recorded]]:
    """Return the trials of an exhaustive study by method; other seeds of the best ones are none."""
    pool: dict[str, list[Recorded]] = {}
    for file in sorted((folder / TRIALS).glob("*/result.json")):
        result = json.loads(file.read_text())
        config, training = result["config"], result["config"]["training"]
        if config["seed"] == 0 and result["status"] == "finished":
            settings = dict(config["method_settings"])
            candidate = Candidate.of(config["method"], training["lr"], training["weight_decay"], settings)
            score, seconds = result["metrics"]["val"]["auc"], result["timing"]["total"]
            trial = TrialFacts(0, "finished", {}, score, file.parent.name, seconds=seconds)
            pool.setdefault(config["method"], []).append(Recorded(candidate, trial))
    return pool


def entered(folder: Path, entrants: Sequence[Recorded], images: int) -> Standing:
    """Return a race of recorded trials."""
    candidates = [SimpleNamespace(candidate=entrant.candidate) for entrant in entrants]
    options = SimpleNamespace(output=folder)
    field = SimpleNamespace(
        entrants=candidates, prior=load_prior(SHIPPED), score=AUC, label=folder.name, options=options
    )
    return Standing(cast("Field", field), images)


def race(standing: Standing, entrants: Sequence[Recorded], most: int, rng: np.random.Generator) -> list[TrialFacts]:
    """The trials of the command in their order."""
    trials: list[TrialFacts] = []
    while len(trials) < most:
        index = standing.race(trials).next(standing.dropped(trials))
        if index is None:
            break
        trials.append(replace(entrants[index].trial, number=len(trials), params={"candidate": index}))
    return trials


def random(standing: Standing, entrants: Sequence[Recorded], most: int, rng: np.random.Generator) -> list[TrialFacts]:
    """Trials in random order."""
    rows = rng.permutation(len(entrants))[:most].tolist()
    return [replace(entrants[row].trial, number=n, params={"candidate": row}) for n, row in enumerate(rows)]


SEARCHES: dict[str, Callable[..., list[TrialFacts]]] = {"recommend": race, "random": random}


def judge(standing: Standing, trials: Sequence[TrialFacts], truth: dict[str, float]) -> dict[str, Any]:
    """Regret of the decision, points, and the share of differences whose interval holds the truth."""
    best = standing.best_trials(trials)
    chosen = max(best, key=lambda method: best[method].value or 0.0)
    held = []
    for method in sorted(set(best) - {chosen}):
        pair = standing.difference(best[method], best[chosen])
        if pair.low is not None and pair.high is not None:
            held.append(pair.low <= truth[method] - truth[chosen] <= pair.high)
    regret = 100 * (max(truth.values()) - truth[chosen])
    return {"regret": regret, "held": fmean(held) if held else None, "trials": len(trials)}


def decide(folder: Path, truth: dict[str, float], options: argparse.Namespace, search: str, most: int) -> str:
    """A row: what a search's decisions are worth after so many trials."""
    pool, rows = read_pool(folder), []
    images = json.loads(next((folder / TRIALS).glob("*/result.json")).read_text())["data"]["images"]["val"]
    for repetition in range(options.repetitions):
        rng = np.random.default_rng(repetition)
        drawn = {method: rng.permutation(len(each))[: options.candidates] for method, each in pool.items()}
        entrants = [pool[method][row] for method, each in drawn.items() for row in each.tolist()]
        standing = entered(folder, entrants, images)
        rows.append(judge(standing, SEARCHES[search](standing, entrants, most, rng), truth))
    regrets, held = [row["regret"] for row in rows], [row["held"] for row in rows if row["held"] is not None]
    figures = f"{fmean(regrets):6.2f}  {max(regrets):5.2f}  {fmean(row['trials'] for row in rows):11.0f}"
    return f"{search:9}  {most:6}  {figures}  {fmean(held) if held else float('nan'):5.2f}"


def main() -> None:
    """Print a row a dataset, search and number of trials."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--datasets", default="digits,lesions,covid3,covid2")
    parser.add_argument("--trials", default="24,48,96")
    parser.add_argument("--repetitions", type=int, default=20)
    parser.add_argument("--candidates", type=int, default=12)
    options = parser.parse_args()
    pieces = [json.loads(line) for line in (options.folder / "study.jsonl").read_text().splitlines()]
    truths = {piece["piece"]: piece["test"] for piece in pieces if "test" in piece}
    print("dataset  search     trials  regret  worst  trials used   held")
    for dataset in options.datasets.split(","):
        truth, folder = truths[f"{dataset}/exhaustive"], options.folder / f"{dataset}-exhaustive"
        for search in SEARCHES:
            for most in map(int, options.trials.split(",")):
                print(f"{dataset:7}  {decide(folder, truth, options, search, most)}", flush=True)


if __name__ == "__main__":
    main()

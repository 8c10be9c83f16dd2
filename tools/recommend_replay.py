"""How `petlbench recommend` decides on the exhaustive study's own trials: many races, and nothing is trained.

    python tools/recommend_replay.py FOLDER [--datasets digits,lesions,covid3,covid2] [--trials 24,48,96]
        [--repetitions 20] [--candidates 12]

FOLDER is that of tools/recommend_study.py. Each repetition draws so many of every method's trials as the entrants of a
race; `recommend` chooses among them as the command does, drops methods by the same intervals of the trials' own
predictions, and ends after so many trials. `undropped` drops none, and `random` takes the entrants in random order.
All choose the method of the best trial. Regret is the best method's mean test score less the chosen one's; an interval
is that of a method's difference to the chosen one, and its truth that of their mean test scores: `held` takes these as
they are, `allowing` allows for their own standard error.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from types import SimpleNamespace
from typing import NamedTuple, cast

import numpy as np
from recommend_truth import Truth

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


Pool = dict[str, list[Recorded]]


class Draw(NamedTuple):
    """One repetition.

    Args:
        standing: A race in which nothing was tried.
        entrants: What may be tried.
        most: Number of trials at most.
        rng: What is drawn comes from it.
    """

    standing: Standing
    entrants: Sequence[Recorded]
    most: int
    rng: np.random.Generator


Drops = Callable[[Standing, Sequence[TrialFacts]], dict[str, float]]


def read_pool(folder: Path) -> Pool:
    """Return the trials of an exhaustive study by method; other seeds of the best ones are none."""
    pool: Pool = {}
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
    shared = {"score": AUC, "label": folder.name, "options": options, "card": SimpleNamespace(seed=0)}
    field = SimpleNamespace(entrants=candidates, prior=load_prior(SHIPPED), **shared)
    return Standing(cast("Field", field), images)


def race(standing: Standing, entrants: Sequence[Recorded], most: int, drops: Drops) -> list[TrialFacts]:
    """The trials of the command in their order."""
    trials: list[TrialFacts] = []
    while len(trials) < most:
        index = standing.race(trials).next(drops(standing, trials))
        if index is None:
            break
        trials.append(replace(entrants[index].trial, number=len(trials), params={"candidate": index}))
    return trials


def recommend(draw: Draw) -> list[TrialFacts]:
    """What the command does."""
    return race(draw.standing, draw.entrants, draw.most, Standing.excluded)


def undropped(draw: Draw) -> list[TrialFacts]:
    """What it would do if it dropped no method."""
    return race(draw.standing, draw.entrants, draw.most, lambda standing, trials: {})


def random(draw: Draw) -> list[TrialFacts]:
    """Trials in random order."""
    rows = draw.rng.permutation(len(draw.entrants))[: draw.most].tolist()
    return [replace(draw.entrants[row].trial, number=n, params={"candidate": row}) for n, row in enumerate(rows)]


SEARCHES: dict[str, Callable[[Draw], list[TrialFacts]]] = {
    "recommend": recommend,
    "undropped": undropped,
    "random": random,
}


def judge(standing: Standing, trials: Sequence[TrialFacts], truth: Truth) -> dict[str, float]:
    """Regret of the decision, points, shares of differences whose interval holds the truth, and their half-width."""
    best = standing.best_trials(trials)
    chosen = max(best, key=lambda method: best[method].value or 0.0)
    differences = standing.differences(trials, chosen)
    held, allowing = truth.held({method: pair._asdict() for method, pair in differences.items()}, chosen)
    return {
        "regret": 100 * (max(truth.scores.values()) - truth.scores[chosen]),
        "used": len(trials),
        "held": held,
        "allowing": allowing,
        "width": fmean(50 * (pair.high - pair.low) for pair in differences.values()),
    }


def decide(folder: Path, pool: Pool, truth: Truth, search: str, options: argparse.Namespace) -> None:
    """Print a row a number of trials: what a search's decisions are worth."""
    images = json.loads(next((folder / TRIALS).glob("*/result.json")).read_text())["data"]["images"]["val"]
    for most in map(int, options.trials.split(",")):
        rows = []
        for repetition in range(options.repetitions):
            rng = np.random.default_rng(repetition)
            drawn = {method: rng.permutation(len(each))[: options.candidates] for method, each in pool.items()}
            entrants = [pool[method][row] for method, each in drawn.items() for row in each.tolist()]
            standing = entered(folder, entrants, images)
            rows.append(judge(standing, SEARCHES[search](Draw(standing, entrants, most, rng)), truth))
        mean = {name: fmean(row[name] for row in rows) for name in rows[0]}
        worst = max(row["regret"] for row in rows)
        figures = f"{mean['regret']:6.2f}  {worst:5.2f}  {mean['used']:4.0f}  {mean['held']:4.2f}"
        print(f"{search:9}  {most:6}  {figures}  {mean['allowing']:8.2f}  {mean['width']:10.1f}", flush=True)


def main() -> None:
    """Print a row a dataset, search and number of trials."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--datasets", default="digits,lesions,covid3,covid2")
    parser.add_argument("--trials", default="24,48,96")
    parser.add_argument("--repetitions", type=int, default=20)
    parser.add_argument("--candidates", type=int, default=12)
    options = parser.parse_args()
    for dataset in options.datasets.split(","):
        folder = options.folder / f"{dataset}-exhaustive"
        pool, truth = read_pool(folder), Truth(folder)
        scores = sorted(truth.scores.items(), key=lambda item: -item[1])
        print(f"\n{dataset}: test {', '.join(f'{method} {100 * score:.1f}' for method, score in scores)}")
        print("search     trials  regret  worst  used  held  allowing  half-width")
        for search in SEARCHES:
            decide(folder, pool, truth, search, options)


if __name__ == "__main__":
    main()

"""How `petlbench recommend` decides on the exhaustive study's own trials: many races, and nothing is trained.

    python tools/recommend_replay.py FOLDER [--datasets digits,lesions,covid3,covid2] [--trials 24,48,96]
        [--repetitions 20] [--candidates 12]

FOLDER is that of tools/recommend_study.py. Each repetition draws so many of every method's trials as the entrants of a
race; `recommend` chooses among them as the command does, drops methods by the same intervals of the trials' own
predictions, and ends after so many trials. `hasty` drops a method after one trial, and `random` takes the entrants in
random order. All choose the method of the best trial. Regret is the best method's mean test score less the chosen
one's; an interval is that of a method's difference to the chosen one, and its truth that of their mean test scores.
Where the exhaustive study has not ended, a method's best validation score of all its trials stands for its test score:
then regret is what the search loses alone, and no interval is judged.
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


def best_scores(pool: Pool) -> dict[str, float]:
    """Return every method's best validation score."""
    return {method: max(each.trial.value or 0.0 for each in recorded) for method, recorded in pool.items()}


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
    field = SimpleNamespace(
        entrants=candidates, prior=load_prior(SHIPPED), score=AUC, label=folder.name, options=options
    )
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
    return race(draw.standing, draw.entrants, draw.most, Standing.dropped)


def hasty(draw: Draw) -> list[TrialFacts]:
    """What it would do if it dropped a method after one trial."""
    return race(draw.standing, draw.entrants, draw.most, Standing.excluded)


def random(draw: Draw) -> list[TrialFacts]:
    """Trials in random order."""
    rows = draw.rng.permutation(len(draw.entrants))[: draw.most].tolist()
    return [replace(draw.entrants[row].trial, number=n, params={"candidate": row}) for n, row in enumerate(rows)]


SEARCHES: dict[str, Callable[[Draw], list[TrialFacts]]] = {"recommend": recommend, "hasty": hasty, "random": random}


def judge(standing: Standing, trials: Sequence[TrialFacts], truth: dict[str, float]) -> dict[str, Any]:
    """Regret of the decision, points, and the share of differences whose interval holds the truth."""
    best = standing.best_trials(trials)
    chosen = max(best, key=lambda method: best[method].value or 0.0)
    pairs = {method: standing.difference(best[method], best[chosen]) for method in sorted(set(best) - {chosen})}
    known = {m: (p.low, p.high) for m, p in pairs.items() if p.low is not None and p.high is not None}
    held = [low <= truth[m] - truth[chosen] <= high for m, (low, high) in known.items()]
    regret = 100 * (max(truth.values()) - truth[chosen])
    return {"regret": regret, "held": fmean(held) if held else None, "trials": len(trials)}


def decide(folder: Path, pool: Pool, truth: dict[str, float] | None, search: str, options: argparse.Namespace) -> None:
    """Print a row a number of trials: what a search's decisions are worth."""
    images = json.loads(next((folder / TRIALS).glob("*/result.json")).read_text())["data"]["images"]["val"]
    for most in map(int, options.trials.split(",")):
        rows = []
        for repetition in range(options.repetitions):
            rng = np.random.default_rng(repetition)
            drawn = {method: rng.permutation(len(each))[: options.candidates] for method, each in pool.items()}
            entrants = [pool[method][row] for method, each in drawn.items() for row in each.tolist()]
            standing = entered(folder, entrants, images)
            rows.append(
                judge(standing, SEARCHES[search](Draw(standing, entrants, most, rng)), truth or best_scores(pool))
            )
        regrets = [row["regret"] for row in rows]
        held = [row["held"] for row in rows if row["held"] is not None and truth is not None]
        figures = f"{fmean(regrets):6.2f}  {max(regrets):5.2f}  {fmean(row['trials'] for row in rows):11.0f}"
        print(f"{search:9}  {most:6}  {figures}  {f'{fmean(held):5.2f}' if held else '    -'}", flush=True)


def main() -> None:
    """Print a row a dataset, search and number of trials."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--datasets", default="digits,lesions,covid3,covid2")
    parser.add_argument("--trials", default="24,48,96")
    parser.add_argument("--repetitions", type=int, default=20)
    parser.add_argument("--candidates", type=int, default=12)
    options = parser.parse_args()
    file = options.folder / "study.jsonl"
    pieces = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
    truths = {piece["piece"]: piece["test"] for piece in pieces if "test" in piece}
    for dataset in options.datasets.split(","):
        folder = options.folder / f"{dataset}-exhaustive"
        pool, truth = read_pool(folder), truths.get(f"{dataset}/exhaustive")
        counts = ", ".join(f"{method} {len(each)}" for method, each in pool.items())
        print(f"\n{dataset}: {'test' if truth else 'validation'} scores; trials: {counts}")
        print("search     trials  regret  worst  trials used   held")
        for search in SEARCHES:
            decide(folder, pool, truth, search, options)


if __name__ == "__main__":
    main()

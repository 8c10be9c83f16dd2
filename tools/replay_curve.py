"""Regret against trials of `petlbench recommend` and of other searches, on recorded trials.

    python tools/replay_curve.py TRIALS.csv FINALS.csv [--repetitions 20] [--trials 5,13,26,52,129,516]

All searches see the same trials and decide by the same rule: the method of the best trial. `race` is what the command
does; each repetition makes its prior from another eleven of the other tasks, as nothing else in it is drawn. `random`
shuffles the trials. `tpe` is Optuna's sampler over methods and settings. `halving` is successive halving over methods
without a prior: each of them gets one random trial, the better half two more, and so on.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
import optuna

from petlbench.recommend.prior import Prior
from petlbench.recommend.race import Race
from petlbench.recommend.replay import replay_task
from petlbench.recommend.trials import Recorded, RecordedTask, read_finals, read_trials

IMAGES = 200
DRAWN_TASKS = 11

Reached = dict[str, dict[str, float]]
Search = Callable[[Recorded, str, int, np.random.Generator], str]


def _verdict(recorded: RecordedTask, rows: list[int]) -> str:
    race = Race(recorded.candidates, Prior.of({}).belief(recorded.candidates), IMAGES)
    for row in rows:
        race.observe(row, float(recorded.scores[row]), float(recorded.losses[row]))
    return race.verdict().method


def race(tasks: Recorded, task: str, budget: int, rng: np.random.Generator) -> str:
    """The command's decision, with a prior of some of the other tasks."""
    others = [name for name in tasks if name != task]
    drawn = rng.choice(others, min(DRAWN_TASKS, len(others)), replace=False)
    prior = Prior.of({name: tasks[name] for name in drawn})
    return replay_task(tasks[task], prior, budget, IMAGES).verdict().method


def random(tasks: Recorded, task: str, budget: int, rng: np.random.Generator) -> str:
    """Trials in random order."""
    recorded = tasks[task]
    return _verdict(recorded, rng.permutation(len(recorded.candidates))[:budget].tolist())


def tpe(tasks: Recorded, task: str, budget: int, rng: np.random.Generator) -> str:
    """Optuna's tree-structured Parzen estimator over methods, and over the settings of each."""
    recorded = tasks[task]
    by_method: dict[str, dict[tuple[str, ...], int]] = {}
    choices: dict[str, dict[str, list[str]]] = {}
    for row, (method, values) in enumerate(recorded.candidates):
        by_method.setdefault(method, {})[tuple(str(value) for _, value in values)] = row
        for name, value in values:
            column = choices.setdefault(method, {}).setdefault(name, [])
            if str(value) not in column:
                column.append(str(value))
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=int(rng.integers(2**31))))
    rows: dict[int, None] = {}
    for _ in range(4 * budget):
        trial = study.ask()
        method = trial.suggest_categorical("method", sorted(by_method))
        picked = [trial.suggest_categorical(f"{method}.{n}", c) for n, c in choices[method].items()]
        row = by_method[method].get(tuple(picked))
        if row is None:
            study.tell(trial, state=optuna.trial.TrialState.FAIL)
            continue
        study.tell(trial, float(recorded.scores[row]))
        rows[row] = None
        if len(rows) == budget:
            break
    return _verdict(recorded, list(rows))


def halving(tasks: Recorded, task: str, budget: int, rng: np.random.Generator) -> str:
    """Successive halving over methods, random settings of each."""
    recorded = tasks[task]
    queues: dict[str, list[int]] = {}
    for row in rng.permutation(len(recorded.candidates)).tolist():
        queues.setdefault(recorded.candidates[row].method, []).append(row)
    alive, rows, each = list(queues), list[int](), 1
    while len(rows) < budget and any(queues[method] for method in alive):
        for method in alive:
            for _ in range(each):
                if queues[method] and len(rows) < budget:
                    rows.append(queues[method].pop(0))
        best = {
            m: max((recorded.scores[r] for r in rows if recorded.candidates[r].method == m), default=0) for m in alive
        }
        alive = sorted(alive, key=lambda m: -best[m])[: max(1, len(alive) // 2)]
        each *= 2
    return _verdict(recorded, rows)


def _regrets(search: Search, tasks: Recorded, reached: Reached, budget: int, seed: int) -> list[float]:
    chosen = {task: search(tasks, task, budget, np.random.default_rng(seed)) for task in tasks}
    return [max(reached[task].values()) - reached[task][method] for task, method in chosen.items()]


def main() -> None:
    """Print a row for each search and number of trials."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("trials", type=Path)
    parser.add_argument("finals", type=Path)
    parser.add_argument("--repetitions", type=int, default=20)
    parser.add_argument("--budgets", default="5,13,26,52,129,516")
    options = parser.parse_args()
    tasks, reached = read_trials(options.trials), read_finals(options.finals)
    searches: dict[str, Search] = {"race": race, "random": random, "tpe": tpe, "halving": halving}
    print("search    trials  mean regret  deviation  worst")
    for name, search in searches.items():
        for budget in map(int, options.budgets.split(",")):
            regrets = np.array([_regrets(search, tasks, reached, budget, seed) for seed in range(options.repetitions)])
            means, worst = regrets.mean(axis=1), regrets.max(axis=1).mean()
            print(f"{name:8}  {budget:6}  {means.mean():11.2f}  {means.std():9.2f}  {worst:5.2f}", flush=True)


if __name__ == "__main__":
    main()

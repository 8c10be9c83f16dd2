"""Regret against trials of `petlbench recommend` and of other searches, on recorded trials.

    python tools/replay_curve.py TRIALS.csv FINALS.csv [--alike cifar,cifar_aug_norm] [--repetitions 20]
        [--trials 5,13,26,52,129,516] [--keep CURVES.json] [--figure docs/replay_curve.svg]

All searches see the same trials and decide by the same rule: the method of the best trial. `recommend` is what the
command does; each repetition makes its prior from another eleven of the other tasks, as nothing else in it is drawn,
and never from a task of the same images that --alike names. `random` shuffles the trials. `tpe` is Optuna's sampler
over methods and settings. `halving` is successive halving over methods without a prior: each of them gets one random
trial, the better half two more, and so on.

It prints the table of docs/recommending.md: means over tasks and repetitions, their deviation over repetitions, and the
worst task of a repetition in the mean, and of all. What --keep holds is not computed again.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import optuna
from numpy.typing import NDArray

from petlbench.core.files import write_atomically
from petlbench.core.plotting import COLOURS, LINES, MARKERS, figure_file
from petlbench.recommend.prior import Prior
from petlbench.recommend.race import ranked
from petlbench.recommend.replay import replay_task
from petlbench.recommend.trials import Recorded, RecordedTask, read_finals, read_trials

IMAGES = 200
DRAWN_TASKS = 11

Rows = list[int]
Reached = dict[str, dict[str, float]]
Regrets = NDArray[np.float64]


class Draw(NamedTuple):
    """One repetition on one task.

    Args:
        recorded: The task's trials.
        others: The tasks that a prior may be made from.
        most: Number of trials at most.
        rng: What is drawn comes from it.
    """

    recorded: RecordedTask
    others: Recorded
    most: int
    rng: np.random.Generator


def recommend(draw: Draw) -> Rows:
    """The trials of the command in their order, with a prior of some of the other tasks."""
    names = draw.rng.choice(list(draw.others), min(DRAWN_TASKS, len(draw.others)), replace=False)
    prior = Prior.of({name: draw.others[name] for name in names})
    return list(replay_task(draw.recorded, prior, draw.most, IMAGES)._scores)


def random(draw: Draw) -> Rows:
    """Trials in random order."""
    return draw.rng.permutation(len(draw.recorded.candidates))[: draw.most].tolist()


def tpe(draw: Draw) -> Rows:
    """Optuna's tree-structured Parzen estimator over methods, and over the settings of each."""
    by_method: dict[str, dict[tuple[str, ...], int]] = {}
    choices: dict[str, dict[str, list[str]]] = {}
    for row, (method, values, _) in enumerate(draw.recorded.candidates):
        by_method.setdefault(method, {})[tuple(str(value) for _, value in values)] = row
        for name, value in values:
            column = choices.setdefault(method, {}).setdefault(name, [])
            if str(value) not in column:
                column.append(str(value))
    sampler = optuna.samplers.TPESampler(seed=int(draw.rng.integers(2**31)))
    study = optuna.create_study(direction="maximize", sampler=sampler)
    rows: dict[int, None] = {}
    for _ in range(4 * draw.most):
        trial = study.ask()
        method = trial.suggest_categorical("method", sorted(by_method))
        picked = [trial.suggest_categorical(f"{method}.{n}", c) for n, c in choices[method].items()]
        row = by_method[method].get(tuple(picked))
        if row is None:
            study.tell(trial, state=optuna.trial.TrialState.FAIL)
            continue
        study.tell(trial, float(draw.recorded.scores[row]))
        rows[row] = None  # what is asked for again is known, and is no trial
        if len(rows) == draw.most:
            break
    return list(rows)


def halving(draw: Draw) -> Rows:
    """Successive halving over methods, random settings of each."""
    recorded, queues = draw.recorded, dict[str, Rows]()
    for row in draw.rng.permutation(len(recorded.candidates)).tolist():
        queues.setdefault(recorded.candidates[row].method, []).append(row)
    alive, rows, each = list(queues), list[int](), 1
    while len(rows) < draw.most and any(queues[method] for method in alive):
        for method in alive:
            taken = queues[method][:each]
            rows, queues[method] = rows + taken, queues[method][each:]
        best = {recorded.candidates[row].method: 0.0 for row in rows}
        for row in rows:
            method = recorded.candidates[row].method
            best[method] = max(best[method], float(recorded.scores[row]))
        alive = sorted(alive, key=lambda m: -best[m])[: max(1, len(alive) // 2)]
        each *= 2
    return rows[: draw.most]


SEARCHES: dict[str, Callable[[Draw], Rows]] = {
    "recommend": recommend,
    "random": random,
    "tpe": tpe,
    "halving": halving,
}
TITLES = {
    "recommend": f"`recommend`, prior from {DRAWN_TASKS} other tasks",
    "random": "random order",
    "tpe": "Optuna's TPE over methods and settings",
    "halving": "successive halving over methods",
}


def _decided(recorded: RecordedTask, rows: Rows) -> str:
    """The method of the best trial, as the command decides."""
    scores, losses = ({row: float(each[row]) for row in rows} for each in (recorded.scores, recorded.losses))
    return ranked(recorded.candidates, scores, losses)[0][0]


class Curve(NamedTuple):
    """What is drawn and printed of a search.

    Args:
        name: The search.
        regrets: By number of trials, repetition and task, (B, R, T).
    """

    name: str
    regrets: Regrets


def _curve(name: str, tasks: Recorded, reached: Reached, budgets: Sequence[int], options: argparse.Namespace) -> Curve:
    key = f"{name} {options.trials} {options.repetitions} {options.alike}"
    kept = json.loads(options.keep.read_text()) if options.keep is not None and options.keep.exists() else {}
    if key in kept:
        return Curve(name, np.array(kept[key]))
    regrets = _regrets(name, tasks, reached, budgets, options)
    if options.keep is not None:
        with write_atomically(options.keep) as temporary:
            temporary.write_text(json.dumps({**kept, key: regrets.tolist()}))
    return Curve(name, regrets)


def _regrets(
    name: str, tasks: Recorded, reached: Reached, budgets: Sequence[int], options: argparse.Namespace
) -> Regrets:
    alike = options.alike.split(",")
    regrets = np.zeros((len(budgets), options.repetitions, len(tasks)))
    for repetition in range(options.repetitions):
        for column, (task, recorded) in enumerate(tasks.items()):
            unseen = {task, *(alike if task in alike else ())}
            others = {other: trials for other, trials in tasks.items() if other not in unseen}
            # Once all trials are done it matters little in which order: no search has to be carried so far.
            most = max(budget for budget in (*budgets, 0) if budget < len(recorded.candidates))
            rng = np.random.default_rng([repetition, column])
            rows = SEARCHES[name](Draw(recorded, others, most, rng))
            rows += [row for row in rng.permutation(len(recorded.candidates)).tolist() if row not in set(rows)]
            for line, budget in enumerate(budgets):
                method = _decided(recorded, rows[:budget])
                regrets[line, repetition, column] = max(reached[task].values()) - reached[task][method]
    return regrets


def _print_table(curves: Sequence[Curve], budgets: Sequence[int]) -> None:
    print(f"| mean regret after so many trials a task | {' | '.join(map(str, budgets))} |")
    print(f"| --- | {' | '.join('---:' for _ in budgets)} |")
    for name, regrets in curves:
        print(f"| {TITLES[name]} | {' | '.join(f'{each.mean():.2f}' for each in regrets)} |")
    print("\nsearch     trials   mean  deviation  worst in the mean  worst")
    for name, regrets in curves:
        for budget, each in zip(budgets, regrets, strict=True):
            figures = f"{each.mean():5.2f}  {each.mean(axis=1).std():9.2f}  {each.max(axis=1).mean():17.2f}"
            print(f"{name:9}  {budget:6}  {figures}  {each.max():5.2f}")


def _draw(curves: Sequence[Curve], budgets: Sequence[int], file: Path) -> None:
    with figure_file(file, (5.2, 3.0), {"svg.fonttype": "none", "font.family": "sans-serif"}) as figure:
        axes = figure.subplots()
        for (name, regrets), colour, line, marker in zip(curves, COLOURS, LINES, MARKERS, strict=False):
            means, deviations = regrets.mean(axis=(1, 2)), regrets.mean(axis=2).std(axis=1)
            label = TITLES[name].replace("`", "")
            axes.plot(budgets, means, color=colour, linestyle=line, marker=marker, markersize=4, label=label)
            axes.fill_between(budgets, means - deviations, means + deviations, color=colour, alpha=0.15, linewidth=0)
        axes.set_xscale("log")
        axes.set_xticks(budgets, labels=[str(budget) for budget in budgets])
        axes.minorticks_off()
        axes.set_xlabel("trials a task")
        axes.set_ylabel("mean regret, points")
        axes.set_ylim(bottom=0)
        axes.legend(frameon=False)


def main() -> None:
    """Print the tables, and draw the figure."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("trials_file", type=Path, metavar="TRIALS")
    parser.add_argument("finals_file", type=Path, metavar="FINALS")
    parser.add_argument("--alike", default="", help="tasks of the same images, with commas between them")
    parser.add_argument("--repetitions", type=int, default=20)
    parser.add_argument("--trials", default="5,13,26,52,129,516")
    parser.add_argument("--searches", default=",".join(SEARCHES))
    parser.add_argument("--keep", type=Path, help="a JSON file of what was computed before")
    parser.add_argument("--figure", type=Path, help="an SVG, PDF or PNG to draw the curve in")
    options = parser.parse_args()
    tasks, reached = read_trials(options.trials_file), read_finals(options.finals_file)
    budgets = sorted(map(int, options.trials.split(",")))
    curves = [_curve(name, tasks, reached, budgets, options) for name in options.searches.split(",")]
    _print_table(curves, budgets)
    if options.figure is not None:
        _draw(curves, budgets, options.figure)


if __name__ == "__main__":
    main()

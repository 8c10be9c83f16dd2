"""The same decisions on recorded trials, so that their quality is a number."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from petlbench.core.errors import InputError
from petlbench.recommend.prior import Prior
from petlbench.recommend.race import Race
from petlbench.recommend.trials import Recorded, RecordedTask, read_finals, read_trials

_DRAWS = 10_000


@dataclass(frozen=True)
class Decision:
    """What was decided for a recorded task.

    Args:
        task: The task.
        method: The chosen method.
        trials: Trials used.
        regret: Points by which the best method's test score is above the chosen one's.
        separable: Whether the chosen method is told from the next one by the interval of 95 % of their difference.
        held: Share of the differences to the chosen method whose interval holds that of the test scores.
        runner_up: The next one.
        test: The chosen method's test score, percent.
        best: The best method, in hindsight.
        values: Learning rate, weight decay and settings of the chosen method's best trial.
    """

    task: str
    method: str
    trials: int
    regret: float
    separable: bool
    held: float
    runner_up: str
    test: float
    best: str
    values: Mapping[str, Any]


@dataclass(frozen=True)
class Replay:
    """Decisions for several tasks."""

    decisions: tuple[Decision, ...]

    def document(self) -> dict[str, Any]:
        """Decisions and means, with intervals of 95 % by the bootstrap over tasks."""
        regrets = np.array([decision.regret for decision in self.decisions])
        rng = np.random.Generator(np.random.PCG64(0))
        means = regrets[rng.integers(len(regrets), size=(_DRAWS, len(regrets)))].mean(axis=1)
        low, high = np.quantile(means, [0.025, 0.975])
        return {
            "tasks": [asdict(decision) for decision in self.decisions],
            "mean": {
                "regret": float(regrets.mean()),
                "low": float(low),
                "high": float(high),
                "level": 0.95,
                "worst": float(regrets.max()),
                "trials": float(np.mean([decision.trials for decision in self.decisions])),
                "separable": float(np.mean([decision.separable for decision in self.decisions])),
                "held": float(np.mean([decision.held for decision in self.decisions])),
            },
        }


def replay(
    trials: Path,
    finals: Path,
    prior: Prior,
    *,
    budget: int,
    images: int = 200,
    leave_out: Sequence[str] = (),
) -> Replay:
    """Decide for every task of a table of recorded trials, each with a prior that has not seen it.

    Args:
        trials: The recorded trials, as `read_trials` has them.
        finals: What the methods' winners reached, as `read_finals` has them.
        prior: Joined with that of the table's other tasks, unless it has seen the task.
        budget: Trials a task.
        images: Validation images that a trial's score is made of.
        leave_out: Tasks that no prior may have seen, beside the one that is decided.

    Raises:
        InputError: When a table is damaged, or the two do not fit together.
    """
    recorded, reached = read_trials(trials), read_finals(finals)
    _check(recorded, reached, (trials, finals), leave_out)
    decisions = []
    for task in recorded:
        unseen = {task, *leave_out}
        own = Prior.of({name: other for name, other in recorded.items() if name not in unseen})
        shipped = prior
        for name in unseen:
            shipped = shipped.without(name)
        race = replay_task(recorded[task], shipped.joined(own), budget, images)
        decisions.append(_decision(task, race, reached[task]))
    return Replay(tuple(decisions))


def replay_task(recorded: RecordedTask, prior: Prior, budget: int, images: int) -> Race:
    """The race over a recorded task's candidates, after as many trials as it may use."""
    race = Race(recorded.candidates, prior.belief(recorded.candidates), images)
    while race.trials < budget and (index := race.next()) is not None:
        race.observe(index, float(recorded.scores[index]), float(recorded.losses[index]))
    return race


def _decision(task: str, race: Race, reached: Mapping[str, float]) -> Decision:
    verdict, best = race.verdict(), max(reached, key=lambda method: reached[method])
    differences = race.differences(verdict.method)
    truths = {method: (reached[method] - reached[verdict.method]) / 100 for method in differences}
    held = [pair.low <= truths[method] <= pair.high for method, pair in differences.items()]
    rival = differences.get(verdict.runner_up)
    return Decision(
        task,
        verdict.method,
        verdict.trials,
        reached[best] - reached[verdict.method],
        rival is not None and rival.high < 0,
        float(np.mean(held)) if held else 1.0,
        verdict.runner_up,
        reached[verdict.method],
        best,
        dict(verdict.candidate.values),
    )


def _check(
    recorded: Recorded, reached: Mapping[str, Mapping[str, float]], files: tuple[Path, Path], leave_out: Sequence[str]
) -> None:
    trials, finals = files
    for task, rows in recorded.items():
        methods = {candidate.method for candidate in rows.candidates}
        if missing := sorted(methods - set(reached.get(task, {}))):
            message = f"{finals} has no test score of {missing[0]} on {task}, of which {trials} has trials"
            raise InputError(message, hint="both tables have to name the same methods", kind="bad_trials")
    if strange := [task for task in leave_out if task not in recorded]:
        message = f"--leave-out {strange[0]}: {trials} has no such task"
        raise InputError(message, hint=f"its tasks: {', '.join(recorded)}", kind="unknown_task")

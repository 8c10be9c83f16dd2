"""After the search: the best trials again on more seeds, and the settings that win."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from petlbench.results.result import read_result
from petlbench.study.executors.job import Action, Ended, Event, Executor, Job
from petlbench.study.existing import stored_result
from petlbench.sweep.busy_runs import run_patiently
from petlbench.sweep.search import TRIALS, Plan, TrialFacts

__all__ = ["Finalist", "choose_winner", "describe_winner", "run_finalists"]


@dataclass(frozen=True)
class Finalist:
    """One of the best trials, on several seeds.

    Args:
        trial: The trial.
        values: The objective by seed; None where a run did not finish.
        runs: The run by seed.
    """

    trial: TrialFacts
    values: Mapping[int, float | None]
    runs: Mapping[int, str]

    @property
    def mean(self) -> float | None:
        """Mean of the objective; None where a run did not finish, for settings that fail on a seed win nothing."""
        known = [value for value in self.values.values() if value is not None]
        return fmean(known) if known and len(known) == len(self.values) else None

    def document(self) -> dict[str, Any]:
        """The finalist as plain values."""
        runs = [{"seed": seed, "run_id": self.runs[seed], "value": value} for seed, value in self.values.items()]
        return {"number": self.trial.number, "params": dict(self.trial.params), "mean": self.mean, "runs": runs}


def run_finalists(
    plan: Plan, trials: Sequence[TrialFacts], executor: Executor, on_run: Callable[[str], None]
) -> list[Finalist]:
    """Run the best trials of a search on the sweep's finalist seeds, without a look at the test split.

    Args:
        plan: The search.
        trials: Its trials.
        executor: Where runs are carried out.
        on_run: Told of each run that ended, in one line.

    Returns:
        The finalists, the best trial first.
    """
    best = _best(plan, trials)[: plan.card.finalists]
    if plan.card.finalists == 1:  # there is no contest to be run
        seed = plan.card.seed
        return [Finalist(trial, {seed: trial.value}, {seed: trial.run_id or ""}) for trial in best]
    configs = {
        (trial.number, seed): plan.configure(plan.space.settings(trial.params), seed)
        for trial in best
        for seed in plan.card.finalist_seeds
    }
    jobs = {config.run_id: plan.trial_job(config) for config in configs.values()}
    titles = {config.run_id: f"trial {number} on seed {seed}" for (number, seed), config in configs.items()}

    def heard(job: Job, event: Event) -> Action:
        if isinstance(event, Ended):
            told = "" if event.error is None else f": {event.error['message']}"
            on_run(f"{plan.title}: {titles[job.config.run_id]} {event.status}{told}")
        return Action.GO_ON

    run_patiently(executor, iter(jobs.values()), heard)
    values = {run_id: _value(plan, run_id) for run_id in jobs}
    return [
        Finalist(
            trial,
            {seed: values[configs[trial.number, seed].run_id] for seed in plan.card.finalist_seeds},
            {seed: configs[trial.number, seed].run_id for seed in plan.card.finalist_seeds},
        )
        for trial in best
    ]


def _best(plan: Plan, trials: Sequence[TrialFacts]) -> list[TrialFacts]:
    """Finished trials of different runs, the best first; of equal ones the earlier."""
    finished = {trial.run_id: trial for trial in reversed(trials) if trial.status == "finished"}.values()
    return sorted(finished, key=lambda trial: (_rank(plan, trial.value), trial.number))


def _rank(plan: Plan, value: float | None) -> float:
    if value is None:
        return float("inf")
    return value if plan.card.minimises else -value


def _value(plan: Plan, run_id: str) -> float | None:
    result = stored_result(plan.options.output / TRIALS, run_id)
    if result is None or result.status != "finished":
        return None
    value = result.metrics["val"].get(plan.card.metric)
    return None if value is None else float(value)


def choose_winner(plan: Plan, finalists: Sequence[Finalist]) -> Finalist | None:
    """The finalist with the best mean; None where no finalist finished on all seeds."""
    ranked = sorted(
        (one for one in finalists if one.mean is not None), key=lambda one: (_rank(plan, one.mean), one.trial.number)
    )
    return ranked[0] if ranked else None


def describe_winner(
    plan: Plan, trials: Sequence[TrialFacts], finalists: Sequence[Finalist], winner: Finalist
) -> dict[str, Any]:
    """The winner as its file has it: settings, how they were found, and whether they lie on the edge of the space."""
    settings = plan.space.settings(winner.trial.params)
    first = read_result(plan.options.output / TRIALS / next(iter(winner.runs.values())))
    counts = first.parameters.model_dump(mode="json") if first.parameters is not None else None
    statuses = [trial.status for trial in trials]
    return {
        "schema": 1,
        "sweep": plan.name,
        "title": plan.card.title,
        "method": plan.config.method,
        "dataset": plan.dataset,
        "track": plan.card.track,
        "objective": plan.card.objective,
        "search": plan.key,
        "best": {"training": dict(settings.training), "method": dict(settings.method)},
        "params": dict(winner.trial.params),
        "number": winner.trial.number,
        "value": winner.mean,
        "edge": plan.space.edges(winner.trial.params),
        "space": plan.space.document(),
        "parameters": counts,
        "trials": len(trials),
        "statuses": {status: statuses.count(status) for status in dict.fromkeys(statuses)},
        "device_seconds": _device_seconds(plan, trials, finalists),
        "finalists": [finalist.document() for finalist in finalists],
    }


def _device_seconds(plan: Plan, trials: Sequence[TrialFacts], finalists: Sequence[Finalist]) -> float:
    """Seconds that the search's runs took together, each counted once, those that failed too."""
    runs = {trial.run_id or str(trial.number): trial.seconds or 0.0 for trial in trials}
    for run_id in {run_id for finalist in finalists for run_id in finalist.runs.values()} - set(runs):
        result = stored_result(plan.options.output / TRIALS, run_id)
        runs[run_id] = result.timing.get("total", 0.0) if result is not None else 0.0
    return sum(runs.values())

"""After the search: the best trials again on more seeds, and the settings that win."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from petlbench.results.result import read_result
from petlbench.study.executors.base import Executor
from petlbench.study.executors.job import Action, Ended, Event, Job
from petlbench.study.existing import stored_result
from petlbench.sweep.busy_runs import run_with_retries
from petlbench.sweep.search import TRIALS, Search, TrialFacts

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
        means = [value for value in self.values.values() if value is not None]
        return fmean(means) if means and len(means) == len(self.values) else None

    def document(self) -> dict[str, Any]:
        """The finalist as plain values."""
        runs = [{"seed": seed, "run_id": self.runs[seed], "value": value} for seed, value in self.values.items()]
        return {"number": self.trial.number, "params": dict(self.trial.params), "mean": self.mean, "runs": runs}


def run_finalists(
    search: Search, trials: Sequence[TrialFacts], executor: Executor, on_run: Callable[[str], None]
) -> list[Finalist]:
    """Run the best trials on the sweep's finalist seeds, without a look at the test split; return them, the best first.

    Args:
        search: The search.
        trials: Its trials.
        executor: Where runs are carried out.
        on_run: Told of each run that ended, in one line.
    """
    # Of different runs, and of equal ones the earlier.
    finished = {trial.run_id: trial for trial in reversed(trials) if trial.status == "finished"}
    ranked = sorted(finished.values(), key=lambda trial: (_rank(search, trial.value), trial.number))
    best = ranked[: search.card.finalists]
    if search.card.finalists == 1:  # there is no contest to be run
        seed = search.card.seed
        return [Finalist(trial, {seed: trial.value}, {seed: trial.run_id or ""}) for trial in best]
    seeds = search.card.finalist_seeds
    settings = {trial.number: search.space.settings(trial.params) for trial in best}
    configs = {(number, seed): search.configure(values, seed) for number, values in settings.items() for seed in seeds}
    jobs = {config.run_id: search.trial_job(config) for config in configs.values()}
    titles = {config.run_id: f"trial {number} on seed {seed}" for (number, seed), config in configs.items()}

    def on_event(job: Job, event: Event) -> Action:
        if isinstance(event, Ended):
            why = "" if event.error is None else f": {event.error['message']}"
            on_run(f"{search.title}: {titles[job.config.run_id]} {event.status}{why}")
        return Action.GO_ON

    run_with_retries(executor, iter(jobs.values()), on_event)
    runs = {trial.number: {seed: configs[trial.number, seed].run_id for seed in seeds} for trial in best}
    values = {run_id: _value(search, run_id) for run_id in jobs}
    return [
        Finalist(trial, {seed: values[run_id] for seed, run_id in runs[trial.number].items()}, runs[trial.number])
        for trial in best
    ]


def _rank(search: Search, value: float | None) -> float:
    if value is None:
        return float("inf")
    return value if search.card.minimises else -value


def _value(search: Search, run_id: str) -> float | None:
    result = stored_result(search.options.output / TRIALS, run_id)
    if result is None or result.status != "finished":
        return None
    value = result.metrics["val"].get(search.card.metric)
    return None if value is None else float(value)


def choose_winner(search: Search, finalists: Sequence[Finalist]) -> Finalist | None:
    """The finalist with the best mean; None where no finalist finished on all seeds."""
    whole = [finalist for finalist in finalists if finalist.mean is not None]
    return min(whole, key=lambda finalist: (_rank(search, finalist.mean), finalist.trial.number), default=None)


def describe_winner(
    search: Search, trials: Sequence[TrialFacts], finalists: Sequence[Finalist], winner: Finalist
) -> dict[str, Any]:
    """The winner as its file has it: settings, how they were found, and whether they lie on the edge of the space."""
    settings = search.space.settings(winner.trial.params)
    first = read_result(search.options.output / TRIALS / next(iter(winner.runs.values())))
    counts = first.parameters.model_dump(mode="json") if first.parameters is not None else None
    statuses = [trial.status for trial in trials]
    return {
        "schema": 1,
        "sweep": search.name,
        "title": search.card.title,
        "method": search.config.method,
        "dataset": search.dataset,
        "track": search.card.track,
        "objective": search.card.objective,
        "search": search.key,
        "best": {"training": dict(settings.training), "method": dict(settings.method)},
        "params": dict(winner.trial.params),
        "number": winner.trial.number,
        "value": winner.mean,
        "edge": search.space.edges(winner.trial.params),
        "space": search.space.document(),
        "parameters": counts,
        "trials": len(trials),
        "statuses": {status: statuses.count(status) for status in dict.fromkeys(statuses)},
        "device_seconds": _device_seconds(search, trials, finalists),
        "finalists": [finalist.document() for finalist in finalists],
    }


def _device_seconds(search: Search, trials: Sequence[TrialFacts], finalists: Sequence[Finalist]) -> float:
    """Seconds that the search's runs took together, each counted once, those that failed too."""
    runs = {trial.run_id or str(trial.number): trial.seconds or 0.0 for trial in trials}
    for run_id in {run_id for finalist in finalists for run_id in finalist.runs.values()} - set(runs):
        result = stored_result(search.options.output / TRIALS, run_id)
        runs[run_id] = result.timing.get("total", 0.0) if result is not None else 0.0
    return sum(runs.values())

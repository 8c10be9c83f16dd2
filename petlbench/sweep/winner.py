"""After the search: the best trials again on more seeds, the settings that win, and the file that keeps them.

The file is ``sweeps/<sweep>/<method>-<dataset>.json``: written once, read by other commands.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from petlbench.core.errors import InputError
from petlbench.core.files import write_atomically
from petlbench.results.folder import RunFolder
from petlbench.results.result import read_result
from petlbench.study.executors.job import Action, Ended, Event, Executor, Job
from petlbench.sweep.search import TRIALS, Search, TrialFacts, run_with_retries

__all__ = [
    "Finalist",
    "choose_winner",
    "describe_winner",
    "iter_winners",
    "read_winner",
    "run_finalists",
    "winner_file",
    "write_winner",
]

_FOLDER = "sweeps"


@dataclass(frozen=True)
class Finalist:
    """One of the best trials, on several seeds.

    Args:
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
    """Return the best trials of a search, the best first, run on the sweep's finalist seeds without a look at the test.

    ``on_run`` is told of each run that ended, in one line.
    """
    # Of different runs, and of equal ones the earlier.
    finished = {trial.run_id: trial for trial in reversed(trials) if trial.status == "finished"}
    ranked = sorted(finished.values(), key=lambda trial: (search.card.cost(trial.value), trial.number))
    best = ranked[: search.card.finalists]
    if search.card.finalists == 1:  # there is no contest to be run
        seed = search.card.seed
        return [Finalist(trial, {seed: trial.value}, {seed: trial.run_id or ""}) for trial in best]
    pairs = [(trial, seed) for trial in best for seed in search.card.finalist_seeds]
    runs = [(trial, seed, search.configure(search.space.settings(trial.params), seed)) for trial, seed in pairs]
    jobs = {config.run_id: search.trial_job(config) for *_, config in runs}
    titles = {config.run_id: f"trial {trial.number} on seed {seed}" for trial, seed, config in runs}

    def on_event(job: Job, event: Event) -> Action:
        if isinstance(event, Ended):
            why = "" if event.error is None else f": {event.error['message']}"
            on_run(f"{search.title}: {titles[job.config.run_id]} {event.status}{why}")
        return Action.GO_ON

    run_with_retries(executor, iter(jobs.values()), on_event)
    ids = [{seed: config.run_id for trial, seed, config in runs if trial is finalist} for finalist in best]
    return [
        Finalist(finalist, {seed: _value(search, run_id) for seed, run_id in by_seed.items()}, by_seed)
        for finalist, by_seed in zip(best, ids, strict=True)
    ]


def _value(search: Search, run_id: str) -> float | None:
    result = RunFolder(search.options.output / TRIALS, run_id).result()
    if result is None or result.status != "finished":
        return None
    value = result.metrics["val"].get(search.card.metric)
    return None if value is None else float(value)


def choose_winner(search: Search, finalists: Sequence[Finalist]) -> Finalist | None:
    """The finalist with the best mean; None where no finalist finished on all seeds."""
    whole = [finalist for finalist in finalists if finalist.mean is not None]
    return min(whole, key=lambda finalist: (search.card.cost(finalist.mean), finalist.trial.number), default=None)


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
        result = RunFolder(search.options.output / TRIALS, run_id).result()
        runs[run_id] = result.timing.get("total", 0.0) if result is not None else 0.0
    return sum(runs.values())


def winner_file(output: Path, sweep: str, method: str, dataset: str) -> Path:
    """Where the winner of a search stands; the dataset has its short name, as in a run's id."""
    return output / _FOLDER / sweep / f"{method}-{dataset}.json"


def write_winner(output: Path, document: Mapping[str, Any]) -> Path:
    """Write the winner of a search, with ``sweep``, ``method`` and ``dataset`` in it, and return the file."""
    file = winner_file(output, document["sweep"], document["method"], document["dataset"])
    file.parent.mkdir(parents=True, exist_ok=True)
    with write_atomically(file) as temporary:
        temporary.write_text(json.dumps(document, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    return file


def read_winner(output: Path, sweep: str, method: str, dataset: str) -> dict[str, Any]:
    """Return the document of a search's winner; ``best`` holds the settings: ``training`` and ``method``, by name.

    Raises:
        InputError: When the search has no winner yet, or its file is damaged.
    """
    file = winner_file(output, sweep, method, dataset)
    try:
        document = json.loads(file.read_text(encoding="utf-8"))
        if not isinstance(document["best"]["training"], dict) or not isinstance(document["best"]["method"], dict):
            raise ValueError("its settings are no tables")
    except FileNotFoundError as error:
        message = f"sweep {sweep} has no winner of {method} on {dataset} in {output}"
        hint = f"petlbench sweep {sweep} --method {method} --dataset {dataset} finds one"
        raise InputError(message, hint=hint, kind="unknown_winner") from error
    except (ValueError, KeyError, TypeError) as error:
        hint = "remove it and sweep again; no trial is lost"
        raise InputError(f"{file} is damaged: {error}", hint=hint, kind="bad_winner") from error
    return dict(document)


def iter_winners(output: Path, sweep: str) -> Iterator[dict[str, Any]]:
    """Yield the document of every winner of a sweep, in the order of their names."""
    for file in sorted((output / _FOLDER / sweep).glob("*.json")):
        try:
            yield dict(json.loads(file.read_text(encoding="utf-8")))
        except ValueError:
            continue

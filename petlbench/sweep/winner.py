"""After the search: the best trials again on more seeds, the settings that win, and the file that keeps them.

The file is ``sweeps/<sweep>/<method>-<dataset>-<digest of the search>.json``: written once, read by other commands.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from petlbench.core.config import RunConfig, without_later
from petlbench.core.errors import InputError
from petlbench.core.files import write_atomically
from petlbench.core.request import Tuned
from petlbench.core.text import printable
from petlbench.core.user_files import read_json
from petlbench.data.dataset import DatasetInfo
from petlbench.results.folder import readable_result
from petlbench.study.executors.job import Action, Ended, Event, Executor, Job
from petlbench.study.executors.retries import run_with_retries
from petlbench.sweep.search import TRIALS, Search, TrialFacts, images_digest

_FOLDER = "sweeps"
# What a run's config says of the images and of how the backbone sees them: settings are good for that alone.
_SEEN = (
    "dataset",
    "dataset_settings",
    "split",
    "split_seed",
    "shots",
    "train_fraction",
    "shots_val",
    "skip_corrupt",
    "backbone",
    "weights",
    "image_size",
    "normalize",
)


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
    ranked = sorted(finished.values(), key=lambda trial: (search.card.rank(trial.value, trial.params), trial.number))
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
    result = readable_result(search.options.output / TRIALS, run_id)
    if result is None or result.status != "finished":
        return None
    value = result.metrics["val"].get(search.card.metric)
    return None if value is None else float(value)


def choose_winner(search: Search, finalists: Sequence[Finalist]) -> Finalist | None:
    """The finalist with the best mean; None where no finalist finished on all seeds."""
    whole = [finalist for finalist in finalists if finalist.mean is not None]

    def rank(finalist: Finalist) -> tuple[tuple[float, float], int]:
        return search.card.rank(finalist.mean, finalist.trial.params), finalist.trial.number

    return min(whole, key=rank, default=None)


def describe_winner(
    search: Search, trials: Sequence[TrialFacts], finalists: Sequence[Finalist], winner: Finalist
) -> dict[str, Any]:
    """The winner as its file has it: settings, how they were found, and whether they lie on the edge of the space."""
    settings = search.space.settings(winner.trial.params)
    first = readable_result(search.options.output / TRIALS, next(iter(winner.runs.values())))
    counts = first.parameters.model_dump(mode="json") if first is not None and first.parameters is not None else None
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
        "config": search.config.model_dump(mode="json"),
        "images": search.images,
        "best": {"training": dict(settings.training), "method": dict(settings.method)},
        "params": dict(winner.trial.params),
        "number": winner.trial.number,
        "value": winner.mean,
        "edge": search.space.edges(winner.trial.params),
        "space": search.space.document(),
        "parameters": counts,
        "trials": len(trials),
        "statuses": {status: statuses.count(status) for status in dict.fromkeys(statuses)},
        "device_seconds": device_seconds(search, trials, finalists),
        "finalists": [finalist.document() for finalist in finalists],
    }


def device_seconds(search: Search, trials: Sequence[TrialFacts], finalists: Sequence[Finalist]) -> float:
    """Return the seconds that a search's runs took together, each counted once, those that failed too."""
    runs = {trial.run_id or str(trial.number): trial.seconds or 0.0 for trial in trials}
    for run_id in {run_id for finalist in finalists for run_id in finalist.runs.values()} - set(runs):
        result = readable_result(search.options.output / TRIALS, run_id)
        runs[run_id] = result.timing.get("total", 0.0) if result is not None else 0.0
    return sum(runs.values())


def write_winner(search: Search, document: Mapping[str, Any]) -> Path:
    """Write what `describe_winner` says of a search, and return the file; each search has one of its own."""
    folder = search.options.output / _FOLDER / search.name
    file = folder / f"{search.config.method}-{search.config.dataset_name[:80] or 'dataset'}-{search.digest}.json"
    folder.mkdir(parents=True, exist_ok=True)
    with write_atomically(file) as temporary:
        temporary.write_text(json.dumps(document, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    return file


class _Settings(BaseModel):
    training: dict[str, Any]
    method: dict[str, Any]


class _Winner(BaseModel):
    """What others read of a winner's file; one of an older petlbench does not say what was searched on."""

    model_config = ConfigDict(extra="allow")

    method: str
    dataset: str
    search: str = ""
    best: _Settings
    config: dict[str, Any] | None = None
    images: str | None = None

    @property
    def place(self) -> str:
        """Where its images are, as far as the file says."""
        return str((self.config or {}).get("dataset", self.dataset))

    def differences(self, config: RunConfig, images: str | None) -> list[str]:
        """In what a run sees other images than the search's runs did, in words."""
        mine, theirs = (without_later(each) for each in (config.model_dump(mode="json"), self.config or {}))
        names = [name for name in _SEEN if theirs.get(name) != mine.get(name)]
        if not names and None not in (images, self.images) and images != self.images:
            return ["state of the images"]
        return [f"{name.replace('_', ' ')} ({printable(str(theirs.get(name)))})" for name in names]

    def is_alike(self, config: RunConfig) -> bool:
        """Whether a run is the search's in all but seed, draw, refit and what the search found best."""
        mine, theirs = (without_later(each) for each in (config.model_dump(mode="json"), self.config or {}))
        for group, best in (("training", self.best.training), ("method_settings", self.best.method)):
            for values in (mine, theirs):
                values[group] = {name: value for name, value in values.get(group, {}).items() if name not in best}
        same = {"seed": 0, "draw": 0, "train_on": "train", "test_every_epoch": False}
        if config.train_on != "train":  # a refit takes the last epoch, and trials the one that validation chose
            for values in (mine, theirs):
                values["training"].pop("select", None)
        return {**mine, **same} == {**theirs, **same}


def read_winner(output: Path, sweep: str, config: RunConfig, info: DatasetInfo | None) -> Tuned:
    """Return the settings that a sweep found best for a run's method on its images, as the run sees them.

    Args:
        output: Folder of all results.
        sweep: Name of the sweep.
        config: The run at its method's defaults.
        info: Its dataset.

    Raises:
        InputError: When the sweep has no winner of that, or several.
    """
    images, winners, damaged = images_digest(info), [], []
    for file, winner in iter_winners(output, sweep):
        if isinstance(winner, InputError):
            damaged.append(winner.message)
        elif winner.method == config.method:
            winners.append((file, winner))
    alike = [(file, winner) for file, winner in winners if not winner.differences(config, images)]
    if len(alike) > 1:
        alike = [(file, winner) for file, winner in alike if winner.is_alike(config)] or alike
    if len(alike) == 1:
        best = alike[0][1].best
        return Tuned(best.training, best.method, sweep=sweep)
    title = f"{config.method} on {config.dataset} at {config.image_size} pixels"
    if alike:
        message = f"sweep {sweep} has {len(alike)} winners of {title}, of searches that differ in something else"
        hint = f"remove those that are not meant: {', '.join(str(file) for file, _ in alike)}"
        raise InputError(message, hint=hint, kind="ambiguous_winner")
    others = []
    for file, winner in winners:
        why = f"is of another {', '.join(winner.differences(config, images))}"
        if winner.config is None:
            why = "is of an older petlbench and does not say on which images it was found"
        others.append(f"{file.name} {why}")
    message = "; ".join([f"sweep {sweep} has no winner of {title} in {output}", *others[:3], *damaged])
    hint = f"petlbench sweep {sweep} with the same --method, --dataset and --image-size finds one; no trial is lost"
    raise InputError(message, hint=hint, kind="unknown_winner")


def iter_winners(output: Path, sweep: str) -> Iterator[tuple[Path, _Winner | InputError]]:
    """Yield every winner of a sweep with its file, in the order of their names; for a damaged one the error."""
    for file in sorted((output / _FOLDER / sweep).glob("*.json")):
        try:
            yield file, _Winner.model_validate(read_json(file, what="winner"))
        except ValidationError as error:
            reason = error.errors()[0]
            yield file, InputError(f"the winner {file} is damaged: {reason['loc']}: {reason['msg']}", kind="bad_winner")
        except InputError as error:
            yield file, error

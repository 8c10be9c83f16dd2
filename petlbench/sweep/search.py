"""One search: Optuna is asked for trials, an executor runs them, and Optuna is told what came of them."""

from __future__ import annotations

import hashlib
import json
import random
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import optuna

from petlbench.core.catalog import Catalog
from petlbench.core.config import RunConfig, derive_seed, without_later
from petlbench.core.errors import InputError
from petlbench.core.request import Request, Tuned
from petlbench.data.dataset import DatasetInfo, find_card
from petlbench.data.tasks.base import metrics_of, task_of
from petlbench.models.method import load_method
from petlbench.results.folder import readable_result
from petlbench.run.cache_form import settled
from petlbench.run.options import RunContext, RunOptions
from petlbench.run.resolve import ResolvedRun, resolve
from petlbench.study.executors.job import Action, Ended, EpochDone, Event, Executor, Job
from petlbench.study.executors.retries import run_with_retries
from petlbench.study.grid import resolve_alike
from petlbench.study.planned_run import PlannedRun
from petlbench.study.protocol import NO_BASIS, Basis
from petlbench.sweep.space import Space, build_space
from petlbench.sweep.spec import SweepCard
from petlbench.sweep.trial_queue import Liveness, TrialQueue

TRIALS = "trials"
"""The folder, in that of all results, where trials lie: they have no test metrics, and no table takes them."""

OF_TRIALS: Mapping[str, Any] = {"train_on": "train", "test_every_epoch": False}
"""What holds for trials whatever a request says, which says it of final runs."""


@dataclass(frozen=True)
class Search:
    """One search: a sweep for one method on one dataset.

    Args:
        request: What holds for all trials; method, dataset and the user's own settings are in it. Trials are trained on
            the training split and judged on validation, whatever it says of that: it says it of final runs.
        dataset: The dataset's short name, which two datasets may share.
        images: `images_digest` of the dataset.
        label: What a person calls the dataset, beside the others of the sweep.
        config: The run at the method's defaults, from which trials differ by what is searched.
        space: What is searched.
        points: Values to begin with, one mapping a trial.
        context: Where final runs read and write; trials have a folder of their own in it.
        study_name: The name of the study that final runs belong to.
        timeout: Seconds after which a run is stopped.
        basis: What holds where neither the request nor the space says anything.
    """

    name: str
    card: SweepCard
    request: Request
    dataset: str
    images: str | None
    label: str
    config: RunConfig
    space: Space
    points: Sequence[Mapping[str, Any]]
    context: RunContext
    study_name: str
    timeout: float | None = None
    basis: Basis = NO_BASIS

    @property
    def options(self) -> RunOptions:
        """Where final runs read and write."""
        return self.context.options

    @property
    def title(self) -> str:
        """What a person calls the search."""
        return f"{self.config.method} on {self.label}"

    @property
    def digest(self) -> str:
        """Digest of what two searches must share so that their trials may be compared.

        That is the images and how a run sees them, what is searched and how, and all that a run is beside. The number
        of trials is not in it, so that a search can be made longer; nor is what is done with its best trials.
        """
        same = {
            "config": without_later(self.config.model_dump(mode="json")),
            "images": self.images,
            "searched": {name: asdict(dimension) for name, dimension in self.space.dimensions.items()},
            "fixed": dict(self.space.fixed),
            "published": dict(self.space.published),
            **{name: getattr(self.card, name) for name in ("sampler", "pruner", "objective", "track", "seed")},
        }
        return hashlib.sha256(json.dumps(same, sort_keys=True).encode()).hexdigest()[:8]

    @property
    def key(self) -> str:
        """The name of the search in the storage."""
        return f"{self.name}/{self.config.method}/{self.dataset}/{self.digest}"

    def configure(self, settings: Tuned, seed: int) -> RunConfig:
        """Return the trial with these settings; an InputError says that they do not go together."""
        request = replace(self.basis.below(self.request, settings), seed=seed, **OF_TRIALS)
        return resolve_alike(request, self.config, self.context.catalog, self.options.data_root)

    def final_run(self, settings: Tuned, seed: int) -> PlannedRun:
        """A run of the search's settings as one of a study."""
        request, catalog = replace(self.basis.below(self.request, settings), seed=seed), self.context.catalog
        config = resolve_alike(request, self.config, catalog, self.options.data_root)
        origin = self.basis.origin(self.request, replace(settings, sweep=self.name), config)
        return PlannedRun(config.method, self.request.dataset or "", seed, self.request, config, origin=origin)

    def trial_job(self, config: RunConfig) -> Job:
        """A run that never reads the test split."""
        options = replace(
            self.options,
            output=self.options.output / TRIALS,
            reveal_test=False,
            rerun=False,
            experiment=self.study_name,
            group=self.title,
        )
        return Job(config, options, self.timeout)


@dataclass(frozen=True)
class TrialFacts:
    """What became of one trial.

    Args:
        number: Its number, from 0: the number of its slot.
        status: As in ``result.json``; ``waiting`` or ``running`` where it has not ended.
        params: What it set, by dotted name.
        value: The objective, for a finished trial.
        run_id: Its run.
        error: Why it did not finish.
        seconds: Time that it took.
    """

    number: int
    status: str
    params: Mapping[str, Any]
    value: float | None = None
    run_id: str | None = None
    error: str | None = None
    seconds: float | None = None


def plan_search(
    name: str,
    card: SweepCard,
    request: Request,
    context: RunContext,
    *,
    study_name: str,
    timeout: float | None = None,
    basis: Basis = NO_BASIS,
) -> Search:
    """Return one search, with all checked that can be before anything is trained.

    The request has one method and one dataset; the rest is as in `Search`. What does not go together in a final run is
    refused here, too.

    Raises:
        InputError: When a name or a setting is wrong, or the method cannot adapt the backbone.
    """
    catalog = context.catalog
    method = load_method(catalog.find("method", request.method))
    request = replace(request, seed=card.seed)
    dataset, _ = find_card(request.dataset or "", catalog=catalog)
    space = build_space(card, method, dataset, training=request.training, method_settings=request.method_settings)
    whole = basis.below(request, space.settings({}))
    run = resolve(replace(whole, **OF_TRIALS), catalog, context.options.data_root)
    config = settled(run, whole.cache_form, context.options.cache)
    if config != run.config:  # all its trials keep features in one form, whatever there is room for when they come
        request, run = replace(request, cache_form=config.cache_form), replace(run, config=config)
    _require_objective(card, run, catalog)
    points, images = _points(card, space, run.config), images_digest(run.dataset)
    search = Search(
        name, card, request, dataset, images, dataset, run.config, space, points, context, study_name, timeout, basis
    )
    search.final_run(space.settings({}), card.seed)
    return search


def _require_objective(card: SweepCard, run: ResolvedRun, catalog: Catalog) -> None:
    """Refuse to search for a score that the dataset's task does not have."""
    task = task_of(run.card, catalog)
    names = [row.name for row in metrics_of(task, catalog)]
    if card.metric not in names:
        where = f"the task of {run.config.dataset} ({task.title}) has no such score: {', '.join(names)}"
        hint = "write a sweep with another objective, or choose another dataset"
        raise InputError(f"the sweep searches for {card.objective}, and {where}", hint=hint, kind="unsupported_task")


def images_digest(info: DatasetInfo | None) -> str | None:
    """A digest of a dataset's classes, and of its images with their labels, groups and sides; None without its images.

    No image is opened for it.
    """
    if info is None or info.dataset is None:
        return None
    images = [(each.image_id, each.label, each.group, each.split) for each in info.dataset.records]
    text = json.dumps([list(info.card.classes), images], default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _points(card: SweepCard, space: Space, config: RunConfig) -> list[dict[str, Any]]:
    """What each trial begins with: a grid's point, the published defaults, or nothing."""
    if not space.dimensions:
        hint = "leave out --lr and the like, or give a sweep that searches something else"
        raise InputError(f"sweep over {config.method}: nothing is left to search", hint=hint, kind="bad_setting")
    if card.sampler == "grid":
        points = space.grid()
        # A grid that is cut short is cut anywhere, and not at one of its corners.
        random.Random(card.seed).shuffle(points)  # noqa: S311 - no secret
        return points[: card.trials]
    first = [dict(space.published)] if card.published_first else []
    return [*first, *({} for _ in range((card.trials or 1) - len(first)))]


def open_study(search: Search, storage: Any) -> optuna.Study:
    """Open a search in the storage, making it where it is not there yet."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return optuna.create_study(
            study_name=search.key,
            storage=storage,
            direction="minimize" if search.card.minimises else "maximize",
            sampler=new_sampler(search.card, 0),
            pruner=_new_pruner(search.card, search.config.training.epochs),
            load_if_exists=True,
        )


def new_sampler(card: SweepCard, slot: int) -> optuna.samplers.BaseSampler:
    """The sampler of one slot, with a generator of its own: two drivers never try the same by having drawn alike."""
    seed = derive_seed(card.seed, "sampler", slot) % 2**32
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        if card.sampler == "tpe":
            # A third of a short search is drawn at random; trials under way count as bad ones, so that others differ.
            startup = max(4, min(10, (card.trials or 1) // 3))
            return optuna.samplers.TPESampler(n_startup_trials=startup, constant_liar=True, seed=seed)
        if card.sampler == "gp":
            return optuna.samplers.GPSampler(seed=seed)
        if card.sampler == "qmc":  # its sequence is one for all drivers, and the storage keeps the place in it
            return optuna.samplers.QMCSampler(seed=card.seed, scramble=True, warn_independent_sampling=False)
        return optuna.samplers.RandomSampler(seed=seed)


def _new_pruner(card: SweepCard, epochs: int) -> optuna.pruners.BasePruner:
    if card.pruner == "median":
        return optuna.pruners.MedianPruner(n_startup_trials=4, n_warmup_steps=max(1, epochs // 4))
    if card.pruner == "hyperband":
        return optuna.pruners.HyperbandPruner(min_resource=1, max_resource=epochs, reduction_factor=3)
    return optuna.pruners.NopPruner()


def run_search(
    search: Search,
    study: optuna.Study,
    executor: Executor,
    liveness: Liveness,
    on_trial: Callable[[TrialFacts], None],
    *,
    retry_failed: bool = False,
) -> tuple[list[TrialFacts], int]:
    """Return all trials of a search in the order of their numbers, and how many were lost with their driver.

    What is missing is carried out first, together with whoever else works on it. ``on_trial`` is told of each trial
    that ended here.
    """
    folder = search.options.output / ".work"
    folder.mkdir(parents=True, exist_ok=True)
    lock = folder / "sweeps.lock"
    with TrialQueue(study, search.points, liveness, lock, retry_failed=retry_failed) as queue:
        run = TrialLoop(search, study, queue, on_trial)
        run_with_retries(executor, run.jobs(), run.on_event)
        return [trial_facts(trial) for trial in queue.trials()], queue.retries


@dataclass
class TrialLoop:
    """Asks for the trials of a search one by one, makes runs of them, and tells what came of each."""

    search: Search
    study: optuna.Study
    queue: TrialQueue
    on_trial: Callable[[TrialFacts], None]
    under_way: dict[str, list[optuna.Trial]] = field(default_factory=dict)

    def jobs(self) -> Iterator[Job | None]:
        """Ask for trials as long as a slot is left; each is asked for when a worker is free and not before."""

        def prepare(slot: int) -> None:
            self.study.sampler = new_sampler(self.search.card, slot)

        while not self.queue.all_used():
            trial = self.queue.take(prepare)
            if trial is None:
                yield None
            elif (job := self._job(trial)) is not None:
                yield job

    def on_event(self, job: Job, event: Event) -> Action:
        """Report an epoch, or tell how a trial ended."""
        trials = self.under_way.get(job.config.run_id, [])
        if not trials:
            return Action.GO_ON
        if isinstance(event, EpochDone):
            return self._reported(trials[0], event.entry)
        if isinstance(event, Ended):
            self._ended(trials.pop(0), job, event)
        return Action.GO_ON

    def _job(self, trial: optuna.Trial) -> Job | None:
        try:
            config = self.search.configure(self.search.space.ask(trial), self.search.card.seed)
        except InputError as error:
            self._end(trial, "failed", error=error.message)
            return None
        trial.set_user_attr("run_id", config.run_id)
        self.under_way.setdefault(config.run_id, []).append(trial)
        return self.search.trial_job(config)

    def _reported(self, trial: optuna.Trial, entry: Mapping[str, Any]) -> Action:
        value = entry.get(f"val_{self.search.card.metric}")
        epoch = int(entry["epoch"])
        if value is None or epoch in _frozen(trial).intermediate_values:
            return Action.GO_ON
        trial.report(float(value), epoch)
        is_last = epoch >= self.search.config.training.epochs
        return Action.PRUNE if not is_last and trial.should_prune() else Action.GO_ON

    def _ended(self, trial: optuna.Trial, job: Job, ended: Ended) -> None:
        if ended.status == "interrupted":
            self.queue.give_back(trial)
            return
        status, value, seconds, error = str(ended.status), None, ended.seconds, (ended.error or {}).get("message")
        if status == "finished":
            result = readable_result(job.options.output, job.config.run_id)
            if result is not None:
                value, seconds = result.metrics["val"].get(self.search.card.metric), result.timing.get("total", seconds)
            if value is None:
                status, error = "failed", f"{self.search.card.objective} is undefined on the validation images"
        self._end(trial, status, None if value is None else float(value), error=error, seconds=seconds)

    def _end(self, trial: optuna.Trial, status: str, value: float | None = None, **facts: Any) -> None:
        self.queue.end(trial, status, value, **{name: fact for name, fact in facts.items() if fact is not None})
        self.on_trial(replace(trial_facts(_frozen(trial)), status=status, value=value))


def _frozen(trial: optuna.Trial) -> optuna.trial.FrozenTrial:
    """What the storage has of a trial now."""
    return trial.storage.get_trial(trial._trial_id)


def is_ours(trial: optuna.trial.FrozenTrial) -> bool:
    """Whether a trial has ended that a search of petlbench has begun; users may put others into the storage."""
    return trial.state.is_finished() and isinstance(trial.user_attrs.get("ticket"), int)


def trial_facts(trial: optuna.trial.FrozenTrial) -> TrialFacts:
    """What the storage knows of a trial."""
    states = {"COMPLETE": "finished", "PRUNED": "pruned", "FAIL": "interrupted"}
    facts = trial.user_attrs
    return TrialFacts(
        number=facts["ticket"],
        status=facts.get("status", states.get(trial.state.name, trial.state.name.lower())),
        params=dict(trial.params),
        value=trial.values[0] if trial.state.name == "COMPLETE" and trial.values else None,
        run_id=facts.get("run_id"),
        error=facts.get("error"),
        seconds=facts.get("seconds"),
    )

"""All candidates of all methods as one search, whose trials a race chooses."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache, partial
from typing import Any, cast

import numpy as np
import optuna
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial

from petlbench.core.config import RunConfig
from petlbench.core.errors import InputError
from petlbench.core.request import Tuned
from petlbench.metrics.metric import Metric
from petlbench.recommend.prior import Prior
from petlbench.recommend.race import Race
from petlbench.recommend.trials import Arm, Candidate
from petlbench.recommend.tuned import Difference, Observation, differences_to, tuned_scores
from petlbench.results.folder import readable_result
from petlbench.results.predictions import Predictions, read_predictions
from petlbench.results.result import Result
from petlbench.statistics.runs import Scored, influence_reader
from petlbench.sweep.search import TRIALS, Search, TrialFacts, trial_facts
from petlbench.sweep.space import Params, Space
from petlbench.sweep.winner import Finalist

_NAME = "candidate"


@dataclass(frozen=True)
class Entrant:
    """A candidate and the run that it means.

    Args:
        search: The method's search, which makes its runs.
        params: What is set, by dotted name.
        candidate: The same as a prior knows it.
        config: The run.
    """

    search: Search
    params: Mapping[str, Any]
    candidate: Candidate
    config: RunConfig


def entrants(searches: Mapping[Arm, Search], each: int) -> list[Entrant]:
    """Return some candidates of every method: its published defaults, and points that cover its space evenly.

    Args:
        searches: One a method and backbone.
        each: Candidates of a method.
    """
    return [entrant for arm, search in searches.items() for entrant in _of_search(arm, search, each)]


def _of_search(arm: Arm, search: Search, each: int) -> Iterator[Entrant]:
    from scipy.stats import qmc

    space = search.space
    halton = qmc.Halton(max(1, len(space.dimensions)), scramble=True, seed=search.card.seed)
    points = [dict(space.published), *(_at(space, shares) for shares in halton.random(each - 1).tolist())]
    seen = set()
    for params in points:
        try:
            config = search.configure(space.settings(params), search.card.seed)
        except InputError:  # settings that do not go together
            continue
        if config.run_id in seen:
            continue
        seen.add(config.run_id)
        training, settings = config.training, dict(config.method_settings)
        candidate = Candidate.of(arm.method, training.lr, training.weight_decay, settings, arm.backbone)
        yield Entrant(search, params, candidate, config)


def _at(space: Space, shares: Sequence[float]) -> dict[str, Any]:
    """The values at some shares, from 0 to 1, of all that is searched."""
    params: dict[str, Any] = {}
    for (name, dimension), share in zip(space.dimensions.items(), shares, strict=True):
        if dimension.only_if is not None and params.get(dimension.only_if[0]) != dimension.only_if[1]:
            continue
        params[name] = dimension.at(share)
    return params


@dataclass(frozen=True)
class _Entered(Tuned):
    """The settings of an entrant, and whose they are."""

    index: int = -1


@dataclass(frozen=True)
class _EntrantSpace(Space):
    """What a trial chooses of: some entrants, by their index."""

    entrants: int = 0

    def ask(self, trial: optuna.Trial) -> Tuned:
        """Let the race choose an entrant."""
        return self.settings({_NAME: trial.suggest_int(_NAME, 0, self.entrants - 1)})

    def settings(self, params: Params) -> Tuned:
        """The settings of the entrant that a trial chose."""
        return _Entered(index=int(params[_NAME]))


@dataclass(frozen=True)
class Field(Search):
    """All entrants as one search.

    Args:
        entrants: The entrants, N.
        prior: What is believed of them before the first trial.
        metric: The score.
    """

    entrants: Sequence[Entrant] = ()
    prior: Prior | None = None
    score: Metric | None = None

    @classmethod
    def of(cls, field: Sequence[Entrant], prior: Prior, metric: Metric, trials: int) -> Field:
        """Make the search of some entrants with so many trials at most."""
        space = _EntrantSpace({}, {}, entrants=len(field))
        points: list[dict[str, Any]] = [{}] * min(trials, len(field))
        values = {**vars(field[0].search), "name": "recommend", "space": space, "points": points}
        return cls(**values, entrants=field, prior=prior, score=metric)

    @property
    def title(self) -> str:
        """What a person calls it."""
        return f"recommend on {self.label}"

    @property
    def digest(self) -> str:
        """Digest of the entrants, and of the images."""
        text = json.dumps([self.images, [entrant.config.run_id for entrant in self.entrants]])
        return hashlib.sha256(text.encode()).hexdigest()[:8]

    @property
    def key(self) -> str:
        """The name in the storage."""
        return f"recommend/{self.dataset}/{self.digest}"

    def configure(self, settings: Tuned, seed: int) -> RunConfig:
        """The run of an entrant on a seed."""
        entrant = self.entrants[cast("_Entered", settings).index]
        return entrant.search.configure(entrant.search.space.settings(entrant.params), seed)


_Run = tuple[int, int, float, str]
"""Candidate, seed, score and name of a finished run."""


class Standing:
    """The race as the trials so far have it.

    Args:
        field: All entrants.
        images: Validation images.
    """

    def __init__(self, field: Field, images: int) -> None:
        candidates = [entrant.candidate for entrant in field.entrants]
        prior = field.prior or Prior.of({})
        self.field, self.images = field, images
        self._belief, self._candidates = prior.belief(candidates), candidates
        self._predictions: dict[str, Predictions | None] = {}
        self._results: dict[str, Result | None] = {}
        self._scored: dict[str, Scored] = {}
        self._influence = influence_reader(self._metric)
        self._variance = cache(self._variance_of)
        self._draws = lru_cache(maxsize=4)(self._tuned)
        self._worse = cache(self._worse_than)  # of every state of the race: its figure asks for all of them again

    def race(self, trials: Sequence[TrialFacts]) -> Race:
        """The race after some trials; one under way counts as if it were to give what is expected of it."""
        race = Race(self._candidates, self._belief, self.images)
        for trial in trials:
            index = trial.params.get(_NAME)
            if index is None:
                continue
            if trial.value is not None:
                race.observe(index, 100 * trial.value, variance=self._variance(trial.run_id or ""))
            else:
                race.skip(index)
        return race

    def excluded(self, trials: Sequence[TrialFacts]) -> dict[str, float]:
        """Methods that are worse than the leader by the interval of their difference, and that difference."""
        best = self.best_trials(trials)
        if len(best) < 2:
            return {}
        leader = max(best, key=lambda method: best[method].value or 0.0)
        return self._worse(tuple(self._observations(trials, ())), leader)

    def differences(
        self, trials: Sequence[TrialFacts], arm: str, finalists: Sequence[Finalist] = ()
    ) -> dict[str, Difference]:
        """What every other method scores, tuned, minus what one does, with the interval of 95 %.

        Args:
            trials: All trials.
            arm: The one.
            finalists: Some of them on further seeds.
        """
        return differences_to(arm, self._draws(tuple(self._observations(trials, finalists))))

    def image_error(self, trial: TrialFacts, other: TrialFacts) -> float | None:
        """Standard error of the difference of two trials' scores over draws of images; None where it is not known."""
        first, second = (self._influence(self._run(each.run_id or "", each.value or 0.0)) for each in (trial, other))
        return None if first is None or second is None else math.sqrt(first.minus(second).source().variance)

    def deviation(self, trial: TrialFacts) -> float:
        """Standard deviation of a trial's score over draws of validation images, points; 0 where it is not known."""
        return math.sqrt(self._variance(trial.run_id or "") or 0.0)

    def best_trials(self, trials: Sequence[TrialFacts]) -> dict[str, TrialFacts]:
        """The best finished trial of every method that has one."""
        best: dict[str, TrialFacts] = {}
        for trial in trials:
            if trial.value is not None and _NAME in trial.params:
                arm = self.entrant(trial).candidate.arm
                if arm not in best or trial.value > (best[arm].value or 0.0):
                    best[arm] = trial
        return best

    def result(self, trial: TrialFacts) -> Result | None:
        """A finished trial's result; None where it is gone."""
        return self._result(trial.run_id or "")

    def entrant(self, trial: TrialFacts) -> Entrant:
        """Whose trial it is."""
        return self.field.entrants[int(trial.params[_NAME])]

    @property
    def _metric(self) -> Metric:
        return cast("Metric", self.field.score)

    def _worse_than(self, runs: tuple[_Run, ...], leader: str) -> dict[str, float]:
        """Methods that are worse than one by what some runs say, and the difference."""
        differences = differences_to(leader, self._draws(runs))
        return {arm: each.effect for arm, each in differences.items() if each.high < 0}

    def _tuned(self, runs: tuple[_Run, ...]) -> dict[str, NDArray[np.float64]]:
        """Draws of every tried method's score, by some runs; fractions, (S,) each."""
        observations = []
        for index, seed, score, run_id in runs:
            influence = self._influence(self._run(run_id, score))
            images = None if influence is None else np.bincount(influence.units, influence.values).astype(float)
            observations.append(Observation(index, seed, score, images))
        return tuned_scores(self._candidates, self._belief, observations, self.images)

    def _observations(self, trials: Sequence[TrialFacts], finalists: Sequence[Finalist]) -> Iterator[_Run]:
        """Every finished run, each once."""
        seed = self.field.card.seed
        runs = {trial.run_id or "": (trial.params.get(_NAME), seed, trial.value) for trial in trials}
        for each in finalists:
            index = each.trial.params[_NAME]
            runs |= {each.runs[seed]: (index, seed, value) for seed, value in each.values.items()}
        for run_id, (index, seed, score) in sorted(runs.items()):
            if index is not None and score is not None:
                yield int(index), seed, score, run_id

    def _run(self, run_id: str, score: float) -> Scored:
        """A run as the statistics see it: always the same one, by which they keep its influences."""
        if run_id not in self._scored:
            predictions = partial(self._read, run_id)
            self._scored[run_id] = Scored("", self.field.label, 0, "validation", score, predictions)
        return self._scored[run_id]

    def _variance_of(self, run_id: str) -> float | None:
        """Variance of a run's score over draws of validation images, points squared; None where it is not known."""
        predictions = self._read(run_id)
        parts = None if predictions is None else self._metric.influence(predictions.labels, predictions.logits)
        return None if parts is None else float((100 * parts) @ (100 * parts))

    def _read(self, run_id: str) -> Predictions | None:
        if run_id not in self._predictions:
            file = self.field.options.output / TRIALS / run_id / "predictions.parquet"
            is_kept = self._result(run_id) is not None and file.is_file()
            self._predictions[run_id] = read_predictions(file, "val") if is_kept else None
        return self._predictions[run_id]

    def _result(self, run_id: str) -> Result | None:
        if run_id not in self._results:
            self._results[run_id] = readable_result(self.field.options.output / TRIALS, run_id)
        return self._results[run_id]


class RaceSampler(optuna.samplers.BaseSampler):
    """Lets the race choose the next entrant, by all trials in the storage, other drivers' too.

    Args:
        standing: What the trials say.
        out: Methods that get no trial more, given those that there are.
    """

    def __init__(self, standing: Standing, out: Callable[[Sequence[TrialFacts]], set[str]]) -> None:
        self._standing, self._out = standing, out

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Nothing is sampled together."""
        return {}

    def sample_relative(self, study: optuna.Study, trial: FrozenTrial, search_space: Any) -> dict[str, Any]:
        """Nothing is sampled together."""
        return {}

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> int:
        """The entrant to train next."""
        trials = [t for t in study.get_trials(deepcopy=False) if t.number != trial.number]
        index = self._next(trials)
        return len(self._standing.field.entrants) - 1 if index is None else index

    def has_ended(self, trials: Sequence[FrozenTrial]) -> bool:
        """Whether nothing is left that could be trained."""
        return self._next(trials) is None

    def _next(self, trials: Sequence[FrozenTrial]) -> int | None:
        facts = [trial_facts(trial) for trial in trials if _NAME in trial.params]
        # What was lost with its driver is not taken: a trial in its place is waiting, or will be.
        facts = [trial for trial in facts if trial.status != "interrupted"]
        return self._standing.race(facts).next(self._out(facts).union(self._standing.excluded(facts)))

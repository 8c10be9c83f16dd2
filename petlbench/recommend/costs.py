"""What a run of each method takes on this machine: measured on a few steps, and told by the trials that ended."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean, median
from typing import Any, NamedTuple

import optuna

from petlbench.core.config import RunConfig
from petlbench.recommend.field import Entrant, Field, Standing
from petlbench.results.folder import RunFolder, readable_result, remove_run
from petlbench.study.executors.job import Action, Ended, EpochDone, Event, Executor, Job, PhaseBegan
from petlbench.study.executors.retries import run_with_retries
from petlbench.sweep.search import TRIALS, TrialFacts
from petlbench.sweep.sweep import SweepObserver

SHARE = 0.03
"""Share of the hours that measuring may take."""
_SPREAD = 0.2
"""Relative half-width of the interval that is stated around predicted hours."""
_EPOCHS, _STEPS = 2, 24
"""Of a measured run: epochs, the first one to warm up, and steps of each at most."""
_ONCE = ("start", "data", "preload", "inference")
"""Phases that the runs of a race do once: imports, reading images, features, and what prediction takes, all of which
are kept."""
_ATTRIBUTE = "costs"
_DONE = "done"


@dataclass(frozen=True)
class Cost:
    """What one run of a method takes on this machine once images are read and its features computed, in seconds.

    Args:
        seconds: Predicted for a full run.
        low: Lower bound of what is stated around it.
        high: Upper bound.
        measuring: What measuring it took; 0 where it is the median of the methods that were measured.
        preload: What took time meanwhile that the race has not to do again: features, imports, reading images.
        features: What its first run takes longer: features of the images that measuring did not need.
        is_trial: Whether the measured run is a trial of the race, which counts as such.
    """

    seconds: float
    low: float
    high: float
    measuring: float = 0.0
    preload: float = 0.0
    features: float = 0.0
    is_trial: bool = False

    @property
    def spent(self) -> float:
        """What was spent on it beside the trials."""
        return 0.0 if self.is_trial else self.measuring + self.preload


class Epoch(NamedTuple):
    """Seconds that an epoch takes.

    Args:
        train: Its steps.
        rest: Validation, its checkpoint, and all that is told of it.
    """

    train: float
    rest: float

    @classmethod
    def last(cls, moments: Sequence[tuple[str, float]]) -> Epoch | None:
        """The last epoch by when its phases began, seconds; None where it was not seen, as after a kill."""
        ends = [index for index, (name, _) in enumerate(moments) if name == _DONE]
        if not ends or ends[-1] < 2 or moments[ends[-1] - 1][0] != "validation":
            return None
        (_, begin), (_, validation), (_, end) = moments[ends[-1] - 2 : ends[-1] + 1]
        return cls(validation - begin, end - validation)

    @classmethod
    def mean(cls, timing: Mapping[str, float], epochs: int) -> Epoch:
        """The mean epoch by what all took: validation runs once an epoch, and once more at the end."""
        return cls(timing.get("train", 0.0) / epochs, timing.get("evaluate", 0.0) / (epochs + 1))


@dataclass
class Measurement:
    """Measures what a run of each method takes.

    Each method's most promising candidate is trained for two epochs of a few steps, the most promising method first and
    one at a time, until the time for that is over; one is measured at least. The second epoch is what each further one
    takes, its steps as many times as there are: the first one reads the images, and warms up. What was measured stands
    in the study, and is not measured again.

    Args:
        field: All entrants.
        seconds: Seconds that the whole race may take.
        train_images: Number of training images.
    """

    field: Field
    study: optuna.Study
    executor: Executor
    observer: SweepObserver
    seconds: float
    train_images: int

    def __post_init__(self) -> None:
        """Begin with what was measured before."""
        stored: dict[str, dict[str, Any]] = self.study.user_attrs.get(_ATTRIBUTE, {})
        self._costs = {arm: Cost(**figures) for arm, figures in stored.items()}
        self._moments: list[tuple[str, float]] = []
        self._is_under_way = False

    def costs(self, standing: Standing) -> dict[str, Cost]:
        """What a run takes, by method."""
        entrants = [self.field.entrants[index] for index in standing.race([]).opening]
        self.observer.phase("measuring a few steps", len(entrants))
        run_with_retries(self.executor, self._jobs(entrants), self._on_event)
        measured = list(self._costs.values()) or [Cost(0.0, 0.0, 0.0)]
        low, high = min(cost.low for cost in measured), max(cost.high for cost in measured)
        other = Cost(median(cost.seconds for cost in measured), low, high)
        return {entrant.candidate.arm: self._costs.get(entrant.candidate.arm, other) for entrant in entrants}

    def _jobs(self, entrants: Sequence[Entrant]) -> Iterator[Job | None]:
        for entrant in entrants:
            if entrant.candidate.arm not in self._costs and self._is_time_for_more():
                short = self._short(entrant.config)
                self._moments, self._is_under_way = [], True
                yield entrant.search.trial_job(short)
                while self._is_under_way:
                    yield None
                self._keep(entrant, short)
            self.observer.advance()

    def _on_event(self, job: Job, event: Event) -> Action:
        if isinstance(event, EpochDone | PhaseBegan):
            name = event.name if isinstance(event, PhaseBegan) else _DONE
            self._moments.append((name, time.perf_counter()))
        self._is_under_way = self._is_under_way and not isinstance(event, Ended)
        return Action.GO_ON

    def _short(self, config: RunConfig) -> RunConfig:
        """A run of a few steps of it."""
        training = config.training.model_copy(update={"epochs": min(_EPOCHS, config.training.epochs)})
        share = 1.0 if config.shots else min(1.0, _STEPS * training.batch_size / max(1, self.train_images))
        return config.model_copy(update={"training": training, "train_fraction": share * config.train_fraction})

    def _is_time_for_more(self) -> bool:
        spent = [cost.measuring for cost in self._costs.values()]
        # The next one may be the dearest so far.
        return not spent or sum(spent) + max(spent) <= SHARE * self.seconds

    def _keep(self, entrant: Entrant, config: RunConfig) -> None:
        """Take down what a run of the first epochs took; a run that did not finish says nothing."""
        result = readable_result(self.field.options.output / TRIALS, config.run_id)
        if result is None or result.status != "finished":
            return
        epoch = Epoch.last(self._moments) or Epoch.mean(result.timing, config.training.epochs)
        cost = _cost(result.timing, epoch, config, entrant.config)
        self._costs[entrant.candidate.arm] = cost
        self.study.set_user_attr(_ATTRIBUTE, {arm: asdict(cost) for arm, cost in self._costs.items()})
        if not cost.is_trial:
            remove_run(RunFolder(self.field.options.output / TRIALS, config.run_id))


def _cost(timing: Mapping[str, float], epoch: Epoch, short: RunConfig, whole: RunConfig) -> Cost:
    """The cost of a run by that of a few of its steps.

    Args:
        timing: What these took, by phase.
        epoch: Their last epoch.
        short: Those few steps.
        whole: The run.
    """
    epochs, longer = short.training.epochs, whole.train_fraction / short.train_fraction
    measuring = _lasting(timing)
    seconds = measuring + epochs * (longer - 1) * epoch.train
    seconds += (whole.training.epochs - epochs) * (longer * epoch.train + epoch.rest)
    return Cost(
        seconds,
        seconds / (1 + _SPREAD),
        seconds * (1 + _SPREAD),
        measuring=measuring,
        preload=timing["total"] - measuring,
        features=(longer - 1) * timing.get("preload", 0.0),
        is_trial=short == whole,
    )


def _lasting(timing: Mapping[str, float]) -> float:
    """The part of a run's seconds that each such run takes again."""
    return timing["total"] - sum(timing.get(phase, 0.0) for phase in _ONCE)


def again(standing: Standing, trial: TrialFacts) -> float:
    """Return the seconds that a finished trial would take again: without what is done once and kept."""
    result = standing.result(trial)
    return trial.seconds or 0.0 if result is None else _lasting(result.timing)


def expected_seconds(costs: Mapping[str, Cost], standing: Standing, trials: Sequence[TrialFacts]) -> dict[str, float]:
    """What the next run of each method takes: the mean of its trials, or what was predicted where it has none."""
    seconds: dict[str, list[float]] = {}
    for trial in trials:
        if trial.value is not None:
            seconds.setdefault(standing.entrant(trial).candidate.arm, []).append(again(standing, trial))
    return {arm: fmean(seconds[arm]) if arm in seconds else cost.seconds + cost.features for arm, cost in costs.items()}


def document(costs: Mapping[str, Cost]) -> dict[str, Any]:
    """Costs as plain values."""
    return {
        arm: {"predicted": cost.seconds, "low": cost.low, "high": cost.high, "measuring": cost.measuring}
        for arm, cost in costs.items()
    }

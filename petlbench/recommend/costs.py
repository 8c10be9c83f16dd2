"""What a run of each method takes on this machine: measured on two epochs, and told by the trials that ended."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean, median
from typing import Any

import optuna

from petlbench.core.config import RunConfig
from petlbench.recommend.field import Entrant, Field, Standing
from petlbench.results.folder import RunFolder, readable_result, remove_run
from petlbench.results.result import Result
from petlbench.study.executors.job import Action, Ended, EpochDone, Event, Executor, Job
from petlbench.study.executors.retries import run_with_retries
from petlbench.sweep.search import TRIALS, TrialFacts
from petlbench.sweep.sweep import SweepObserver

SHARE = 0.03
"""Share of the hours that measuring may take."""
_SPREAD = 0.2
"""Relative half-width of the interval that is stated around predicted hours."""
_EPOCHS = 2
_ONCE = ("start", "preload")
"""Phases that the runs of the race have not to do again: imports, and features, which are kept."""
_ONCE_FOR_ALL = (*_ONCE, "data")
"""Those of the first run: it reads the images, too, and later runs find them in the image cache."""
_ATTRIBUTE = "costs"


@dataclass(frozen=True)
class Cost:
    """What one run of a method takes on this machine once images are read and its features computed, in seconds.

    Args:
        seconds: Predicted for a full run.
        low: Lower bound of what is stated around it.
        high: Upper bound.
        measuring: What measuring it took; 0 where it is the median of the methods that were measured.
        preload: What took time meanwhile that the race has not to do again: features, imports, reading images.
        is_trial: Whether the measured run is a trial of the race, which counts as such.
    """

    seconds: float
    low: float
    high: float
    measuring: float = 0.0
    preload: float = 0.0
    is_trial: bool = False

    @property
    def spent(self) -> float:
        """What was spent on it beside the trials."""
        return 0.0 if self.is_trial else self.measuring + self.preload


@dataclass
class Measurement:
    """Measures what a run of each method takes.

    Each method's most promising candidate is trained for two epochs, the most promising method first and one at a time,
    until the time for that is over; one is measured at least. The second epoch is what each further one takes: the
    first one reads the images, and warms up. What was measured stands in the study, and is not measured again.

    Args:
        field: All entrants.
        seconds: Seconds that the whole race may take.
    """

    field: Field
    study: optuna.Study
    executor: Executor
    observer: SweepObserver
    seconds: float

    def __post_init__(self) -> None:
        """Begin with what was measured before."""
        stored: dict[str, dict[str, Any]] = self.study.user_attrs.get(_ATTRIBUTE, {})
        self._costs = {arm: Cost(**figures) for arm, figures in stored.items()}
        self._ends: list[float] = []
        self._is_under_way = False

    def costs(self, standing: Standing) -> dict[str, Cost]:
        """What a run takes, by method."""
        entrants = [self.field.entrants[index] for index in standing.race([]).opening]
        self.observer.phase("measuring two epochs", len(entrants))
        run_with_retries(self.executor, self._jobs(entrants), self._on_event)
        measured = list(self._costs.values()) or [Cost(0.0, 0.0, 0.0)]
        low, high = min(cost.low for cost in measured), max(cost.high for cost in measured)
        other = Cost(median(cost.seconds for cost in measured), low, high)
        return {entrant.candidate.arm: self._costs.get(entrant.candidate.arm, other) for entrant in entrants}

    def _jobs(self, entrants: Sequence[Entrant]) -> Iterator[Job | None]:
        for entrant in entrants:
            if entrant.candidate.arm not in self._costs and self._is_time_for_more():
                training = entrant.config.training
                epochs = min(_EPOCHS, training.epochs)
                short = entrant.config.model_copy(update={"training": training.model_copy(update={"epochs": epochs})})
                self._ends, self._is_under_way = [], True
                yield entrant.search.trial_job(short)
                while self._is_under_way:
                    yield None
                self._keep(entrant, short)
            self.observer.advance()

    def _on_event(self, job: Job, event: Event) -> Action:
        if isinstance(event, EpochDone):
            self._ends.append(time.perf_counter())
        self._is_under_way = self._is_under_way and not isinstance(event, Ended)
        return Action.GO_ON

    def _is_time_for_more(self) -> bool:
        spent = [cost.measuring for cost in self._costs.values()]
        # The next one may be the dearest so far.
        return not spent or sum(spent) + max(spent) <= SHARE * self.seconds

    def _keep(self, entrant: Entrant, config: RunConfig) -> None:
        """Take down what a run of the first epochs took; a run that did not finish says nothing."""
        result = readable_result(self.field.options.output / TRIALS, config.run_id)
        if result is None or result.status != "finished":
            return
        # An epoch is as long as it is from outside: with validation, its checkpoint and all that is told of it.
        last_epoch = self._ends[-1] - self._ends[-2] if len(self._ends) > 1 else None
        further = entrant.config.training.epochs - config.training.epochs
        once = _ONCE if self._costs else _ONCE_FOR_ALL
        self._costs[entrant.candidate.arm] = _cost(result, last_epoch, further, once)
        self.study.set_user_attr(_ATTRIBUTE, {arm: asdict(cost) for arm, cost in self._costs.items()})
        if further:
            remove_run(RunFolder(self.field.options.output / TRIALS, config.run_id))


def _cost(result: Result, last_epoch: float | None, further: int, once: Sequence[str] = _ONCE) -> Cost:
    """The cost of a run by that of its first epochs.

    Args:
        result: The run of these.
        last_epoch: Seconds of the last one; None where it was not seen, as after a kill: then their mean counts.
        further: Number of epochs beside those.
        once: Phases that no run of the race has to do again.
    """
    timing, epochs = result.timing, max(1, len(result.curve))
    preload = sum(timing.get(phase, 0.0) for phase in once)
    if last_epoch is None:  # validation runs once an epoch, and once more at the end
        last_epoch = timing.get("train", 0.0) / epochs + timing.get("evaluate", 0.0) / (epochs + 1)
    measuring = timing["total"] - preload
    seconds = measuring + further * last_epoch
    return Cost(seconds, seconds / (1 + _SPREAD), seconds * (1 + _SPREAD), measuring, preload, is_trial=further == 0)


def expected_seconds(costs: Mapping[str, Cost], standing: Standing, trials: Sequence[TrialFacts]) -> dict[str, float]:
    """What a run of each method takes: the mean of its trials, or what was predicted where it has none."""
    seconds: dict[str, list[float]] = {}
    for trial in trials:
        if trial.value is not None and trial.seconds:
            seconds.setdefault(standing.entrant(trial).candidate.arm, []).append(trial.seconds)
    return {arm: fmean(seconds[arm]) if arm in seconds else cost.seconds for arm, cost in costs.items()}


def document(costs: Mapping[str, Cost]) -> dict[str, Any]:
    """Costs as plain values."""
    return {
        arm: {"predicted": cost.seconds, "low": cost.low, "high": cost.high, "measuring": cost.measuring}
        for arm, cost in costs.items()
    }

"""What a run of each method takes on this machine: measured on two epochs, and told by the trials that ended."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean, median
from typing import Any

import optuna

from petlbench.core.config import RunConfig
from petlbench.recommend.field import Entrant, Field, Standing
from petlbench.results.folder import RunFolder, readable_result, remove_run
from petlbench.results.result import Result
from petlbench.study.executors.job import Action, EpochDone, Event, Executor, Job
from petlbench.study.executors.retries import run_with_retries
from petlbench.sweep.search import TRIALS, TrialFacts
from petlbench.sweep.sweep import SweepObserver

SHARE = 0.03
"""Share of the hours that measuring may take."""
_SPREAD = 0.2
"""Relative half-width of the interval that is stated around predicted hours."""
_EPOCHS = 2
_ATTRIBUTE = "costs"


@dataclass(frozen=True)
class Cost:
    """What one run of a method takes on this machine once its frozen features are computed, in seconds.

    Args:
        seconds: Predicted for a full run.
        low: Lower bound of what is stated around it.
        high: Upper bound.
        measuring: What measuring it took; 0 where it is the median of the methods that were measured.
        preload: What computing the features took meanwhile, which the race has not to do again.
    """

    seconds: float
    low: float
    high: float
    measuring: float = 0.0
    preload: float = 0.0


@dataclass(frozen=True)
class Measurement:
    """Measures what a run of each method takes.

    Each method's most promising candidate is trained for two epochs, the most promising method first, until the time
    for that is over; one is measured at least. The second epoch is what each further one takes: the first one
    reads the images, and warms up. What was measured stands in the study, and is not measured again.

    Args:
        field: All entrants.
        seconds: Seconds that the whole race may take.
    """

    field: Field
    study: optuna.Study
    executor: Executor
    observer: SweepObserver
    seconds: float

    def costs(self, standing: Standing) -> dict[str, Cost]:
        """What a run takes, by method."""
        first = {
            self.field.entrants[index].candidate.arm: self.field.entrants[index] for index in standing.race([]).opening
        }
        stored: dict[str, dict[str, float]] = self.study.user_attrs.get(_ATTRIBUTE, {})
        costs = {arm: Cost(**figures) for arm, figures in stored.items() if arm in first}
        self.observer.phase("measuring two epochs", len(first))
        for arm, entrant in first.items():
            if arm not in costs and self._is_time_for_more(costs):
                self._measure(arm, entrant, costs)
            self.observer.advance()
        known = list(costs.values()) or [Cost(0.0, 0.0, 0.0)]
        low, high = min(cost.low for cost in known), max(cost.high for cost in known)
        other = Cost(median(cost.seconds for cost in known), low, high)
        return {arm: costs.get(arm, other) for arm in first}

    def _is_time_for_more(self, costs: Mapping[str, Cost]) -> bool:
        spent = [cost.measuring for cost in costs.values()]
        return not spent or sum(spent) + fmean(spent) <= SHARE * self.seconds

    def _measure(self, arm: str, entrant: Entrant, costs: dict[str, Cost]) -> None:
        config = entrant.config
        epochs = min(_EPOCHS, config.training.epochs)
        short = config.model_copy(update={"training": config.training.model_copy(update={"epochs": epochs})})
        result, last_epoch = self._carried_out(entrant, short)
        if result is None:
            return
        costs[arm] = _cost(result, last_epoch, config.training.epochs - epochs)
        self.study.set_user_attr(_ATTRIBUTE, {name: asdict(cost) for name, cost in costs.items()})
        if epochs < config.training.epochs:  # else it is a trial
            remove_run(RunFolder(self.field.options.output / TRIALS, short.run_id))

    def _carried_out(self, entrant: Entrant, config: RunConfig) -> tuple[Result | None, float | None]:
        """The result of one run that reads no test images, None where it did not finish; and its last epoch's seconds.

        These are as long as the epoch is from outside: with validation, its checkpoint and all that is told of it.
        None where fewer than two epochs were seen.
        """
        ends: list[float] = []

        def on_event(job: Job, event: Event) -> Action:
            if isinstance(event, EpochDone):
                ends.append(time.perf_counter())
            return Action.GO_ON

        run_with_retries(self.executor, iter([entrant.search.trial_job(config)]), on_event)
        result = readable_result(self.field.options.output / TRIALS, config.run_id)
        finished = result if result is not None and result.status == "finished" else None
        return finished, ends[-1] - ends[-2] if len(ends) > 1 else None


def _cost(result: Result, last_epoch: float | None, further: int) -> Cost:
    """The cost of a run by that of its first epochs.

    Args:
        result: The run of these.
        last_epoch: Seconds of the last one; None where it was not seen, as after a kill: then their mean counts.
        further: Number of epochs beside those.
    """
    timing = result.timing
    preload, epochs = timing.get("preload", 0.0), max(1, len(result.curve))
    if last_epoch is None:  # validation runs once an epoch, and once more at the end
        last_epoch = timing.get("train", 0.0) / epochs + timing.get("evaluate", 0.0) / (epochs + 1)
    measuring = timing["total"] - preload
    seconds = measuring + further * last_epoch
    return Cost(seconds, seconds / (1 + _SPREAD), seconds * (1 + _SPREAD), measuring, preload)


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

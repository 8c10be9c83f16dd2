"""From a search to its winner, tested: what `petlbench sweep` does for one method on one dataset."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from petlbench.study.executors.job import Executor
from petlbench.study.grid import Planned
from petlbench.study.runner import Study, open_board, run_study
from petlbench.study.status import Board, RunState
from petlbench.study.study_file import Recorded, record_runs
from petlbench.sweep.finalists import Finalist, choose_winner, describe_winner, run_finalists
from petlbench.sweep.liveness import Presence
from petlbench.sweep.outcome import SearchOutcome, importances
from petlbench.sweep.search import Plan, TrialFacts, open_study, search, trial_facts
from petlbench.sweep.winner import iter_winners, write_winner

__all__ = ["Sweeping", "Told", "sweep_one"]


class Told(Protocol):
    """Told how a sweep goes on."""

    def begin(self, plan: Plan, trials: Sequence[TrialFacts]) -> None:
        """A search begins, with so many trials that have ended before."""

    def trial(self, plan: Plan, trial: TrialFacts) -> None:
        """A trial ended."""

    def say(self, text: str) -> None:
        """Something that the user should know."""


@dataclass(frozen=True)
class Sweeping:
    """What the searches of one sweep share.

    Args:
        storage: Where searches are kept.
        executor: Where runs are carried out.
        presence: This driver.
        told: Told how it goes on.
        workers: How many runs are carried out at the same time.
        is_final: Whether the winner is run and tested.
        retry_failed: Whether what failed is tried again.
    """

    storage: Any
    executor: Executor
    presence: Presence
    told: Told
    workers: int = 1
    is_final: bool = True
    retry_failed: bool = False


def sweep_one(plan: Plan, sweeping: Sweeping) -> SearchOutcome:
    """Search, choose the winner on validation, and test it; whatever is done already is not done again.

    Args:
        plan: The search.
        sweeping: What all searches share.

    Returns:
        What came of it.

    Raises:
        KeyboardInterrupt: When the user stops it.
    """
    study = open_study(plan, sweeping.storage)
    ended = [trial_facts(trial) for trial in study.get_trials(deepcopy=False) if trial.state.is_finished()]
    sweeping.told.begin(plan, [trial for trial in ended if trial.status not in ("interrupted", "waiting")])

    def on_trial(trial: TrialFacts) -> None:
        sweeping.told.trial(plan, trial)

    trials, retries = search(
        plan, study, sweeping.executor, sweeping.presence, on_trial, retry_failed=sweeping.retry_failed
    )
    shares, note = importances(study)
    outcome = SearchOutcome(plan, plan.config.method, plan.dataset, trials, retries, shares, note)
    finalists = run_finalists(plan, trials, sweeping.executor, sweeping.told.say)
    winner = choose_winner(plan, finalists)
    if winner is None:
        sweeping.told.say(f"{plan.title}: no winner, since {_why_none(trials, finalists)}")
        return outcome
    document = describe_winner(plan, trials, finalists, winner)
    file = write_winner(plan.options.output, document)
    for edge in document["edge"]:
        sweeping.told.say(
            f"warning: {plan.title}: the winner's {edge['name']} = {edge['value']:g} is on the {edge['end']} edge of "
            "its range; widen the range for all methods alike and sweep again"
        )
    sweeping.told.say(f"{plan.title}: trial {winner.trial.number} wins; its settings stand in {file}")
    runs = _test(plan, winner, sweeping) if sweeping.is_final else []
    return replace(outcome, winner=document, runs=runs)


def _why_none(trials: Sequence[TrialFacts], finalists: Sequence[Finalist]) -> str:
    if not finalists:
        return f"none of {len(trials)} trials finished"
    return "no finalist finished on all seeds"


def _test(plan: Plan, winner: Finalist, sweeping: Sweeping) -> list[dict[str, Any]]:
    """Run the winner's settings on the sweep's seeds as ordinary runs of a study, each of which is tested once."""
    settings = plan.space.settings(winner.trial.params)
    plans = [
        Planned(plan.config.method, plan.request.dataset or "", seed, plan.configure(settings, seed))
        for seed in plan.card.seeds
    ]
    study = Study(
        plan.study_name,
        plans,
        plan.options,
        plan.timeout,
        sweeping.retry_failed,
        sweeping.workers,
    )
    board = open_board(study)
    found = {f"{one['method']} on {one['dataset']}": one for one in iter_winners(plan.options.output, plan.name)}
    more = {"sweep": {"name": plan.name, "title": plan.card.title, "winners": found}}
    record_runs(plan.options.output, plan.study_name, _recorded(board), kind="sweep", more=more)
    for sentence in run_study(study, board, sweeping.executor, _FinalWatch(sweeping.told)):
        sweeping.told.say(sentence)
    return [_run(state) for state in board.states]


def _recorded(board: Board) -> list[Recorded]:
    return [
        Recorded(
            state.planned.method,
            state.planned.dataset,
            state.planned.seed,
            state.run_id,
            None if state.is_open else state.status,
        )
        for state in board.states
    ]


def _run(state: RunState) -> dict[str, Any]:
    metrics = state.result.metrics if state.result is not None else {}
    error = state.error["message"] if state.error is not None else None
    return {
        "seed": state.planned.seed,
        "run_id": state.run_id,
        "status": state.status,
        "error": error,
        "metrics": {
            split: {name: scores.get(name) for name in ("auc", "accuracy")} for split, scores in metrics.items()
        },
    }


class _FinalWatch:
    """Says how the winner's runs end."""

    def __init__(self, told: Told) -> None:
        self._told = told

    def changed(self, state: RunState) -> None:
        if not state.is_open:
            why = f": {state.error['message']}" if state.error is not None else ""
            self._told.say(f"winner's run, {state.title}: {state.status}{why}")

    def say(self, text: str) -> None:
        self._told.say(text)

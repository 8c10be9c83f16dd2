"""From a search to its winner, tested: what `petlbench sweep` does for one method on one dataset."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from petlbench.study.executors.job import Executor
from petlbench.study.grid import PlannedRun
from petlbench.study.runner import Study, open_status, run_study
from petlbench.study.status import RunState, StudyStatus
from petlbench.study.study_file import RunEntry, record_runs
from petlbench.sweep.finalists import Finalist, choose_winner, describe_winner, run_finalists
from petlbench.sweep.liveness import Liveness
from petlbench.sweep.outcome import SearchOutcome, importances
from petlbench.sweep.search import Search, TrialFacts, open_study, run_search, trial_facts
from petlbench.sweep.winner import iter_winners, write_winner

__all__ = ["SweepObserver", "SweepOptions", "sweep_one"]


class SweepObserver(Protocol):
    """Told how a sweep goes on."""

    def begin(self, search: Search, trials: Sequence[TrialFacts]) -> None:
        """A search begins, with so many trials that have ended before."""

    def trial(self, search: Search, trial: TrialFacts) -> None:
        """A trial ended."""

    def say(self, text: str) -> None:
        """Something that the user should know."""


@dataclass(frozen=True)
class SweepOptions:
    """What the searches of one sweep share.

    Args:
        storage: Where searches are kept.
        executor: Where runs are carried out.
        liveness: This driver.
        told: Told how it goes on.
        workers: How many runs are carried out at the same time.
        is_final: Whether the winner is run and tested.
        retry_failed: Whether what failed is tried again.
    """

    storage: Any
    executor: Executor
    liveness: Liveness
    told: SweepObserver
    workers: int = 1
    is_final: bool = True
    retry_failed: bool = False


def sweep_one(search: Search, options: SweepOptions) -> SearchOutcome:
    """Search, choose the winner on validation, and test it; whatever is done already is not done again.

    Args:
        search: The search.
        options: What all searches share.

    Returns:
        What came of it.

    Raises:
        KeyboardInterrupt: When the user stops it.
    """
    study = open_study(search, options.storage)
    ended = [trial_facts(trial) for trial in study.get_trials(deepcopy=False) if trial.state.is_finished()]
    options.told.begin(search, [trial for trial in ended if trial.status not in ("interrupted", "waiting")])

    def on_trial(trial: TrialFacts) -> None:
        options.told.trial(search, trial)

    trials, retries = run_search(
        search, study, options.executor, options.liveness, on_trial, retry_failed=options.retry_failed
    )
    shares, note = importances(study)
    outcome = SearchOutcome(search, search.config.method, search.dataset, trials, retries, shares, note)
    finalists = run_finalists(search, trials, options.executor, options.told.say)
    winner = choose_winner(search, finalists)
    if winner is None:
        options.told.say(f"{search.title}: no winner, since {_why_none(trials, finalists)}")
        return outcome
    document = describe_winner(search, trials, finalists, winner)
    file = write_winner(search.options.output, document)
    for edge in document["edge"]:
        options.told.say(
            f"warning: {search.title}: the winner's {edge['name']} = {edge['value']:g} is on the {edge['end']} edge of "
            "its range; widen the range for all methods alike and sweep again"
        )
    options.told.say(f"{search.title}: trial {winner.trial.number} wins; its settings stand in {file}")
    runs = _test(search, winner, options) if options.is_final else []
    return replace(outcome, winner=document, runs=runs)


def _why_none(trials: Sequence[TrialFacts], finalists: Sequence[Finalist]) -> str:
    if not finalists:
        return f"none of {len(trials)} trials finished"
    return "no finalist finished on all seeds"


def _test(search: Search, winner: Finalist, options: SweepOptions) -> list[dict[str, Any]]:
    """Run the winner's settings on the sweep's seeds as ordinary runs of a study, each of which is tested once."""
    settings = search.space.settings(winner.trial.params)
    plans = [
        PlannedRun(search.config.method, search.request.dataset or "", seed, search.configure(settings, seed))
        for seed in search.card.seeds
    ]
    study = Study(
        search.study_name,
        plans,
        search.options,
        search.timeout,
        options.retry_failed,
        options.workers,
    )
    board = open_status(study)
    found = {f"{one['method']} on {one['dataset']}": one for one in iter_winners(search.options.output, search.name)}
    more = {"sweep": {"name": search.name, "title": search.card.title, "winners": found}}
    record_runs(search.options.output, search.study_name, _entry_of(board), kind="sweep", more=more)
    for sentence in run_study(study, board, options.executor, _FinalObserver(options.told)):
        options.told.say(sentence)
    return [_run(state) for state in board.states]


def _entry_of(board: StudyStatus) -> list[RunEntry]:
    return [
        RunEntry(
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


class _FinalObserver:
    """Says how the winner's runs end."""

    def __init__(self, told: SweepObserver) -> None:
        self._told = told

    def changed(self, state: RunState) -> None:
        if not state.is_open:
            why = f": {state.error['message']}" if state.error is not None else ""
            self._told.say(f"winner's run, {state.title}: {state.status}{why}")

    def say(self, text: str) -> None:
        self._told.say(text)

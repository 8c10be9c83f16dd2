"""From a sweep to its winners, tested: plan the searches, carry them out, return what came of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from petlbench.core.errors import InputError, PetlbenchError
from petlbench.core.files import check_writable
from petlbench.core.progress import Progress
from petlbench.core.request import Request
from petlbench.results.tracking.store import choose_address
from petlbench.run.options import RunContext, RunOptions
from petlbench.study.carry_out import check_data
from petlbench.study.executors.base import Executor, ExecutorOptions, open_executor
from petlbench.study.runner import Study, open_status, run_study
from petlbench.study.status import RunState, StudyObserver
from petlbench.study.study_file import check_study_name, record_runs
from petlbench.sweep.finalists import Finalist, choose_winner, describe_winner, run_finalists
from petlbench.sweep.liveness import Liveness
from petlbench.sweep.outcome import SearchOutcome, importances
from petlbench.sweep.search import Search, TrialFacts, open_study, plan_search, run_search, trial_facts
from petlbench.sweep.spec import SweepCard
from petlbench.sweep.storage import default_address, open_storage
from petlbench.sweep.winner import iter_winners, write_winner

__all__ = ["SweepDriver", "SweepObserver", "SweepOptions", "carry_out", "plan_searches"]


class SweepObserver(Progress):
    """Told how a sweep goes on; this one keeps silent."""

    def begin(self, search: Search, trials: Sequence[TrialFacts]) -> None:
        """A search begins, with so many trials that have ended before."""

    def trial(self, search: Search, trial: TrialFacts) -> None:
        """A trial ended."""


@dataclass(frozen=True)
class SweepOptions:
    """How a sweep is carried out.

    Args:
        storage: Address of the database that searches are kept in; None for a file in the output folder.
        executor: Name of the executor.
        executor_options: How much it may use.
        is_final: Whether the winner is run on the sweep's seeds and tested.
        retry_failed: Whether what failed is tried again.
    """

    storage: str | None = None
    executor: str = "local"
    executor_options: ExecutorOptions = field(default_factory=ExecutorOptions)
    is_final: bool = True
    retry_failed: bool = False


def plan_searches(
    sweep: str,
    card: SweepCard,
    requests: Sequence[Request],
    options: RunOptions,
    *,
    study_name: str | None = None,
    timeout: float | None = None,
) -> list[SearchOutcome]:
    """Return what each search would be; a method that cannot have one says so, and the others stand.

    Args:
        sweep: Name of the sweep.
        card: The sweep.
        requests: What the user asked for, one method and one dataset each.
        options: Where runs read and write.
        study_name: The study of the winners' runs; None for the sweep's name.
        timeout: Seconds after which a run is stopped.

    Raises:
        InputError: When a name or a setting is wrong, or no method can have its search.
    """
    study_name = check_study_name(study_name or sweep)
    # Trials lie in a folder of their own, and are tracked with all else.
    context = RunContext(replace(options, tracking_uri=choose_address(options.tracking_uri, options.output)))
    searches = []
    for request in requests:
        try:
            search = plan_search(sweep, card, request, context, study_name=study_name, timeout=timeout)
            searches.append(SearchOutcome(search, request.method, search.dataset))
        except InputError as error:
            if error.kind != "unsupported":
                raise
            searches.append(SearchOutcome(None, request.method, request.dataset or "", refusal=error.message))
    if all(outcome.search is None for outcome in searches):
        raise InputError(str(searches[0].refusal), hint="choose another method or backbone", kind="unsupported")
    return searches


def carry_out(
    searches: Sequence[SearchOutcome], options: SweepOptions | None = None, observer: SweepObserver | None = None
) -> list[SearchOutcome]:
    """Carry out what is missing of the searches of a sweep, and return what came of each.

    Args:
        searches: As `plan_searches` returned them.
        options: How they are carried out.
        observer: Told how it goes on; None for nobody.

    Raises:
        InputError: When a dataset is not there, or the storage cannot be opened.
        PetlbenchError: When the user stops it; the same sweep goes on from there.
    """
    options, observer = options or SweepOptions(), observer or SweepObserver()
    planned = [outcome.search for outcome in searches if outcome.search is not None]
    context = planned[0].context
    output = context.options.output
    executor = open_executor(options.executor, options.executor_options, context.catalog)
    if executor.is_local:
        check_data([search.final_run(search.config) for search in planned], context)
    check_writable(output)
    if options.storage is None:
        output.mkdir(parents=True, exist_ok=True)
    storage = open_storage(options.storage or default_address(output), observer.say)
    outcomes = []
    with Liveness(output) as liveness:
        driver = SweepDriver(storage, executor, liveness, observer, options)
        for outcome in searches:
            try:
                outcomes.append(outcome if outcome.search is None else driver.carry_out(outcome.search))
            except KeyboardInterrupt as error:
                message = f"stopped in the search for {outcome.search and outcome.search.title}"
                hint = "the same command goes on from here"
                raise PetlbenchError(message, hint=hint, kind="interrupted") from error
    return outcomes


@dataclass(frozen=True)
class SweepDriver:
    """Carries out the searches of one sweep, one after the other; other drivers know it by its liveness."""

    storage: Any
    executor: Executor
    liveness: Liveness
    observer: SweepObserver
    options: SweepOptions = field(default_factory=SweepOptions)

    def carry_out(self, search: Search) -> SearchOutcome:
        """Search, choose the winner on validation, and test it; whatever is done already is not done again.

        Raises:
            KeyboardInterrupt: When the user stops it.
        """
        study = open_study(search, self.storage)
        ended = [trial_facts(trial) for trial in study.get_trials(deepcopy=False) if trial.state.is_finished()]
        self.observer.begin(search, [trial for trial in ended if trial.status not in ("interrupted", "waiting")])

        on_trial, retry = partial(self.observer.trial, search), self.options.retry_failed
        trials, retries = run_search(search, study, self.executor, self.liveness, on_trial, retry_failed=retry)
        shares, note = importances(study)
        outcome = SearchOutcome(search, search.config.method, search.dataset, trials, retries, shares, note)
        finalists = run_finalists(search, trials, self.executor, self.observer.say)
        winner = choose_winner(search, finalists)
        if winner is None:
            why = "no finalist finished on all seeds" if finalists else f"none of {len(trials)} trials finished"
            self.observer.say(f"{search.title}: no winner, since {why}")
            return outcome
        document = describe_winner(search, trials, finalists, winner)
        self._announce(search, document)
        return replace(outcome, winner=document, runs=self._test(search, winner) if self.options.is_final else [])

    def _announce(self, search: Search, winner: dict[str, Any]) -> None:
        """Write the winner's file, and warn of settings on the edge of their range."""
        file = write_winner(search.options.output, winner)
        for edge in winner["edge"]:
            self.observer.say(
                f"warning: {search.title}: the winner's {edge['name']} = {edge['value']:g} is on the {edge['end']} "
                "edge of its range; widen the range for all methods alike and sweep again"
            )
        self.observer.say(f"{search.title}: trial {winner['number']} wins; its settings stand in {file}")

    def _test(self, search: Search, winner: Finalist) -> list[dict[str, Any]]:
        """Run the winner's settings on the sweep's seeds as ordinary runs of a study, each of which is tested once."""
        settings, output = search.space.settings(winner.trial.params), search.options.output
        runs = [search.final_run(search.configure(settings, seed)) for seed in search.card.seeds]
        workers, retry = max(1, self.options.executor_options.workers), self.options.retry_failed
        study = Study(search.study_name, runs, search.options, search.timeout, retry, workers)
        status = open_status(study)
        documents = iter_winners(output, search.name)
        winners = {f"{document['method']} on {document['dataset']}": document for document in documents}
        more = {"sweep": {"name": search.name, "title": search.card.title, "winners": winners}}
        record_runs(output, search.study_name, [state.entry for state in status.states], kind="sweep", more=more)
        for sentence in run_study(study, status, self.executor, _FinalObserver(self.observer)):
            self.observer.say(sentence)
        return [_run(state) for state in status.states]


def _run(state: RunState) -> dict[str, Any]:
    metrics = state.result.metrics.items() if state.result is not None else ()
    return {
        "seed": state.planned.seed,
        "run_id": state.run_id,
        "status": state.status,
        "error": state.error["message"] if state.error is not None else None,
        "metrics": {split: {name: scores.get(name) for name in ("auc", "accuracy")} for split, scores in metrics},
    }


class _FinalObserver(StudyObserver):
    """Says how the winner's runs end."""

    def __init__(self, observer: SweepObserver) -> None:
        self._observer = observer

    def changed(self, state: RunState) -> None:
        if not state.is_open:
            why = f": {state.error['message']}" if state.error is not None else ""
            self.say(f"winner's run, {state.title}: {state.status}{why}")

    def say(self, text: str) -> None:
        self._observer.say(text)

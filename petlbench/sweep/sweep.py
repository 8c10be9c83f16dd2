"""From a sweep to its winners, tested: plan the searches, carry them out, return what came of them."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import optuna

from petlbench.core.errors import InputError, PetlbenchError
from petlbench.core.files import check_writable
from petlbench.core.progress_bars import ShownProgress
from petlbench.core.request import Request
from petlbench.core.units import params_text
from petlbench.results.folder import remove_leftovers
from petlbench.results.stored import dataset_names
from petlbench.results.table import read_study
from petlbench.results.tracking.store import choose_address, sqlite_address
from petlbench.run.options import RunContext, RunOptions
from petlbench.study.executors.job import Executor, ExecutorOptions, open_executor
from petlbench.study.protocol import NO_BASIS, Basis
from petlbench.study.runner import Study, check_data, open_status, run_study
from petlbench.study.status import RunState, StudyObserver, check_study_name, record_runs, study_file
from petlbench.sweep.search import Search, TrialFacts, is_ours, open_study, plan_search, run_search, trial_facts
from petlbench.sweep.spec import SweepCard
from petlbench.sweep.storage import open_storage
from petlbench.sweep.trial_queue import Liveness
from petlbench.sweep.winner import Finalist, choose_winner, describe_winner, iter_winners, run_finalists, write_winner

if TYPE_CHECKING:
    import pandas


class SweepObserver(StudyObserver):
    """Told how a sweep goes on; this one keeps silent."""

    def search(self, search: Search, trials: Sequence[TrialFacts]) -> None:
        """A search begins, with so many trials that have ended before."""

    def trial(self, search: Search, trial: TrialFacts) -> None:
        """A trial ended."""

    def changed(self, state: RunState) -> None:
        """Say how a winner's run ended."""
        if not state.is_open:
            self.say(f"winner's run, {state.title}: {state.outcome}")


class TrialLines(ShownProgress, SweepObserver):
    """Says of each trial what it tried, what came of it, and which is the best so far."""

    def __init__(self) -> None:
        super().__init__()
        self._best: TrialFacts | None = None

    def search(self, search: Search, trials: Sequence[TrialFacts]) -> None:
        """Show a bar for the trials of a search."""
        self._best, count = None, len(search.points)
        for trial in trials:
            self._compare(search, trial)
        self.phase(search.title, count)
        self.advance(len(trials))
        self.say(f"{search.title}: {count} trials, {len(trials)} of them done before; {search.card.title}")

    def trial(self, search: Search, trial: TrialFacts) -> None:
        """Print one line of a trial that ended."""
        self._compare(search, trial)
        self.advance()
        outcome = f"{search.card.objective} {trial.value:.4f}" if trial.value is not None else trial.status
        why = f" ({trial.error})" if trial.error else ""
        best = f"; best {self._best.value:.4f}, trial {self._best.number}" if self._best is not None else ""
        self.say(f"trial {trial.number} of {search.title}: {params_text(trial.params)}: {outcome}{why}{best}")

    def _compare(self, search: Search, trial: TrialFacts) -> None:
        if trial.value is not None:
            self._best = min(self._best or trial, trial, key=lambda each: search.card.rank(each.value, each.params))


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


@dataclass(frozen=True)
class SearchOutcome:
    """What came of one search.

    Args:
        search: The search; None for a combination that cannot be had.
        dataset: The dataset's short name.
        retries: How many trials were lost with their driver and begun again.
        importances: Share of each setting in how the objective varies; empty where ``note`` says why.
        note: Why there are no importances.
        winner: The winner as its file has it; None where there is none.
        runs: The winner's runs, each tested once.
        refusal: Why the combination cannot be had.
    """

    search: Search | None
    method: str
    dataset: str
    trials: Sequence[TrialFacts] = ()
    retries: int = 0
    importances: Mapping[str, float] = field(default_factory=dict)
    note: str = ""
    winner: Mapping[str, Any] | None = None
    runs: Sequence[Mapping[str, Any]] = ()
    refusal: str | None = None

    @property
    def best(self) -> TrialFacts | None:
        """The trial with the best objective."""
        finished = [trial for trial in self.trials if trial.value is not None]
        if self.search is None or not finished:
            return None
        card = self.search.card
        return min(finished, key=lambda trial: card.rank(trial.value, trial.params))

    def preview(self) -> dict[str, Any]:
        """What would be searched, as plain values."""
        search = self.search
        return {
            "method": self.method,
            "dataset": self.dataset,
            "search": search and search.key,
            "trials": len(search.points) if search is not None else 0,
            "space": search and search.space.document(),
            "first": (search and dict(search.points[0])) or None,
            "error": self.refusal,
        }

    def document(self) -> dict[str, Any]:
        """The outcome as plain values."""
        if self.search is None:
            return {"method": self.method, "dataset": self.dataset, "error": self.refusal, "trials": [], "best": None}
        return {
            "sweep": self.search.name,
            "search": self.search.key,
            "method": self.method,
            "dataset": self.dataset,
            "track": self.search.card.track,
            "objective": self.search.card.objective,
            "trials": [asdict(trial) for trial in self.trials],
            "retries": self.retries,
            "best": None if self.best is None else asdict(self.best),
            "importances": dict(self.importances),
            "importances_note": self.note,
            "winner": self.winner,
            "runs": list(self.runs),
        }


class Trials(list[TrialFacts]):
    """The trials of a search."""

    def to_dataframe(self) -> pandas.DataFrame:
        """One row a trial: ``number``, ``status``, ``value`` (the objective), ``run_id``, ``seconds``, its settings."""
        import pandas

        rows = [{**asdict(trial), **trial.params} for trial in self]
        return pandas.DataFrame([{key: value for key, value in row.items() if key != "params"} for row in rows])


@dataclass(frozen=True)
class SweepResult:
    """What came of a sweep.

    Args:
        outcomes: One a method and dataset.
    """

    outcomes: Sequence[SearchOutcome]

    @property
    def best(self) -> dict[str, Any] | None:
        """The winner's settings, ``training`` and ``method``; None where no trial finished.

        Of several searches, theirs by ``METHOD on DATASET``.
        """
        best = {
            f"{each.method} on {each.dataset}": dict(each.winner["best"]) if each.winner is not None else None
            for each in self.outcomes
        }
        return best if len(best) > 1 else next(iter(best.values()))

    @property
    def trials(self) -> Trials:
        """The trials of all searches."""
        return Trials(trial for outcome in self.outcomes for trial in outcome.trials)


def plan_searches(
    sweep: str,
    card: SweepCard,
    requests: Sequence[Request],
    options: RunOptions,
    *,
    study_name: str | None = None,
    timeout: float | None = None,
    basis: Basis = NO_BASIS,
) -> list[SearchOutcome]:
    """Return what each search would be; a method that cannot have one says so, and the others stand.

    Args:
        sweep: Name of the sweep.
        card: The sweep.
        requests: What the user asked for, one method and one dataset each.
        options: Where runs read and write.
        study_name: The study of the winners' runs; None for the sweep's name.
        timeout: Seconds after which a run is stopped.
        basis: What holds where neither the user nor the search says anything.

    Raises:
        InputError: When a name or a setting is wrong, or no method can have its search.
    """
    study_name = check_study_name(study_name or sweep)
    # Trials lie in a folder of their own, and are tracked with all else.
    context = RunContext(replace(options, tracking_uri=choose_address(options.tracking_uri, options.output)))
    searches, labels = [], dataset_names(request.dataset or "" for request in requests)
    for request in requests:
        label = labels[request.dataset or ""]
        try:
            search = plan_search(sweep, card, request, context, study_name=study_name, timeout=timeout, basis=basis)
            searches.append(SearchOutcome(replace(search, label=label), request.method, label))
        except InputError as error:
            if error.kind != "unsupported":
                raise
            searches.append(SearchOutcome(None, request.method, label, refusal=error.message))
    if all(outcome.search is None for outcome in searches):
        raise InputError(str(searches[0].refusal), hint="choose another method or backbone", kind="unsupported")
    return searches


def carry_out(searches: Sequence[SearchOutcome], options: SweepOptions, observer: SweepObserver) -> list[SearchOutcome]:
    """Return what came of each search that `plan_searches` planned, with what was missing carried out.

    Raises:
        InputError: When a dataset is not there, or the storage cannot be opened.
        PetlbenchError: When the user stops it; the same sweep goes on from there.
    """
    planned = [outcome.search for outcome in searches if outcome.search is not None]
    context = planned[0].context
    output = context.options.output
    executor = open_executor(options.executor, options.executor_options, context.catalog)
    if executor.is_local:
        check_data([search.final_run(search.space.settings({}), search.card.seed) for search in planned], context)
    check_writable(output)
    remove_leftovers(output)
    if options.storage is None:
        output.mkdir(parents=True, exist_ok=True)
    for file in {study_file(output, search.study_name) for search in planned}:
        if file.exists():  # a damaged one is told now, and not when all trials are done
            read_study(file)
    storage = open_storage(options.storage or sqlite_address(output / "sweeps.db"), observer.say)
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
    options: SweepOptions

    def carry_out(self, search: Search) -> SearchOutcome:
        """Search, choose the winner on validation, and test it; whatever is done already is not done again.

        Raises:
            KeyboardInterrupt: When the user stops it.
        """
        study = open_study(search, self.storage)
        ended = [trial_facts(trial) for trial in study.get_trials(deepcopy=False) if is_ours(trial)]
        self.observer.search(search, [trial for trial in ended if trial.status not in ("interrupted", "waiting")])

        on_trial, retry = partial(self.observer.trial, search), self.options.retry_failed
        trials, retries = run_search(search, study, self.executor, self.liveness, on_trial, retry_failed=retry)
        shares, note = importances(study)
        outcome = SearchOutcome(search, search.config.method, search.label, trials, retries, shares, note)
        finalists = run_finalists(search, trials, self.executor, self.observer.say)
        winner = choose_winner(search, finalists)
        if winner is None:
            why = "no finalist finished on all seeds" if finalists else f"none of {len(trials)} trials finished"
            self.observer.say(f"{search.title}: no winner, since {why}")
            return outcome
        document = describe_winner(search, trials, finalists, winner)
        file = write_winner(search, document)
        for edge in document["edge"]:
            self.observer.say(
                f"warning: {search.title}: the winner's {edge['name']} = {edge['value']:g} is on the {edge['end']} "
                "edge of its range; widen the range for all methods alike and sweep again"
            )
        self.observer.say(f"{search.title}: trial {document['number']} wins; its settings stand in {file}")
        return replace(outcome, winner=document, runs=self._test(search, winner) if self.options.is_final else [])

    def _test(self, search: Search, winner: Finalist) -> list[dict[str, Any]]:
        """Run the winner's settings on the sweep's seeds as ordinary runs of a study, each of which is tested once."""
        settings, output = search.space.settings(winner.trial.params), search.options.output
        runs = [search.final_run(settings, seed) for seed in search.card.seeds]
        workers, retry = max(1, self.options.executor_options.workers), self.options.retry_failed
        study = Study(search.study_name, runs, search.options, search.timeout, retry, workers)
        status = open_status(study)
        more = {"sweep": {"name": search.name, "title": search.card.title, "winners": self._winners(search)}}
        record_runs(output, search.study_name, [state.entry for state in status.states], kind="sweep", more=more)
        for sentence in run_study(study, status, self.executor, self.observer):
            self.observer.say(sentence)
        return [_run(state) for state in status.states]

    def _winners(self, search: Search) -> dict[str, Any]:
        """All winners of the sweep so far, by method and dataset; a damaged file is named and passed over."""
        winners = []
        for _, winner in iter_winners(search.options.output, search.name):
            if isinstance(winner, InputError):
                self.observer.say(f"warning: {winner.message}; it is left out of the study's file")
            else:
                winners.append(winner)
        names = dataset_names(winner.place for winner in winners)
        titles = [f"{winner.method} on {names[winner.place]}" for winner in winners]
        return {
            title if titles.count(title) == 1 else f"{title}, {winner.search.rpartition('/')[2]}": winner.model_dump()
            for title, winner in zip(titles, winners, strict=True)
        }


def _run(state: RunState) -> dict[str, Any]:
    metrics = state.result.metrics.items() if state.result is not None else ()
    return {
        "seed": state.planned.seed,
        "run_id": state.run_id,
        "status": state.status,
        "error": state.error["message"] if state.error is not None else None,
        "metrics": {split: {name: scores.get(name) for name in ("auc", "accuracy")} for split, scores in metrics},
    }


def importances(study: optuna.Study) -> tuple[dict[str, float], str]:
    """Return how much each setting matters to the objective, by functional ANOVA.

    These are shares by dotted name that add up to 1, the largest first; and why there are none, where there are none.
    """
    finished = study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.COMPLETE,))
    if len(finished) < 4:
        return {}, f"{len(finished)} finished trials say nothing of importance; it takes 4"
    if len({trial.value for trial in finished}) == 1:
        return {}, "the objective is the same in all finished trials"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            evaluator = optuna.importance.FanovaImportanceEvaluator(seed=0)
            shares = optuna.importance.get_param_importances(study, evaluator=evaluator)
    except (ValueError, RuntimeError) as error:
        return {}, f"importance cannot be computed: {error}"
    return {name: float(share) for name, share in shares.items()}, ""

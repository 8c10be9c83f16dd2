"""The race carried out: within some hours, through Optuna and an executor, to finalists and one test."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import optuna

from petlbench.core.errors import InputError, RunError
from petlbench.core.files import check_writable
from petlbench.core.request import Tuned
from petlbench.recommend.costs import Cost, Measurement, again, expected_seconds
from petlbench.recommend.field import Entrant, Field, RaceSampler, Standing
from petlbench.results.folder import remove_leftovers
from petlbench.results.result import Result
from petlbench.results.tracking.store import sqlite_address
from petlbench.study.executors.job import Executor, Job, open_executor
from petlbench.study.executors.retries import run_with_retries
from petlbench.study.runner import Study, check_data, open_status, run_study
from petlbench.study.status import record_runs
from petlbench.sweep.search import TrialFacts, TrialLoop, is_ours, open_study, trial_facts
from petlbench.sweep.storage import open_storage
from petlbench.sweep.sweep import SweepObserver, SweepOptions
from petlbench.sweep.trial_queue import Liveness, TrialQueue
from petlbench.sweep.winner import Finalist, choose_winner, device_seconds, run_finalists


@dataclass(frozen=True)
class Outcome:
    """What came of a race.

    Args:
        field: All entrants.
        standing: The race's state, for what its trials say.
        trials: Its trials, in their order.
        finalists: The best trial of each of the best methods, on several seeds; the best first.
        winner: The finalist that is recommended.
        results: The tested runs: of the winner, and of the next one where that was asked for.
        costs: What a full run takes, by method.
        spent: Seconds that all runs took together.
        too_dear: Methods of which a run takes longer than there is, with its predicted seconds.
    """

    field: Field
    standing: Standing
    trials: Sequence[TrialFacts]
    finalists: Sequence[Finalist]
    winner: Finalist
    results: Sequence[Result]
    costs: dict[str, Cost]
    spent: float
    too_dear: dict[str, float]

    def entrant(self, finalist: Finalist) -> Entrant:
        """Whose finalist it is."""
        return self.standing.entrant(finalist.trial)


@dataclass
class Contest:
    """A race that may take some hours.

    Args:
        field: All entrants.
        standing: What the trials so far say.
        seconds: Seconds that all runs may take together.
        train_images: Number of training images.
        options: How runs are carried out.
        observer: Told what goes on.
        tests_finalists: Whether the second best is tested, too.
    """

    field: Field
    standing: Standing
    seconds: float
    train_images: int
    options: SweepOptions
    observer: SweepObserver
    tests_finalists: bool = False
    costs: dict[str, Cost] = dataclasses.field(default_factory=dict)

    def carry_out(self) -> Outcome:
        """Measure, race, refit, test once; whatever stands from before is not done again.

        Raises:
            InputError: When the dataset is not there, or the hours are too few for one run.
            RunError: When no trial finished.
            KeyboardInterrupt: When the user stops it; the same call goes on from there.
        """
        context, output = self.field.context, self.field.options.output
        executor = open_executor(self.options.executor, self.options.executor_options, context.catalog)
        check_writable(output)
        if executor.is_local:
            check_data([self.field.final_run(Tuned(), self.field.card.seed)], context)
        remove_leftovers(output)
        output.mkdir(parents=True, exist_ok=True)
        storage = open_storage(self.options.storage or sqlite_address(output / "sweeps.db"), self.observer.say)
        with Liveness(output) as liveness:
            study = open_study(self.field, storage)
            self.costs = self._measured(study, executor)
            too_dear = self._too_dear()
            trials = self._race(study, executor, liveness, too_dear)
        best = self.standing.best_trials(trials)
        if not best:
            reasons = {trial.error for trial in trials if trial.error}
            raise RunError(f"none of {len(trials)} trials finished", hint="; ".join(sorted(reasons)), kind="no_trial")
        finalists = run_finalists(self.field, list(best.values()), executor, self.observer.say)
        winner = choose_winner(self.field, finalists)
        if winner is None:
            raise RunError("no finalist finished on all seeds", hint="see the trials' results", kind="no_trial")
        tested = [winner, *(each for each in finalists if each is not winner and self.tests_finalists)]
        results = [result for each in tested for result in self._test(each, executor)]
        tests = sum(result.timing.get("total", 0.0) for result in results)
        spent = self._measuring + device_seconds(self.field, trials, finalists) + tests
        finalists = sorted(finalists, key=lambda each: -(each.mean or 0))
        return Outcome(self.field, self.standing, trials, finalists, winner, results, self.costs, spent, too_dear)

    def _measured(self, study: optuna.Study, executor: Executor) -> dict[str, Cost]:
        measurement = Measurement(self.field, study, executor, self.observer, self.seconds, self.train_images)
        return measurement.costs(self.standing)

    @property
    def _measuring(self) -> float:
        return sum(cost.spent for cost in self.costs.values())

    def _too_dear(self) -> dict[str, float]:
        """Methods of which three runs, a trial and two more seeds, take longer than there is."""
        dear = {m: cost.seconds for m, cost in self.costs.items() if 3 * cost.seconds > self.seconds}
        if dear and len(dear) == len(self.costs):
            least = min(dear.values())
            raise InputError(
                f"--hours {self.seconds / 3600:g}: three runs of the cheapest method are predicted to take "
                f"{3 * least / 3600:.2g} hours",
                hint=f"give --hours {4 * least / 3600:.2g} or more, fewer epochs, or a smaller image size",
                kind="too_few_hours",
            )
        return dear

    def _unaffordable(self, trials: Sequence[TrialFacts]) -> set[str]:
        """Methods for another trial of which the time that is left does not do.

        Of it the two best methods' other seeds and the test are taken off.
        """
        seconds = expected_seconds(self.costs, self.standing, trials)
        used = self._measuring + sum(
            trial.seconds or seconds[self.standing.entrant(trial).candidate.arm] * (trial.status == "running")
            for trial in trials
        )
        card = self.field.card
        best = sorted(self.standing.best_trials(trials).values(), key=lambda trial: -(trial.value or 0.0))
        final = len(card.finalist_seeds) * sum(again(self.standing, trial) for trial in best[: card.finalists])
        return {arm for arm, each in seconds.items() if used + each + final > self.seconds}

    def _race(
        self, study: optuna.Study, executor: Executor, liveness: Liveness, out: Mapping[str, float]
    ) -> list[TrialFacts]:
        folder = self.field.options.output / ".work"
        folder.mkdir(parents=True, exist_ok=True)
        points, retry = self.field.points, self.options.retry_failed
        self.observer.search(self.field, [trial_facts(t) for t in study.get_trials(deepcopy=False) if is_ours(t)])
        with TrialQueue(study, points, liveness, folder / "sweeps.lock", retry_failed=retry) as queue:
            sampler = RaceSampler(self.standing, lambda trials: self._unaffordable(trials).union(out))
            loop = _Timed(self.field, study, queue, self._tell, sampler=sampler)
            run_with_retries(executor, loop.jobs(), loop.on_event)
            return [trial_facts(trial) for trial in queue.trials()]

    def _tell(self, trial: TrialFacts) -> None:
        """Tell of a trial by what it trained, and not by its number among the entrants."""
        entrant = self.standing.entrant(trial)
        params = {"method": entrant.candidate.arm, **entrant.params}
        self.observer.trial(self.field, replace(trial, params=params))

    def _test(self, finalist: Finalist, executor: Executor) -> list[Result]:
        """Train a finalist's settings once more as an ordinary run, which is tested once."""
        entrant = self.standing.entrant(finalist.trial)
        search = entrant.search
        run = search.final_run(search.space.settings(entrant.params), search.card.seed)
        name = re.sub(r"[^A-Za-z0-9._]+", "-", f"recommend-{entrant.candidate.arm}")
        study = Study(name, [run], self.field.options, self.field.timeout, self.options.retry_failed, 1)
        status = open_status(study)
        record_runs(self.field.options.output, name, [state.entry for state in status.states], kind="bench")
        for sentence in run_study(study, status, executor, self.observer):
            self.observer.say(sentence)
        result = status.states[0].result
        return [] if result is None or result.status != "finished" else [result]


@dataclass(kw_only=True)
class _Timed(TrialLoop):
    """Asks for trials until the time is over."""

    sampler: RaceSampler

    def jobs(self) -> Iterator[Job | None]:
        """Ask the race for trials."""

        def prepare(slot: int) -> None:
            self.study.sampler = self.sampler

        while not self.queue.all_used():
            mine = {trial.number for trials in self.under_way.values() for trial in trials}
            # A driver's trial that was lost with it waits to be taken up: it is no reason to end.
            stored = [t for t in self.study.get_trials(deepcopy=False) if is_ours(t) or t.number in mine]
            if self.sampler.has_ended(stored):
                if not mine:
                    return
                yield None
                continue
            trial = self.queue.take(prepare)
            if trial is None:
                yield None
            elif (job := self._job(trial)) is not None:
                yield job

"""Searches: so many trials, each once, whoever works on them and whatever happens; and the settings that win."""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import optuna
import pytest
from optuna.trial import TrialState

from petlbench.core.file_lock import QUESTION
from petlbench.core.request import Tuned
from petlbench.results.folder import RunFolder
from petlbench.results.result import read_result
from petlbench.results.tracking.store import sqlite_address
from petlbench.study.executors.job import Ended, Job
from petlbench.sweep.search import TRIALS, Search, TrialFacts, new_sampler, open_study, run_search
from petlbench.sweep.storage import RetryingStorage, open_storage
from petlbench.sweep.sweep import SweepDriver, SweepObserver, SweepOptions, importances
from petlbench.sweep.trial_queue import Liveness, TrialQueue
from petlbench.sweep.winner import choose_winner, read_winner, run_finalists
from tests.sweep.conftest import GRID, TPE, Scripted

MakeSearch = Callable[..., Search]


@pytest.fixture(scope="session")
def storage(tmp_path_factory: pytest.TempPathFactory) -> RetryingStorage:
    return open_storage(sqlite_address(tmp_path_factory.mktemp("storage") / "sweeps.db"))


def carry_out(search: Search, storage: Any, executor: Scripted, **options: Any) -> list[TrialFacts]:
    with Liveness(search.options.output) as liveness:
        return run_search(search, open_study(search, storage), executor, liveness, lambda trial: None, **options)[0]


def states(search: Search, storage: Any) -> Counter[str]:
    return Counter(trial.state.name for trial in open_study(search, storage).get_trials(deepcopy=False))


def test_a_grid_is_tried_point_by_point(make_search: MakeSearch, storage: Any) -> None:
    search, executor = make_search(GRID), Scripted()
    trials = carry_out(search, storage, executor)
    assert [trial.number for trial in trials] == list(range(6))
    points = {(trial.params["training.lr"], trial.params["training.weight_decay"]) for trial in trials}
    assert points == {(rate, decay) for rate in (1e-4, 0.00316228, 1e-1) for decay in (0, 0.1)}
    assert all(trial.status == "finished" and trial.value is not None for trial in trials)
    assert len(executor.trained) == len(set(executor.trained)) == 6
    assert states(search, storage) == {"COMPLETE": 6}


def test_the_first_trial_is_at_the_published_defaults(make_search: MakeSearch, storage: Any) -> None:
    trials = carry_out(make_search(TPE), storage, Scripted())
    assert trials[0].params == {"training.lr": 1e-3, "training.weight_decay": 1e-4}
    assert len({tuple(trial.params.values()) for trial in trials}) == 6, "no trial is a copy of another"


def test_a_stopped_search_goes_on(make_search: MakeSearch, storage: Any) -> None:
    search = make_search(TPE)
    stops = iter([False, False, True])

    def outcome(job: Job) -> Ended:
        if next(stops):
            raise KeyboardInterrupt
        return Ended("finished")

    first = Scripted(outcome)
    with pytest.raises(KeyboardInterrupt):
        carry_out(search, storage, first)
    asked = {trial.params["training.lr"] for trial in open_study(search, storage).trials if trial.params}
    second = Scripted()
    trials = carry_out(search, storage, second)
    assert len(first.trained) == 2
    assert len(second.trained) == 4
    assert not set(first.trained) & set(second.trained)
    assert asked <= {trial.params["training.lr"] for trial in trials}, "the stopped trial keeps its values"
    assert states(search, storage) == {"COMPLETE": 6, "FAIL": 1}
    assert carry_out(search, storage, Scripted(before=pytest.fail)) == trials


def test_an_interrupted_run_uses_no_ticket_up(make_search: MakeSearch, storage: Any) -> None:
    search = make_search(GRID)
    ends = iter([Ended("interrupted")])
    trials = carry_out(search, storage, Scripted(lambda job: next(ends, Ended("finished"))))
    assert [trial.status for trial in trials] == ["finished"] * 6


def test_failed_trials_count_and_are_said(make_search: MakeSearch, storage: Any) -> None:
    search = make_search(TPE)
    ends = iter([Ended("oom", {"kind": "oom", "message": "out of memory", "hint": ""}), Ended("timeout")])
    trials = carry_out(search, storage, Scripted(lambda job: next(ends, Ended("finished"))))
    assert Counter(trial.status for trial in trials) == {"oom": 1, "timeout": 1, "finished": 4}
    assert trials[0].error == "out of memory"
    assert len(trials) == 6, "the budget counts them"
    again = Scripted()
    trials = carry_out(search, storage, again, retry_failed=True)
    assert [trial.status for trial in trials] == ["finished"] * 6
    assert len(again.trained) == 2
    assert trials[0].params == {"training.lr": 1e-3, "training.weight_decay": 1e-4}


def test_an_undefined_objective_is_a_failure(make_search: MakeSearch, storage: Any) -> None:
    trials = carry_out(make_search(GRID), storage, Scripted(value=lambda job: None))
    assert {trial.status for trial in trials} == {"failed"}
    assert "undefined" in (trials[0].error or "")


def test_settings_that_do_not_go_together_are_a_failed_trial(make_search: MakeSearch, storage: Any) -> None:
    card = {**TPE, "published_first": False, "trials": 3, "space": {"training": {"accumulate": [32, 64]}}}
    trials = carry_out(make_search(card), storage, Scripted())
    assert {trial.status for trial in trials} == {"failed"}
    assert "accumulate" in (trials[0].error or "")


def test_a_longer_search_goes_on_from_a_shorter_one(make_search: MakeSearch, storage: Any) -> None:
    short = carry_out(make_search({**TPE, "trials": 3}), storage, Scripted())
    executor = Scripted()
    long = carry_out(make_search(TPE), storage, executor)
    assert long[:3] == short
    assert len(executor.trained) == 3


def test_changed_settings_are_another_search(make_search: MakeSearch) -> None:
    plans = [
        make_search(TPE),
        make_search(TPE, training={"epochs": 2}),
        make_search({**TPE, "track": "tuned"}),
        make_search({**TPE, "sampler": "random"}),
        make_search({**TPE, "space": {"training": {"lr": [0.1, 0.2]}}}),
        make_search(TPE, method="bitfit"),
    ]
    assert len({search.key for search in plans}) == len(plans)
    assert make_search({**TPE, "trials": 60}).key == plans[0].key


def test_what_another_search_has_run_is_not_trained_again(make_search: MakeSearch, storage: Any) -> None:
    carry_out(make_search(GRID), storage, Scripted())
    executor = Scripted()
    trials = carry_out(make_search({**GRID, "objective": "val.accuracy"}), storage, executor)
    assert executor.trained == []
    assert {trial.value for trial in trials} == {0.5}


@pytest.mark.parametrize(("trials", "at_random"), [(6, 4), (18, 6), (60, 10)])
def test_a_third_of_a_short_search_is_drawn_at_random(
    trials: int, at_random: int, make_search: MakeSearch, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[dict[str, Any]] = []
    monkeypatch.setattr(optuna.samplers, "TPESampler", lambda **given: made.append(given))
    new_sampler(make_search({**TPE, "trials": trials}).card, 0)
    assert [given["n_startup_trials"] for given in made] == [at_random]


def test_a_final_run_is_the_studys_on_the_dataset_that_was_asked_for(make_search: MakeSearch) -> None:
    search = make_search(GRID)
    planned = search.final_run(Tuned(), search.config.seed)
    assert (planned.method, planned.dataset, planned.seed) == ("linear", "digits", search.config.seed)


def test_nothing_left_to_search_is_refused(make_search: MakeSearch) -> None:
    with pytest.raises(Exception, match="nothing is left to search"):
        make_search(TPE, training={"lr": 1e-3, "weight_decay": 0})


class TestPruning:
    @pytest.mark.parametrize("pruner", ["median", pytest.param("hyperband", marks=pytest.mark.slow)])
    def test_hopeless_trials_end_early(self, make_search: MakeSearch, storage: Any, pruner: str) -> None:
        card = {**TPE, "sampler": "random", "trials": 8, "pruner": pruner}
        search, executor = make_search(card, training={"epochs": 4}), Scripted()
        trials = carry_out(search, storage, executor)
        assert {trial.status for trial in trials} == {"finished", "pruned"}
        assert len(executor.epochs) < 8 * 4
        assert all(trial.value is None for trial in trials if trial.status == "pruned")

    def test_without_a_pruner_none_does(self, make_search: MakeSearch, storage: Any) -> None:
        search = make_search(TPE, training={"epochs": 4})
        assert {trial.status for trial in carry_out(search, storage, Scripted())} == {"finished"}
        values = open_study(search, storage).trials[0].intermediate_values
        assert list(values) == [1, 2, 3, 4]


class TestTwoDrivers:
    @pytest.mark.parametrize("card", [GRID, {**TPE, "trials": 12}])
    def test_share_one_search(
        self, make_search: MakeSearch, tmp_path: Path, storage: Any, card: dict[str, Any]
    ) -> None:
        search = make_search(card)
        executors = [Scripted(before=lambda job: threading.Event().wait(0.02)) for _ in range(2)]  # type: ignore[arg-type,return-value]
        found: list[list[TrialFacts]] = []

        def drive(executor: Scripted) -> None:
            found.append(carry_out(search, open_storage(storage.url), executor))

        threads = [threading.Thread(target=drive, args=(executor,)) for executor in executors]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(timeout=60)
        trained = executors[0].trained + executors[1].trained
        assert len(trained) == len(set(trained)) == len(search.points)
        assert found[0] == found[1]
        assert all(executor.trained for executor in executors)
        assert states(search, storage)["COMPLETE"] == len(search.points)

    def test_a_run_in_other_hands_is_waited_for(self, make_search: MakeSearch, storage: Any) -> None:
        search = make_search({**GRID, "trials": 2})
        job = search.trial_job(search.configure(search.space.settings(search.points[0]), 0))
        folder = RunFolder(job.options.output, job.config.run_id)
        other, is_held = Scripted(), threading.Event()

        def work() -> None:
            with folder.locked():
                is_held.set()
                threading.Event().wait(3 * QUESTION)  # for longer than a lock is waited for
                other._write(job, Ended("finished"), folder)

        thread = threading.Thread(target=work)
        thread.start()
        is_held.wait(10)
        executor = Scripted()
        trials = carry_out(search, storage, executor)
        thread.join()
        assert [trial.status for trial in trials] == ["finished", "finished"]
        assert job.config.run_id not in executor.trained


class TestTickets:
    @pytest.fixture
    def study(self, make_search: MakeSearch, storage: Any) -> optuna.Study:
        return open_study(make_search(GRID), storage)

    @pytest.fixture
    def open_tickets(self, study: optuna.Study, tmp_path: Path) -> Callable[[Liveness], TrialQueue]:
        return lambda liveness: TrialQueue(study, [{}] * 3, liveness, tmp_path / "lock")

    def test_those_of_a_dead_driver_are_used_again(
        self, open_tickets: Callable[[Liveness], TrialQueue], study: optuna.Study, tmp_path: Path
    ) -> None:
        dead, alive = Liveness(tmp_path), Liveness(tmp_path)
        dead._lock.acquire()
        with alive:
            theirs = open_tickets(dead).take(lambda ticket: None)
            assert theirs is not None
            theirs.suggest_float("x", 0, 1)
            tickets = open_tickets(alive)
            taken = [tickets.take(lambda ticket: None) for _ in range(3)]
            assert taken[2] is None, "the third is in the other's hands"
            dead._lock.release()  # as the system does when a process dies
            again = tickets.take(lambda ticket: None)
            assert again is not None
            assert again.suggest_float("x", 0, 1) == theirs.params["x"]
            tickets.end(again, "finished", 1.0)
            tickets.end(theirs, "finished", 2.0)  # a driver that was given up too early
            values = [trial.value for trial in study.trials if trial.state == TrialState.COMPLETE]
            assert values == [1.0]

    def test_made_twice_they_count_once(
        self, open_tickets: Callable[[Liveness], TrialQueue], study: optuna.Study, tmp_path: Path
    ) -> None:
        for _ in range(2):  # as on two machines without a common disk
            for ticket in range(3):
                study.add_trial(optuna.trial.create_trial(state=TrialState.WAITING, user_attrs={"ticket": ticket}))
        with Liveness(tmp_path) as liveness:
            tickets = open_tickets(liveness)
            while (trial := tickets.take(lambda ticket: None)) is not None:
                tickets.end(trial, "finished", 1.0)
            assert tickets.all_used()
            assert Counter(trial.state.name for trial in study.trials) == {"COMPLETE": 3, "FAIL": 3}
            assert tickets.retries == 0

    def test_a_trial_that_gives_no_sign_of_life_is_given_up(
        self,
        open_tickets: Callable[[Liveness], TrialQueue],
        study: optuna.Study,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        elsewhere = Liveness(tmp_path)
        elsewhere.mark = "another-machine:/gone"
        assert open_tickets(elsewhere).take(lambda ticket: None) is not None
        with Liveness(tmp_path) as liveness:
            tickets = open_tickets(liveness)
            assert tickets.take(lambda ticket: None) is not None
            assert tickets.take(lambda ticket: None) is not None
            assert tickets.take(lambda ticket: None) is None
            monkeypatch.setattr(study._storage, "_get_stale_trial_ids", lambda study_id: [study.trials[0]._trial_id])
            assert tickets.take(lambda ticket: None) is not None


class TestPresence:
    def test_is_known_while_it_lasts(self, tmp_path: Path) -> None:
        mine = Liveness(tmp_path)
        with Liveness(tmp_path) as other:
            assert not mine.is_gone(other.mark)
        assert mine.is_gone(other.mark)
        assert not mine.is_gone("elsewhere:/nowhere.lock"), "nothing is known of another machine"

    def test_a_lock_that_nobody_holds_is_that_of_a_killed_driver(self, tmp_path: Path) -> None:
        killed = Liveness(tmp_path)
        killed._file.touch()
        assert Liveness(tmp_path).is_gone(killed.mark)


class TestFinals:
    CARD: ClassVar[dict[str, Any]] = {**GRID, "finalists": 2, "finalist_seeds": [0, 1, 2]}

    def sweep(self, search: Search, storage: Any, executor: Scripted, **options: Any) -> Any:
        with Liveness(search.options.output) as liveness:
            driver = SweepDriver(storage, executor, liveness, SweepObserver(), SweepOptions(**options))
            return driver.carry_out(search)

    def test_the_best_mean_wins_and_is_tested_once_a_seed(self, make_search: MakeSearch, storage: Any) -> None:
        search, executor = make_search(self.CARD), Scripted()
        outcome = self.sweep(search, storage, executor)
        assert outcome.winner["best"]["training"]["lr"] == pytest.approx(0.00316, rel=0.01)
        assert outcome.winner["best"]["training"]["weight_decay"] == 0
        assert outcome.winner["edge"] == []
        assert [len(one["runs"]) for one in outcome.winner["finalists"]] == [3, 3]
        assert outcome.winner["value"] == outcome.winner["finalists"][0]["mean"]
        # Six trials, two finalists on two seeds more, two seeds of the winner.
        assert Counter(executor.trained).total() == 6 + 4 + 2
        assert [run["status"] for run in outcome.runs] == ["finished"] * 2
        assert all(run["metrics"]["test"]["auc"] == 0.7 for run in outcome.runs)
        best = read_winner(search.options.output, search.name, search.config, None)
        assert {"training": best.training, "method": best.method} == outcome.winner["best"]
        again = Scripted(before=pytest.fail)
        assert self.sweep(search, storage, again).document() == outcome.document()

    def test_no_trial_and_no_finalist_has_a_test_metric(self, make_search: MakeSearch, storage: Any) -> None:
        search = make_search(self.CARD)
        revealed: list[bool] = []
        self.sweep(
            search, storage, Scripted(before=lambda job: revealed.append(job.options.reveal_test)), is_final=False
        )
        assert revealed == [False] * 10
        for file in (search.options.output / TRIALS).glob("*/result.json"):
            with pytest.raises(KeyError):
                read_result(file.parent).metrics["test"]
        assert not list(search.options.output.glob("linear-*"))

    def test_the_study_says_what_it_consists_of(self, make_search: MakeSearch, storage: Any) -> None:
        search = make_search(self.CARD)
        outcome = self.sweep(search, storage, Scripted())
        document = json.loads((search.options.output / "studies" / "test.json").read_text())
        assert document["kind"] == "sweep"
        assert [run["run_id"] for run in document["runs"]] == [run["run_id"] for run in outcome.runs]
        assert document["sweep"]["winners"]["linear on digits"]["value"] == outcome.winner["value"]

    def test_a_winner_on_the_edge_is_flagged(self, make_search: MakeSearch, storage: Any) -> None:
        space = {"training": {"lr": {"low": 1e-5, "high": 1e-3, "log": True, "points": 3}, "weight_decay": [0, 1]}}
        outcome = self.sweep(make_search({**GRID, "space": space}), storage, Scripted(), is_final=False)
        assert outcome.winner["edge"] == [{"name": "training.lr", "value": 1e-3, "end": "highest"}]

    def test_the_least_loss_wins(self, make_search: MakeSearch, storage: Any) -> None:
        search = make_search({**GRID, "objective": "val.loss"})
        assert open_study(search, storage).direction == optuna.study.StudyDirection.MINIMIZE
        outcome = self.sweep(search, storage, Scripted(), is_final=False)
        assert outcome.winner["number"] == 0, "of equal ones the earliest"

    def test_settings_that_fail_on_a_seed_win_nothing(self, make_search: MakeSearch, storage: Any) -> None:
        search = make_search(self.CARD)
        trials = carry_out(search, storage, Scripted())
        best = max(trials, key=lambda trial: trial.value or 0)

        def outcome(job: Job) -> Ended:
            is_best = job.config.training.lr == best.params["training.lr"]
            return Ended("oom" if is_best and job.config.training.weight_decay == 0 else "finished")

        finalists = run_finalists(search, trials, Scripted(outcome), lambda line: None)
        assert finalists[0].trial == best
        assert finalists[0].mean is None
        winner = choose_winner(search, finalists)
        assert winner is not None
        assert winner.trial == finalists[1].trial

    def test_where_all_fail_nobody_wins(self, make_search: MakeSearch, storage: Any) -> None:
        outcome = self.sweep(make_search(self.CARD), storage, Scripted(lambda job: Ended("failed")))
        assert outcome.winner is None
        assert outcome.best is None
        assert outcome.runs == ()
        assert outcome.importances == {}
        assert "0 finished trials" in outcome.note


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
def test_importances_name_what_matters_and_plots_read_the_storage(make_search: MakeSearch, storage: Any) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    search = make_search({**TPE, "trials": 20})
    carry_out(search, storage, Scripted())
    study = optuna.load_study(study_name=search.key, storage=storage.url)
    shares, note = importances(study)
    assert note == ""
    assert sum(shares.values()) == pytest.approx(1)
    assert max(shares, key=shares.__getitem__) == "training.lr"
    for plot in ("plot_optimization_history", "plot_param_importances", "plot_slice", "plot_contour"):
        axes = getattr(optuna.visualization.matplotlib, plot)(study)
        assert axes is not None

"""From grids of runs to the summaries of studies: plan, carry out those that are missing, each once, and sum up."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

from petlbench.core.catalog import Catalog
from petlbench.core.environment import usable_cores
from petlbench.core.errors import InputError, PetlbenchError
from petlbench.core.files import check_writable
from petlbench.data.dataset import open_dataset
from petlbench.metrics.efficiency import REFERENCE
from petlbench.results.folder import RunFolder, readable_result, remove_leftovers
from petlbench.results.result import Result
from petlbench.results.table import read_study
from petlbench.results.tracking.backfill import track_study
from petlbench.run.data import check_apart
from petlbench.run.options import RunContext, RunOptions
from petlbench.run.record import code_digests, differences
from petlbench.study.executors.job import (
    Action,
    Ended,
    Event,
    Executor,
    ExecutorOptions,
    Job,
    PhaseBegan,
    Started,
    open_executor,
)
from petlbench.study.grid import Grid
from petlbench.study.planned_run import PlannedRun
from petlbench.study.status import (
    FAILED,
    RunState,
    StudyObserver,
    StudyStatus,
    check_study_name,
    record_runs,
    study_file,
)
from petlbench.study.summary import Summary, summarize

# What two results of one dataset must depend on alike.
_DATA = {"data": "states of the images", "split": "splits", "weights": "weights of the backbone"}


@dataclass(frozen=True)
class Study:
    """What is to be carried out.

    Args:
        timeout: Seconds after which a run is stopped; None for no limit.
        retry_failed: Whether runs that failed are tried again, once.
        workers: How many runs are carried out at the same time.
        page: The program that writes the study's page and figures for MLflow; empty for none.
    """

    name: str
    plans: Sequence[PlannedRun]
    options: RunOptions
    timeout: float | None = None
    retry_failed: bool = False
    workers: int = 1
    page: Sequence[str] = ()


def plan_runs(name: str, grids: Sequence[Grid], options: RunOptions) -> dict[str, list[PlannedRun]]:
    """Return the runs of each study by its name; grids of one label are studies with a number behind their name.

    A method that stands in several grids, with other settings, is one cell in each of their studies.

    Raises:
        InputError: When a name is unknown, or a setting is unknown or out of bounds.
    """
    check_study_name(name)
    catalog = Catalog(options.catalogs)
    labelled = [f"{name}.{grid.label}" if grid.label else name for grid in grids]
    names = [
        f"{own}.{labelled[:place].count(own) + 1}" if labelled.count(own) > 1 else own
        for place, own in enumerate(labelled)
    ]
    return {title: grid.plans(catalog, options.data_root) for title, grid in zip(names, grids, strict=True)}


def carry_out(
    studies: Sequence[Study],
    executor: str,
    options: ExecutorOptions,
    observer: StudyObserver,
) -> list[Summary]:
    """Return what each of some studies has come to, with what was missing carried out by an executor of that name.

    Raises:
        InputError: When a dataset is not there, or finished results were made by other code.
        PetlbenchError: When the user stops it; the same studies go on from there.
    """
    context = RunContext(studies[0].options)
    opened = open_executor(executor, options, context.catalog)
    if opened.is_local:
        check_data([run for study in studies for run in study.plans], context)
    return [_carry_out(study, opened, observer) for study in studies]


def check_data(runs: Sequence[PlannedRun], context: RunContext) -> None:
    """Open each dataset once: a study of days should not learn on its last day that one is not there.

    Raises:
        InputError: When a dataset is not there or wrong, or results would go into its folder.
    """
    for run in runs:
        if run.config is not None:
            check_apart(run.config, context.options)
    settings = {run.dataset: run.config.dataset_settings for run in runs if run.config is not None}
    for dataset, values in settings.items():
        open_dataset(dataset, catalog=context.catalog, data_root=context.options.data_root, settings=values)


def _carry_out(study: Study, executor: Executor, observer: StudyObserver) -> Summary:
    status = open_status(study)
    observer.begin(status, study.workers)
    try:
        notes = run_study(study, status, executor, observer)
        output = study.options.output
        runs = read_study(study_file(output, study.name))["runs"]
        run_ids = dict.fromkeys(run["run_id"] for run in runs if run.get("run_id") is not None)
        results = [readable_result(output, run_id) for run_id in run_ids]
        # The study's table, and the runs that MLflow lacks; of the study is whatever was ever asked of it.
        stored, uri = list(filter(None, results)), study.options.tracking_uri
        tracked = track_study(uri, output, study.name, stored, page=study.page, progress=observer)
        if tracked.address:
            observer.say(f"study {study.name} in MLflow: {tracked.address}")
    except KeyboardInterrupt as error:
        message = f"stopped: {status.counts()['finished']} of {len(status.states)} runs are finished"
        raise PetlbenchError(message, hint="the same command goes on from here", kind="interrupted") from error
    summary = summarize(study.name, status, study.options.output, notes)
    return replace(summary, is_tracked=tracked.error is None)


def open_status(study: Study) -> StudyStatus:
    """Return how far a study is, as its results on the disk say; a run whose result is damaged counts as failed."""
    return StudyStatus([_state_of(planned, study.options.output) for planned in study.plans])


def run_study(study: Study, status: StudyStatus, executor: Executor, observer: StudyObserver) -> list[str]:
    """Return what the user should know of a study's results, one sentence each, with all of it carried out.

    Finished runs are left alone, interrupted ones go on, and failed ones are left alone unless they are to be tried
    again. Runs that another process works on are waited for. The status, as `open_status` gave it, is kept up to date.

    Raises:
        InputError: When finished results were made by other code, and neither ``rerun`` nor ``accept`` is set.
        KeyboardInterrupt: When the user stops it; the study's file is up to date then.
    """
    check_writable(study.options.output)
    study.options.output.mkdir(parents=True, exist_ok=True)
    remove_leftovers(study.options.output)
    if not (study.options.rerun or study.options.accept):
        _check_code(status.states, Catalog(study.options.catalogs))
    return _Driver(study, status, executor, observer).carry_out()


def _state_of(planned: PlannedRun, output: Path) -> RunState:
    if planned.config is None:
        kind = "exception" if planned.is_defect else "unsupported"
        error = {"kind": kind, "message": planned.refusal or "", "hint": ""}
        return RunState(planned, "failed" if planned.is_defect else "unsupported", error=error)
    try:
        result = RunFolder(output, planned.config.run_id).result()
    except InputError as damage:  # the others are not to go down with it
        error = {"kind": damage.kind, "message": damage.message, "hint": damage.hint}
        return RunState(planned, "failed", error=error)
    if result is None:
        return RunState(planned)
    return RunState(planned, result.status, result, result.error)


@dataclass
class _Driver:
    study: Study
    status: StudyStatus
    executor: Executor
    observer: StudyObserver
    queue: deque[RunState] = field(default_factory=deque)
    by_run: dict[str, RunState] = field(default_factory=dict)

    def carry_out(self) -> list[str]:
        configs = [state.planned.config for state in self.status.states if state.planned.config is not None]
        threads = max((config.threads for config in configs if config.device == "cpu"), default=0)
        if self.study.workers * threads > (cores := usable_cores()):
            self.observer.say(
                f"{self.study.workers} workers of {threads} threads each share {cores} cores: --threads "
                f"{max(1, cores // self.study.workers)} would be faster (threads are part of a run's identity)"
            )
        for state in self.status.states:
            if self._is_due(state):
                state.status, state.error = "waiting", None
        self.by_run = {state.run_id: state for state in self.status.states if state.run_id is not None}
        # Two combinations may mean the same run; it is carried out once.
        waiting = {state.run_id: state for state in self.status.states if state.status == "waiting"}
        # Dataset by dataset, and the reference of PME before the rest of them.
        turns = {name: number for number, name in enumerate(self.status.datasets)}
        self.queue.extend(
            sorted(waiting.values(), key=lambda each: (turns[each.planned.dataset], each.planned.method != REFERENCE))
        )
        if replaced := self._record(self.status.states):
            self.observer.say(
                f"study {self.study.name}: {len(replaced)} of its runs had another config until now; their results "
                "stay in the output folder, and the study's table shows the new ones"
            )
        try:
            if self.queue:
                self.executor.run(self._jobs(), self._on)
        finally:
            for state in self.status.states:  # open ones: the user stops the study
                if state.is_open:
                    state.result = self._stored(state)
            self._record(self.status.states)
        return _mixtures(self.status.states)

    def _is_due(self, state: RunState) -> bool:
        if state.run_id is None or state.status == "unsupported":
            return False
        if state.status in FAILED:
            return self.study.retry_failed or self.study.options.rerun
        return state.status != "finished" or self._reads_finished

    @property
    def _reads_finished(self) -> bool:
        """Whether finished runs are carried out once more, be it to see that they stand."""
        return self.study.options.rerun or self.study.options.verify

    def _jobs(self) -> Iterator[Job | None]:
        """Hand out runs until all have ended; None while there are only such that others work on."""
        while any(state.is_open for state in self.by_run.values()):
            yield self._next_job()

    def _next_job(self) -> Job | None:
        for _ in range(len(self.queue)):
            state = self.queue.popleft()
            if self._has_ended_elsewhere(state):
                self._settle(state)
            elif RunFolder(self.study.options.output, state.run_id or "").is_locked:
                self._put_back(state)
            else:
                return self._job(state)
        return None

    def _has_ended_elsewhere(self, state: RunState) -> bool:
        before, now = state.result, self._stored(state)
        if now is None or now.status == "interrupted":
            return False
        is_new = before is None or (now.status, now.timing) != (before.status, before.timing)
        return is_new or (now.status == "finished" and not self._reads_finished)

    def _job(self, state: RunState) -> Job:
        planned = state.planned
        if planned.config is None:
            raise ValueError(f"{state.title} cannot be carried out")
        group = f"{planned.method} on {planned.config.dataset_name}"
        options = replace(self.study.options, experiment=self.study.name, group=group, origin=planned.origin)
        return Job(planned.config, options, self.study.timeout)

    def _on(self, job: Job, event: Event) -> Action:
        state = self.by_run[job.config.run_id]
        if isinstance(event, Ended):
            if event.status == "busy":
                self._put_back(state)
            else:
                self._settle(state, event)
            return Action.GO_ON
        state.status = "running"
        if isinstance(event, Started):
            state.phase, state.epoch = "starting", 0
        elif isinstance(event, PhaseBegan):
            state.phase = event.name
        else:
            state.epoch = int(event.entry["epoch"])
        self.observer.changed(state)
        return Action.GO_ON

    def _put_back(self, state: RunState) -> None:
        is_news = state.status != "elsewhere"
        state.status = "elsewhere"
        self.queue.append(state)
        if is_news:
            self.observer.changed(state)

    def _settle(self, state: RunState, event: Ended | None = None) -> None:
        """Take down how a run ended: as its result on the disk says, and where there is none, as the executor does."""
        result = self._stored(state)
        if event is None or (result is not None and result.status == event.status):
            state.result = result
            state.status, state.error = (result.status, result.error) if result is not None else ("failed", None)
        elif event.status == "finished":
            message = f"{state.run_id} ended, and its result is not in {self.study.options.output}"
            state.status, state.error = "failed", {"kind": "no_result", "message": message, "hint": "is it one disk?"}
        elif event.status != "busy":
            state.result, state.status, state.error = result, event.status, event.error
        for other in self.status.states:  # another combination that means the same run
            if other is not state and other.run_id == state.run_id is not None:
                other.status, other.result, other.error = state.status, state.result, state.error
        try:
            self._record([state])
        except (OSError, InputError) as error:  # the runs go on; the file is written anew when the study ends
            file = study_file(self.study.options.output, self.study.name)
            self.observer.say(f"{file} cannot be written now: {error}")
        self.observer.changed(state)

    def _stored(self, state: RunState) -> Result | None:
        return readable_result(self.study.options.output, state.run_id) if state.run_id else None

    def _record(self, states: Sequence[RunState]) -> list[Mapping[str, Any]]:
        return record_runs(self.study.options.output, self.study.name, [state.entry for state in states])


def _check_code(states: Sequence[RunState], catalog: Catalog) -> None:
    """See that finished results were made by this code, so that a table does not mix two versions of it.

    Data and weights are not read for that: a run that is carried out checks its own, and `_mixtures` compares them all.
    """
    now = cache(lambda method: code_digests(method, catalog))
    stale = {}
    for state, digests in _digests(states):
        if changed := differences(digests, {**digests, **now(state.planned.method)}):
            stale[state.title] = changed
    if stale:
        first, changed = next(iter(stale.items()))
        what = f"such as {first}: {'; '.join(changed)}"
        message = f"{len(stale)} finished results of this study rest on something else, {what}"
        hint = "--rerun runs all of them again, --accept takes them as they are"
        raise InputError(message, hint=hint, kind="stale_result")


def _mixtures(states: Sequence[RunState]) -> list[str]:
    """Return a sentence for each dataset and kind of which finished results do not depend on the same."""
    values: dict[tuple[str, str], set[str]] = {}
    for state, digests in _digests(states):
        for name in _DATA:
            values.setdefault((state.planned.dataset, name), set()).add(str(digests.get(name)))
    counts = {key: len(different) for key, different in values.items() if len(different) > 1}
    sentences = [f"{dataset}: the results rest on {n} different {_DATA[name]}" for (dataset, name), n in counts.items()]
    if (count := len({str(digests.get("packages")) for _, digests in _digests(states)})) > 1:
        sentences.append(f"the results were made with {count} different sets of package versions")
    return sentences


def _digests(states: Sequence[RunState]) -> list[tuple[RunState, dict[str, Any]]]:
    finished = [state for state in states if state.status == "finished"]
    return [(state, state.result.digests) for state in finished if state.result is not None]

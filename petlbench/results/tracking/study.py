"""A study as MLflow shows it: an experiment, a parent for each method and dataset, and the table."""

from __future__ import annotations

import json
import logging
import time
from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from petlbench.core.progress import Progress
from petlbench.results.result import Result
from petlbench.results.scalars import final_metrics
from petlbench.results.tracking.backfill import Ended, Tracked, group_of, send_missing
from petlbench.results.tracking.store import KIND_TAG, PARENT_TAG, Store
from petlbench.results.tracking.study_queue import Courier, StoreAwayError, open_courier
from petlbench.results.tracking.study_table import as_csv, as_markdown, is_one_setting, spread, study_rows

if TYPE_CHECKING:
    from mlflow.entities import Run

__all__ = ["track_study"]

_PATIENCE = 45.0
_TRIALS = "trials"
_TABLE = "table"
_NOTE_TAG = "mlflow.note.content"  # MLflow's pages show it as Markdown

_logger = logging.getLogger("petlbench")


def track_study(
    uri: str | None,
    output: Path,
    study_name: str,
    results: Sequence[Result],
    *,
    trials: Sequence[Result] = (),
    patience: float = _PATIENCE,
    progress: Progress | None = None,
) -> Tracked:
    """Bring the experiment of a study up to date when the study has ended; doing it again changes nothing.

    Runs that the experiment lacks, because they were finished before or the store was away, are sent; each parent gets
    mean and standard deviation over its seeds; and the study's table stands in a run named ``table``, as CSV, Markdown,
    JSON and a table of MLflow's. A store that stays away costs a warning and raises nothing.

    Args:
        uri: The store's address as `petlbench.results.tracking.open_tracker` takes it.
        output: Folder of all results.
        study_name: The study, and the experiment.
        results: Its runs.
        trials: The trials of its searches, whose folders lie in ``trials``.
        patience: Seconds for which a store that is away is waited for.
        progress: Told how far it is.

    Returns:
        What was sent, what was there, and what could not be sent and why.

    Raises:
        InputError: When MLflow knows no such address.
    """
    courier = open_courier(uri, output, patience=patience)
    if courier is None:
        return Tracked("none")
    ended = [Ended(one, output / one.run_id, study_name, group=group_of(one.config)) for one in results]
    ended += [
        Ended(one, output / _TRIALS / one.run_id, study_name, kind="trial", group=group_of(one.config))
        for one in trials
    ]
    tracked = send_missing(courier, ended, progress or Progress())
    if tracked.error is None:
        tracked.error = _summarise(courier, study_name, results, trials)
    if tracked.error is not None:
        _logger.warning(
            "the MLflow store %s does not have all of study '%s' (%s); the results on disk are complete, and the same "
            "command, or `petlbench results track`, sends what it lacks",
            courier.place,
            study_name,
            tracked.error,
        )
    return tracked


def _summarise(courier: Courier, name: str, results: Sequence[Result], trials: Sequence[Result]) -> str | None:
    """Fill the parents and write the table; returns what went wrong."""
    store = courier.store
    try:
        experiment_id = courier.bring(lambda: store.experiment(name), otherwise="")
        for group in dict.fromkeys(group_of(one.config) for one in (*results, *trials)):
            figures = _figures([one for one in results if group_of(one.config) == group])
            figures |= _trial_figures([one for one in trials if group_of(one.config) == group])
            courier.bring(partial(_fill, store, experiment_id, group, figures), otherwise=None)
        if rows := study_rows(results):
            courier.bring(lambda: _write_table(store, experiment_id, name, rows), otherwise=None)
    except StoreAwayError as error:
        return str(error)
    return courier.refusal


def _figures(results: Sequence[Result]) -> dict[str, float]:
    """How the runs of a group ended, and mean and deviation of what the finished ones reached."""
    found = {f"runs_{status}": float(count) for status, count in Counter(one.status for one in results).items()}
    finished = [one for one in results if one.status == "finished"]
    if not is_one_setting(finished):
        return found
    known = [final_metrics(one) for one in finished]
    for name in dict.fromkeys(name for metrics in known for name in metrics):
        mean, deviation = spread(metrics.get(name) for metrics in known)
        values = {f"{name}_mean": mean, f"{name}_std": deviation}
        found |= {key: value for key, value in values.items() if value is not None}
    return found


def _trial_figures(trials: Sequence[Result]) -> dict[str, float]:
    found = {f"trials_{status}": float(count) for status, count in Counter(one.status for one in trials).items()}
    reached = [metrics["best_val_auc"] for metrics in map(final_metrics, trials) if "best_val_auc" in metrics]
    return {**found, "trials_best_val_auc": max(reached)} if reached else found


def _fill(store: Store, experiment_id: str, group: str, figures: dict[str, float]) -> None:
    """Give a parent its figures, and bring together what a race has made two parents of."""
    method, _, dataset = group.partition(" on ")
    parent = store.parent(experiment_id, group, {"method": method, "dataset": dataset})
    for other in store.parents(experiment_id, group)[1:]:
        for run in store.runs(experiment_id):
            if run.data.tags.get(PARENT_TAG) == other.info.run_id:
                store.set_tags(run.info.run_id, {PARENT_TAG: parent})
        store.client.delete_run(other.info.run_id)
    known = store.client.get_run(parent)
    news = {name: value for name, value in figures.items() if known.data.metrics.get(name) != value}
    store.add_metrics(parent, {0: news}, when=int(time.time() * 1000))
    _close(store, known)


def _write_table(store: Store, experiment_id: str, name: str, rows: list[dict[str, object]]) -> None:
    found = store.runs(experiment_id, kind=_TABLE)
    run = found[0] if found else store.create(experiment_id, name=_TABLE, tags={KIND_TAG: _TABLE})
    mlflow_run_id, markdown = run.info.run_id, as_markdown(rows)
    store.put_table(mlflow_run_id, rows, "table.json")
    texts = {"csv": as_csv(rows), "md": markdown, "json": json.dumps(rows, indent=1, allow_nan=False) + "\n"}
    for ending, text in texts.items():
        store.client.log_text(mlflow_run_id, text, f"study/{name}.{ending}")
    store.set_tags(mlflow_run_id, {_NOTE_TAG: markdown})
    _close(store, run)


def _close(store: Store, run: Run) -> None:
    if run.info.status != "FINISHED":
        store.client.set_terminated(run.info.run_id, "FINISHED")

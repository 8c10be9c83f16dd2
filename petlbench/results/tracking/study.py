"""A study as MLflow shows it: an experiment, a parent for each method and dataset, and the table."""

from __future__ import annotations

import json
import logging
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from petlbench.core.progress import Progress
from petlbench.results.names import dataset_names
from petlbench.results.result import Result
from petlbench.results.stored import Stored, final_metrics
from petlbench.results.table import Repeats, Results, with_scores
from petlbench.results.tracking.backfill import Ended, Tracked, group_of, send_missing
from petlbench.results.tracking.send_queue import SendQueue, StoreAwayError, open_queue
from petlbench.results.tracking.store import KIND_TAG, PARENT_TAG, Store

if TYPE_CHECKING:
    from mlflow.entities import Run

__all__ = ["track_study"]

_PATIENCE = 45.0
_TRIALS = "trials"
_TABLE = "table"
_NOTE_TAG = "mlflow.note.content"  # MLflow's pages show it as Markdown
# Figures of the table, and whether their deviation stands beside them.
_FIGURES = {
    "test_auc": True,
    "test_accuracy": True,
    "learnable_parameters": False,
    "learnable_ratio": False,
    "memory_allocated": False,
    "ppe": True,
    "pme": True,
    "seconds_total": False,
}

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
        uri: The store's address as `petlbench.results.tracking.send_queue.open_queue` takes it.
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
    queue = open_queue(uri, output, patience=patience)
    if queue is None:
        return Tracked("none")
    scored = with_scores(results, output)
    ended = [Ended(run, output / run.run_id, study_name) for run in scored]
    ended += [Ended(run, output / _TRIALS / run.run_id, study_name, kind="trial") for run in trials]
    tracked = send_missing(queue, ended, progress or Progress())
    if tracked.error is None:
        tracked.error = _summarise(queue, study_name, scored, trials)
    if tracked.error is not None:
        _logger.warning(
            "the MLflow store %s does not have all of study '%s' (%s); the results on disk are complete, and the same "
            "command, or `petlbench results track`, sends what it lacks",
            queue.place,
            study_name,
            tracked.error,
        )
    return tracked


def _summarise(queue: SendQueue, name: str, results: Sequence[Result], trials: Sequence[Result]) -> str | None:
    """Fill the parents and write the table; returns what went wrong."""
    store = queue.store
    try:
        experiment_id = queue.carry_out(lambda: store.experiment(name), otherwise="")
        for group in dict.fromkeys(group_of(run.config) for run in (*results, *trials)):
            figures = _figures([run for run in results if group_of(run.config) == group])
            figures |= _trial_figures([run for run in trials if group_of(run.config) == group])
            queue.carry_out(partial(_fill, store, experiment_id, group, figures), otherwise=None)
        if rows := study_rows(results):
            queue.carry_out(lambda: _write_table(store, experiment_id, name, rows), otherwise=None)
    except StoreAwayError as error:
        return str(error)
    return queue.reason


def _figures(results: Sequence[Result]) -> dict[str, float]:
    """How the runs of a group ended, and mean and deviation of what the finished ones reached."""
    figures = _counts("runs", results)
    cells = Results([Stored(run.document()) for run in results if run.status == "finished"]).cells()
    if len(cells) != 1:  # a mean over runs that differ in more than seed and split would mean nothing
        return figures
    for name, spread in cells[0].spreads().items():
        shown = f"best_{name}" if name.startswith("val_") else name
        figures[f"{shown}_mean"] = spread.mean
        if spread.std is not None:
            figures[f"{shown}_std"] = spread.std
    return figures


def _counts(name: str, results: Sequence[Result]) -> dict[str, float]:
    return {f"{name}_{status}": float(count) for status, count in Counter(run.status for run in results).items()}


def study_rows(results: Sequence[Result]) -> list[dict[str, Any]]:
    """The table's rows: one a cell of which a run has finished.

    Memory of several sources has no mean.

    Returns:
        Values by column, the same columns in every row: ``method``, ``dataset``, ``seeds`` (finished runs),
        ``unfinished`` (other ones), ``memory_source``, and mean (and ``…_std``) of figures: scores are fractions,
        memory is bytes, time seconds.
    """
    names = dataset_names(result.config.dataset for result in results)
    stored = [Stored(result.document(), name=names[result.config.dataset]) for result in results]
    return [_row(cell) for cell in Results(stored).cells() if cell.finished]


def _row(cell: Repeats) -> dict[str, Any]:
    row: dict[str, Any] = {"method": cell.method, "dataset": cell.dataset, "seeds": len(cell.finished)}
    row["unfinished"] = len(cell.runs) - len(cell.finished)
    for figure, with_deviation in _FIGURES.items():
        is_mixed = figure.startswith("memory") and len(cell.memory_sources) != 1
        spread = None if is_mixed else cell.spread(figure)
        column = figure.removesuffix("_total")
        row[column] = None if spread is None else spread.mean
        if with_deviation:
            row[f"{column}_std"] = None if spread is None else spread.std
    return {**row, "memory_source": " ".join(cell.memory_sources)}


def _trial_figures(trials: Sequence[Result]) -> dict[str, float]:
    counts = _counts("trials", trials)
    scores = [metrics["best_val_auc"] for metrics in map(final_metrics, trials) if "best_val_auc" in metrics]
    return {**counts, "trials_best_val_auc": max(scores)} if scores else counts


def _fill(store: Store, experiment_id: str, group: str, figures: dict[str, float]) -> None:
    """Give a parent its figures, and bring together what a race has made two parents of."""
    method, _, dataset = group.partition(" on ")
    parent = store.parent(experiment_id, group, {"method": method, "dataset": dataset})
    for other in store.parents(experiment_id, group)[1:]:
        for run in store.runs(experiment_id):
            if run.data.tags.get(PARENT_TAG) == other.info.run_id:
                store.set_tags(run.info.run_id, {PARENT_TAG: parent})
        store.client.delete_run(other.info.run_id)
    run = store.client.get_run(parent)
    news = {name: value for name, value in figures.items() if run.data.metrics.get(name) != value}
    store.add_metrics(parent, {0: news}, when=int(time.time() * 1000))
    _close(store, run)


def _write_table(store: Store, experiment_id: str, name: str, rows: list[dict[str, object]]) -> None:
    import pandas as pd

    tables = store.runs(experiment_id, kind=_TABLE)
    run = tables[0] if tables else store.create(experiment_id, name=_TABLE, tags={KIND_TAG: _TABLE})
    mlflow_run_id, markdown = run.info.run_id, _markdown(rows)
    store.put_table(mlflow_run_id, rows, "table.json")
    texts = {
        "csv": pd.DataFrame(rows).to_csv(index=False),
        "md": markdown,
        "json": json.dumps(rows, indent=1, allow_nan=False) + "\n",
    }
    for ending, text in texts.items():
        store.client.log_text(mlflow_run_id, text, f"study/{name}.{ending}")
    store.set_tags(mlflow_run_id, {_NOTE_TAG: markdown})
    _close(store, run)


def _close(store: Store, run: Run) -> None:
    if run.info.status != "FINISHED":
        store.client.set_terminated(run.info.run_id, "FINISHED")


def _markdown(rows: Sequence[Mapping[str, Any]]) -> str:
    """A Markdown table, with a dash where there is no value."""
    lines = [list(rows[0]), ["---"] * len(rows[0]), *([_text(value) for value in row.values()] for row in rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _text(value: Any) -> str:
    if value is None or value == "":
        return "–"
    if isinstance(value, float):
        return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.4g}"
    return str(value).replace("|", "\\|")

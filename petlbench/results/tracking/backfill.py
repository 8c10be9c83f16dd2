"""What MLflow is told of runs that have ended and are on the disk, and of a whole study.

A study is an experiment there, with a parent run for each method on each dataset, and its table in a run of its own.
"""

from __future__ import annotations

import json
import logging
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from petlbench.core.config import RunConfig
from petlbench.core.progress import Progress
from petlbench.results.result import FILE, Result, iter_results, read_result
from petlbench.results.stored import Stored, dataset_names, final_metrics
from petlbench.results.table import Repeats, Results, read_studies, with_scores
from petlbench.results.tracking.page import StudyPage
from petlbench.results.tracking.send_queue import SendQueue, StoreAwayError, open_queue
from petlbench.results.tracking.store import KIND_TAG, PARENT_TAG, RUN_ID_TAG, Store
from petlbench.results.tracking.tracker import WHOLE_TAG, Record, close_abandoned, content_of
from petlbench.results.tracking.view import page_address

if TYPE_CHECKING:
    from mlflow.entities import Run

_NO_STUDY = "petlbench"
_PATIENCE = 45.0
_TABLE = "table"
_PAGE_FOLDER = "report"
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
    "seconds_run": False,
}

_logger = logging.getLogger("petlbench")


@dataclass
class Tracked:
    """What became of results that were to be sent.

    Attributes:
        uri: The store's address without a password.
        sent: Run ids that the store lacked and has now.
        present: Run ids that it had already.
        missing: Run ids that it still lacks.
        error: Why it lacks them.
        address: Of the study's runs on the store's pages; empty where a program has to be started to see them.
    """

    uri: str
    sent: list[str] = field(default_factory=list)
    present: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    error: str | None = None
    address: str = ""


def track_results(
    uri: str | None, output: Path, runs: Iterable[str] = (), *, progress: Progress | None = None
) -> Tracked:
    """Send every result that the store lacks, each to the studies that it belongs to.

    Args:
        uri: The store's address as `petlbench.results.tracking.send_queue.open_queue` takes it.
        output: Folder of all results.
        runs: Run ids; none for all.
        progress: Told how far it is.

    Raises:
        InputError: When MLflow knows no such address, or a run has no result.
    """
    stored = [read_result(output / run_id) for run_id in runs] or list(iter_results(output))
    queue = open_queue(uri, output)
    if queue.is_off:
        return Tracked("none", missing=[result.run_id for result in stored], error="tracking is turned off")
    studies = _studies(output)
    ended = [(result, study) for result in with_scores(stored, output) for study in studies.get(result.run_id, [""])]
    return _send_missing(queue, output, ended, progress or Progress())


def track_study(
    uri: str | None,
    output: Path,
    study_name: str,
    results: Sequence[Result],
    *,
    page: Sequence[str] = (),
    patience: float = _PATIENCE,
    progress: Progress | None = None,
) -> Tracked:
    """Bring the experiment of a study up to date when the study has ended; doing it again changes nothing.

    Runs that the experiment lacks, because they were finished before or the store was away, are sent; each parent gets
    mean and standard deviation over its seeds; and the study's table stands in a run named ``table``, as CSV, Markdown,
    JSON and a table of MLflow's, with the study's page and figures. A store that stays away costs a warning and raises
    nothing.

    Args:
        uri: The store's address as `petlbench.results.tracking.send_queue.open_queue` takes it.
        output: Folder of all results.
        study_name: The study, and the experiment.
        results: Its runs.
        page: The program that writes the page and the figures, as `petlbench.results.tracking.page.StudyPage` takes it.
        patience: Seconds for which a store that is away is waited for.
        progress: Told how far it is.

    Raises:
        InputError: When MLflow knows no such address.
    """
    queue = open_queue(uri, output, patience=patience)
    if queue.is_off:
        return Tracked("none")
    is_shown = any(result.status == "finished" for result in results)
    with StudyPage(study_name, page if is_shown else ()) as files:
        scored = with_scores(results, output)
        tracked = _send_missing(queue, output, [(result, study_name) for result in scored], progress or Progress())
        if tracked.error is None:
            _summarise(queue, study_name, scored, files, tracked)
    if tracked.error is not None:
        _logger.warning(
            "the MLflow store %s does not have all of study '%s' (%s); the results on disk are complete, and the same "
            "command, or `petlbench results track`, sends what it lacks",
            queue.place,
            study_name,
            tracked.error,
        )
    return tracked


def _send_missing(queue: SendQueue, output: Path, ended: Sequence[tuple[Result, str]], progress: Progress) -> Tracked:
    """Send those results that the store lacks, each with its study's name; empty for a run of none."""
    rest = [(result, study) for result, study in ended if result.status != "interrupted"]
    tracked = Tracked(queue.place)
    progress.phase("sending to MLflow", len(rest))
    try:
        records = {study: _records(queue, study or _NO_STUDY) for study in {study for _, study in rest}}
        while rest:
            result, study = rest[0]
            content = content_of(output / result.run_id)
            versions = records[study].get(result.run_id, [])
            if any(_is_current(version, content, result) for version in versions):
                tracked.present.append(result.run_id)
            else:
                record = partial(_record, queue.store, result, output / result.run_id, study, content)
                is_sent = queue.carry_out(record, otherwise=False)
                (tracked.sent if is_sent else tracked.missing).append(result.run_id)
            rest.pop(0)
            progress.advance()
    except StoreAwayError as error:
        tracked.missing += [result.run_id for result, _ in rest]
        tracked.error = str(error)
    tracked.error = tracked.error or queue.reason
    return tracked


def _records(queue: SendQueue, experiment: str) -> dict[str, list[Run]]:
    store, nothing = queue.store, list["Run"]()

    def read() -> list[Run]:
        experiment_id = store.experiment(experiment)
        close_abandoned(store, experiment_id)
        return store.runs(experiment_id)

    records: dict[str, list[Run]] = {}
    for run in queue.carry_out(read, otherwise=nothing):
        if run.data.tags.get(KIND_TAG, "run") == "run":
            records.setdefault(run.data.tags.get(RUN_ID_TAG, ""), []).append(run)
    return records


def _is_current(run: Run, content: str, result: Result) -> bool:
    """Whether a record has all of a result, with the scores that it has now."""
    scores = {"ppe": result.scores.ppe, "pme": result.scores.pme}
    return run.data.tags.get(WHOLE_TAG) == content and all(
        value is None or run.data.metrics.get(name) == value for name, value in scores.items()
    )


def _record(store: Store, result: Result, folder: Path, study: str, content: str) -> bool:
    ended = int((folder / FILE).stat().st_mtime * 1000)
    began = ended - int(result.timing.get("total", 0.0) * 1000)
    group = _group_of(result.config) if study else ""
    record = Record(store, result.run_id, study or _NO_STUDY, kind="run", group=group)
    title, synthetic = result.data.get("title", result.config.dataset_name), result.data.get("synthetic", False)
    tags = {"method": result.config.method, "dataset": str(title), "synthetic": str(synthetic).lower()}
    record.open(result.config.model_dump(mode="json"), tags, began=began, content=content)
    record.close(result.status, final_metrics(result), result.curve, folder, ended)
    return True


def _group_of(config: RunConfig) -> str:
    """The name of the parent below which MLflow shows the runs of one method on one dataset."""
    return f"{config.method} on {config.dataset_name}"


def _studies(output: Path) -> dict[str, list[str]]:
    studies: dict[str, list[str]] = {}
    for name, document in read_studies(output, None).items():
        for run in document.get("runs", []):
            if run_id := run.get("run_id"):
                studies.setdefault(run_id, []).append(name)
    return studies


def _summarise(queue: SendQueue, name: str, results: Sequence[Result], files: StudyPage, tracked: Tracked) -> None:
    """Fill the parents, write the table and keep the page; what went wrong is noted."""
    store = queue.store
    try:
        experiment_id = queue.carry_out(lambda: store.experiment(name), otherwise="")
        tracked.address = page_address(store.uri, experiment_id)
        for group in dict.fromkeys(_group_of(run.config) for run in results):
            runs = [run for run in results if _group_of(run.config) == group]
            queue.carry_out(partial(_fill, store, experiment_id, group, runs), otherwise=None)
        if rows := _study_rows(results):
            table = queue.carry_out(lambda: _write_table(store, experiment_id, name, rows), otherwise="")
            if table and (folder := files.files()) is not None:
                keep = partial(store.client.log_artifacts, table, str(folder), _PAGE_FOLDER)
                queue.carry_out(keep, otherwise=None)
        tracked.error = queue.reason
    except StoreAwayError as error:
        tracked.error = str(error)


def _figures(results: Sequence[Result]) -> dict[str, float]:
    """How the runs of a group ended, and mean and deviation of what the finished ones reached."""
    counts = Counter(run.status for run in results)
    figures = {f"runs_{status}": float(count) for status, count in counts.items()}
    cells = Results([Stored(run.document()) for run in results if run.status == "finished"]).cells()
    if len(cells) != 1:  # a mean over runs that differ in more than seed and split would mean nothing
        return figures
    for name, spread in cells[0].spreads().items():
        shown = f"best_{name}" if name.startswith("val_") else name
        figures[f"{shown}_mean"] = spread.mean
        if spread.std is not None:
            figures[f"{shown}_std"] = spread.std
    return figures


def _study_rows(results: Sequence[Result]) -> list[dict[str, Any]]:
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
        column = figure.removesuffix("_run")
        row[column] = None if spread is None else spread.mean
        if with_deviation:
            row[f"{column}_std"] = None if spread is None else spread.std
    return {**row, "memory_source": " ".join(cell.memory_sources)}


def _fill(store: Store, experiment_id: str, group: str, runs: Sequence[Result]) -> None:
    """Give a parent the figures and the dataset of its runs, and bring together what a race has made two parents of."""
    method, _, dataset = group.partition(" on ")
    parent = store.parent(experiment_id, group, {"method": method, "dataset": dataset})
    for other in store.parents(experiment_id, group)[1:]:
        for run in store.runs(experiment_id):
            if run.data.tags.get(PARENT_TAG) == other.info.run_id:
                store.set_tags(run.info.run_id, {PARENT_TAG: parent})
        store.client.delete_run(other.info.run_id)
    run = store.client.get_run(parent)
    news = {name: value for name, value in _figures(runs).items() if run.data.metrics.get(name) != value}
    store.add_metrics(parent, {0: news}, when=int(time.time() * 1000))
    for document in {str(each.digests.get("data")): each.document() for each in runs}.values():
        store.add_dataset(parent, document)
    _close(store, run)


def _write_table(store: Store, experiment_id: str, name: str, rows: list[dict[str, object]]) -> str:
    """Write the table into its run; returns MLflow's identifier of it."""
    import pandas as pd

    tables = store.runs(experiment_id, kind=_TABLE)
    run = tables[0] if tables else store.create(experiment_id, name=_TABLE, tags={KIND_TAG: _TABLE})
    mlflow_run_id = run.info.run_id
    lines = [list(rows[0]), ["---"] * len(rows[0]), *([_text(value) for value in row.values()] for row in rows)]
    markdown = "".join(f"| {' | '.join(line)} |\n" for line in lines)
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
    return str(mlflow_run_id)


def _close(store: Store, run: Run) -> None:
    if run.info.status != "FINISHED":
        store.client.set_terminated(run.info.run_id, "FINISHED")


def _text(value: Any) -> str:
    if value is None or value == "":
        return "–"
    if isinstance(value, float):
        return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.4g}"
    return str(value).replace("|", "\\|")

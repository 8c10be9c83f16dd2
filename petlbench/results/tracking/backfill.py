"""Results on the disk that MLflow does not have, sent to it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from petlbench.core.config import RunConfig
from petlbench.core.progress import Progress
from petlbench.results.result import FILE, Result, iter_results, read_result
from petlbench.results.stored import final_metrics
from petlbench.results.table import with_scores
from petlbench.results.tracking.run_record import WHOLE_TAG, Record, content_of
from petlbench.results.tracking.send_queue import SendQueue, StoreAwayError, open_queue
from petlbench.results.tracking.store import KIND_TAG, RUN_ID_TAG, Store

if TYPE_CHECKING:
    from mlflow.entities import Run

__all__ = ["Ended", "Tracked", "group_of", "send_missing", "track_results"]

_OWN_EXPERIMENT = "petlbench"


@dataclass(frozen=True)
class Ended:
    """A run that has ended, and where MLflow is to show it.

    Args:
        result: Its result.
        folder: The result's folder.
        study: The study's name; empty for a run of none.
        kind: ``run`` or ``trial``.
    """

    result: Result
    folder: Path
    study: str
    kind: str = "run"

    @property
    def experiment(self) -> str:
        """The name under which MLflow keeps it."""
        return self.study or _OWN_EXPERIMENT


@dataclass
class Tracked:
    """What became of results that were to be sent.

    Attributes:
        uri: The store's address without a password.
        sent: Run ids that the store lacked and has now.
        present: Run ids that it had already.
        missing: Run ids that it still lacks.
        error: Why it lacks them.
    """

    uri: str
    sent: list[str] = field(default_factory=list)
    present: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    error: str | None = None


def track_results(
    uri: str | None, output: Path, runs: Iterable[str] = (), *, patience: float = 0.0, progress: Progress | None = None
) -> Tracked:
    """Send every result that the store lacks, each to the studies that it belongs to.

    Args:
        uri: The store's address as `petlbench.results.tracking.send_queue.open_queue` takes it.
        output: Folder of all results.
        runs: Run ids; none for all.
        patience: Seconds for which a store that is away is waited for.
        progress: Told how far it is.

    Returns:
        What was sent, what was there, and what could not be sent and why.

    Raises:
        InputError: When MLflow knows no such address, or a run has no result.
    """
    stored = [read_result(output / run_id) for run_id in runs] or list(iter_results(output))
    queue = open_queue(uri, output, patience=patience)
    if queue is None:
        return Tracked("none", missing=[result.run_id for result in stored], error="tracking is turned off")
    by_run, ended = _studies(output), []
    for result in with_scores(stored, output):
        studies = by_run.get(result.run_id, [""])
        ended += [Ended(result, output / result.run_id, study) for study in studies]
    return send_missing(queue, ended, progress or Progress())


def group_of(config: RunConfig) -> str:
    """The name of the parent below which MLflow shows the runs of one method on one dataset."""
    return f"{config.method} on {config.dataset_name}"


def send_missing(queue: SendQueue, ended: Sequence[Ended], progress: Progress) -> Tracked:
    """Send what the store lacks."""
    rest = [run for run in ended if run.result.status != "interrupted"]
    tracked = Tracked(queue.place)
    progress.phase("sending to MLflow", len(rest))
    try:
        records = {name: _records(queue, name) for name in {run.experiment for run in rest}}
        while rest:
            versions = records[rest[0].experiment].get((rest[0].kind, rest[0].result.run_id), [])
            _send(queue, rest[0], versions, tracked)
            rest.pop(0)
            progress.advance()
    except StoreAwayError as error:
        tracked.missing += [run.result.run_id for run in rest]
        tracked.error = str(error)
    return replace(tracked, error=tracked.error or queue.reason)


def _send(queue: SendQueue, run: Ended, versions: Sequence[Run], tracked: Tracked) -> None:
    content = content_of(run.folder)
    if any(_is_current(version, content, run.result) for version in versions):
        tracked.present.append(run.result.run_id)
        return
    is_sent = queue.carry_out(lambda: _record(queue.store, run, content), otherwise=False)
    (tracked.sent if is_sent else tracked.missing).append(run.result.run_id)


def _records(queue: SendQueue, experiment: str) -> dict[tuple[str, str], list[Run]]:
    """The records of an experiment by kind and run id."""
    store = queue.store
    nothing: list[Run] = []
    records: dict[tuple[str, str], list[Run]] = {}
    runs = queue.carry_out(lambda: store.runs(store.experiment(experiment)), otherwise=nothing)
    for run in runs:
        key = run.data.tags.get(KIND_TAG, "run"), run.data.tags.get(RUN_ID_TAG, "")
        records.setdefault(key, []).append(run)
    return records


def _is_current(run: Run, content: str, result: Result) -> bool:
    """Whether a record has all of a result, with the scores that it has now."""
    scores = {"ppe": result.scores.ppe, "pme": result.scores.pme}
    return run.data.tags.get(WHOLE_TAG) == content and all(
        value is None or run.data.metrics.get(name) == value for name, value in scores.items()
    )


def _record(store: Store, run: Ended, content: str) -> bool:
    result = run.result
    ended = int((run.folder / FILE).stat().st_mtime * 1000)
    began = ended - int(result.timing.get("total", 0.0) * 1000)
    group = group_of(result.config) if run.study else ""
    record = Record(store, result.run_id, run.experiment, kind=run.kind, group=group)
    title, synthetic = result.data.get("title", result.config.dataset_name), result.data.get("synthetic", False)
    tags = {"method": result.config.method, "dataset": str(title), "synthetic": str(synthetic).lower()}
    record.open(result.config.model_dump(mode="json"), tags, began=began, content=content)
    record.fill(result.curve, when=ended)
    last = max((int(entry["epoch"]) for entry in result.curve), default=0)
    record.add(final_metrics(result), step=last, when=ended)
    record.finish(result.status, when=ended)
    record.keep(run.folder)
    return True


def _studies(output: Path) -> dict[str, list[str]]:
    """The studies that a run belongs to, by its id."""
    studies: dict[str, list[str]] = {}
    for file in sorted((output / "studies").glob("*.json")):
        with suppress(OSError, ValueError, AttributeError):  # whoever reads the study says so; its runs are sent anyway
            for run in json.loads(file.read_text(encoding="utf-8")).get("runs", []):
                if run_id := run.get("run_id"):
                    studies.setdefault(run_id, []).append(file.stem)
    return studies

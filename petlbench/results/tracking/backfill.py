"""Results on the disk that MLflow does not have, sent to it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from petlbench.core.config import RunConfig
from petlbench.core.progress import Progress
from petlbench.results.result import FILE, Result, iter_results, read_result
from petlbench.results.scalars import final_metrics
from petlbench.results.tracking.run_record import WHOLE_TAG, Record, content_of
from petlbench.results.tracking.store import KIND_TAG, RUN_ID_TAG
from petlbench.results.tracking.study_queue import Courier, StoreAwayError, open_courier

if TYPE_CHECKING:
    from mlflow.entities import Run

__all__ = ["Ended", "Tracked", "group_of", "send_missing", "track_results"]

_OWN_EXPERIMENT = "petlbench"
_SCORES = ("ppe", "pme")


@dataclass(frozen=True)
class Ended:
    """A run that has ended, and where MLflow is to show it.

    Args:
        result: Its result.
        folder: The result's folder.
        experiment: A study's name.
        kind: ``run`` or ``trial``.
        group: The run's parent; empty for none.
    """

    result: Result
    folder: Path
    experiment: str
    kind: str = "run"
    group: str = ""


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
    """Send every result that the store lacks, each to the studies that want it.

    Args:
        uri: The store's address as `petlbench.results.tracking.open_tracker` takes it.
        output: Folder of all results.
        runs: Run ids; none for all.
        patience: Seconds for which a store that is away is waited for.
        progress: Told how far it is.

    Returns:
        What was sent, what was there, and what could not be sent and why.

    Raises:
        InputError: When MLflow knows no such address, or a run has no result.
    """
    results = [read_result(output / run_id) for run_id in runs] or list(iter_results(output))
    courier = open_courier(uri, output, patience=patience)
    if courier is None:
        return Tracked("none", missing=[result.run_id for result in results], error="tracking is turned off")
    wanted = _studies(output)
    ended = []
    for result in results:
        folder, studies = output / result.run_id, wanted.get(result.run_id, [])
        ended += [Ended(result, folder, study, group=group_of(result.config)) for study in studies]
        if not studies:
            ended.append(Ended(result, folder, _OWN_EXPERIMENT))
    return send_missing(courier, ended, progress or Progress())


def group_of(config: RunConfig) -> str:
    """The name of the parent below which MLflow shows the runs of one method on one dataset."""
    return f"{config.method} on {config.dataset_name}"


def send_missing(courier: Courier, ended: Sequence[Ended], progress: Progress) -> Tracked:
    """Send what the store lacks.

    Args:
        courier: The way to the store.
        ended: The runs; such as can still go on are left out.
        progress: Told how far it is.
    """
    left = [one for one in ended if one.result.status != "interrupted"]
    tracked = Tracked(courier.place)
    progress.phase("sending to MLflow", len(left))
    try:
        known = {name: _known(courier, name) for name in {one.experiment for one in left}}
        while left:
            _send_one(courier, left[0], known, tracked)
            left.pop(0)
            progress.advance()
    except StoreAwayError as error:
        tracked.missing += [one.result.run_id for one in left]
        tracked.error = str(error)
    if courier.refusal and tracked.error is None:
        tracked.error = courier.refusal
    return tracked


def _send_one(courier: Courier, one: Ended, known: dict[str, dict[tuple[str, str], list[Run]]], to: Tracked) -> None:
    versions = known[one.experiment].get((one.kind, one.result.run_id), [])
    content = content_of(one.folder)
    if any(_is_current(run, content, one.result) for run in versions):
        to.present.append(one.result.run_id)
        return
    taken = courier.bring(lambda: _record(courier, one, content), otherwise=False)
    (to.sent if taken else to.missing).append(one.result.run_id)


def _known(courier: Courier, experiment: str) -> dict[tuple[str, str], list[Run]]:
    """The records of an experiment by kind and run id."""
    store = courier.store
    nothing: list[Run] = []
    found: dict[tuple[str, str], list[Run]] = {}
    for run in courier.bring(lambda: store.runs(store.experiment(experiment)), otherwise=nothing):
        key = run.data.tags.get(KIND_TAG, "run"), run.data.tags.get(RUN_ID_TAG, "")
        found.setdefault(key, []).append(run)
    return found


def _is_current(run: Run, content: str, result: Result) -> bool:
    """Whether a record has all of a result, with the scores that it has now."""
    scores = {name: getattr(result.scores, name) for name in _SCORES}
    return run.data.tags.get(WHOLE_TAG) == content and all(
        value is None or run.data.metrics.get(name) == value for name, value in scores.items()
    )


def _record(courier: Courier, one: Ended, content: str) -> bool:
    result = one.result
    ended = int((one.folder / FILE).stat().st_mtime * 1000)
    began = ended - int(result.timing.get("total", 0.0) * 1000)
    record = Record(courier.store, result.run_id, one.experiment, kind=one.kind, group=one.group)
    record.open(result.config.model_dump(mode="json"), _tags(result), began=began, content=content)
    record.fill(result.curve, when=ended)
    last = max((int(entry["epoch"]) for entry in result.curve), default=0)
    record.add(final_metrics(result), step=last, when=ended)
    record.finish(result.status, when=ended)
    record.keep(one.folder)
    return True


def _tags(result: Result) -> dict[str, str]:
    title, synthetic = result.data.get("title", result.config.dataset_name), result.data.get("synthetic", False)
    return {"method": result.config.method, "dataset": str(title), "synthetic": str(synthetic).lower()}


def _studies(output: Path) -> dict[str, list[str]]:
    """The studies that want a run, by its id."""
    found: dict[str, list[str]] = {}
    for file in sorted((output / "studies").glob("*.json")):
        for run in _read(file).get("runs", []):
            if run_id := run.get("run_id"):
                found.setdefault(run_id, []).append(file.stem)
    return found


def _read(file: Path) -> dict[str, Any]:
    try:
        document = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):  # whoever reads the study says so; its runs are sent all the same
        return {}
    return document if isinstance(document, dict) else {}

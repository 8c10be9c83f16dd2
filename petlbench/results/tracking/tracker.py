"""What a run tells MLflow: a record in the store, made by steps that may each be done twice."""

from __future__ import annotations

import hashlib
import json
import logging
import numbers
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from petlbench.core.errors import InputError
from petlbench.core.user_files import read_json
from petlbench.results.folder import RunFolder
from petlbench.results.result import FILE
from petlbench.results.tracking.send_queue import SendQueue
from petlbench.results.tracking.store import KIND_TAG, PARENT_TAG, RUN_ID_TAG, Store

if TYPE_CHECKING:
    from mlflow.entities import Run

STATUS_TAG = "petlbench.status"
WHOLE_TAG = "petlbench.whole"
RESULT_FOLDER = "result"

_MLFLOW_STATUS = {"finished": "FINISHED", "interrupted": "KILLED", "killed": "KILLED", "pruned": "KILLED"}
_CONTINUED = ("RUNNING", "KILLED")
# The first opening may make the tables of a new database, in turn with other processes.
_START_SECONDS, _EPOCH_SECONDS, _FINISH_SECONDS = 60.0, 10.0, 60.0

_logger = logging.getLogger("petlbench")


class Record:
    """What a store keeps of one run.

    Args:
        store: The store.
        run_id: The run's own identifier.
        experiment: The name under which runs are kept together.
        kind: ``run``, or ``trial`` for a run that never sees the test split; the two may share an identifier.
        group: The run's parent, for example ``fpt on digits``; empty for none.

    Attributes:
        mlflow_run_id: MLflow's identifier; empty until `open` has worked.
        experiment_id: That of its experiment.
    """

    def __init__(self, store: Store, run_id: str, experiment: str, *, kind: str, group: str) -> None:
        self.mlflow_run_id = self.experiment_id = ""
        self._store = store
        self._run_id = run_id
        self._experiment = experiment
        self._kind = kind
        self._group = group
        self._is_new = True
        self._last = 0

    def open(
        self, params: Mapping[str, Any], tags: Mapping[str, str], *, began: int | None = None, content: str = ""
    ) -> None:
        """Make the record, or go on with one that an earlier attempt left unfinished or without its files.

        Args:
            params: The configuration; nested mappings are flattened, their keys joined by dots.
            tags: Further text to find the run by.
            began: When the run began, in milliseconds of the epoch; None for now.
            content: What `content_of` says of the result, for a run that has ended; a record of it, or one that ended
                and lacks its files, is gone on with then.
        """
        store, experiment_id = self._store, self._store.experiment(self._experiment)
        self.experiment_id = experiment_id
        own = {**tags, RUN_ID_TAG: self._run_id, KIND_TAG: self._kind, STATUS_TAG: "running"}
        if self._group:
            shared = {name: text for name, text in tags.items() if name in ("method", "dataset")}
            own[PARENT_TAG] = store.parent(experiment_id, self._group, shared)
        versions = reversed(store.runs(experiment_id, run_id=self._run_id))  # the newest first
        own_kind = (run for run in versions if run.data.tags.get(KIND_TAG, "run") == self._kind)
        run = next((run for run in own_kind if run.info.status in _CONTINUED or _is_of(run, content)), None)
        self._is_new = run is None
        if run is None:
            run = store.create(experiment_id, name=self._run_id, tags=own, began=began)
        else:
            store.client.update_run(run.info.run_id, status="RUNNING")
            store.set_tags(run.info.run_id, own)
        self.mlflow_run_id = run.info.run_id
        store.add_params(run, params)

    def add(self, values: Mapping[str, float], *, step: int, when: int) -> None:
        """Add a point to each metric, at a millisecond of the epoch; adding it again changes nothing."""
        self._last = max(self._last, step)
        self._store.add_metrics(self.mlflow_run_id, {step: values}, when=when)

    def close(
        self, status: str, values: Mapping[str, Any], curve: Sequence[Mapping[str, Any]], folder: Path | None, when: int
    ) -> None:
        """Say how the run ended, and keep its files: the record is whole then.

        Args:
            status: As in ``result.json``.
            values: Final values by name.
            curve: One mapping an epoch, with ``epoch`` beside the figures; those that the record lacks are added.
            folder: The result's folder; None keeps no files.
            when: The end, in milliseconds of the epoch.
        """
        store, points = self._store, {int(entry["epoch"]): points_of_epoch(entry) for entry in curve}
        names = () if self._is_new else {name for entry in points.values() for name in entry}
        steps = {name: {point.step for point in store.history(self.mlflow_run_id, name)} for name in names}
        lacking = {
            step: {name: value for name, value in entry.items() if step not in steps.get(name, ())}
            for step, entry in points.items()
        }
        store.add_metrics(self.mlflow_run_id, lacking, when=when)
        self._last = max([self._last, *points])
        self.add(points_of(values), step=self._last, when=when)
        store.set_tags(self.mlflow_run_id, {STATUS_TAG: status})
        store.client.set_terminated(self.mlflow_run_id, _MLFLOW_STATUS.get(status, "FAILED"), end_time=when)
        if folder is not None:  # last: a store that takes no files still shows how the run ended
            store.add_dataset(self.mlflow_run_id, read_json(folder / FILE, what="result"))
            store.client.log_artifacts(self.mlflow_run_id, str(folder), RESULT_FOLDER)
            store.set_tags(self.mlflow_run_id, {WHOLE_TAG: content_of(folder)})


class Tracker:
    """Where a run reports to, calling the three methods in their order.

    What the store does not take, because it is away, is kept and sent at a later call. Nothing is raised: a store that
    is still away when the run ends costs one warning, and `petlbench.results.tracking.track_results` makes the record
    from the result on the disk.
    """

    def __init__(self, queue: SendQueue) -> None:
        self._queue = queue
        self._record: Record | None = None
        self._run_id = ""
        self._sent_epochs: set[int] = set()
        self._warned = False

    @property
    def uri(self) -> str:
        """The store's address."""
        return self._queue.store.uri

    @property
    def delivered(self) -> bool:
        """Whether the store has taken everything so far."""
        return self._queue.empty and self._queue.refusal is None

    @property
    def mlflow_run_id(self) -> str | None:
        """MLflow's identifier of the run; ``None`` before the store has given one."""
        return None if self._record is None else self._record.mlflow_run_id or None

    def start(
        self, run_id: str, experiment: str, params: Mapping[str, Any], tags: Mapping[str, str], *, group: str = ""
    ) -> None:
        """Open the record of a run, or go on with the one that an interrupted attempt left.

        Args:
            run_id: The run's own identifier, the hash of its configuration.
            experiment: The name under which runs are kept together, a study's.
            params: The configuration; nested mappings are flattened, their keys joined by dots.
            tags: Further text to find the run by; ``petlbench.kind`` is ``trial`` for a trial of a search.
            group: The parent below which the run is shown, for example ``fpt on digits``; empty for none.
        """
        record = Record(self._queue.store, run_id, experiment, kind=tags.get(KIND_TAG, "run"), group=group)
        self._record, self._run_id, began = record, run_id, _now()
        self._queue.put(lambda: record.open(params, tags, began=began))
        self._queue.send(_START_SECONDS)
        if self._queue.reason is not None:
            self._warn("what it misses is kept and sent when it answers; if it does not before the run ends,")

    def log_epoch(self, epoch: int, metrics: Mapping[str, float]) -> None:
        """Record the metrics of one epoch; recording an epoch again is harmless.

        Args:
            epoch: The step of the curve.
            metrics: Values by name; what is no number (``None``, text) is left out.
        """
        values, when = points_of_epoch(metrics), _now()
        self._sent_epochs.add(epoch)
        self._queue.put(lambda: self._opened.add(values, step=epoch, when=when))
        self._queue.send_if_due(_EPOCH_SECONDS)

    def finish(
        self, status: str, metrics: Mapping[str, float], folder: Path | None, *, curve: Sequence[Mapping[str, Any]] = ()
    ) -> None:
        """Close the record.

        Args:
            status: The run's status as in ``result.json``, for example ``"finished"``.
            metrics: Final values by name.
            folder: The result's folder, kept as artifacts under ``result``; ``None`` keeps no files.
            curve: Every epoch's figures; those of earlier attempts that the record lacks are added.
        """
        when, unsent = _now(), [entry for entry in curve if entry["epoch"] not in self._sent_epochs]
        self._queue.put(lambda: self._opened.close(status, metrics, unsent, folder, when))
        self._queue.put(lambda: close_abandoned(self._queue.store, self._opened.experiment_id))
        self._queue.send(_FINISH_SECONDS)
        if not self.delivered:
            self._warn("the result on disk is complete;")

    @property
    def _opened(self) -> Record:
        return cast("Record", self._record)

    def _warn(self, consequence: str) -> None:
        """Say once, and no more than once a run, what is wrong and how the record is made later."""
        if self._warned:
            return
        self._warned = True
        _logger.warning(
            "the MLflow store %s %s; %s `petlbench results track %s` makes the record from the disk; "
            "check the store, or give another --tracking-uri, or 'none'",
            self._queue.place,
            f"failed ({self._queue.reason})" if self._queue.reason else "does not answer",
            consequence,
            self._run_id,
        )


def _now() -> int:
    return int(time.time() * 1000)


def _is_of(run: Run, content: str) -> bool:
    return bool(content) and run.data.tags.get(WHOLE_TAG, content) == content


def close_abandoned(store: Store, experiment_id: str) -> None:
    """Close what runs of this output folder left open that were killed and that nobody works on.

    They can be gone on with all the same; so can the parents of which no run is left.
    """
    running = store.running(experiment_id)
    alive = [run for run in running if _is_worked_on(store, run)]
    parents = {run.data.tags.get(PARENT_TAG) for run in alive}
    for run in running:
        if run not in alive and run.info.run_id not in parents:
            store.set_tags(run.info.run_id, {STATUS_TAG: "killed"})
            store.client.set_terminated(run.info.run_id, "KILLED")


def _is_worked_on(store: Store, run: Run) -> bool:
    name = run.data.tags.get(RUN_ID_TAG)
    with suppress(InputError):  # a name that a store holds may be anything
        return name is not None and RunFolder(store.output, name).is_locked
    return False


def points_of(entry: Mapping[str, Any]) -> dict[str, float]:
    """The figures among some values; what a method reports may be anything, and what is no number is left out."""
    return {
        name: float(value)
        for name, value in entry.items()
        if name != "epoch" and isinstance(cast("object", value), numbers.Real)
    }


def points_of_epoch(entry: Mapping[str, Any]) -> dict[str, float]:
    """The figures of an epoch; those of the test split are ``epoch_test_…``, as the final ones own ``test_…``."""
    points = points_of(entry).items()
    return {f"epoch_{name}" if name.startswith("test_") else name: value for name, value in points}


def content_of(folder: Path) -> str:
    """A digest of a result but for its scores, which are those of the time when its run ended."""
    document = read_json(folder / FILE, what="result")
    document.pop("scores", None)
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()[:16]

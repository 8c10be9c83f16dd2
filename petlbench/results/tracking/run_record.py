"""A run's record in an MLflow store, made by steps that may each be done twice."""

from __future__ import annotations

import hashlib
import json
import numbers
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from petlbench.results.result import FILE
from petlbench.results.tracking.store import KIND_TAG, PARENT_TAG, RUN_ID_TAG, Store

if TYPE_CHECKING:
    from mlflow.entities import Run

__all__ = ["RESULT_FOLDER", "STATUS_TAG", "WHOLE_TAG", "Record", "content_of", "points_of"]

STATUS_TAG = "petlbench.status"
WHOLE_TAG = "petlbench.whole"
RESULT_FOLDER = "result"

_MLFLOW_STATUS = {"finished": "FINISHED", "interrupted": "KILLED", "killed": "KILLED", "pruned": "KILLED"}
_CONTINUED = ("RUNNING", "KILLED")


class Record:
    """What a store keeps of one run.

    Args:
        store: The store.
        run_id: The run's own identifier.
        experiment: The name under which runs are kept together.
        kind: ``run``, or ``trial`` for a run that never sees the test split; the two may share an identifier.
        group: The run's parent, for example ``fpt on digits``; empty for none.

    Attributes:
        mlflow_run_id: MLflow's identifier; ``None`` until `open` has worked.
    """

    def __init__(self, store: Store, run_id: str, experiment: str, *, kind: str, group: str) -> None:
        self.mlflow_run_id: str | None = None
        self._store = store
        self._run_id = run_id
        self._experiment = experiment
        self._kind = kind
        self._group = group
        self._is_new = True

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
        own = {**tags, RUN_ID_TAG: self._run_id, KIND_TAG: self._kind, STATUS_TAG: "running"}
        if self._group:
            shared = {name: text for name, text in tags.items() if name in ("method", "dataset")}
            own[PARENT_TAG] = store.parent(experiment_id, self._group, shared)
        versions = reversed(store.runs(experiment_id, run_id=self._run_id))  # the newest first
        own_kind = (run for run in versions if run.data.tags.get(KIND_TAG, "run") == self._kind)
        run = next((run for run in own_kind if _may_go_on(run, content)), None)
        self._is_new = run is None
        if run is None:
            run = store.create(experiment_id, name=self._run_id, tags=own, began=began)
        else:
            store.client.update_run(run.info.run_id, status="RUNNING")
            store.set_tags(run.info.run_id, own)
        self.mlflow_run_id = run.info.run_id
        store.add_params(run, params)

    def add(self, values: Mapping[str, float], *, step: int, when: int) -> None:
        """Add a point to each metric; see `Store.add_metrics`."""
        self._store.add_metrics(self._opened, {step: values}, when=when)

    def fill(self, curve: Iterable[Mapping[str, Any]], *, when: int) -> None:
        """Add those points of the curve that the record does not have.

        Args:
            curve: One mapping an epoch, with ``epoch`` beside the figures.
            when: The time of all these points in milliseconds of the epoch.
        """
        points = {int(entry["epoch"]): points_of(entry) for entry in curve}
        names = () if self._is_new else {name for values in points.values() for name in values}
        steps = {name: {point.step for point in self._store.history(self._opened, name)} for name in names}
        lacking = {
            step: {name: value for name, value in values.items() if step not in steps.get(name, ())}
            for step, values in points.items()
        }
        self._store.add_metrics(self._opened, lacking, when=when)

    def finish(self, status: str, *, when: int) -> None:
        """Say how the run ended, as in ``result.json``, and at which millisecond of the epoch."""
        self._store.set_tags(self._opened, {STATUS_TAG: status})
        self._store.client.set_terminated(self._opened, _MLFLOW_STATUS.get(status, "FAILED"), end_time=when)

    def keep(self, folder: Path) -> None:
        """Keep the files of a result; the record is whole then."""
        self._store.client.log_artifacts(self._opened, str(folder), RESULT_FOLDER)
        self._store.set_tags(self._opened, {WHOLE_TAG: content_of(folder)})

    @property
    def _opened(self) -> str:
        if self.mlflow_run_id is None:
            raise RuntimeError("the record has not been opened")
        return self.mlflow_run_id


def points_of(entry: Mapping[str, Any]) -> dict[str, float]:
    """The figures of an epoch; what a method reports may be anything, and what is no number is left out."""
    return {
        name: float(value)
        for name, value in entry.items()
        if name != "epoch" and isinstance(cast("object", value), numbers.Real)
    }


def content_of(folder: Path) -> str:
    """A digest of a result but for its scores, which are those of the time when its run ended."""
    document = json.loads((folder / FILE).read_text(encoding="utf-8"))
    document.pop("scores", None)
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()[:16]


def _may_go_on(run: Run, content: str) -> bool:
    if run.info.status in _CONTINUED:
        return True
    return bool(content) and run.data.tags.get(WHOLE_TAG, content) == content

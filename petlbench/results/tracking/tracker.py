"""What a run tells MLflow while it is under way."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from petlbench.results.tracking.address import check_address, choose_address, without_password
from petlbench.results.tracking.run_record import Record, points_of
from petlbench.results.tracking.send_queue import Outbox
from petlbench.results.tracking.store import KIND_TAG, Store, explain, is_refusal, quiet

__all__ = ["MlflowTracker", "NullTracker", "Tracker", "open_tracker"]

# The first opening may make the tables of a new database, in turn with other processes.
_START_SECONDS, _EPOCH_SECONDS, _FINISH_SECONDS = 60.0, 10.0, 60.0

_logger = logging.getLogger("petlbench")


class Tracker(Protocol):
    """Where a run reports to; the training loop calls the three methods in their order."""

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

    def log_epoch(self, epoch: int, metrics: Mapping[str, float]) -> None:
        """Record the metrics of one epoch; recording an epoch again is harmless.

        Args:
            epoch: The step of the curve.
            metrics: Values by name; what is no number (``None``, text) is left out.
        """

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


class NullTracker:
    """A tracker that keeps nothing, for ``--tracking-uri none``."""

    def start(
        self, run_id: str, experiment: str, params: Mapping[str, Any], tags: Mapping[str, str], *, group: str = ""
    ) -> None:
        """Keep nothing."""

    def log_epoch(self, epoch: int, metrics: Mapping[str, float]) -> None:
        """Keep nothing."""

    def finish(
        self, status: str, metrics: Mapping[str, float], folder: Path | None, *, curve: Sequence[Mapping[str, Any]] = ()
    ) -> None:
        """Keep nothing."""


class MlflowTracker:
    """A tracker that writes to an MLflow store; made by `open_tracker`.

    What the store does not take, because it is away, is kept and sent at a later call. Nothing is raised: a store that
    is still away when the run ends costs one warning, and `petlbench.results.tracking.track_results` makes the record
    from the result on the disk.

    Args:
        uri: The store: an SQLite file, another database, or a server.
        artifacts: Folder for artifacts of a store that is a database; a server keeps its own.

    Attributes:
        uri: The store's address.
    """

    def __init__(self, uri: str, *, artifacts: Path) -> None:
        self.uri = uri
        self._store = Store(uri, artifacts)
        self._outbox = Outbox(is_refusal)
        self._record: Record | None = None
        self._run_id = ""
        self._told: set[int] = set()
        self._warned = False

    @property
    def delivered(self) -> bool:
        """Whether the store has taken everything so far."""
        return self._outbox.empty and self._outbox.refusal is None

    @property
    def mlflow_run_id(self) -> str | None:
        """MLflow's identifier of the run; ``None`` before the store has given one."""
        return None if self._record is None else self._record.mlflow_run_id

    def start(
        self, run_id: str, experiment: str, params: Mapping[str, Any], tags: Mapping[str, str], *, group: str = ""
    ) -> None:
        """Open the record of a run, or go on with the one that an interrupted attempt left; see `Tracker.start`."""
        record = Record(self._store, run_id, experiment, kind=tags.get(KIND_TAG, "run"), group=group)
        self._record, self._run_id, began = record, run_id, _now()
        self._put(lambda: record.open(params, tags, began=began))
        with quiet():
            self._outbox.send(_START_SECONDS)
        if self._outbox.error or self._outbox.refusal:
            self._warn("what it misses is kept and sent when it answers; if it does not before the run ends,")

    def log_epoch(self, epoch: int, metrics: Mapping[str, float]) -> None:
        """Record the metrics of one epoch; see `Tracker.log_epoch`."""
        values, when = points_of(metrics), _now()
        self._told.add(epoch)
        self._put(lambda: self._opened.add(values, step=epoch, when=when))
        with quiet():
            self._outbox.send_if_due(_EPOCH_SECONDS)

    def finish(
        self, status: str, metrics: Mapping[str, float], folder: Path | None, *, curve: Sequence[Mapping[str, Any]] = ()
    ) -> None:
        """Close the record; see `Tracker.finish`."""
        values, when = points_of(metrics), _now()
        last = max(self._told.union(entry["epoch"] for entry in curve), default=0)
        untold = [entry for entry in curve if entry["epoch"] not in self._told]
        if untold:
            self._put(lambda: self._opened.fill(untold, when=when))
        self._put(lambda: self._opened.add(values, step=last, when=when))
        self._put(lambda: self._opened.finish(status, when=when))
        if folder is not None:
            # Last: a store that takes no files still shows how the run ended.
            self._put(lambda: self._opened.keep(folder))
        with quiet():
            self._outbox.send(_FINISH_SECONDS)
        if not self.delivered:
            self._warn("the result on disk is complete;")

    @property
    def _opened(self) -> Record:
        if self._record is None:
            raise RuntimeError("the run has not been started")
        return self._record

    def _put(self, action: Callable[[], object]) -> None:
        def guarded() -> None:
            with self._store.lock():
                action()

        self._outbox.put(guarded)

    def _warn(self, consequence: str) -> None:
        """Say once, and no more than once a run, what is wrong and how the record is made later."""
        if self._warned:
            return
        self._warned = True
        reason = self._outbox.refusal or self._outbox.error
        _logger.warning(
            "the MLflow store %s %s; %s `petlbench results track %s` makes the record from the disk; "
            "check the store, or give another --tracking-uri, or 'none'",
            without_password(self.uri),
            f"failed ({explain(reason)})" if reason else "does not answer",
            consequence,
            self._run_id,
        )


def open_tracker(uri: str | None, *, output: Path) -> Tracker:
    """Choose the tracker of a run; nothing is opened or imported before the tracker's first use.

    Args:
        uri: An MLflow tracking URI; ``None`` or empty takes the environment's ``MLFLOW_TRACKING_URI``, else the SQLite
            file ``mlflow.db`` in the output folder; ``"none"`` turns tracking off.
        output: The folder of all results. Files go to ``mlartifacts`` in it, unless the store is a server.

    Returns:
        A tracker that never raises.

    Raises:
        InputError: The URI's scheme is none that MLflow knows (kind ``bad_tracking_uri``), or the driver of a
            PostgreSQL database is missing (``missing_extra``).

    Example:
        >>> open_tracker("none", output=Path("results"))  # doctest: +ELLIPSIS
        <petlbench.results.tracking.tracker.NullTracker object at ...>
    """
    chosen = choose_address(uri, output)
    if chosen == "none":
        return NullTracker()
    check_address(chosen)
    return MlflowTracker(chosen, artifacts=output / "mlartifacts")


def _now() -> int:
    return int(time.time() * 1000)

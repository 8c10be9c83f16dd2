"""What a run tells MLflow while it is under way."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from petlbench.results.tracking.run_record import Record, points_of
from petlbench.results.tracking.send_queue import SendQueue, open_queue
from petlbench.results.tracking.store import KIND_TAG

__all__ = ["MlflowTracker", "Tracker", "open_tracker"]

# The first opening may make the tables of a new database, in turn with other processes.
_START_SECONDS, _EPOCH_SECONDS, _FINISH_SECONDS = 60.0, 10.0, 60.0

_logger = logging.getLogger("petlbench")


class Tracker:
    """Where a run reports to, calling the three methods in their order; this one keeps nothing."""

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


class MlflowTracker(Tracker):
    """A tracker that writes to an MLflow store; made by `open_tracker`.

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
        return None if self._record is None else self._record.mlflow_run_id

    def start(
        self, run_id: str, experiment: str, params: Mapping[str, Any], tags: Mapping[str, str], *, group: str = ""
    ) -> None:
        """Open the record of a run, or go on with the one that an interrupted attempt left; see `Tracker.start`."""
        record = Record(self._queue.store, run_id, experiment, kind=tags.get(KIND_TAG, "run"), group=group)
        self._record, self._run_id, began = record, run_id, _now()
        self._queue.put(lambda: record.open(params, tags, began=began))
        self._queue.send(_START_SECONDS)
        if self._queue.reason is not None:
            self._warn("what it misses is kept and sent when it answers; if it does not before the run ends,")

    def log_epoch(self, epoch: int, metrics: Mapping[str, float]) -> None:
        """Record the metrics of one epoch; see `Tracker.log_epoch`."""
        values, when = points_of(metrics), _now()
        self._sent_epochs.add(epoch)
        self._queue.put(lambda: self._opened.add(values, step=epoch, when=when))
        self._queue.send_if_due(_EPOCH_SECONDS)

    def finish(
        self, status: str, metrics: Mapping[str, float], folder: Path | None, *, curve: Sequence[Mapping[str, Any]] = ()
    ) -> None:
        """Close the record; see `Tracker.finish`."""
        values, when = points_of(metrics), _now()
        last = max(self._sent_epochs.union(entry["epoch"] for entry in curve), default=0)
        unsent = [entry for entry in curve if entry["epoch"] not in self._sent_epochs]
        if unsent:
            self._queue.put(lambda: self._opened.fill(unsent, when=when))
        self._queue.put(lambda: self._opened.add(values, step=last, when=when))
        self._queue.put(lambda: self._opened.finish(status, when=when))
        if folder is not None:
            # Last: a store that takes no files still shows how the run ended.
            self._queue.put(lambda: self._opened.keep(folder))
        self._queue.send(_FINISH_SECONDS)
        if not self.delivered:
            self._warn("the result on disk is complete;")

    @property
    def _opened(self) -> Record:
        if self._record is None:
            raise RuntimeError("the run has not been started")
        return self._record

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


def open_tracker(uri: str | None, *, output: Path) -> Tracker:
    """Choose the tracker of a run; nothing is opened or imported before the tracker's first use.

    Args:
        uri: The store's address, as `petlbench.results.tracking.send_queue.open_queue` takes it.
        output: The folder of all results.

    Returns:
        A tracker that never raises.

    Raises:
        InputError: As `open_queue` raises it.

    Example:
        >>> open_tracker("none", output=Path("results"))  # doctest: +ELLIPSIS
        <petlbench.results.tracking.tracker.Tracker object at ...>
    """
    queue = open_queue(uri, output)
    return Tracker() if queue is None else MlflowTracker(queue)


def _now() -> int:
    return int(time.time() * 1000)

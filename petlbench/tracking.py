"""What a run tells MLflow: parameters, one row of metrics an epoch, and the result's files.

The result on disk is the truth and MLflow a view of it, so tracking never stops a run: whatever goes wrong with the
store costs one warning, and the rest of the run goes untracked.
"""

from __future__ import annotations

import contextlib
import logging
import numbers
import os
import re
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, cast
from urllib.parse import unquote, urlsplit

from petlbench.errors import InputError

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

__all__ = ["MlflowTracker", "NullTracker", "Tracker", "open_tracker"]

RUN_ID_TAG = "petlbench.run_id"
STATUS_TAG = "petlbench.status"

_SCHEMES = ("databricks", "file", "http", "https", "mssql", "mysql", "postgresql", "sqlite")
_MLFLOW_STATUS = {"finished": "FINISHED", "interrupted": "KILLED", "killed": "KILLED"}
_CONTINUED = ("RUNNING", "KILLED")
_PARAM_LENGTH, _TAG_LENGTH, _KEY_LENGTH = 6000, 8000, 250
_PARAMS_A_BATCH, _METRICS_A_BATCH = 100, 1000
_LOCK_SECONDS = 60.0
_NOISY = ("mlflow", "alembic", "sqlalchemy", "urllib3", "git")

_logger = logging.getLogger("petlbench")
_Item = TypeVar("_Item")


class Tracker(Protocol):
    """Where a run reports to; the training loop calls the three methods in their order."""

    def start(self, run_id: str, experiment: str, params: Mapping[str, Any], tags: Mapping[str, str]) -> None:
        """Open the record of a run, or go on with the one that an interrupted attempt left.

        Args:
            run_id: The run's own identifier, the hash of its configuration.
            experiment: The name under which runs are kept together.
            params: The configuration; nested mappings are flattened, their keys joined by dots.
            tags: Further text to find the run by.
        """

    def log_epoch(self, epoch: int, metrics: Mapping[str, float]) -> None:
        """Record the metrics of one epoch; recording an epoch again is harmless.

        Args:
            epoch: The step of the curve.
            metrics: Values by name; what is no number (``None``, text) is left out.
        """

    def finish(self, status: str, metrics: Mapping[str, float], folder: Path | None) -> None:
        """Close the record.

        Args:
            status: The run's status as in ``result.json``, for example ``"finished"``.
            metrics: Final values by name.
            folder: The result's folder, kept as artifacts under ``result``; ``None`` keeps no files.
        """


class NullTracker:
    """A tracker that keeps nothing, for ``--tracking-uri none``."""

    def start(self, run_id: str, experiment: str, params: Mapping[str, Any], tags: Mapping[str, str]) -> None:
        """Keep nothing."""

    def log_epoch(self, epoch: int, metrics: Mapping[str, float]) -> None:
        """Keep nothing."""

    def finish(self, status: str, metrics: Mapping[str, float], folder: Path | None) -> None:
        """Keep nothing."""


class MlflowTracker:
    """A tracker that writes to an MLflow store; made by `open_tracker`.

    Args:
        uri: The store: an SQLite file, another database, or a server.
        artifacts: Folder for artifacts of a store that is a database; a server keeps its own.

    Attributes:
        uri: The store's address.
        active: Whether the store still takes what is logged; false from the first failure on.
        mlflow_run_id: MLflow's identifier of the run; ``None`` before `start` and where that failed.
    """

    def __init__(self, uri: str, *, artifacts: Path) -> None:
        self.uri = uri
        self.active = True
        self.mlflow_run_id: str | None = None
        self._artifacts = artifacts
        self._client: MlflowClient | None = None
        self._database = _sqlite_file(uri)
        self._step = 0

    def start(self, run_id: str, experiment: str, params: Mapping[str, Any], tags: Mapping[str, str]) -> None:
        """Open the record of a run, or go on with the one that an interrupted attempt left; see `Tracker.start`."""
        self._attempt(lambda: self._start(run_id, experiment, params, tags))

    def log_epoch(self, epoch: int, metrics: Mapping[str, float]) -> None:
        """Record the metrics of one epoch; see `Tracker.log_epoch`."""
        self._step = epoch
        self._attempt(lambda: self._log_metrics(metrics))

    def finish(self, status: str, metrics: Mapping[str, float], folder: Path | None) -> None:
        """Close the record; see `Tracker.finish`."""
        self._attempt(lambda: self._finish(status, metrics))
        if folder is not None:
            # Last, and on its own: a store that takes no files still shows how the run ended.
            self._attempt(lambda: self._open().log_artifacts(self._run(), str(folder), "result"))

    def _attempt(self, action: Callable[[], None]) -> None:
        if not self.active:
            return
        try:
            with _quiet(), _lock(self._database):
                action()
        except Exception as error:
            self.active = False
            _logger.warning(
                "tracking is off for this run: the MLflow store %s failed (%s); results on disk are complete; "
                "check the store, or give another --tracking-uri, or 'none'",
                _without_password(self.uri),
                _first_line(error),
            )

    def _start(self, run_id: str, experiment: str, params: Mapping[str, Any], tags: Mapping[str, str]) -> None:
        client = self._open()
        experiment_id = self._experiment(experiment)
        run = self._unfinished(experiment_id, run_id)
        own_tags = {_key(name): _shorten(str(value), _TAG_LENGTH) for name, value in tags.items()}
        own_tags |= {RUN_ID_TAG: run_id, STATUS_TAG: "running"}
        if run is None:
            run = client.create_run(experiment_id, tags=own_tags, run_name=run_id)
        else:
            client.update_run(run.info.run_id, status="RUNNING")
            self._set_tags(run.info.run_id, own_tags)
        self.mlflow_run_id = run.info.run_id
        # MLflow refuses to change a parameter: what an earlier attempt logged stands.
        self._log_params({key: text for key, text in _flat(params) if key not in run.data.params})

    def _finish(self, status: str, metrics: Mapping[str, float]) -> None:
        self._log_metrics(metrics)
        self._set_tags(self._run(), {STATUS_TAG: status})
        self._open().set_terminated(self._run(), _MLFLOW_STATUS.get(status, "FAILED"))

    def _open(self) -> MlflowClient:
        if self._client is None:
            _configure_mlflow()
            from mlflow import MlflowClient  # two seconds

            self._client = MlflowClient(tracking_uri=self.uri)
        return self._client

    def _run(self) -> str:
        if self.mlflow_run_id is None:
            raise RuntimeError("the run has not been started")
        return self.mlflow_run_id

    def _experiment(self, name: str) -> str:
        from mlflow.exceptions import MlflowException

        client = self._open()
        found = client.get_experiment_by_name(name)
        if found is None:
            try:
                return str(client.create_experiment(name, artifact_location=self._artifact_location(name)))
            except MlflowException:
                found = client.get_experiment_by_name(name)  # another process was quicker
                if found is None:
                    raise
        return str(found.experiment_id)

    def _artifact_location(self, experiment: str) -> str | None:
        if urlsplit(self.uri).scheme in ("databricks", "http", "https"):
            return None
        return (self._artifacts / re.sub(r"[^\w.-]", "_", experiment)).absolute().as_uri()

    def _unfinished(self, experiment_id: str, run_id: str) -> Run | None:
        found = self._open().search_runs(
            [experiment_id], filter_string=f"tags.`{RUN_ID_TAG}` = '{run_id}'", order_by=["attributes.start_time DESC"]
        )
        return next((run for run in found if run.info.status in _CONTINUED), None)

    def _set_tags(self, mlflow_run_id: str, tags: Mapping[str, str]) -> None:
        from mlflow.entities import RunTag

        for batch in _batches([RunTag(key, value) for key, value in tags.items()], _PARAMS_A_BATCH):
            self._open().log_batch(mlflow_run_id, tags=batch)

    def _log_params(self, params: Mapping[str, str]) -> None:
        from mlflow.entities import Param

        for batch in _batches([Param(key, text) for key, text in params.items()], _PARAMS_A_BATCH):
            self._open().log_batch(self._run(), params=batch)

    def _log_metrics(self, metrics: Mapping[str, float]) -> None:
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        values = [
            Metric(_key(name), float(value), now, self._step)
            for name, value in metrics.items()
            if isinstance(cast("object", value), numbers.Real)  # what a method reports may be anything
        ]
        for batch in _batches(values, _METRICS_A_BATCH):
            self._open().log_batch(self._run(), metrics=batch)


def open_tracker(uri: str | None, *, output: Path) -> Tracker:
    """Choose the tracker of a run; nothing is opened or imported before the tracker's first use.

    Args:
        uri: An MLflow tracking URI; ``None`` or empty takes the environment's ``MLFLOW_TRACKING_URI``, else the SQLite
            file ``mlflow.db`` in the output folder; ``"none"`` turns tracking off.
        output: The folder of all results. Files go to ``mlartifacts`` in it, unless the store is a server.

    Returns:
        A tracker that never raises.

    Raises:
        InputError: The URI's scheme is none that MLflow knows (kind ``bad_tracking_uri``).

    Example:
        >>> open_tracker("none", output=Path("results"))  # doctest: +ELLIPSIS
        <petlbench.tracking.NullTracker object at ...>
    """
    chosen = uri or os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{output.absolute() / 'mlflow.db'}"
    if chosen == "none":
        return NullTracker()
    _check(chosen)
    return MlflowTracker(chosen, artifacts=output / "mlartifacts")


def _check(uri: str) -> None:
    scheme = "databricks" if uri == "databricks" else urlsplit(uri).scheme.partition("+")[0]
    if scheme in _SCHEMES or scheme in _plugin_schemes():
        return
    hint = "give http://HOST:PORT of a server, sqlite:////FOLDER/mlflow.db, or none"
    if re.match(r"^[\w.-]+:\d+(/|$)", uri):
        hint = f"did you mean http://{uri}?"
    raise InputError(
        f"tracking URI '{_without_password(uri)}' is not one MLflow knows", hint=hint, kind="bad_tracking_uri"
    )


def _plugin_schemes() -> set[str]:
    from importlib.metadata import entry_points

    return {point.name for point in entry_points(group="mlflow.tracking_store")}


def _configure_mlflow() -> None:
    defaults = {
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",  # MLflow's own defaults wait for minutes
        "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
        "MLFLOW_LOGGING_LEVEL": "ERROR",
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }
    for name, value in defaults.items():
        os.environ.setdefault(name, value)
    # Standard output may carry one JSON document: this one is no default but a must.
    os.environ["MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT"] = "true"


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep MLflow, its migrations and its retries off standard error: the one warning is ours."""
    loggers = [logging.getLogger(name) for name in _NOISY]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _lock(database: Path | None) -> contextlib.AbstractContextManager[Any]:
    """Let one process at a time into an SQLite file: MLflow creates its tables unguarded, and SQLite waits 5 s only."""
    if database is None:
        return contextlib.nullcontext()
    from filelock import FileLock

    database.parent.mkdir(parents=True, exist_ok=True)
    return FileLock(f"{database}.lock", timeout=_LOCK_SECONDS)


def _sqlite_file(uri: str) -> Path | None:
    if not uri.startswith("sqlite"):
        return None
    name = unquote(uri.partition(":///")[2].partition("?")[0])
    return Path(name) if name and name != ":memory:" else None


def _flat(params: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for name, value in params.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield _key(f"{prefix}{name}"), _shorten(str(value), _PARAM_LENGTH)


def _key(name: str) -> str:
    return re.sub(r"[^\w./ -]", "_", name)[:_KEY_LENGTH]


def _shorten(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"


def _batches(items: Sequence[_Item], size: int) -> Iterator[Sequence[_Item]]:
    for first in range(0, len(items), size):
        yield items[first : first + size]


def _without_password(uri: str) -> str:
    return re.sub(r"(?<=://)([^/@:]*):[^/@]*@", r"\1:***@", uri)


def _first_line(error: Exception) -> str:
    lines = _without_password(str(error)).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:200]}" if lines else type(error).__name__

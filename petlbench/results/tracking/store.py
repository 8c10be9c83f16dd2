"""An MLflow store: its address, how it is opened and kept quiet, and the experiments, runs and values in it."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import socket
import warnings
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import unquote, urlsplit

from petlbench.core.errors import InputError, RunError
from petlbench.core.file_lock import locked
from petlbench.core.text import without_folders, without_password
from petlbench.results.stored import flat
from petlbench.results.tracking.view import view_tags

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Metric, Run

RUN_ID_TAG = "petlbench.run_id"
KIND_TAG = "petlbench.kind"
GROUP_TAG = "petlbench.group"
PARENT_TAG = "mlflow.parentRunId"
_PLACE_TAG = "petlbench.place"
# What MLflow's pages show as the program that a run comes from.
_SOURCE = {"mlflow.source.name": "petlbench", "mlflow.source.type": "LOCAL"}
_LOGGED_TAG = "mlflow.loggedArtifacts"

_PARAM_LENGTH, _TAG_LENGTH, _KEY_LENGTH = 6000, 8000, 250
_DIGEST_LENGTH = 12  # characters: MLflow keeps 36, its own digests have 8, and its pages show all beside the name
_ITEMS_A_BATCH, _METRICS_A_BATCH, _RUNS_A_PAGE = 100, 1000, 1000
_FIRST_LOCK_SECONDS, _LOCK_SECONDS, _PROBE_SECONDS = 60.0, 10.0, 3.0
_NOISY = ("mlflow", "alembic", "sqlalchemy", "urllib3", "git")
_SCHEMES = ("databricks", "file", "http", "https", "mssql", "mysql", "postgresql", "sqlite")
_SERVERS = ("databricks", "http", "https")
# A path, and no HOST:PORT.
_FOLDER = re.compile(r"[^:]*")
_PORTS = {"postgresql": 5432, "mysql": 3306, "mssql": 1433}

_Item = TypeVar("_Item")


class Store:
    """An MLflow store; opened, and MLflow imported, at its first use.

    Every method raises what MLflow raises.

    Args:
        uri: An SQLite file, another database, or a server.
        output: The folder of all results. Artifacts of a store that is a database go to ``mlartifacts`` in it; a server
            keeps its own.
    """

    def __init__(self, uri: str, output: Path) -> None:
        self.uri = uri
        self.output = output
        self._place = f"{socket.gethostname()}:{output.absolute()}"
        self._database = sqlite_file(uri)
        self._client: MlflowClient | None = None

    @property
    def client(self) -> MlflowClient:
        """MLflow's own client of this store."""
        if self._client is None:
            _configure_mlflow()
            place = urlsplit(self.uri)
            if place.hostname and (port := _PORTS.get(_scheme(self.uri))):
                # Fail at once where no database answers: MLflow itself would try for a hundred seconds to open it.
                socket.create_connection((place.hostname, place.port or port), timeout=_PROBE_SECONDS).close()
            from mlflow import MlflowClient

            self._client = MlflowClient(tracking_uri=self.uri)
            self._remove_stray_folders()
        return self._client

    def _remove_stray_folders(self) -> None:
        """Remove the empty folders that MLflow makes of an address whose ``%`` it takes for itself."""
        stray = Path(self.uri.partition(":///")[2].partition("?")[0])
        if self._database is not None and stray != self._database:
            with contextlib.suppress(OSError):  # one that is not empty is none of them, nor are those above it
                for folder in stray.parents:
                    folder.rmdir()

    def prepare(self) -> None:
        """Import MLflow, which takes seconds, before there is something to say."""
        _configure_mlflow()
        import mlflow  # noqa: F401

    def lock(self) -> contextlib.AbstractContextManager[Any]:
        """Let one process at a time into an SQLite file: MLflow makes its tables unguarded, SQLite waits 5 s."""
        if self._database is None:
            return contextlib.nullcontext()
        self.prepare()  # seconds, in which others need not wait
        self._database.parent.mkdir(parents=True, exist_ok=True)
        seconds = _FIRST_LOCK_SECONDS if self._client is None else _LOCK_SECONDS
        return locked(self._database.with_name(f"{self._database.name}.lock"), seconds)

    def experiment(self, name: str) -> str:
        """Find or make an experiment, with the tags that its pages are shown by.

        Returns:
            MLflow's identifier of it.

        Raises:
            RunError: When it was deleted in the store; MLflow keeps its name.
        """
        from mlflow.exceptions import MlflowException

        experiment = self.client.get_experiment_by_name(name)
        if experiment is None:
            place = (self.output / "mlartifacts" / re.sub(r"[^\w.-]", "_", name)).absolute().as_uri()
            try:
                location = None if _scheme(self.uri) in _SERVERS else place
                return str(self.client.create_experiment(name, artifact_location=location, tags=view_tags()))
            except MlflowException:
                experiment = self.client.get_experiment_by_name(name)  # another process was quicker
                if experiment is None:
                    raise
        if experiment.lifecycle_stage == "deleted":
            raise RunError(f"experiment '{name}' was deleted there", hint="restore it or give another --study")
        for key, text in view_tags().items():
            if key not in experiment.tags:  # an older version made it
                self.client.set_experiment_tag(experiment.experiment_id, key, text)
        return str(experiment.experiment_id)

    def runs(self, experiment_id: str, **tags: str) -> list[Run]:
        """All runs of an experiment that have these tags, the oldest first, in an order that never changes.

        Args:
            experiment_id: MLflow's identifier.
            tags: Values by the last part of the tag's name: ``kind="trial"`` for ``petlbench.kind``.
        """
        return self._search(experiment_id, [f"tags.`petlbench.{name}` = '{value}'" for name, value in tags.items()])

    def running(self, experiment_id: str) -> list[Run]:
        """The runs of an experiment that nobody has closed, made from this output folder on this machine."""
        runs = self._search(experiment_id, ["attributes.status = 'RUNNING'"])
        return [run for run in runs if run.data.tags.get(_PLACE_TAG) == self._place]

    def _search(self, experiment_id: str, conditions: Sequence[str]) -> list[Run]:
        query = " and ".join(conditions)
        runs: list[Run] = []
        token = None
        while True:
            page = self.client.search_runs(
                [experiment_id], filter_string=query, max_results=_RUNS_A_PAGE, page_token=token
            )
            runs += page
            if not (token := page.token):
                return sorted(runs, key=lambda run: (run.info.start_time, run.info.run_id))

    def parent(self, experiment_id: str, group: str, tags: Mapping[str, str]) -> str:
        """Find or make the run under which the runs of a group are shown.

        Several processes may do this at once. Where two have made one each, all take the oldest, and whoever made
        another one removes it.

        Returns:
            MLflow's identifier of the run.
        """
        if parents := self.parents(experiment_id, group):
            return str(parents[0].info.run_id)
        own = {**tags, KIND_TAG: "group", GROUP_TAG: group}
        new = str(self.create(experiment_id, name=group, tags=own).info.run_id)
        oldest = str(self.parents(experiment_id, group)[0].info.run_id)
        if oldest != new:
            self.client.delete_run(new)
        return oldest

    def parents(self, experiment_id: str, group: str) -> list[Run]:
        """The runs that stand for a group, the oldest first; more than one only after a race."""
        return [run for run in self.runs(experiment_id, kind="group") if run.data.tags.get(GROUP_TAG) == group]

    def create(self, experiment_id: str, *, name: str, tags: Mapping[str, str], began: int | None = None) -> Run:
        """Make a run that began at a millisecond of the epoch, None for now; a tag's text that is too long is cut."""
        tags = {**tags, **_SOURCE, _PLACE_TAG: self._place}
        return self.client.create_run(experiment_id, start_time=began, tags=_tags(tags), run_name=name)

    def set_tags(self, mlflow_run_id: str, tags: Mapping[str, str]) -> None:
        """Set text of a run; what is too long is cut."""
        from mlflow.entities import RunTag

        for batch in _batches([RunTag(key, value) for key, value in _tags(tags).items()], _ITEMS_A_BATCH):
            self.client.log_batch(mlflow_run_id, tags=batch)

    def add_dataset(self, mlflow_run_id: str, result: Mapping[str, Any]) -> None:
        """Name the dataset of a run, as MLflow's page of a run and its search know datasets; again changes nothing.

        Args:
            mlflow_run_id: The run.
            result: What ``result.json`` holds.
        """
        from mlflow.data.code_dataset_source import CodeDatasetSource
        from mlflow.entities import Dataset, DatasetInput, InputTag

        config, data = result.get("config") or {}, result.get("data") or {}
        digest = str((result.get("digests") or {}).get("data") or "")[:_DIGEST_LENGTH]
        if not digest:
            return  # it failed before its images were read
        name = without_folders(str(config.get("dataset")))
        settings = {"title": data.get("title"), "settings": config.get("dataset_settings")}
        source = CodeDatasetSource({**_SOURCE, "dataset": name, **settings})  # which `mlflow.data.get_source` reads
        counts = {"num_rows": sum((data.get("images") or {}).values()), **(data.get("images") or {})}
        dataset = Dataset(name, digest, source._get_source_type(), source.to_json(), profile=json.dumps(counts))
        tags = [InputTag("mlflow.data.context", "training")]
        self.client.log_inputs(mlflow_run_id, datasets=[DatasetInput(dataset, tags)])

    def add_params(self, run: Run, params: Mapping[str, Any]) -> None:
        """Add parameters, nested mappings flattened; MLflow refuses to change one, so what stands there stays."""
        from mlflow.entities import Param

        texts = {_key(name): _shorten(str(value), _PARAM_LENGTH) for name, value in flat(params).items()}
        new = [Param(key, text) for key, text in texts.items() if key not in run.data.params]
        for batch in _batches(new, _ITEMS_A_BATCH):
            self.client.log_batch(run.info.run_id, params=batch)

    def add_metrics(self, mlflow_run_id: str, curve: Mapping[int, Mapping[str, float]], *, when: int) -> None:
        """Add points to metrics; adding the same point again changes nothing.

        Args:
            mlflow_run_id: The run.
            curve: Values by name, by their place on the curve.
            when: Their time in milliseconds of the epoch.
        """
        from mlflow.entities import Metric

        points = [Metric(_key(name), value, when, step) for step in curve for name, value in curve[step].items()]
        for batch in _batches(points, _METRICS_A_BATCH):
            self.client.log_batch(mlflow_run_id, metrics=batch)

    def history(self, mlflow_run_id: str, name: str) -> list[Metric]:
        """All points of one metric."""
        return list(self.client.get_metric_history(mlflow_run_id, _key(name)))

    def put_table(self, mlflow_run_id: str, rows: Sequence[Mapping[str, Any]], file: str) -> None:
        """Log rows as a table that MLflow's pages show, in the place of an older one, to a file ending in ``.json``.

        `MlflowClient.log_table` would append to an older one; the tag is the one that it sets.
        """
        import pandas as pd

        frame = pd.DataFrame.from_records(list(rows))
        self.client.log_text(mlflow_run_id, frame.to_json(orient="split", index=False), file)
        self.set_tags(mlflow_run_id, {_LOGGED_TAG: json.dumps([{"path": file, "type": "table"}])})


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep MLflow, its migrations and its retries off standard error: what is said of a failure, petlbench says."""
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


def choose_address(uri: str | None, output: Path) -> str:
    """The store's address, or ``none``: as asked for, else the environment's, else a file in the output folder."""
    return uri or os.environ.get("MLFLOW_TRACKING_URI") or sqlite_address(output / "mlflow.db")


def sqlite_address(file: Path) -> str:
    """The address of an SQLite database, in which ``%``, ``?`` and ``#`` of the file's name mean nothing else."""
    address = f"sqlite:///{file.absolute()}"
    if not re.search("[%?#]", address):
        return address
    from sqlalchemy.engine import URL  # which knows how its own version reads them

    return URL.create("sqlite", database=str(file.absolute())).render_as_string()


def check_address(uri: str) -> None:
    """Check that MLflow knows this kind of address, without going there.

    Raises:
        InputError: When it knows none such (kind ``bad_tracking_uri``), or a PostgreSQL driver is missing
            (``missing_extra``).
    """
    scheme = _scheme(uri)
    plugins = {point.name for point in entry_points(group="mlflow.tracking_store")}
    if (scheme == "file" and "MLFLOW_ALLOW_FILE_STORE" not in os.environ) or _FOLDER.fullmatch(uri):
        folder = Path(unquote(urlsplit(uri).path)).absolute()
        raise InputError(
            f"tracking URI '{uri}' is a folder, which MLflow takes no more runs into",
            hint=f"give {sqlite_address(folder / 'mlflow.db')}, http://HOST:PORT of a server, or none; "
            "mlflow migrate-filestore takes along what a folder such as mlruns holds",
            kind="bad_tracking_uri",
        )
    if scheme not in _SCHEMES and scheme not in plugins:
        hint = "give http://HOST:PORT of a server, sqlite:////FOLDER/mlflow.db, or none"
        if re.match(r"^[\w.-]+:\d+(/|$)", uri):
            hint = f"did you mean http://{uri}?"
        message = f"tracking URI '{without_password(uri)}' is not one MLflow knows"
        raise InputError(message, hint=hint, kind="bad_tracking_uri")
    if scheme == "postgresql" and not any(find_spec(name) for name in ("psycopg", "psycopg2")):
        message = f"tracking URI '{without_password(uri)}' needs a driver for PostgreSQL, and none is installed"
        raise InputError(message, hint="install the extra: pip install 'petlbench[postgres]'", kind="missing_extra")


def sqlite_file(uri: str) -> Path | None:
    """The file of an SQLite store; None for every other store."""
    if not uri.startswith("sqlite"):
        return None
    name = uri.partition(":///")[2].partition("?")[0]
    if "%" in name:
        from sqlalchemy.engine import make_url

        name = make_url(uri).database or ""
    return Path(name) if name and name != ":memory:" else None


def explain(error: Exception) -> str:
    """An error in one line, without passwords."""
    lines = without_password(str(error)).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:200]}" if lines else type(error).__name__


def _configure_mlflow() -> None:
    defaults = {
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",  # MLflow's own defaults wait for minutes
        "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
        "PGCONNECT_TIMEOUT": "5",
        "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
        "MLFLOW_LOGGING_LEVEL": "ERROR",
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }
    for name, value in defaults.items():
        os.environ.setdefault(name, value)
    # Standard output may carry one JSON document: this one is no default but a must.
    os.environ["MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT"] = "true"


def _tags(tags: Mapping[str, str]) -> dict[str, str]:
    return {_key(name): _shorten(str(value), _TAG_LENGTH) for name, value in tags.items()}


def _key(name: str) -> str:
    return re.sub(r"[^\w./ -]", "_", name)[:_KEY_LENGTH]


def _shorten(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"


def _batches(items: Sequence[_Item], size: int) -> Iterator[Sequence[_Item]]:
    for first in range(0, len(items), size):
        yield items[first : first + size]


def _scheme(uri: str) -> str:
    return "databricks" if uri == "databricks" else urlsplit(uri).scheme.partition("+")[0]

"""MLflow as a source: the results that the runs of an experiment carry."""

from __future__ import annotations

import logging
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from petlbench.core.errors import InputError
from petlbench.core.text import without_password
from petlbench.results.result import parse_result
from petlbench.results.tracking.store import KIND_TAG, RUN_ID_TAG, Store, check_address, explain, quiet, sqlite_file
from petlbench.results.tracking.tracker import RESULT_FOLDER, WHOLE_TAG

if TYPE_CHECKING:
    from mlflow.entities import Run

_DOWNLOADS = 8
_FILE = f"{RESULT_FOLDER}/result.json"

_logger = logging.getLogger("petlbench")


def read_tracked(uri: str, experiment: str) -> list[dict[str, Any]]:
    """Read the results of the runs of an experiment from the files that MLflow keeps of them.

    Of a run that was done again the newest is read. Trials of a search are left out, and runs under way have no result
    yet.

    Args:
        uri: The store's address.
        experiment: The experiment's name, a study's.

    Returns:
        Result documents as ``result.json`` holds them, in the order of their run ids.

    Raises:
        InputError: When the address is none, there is no such experiment (``unknown_experiment``), the store does not
            answer (``store_unreachable``), or it holds runs but none of their files can be had (``no_results``).
    """
    check_address(uri)
    if (file := sqlite_file(uri)) is not None and not file.exists():  # MLflow would make one
        raise InputError(f"there is no MLflow database {file}", hint="give the store's address", kind="no_such_store")
    store = Store(uri, Path())
    try:
        with quiet(), store.lock():
            runs = _newest(store, _experiment_id(store, experiment))
        with quiet(), TemporaryDirectory() as folder, ThreadPoolExecutor(_DOWNLOADS) as pool:
            read = pool.map(lambda run: _document(store, run, Path(folder, run.info.run_id)), runs)
            documents = [document for document in read if document is not None]
    except InputError:
        raise
    except Exception as error:
        raise InputError(
            f"the MLflow store {without_password(uri)} cannot be read ({explain(error)})",
            hint="check that it is running and that the address is right",
            kind="store_unreachable",
        ) from error
    if runs and not documents:
        raise InputError(
            f"experiment '{experiment}' has {len(runs)} runs but none with a {_FILE} that can be read",
            hint="files of a store without a server lie on the machine that wrote them: read the results there",
            kind="no_results",
        )
    if missing := len(runs) - len(documents):
        _logger.warning("%d runs of experiment '%s' have no result to read yet", missing, experiment)
    return documents


def _experiment_id(store: Store, name: str) -> str:
    experiment = store.client.get_experiment_by_name(name)
    if experiment is not None and experiment.lifecycle_stage == "active":
        return str(experiment.experiment_id)
    names = sorted(experiment.name for experiment in store.client.search_experiments())
    raise InputError(
        f"there is no experiment '{name}' in {without_password(store.uri)}",
        hint=f"it has: {', '.join(names)}",
        kind="unknown_experiment",
    )


def _newest(store: Store, experiment_id: str) -> list[Run]:
    by_name: dict[str, Run] = {}
    # A longer run that ended later may have begun earlier, where both are taken down afterwards.
    for run in sorted(store.runs(experiment_id), key=lambda run: run.info.end_time or 0):
        if RUN_ID_TAG in run.data.tags and run.data.tags.get(KIND_TAG, "run") == "run":
            name = run.data.tags[RUN_ID_TAG]
            if name not in by_name or WHOLE_TAG in run.data.tags:  # one under way does not hide one that is done
                by_name[name] = run
    return [by_name[name] for name in sorted(by_name)]


def _document(store: Store, run: Run, folder: Path) -> dict[str, Any] | None:
    from mlflow.exceptions import MlflowException

    folder.mkdir()
    try:
        file = store.client.download_artifacts(run.info.run_id, _FILE, str(folder))
    except (MlflowException, OSError):
        return None
    try:
        return parse_result(Path(file).read_bytes(), f"{_FILE} of {run.info.run_name}").document()
    except InputError as error:
        _logger.warning("passed over: %s", error.message)
        return None

"""Stores for the tests of tracking."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from petlbench.results.tracking.send_queue import open_queue
from petlbench.results.tracking.tracker import Tracker
from tests.results.tracking.servers import MlflowServer, PostgresServer


@pytest.fixture(autouse=True)
def own_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")


@pytest.fixture(scope="session")
def new_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with MLflow's tables and nothing in them; making these takes seconds."""
    folder = tmp_path_factory.mktemp("store")
    tracker = Tracker(open_queue(f"sqlite:///{folder}/mlflow.db", folder))
    tracker.start("first", "first", {}, {})
    assert tracker.delivered
    return folder / "mlflow.db"


@pytest.fixture
def output(tmp_path: Path, new_database: Path) -> Path:
    """A folder of results whose default store has its tables."""
    folder = tmp_path / "results"
    folder.mkdir()
    shutil.copy(new_database, folder / "mlflow.db")
    return folder


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory, new_database: Path) -> Iterator[MlflowServer]:
    """An MLflow server with SQLite behind it; a test that kills it starts it again."""
    folder = tmp_path_factory.mktemp("server")
    shutil.copy(new_database, folder)
    running = MlflowServer(folder, f"sqlite:///{folder}/mlflow.db")
    try:
        running.start()
        yield running
    finally:
        running.kill()


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgresServer]:
    """A PostgreSQL server; a test that kills it starts it again."""
    running = PostgresServer(tmp_path_factory.mktemp("postgres"))
    try:
        running.start()
        yield running
    finally:
        running.kill()

"""Tracking against a real SQLite store, a real server on the loopback address, and servers that fail."""

from __future__ import annotations

import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from petlbench.errors import InputError
from petlbench.tracking import MlflowTracker, NullTracker, open_tracker

CONFIG = {"method": "fpt", "epochs": 2, "set": {"num_prompts": 16}, "notes": "x" * 7000}


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An output folder with one SQLite store in it; its first migration takes seconds."""
    return tmp_path_factory.mktemp("output")


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")


def open_mlflow(uri: str | None, output: Path) -> MlflowTracker:
    tracker = open_tracker(uri, output=output)
    assert isinstance(tracker, MlflowTracker)
    return tracker


def result_folder(parent: Path) -> Path:
    folder = parent / "run-1"
    folder.mkdir()
    (folder / "result.json").write_text("{}")
    return folder


def read(tracker: MlflowTracker) -> Any:
    """The run as a client of its own sees it."""
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=tracker.uri)
    assert tracker.mlflow_run_id is not None
    return client, client.get_run(tracker.mlflow_run_id)


def check_whole_run(uri: str | None, output: Path, folder: Path) -> MlflowTracker:
    tracker = open_mlflow(uri, output)
    tracker.start("run-1", "study", CONFIG, {"dataset": "isic2018"})
    tracker.log_epoch(1, {"val.auc": 0.5, "train.loss": float("nan")})
    tracker.log_epoch(2, {"val.auc": 0.75, "selected": "yes"})  # type: ignore[dict-item]
    tracker.finish("finished", {"test.auc": 0.7, "test.kappa": None}, folder)  # type: ignore[dict-item]
    client, run = read(tracker)
    assert tracker.active
    assert run.info.status == "FINISHED"
    assert run.data.params["set.num_prompts"] == "16"
    assert run.data.params["notes"] == "x" * 5999 + "…"
    assert run.data.tags["petlbench.run_id"] == "run-1"
    assert run.data.tags["petlbench.status"] == "finished"
    assert run.data.tags["dataset"] == "isic2018"
    curve = client.get_metric_history(run.info.run_id, "val.auc")
    assert [(point.step, point.value) for point in curve] == [(1, 0.5), (2, 0.75)]
    assert run.data.metrics["test.auc"] == 0.7
    assert "test.kappa" not in run.data.metrics
    assert [file.path for file in client.list_artifacts(run.info.run_id, "result")] == ["result/result.json"]
    return tracker


def test_a_run_is_kept_in_sqlite_and_nothing_is_printed(
    output: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    check_whole_run(None, output, result_folder(tmp_path))
    printed = capfd.readouterr()
    assert (printed.out, printed.err) == ("", "")
    assert (output / "mlflow.db").exists()
    assert list((output / "mlartifacts").rglob("result.json"))
    assert not any(elsewhere.iterdir())


@pytest.mark.parametrize("interrupted", [False, True])
def test_a_resumed_run_goes_on_where_it_stopped(output: Path, *, interrupted: bool) -> None:
    run_id = f"resumed-{interrupted}"
    first = open_mlflow(None, output)
    first.start(run_id, "study", CONFIG, {})
    first.log_epoch(1, {"val.auc": 0.5})
    if interrupted:
        first.finish("interrupted", {}, None)
        assert read(first)[1].info.status == "KILLED"
    second = open_mlflow(None, output)
    second.start(run_id, "study", {**CONFIG, "epochs": 3, "added": 1}, {})
    second.log_epoch(1, {"val.auc": 0.5})
    second.log_epoch(2, {"val.auc": 0.6})
    assert second.mlflow_run_id == first.mlflow_run_id
    assert second.active
    _, run = read(second)
    assert run.info.status == "RUNNING"
    assert run.data.params["epochs"] == "2"
    assert run.data.params["added"] == "1"
    assert run.data.metrics["val.auc"] == 0.6


def test_a_finished_run_is_not_touched_again(output: Path) -> None:
    first = open_mlflow(None, output)
    first.start("again", "study", {}, {})
    first.finish("finished", {}, None)
    second = open_mlflow(None, output)
    second.start("again", "study", {}, {})
    assert second.mlflow_run_id != first.mlflow_run_id


@pytest.mark.parametrize(
    ("status", "expected"), [("oom", "FAILED"), ("failed", "FAILED"), ("killed", "KILLED"), ("timeout", "FAILED")]
)
def test_a_status_is_translated_and_kept(output: Path, status: str, expected: str) -> None:
    tracker = open_mlflow(None, output)
    tracker.start(f"status-{status}", "study", {}, {})
    tracker.finish(status, {}, None)
    _, run = read(tracker)
    assert run.info.status == expected
    assert run.data.tags["petlbench.status"] == status


def test_many_params_metrics_and_strange_names_fit(output: Path) -> None:
    tracker = open_mlflow(None, output)
    tracker.start("many", "study", {f"p{i}": i for i in range(230)} | {"a(b)": 1}, {"long": "x" * 9000})
    tracker.log_epoch(1, {f"m{i}": i for i in range(1200)} | {"x[0]": 1.0})
    _, run = read(tracker)
    assert tracker.active
    assert len(run.data.params) == 231
    assert run.data.params["a_b_"] == "1"
    assert len(run.data.metrics) == 1201


@pytest.mark.slow
def test_processes_that_start_at_once_share_one_store(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from petlbench.tracking import open_tracker\n"
        "t = open_tracker(None, output=Path(sys.argv[1])); t.start(sys.argv[2], 'study', {'a': 1}, {})\n"
        "t.log_epoch(1, {'m': 1.0}); t.finish('finished', {}, None); sys.exit(0 if t.active else 1)"
    )
    children = [subprocess.Popen([sys.executable, "-c", program, str(tmp_path), f"run-{i}"]) for i in range(2)]
    assert [child.wait(timeout=120) for child in children] == [0, 0]


def test_a_server_that_is_down_costs_one_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    tracker = open_mlflow(f"http://127.0.0.1:{free_port()}", tmp_path)
    begun = time.monotonic()
    with caplog.at_level(logging.WARNING, logger="petlbench"):
        tracker.start("run", "study", CONFIG, {})
        tracker.log_epoch(1, {"val.auc": 0.5})
        tracker.finish("finished", {}, tmp_path)
    assert time.monotonic() - begun < 15
    assert not tracker.active
    [message] = [record.getMessage() for record in caplog.records if record.name == "petlbench"]
    assert tracker.uri in message
    assert "--tracking-uri" in message
    assert capfd.readouterr().out == ""


@pytest.mark.parametrize("reply", [b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nConnection: close\r\n\r\n", b""])
def test_a_server_that_refuses_or_hangs_up_costs_one_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, reply: bytes
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=answer_all, args=(server, reply), daemon=True).start()
        tracker = open_mlflow(f"http://user:secret@127.0.0.1:{server.getsockname()[1]}", tmp_path)
        tracker.start("run", "study", {}, {})
        tracker.finish("finished", {}, None)
    [message] = [record.getMessage() for record in caplog.records if record.name == "petlbench"]
    assert not tracker.active
    assert "secret" not in message


def test_a_store_that_cannot_be_written_costs_one_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("")
    tracker = open_mlflow(f"sqlite:///{tmp_path}/file/mlflow.db", tmp_path)
    tracker.start("run", "study", {}, {})
    assert not tracker.active
    assert len(caplog.records) == 1


def test_none_turns_tracking_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tracker = open_tracker("none", output=tmp_path)
    tracker.start("run", "study", {}, {})
    tracker.log_epoch(1, {})
    tracker.finish("finished", {}, None)
    assert not any(tmp_path.iterdir())
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "none")
    assert isinstance(open_tracker(None, output=tmp_path), NullTracker)


def test_the_environment_names_the_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://mlflow.example.org")
    assert open_mlflow(None, tmp_path).uri == "https://mlflow.example.org"
    assert open_mlflow("http://localhost:5000", tmp_path).uri == "http://localhost:5000"


@pytest.mark.parametrize("uri", ["htp://server", "localhost:5000", "mlruns", "/tmp/mlruns", "sqlite3:///x.db"])
def test_an_unknown_scheme_is_bad_input(uri: str, tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        open_tracker(uri, output=tmp_path)
    assert caught.value.kind == "bad_tracking_uri"
    assert uri in caught.value.message
    assert caught.value.hint


def test_importing_the_module_is_light() -> None:
    program = "import sys, petlbench.tracking; sys.exit(bool({'mlflow', 'torch', 'sqlalchemy'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


@pytest.mark.slow
def test_a_run_is_kept_by_a_real_server(server: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    tracker = check_whole_run(server, tmp_path, result_folder(tmp_path))
    _, run = read(tracker)
    assert run.info.artifact_uri.startswith("mlflow-artifacts:")
    assert capfd.readouterr().out == ""
    assert not (tmp_path / "mlartifacts").exists()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of an MLflow server with SQLite behind it."""
    folder, port = tmp_path_factory.mktemp("server"), free_port()
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{folder}/mlflow.db", "--artifacts-destination", str(folder / "art")]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder, start_new_session=True)
    try:
        wait_until_healthy(f"http://127.0.0.1:{port}", process, folder / "log")
        yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)


def wait_until_healthy(address: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with urllib.request.urlopen(f"{address}/health", timeout=5):
                return
        except OSError:
            time.sleep(0.3)
    pytest.fail(f"the server did not start: {log.read_text(errors='replace')[-2000:]}")


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def answer_all(server: socket.socket, reply: bytes) -> None:
    while True:
        try:
            connection, _ = server.accept()
        except OSError:
            return
        with connection:
            connection.recv(65536)
            connection.sendall(reply)

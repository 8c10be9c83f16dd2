"""The tracker against a real SQLite store, and against servers that fail."""

from __future__ import annotations

import json
import logging
import shutil
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from petlbench.core.errors import InputError
from petlbench.results.folder import RunFolder
from petlbench.results.tracking.send_queue import open_queue
from petlbench.results.tracking.tracker import Tracker
from tests.results.tracking.servers import free_port

CONFIG = {"method": "fpt", "epochs": 2, "set": {"num_prompts": 16}, "notes": "x" * 7000}


def open_mlflow(uri: str | None, output: Path) -> Tracker:
    return Tracker(open_queue(uri, output))


def result_folder(parent: Path) -> Path:
    folder = parent / "run-1"
    folder.mkdir()
    (folder / "result.json").write_text("{}")
    return folder


def read(tracker: Tracker) -> Any:
    """The run as a client of its own sees it."""
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=tracker.uri)
    assert tracker.mlflow_run_id is not None
    return client, client.get_run(tracker.mlflow_run_id)


def check_whole_run(uri: str | None, output: Path, folder: Path) -> Tracker:
    tracker = open_mlflow(uri, output)
    tracker.start("run-1", "study", CONFIG, {"dataset": "isic2018"})
    tracker.log_epoch(1, {"val.auc": 0.5, "train.loss": float("nan")})
    tracker.log_epoch(2, {"val.auc": 0.75, "selected": "yes"})  # type: ignore[dict-item]
    tracker.finish("finished", {"test.auc": 0.7, "test.kappa": None}, folder)  # type: ignore[dict-item]
    client, run = read(tracker)
    assert tracker.delivered
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
    assert not list(output.rglob("*.lock"))
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
    assert second.delivered
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
    assert tracker.delivered
    assert len(run.data.params) == 231
    assert run.data.params["a_b_"] == "1"
    assert len(run.data.metrics) == 1201


@pytest.mark.slow
def test_processes_that_start_at_once_share_one_store(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from petlbench.results.tracking.tracker import Tracker\n"
        "from petlbench.results.tracking.send_queue import open_queue\n"
        "t = Tracker(open_queue(None, Path(sys.argv[1]))); t.start(sys.argv[2], 'study', {'a': 1}, {})\n"
        "t.log_epoch(1, {'m': 1.0}); t.finish('finished', {}, None); sys.exit(0 if t.delivered else 1)"
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
    assert not tracker.delivered
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
    assert not tracker.delivered
    assert "secret" not in message


def test_a_store_that_cannot_be_written_costs_one_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("")
    tracker = open_mlflow(f"sqlite:///{tmp_path}/file/mlflow.db", tmp_path)
    tracker.start("run", "study", {}, {})
    assert not tracker.delivered
    assert len(caplog.records) == 1


def test_none_turns_tracking_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tracker = Tracker(open_queue("none", tmp_path))
    tracker.start("run", "study", {}, {})
    tracker.log_epoch(1, {})
    tracker.finish("finished", {}, None)
    assert not any(tmp_path.iterdir())
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "none")
    assert Tracker(open_queue(None, tmp_path)).uri == "none"


def test_the_environment_names_the_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://mlflow.example.org")
    assert open_mlflow(None, tmp_path).uri == "https://mlflow.example.org"
    assert open_mlflow("http://localhost:5000", tmp_path).uri == "http://localhost:5000"


@pytest.mark.parametrize("uri", ["htp://server", "localhost:5000", "mlruns", "/tmp/mlruns", "sqlite3:///x.db"])
def test_an_unknown_scheme_is_bad_input(uri: str, tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        Tracker(open_queue(uri, tmp_path))
    assert caught.value.kind == "bad_tracking_uri"
    assert uri in caught.value.message
    assert caught.value.hint


@pytest.mark.parametrize("uri", ["mlruns", "./mlruns", "/tmp/mlruns", "file:///tmp/mlruns"])
def test_a_folder_is_no_store_and_the_error_says_what_is(uri: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is a folder") as caught:
        Tracker(open_queue(uri, tmp_path))
    assert "/mlruns/mlflow.db" in caught.value.hint
    assert "migrate-filestore" in caught.value.hint


@pytest.mark.parametrize("name", ["My%20Drive", "a?b#c", "100 %"])
def test_the_store_lies_in_the_output_folder_whatever_that_is_called(
    tmp_path: Path, new_database: Path, name: str
) -> None:
    output = tmp_path / name
    output.mkdir()
    shutil.copy(new_database, output)
    before = sorted(tmp_path.iterdir())
    tracker = open_mlflow(None, output)
    tracker.start("odd", "study", {}, {})
    tracker.finish("finished", {}, result_folder(tmp_path / name))
    assert tracker.delivered
    assert sorted(tmp_path.iterdir()) == before
    assert len(list((output / "mlartifacts").rglob("result.json"))) == 1
    [run] = read(tracker)[0].search_runs([read(tracker)[1].info.experiment_id])
    assert run.info.status == "FINISHED"


def test_what_killed_runs_left_open_is_closed_by_the_next_command(output: Path) -> None:
    killed, alive, away, last = (open_mlflow(None, output) for _ in range(4))
    killed.start("killed", "study", {}, {}, group="fpt on digits")
    alive.start("alive", "study", {}, {}, group="lora on digits")
    away.start("away", "study", {}, {})
    read(away)[0].set_tag(away.mlflow_run_id, "petlbench.place", "elsewhere:/results")
    with RunFolder(output, "alive").locked():
        last.start("last", "study", {}, {})
        last.finish("finished", {}, None)
    assert last.delivered
    client, run = read(last)
    runs = {each.info.run_name: each for each in client.search_runs([run.info.experiment_id])}
    statuses = {name: each.info.status for name, each in runs.items()}
    assert statuses == {
        "killed": "KILLED",
        "fpt on digits": "KILLED",
        "alive": "RUNNING",
        "lora on digits": "RUNNING",
        "away": "RUNNING",
        "last": "FINISHED",
    }
    assert runs["killed"].data.tags["petlbench.status"] == "killed"
    again = open_mlflow(None, output)
    again.start("killed", "study", {}, {})
    assert again.mlflow_run_id == killed.mlflow_run_id


def test_importing_the_module_is_light() -> None:
    program = """
import sys, petlbench.results.tracking.tracker
sys.exit(bool({'mlflow', 'torch', 'sqlalchemy'} & set(sys.modules)))
"""
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def answer_all(server: socket.socket, reply: bytes) -> None:
    while True:
        try:
            connection, _ = server.accept()
        except OSError:
            return
        with connection:
            connection.recv(65536)
            connection.sendall(reply)


def test_what_a_store_that_was_away_missed_is_sent_later(
    tmp_path: Path, new_database: Path, caplog: pytest.LogCaptureFixture
) -> None:
    place = tmp_path / "place"
    place.write_text("")  # no folder yet
    tracker = open_mlflow(f"sqlite:///{place}/mlflow.db", tmp_path)
    tracker.start("away", "study", CONFIG, {"method": "fpt"}, group="fpt on digits")
    tracker.log_epoch(1, {"val_auc": 0.5})
    assert tracker.mlflow_run_id is None
    place.unlink()
    place.mkdir()
    shutil.copy(new_database, place / "mlflow.db")
    tracker.log_epoch(2, {"val_auc": 0.6})
    tracker.finish("finished", {"test_auc": 0.7}, result_folder(tmp_path))
    assert tracker.delivered
    client, run = read(tracker)
    curve = client.get_metric_history(run.info.run_id, "val_auc")
    assert [(point.step, point.value) for point in curve] == [(1, 0.5), (2, 0.6)]
    assert run.info.status == "FINISHED"
    assert run.data.metrics["test_auc"] == 0.7
    assert [file.path for file in client.list_artifacts(run.info.run_id, "result")] == ["result/result.json"]
    assert len(caplog.records) == 1


def test_a_locked_database_stops_a_run_for_a_moment_only(
    output: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from filelock import FileLock

    from petlbench.results.tracking import store

    monkeypatch.setattr(store, "_LOCK_SECONDS", 0.2)
    tracker = open_mlflow(None, output)
    tracker.start("locked", "study", {}, {})
    with FileLock(output / "mlflow.db.lock"):
        begun = time.monotonic()
        for epoch in range(1, 9):
            tracker.log_epoch(epoch, {"val_auc": epoch / 100})
        assert time.monotonic() - begun < 3
    tracker.finish("finished", {}, None)
    client, run = read(tracker)
    assert [point.step for point in client.get_metric_history(run.info.run_id, "val_auc")] == list(range(1, 9))
    assert not caplog.records


def test_epochs_that_an_earlier_attempt_could_not_send_are_sent_at_the_end(output: Path) -> None:
    first = open_mlflow(None, output)
    first.start("curve", "study", {}, {})
    first.log_epoch(1, {"val_auc": 0.5})
    second = open_mlflow(None, output)  # the first was killed before it could send epoch 2
    second.start("curve", "study", {}, {})
    second.log_epoch(3, {"val_auc": 0.7})
    curve = [{"epoch": epoch, "val_auc": 0.4 + epoch / 10} for epoch in (1, 2, 3)]
    second.finish("finished", {}, None, curve=curve)
    client, run = read(second)
    told = sorted(point.step for point in client.get_metric_history(run.info.run_id, "val_auc"))
    assert told == [1, 2, 3]


def test_runs_of_one_method_and_dataset_have_one_parent(output: Path) -> None:
    tags = {"method": "fpt", "dataset": "Digits", "synthetic": "true"}
    children = []
    for run_id in ("seed-0", "seed-1"):
        children.append(open_mlflow(None, output))
        children[-1].start(run_id, "table 2's", {}, tags, group="fpt on bob's digits")
    client, _ = read(children[0])
    [experiment] = client.search_experiments(filter_string="name LIKE 'table%'")
    runs = {run.info.run_name: run for run in client.search_runs([experiment.experiment_id])}
    assert set(runs) == {"fpt on bob's digits", "seed-0", "seed-1"}
    parent = runs["fpt on bob's digits"]
    assert parent.data.tags["method"] == "fpt"
    for run_id in ("seed-0", "seed-1"):
        assert runs[run_id].data.tags["mlflow.parentRunId"] == parent.info.run_id


def test_a_trial_and_a_run_of_one_config_are_two_records(output: Path) -> None:
    trial, run = open_mlflow(None, output), open_mlflow(None, output)
    trial.start("same", "sweep", {}, {"petlbench.kind": "trial"})
    run.start("same", "sweep", {}, {"petlbench.kind": "run"})
    assert trial.mlflow_run_id != run.mlflow_run_id


def test_a_deleted_experiment_is_named(output: Path, caplog: pytest.LogCaptureFixture) -> None:
    first = open_mlflow(None, output)
    first.start("one", "gone", {}, {})
    client, run = read(first)
    client.delete_experiment(run.info.experiment_id)
    second = open_mlflow(None, output)
    second.start("two", "gone", {}, {})
    second.log_epoch(1, {"val_auc": 0.5})
    second.finish("finished", {}, None)
    [record] = caplog.records
    assert "'gone' was deleted" in record.getMessage()
    assert "petlbench results track two" in record.getMessage()


def test_mlflow_shows_trained_models_and_knows_the_dataset(output: Path, tmp_path: Path) -> None:
    folder = result_folder(tmp_path)
    data = {"title": "My images", "images": {"train": 70, "val": 10, "test": 20}}
    result = {"config": {"dataset": "/home/jane/my images"}, "data": data, "digests": {"data": "0123" * 16}}
    (folder / "result.json").write_text(json.dumps(result))
    tracker = check_whole_run(None, output, folder)
    client, run = read(tracker)
    tags = client.get_experiment(run.info.experiment_id).tags
    assert tags["mlflow.experimentKind"] == "custom_model_development"
    assert tags["mlflow.experiment.primaryMetric.name"] == "test_auc"
    [entry] = run.inputs.dataset_inputs
    assert (entry.dataset.name, entry.dataset.digest) == ("my images", "0123" * 3)
    assert json.loads(entry.dataset.profile)["num_rows"] == 100
    assert "jane" not in entry.dataset.source
    from mlflow.data import get_source

    assert get_source(entry.dataset).to_dict()["tags"]["title"] == "My images"
    assert run.data.tags["mlflow.source.name"] == "petlbench"
    assert [tag.value for tag in entry.tags] == ["training"]

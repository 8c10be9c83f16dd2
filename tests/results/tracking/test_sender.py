"""The process that sends: the same record as from within, nothing lost with a kill, and nothing left behind."""

from __future__ import annotations

import logging
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from petlbench.results.tracking import sender
from petlbench.results.tracking.sender import close_sender, open_tracker
from petlbench.results.tracking.store import sqlite_address
from tests.results.tracking.servers import free_port
from tests.results.tracking.test_study_tracking import client_of, runs_of
from tests.results.tracking.test_tracker import CONFIG, check_whole_run, result_folder


@pytest.fixture(autouse=True)
def no_process_left() -> Iterator[None]:
    yield
    close_sender()


def process() -> subprocess.Popen[bytes]:
    return sender._senders[0]._process


def eventually(true: Callable[[], bool]) -> bool:
    until = time.monotonic() + 60
    while not true() and time.monotonic() < until:
        time.sleep(0.1)
    return true()


def report(output: Path, uri: str | None = None) -> tuple[Any, float]:
    tracker, began = open_tracker(uri, output), resource.getrusage(resource.RUSAGE_SELF)
    tracker.prepare()
    tracker.start("run-1", "study", CONFIG, {"dataset": "isic2018"})
    tracker.log_epoch(1, {"val.auc": 0.5, "train.loss": float("nan")})
    tracker.log_epoch(2, {"val.auc": 0.75, "selected": "yes"})  # type: ignore[dict-item]
    tracker.finish("finished", {"test.auc": 0.7, "test.kappa": None}, output / "run-1")  # type: ignore[dict-item]
    ended = resource.getrusage(resource.RUSAGE_SELF)
    return tracker, ended.ru_utime + ended.ru_stime - began.ru_utime - began.ru_stime


def plain(output: Path) -> dict[str, Any]:
    """What a store has of a run, without what differs from one time to the next."""
    run = runs_of(sqlite_address(output / "mlflow.db"), "study")["run-1"]
    client = client_of(sqlite_address(output / "mlflow.db"))
    names = [name for name in run.data.tags if name != "petlbench.place" and name.startswith(("petlbench", "dataset"))]
    history = {name: client.get_metric_history(run.info.run_id, name) for name in run.data.metrics}
    return {
        "status": run.info.status,
        "params": run.data.params,
        "tags": {name: run.data.tags[name] for name in names},
        "metrics": {name: [(point.step, repr(point.value)) for point in points] for name, points in history.items()},
        "files": [file.path for file in client.list_artifacts(run.info.run_id, "result")],
    }


def test_the_record_is_that_of_a_tracker_within_and_costs_the_run_next_to_nothing(
    output: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    within = tmp_path / "within"
    within.mkdir()
    (within / "mlflow.db").write_bytes((output / "mlflow.db").read_bytes())
    check_whole_run(None, within, result_folder(within))
    result_folder(output)
    tracker, seconds = report(output)
    assert tracker.delivered
    assert seconds < 0.3
    assert plain(output) == plain(within)
    assert not caplog.records
    assert capfd.readouterr() == ("", "")


def test_a_killed_run_loses_nothing_and_leaves_no_process(output: Path) -> None:
    code = (
        "import os, signal, sys; from pathlib import Path\n"
        "from petlbench.results.tracking import sender\n"
        "tracker = sender.open_tracker(None, Path(sys.argv[1]))\n"
        "tracker.start('killed', 'study', {'a': 1}, {})\n"
        "for epoch in (1, 2, 3): tracker.log_epoch(epoch, {'val_auc': epoch / 10})\n"
        "print(sender._senders[0]._process.pid, flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    run = subprocess.run([sys.executable, "-c", code, str(output)], stdout=subprocess.PIPE, check=False)
    assert run.returncode == -signal.SIGKILL
    folder = Path("/proc", run.stdout.decode().strip())
    assert eventually(lambda: not folder.exists())
    uri = sqlite_address(output / "mlflow.db")
    record = runs_of(uri, "study")["killed"]
    points = client_of(uri).get_metric_history(record.info.run_id, "val_auc")
    assert [point.step for point in points] == [1, 2, 3]


def test_a_sender_that_is_killed_is_replaced_and_told_everything(
    output: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tracker = open_tracker(None, output)
    tracker.start("again", "study", {"a": 1}, {})
    first = process()
    tracker.log_epoch(1, {"val_auc": 0.1})
    os.kill(first.pid, signal.SIGKILL)
    tracker.log_epoch(2, {"val_auc": 0.2})
    tracker.finish("finished", {"test_auc": 0.7}, None)
    assert tracker.delivered
    assert process().pid != first.pid
    uri = sqlite_address(output / "mlflow.db")
    record = runs_of(uri, "study")["again"]
    points = client_of(uri).get_metric_history(record.info.run_id, "val_auc")
    assert [point.step for point in points] == [1, 2]
    assert record.info.status == "FINISHED"
    assert not caplog.records


def test_runs_of_one_store_share_a_process_that_ends_with_the_last(output: Path, tmp_path: Path) -> None:
    first, second = open_tracker(None, output), open_tracker(None, output)
    first.start("one", "study", {}, {})
    first.finish("finished", {}, None)
    shared = process()
    second.start("two", "study", {}, {})
    second.finish("finished", {}, None)
    assert process() is shared
    assert (first.delivered, second.delivered) == (True, True)
    open_tracker(sqlite_address(tmp_path / "other.db"), tmp_path).prepare()
    assert process() is not shared
    assert shared.wait(timeout=60) == 0


def test_a_store_that_is_down_costs_one_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, logger="petlbench"):
        tracker, _ = report(tmp_path, f"http://user:secret@127.0.0.1:{free_port()}")
    assert not tracker.delivered
    [message] = [record.getMessage() for record in caplog.records if record.name == "petlbench"]
    assert "petlbench results track run-1" in message
    assert "secret" not in message


def test_tracking_that_is_off_starts_nothing(tmp_path: Path) -> None:
    report(tmp_path, "none")
    assert not sender._senders
    assert not any(tmp_path.iterdir())

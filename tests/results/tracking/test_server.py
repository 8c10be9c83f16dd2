"""Tracking over HTTP to a real ``mlflow server``, which is killed, restarted and stopped while runs report to it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import requests

from petlbench.core.errors import InputError
from petlbench.results.tracking.backfill import track_results, track_study
from petlbench.results.tracking.read import read_tracked
from petlbench.results.tracking.tracker import Tracker
from petlbench.results.tracking.view import page_address
from tests.parts import find_program
from tests.results.tracking.results import make, store
from tests.results.tracking.servers import MlflowServer, PostgresServer
from tests.results.tracking.test_study_tracking import check_study, client_of, runs_of
from tests.results.tracking.test_tracker import check_whole_run, open_mlflow, result_folder

pytestmark = pytest.mark.slow

OUTAGE = 30.0
SLOW_PAGE = 120_000  # milliseconds: on a machine that is busy


@pytest.mark.short
def test_a_run_is_kept_and_nothing_is_printed(
    server: MlflowServer, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    tracker = check_whole_run(server.uri, tmp_path, result_folder(tmp_path))
    run = client_of(server.uri).get_run(tracker.mlflow_run_id)
    assert run.info.artifact_uri.startswith("mlflow-artifacts:")
    assert capfd.readouterr().out == ""
    assert not (tmp_path / "mlartifacts").exists()


def test_a_study_is_shown_and_read_again(server: MlflowServer, tmp_path: Path) -> None:
    check_study(server.uri, tmp_path / "results", tmp_path)
    found = requests.get(
        f"{server.uri}/api/2.0/mlflow/experiments/get-by-name", {"experiment_name": "table-2"}, timeout=20
    ).json()
    body = {"experiment_ids": [found["experiment"]["experiment_id"]], "filter": "tags.`mlflow.parentRunId` != ''"}
    runs = requests.post(f"{server.uri}/api/2.0/mlflow/runs/search", json=body, timeout=20).json()["runs"]
    assert len(runs) == 5


def report_a_run(tracker: Tracker, run_id: str, seconds: float, folder: Path) -> float:
    """Report an epoch every half second; returns the longest that one report took."""
    tracker.start(run_id, "outages", {"a": 1}, {}, group="fpt on digits")
    longest, deadline, epoch = 0.0, time.monotonic() + seconds, 0
    while time.monotonic() < deadline:
        epoch += 1
        began = time.monotonic()
        tracker.log_epoch(epoch, {"val_auc": epoch / 1000})
        longest = max(longest, time.monotonic() - began)
        time.sleep(0.5)
    tracker.finish("finished", {"test_auc": 0.7}, folder)
    return longest


def check_nothing_is_lost(uri: str, tracker: Tracker, run_id: str) -> None:
    assert tracker.delivered
    client, run = client_of(uri), runs_of(uri, "outages")[run_id]
    steps = [point.step for point in client.get_metric_history(run.info.run_id, "val_auc")]
    assert steps == list(range(1, len(steps) + 1))
    assert run.info.status == "FINISHED"
    assert run.data.metrics["test_auc"] == 0.7
    assert [file.path for file in client.list_artifacts(run.info.run_id, "result")] == ["result/result.json"]


def test_a_server_that_is_killed_and_started_again_within_a_run(
    server: MlflowServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def fail() -> None:
        time.sleep(3)
        server.kill()
        time.sleep(OUTAGE)
        server.start()

    tracker = open_mlflow(server.uri, tmp_path)
    outage = threading.Thread(target=fail)
    outage.start()
    longest = report_a_run(tracker, "killed", OUTAGE + 5, result_folder(tmp_path))
    outage.join()
    assert longest < 12
    if not tracker.delivered:  # the server takes as long to start as the machine is busy
        assert len(caplog.records) == 1
        assert tracker._queue.send(60)
    check_nothing_is_lost(server.uri, tracker, "killed")


def test_a_server_that_hangs_stops_a_run_for_a_moment_only(server: MlflowServer, tmp_path: Path) -> None:
    tracker = open_mlflow(server.uri, tmp_path)
    resume = threading.Timer(12, server.signal, [signal.SIGCONT])
    threading.Timer(2, server.signal, [signal.SIGSTOP]).start()
    resume.start()
    longest = report_a_run(tracker, "hangs", 16, result_folder(tmp_path))
    resume.join()
    assert longest < 12
    check_nothing_is_lost(server.uri, tracker, "hangs")


def test_what_was_never_sent_is_sent_from_the_disk(
    server: MlflowServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    result, folder = make("vpt"), tmp_path / "results"
    store(folder, result)
    server.kill()
    tracker = open_mlflow(server.uri, folder)
    tracker.start(result.run_id, "petlbench", {}, {})
    tracker.log_epoch(1, {"val_auc": 0.7})
    tracker.finish("finished", {}, folder / result.run_id)
    [record] = caplog.records
    assert f"petlbench results track {result.run_id}" in record.getMessage()
    away = track_results(server.uri, folder)
    assert (away.missing, away.sent) == ([result.run_id], [])
    with pytest.raises(InputError) as caught:
        read_tracked(server.uri, "petlbench")
    assert caught.value.kind == "store_unreachable"
    server.start()
    assert track_results(server.uri, folder).sent == [result.run_id]
    assert [one["run_id"] for one in read_tracked(server.uri, "petlbench")] == [result.run_id]


def test_a_study_that_ends_while_the_server_is_away_waits_for_it(server: MlflowServer, tmp_path: Path) -> None:
    result = make("lora")
    store(tmp_path, result)
    server.kill()
    back = threading.Timer(5, server.start)
    back.start()
    tracked = track_study(server.uri, tmp_path, "patient", [result], patience=120)
    back.join()
    assert (tracked.sent, tracked.error) == ([result.run_id], None)
    assert "table" in runs_of(server.uri, "patient")


RACER = (
    "import sys, time; from pathlib import Path; from petlbench.results.tracking.tracker import Tracker\n"
    "from petlbench.results.tracking.send_queue import open_queue\n"
    "t = Tracker(open_queue(sys.argv[1], Path('.'))); t._queue.store.client.search_experiments()\n"
    "print('ready', flush=True); sys.stdin.readline()\n"
    "t.start(sys.argv[2], 'race', {}, {}, group='fpt on digits'); t.finish('finished', {}, None)\n"
    "sys.exit(0 if t.delivered else 1)"
)


def test_processes_that_start_at_once_make_one_parent(server: MlflowServer) -> None:
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", RACER, server.uri, f"run-{number}"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        for number in range(4)
    ]
    for racer in racers:
        assert racer.stdout is not None
        assert racer.stdout.readline() == b"ready\n"
    for racer in racers:
        assert racer.stdin is not None
        racer.stdin.write(b"go\n")
        racer.stdin.close()
    assert [racer.wait(timeout=120) for racer in racers] == [0] * 4
    runs = runs_of(server.uri, "race")
    parents = {run.data.tags.get("mlflow.parentRunId") for name, run in runs.items() if name.startswith("run-")}
    assert parents == {runs["fpt on digits"].info.run_id}


@pytest.mark.needs("postgres")
def test_a_study_is_kept_by_postgres(postgres: PostgresServer, tmp_path: Path) -> None:
    check_study(postgres.uri, tmp_path / "results", tmp_path)


@pytest.mark.needs("postgres")
def test_a_postgres_that_is_killed_within_a_run(postgres: PostgresServer, tmp_path: Path) -> None:
    def fail() -> None:
        time.sleep(3)
        postgres.kill()
        time.sleep(OUTAGE)
        postgres.start()

    open_mlflow(postgres.uri, tmp_path).start("first", "first", {}, {})  # the tables are made before time is taken
    tracker = open_mlflow(postgres.uri, tmp_path)
    outage = threading.Thread(target=fail)
    outage.start()
    longest = report_a_run(tracker, "killed", OUTAGE + 10, result_folder(tmp_path))
    outage.join()
    assert longest < 12
    check_nothing_is_lost(postgres.uri, tracker, "killed")


@pytest.mark.needs("postgres")
def test_a_postgres_that_hangs_stops_a_run_for_a_moment_only(postgres: PostgresServer, tmp_path: Path) -> None:
    def every(number: signal.Signals) -> None:
        children = subprocess.run(["pgrep", "-P", str(postgres._process.pid)], stdout=subprocess.PIPE, check=False)
        for child in [postgres._process.pid, *map(int, children.stdout.split())]:
            os.kill(child, number)

    open_mlflow(postgres.uri, tmp_path).start("first", "first", {}, {})
    tracker = open_mlflow(postgres.uri, tmp_path)
    threading.Timer(3, every, [signal.SIGSTOP]).start()
    resume = threading.Timer(20, every, [signal.SIGCONT])
    resume.start()
    longest = report_a_run(tracker, "hangs", 24, result_folder(tmp_path))
    resume.join()
    assert longest < 12
    check_nothing_is_lost(postgres.uri, tracker, "hangs")


@pytest.mark.needs("postgres")
def test_an_mlflow_server_before_postgres(postgres: PostgresServer, tmp_path: Path) -> None:
    running = MlflowServer(tmp_path, postgres.uri)
    try:
        running.start()
        result = make("bitfit")
        store(tmp_path / "results", result)
        assert track_study(running.uri, tmp_path / "results", "server", [result]).sent == [result.run_id]
        assert [one["run_id"] for one in read_tracked(running.uri, "server")] == [result.run_id]
    finally:
        running.kill()


@pytest.mark.needs("chromium")
def test_the_pages_of_a_study_show_its_columns_and_its_report(server: MlflowServer, tmp_path: Path) -> None:
    """In a fresh browser, which MLflow opens as for applications."""
    from playwright.sync_api import expect, sync_playwright

    import petlbench as pb

    options = {"backbone": "petlbench_micro", "image_size": 32, "epochs": 1, "threads": 1, "progress": False}
    place = {"output": tmp_path, "tracking_uri": server.uri}
    pb.bench(["linear"], ["digits"], [0, 1], study="shown", **place, **options)
    client = client_of(server.uri)
    address = page_address(server.uri, client.get_experiment_by_name("shown").experiment_id)
    table = runs_of(server.uri, "shown")["table"].info.run_id
    files = [file.path for file in client.list_artifacts(table, "report")]
    assert files == ["report/table1.html", "report/table1.png"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find_program("chromium"))
        page = browser.new_page(viewport={"width": 1900, "height": 900})
        page.set_default_timeout(SLOW_PAGE)
        page.goto(address)
        expect(page.get_by_text("linear on digits")).to_be_visible(timeout=SLOW_PAGE)
        for name in ("test_auc_mean", "ppe_mean", "Dataset", "Source"):
            expect(page.get_by_role("columnheader").get_by_text(name, exact=True)).to_be_visible(timeout=SLOW_PAGE)
        assert page.get_by_text("Traces", exact=True).count() == 1  # of many entries for applications
        page.goto(f"{address.partition('/runs?')[0]}/runs/{table}/artifacts/{files[0]}")
        expect(page.frame_locator("iframe").get_by_text("Linear probing").first).to_be_visible(timeout=SLOW_PAGE)
        browser.close()

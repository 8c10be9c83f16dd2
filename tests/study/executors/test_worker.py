"""Worker processes that are begun before it is known what for."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import pytest

from petlbench.study.executors import worker
from petlbench.study.executors.local import LocalExecutor
from petlbench.study.executors.worker import WorkerProcess, worker_ahead
from tests.study.executors.conftest import MakeJob
from tests.study.executors.watching import Watcher, journal, lazily, stored

pytestmark = pytest.mark.skipif(os.name != "posix", reason="worker processes need Linux or macOS")


def begun() -> list[subprocess.Popen[bytes]]:
    return [each.process for each in worker._begun_ahead]


def test_a_study_takes_the_process_that_was_begun_ahead(make_job: MakeJob, watcher: Watcher) -> None:
    job = make_job(0)
    with worker_ahead():
        (ahead,) = begun()
        LocalExecutor(1).run(lazily([job], []), watcher)
        assert not begun()
    assert stored(job).status == "finished"
    assert [line["pid"] for line in journal(job, "started")] == [ahead.pid]
    assert ahead.poll() is not None


def test_what_nobody_took_ends_with_the_plan() -> None:
    with worker_ahead():
        (ahead,) = begun()
    assert ahead.poll() == -signal.SIGKILL
    assert not begun()


def test_one_that_is_gone_is_not_taken(tmp_path: Path) -> None:
    process = WorkerProcess("worker-0")
    with worker_ahead():
        (ahead,) = begun()
        ahead.kill()
        ahead.wait()
        process.start(tmp_path / "log")
        assert not begun()
    assert process._begun is not None
    assert process._begun.process.pid != ahead.pid
    assert process._begun.process.poll() is None
    process.kill()


class Probe:
    """Where it is unpickled, it says whether all is imported that a run needs, and ends the process."""

    def __reduce__(self) -> tuple[Any, ...]:
        module = "__import__('sys').modules.get('petlbench.study.executors.run_job')"
        words = f"print('ready' if hasattr({module}, 'perform') else 'early', flush=True)"
        return eval, (f"({words}, __import__('os')._exit(7))",)


@pytest.mark.parametrize("ahead", [nullcontext, worker_ahead])
def test_a_process_writes_into_its_log_and_takes_a_job_when_all_is_imported(
    tmp_path: Path, ahead: Callable[[], AbstractContextManager[None]]
) -> None:
    import fcntl

    process, log = WorkerProcess("worker-0"), tmp_path / "log"
    with ahead():
        process.start(log)
    process.send(Probe())
    with log.open("ab") as opened, pytest.raises(BlockingIOError):
        fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
    assert process.receive() == "ended by itself with exit status 7"
    assert process.last_words() == "ready"
    process.finish()
    with log.open("ab") as opened:
        fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)

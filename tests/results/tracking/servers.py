"""Real stores that tests start, stop and kill: an MLflow server and a PostgreSQL server on the loopback address."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from tests.parts import find_program

DEADLINE = 120.0


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def wait_until(works: Callable[[], object], process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + DEADLINE
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(OSError):
            works()
            return
        time.sleep(0.1)
    pytest.fail(f"the server did not start: {log.read_text(errors='replace')[-2000:]}")


class _Server:
    """A server that keeps its port over a restart."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None

    def command(self) -> Sequence[str]:
        raise NotImplementedError

    def answer(self) -> None:
        raise NotImplementedError

    def start(self, user: str | None = None) -> None:
        log = self.folder / "log"
        environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
        with log.open("ab") as out:
            self._process = subprocess.Popen(
                self.command(),
                stdout=out,
                stderr=out,
                cwd=self.folder,
                env=environment,
                start_new_session=True,
                user=user,
            )
        wait_until(self.answer, self._process, log)

    def signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        os.killpg(self._process.pid, number)

    def kill(self) -> None:
        if self._process is not None:
            self.signal(signal.SIGKILL)
            self._process.wait(timeout=30)
            self._process = None


class MlflowServer(_Server):
    """``mlflow server`` over HTTP."""

    def __init__(self, folder: Path, store: str) -> None:
        super().__init__(folder)
        self._store = store

    @property
    def uri(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def command(self) -> Sequence[str]:
        command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(self.port)]
        command += ["--workers", "1", "--backend-store-uri", self._store]
        return [*command, "--artifacts-destination", str(self.folder / "artifacts")]

    def answer(self) -> None:
        with urllib.request.urlopen(f"{self.uri}/health", timeout=5):
            return


class PostgresServer(_Server):
    """PostgreSQL, run by a user of its own where the tests are run by root, as it demands."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        names = {entry.pw_name for entry in pwd.getpwall()}
        self._user = ("postgres" if "postgres" in names else "nobody") if os.getuid() == 0 else None
        if self._user:
            shutil.chown(folder, self._user)
            for parent in folder.parents:  # pytest's folders are for their owner alone
                if parent.stat().st_mode & 0o001 == 0:
                    parent.chmod(parent.stat().st_mode | 0o011)
        command = [_program("initdb"), "--auth=trust", "--username=petlbench", "--no-sync", "-D", str(folder / "data")]
        subprocess.run(command, check=True, user=self._user, cwd=folder, stdout=subprocess.DEVNULL)

    @property
    def uri(self) -> str:
        """As SQLAlchemy names it, with its driver."""
        return self.address.replace("://", "+psycopg://")

    @property
    def address(self) -> str:
        """As users name it."""
        return f"postgresql://petlbench@127.0.0.1:{self.port}/postgres"

    def command(self) -> Sequence[str]:
        options = [
            "-c",
            "fsync=off",
            "-c",
            "listen_addresses=127.0.0.1",
            "-c",
            f"unix_socket_directories={self.folder}",
        ]
        return [_program("postgres"), "-D", str(self.folder / "data"), "-p", str(self.port), *options]

    def answer(self) -> None:
        ready = [_program("pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(self.port)]
        if subprocess.run(ready, check=False).returncode:
            raise OSError("not yet")

    def start(self, user: str | None = None) -> None:
        super().start(user or self._user)

    def kill(self) -> None:
        """Crash it as a whole: SIGKILL would leave its children, which keep a new one from starting."""
        if self._process is not None:
            self._process.send_signal(signal.SIGQUIT)
            self._process.wait(timeout=30)
            self._process = None


def _program(name: str) -> str:
    path = find_program(name)
    assert path is not None, name
    return path

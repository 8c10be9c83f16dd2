"""Where searches are kept: an SQLite file, or PostgreSQL where several machines search together."""

from __future__ import annotations

import functools
import sqlite3
import time
import warnings
from collections.abc import Callable
from typing import Any, TypeVar

import optuna
import sqlalchemy
from optuna.exceptions import StorageInternalError
from optuna.storages import BaseStorage, RDBStorage

from petlbench.core.errors import InputError, RunError
from petlbench.core.text import without_password

# Seconds between two signs of life of a trial, and after how many without one it is given up. A database that is gone
# for half a minute must not look like so many dead drivers.
HEARTBEAT, GRACE = 10, 120

# Seconds for which a database that does not answer is asked again.
_PATIENCE = 900.0
_FIRST_PAUSE, _LONGEST_PAUSE = 0.2, 10.0

# What a database says to one of two drivers that make the tables at once.
_RACE = ("already exists", "unique", "duplicate", "locked")

R = TypeVar("R")


class RetryingStorage(RDBStorage):
    """Optuna's storage, asking again for minutes where the database does not answer.

    It says once that the database is gone, and once that it is back. Whatever is asked twice because an answer got lost
    does no harm: trials are counted by their slots.
    """

    def __init__(self, address: str, say: Callable[[str], None], **options: Any) -> None:
        self._say = say
        self._is_gone = False
        self._is_open = False
        super().__init__(address, **options)
        self._is_open = True

    def patiently(self, ask: Callable[[], R]) -> R:
        """Ask until there is an answer.

        Raises:
            RunError: When there was none for minutes.
        """
        if not self._is_open:  # what does not answer at first is a wrong address, or damaged
            return ask()
        began, pause = time.monotonic(), _FIRST_PAUSE
        while True:
            try:
                answer = ask()
            except (StorageInternalError, sqlalchemy.exc.OperationalError, sqlalchemy.exc.InterfaceError) as error:
                name = f"the database {without_password(self.url)}"
                limit = f"{_PATIENCE / 60:.0f} minutes"
                if time.monotonic() - began > _PATIENCE:
                    message = f"{name} did not answer for {limit}: {_reason(error)}"
                    hint = "start it again; the same command goes on from there"
                    raise RunError(message, hint=hint, kind="database_gone") from error
                if not self._is_gone:
                    self._say(f"warning: {name} does not answer ({_reason(error)}); asking again for up to {limit}")
                self._is_gone = True
                time.sleep(pause)
                pause = min(2 * pause, _LONGEST_PAUSE)
            else:
                if self._is_gone:
                    self._is_gone = False
                    self._say(f"the database {without_password(self.url)} answers again")
                return answer


def _patient(method: Callable[..., R]) -> Callable[..., R]:
    @functools.wraps(method)
    def retried(self: RetryingStorage, *args: Any, **kwargs: Any) -> R:
        return self.patiently(lambda: method(self, *args, **kwargs))

    return retried


# Whatever asks the database: the public methods, and those that Optuna's own cache in front of them calls.
_ASKING = [name for name in dir(BaseStorage) if not name.startswith("_")]
_ASKING += ["record_heartbeat", "_create_new_trial", "_set_trial_param", "_get_best_trial_id", "_get_trials"]
for _name in (*_ASKING, "_get_stale_trial_ids"):
    if hasattr(RDBStorage, _name):
        setattr(RetryingStorage, _name, _patient(getattr(RDBStorage, _name)))


class _Connection(sqlite3.Connection):
    """A connection whose commits do not wait for the disk, of which a trial makes a dozen.

    A killed process loses nothing by that. A machine that loses power may lose the last commits, and never the file;
    what they said stands in the trials' results.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.execute("PRAGMA journal_mode=WAL")
        self.execute("PRAGMA synchronous=NORMAL")


def open_storage(address: str, say: Callable[[str], None] = lambda text: None) -> RetryingStorage:
    """Return the storage of searches, with its tables made where they are not there yet.

    Args:
        address: ``sqlite:///FILE`` or ``postgresql://USER@HOST/DATABASE``.
        say: Told when the database goes and comes.

    Raises:
        InputError: When the address is wrong, a driver is missing or nothing answers there.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        url = sqlalchemy.engine.make_url(address)
        if url.get_backend_name() == "postgresql" and "+" not in url.drivername:
            url = url.set(drivername="postgresql+psycopg")
        if url.get_backend_name() == "sqlite" and url.database in (None, "", ":memory:"):
            message, hint = (
                f"--storage {address} names no file: no trial would be kept",
                "for example sqlite:///sweeps.db",
            )
            raise InputError(message, hint=hint, kind="bad_storage")
        return _open(url, say)
    except (ImportError, StorageInternalError, sqlalchemy.exc.SQLAlchemyError, RuntimeError) as error:
        reason, hint = _reason(error), "is the database there, and may this user write to it?"
        if isinstance(error, ImportError | sqlalchemy.exc.NoSuchModuleError):
            reason = f"the package that speaks to it is not installed ({reason})"
            hint = "for postgresql:// addresses: pip install 'petlbench[postgres]'"
        elif isinstance(error, sqlalchemy.exc.ArgumentError):
            reason = "no address of a database"
            hint = "for example postgresql://host/database, or sqlite:////folder/sweeps.db"
        message = f"--storage {without_password(address)}: {reason}"
        raise InputError(message, hint=hint, kind="bad_storage") from error


def _open(url: sqlalchemy.engine.URL, say: Callable[[str], None]) -> RetryingStorage:
    is_file = url.get_backend_name() == "sqlite"
    connecting = {"timeout": 60, "factory": _Connection}
    engine: dict[str, Any] = {"connect_args": connecting} if is_file else {"pool_pre_ping": True}
    if not is_file and "connect_timeout" not in url.query:
        engine["connect_args"] = {"connect_timeout": 10}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        for attempt in range(5):
            try:
                return RetryingStorage(
                    url.render_as_string(hide_password=False),
                    say,
                    engine_kwargs=engine,
                    heartbeat_interval=HEARTBEAT,
                    grace_period=GRACE,
                )
            except (StorageInternalError, sqlalchemy.exc.SQLAlchemyError) as error:
                # Two drivers that make the tables at once disturb each other, and neither the second time.
                message = f"{error} {error.__cause__}".lower()
                if attempt == 4 or not any(words in message for words in _RACE):
                    raise
                time.sleep(0.2 * (attempt + 1))
    raise AssertionError("unreachable")


def _reason(error: BaseException) -> str:
    """What the database itself said, in one line."""
    while error.__cause__ is not None:
        error = error.__cause__
    message = without_password(str(getattr(error, "orig", None) or error).strip())
    return message.splitlines()[0] if message else type(error).__name__

"""An index of many results: what tables need of each, for as long as its file is the one that was read.

The results are the truth. The index lies in the user's own cache, so that no folder of results can bring one, and is as
good as missing where it is damaged, cannot be written, or is held by another process. It knows what each result's file
was like (the times of its last changes, its size, its number on the disk): a file that differs in any of these is read
anew, and checked as every result is.
"""

from __future__ import annotations

import hashlib
import os
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from petlbench.core import config
from petlbench.core.environment import default_cache_dir
from petlbench.core.errors import InputError
from petlbench.results import documents, result, stored
from petlbench.results.documents import PackedDocument, SharedTexts, pack
from petlbench.results.result import FILE, read_result
from petlbench.results.stored import Configuration, Stored

_FOLDER = "results-index"
# Fewer results are read as soon.
_LEAST = 50
# So many are written at once: what a process has read that is killed is not lost.
_BATCH = 1000
# Nanoseconds: a file that changes twice within a step of the clock may look the same.
_YOUNG = 1_000_000_000
# Seconds for which a process waits while another one writes.
_WAIT = 5.0

_Item = TypeVar("_Item")
_OnDamage = Callable[[InputError], None]
_FIGURES = ("test_auc", "val_auc", "learnable_ratio", "memory_allocated", "seconds_run")


class Summary(NamedTuple):
    """What a list of runs says of one: fractions, bytes and seconds; None for what it has not.

    Attributes:
        dataset: As the config has it.
        learnable_ratio: Learnable parameters over all.
        memory_allocated: What tensors take at the peak of a training step.
        seconds_run: Of preloading, training and evaluation.
    """

    run_id: str
    method: str
    dataset: str
    seed: int
    status: str
    test_auc: float | None
    val_auc: float | None
    learnable_ratio: float | None
    memory_allocated: float | None
    seconds_run: float | None

    @classmethod
    def of(cls, run: Stored) -> Summary:
        """The summary of a result."""
        place = (run.run_id, run.method, str(run.config["dataset"]), run.seed, run.status)
        return cls(*place, *map(run.figures.get, _FIGURES))


# A result lies in the folder that is called as its run.
_COLUMNS = ", ".join(Summary._fields)
_TABLES = (
    "CREATE TABLE IF NOT EXISTS folder (path TEXT PRIMARY KEY)",
    f"CREATE TABLE IF NOT EXISTS summaries (state TEXT, {_COLUMNS}, PRIMARY KEY (run_id))",
    "CREATE TABLE IF NOT EXISTS documents (run_id TEXT PRIMARY KEY, content TEXT)",
    "CREATE TABLE IF NOT EXISTS texts (number INTEGER PRIMARY KEY, content TEXT UNIQUE)",
)
# Of a new file: a document takes one page instead of several, of which the last would be nearly empty.
_PAGES = "PRAGMA page_size = 16384"
_FORGET = ("DELETE FROM summaries WHERE run_id = ?", "DELETE FROM documents WHERE run_id = ?")
_BLANKS = ", ".join("?" * (1 + len(Summary._fields)))
_ADD_SUMMARY = f"INSERT OR REPLACE INTO summaries VALUES ({_BLANKS})"  # noqa: S608
_ADD_DOCUMENT = "INSERT OR REPLACE INTO documents VALUES (?, ?)"
_ADD_TEXT = "INSERT OR IGNORE INTO texts (content) VALUES (?)"
_NUMBER = "SELECT number FROM texts WHERE content = ?"
_STATES = "SELECT run_id, state FROM summaries"
_SUMMARIES = f"SELECT {_COLUMNS} FROM summaries"  # noqa: S608 - the names of fields
_DOCUMENTS = "SELECT run_id, content FROM documents"
_TEXTS = "SELECT number, content FROM texts"


def _ignore(error: InputError) -> None:
    """Pass a damaged result over."""


def stored_results(output: Path, method: str = "", on_damage: _OnDamage = _ignore) -> list[Stored]:
    """The results right below an output folder, in the order of their names.

    Args:
        output: Folder of all results.
        method: The method whose results alone are read; empty for all.
        on_damage: Told of each result that is damaged and passed over.
    """

    def unpacked(index: _Index) -> Iterator[tuple[str, Stored]]:
        rows = index.rows(_DOCUMENTS, method)
        shared = SharedTexts(dict(index.rows(_TEXTS)))  # last, as none of them is ever removed
        configurations: dict[int, Configuration] = {}
        for name, content in rows:
            folder = output / name
            document = PackedDocument(content, folder, shared)
            common = document.common_config
            configuration = configurations.setdefault(id(common), Configuration(common))
            yield name, Stored(document, folder, configuration=configuration)

    return _read(output, method, on_damage, unpacked, lambda run: run)


def summaries(output: Path, on_damage: _OnDamage = _ignore) -> list[Summary]:
    """What a list says of each result right below an output folder, in the order of their names.

    Arguments are those of `stored_results`.
    """

    def rows(index: _Index) -> Iterator[tuple[str, Summary]]:
        return ((row[0], Summary._make(row)) for row in index.rows(_SUMMARIES))

    return _read(output, "", on_damage, rows, Summary.of)


def _read(
    output: Path,
    method: str,
    on_damage: _OnDamage,
    items_of: Callable[[_Index], Iterable[tuple[str, _Item]]],
    item_of: Callable[[Stored], _Item],
) -> list[_Item]:
    """What the index has of each result, and what is made of those that it has not."""
    states = _states(output, method)
    items: dict[str, _Item] = {}
    errors: dict[str, InputError] = {}
    if len(states) >= _LEAST:
        for _ in range(2):  # one that is damaged is made anew
            try:
                with _opened(output) as index:
                    items, errors = {}, index.update(states, method)
                    items = dict(items_of(index))
                break
            except (sqlite3.OperationalError, OSError):  # it cannot be written, or another process holds it
                break
            except sqlite3.DatabaseError:
                _file(output).unlink(missing_ok=True)
    read = []
    for name in states:
        if name in items:
            read.append(items[name])
        elif name in errors:
            on_damage(errors[name])
        else:
            try:
                read.append(item_of(_stored(output / name)))
            except InputError as error:
                on_damage(error)
    return read


def _stored(folder: Path) -> Stored:
    return Stored(read_result(folder).document(), folder)


def _states(output: Path, method: str) -> dict[str, str]:
    """What the file of each result is like, by the name of its folder, in the order of names."""
    states, place = {}, os.fspath(output)
    with suppress(OSError), os.scandir(output) as entries:
        names = [entry.name for entry in entries if not entry.name.startswith(".")]
        for name in sorted(names):
            if not method or name.startswith(f"{method}-"):
                with suppress(OSError, ValueError):
                    file = os.stat(f"{place}/{name}/{FILE}")
                    states[name] = f"{file.st_mtime_ns} {file.st_ctime_ns} {file.st_size} {file.st_ino}"
    return states


def _is_young(state: str) -> bool:
    modified, changed, *_ = map(int, state.split())
    return abs(time.time_ns() - max(modified, changed)) < _YOUNG


class _Index:
    """The index of a folder; every method raises what `sqlite3` raises.

    Args:
        connection: To its file.
        output: The folder.
    """

    def __init__(self, connection: sqlite3.Connection, output: Path) -> None:
        self._connection = connection
        self._output = output
        self._numbers: dict[str, int] = {}

    def update(self, states: Mapping[str, str], method: str) -> dict[str, InputError]:
        """Read what has changed since, and forget what has gone.

        Args:
            states: What each result's file is like.
            method: The method of all of them; empty where they are of all methods.

        Returns:
            Why results cannot be read, by name.
        """
        kept = dict(self.rows(_STATES, method))
        gone = [(name,) for name, state in kept.items() if state != states.get(name)]
        if gone:
            with self._connection:
                for forget in _FORGET:
                    self._connection.executemany(forget, gone)
        others = [name for name, state in states.items() if kept.get(name) != state and not _is_young(state)]
        errors: dict[str, InputError] = {}
        for first in range(0, len(others), _BATCH):
            runs: dict[str, Stored] = {}
            for name in others[first : first + _BATCH]:
                try:
                    runs[name] = _stored(self._output / name)
                except InputError as error:
                    errors[name] = error
            self._add(runs, states)
        return errors

    def _add(self, runs: Mapping[str, Stored], states: Mapping[str, str]) -> None:
        rows = [(states[name], *Summary.of(run)) for name, run in runs.items()]
        with self._connection:
            self._connection.executemany(_ADD_SUMMARY, rows)
            packed = [(name, pack(run.document, self._number)) for name, run in runs.items()]
            self._connection.executemany(_ADD_DOCUMENT, packed)

    def _number(self, text: str) -> int:
        """The number of a text that many documents have in common."""
        if text not in self._numbers:
            self._connection.execute(_ADD_TEXT, (text,))
            [self._numbers[text]] = self._connection.execute(_NUMBER, (text,)).fetchone()
        return self._numbers[text]

    def rows(self, query: str, method: str = "") -> list[tuple[Any, ...]]:
        """What a query gives of the results of one method, or of all."""
        if not method:
            return self._connection.execute(query).fetchall()
        # A dot follows the hyphen in the order of characters.
        query, ends = f"{query} WHERE run_id >= ? AND run_id < ?", (f"{method}-", f"{method}.")
        return self._connection.execute(query, ends).fetchall()


@contextmanager
def _opened(output: Path) -> Iterator[_Index]:
    file = _file(output)
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        _remove_unused(file)
    with closing(sqlite3.connect(file, timeout=_WAIT)) as connection:
        connection.execute(_PAGES)
        for table in _TABLES:
            connection.execute(table)
        if connection.execute("SELECT count(*) FROM folder").fetchone() == (0,):
            with connection:
                connection.execute("INSERT OR IGNORE INTO folder VALUES (?)", (str(output.resolve()),))
        yield _Index(connection, output)


def _file(output: Path) -> Path:
    """Where the index of a folder lies that this version of petlbench has made."""
    name = hashlib.sha256(os.fsencode(output.resolve())).hexdigest()[:24]
    return default_cache_dir() / _FOLDER / f"{name}-{_code_digest()}.sqlite"


@cache
def _code_digest() -> str:
    """A digest of the code that decides what an index holds."""
    modules = (config, result, stored, documents)
    files = [Path(__file__), *(Path(module.__file__ or "") for module in modules)]
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:8]


def _remove_unused(new: Path) -> None:
    """Remove indexes of the same folder that other versions have made, and those of folders that have gone."""
    for file in new.parent.glob("*.sqlite"):
        with suppress(sqlite3.Error, OSError):
            if file.name.partition("-")[0] != new.name.partition("-")[0]:
                with closing(sqlite3.connect(f"{file.as_uri()}?mode=ro", uri=True)) as connection:
                    row = connection.execute("SELECT path FROM folder").fetchone()
                if row is None or os.path.isdir(row[0]):
                    continue
            file.unlink()

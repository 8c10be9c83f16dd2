"""The database of searches: what is wrong with an address is said, without its password."""

from __future__ import annotations

import time
from importlib.util import find_spec
from pathlib import Path

import pytest

from petlbench.core.errors import InputError
from petlbench.results.tracking.store import sqlite_address
from petlbench.sweep.storage import open_storage


@pytest.mark.parametrize(
    ("address", "named"),
    [
        ("postgresql+nosuchdriver://u:secret@127.0.0.1:1/x", "nosuchdriver"),
        ("mysql+mysqlconnector://u:secret@127.0.0.1:1/x", "mysql"),
        ("nosuchbase://u:secret@h/x", "nosuchbase"),
    ],
)
def test_a_driver_that_is_not_installed_is_told_with_the_extra_that_has_it(address: str, named: str) -> None:
    with pytest.raises(InputError, match=named) as caught:
        open_storage(address)
    assert caught.value.kind == "bad_storage"
    assert "not installed" in caught.value.message
    assert "petlbench[postgres]" in caught.value.hint
    assert "secret" not in f"{caught.value.message} {caught.value.hint}"


@pytest.mark.parametrize(
    "address", ["postgresql://u:secret@127.0.0.1:1/x", "postgresql://u@127.0.0.1:1/x?password=secret"]
)
def test_a_database_that_is_not_there_is_told_with_or_without_its_driver(address: str) -> None:
    with pytest.raises(InputError) as caught:
        open_storage(address)
    assert caught.value.kind == "bad_storage"
    assert ("not installed" in caught.value.message) == (find_spec("psycopg") is None)
    assert "secret" not in f"{caught.value.message} {caught.value.hint}"


@pytest.mark.parametrize("address", ["", "results/sweeps.db", "postgresql", "://"])
def test_what_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(InputError, match="no address of a database"):
        open_storage(address)


@pytest.mark.parametrize("name", ["plain", "My%20Drive", "what?", "a#b", "{x}", "with space", "größe"])
def test_the_database_lies_in_its_folder_whatever_that_is_called(tmp_path: Path, name: str) -> None:
    folder = tmp_path / name
    folder.mkdir()
    storage = open_storage(sqlite_address(folder / "sweeps.db"))
    assert storage.get_all_studies() == []
    assert (folder / "sweeps.db").exists()
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("address", ["sqlite://", "sqlite:///:memory:"])
def test_a_database_that_is_no_file_is_refused(address: str) -> None:
    with pytest.raises(InputError, match="no trial would be kept"):
        open_storage(address)


def test_a_damaged_database_is_told_at_once(tmp_path: Path) -> None:
    file = tmp_path / "sweeps.db"
    for text in ("no database, but a longer text than its head" * 9, None):
        file.unlink(missing_ok=True)
        file.write_text(text) if text is not None else file.mkdir()
        began = time.monotonic()
        with pytest.raises(InputError, match="sweeps.db"):
            open_storage(sqlite_address(tmp_path / "sweeps.db"))
        assert time.monotonic() - began < 60

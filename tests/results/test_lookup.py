"""One way to name a run: its id, the beginning of it, or its folder."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from petlbench.core.errors import InputError
from petlbench.results.folder import find_run, only_run
from tests.report.stored import store


def test_a_run_is_found_by_id_beginning_and_folder(tmp_path: Path) -> None:
    first = store(tmp_path, "lora")
    store(tmp_path, "linear")
    for name in (first.run_id, "lora-", str(tmp_path / first.run_id)):
        assert find_run(name, tmp_path).final == only_run(name, tmp_path).final == tmp_path / first.run_id
    for name in ("full", "", "~nosuchuser", "x" * 300, "a\0b"):
        with pytest.raises(InputError) as caught:
            find_run(name, tmp_path)
        assert caught.value.kind == ("unknown_run" if name == "full" else "bad_path")


def test_of_several_runs_the_newest_finished_one_is_taken_and_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    newest, older, failed = store(tmp_path, "lora"), store(tmp_path, "linear"), store(tmp_path, "lst", status="failed")
    for age, run in enumerate((failed, newest, older)):
        os.utime(tmp_path / run.run_id / "result.json", (1000 - age, 1000 - age))
    assert find_run("l", tmp_path).run_id == newest.run_id
    assert [record.getMessage() for record in caplog.records] == [
        f"'l' begins 3 runs: {newest.run_id} is the newest finished one"
    ]


def test_what_is_removed_is_never_guessed(tmp_path: Path) -> None:
    first, second = store(tmp_path, "lora"), store(tmp_path, "linear")
    with pytest.raises(InputError, match="beginning of 2 runs") as caught:
        only_run("l", tmp_path)
    assert caught.value.kind == "ambiguous_run"
    assert first.run_id in caught.value.message
    assert second.run_id in caught.value.message


def test_of_several_unfinished_runs_none_is_taken(tmp_path: Path) -> None:
    store(tmp_path, "lora", status="failed")
    store(tmp_path, "linear", status="failed")
    with pytest.raises(InputError) as caught:
        find_run("l", tmp_path)
    assert caught.value.kind == "ambiguous_run"

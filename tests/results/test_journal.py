"""The journal of attempts: whole lines, whoever writes at the same time, and what a run puts there."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from petlbench.core.catalog import Catalog
from petlbench.core.errors import RunError, Stopped
from petlbench.core.progress import Progress
from petlbench.core.request import Request
from petlbench.results.journal import FILE, read_journal, read_reads, write_event
from petlbench.run.execute import execute
from petlbench.run.options import RunContext, RunOptions
from petlbench.run.readings import KeptReadings
from petlbench.run.resolve import resolve
from petlbench.training.evaluation import TestSplit

CATALOG = Catalog()
TINY = {"backbone": "petlbench_micro", "image_size": 32, "device": "cpu", "threads": 1}


def carry_out(options: RunOptions, progress: Progress | None = None, epochs: int = 2):
    request = Request("linear", "digits", training={"epochs": epochs}, **TINY)
    return execute(resolve(request, CATALOG, options.data_root), RunContext(options, progress or Progress()))


def options_in(folder: Path, reveal_test: bool = True) -> RunOptions:
    return RunOptions(folder / "results", folder, folder / "cache", tracking_uri="none", reveal_test=reveal_test)


def test_lines_of_many_writers_stay_whole(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: write_event(tmp_path, "epoch", f"run{number}", epoch=number), range(200)))
    assert sorted(line["epoch"] for line in read_journal(tmp_path)) == list(range(200))


def test_a_line_cut_off_by_a_full_disk_costs_no_other(tmp_path: Path) -> None:
    write_event(tmp_path, "started", "a", epoch=0)
    with (tmp_path / FILE).open("a") as file:
        file.write('{"time": "2026-01-01T00:00:00+0000", "event": "epo')
    write_event(tmp_path, "ended", "a", status="finished")
    assert [line["event"] for line in read_journal(tmp_path)] == ["started", "ended"]


values = st.none() | st.integers() | st.text(max_size=9) | st.dictionaries(st.text(max_size=3), st.text())
facts = st.dictionaries(st.text(max_size=5), values)
garbage = st.binary(max_size=20).filter(lambda text: b"\n" not in text and b'{"' not in text)


@settings(max_examples=50, deadline=None)
@given(lines=st.lists(st.tuples(garbage, facts), max_size=6))
def test_whatever_stands_between_them_whole_lines_are_read_as_they_were_written(
    tmp_path_factory: pytest.TempPathFactory, lines: list[tuple[bytes, dict[str, Any]]]
) -> None:
    folder = tmp_path_factory.mktemp("journal")
    for number, (rubbish, fact) in enumerate(lines):
        with (folder / FILE).open("ab") as file:
            file.write(rubbish)
        write_event(folder, "epoch", f"run{number}", facts=fact)
    written = [(f"run{number}", fact) for number, (_, fact) in enumerate(lines)]
    assert [(line["run_id"], line["facts"]) for line in read_journal(folder)] == written


def test_damaged_lines_are_counted_and_cost_no_other(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_event(tmp_path, "started", "a", error={"kind": "none", "message": "{"})
    with (tmp_path / FILE).open("ab") as file:
        file.write(b'[]\nnull\n{}\n{"event": 1, "run_id": "a"}\n\xff\n' + b"[" * 9999 + b"\n")
    write_event(tmp_path, "ended", "a", status="finished")
    assert [line["event"] for line in read_journal(tmp_path)] == ["started", "ended"]
    assert "6 damaged lines" in caplog.text


def test_a_journal_that_is_no_file_keeps_nobody_waiting(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    os.mkfifo(tmp_path / FILE)
    assert read_journal(tmp_path) == []
    assert "a pipe" in caplog.text


def test_no_journal_has_no_lines(tmp_path: Path) -> None:
    assert read_journal(tmp_path) == []


class _StopAfter(Progress):
    """Stops a run when an epoch is done, as a search or a time limit does."""

    def __init__(self, epoch: int, status: str) -> None:
        self._epoch, self._status = epoch, status

    def epoch(self, entry, score) -> None:
        if entry["epoch"] == self._epoch:
            raise Stopped(self._status, "enough")


def test_an_interrupted_run_goes_on_where_it_was(tmp_path: Path) -> None:
    options = options_in(tmp_path)
    stopped = carry_out(options, _StopAfter(2, "interrupted"), epochs=3)
    assert (stopped.status, len(stopped.curve)) == ("interrupted", 2)
    assert carry_out(options, epochs=3).status == "finished"
    lines = [(line["event"], line.get("epoch", line.get("status"))) for line in read_journal(options.output)]
    assert lines == [
        ("started", 0),
        ("epoch", 1),
        ("epoch", 2),
        ("ended", "interrupted"),
        ("started", 2),
        ("epoch", 3),
        ("ended", "finished"),
    ]


def test_a_pruned_run_keeps_its_curve_and_no_checkpoint(tmp_path: Path) -> None:
    options = options_in(tmp_path, reveal_test=False)
    result = carry_out(options, _StopAfter(1, "pruned"))
    assert (result.status, len(result.curve), result.metrics) == ("pruned", 1, {})
    assert not list((options.output / ".work").glob("*/*"))


def test_a_trial_has_no_test_metric_and_cannot_read_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(KeptReadings, "once")  # there is nothing to keep, and no file that is synced for nothing
    options = options_in(tmp_path, reveal_test=False)
    result = carry_out(options)
    assert result.status == "finished"
    assert list(result.metrics) == ["val"]
    assert result.scores.ppe is None
    assert not (options.output / "test_reads.jsonl").exists()
    with pytest.raises(KeyError):
        result.metrics["test"]


def test_the_hidden_test_split_refuses_to_be_read(tmp_path: Path) -> None:
    hidden = TestSplit(None, tmp_path / "test_reads.jsonl", {}, is_hidden=True)  # type: ignore[arg-type]
    with pytest.raises(RunError, match="hidden"):
        hidden.read()
    assert not (tmp_path / "test_reads.jsonl").exists()


def test_the_test_split_is_handed_out_once_and_each_reading_is_on_the_disk_before(tmp_path: Path) -> None:
    log, identity = tmp_path / "test_reads.jsonl", {"dataset": "digits", "split": "abc", "run_id": "r"}
    images: Any = object()
    split = TestSplit(images, log, identity)
    assert read_reads(tmp_path) == []
    assert split.read() is images
    for _ in range(2):
        with pytest.raises(RunError) as caught:
            split.read()
        assert caught.value.kind == "test_read_twice"
    [line] = read_reads(tmp_path)
    assert {name: line[name] for name in identity} == identity
    log.unlink()
    log.mkdir()
    unlogged = TestSplit(images, log, identity)
    with pytest.raises(OSError, match="directory"):
        unlogged.read()
    with pytest.raises(RunError):
        unlogged.read()

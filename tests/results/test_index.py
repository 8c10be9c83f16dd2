"""The index of many results: tables read the same with it as without, whatever happens to files and to itself."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from petlbench.results import documents, index
from petlbench.results.index import Summary, stored_results, summaries
from petlbench.results.listing import list_runs
from petlbench.results.result import FILE, iter_results
from petlbench.results.stored import FEWEST_TO_CHOOSE
from petlbench.results.table import load_results
from tests.bench.stored_runs import make_runs
from tests.results.tracking.results import make


@pytest.fixture
def output(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Sixty old results, an index that is used for any number of them, and a cache of the test's own."""
    monkeypatch.setenv("PETLBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(index, "_LEAST", 1)
    monkeypatch.setattr(index, "_YOUNG", 0)
    folder = tmp_path / "results"
    make_runs(make("full").document(), folder, 60)
    return folder


def indexes(output: Path) -> list[Path]:
    return sorted((output.parent / "cache" / "results-index").glob("*.sqlite"))


def plain(output: Path) -> list[dict[str, Any]]:
    return [result.document() for result in iter_results(output)]


def through_index(output: Path) -> list[dict[str, Any]]:
    return [dict(run.document) for run in stored_results(output)]


def change(output: Path, auc: float) -> Path:
    file = next(output.glob(f"lora-*/{FILE}"))
    document = json.loads(file.read_text())
    document["metrics"]["test"]["auc"] = auc
    file.write_text(json.dumps(document))
    return file


def count_reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    names: list[str] = []
    read = index.read_result

    def counted(folder: Path) -> Any:
        names.append(folder.name)
        return read(folder)

    monkeypatch.setattr(index, "read_result", counted)
    return names


def test_what_is_read_is_the_same_and_only_what_changed_is_read_again(
    output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = count_reads(monkeypatch)
    assert through_index(output) == plain(output)
    assert len(read) == 60
    assert through_index(output) == plain(output)
    assert len(read) == 60
    file = change(output, 0.123)
    assert through_index(output) == plain(output)
    assert read[60:] == [file.parent.name]
    assert [run.run_id for run in stored_results(output, "full")] == [
        run.run_id for run in iter_results(output, "full")
    ]
    assert len(read) == 61


def test_edits_removals_and_copies_by_hand_are_seen(output: Path) -> None:
    assert len(summaries(output)) == 60
    status = change(output, 0.5).stat()
    file = change(output, 0.9)
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))  # the same size and the same time of the last change
    assert next(run.test_auc for run in summaries(output) if run.run_id == file.parent.name) == 0.9
    shutil.copytree(file.parent, output.parent / "aside")
    shutil.rmtree(file.parent)
    assert file.parent.name not in {run.run_id for run in summaries(output)}
    shutil.copytree(output.parent / "aside", file.parent)
    assert len(summaries(output)) == 60
    shutil.copytree(file.parent, output / "another-name")
    damaged: list[Any] = []
    assert len(summaries(output, damaged.append)) == 60
    assert "another-name" in damaged[0].message
    file.write_text("{")
    assert len(summaries(output, damaged.append)) == 59
    assert damaged[-1].kind == "bad_result"


@pytest.mark.parametrize("content", [b"", b"no database at all", None])
def test_a_missing_or_damaged_index_is_made_anew(output: Path, content: bytes | None) -> None:
    before = summaries(output)
    [file] = indexes(output)
    if content is None:
        file.unlink()
    else:
        file.write_bytes(content)
    assert summaries(output) == before
    assert summaries(output) == before
    with sqlite3.connect(file) as connection:
        assert connection.execute("SELECT count(*) FROM documents").fetchone() == (60,)


def test_what_the_index_holds_of_a_document_is_read_anew_where_it_is_damaged(output: Path) -> None:
    stored_results(output)
    with sqlite3.connect(indexes(output)[0]) as connection:
        connection.execute("UPDATE documents SET content = x'00ff'")
    connection.close()
    assert through_index(output) == plain(output)


def test_without_a_place_for_an_index_results_are_read(output: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (output.parent / "file").write_text("")
    monkeypatch.setenv("PETLBENCH_CACHE", str(output.parent / "file"))
    assert through_index(output) == plain(output)
    assert not list(output.glob("**/*.sqlite"))


def test_an_index_that_another_process_holds_is_not_waited_for_long(
    output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = summaries(output)
    monkeypatch.setattr(index, "_WAIT", 0.05)
    change(output, before[0].test_auc or 0.0)
    holder = sqlite3.connect(indexes(output)[0], isolation_level=None)
    holder.execute("BEGIN EXCLUSIVE")
    try:
        assert {run.run_id for run in summaries(output)} == {run.run_id for run in before}
    finally:
        holder.close()


def test_a_file_of_this_moment_is_not_kept(output: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index, "_YOUNG", 10**15)
    read = count_reads(monkeypatch)
    assert summaries(output) == summaries(output)
    assert len(read) == 120


def test_indexes_of_folders_that_are_gone_and_of_other_versions_go(
    output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = output.parent / "other"
    shutil.copytree(output, other)
    summaries(other)
    summaries(output)
    assert len(indexes(output)) == 2
    shutil.rmtree(other)
    monkeypatch.setattr(index, "_code_digest", lambda: "newer")
    summaries(output)
    assert [file.name.endswith("-newer.sqlite") for file in indexes(output)] == [True]


def test_lists_and_tables_say_what_the_results_say(output: Path) -> None:
    listing, table = list_runs(output), load_results(output)
    assert listing.runs == [Summary.of(run) for run in table.runs]
    assert {listing.names[run.dataset] for run in listing.runs} == {run.dataset for run in table.runs}
    assert len(listing.matching({"lora"}, {"set00"}, {"finished"})) == 1
    assert all(run.document["curve"] for run in table.runs)
    assert all("pme" in run.figures for run in table.runs)


@pytest.mark.parametrize(("images", "epochs", "few"), [(50, 3, 0), (49, 3, 49), (49, 1, 0)])
def test_curves_are_read_only_where_validation_images_are_few(
    output: Path, monkeypatch: pytest.MonkeyPatch, images: int, epochs: int, few: int
) -> None:
    document = make("full").document()
    document["data"] = {"images": {"train": 9, "val": images, "test": 9}}
    document["curve"] = [{"epoch": epoch, "train_loss": 1.0} for epoch in range(1, epochs + 1)]
    shutil.rmtree(output)
    make_runs(document, output, 3)
    load_results(output)
    names, read = list[str](), documents.read_result
    monkeypatch.setattr(documents, "read_result", lambda folder: names.append(folder.name) or read(folder))
    runs = load_results(output).runs
    assert [run.few_validation for run in runs] == [few] * 3
    assert len(names) == (3 if images < FEWEST_TO_CHOOSE else 0)

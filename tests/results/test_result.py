"""A stored result is believed in nothing: others may have written it."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from petlbench.core.errors import InputError
from petlbench.results.folder import RunFolder
from petlbench.results.journal import read_journal, write_event
from petlbench.results.result import FILE, Result, iter_results, parse_result, read_result
from petlbench.results.stored import Stored
from petlbench.results.table import load_results, with_scores
from tests.report.stored import store, store_predicted, store_study

ODD = ["{}", "[]", "null", "3", '"text"', "", "{", '{"schema": 1, "run_id": "full-x"}', "[" * 100_000]


def write_pipe(file: Path) -> None:
    os.mkfifo(file)


def link_to_zeros(file: Path) -> None:
    file.symlink_to("/dev/zero")


def link_to_itself(file: Path) -> None:
    file.symlink_to(file.name)


@pytest.mark.parametrize("content", [*ODD, Path.mkdir, write_pipe, link_to_zeros])
def test_an_odd_neighbour_is_named_and_passed_over(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, content: str | Callable[[Path], None]
) -> None:
    run = store(tmp_path, "full")
    (tmp_path / "full-x").mkdir()
    odd = tmp_path / "full-x" / FILE
    if isinstance(content, str):
        odd.write_text(content)
    else:
        content(odd)
    with pytest.raises(InputError) as caught:
        read_result(odd.parent)
    assert caught.value.kind == "bad_result"
    assert str(odd) in caught.value.message
    [scored] = with_scores([run], tmp_path)
    assert scored.scores.ppe is not None
    results = load_results(tmp_path)
    assert [each.run_id for each in results.runs] == [run.run_id]
    assert len(results.damaged) == 1
    assert str(odd) in results.damaged[0]
    assert [record.getMessage() for record in caplog.records] == [f"passed over: {results.damaged[0]}"]


def test_a_link_to_itself_is_no_result(tmp_path: Path) -> None:
    (tmp_path / "full-x").mkdir()
    link_to_itself(tmp_path / "full-x" / FILE)
    assert list(iter_results(tmp_path)) == []


@pytest.mark.parametrize("name", ["../victim", "/victim", "other"])
def test_a_result_is_its_folders(tmp_path: Path, name: str) -> None:
    run = store(tmp_path, "lora")
    document = {**run.document(), "run_id": name}
    (tmp_path / run.run_id / FILE).write_text(json.dumps(document))
    with pytest.raises(InputError) as caught:
        read_result(tmp_path / run.run_id)
    assert caught.value.kind == "bad_result"
    assert name in caught.value.message


@pytest.mark.parametrize("name", ["../victim", "/victim", "a/b", "", ".", "..", ".work", "a\0b"])
def test_no_name_leads_out_of_the_output_folder(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError) as caught:
        RunFolder(tmp_path, name)
    assert caught.value.kind == "bad_run_id"


def test_a_result_of_a_newer_petlbench_is_said_to_be_one(tmp_path: Path) -> None:
    document = {**store(tmp_path, "lora").document(), "schema": 2, "new": 1}
    with pytest.raises(InputError) as caught:
        parse_result(json.dumps(document).encode(), "it")
    assert "newer petlbench (schema 2)" in caught.value.message
    assert caught.value.hint == "update petlbench"


def test_predictions_are_read_from_their_own_folder_and_never_waited_for(tmp_path: Path) -> None:
    run = store_predicted(tmp_path, "lora", "digits", 0, 1.0)
    file = tmp_path / run.run_id / "predictions.parquet"
    [stored] = load_results(tmp_path).runs
    assert stored.predictions("test") is not None
    whole = pq.read_table(file)
    for broken in (whole.drop_columns(["group"]), whole.set_column(4, "logits", pa.array([[1.0]] * 119 + [[]]))):
        pq.write_table(broken, file)
        with pytest.raises(InputError, match="damaged"):
            stored.predictions("test")
    file.unlink()
    assert stored.predictions("test") is None
    write_pipe(file)
    with pytest.raises(InputError, match="pipe"):
        stored.predictions("test")
    away = {**run.document(), "artifacts": {"predictions": "../elsewhere.parquet"}}
    with pytest.raises(InputError) as caught:
        Stored(away, tmp_path / run.run_id).predictions("test")
    assert caught.value.kind == "path_outside"


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=5), inner, max_size=2),
    max_leaves=4,
)


def check_edit(output: Path, data: st.DataObject) -> None:
    """Edit a result, a study and a journal, and read all that reads them."""
    run = store(output, "full")
    planned = {"method": "full", "dataset": "digits", "seed": 0, "run_id": run.run_id}
    store_study(output, "mine", [planned])
    write_event(output, "started", run.run_id, epoch=0)
    before = sorted(output.parent.iterdir())
    for file in (output / run.run_id / FILE, output / "studies" / "mine.json", output / "journal.jsonl"):
        document = json.loads(file.read_text())
        edit(document, data)
        file.write_text(json.dumps(document) + "\n")
    results = load_results(output)
    assert len(results.runs) + len(results.damaged) == 1
    for level in ("run", "cell", "epoch"):
        results.to_dataframe(level)  # type: ignore[arg-type]
    with suppress(InputError):
        load_results(output, "mine")
    assert len(with_scores([run], output)) == 1
    assert all(isinstance(result, Result) for result in iter_results(output))
    read_journal(output)
    assert sorted(output.parent.iterdir()) == before


@given(data=st.data())
def test_no_edit_breaks_what_reads_results(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    check_edit(tmp_path_factory.mktemp("edited") / "results", data)


@pytest.mark.slow
@settings(max_examples=2000, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_two_thousand_edits_break_nothing(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    check_edit(tmp_path_factory.mktemp("edited") / "results", data)


def edit(document: Any, data: st.DataObject) -> None:
    """Put something else into one place of a document."""
    while isinstance(document, dict | list) and document:
        keys = sorted(document) if isinstance(document, dict) else list(range(len(document)))
        key = data.draw(st.sampled_from(keys))
        if isinstance(document[key], dict | list) and document[key] and data.draw(st.booleans()):
            document = document[key]
            continue
        document[key] = data.draw(VALUES)
        return

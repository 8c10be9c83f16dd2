"""How long a study still takes, and its file: written by several at once and extended later."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from petlbench.core.errors import InputError
from petlbench.results.result import Result
from petlbench.results.table import read_studies, read_study
from petlbench.study.planned_run import PlannedRun
from petlbench.study.status import RunState, StudyStatus, record_runs, study_file
from tests.study.acting import acted_result, at_once


@pytest.fixture
def states(plans: list[PlannedRun]) -> list[RunState]:
    return [RunState(planned) for planned in plans]


def timed(planned: PlannedRun, seconds: float) -> Result:
    assert planned.config is not None
    return acted_result(planned.config, timing={"total": seconds})


def test_nothing_is_known_before_a_run_is_finished(states: list[RunState]) -> None:
    assert StudyStatus(states).seconds_left(1) == (None, len(states))


def test_time_left_is_that_of_finished_runs_of_the_same_place(states: list[RunState]) -> None:
    states[0].status, states[0].result = "finished", timed(states[0].planned, 10.0)
    board = StudyStatus(states)
    assert board.seconds_left(1) == (10.0, len(states) - 2)
    assert board.seconds_left(2) == (5.0, len(states) - 2)
    states[1].status, states[1].epoch = "running", 1
    assert board.seconds_left(1) == (5.0, len(states) - 2)
    states[1].status = "failed"
    assert board.seconds_left(1) == (None, len(states) - 2)


cells = st.lists(
    st.tuples(st.sampled_from("abc"), st.sampled_from("xy"), st.integers(0, 2)), min_size=1, max_size=8, unique=True
)


def recorded(cell: tuple[str, str, int], status: str | None = "finished", version: str = "1") -> dict[str, Any]:
    values = dict(zip(("method", "dataset", "seed"), cell, strict=True))
    return {**values, "run_id": f"{'-'.join(map(str, cell))}-{version}", "status": status, "error": None}


@given(batches=st.lists(cells, min_size=1, max_size=4))
def test_a_study_wants_whatever_it_was_ever_asked_for(
    tmp_path_factory: pytest.TempPathFactory, batches: list[list[tuple[str, str, int]]]
) -> None:
    output = tmp_path_factory.mktemp("results")
    for batch in batches:
        assert record_runs(output, "table", [recorded(cell) for cell in batch]) == []
    document = read_study(study_file(output, "table"))
    wanted = list(dict.fromkeys(cell for batch in batches for cell in batch))
    assert [(one["method"], one["dataset"], one["seed"]) for one in document["runs"]] == wanted
    for position, axis in enumerate(("methods", "datasets", "seeds")):
        assert document[axis] == list(dict.fromkeys(cell[position] for cell in wanted))


def test_what_several_write_at_once_is_all_there(tmp_path: Path) -> None:
    def write(method: str) -> None:
        for seed in range(10):
            record_runs(tmp_path, "table", [recorded((method, "x", seed))])

    at_once(*(lambda method=method: write(method) for method in "abc"))
    assert len(read_study(study_file(tmp_path, "table"))["runs"]) == 30
    assert [file.name for file in (tmp_path / "studies").iterdir() if file.suffix == ".tmp"] == []


def test_a_run_with_another_config_takes_the_place_of_the_old_one_and_is_told(tmp_path: Path) -> None:
    old = recorded(("a", "x", 0))
    record_runs(tmp_path, "table", [old, recorded(("a", "x", 1))])
    assert record_runs(tmp_path, "table", [recorded(("a", "x", 0), None, "2")]) == [old]
    runs = read_study(study_file(tmp_path, "table"))["runs"]
    assert [(one["run_id"], one["status"]) for one in runs] == [("a-x-0-2", None), ("a-x-1-1", "finished")]


def test_the_document_says_what_it_is(tmp_path: Path) -> None:
    record_runs(tmp_path, "table-2", [recorded(("a", "x", 0))], kind="sweep", more={"sweep": {"name": "fair"}})
    document = json.loads(study_file(tmp_path, "table-2").read_text())
    assert document["schema"] == 1
    assert (document["name"], document["kind"], document["sweep"]) == ("table-2", "sweep", {"name": "fair"})
    record_runs(tmp_path, "table-2", [recorded(("b", "x", 0))])
    assert (
        read_study(study_file(tmp_path, "table-2"))["kind"],
        read_study(study_file(tmp_path, "table-2"))["created"],
    ) == (
        "sweep",
        document["created"],
    )


@pytest.mark.parametrize("name", ["", "a/b", "../up", ".hidden", "with space"])
def test_a_name_that_can_name_no_file_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match="--study"):
        record_runs(tmp_path, name, [recorded(("a", "x", 0))])


DAMAGED = ("", "{", "[]", "null", '{"runs": 1}', '{"runs": [{}]}', '{"seeds": ["a"]}', '{"schema": 99}', "[" * 9999)


def test_a_study_that_is_damaged_is_named_and_the_others_are_read(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    record_runs(tmp_path, "table", [recorded(("a", "x", 0))])
    file = study_file(tmp_path, "broken")
    for text in (*DAMAGED, None):
        if text is None:
            file.unlink()
            file.mkdir()
        else:
            file.write_text(text)
        for read in (lambda: read_study(file), lambda: read_studies(tmp_path, "broken")):
            with pytest.raises(InputError, match=r"broken\.json") as caught:
                read()
            assert caught.value.kind == "bad_study"
        caplog.clear()
        assert list(read_studies(tmp_path, None)) == ["table"]
        assert [record.getMessage().count("broken.json") for record in caplog.records] == [1]

"""A result written on behalf of a process that could not."""

from __future__ import annotations

from pathlib import Path

import pytest

from petlbench.core.config import RunConfig, TrainingConfig
from petlbench.core.errors import InputError, RunError
from petlbench.results.folder import RunFolder
from petlbench.results.journal import read_journal
from petlbench.results.result import Result, read_result, write_result
from petlbench.run.failure import record_ending

LOST = {"kind": "worker_died", "message": "the process was lost", "hint": "look at its log"}


@pytest.fixture
def config() -> RunConfig:
    return RunConfig(
        method="linear",
        dataset="digits",
        split="official",
        backbone="petlbench_micro",
        image_size=64,
        training=TrainingConfig(lr=0.1, weight_decay=0),
        preload=True,
        cache_precision="int8",
        device="cpu",
        threads=1,
    )


def test_a_lost_run_has_a_result_and_a_line_in_the_journal(config: RunConfig, tmp_path: Path) -> None:
    record_ending(config, tmp_path, "failed", LOST, seconds=12.5)
    result = read_result(tmp_path / config.run_id)
    assert (result.status, result.error, result.timing) == ("failed", LOST, {"total": 12.5})
    assert [(line["event"], line["status"]) for line in read_journal(tmp_path)] == [("ended", "failed")]
    assert not RunFolder(tmp_path, config.run_id).work.exists()


def test_the_checkpoint_stays_for_the_next_attempt(config: RunConfig, tmp_path: Path) -> None:
    folder = RunFolder(tmp_path, config.run_id)
    folder.work.mkdir(parents=True)
    folder.checkpoint.write_bytes(b"state")
    record_ending(config, tmp_path, "timeout", LOST)
    record_ending(config, tmp_path, "failed", LOST)
    assert folder.checkpoint.read_bytes() == b"state"
    assert read_result(folder.final).status == "failed"


def test_a_finished_result_is_never_replaced(config: RunConfig, tmp_path: Path) -> None:
    folder = tmp_path / config.run_id
    folder.mkdir()
    write_result(folder, Result(run_id=config.run_id, status="finished", config=config))
    assert record_ending(config, tmp_path, "failed", LOST).status == "finished"
    assert read_result(folder).status == "finished"
    assert read_journal(tmp_path) == []


def test_a_run_that_another_process_works_on_is_left_alone(config: RunConfig, tmp_path: Path) -> None:
    folder = RunFolder(tmp_path, config.run_id)
    with folder.locked(), pytest.raises(RunError) as refused:
        record_ending(config, tmp_path, "failed", LOST)
    assert refused.value.kind == "already_running"
    assert not folder.final.exists()


def test_a_folder_that_cannot_be_written_to_is_named(config: RunConfig, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="file"):
        record_ending(config, tmp_path / "file", "failed", LOST)

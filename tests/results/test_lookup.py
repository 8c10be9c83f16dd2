"""One way to name a run: its id, the beginning of it, or its folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from petlbench.core.errors import InputError
from petlbench.results.folder import find_run
from tests.report.stored import store


def test_a_run_is_found_by_id_beginning_and_folder(tmp_path: Path) -> None:
    first, second = store(tmp_path, "lora"), store(tmp_path, "linear")
    for name in (first.run_id, "lora-", str(tmp_path / first.run_id)):
        assert find_run(name, tmp_path).final == tmp_path / first.run_id
    with pytest.raises(InputError, match="beginning of 2 runs") as caught:
        find_run("l", tmp_path)
    assert caught.value.kind == "ambiguous_run"
    assert first.run_id in caught.value.message
    assert second.run_id in caught.value.message
    with pytest.raises(InputError) as caught:
        find_run("full", tmp_path)
    assert caught.value.kind == "unknown_run"

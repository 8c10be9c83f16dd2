"""What methods learn on a backbone: tried once, remembered for as long as nothing has changed that decides it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from petlbench.core.catalog import Catalog
from petlbench.models import compatibility
from petlbench.models.compatibility import Compatibility, OnBackbone, methods_on
from petlbench.results.result import Parameters


@pytest.fixture
def tried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The backbones that methods were tried on; two methods stand for all."""
    monkeypatch.setenv("PETLBENCH_CACHE", str(tmp_path / "cache"))
    names: list[str] = []

    def check(catalog: Catalog, backbone: str, image_size: int | None, num_classes: int) -> Any:
        names.append(backbone)
        parameters = Parameters(learnable=10, total=100, ratio=0.1, ratio_published=0.1)
        yield Compatibility(catalog.find("method", "linear"), None, parameters)
        yield Compatibility(catalog.find("method", "fpt"), "no attention", None)

    monkeypatch.setattr(compatibility, "check_compatibility", check)
    return names


def ask(classes: int = 7, backbone: str = "petlbench_micro") -> OnBackbone:
    return methods_on(Catalog(), backbone, 64, classes)


def test_an_answer_is_remembered_for_its_question(tried: list[str]) -> None:
    first, again = ask(), ask()
    assert [(each.entry.name, each.reason, each.parameters) for each in first.answers] == [
        (each.entry.name, each.reason, each.parameters) for each in again.answers
    ]
    assert (again.name, again.image_size) == (first.name, 64)
    assert len(tried) == 1
    ask(classes=8)
    assert len(tried) == 2


def test_changed_code_and_damaged_files_are_no_answer(
    tried: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask()
    [kept] = (tmp_path / "cache" / "compatibility").iterdir()
    for text in ("{", '{"answers": {"linear": {"parameters": {"learnable": "many"}}}}'):
        kept.write_text(text)
        ask()
    assert len(tried) == 3
    monkeypatch.setattr(compatibility, "code_state", lambda: "changed")
    ask()
    assert len(tried) == 4
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("PETLBENCH_CACHE", str(tmp_path / "file"))
    assert ask().answers

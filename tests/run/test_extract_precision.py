"""The precision of extraction: named, or measured once for a machine and the same for every run there."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch

from petlbench.core.catalog import Catalog
from petlbench.core.config import RunConfig
from petlbench.core.errors import InputError
from petlbench.core.request import Request
from petlbench.data.loader import Batch
from petlbench.features.frozen import ImportantTokens
from petlbench.features.source import LiveFeatures
from petlbench.models.registry import build_backbone
from petlbench.run.extract_precision import faster_precision
from petlbench.run.resolve import resolve

CATALOG = Catalog()


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of what is remembered of this machine: nothing yet."""
    monkeypatch.setenv("PETLBENCH_CACHE", str(tmp_path))
    return tmp_path / "machine"


def config(method: str = "fpt", **asked: Any) -> RunConfig:
    request = Request(method, "digits", backbone="petlbench_micro", image_size=32, device="cpu", threads=1, **asked)
    return resolve(request, CATALOG, Path("data")).config


def test_the_name_of_a_run_tells_it_where_it_differs_from_the_runs_own() -> None:
    plain = config()
    assert config(extract_precision="fp32") == plain
    assert config(precision="bf16", extract_precision="bf16") == config(precision="bf16")
    half = config(extract_precision="bf16")
    assert (half.extract_precision, half.precision, half.features_precision) == ("bf16", "fp32", "bf16")
    assert half.run_id != plain.run_id


def test_auto_is_measured_once_and_remembered(machine: Path) -> None:
    with ThreadPoolExecutor(2) as askers:
        answers = {*askers.map(lambda _: faster_precision("cpu", 1, 192), range(2))}
    [file] = machine.glob("*.json")
    measured = json.loads(file.read_text())
    assert answers == {measured["precision"]} == {"bf16" if measured["bf16_over_fp32"] <= 0.75 else "fp32"}
    # What is remembered is what holds, whatever another measurement would say.
    for precision in ("bf16", "fp32"):
        file.write_text(json.dumps(measured | {"precision": precision}))
        assert config(extract_precision="auto") == config(extract_precision=precision)
    file.write_text("{")
    assert {faster_precision("cpu", 1, 192)} == answers
    assert json.loads(file.read_text())["precision"] in answers


@pytest.mark.parametrize(
    ("method", "asked", "named"),
    [
        ("full", {"extract_precision": "bf16"}, "takes nothing from a frozen backbone"),
        ("fpt", {"extract_precision": "fp8"}, "fp8"),
    ],
)
def test_what_cannot_be_is_refused(method: str, asked: dict[str, str], named: str) -> None:
    with pytest.raises(InputError, match=named):
        config(method, **asked)


def test_auto_is_refused_where_the_device_is_not_here_or_nothing_can_be_remembered(machine: Path) -> None:
    if not torch.cuda.is_available():
        with pytest.raises(InputError, match="cuda is not available here"):
            faster_precision("cuda", 1, 192)
    machine.write_text("a file where the folder would be")
    with pytest.raises(InputError, match="cannot be written"):
        faster_precision("cpu", 1, 192)


def test_extraction_has_its_own_precision_whatever_is_around_it() -> None:
    backbone = build_backbone("petlbench_micro", 32, "default", torch.device("cpu"))
    images = torch.randn(8, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    batch = Batch(torch.arange(8), {"fine": images}, torch.zeros(8, dtype=torch.int64))

    def extract(precision: str) -> torch.Tensor:
        return LiveFeatures(backbone, ImportantTokens((0, 5), 1.0, "global"), precision).extract(batch)["keys"]

    exact, half = extract("fp32"), extract("bf16")
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(extract("fp32"), exact)
    # All tokens are taken, in the order of their importance: compare them without it.
    apart = (half.mean(dim=3) - exact.mean(dim=3)).norm() / exact.mean(dim=3).norm()
    assert 1e-4 < apart < 0.02

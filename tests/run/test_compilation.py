"""``--compile``: the same results, the same names, and a clear word where it cannot be."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from petlbench.core.config import RunConfig
from petlbench.core.errors import RunError
from petlbench.models.method import Adapted, Inputs
from petlbench.run import compilation
from petlbench.run.compilation import as_written, compile_module
from petlbench.training.trainer import Checkpoint, Selected, Trainer
from tests.bench.compiled import BOUND, compare_compiled
from tests.bench.steps import Setting

TINY = ("--method", "linear", "--backbone", "petlbench_micro", "--image-size", "32", "--threads", "1", "--epochs", "2")
CONFIG = RunConfig.model_construct(method="small", backbone="none", precision="fp32", device="cpu", compile=True)


@pytest.fixture
def run(run_document: Callable[..., dict[str, Any]]) -> Callable[..., dict[str, Any]]:
    """Run petlbench so, and return its JSON document."""
    return partial(run_document, *TINY)


def test_a_compiled_run_has_the_results_and_the_names_of_a_plain_one(run: Callable[..., dict[str, Any]]) -> None:
    plain, compiled = run(), run("--compile")
    assert (plain["config"]["compile"], compiled["config"]["compile"]) == (False, True)
    assert plain["run_id"] != compiled["run_id"]
    assert "compile" not in plain["timing"]
    assert compiled["timing"]["compile"] > 0
    tables = [pd.read_parquet(result["artifacts"]["predictions"]) for result in (plain, compiled)]
    logits = [torch.tensor(np.stack(table["logits"])) for table in tables]
    assert torch.allclose(*logits, rtol=0, atol=BOUND)
    learned = [load_file(result["artifacts"]["learned"]) for result in (plain, compiled)]
    assert list(learned[0]) == list(learned[1])
    assert abs(plain["curve"][-1]["train_loss"] - compiled["curve"][-1]["train_loss"]) < BOUND
    # Tensors cannot be counted in what was compiled, and a figure that cannot be had is none.
    assert plain["memory"]["allocated"] > 0
    assert compiled["memory"]["allocated"] is None
    assert compiled["inference"]["latency"] > 0


@pytest.mark.slow
def test_a_compiled_training_that_goes_on_ends_with_the_same_bytes(
    run: Callable[..., dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop_behind_the_first(checkpoint: Checkpoint, trainer: Trainer, selected: Selected) -> None:
        save(checkpoint, trainer, selected)
        raise KeyboardInterrupt

    options, save = ("--compile", "--no-drop-last", "--no-preload", "--batch-size", "10"), Checkpoint.save
    whole = run(*options, output=tmp_path / "whole")
    monkeypatch.setattr(Checkpoint, "save", stop_behind_the_first)
    stopped = run(*options)
    assert (stopped["status"], len(stopped["curve"])) == ("interrupted", 1)
    monkeypatch.undo()
    resumed = run(*options)
    assert resumed["status"] == "finished"
    for artifact in ("learned", "predictions"):
        assert Path(resumed["artifacts"][artifact]).read_bytes() == Path(whole["artifacts"][artifact]).read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("method", ["full", "vpt", "adapter", "lora", "fpt"])
def test_a_compiled_method_gives_what_it_gives_as_it_is_written(method: str) -> None:
    row = compare_compiled(method, Setting("petlbench_micro", size=128, batch=8), rounds=1)
    assert row.agrees, row
    assert min(row.plain, row.compiled) > 0


class Small(nn.Module):
    """Draws random numbers, and keeps in buffers what it has seen."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(12, 3)
        self.norm = nn.BatchNorm1d(12)
        self.dropout = nn.Dropout(0.5)

    def forward(self, inputs: Inputs) -> Tensor:
        out: Tensor = self.head(self.dropout(self.norm(inputs.views["fine"].flatten(1))))
        return out


def small() -> tuple[Adapted, Inputs]:
    torch.manual_seed(0)
    module = Small()
    adapted = Adapted(module, frozenset({"head.weight", "head.bias"}))
    adapted.freeze_the_rest()
    return adapted, Inputs({"fine": torch.randn(8, 3, 2, 2)})


def test_compiling_changes_no_tensor_no_name_and_no_random_number() -> None:
    (plain, inputs), (compiled, _) = small(), small()
    torch.manual_seed(1)
    compile_module(compiled, inputs, CONFIG)
    assert torch.initial_seed() == 1
    assert plain.module.state_dict().keys() == compiled.module.state_dict().keys()
    assert all(map(torch.equal, plain.module.state_dict().values(), compiled.module.state_dict().values()))
    drawn = []
    for adapted in (plain, compiled):
        torch.manual_seed(2)
        drawn.append(adapted.module.train()(inputs))
    assert torch.allclose(*drawn, rtol=0, atol=1e-6)
    assert (drawn[0] - plain.module.eval()(inputs)).abs().max() > 0.01, "dropout has to have a part in it"


def test_a_compiled_module_runs_as_written_where_that_is_asked_for() -> None:
    adapted, inputs = small()
    compile_module(adapted, inputs, CONFIG)
    seen: list[bool] = []
    adapted.module.head.register_forward_hook(lambda *_: seen.append(torch.compiler.is_compiling()))
    with as_written(CONFIG), torch.no_grad():
        adapted.module.eval()(inputs)
    assert seen == [False]


def test_what_cannot_be_compiled_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("no kernel for this\nand much more")

    monkeypatch.setattr(compilation, "_run_once", fail)
    with pytest.raises(RunError, match=r"cannot compile small on none: RuntimeError: no kernel for this$") as caught:
        compile_module(*small(), CONFIG)
    assert caught.value.kind == "cannot_compile"


def test_without_a_compiler_nothing_is_begun(
    run: Callable[..., dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: object) -> Callable[..., None]:
        raise RuntimeError("No working C++ compiler found")

    monkeypatch.setattr(torch, "compile", fail)
    result = run("--compile")
    assert (result["exit_status"], result["error"]["kind"]) == (2, "no_compiler")
    assert "--compile" in result["error"]["message"]
    assert "No working C++ compiler found" in result["error"]["message"]
    assert not list((tmp_path / "results").glob("linear-*"))


@pytest.mark.slow
def test_a_machine_that_has_no_compiler_is_told_so(images: Path, tmp_path: Path) -> None:
    places = ("--dataset", str(images), "--output", str(tmp_path / "results"), "--tracking-uri", "none")
    command = [sys.executable, "-m", "petlbench", "run", *TINY, *places, "--compile"]
    lacking = {"CXX": "/nowhere/g++", "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "cache")}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, **lacking})
    assert done.returncode == 2, done.stderr
    assert "--compile: torch.compile cannot compile for cpu here" in done.stderr
    assert "install a C++ compiler" in done.stderr

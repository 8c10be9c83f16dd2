"""A user's method that is wrong ends its run with a result that says so, and nothing else."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from petlbench.cli.app import run_command

METHOD = """
import asyncio
import sys

import torch

from petlbench import Adapted, Inputs, Method, MethodCard, MethodSettings, new_head


class Module(torch.nn.Module):
    def __init__(self, backbone, num_classes, fault):
        super().__init__()
        self.backbone, self.fault, self._pooled = backbone.module, fault, backbone.pooled
        self.head = new_head(backbone.info.width, num_classes + 3 * (fault == "five"))

    def forward(self, inputs: Inputs):
        if self.fault == "exit":
            sys.exit()
        if self.fault == "cancel":
            raise asyncio.CancelledError("gone")
        logits = self.head(self._pooled(inputs.views["fine"]))
        return {"nan": logits / 0, "fixed": logits.detach(), "list": [logits]}.get(self.fault, logits)


class Faulty(Method):
    card = MethodCard(name="faulty", title="Faulty", family="x", year=2026, paper="")

    class Settings(MethodSettings):
        fault: str = ""

    def adapt(self, backbone, num_classes):
        if self.settings.fault == "build":
            sys.exit(0)
        module = Module(backbone, num_classes, self.settings.fault)
        return Adapted(module, frozenset({"head.weight", "head.bias"}))
"""


@pytest.mark.parametrize(
    ("fault", "kind", "words"),
    [
        ("exit", "exception", "SystemExit"),
        ("cancel", "exception", "CancelledError: gone"),
        ("build", "exception", "asked the program to end"),
        ("five", "bad_module", "(2, 13) for 2 images of 10 classes"),
        ("list", "bad_module", "gives list"),
        ("nan", "bad_module", "not finite"),
        ("fixed", "bad_module", "nothing that is learned"),
    ],
)
def test_a_faulty_method_fails_its_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], fault: str, kind: str, words: str
) -> None:
    (tmp_path / "faulty.py").write_text(METHOD)
    command = ["run", "--method", "faulty", "--catalog", str(tmp_path), "--dataset", "digits", "--epochs", "1"]
    command += ["--backbone", "petlbench_micro", "--image-size", "32", "--set", f"method.fault={fault}"]
    command += ["--output", str(tmp_path / "results"), "--tracking-uri", "none", "--threads", "1", "--json"]
    assert run_command(command) == 1
    error = json.loads(capsys.readouterr().out)["error"]
    assert error["kind"] == kind
    assert words in error["message"]
    statuses = [json.loads(file.read_text())["status"] for file in (tmp_path / "results").glob("*/result.json")]
    assert statuses == ([] if fault == "build" else ["failed"])

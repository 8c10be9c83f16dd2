"""The plug-in on methods of a user's: a good one passes, and each broken one fails at its rule, in words."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

GOOD = """
import torch
from pydantic import Field
from torch import nn
from petlbench import Adapted, Classifier, Method, MethodCard, MethodSettings, TrainingDefaults


class Settings(MethodSettings):
    width: int = Field(8, ge=1, le=64, description="channels", json_schema_extra={"search": [4, 8]})


class Side(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.down, self.up = nn.Linear(192, width), nn.Linear(width, 192)
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, tokens):
        return tokens + self.up(torch.tanh(self.down(tokens)))


class Network(Classifier):
    def __init__(self, backbone, num_classes, width):
        super().__init__(backbone, num_classes)
        self.side = Side(width)

    def forward(self, inputs):
        return self.head(self.side(self._pooled(inputs.views["fine"])))


class Mine(Method[Settings]):
    card = MethodCard(name="mine", title="Mine", family="own", year=2026, paper="https://example.org")
    Settings = Settings
    defaults = TrainingDefaults(lr=1e-3)

    def adapt(self, backbone, num_classes):
        module = Network(backbone, num_classes, self.settings.width)
        learnable = [name for name, _ in module.named_parameters() if name.startswith(("side.", "head."))]
        return Adapted(module, frozenset(learnable))
"""

# What is wrong: the text that is replaced, by what, the rule and the words.
FORWARD = 'return self.head(self.side(self._pooled(inputs.views["fine"])))'
BROKEN = {
    "learns a frozen scale behind the optimiser's back": (
        FORWARD,
        """if self.training:
            with torch.no_grad():
                self.backbone.blocks[0].norm1.weight.mul_(0.99)
        """
        + FORWARD,
        "test_only_what_is_declared_is_learned",
        r"learns 'backbone\.blocks\.0\.norm1\.weight', which it did not declare: add it to learnable, or freeze it",
    ),
    "forgets a new layer": (
        'startswith(("side.", "head."))',
        'startswith(("side.up", "head."))',
        "test_only_what_is_declared_is_learned",
        r"learns 'side\.down\.bias', 'side\.down\.weight', which it did not declare",
    ),
    "unfreezes in forward": (
        FORWARD,
        "self.backbone.norm.weight.requires_grad_(True)\n        " + FORWARD,
        "test_only_what_is_declared_is_learned",
        r"learns 'backbone\.norm\.weight', which it did not declare",
    ),
    "hides a parameter from the module": (
        "self.side = Side(width)",
        "self.side = Side(width)\n        scales = [nn.Parameter(torch.ones(192))]\n"
        "        self.side.register_forward_hook(lambda module, inputs, output: output * scales[0])",
        "test_only_what_is_declared_is_learned",
        r"learns 'a tensor of shape \(192,\) that is no parameter of the module', which it did not declare",
    ),
    "declares a name that is not there": (
        "frozenset(learnable)",
        'frozenset([*learnable, "side.middle.weight"])',
        "test_what_is_declared_learnable_exists",
        r"declares 'side\.middle\.weight' learnable, but the module has no parameter of that name",
    ),
    "declares what forward does not use": (
        "self.side = Side(width)",
        "self.side = Side(width)\n        self.side.unused = nn.Parameter(torch.ones(3))",
        "test_all_that_is_declared_is_learned",
        r"'side\.unused' is declared learnable and has no gradient",
    ),
    "counts the images in a buffer": (
        "return tokens + self.up",
        "self.seen += len(tokens) if self.training else 0\n        return tokens + self.up",
        "test_no_buffer_changes_in_training",
        r"changes the buffer 'side\.seen' in training, which no run keeps",
    ),
    "counts otherwise where there are no values": (
        "module = Network(backbone, num_classes, self.settings.width)",
        "width = self.settings.width // 2 if backbone.device.type == 'meta' else self.settings.width\n"
        "        module = Network(backbone, num_classes, width)",
        "test_the_count_is_what_is_declared_and_the_same_on_meta",
        r"learns [\d,]+ parameters, on device meta [\d,]+; 'side\.down\.bias'",
    ),
    "counts less than nothing": (
        "frozenset(learnable)",
        "frozenset(learnable), published_extra_total=-1000",
        "test_the_count_is_what_is_declared_and_the_same_on_meta",
        r"published_extra_total is what the paper counts more, so zero or larger",
    ),
    "takes the mean of the batch": (
        "return tokens + self.up",
        "tokens = tokens - tokens.mean(dim=0)\n        return tokens + self.up",
        "test_an_image_is_judged_alone_in_evaluation",
        r"gives an image other logits alone than in a batch \(by .+\) in evaluation mode",
    ),
    "reads a value": (
        "return tokens + self.up",
        "if float(tokens.abs().max()) > 1e9:\n            tokens = tokens / 2\n        return tokens + self.up",
        "test_a_step_works_on_meta",
        r"cannot take a step on device meta; there tensors have no values, so nothing may be read back",
    ),
    "draws in evaluation": (
        "return tokens + self.up",
        "tokens = tokens + 0.1 * torch.randn_like(tokens)\n        return tokens + self.up",
        "test_an_image_is_judged_alone_in_evaluation",
        r"gives other logits each time in evaluation mode",
    ),
    "fixes a type": (
        'inputs.views["fine"]',
        'inputs.views["fine"].float()',
        "test_it_works_in_float64",
        "does not work in float64: take dtype and device from the tensors at hand",
    ),
    "bounds nothing": (
        "Field(8, ge=1, le=64, description",
        "Field(8, description",
        "test_every_setting_has_a_description_bounds_and_a_default",
        r"the setting 'width' of Mine has no bounds \(ge=, le=\): add to its Field",
    ),
    "searches what it refuses": (
        '"search": [4, 8]',
        '"search": [8, 128]',
        "test_the_values_of_a_search_are_valid",
        r"the setting 'width' of Mine searches 128, which it refuses",
    ),
    "says nothing when it refuses": (
        "    def adapt(",
        "    def refuse(self, backbone):\n        return 'no'\n\n    def adapt(",
        "test_it_adapts_or_refuses_with_a_reason",
        r"is refused with 'no': name the backbone or the size",
    ),
    "returns nothing": (
        "return Adapted(module, frozenset(learnable))",
        "Adapted(module, frozenset(learnable))",
        "test_it_adapts_or_refuses_with_a_reason",
        r"adapt returns a NoneType, not an Adapted",
    ),
}


SMALL = ("--petlbench-backbone", "petlbench_micro@32")
Run = Callable[..., tuple[int, str]]


def write(file: Path, text: str) -> None:
    file.parent.mkdir(exist_ok=True)
    file.write_text(text, encoding="utf-8")


def test_a_good_method_passes_on_two_backbones_without_a_test_file(tmp_path: Path, run: Run) -> None:
    write(tmp_path / "my_method.py", GOOD)
    write(tmp_path / "test_other.py", "def test_of_the_users(): assert False\n")
    status, output = run("--petlbench-method", "my_method.py")
    assert status == 0, output
    assert int(re.findall(r"(\d+) passed", output)[0]) > 30


@pytest.mark.parametrize("fault", BROKEN)
def test_a_broken_method_fails_at_its_rule_in_words(fault: str, tmp_path: Path, run: Run) -> None:
    text, replacement, rule, words = BROKEN[fault]
    assert text in GOOD
    write(tmp_path / "my_method.py", GOOD.replace(text, replacement))
    status, output = run("--petlbench-method", "my_method.py", *SMALL, "-k", rule)
    assert status == 1, output
    assert f"FAILED my_method.py::Mine::{rule}[mine" in output
    assert re.search(words, output), output


def test_a_method_of_a_catalogue_is_taken_by_its_name_beside_other_tests(tmp_path: Path, run: Run) -> None:
    write(tmp_path / "own" / "mine.py", GOOD)
    write(tmp_path / "test_other.py", "def test_of_the_users(): pass\n")
    arguments = ["--petlbench-method", "mine", "--petlbench-catalog", "own", *SMALL, "test_other.py"]
    status, output = run(*arguments, "-v", "-k", "users or exists")
    assert status == 0, output
    assert "test_other.py::test_of_the_users PASSED" in output
    assert "own/mine.py::Mine::test_what_is_declared_learnable_exists[mine-petlbench_micro] PASSED" in output


@pytest.mark.parametrize(
    ("reference", "words"),
    [("empty.py", "has a 'card = MethodCard"), ("lorra", "lora"), ("absent.py", "absent.py is broken")],
)
def test_a_file_without_a_method_and_an_unknown_name_are_said(
    tmp_path: Path, run: Run, reference: str, words: str
) -> None:
    write(tmp_path / "empty.py", "x = 1\n")
    status, output = run("--petlbench-method", reference)
    assert status == pytest.ExitCode.USAGE_ERROR
    assert words in output
    assert "Traceback" not in output


def test_a_class_of_a_test_module_is_a_contract_too(tmp_path: Path, run: Run) -> None:
    lines = ["class TestMine(MethodContract):", "method = Mine", "settings = {'width': 4}"]
    body = "\n    ".join([*lines, "backbones = {'petlbench_micro': 32}"])
    write(tmp_path / "test_mine.py", f"{GOOD}\nfrom petlbench.testing import MethodContract\n\n{body}\n")
    status, output = run("-k", "count or exists or search")
    assert status == 0, output
    assert "3 passed" in output


def test_other_sessions_import_neither_torch_nor_the_contracts(tmp_path: Path) -> None:
    heavy = ("torch", "numpy", "pydantic", "petlbench.testing.method", "petlbench.core")
    write(
        tmp_path / "test_other.py", f"import sys\n\ndef test_light():\n    assert not {{*{heavy}}} & {{*sys.modules}}\n"
    )
    # With the other plug-ins off: some of them import numpy themselves.
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    command = [sys.executable, "-m", "pytest", "-p", "petlbench.testing.plugin", "-p", "no:cacheprovider"]
    result = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr

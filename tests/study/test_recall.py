"""A finished study is told without torch when it is asked for again, while all that it depends on is as it was."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import petlbench as pb
from petlbench.data.dataset import Dataset
from petlbench.study import runner

OPTIONS: dict[str, Any] = {
    "backbone": "petlbench_micro", "image_size": 32, "epochs": 1, "batch_size": 8, "device": "cpu", "threads": 1,
    "tracking_uri": "none", "measure_inference": "off", "workers": 0, "progress": False,
}  # fmt: skip


class Asked:
    """A study of two methods, and whether asking again carries it out again."""

    def __init__(self, folder: Path, images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.data, self.output = folder / "one", folder / "results"
        shutil.copytree(images / "one", self.data)
        self.options = {**OPTIONS, "output": str(self.output)}
        self.count = 0
        carry_out = runner.carry_out

        def counted(*arguments: Any) -> Any:
            self.count += 1
            return carry_out(*arguments)

        monkeypatch.setattr(runner, "carry_out", counted)

    def __call__(self, **changes: Any) -> tuple[bool, dict[str, Any]]:
        """Whether the study is recalled, and what it came to."""
        before = self.count
        results = pb.bench(["linear", "adapter"], [str(self.data)], [0, 1], **{**self.options, **changes})
        return self.count == before, results.summaries[0].document()


@pytest.fixture
def asked(tmp_path: Path, images: Path, monkeypatch: pytest.MonkeyPatch) -> Asked:
    return Asked(tmp_path, images, monkeypatch)


def test_a_finished_study_is_told_without_torch_until_something_changes(
    asked: Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    is_recalled, document = asked()
    assert not is_recalled
    assert asked() == (True, document)
    arguments = f"['linear', 'adapter'], [{str(asked.data)!r}], [0, 1], **{asked.options!r}"
    code = (
        "import json, sys, petlbench as pb\n"
        f"print(json.dumps(pb.bench({arguments}).summaries[0].document()))\n"
        "assert not {'torch', 'timm', 'mlflow'} & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, timeout=120, capture_output=True, text=True)
    assert json.loads(done.stdout) == json.loads(json.dumps(document))

    decoded = list[str]()
    decode = Dataset.open_deep
    monkeypatch.setattr(
        Dataset, "open_deep", lambda self, record: decoded.append(record.image_id) or decode(self, record)
    )
    assert asked(verify=True) == (False, document)
    assert len(decoded) == 20
    assert asked() == (True, document)

    (run_id, *_) = (run["run_id"] for run in document["runs"])
    shutil.rmtree(asked.output / run_id)
    assert not asked()[0]
    assert asked()[0]

    Image.new("RGB", (32, 32), (9, 9, 9)).save(asked.data / "red" / "00.png")
    assert not asked()[0]
    is_recalled, document = asked(verify=True)
    assert {run["error"]["kind"] for run in document["runs"]} == {"stale_result"}

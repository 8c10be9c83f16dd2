"""One run, start to end, through the command line, on images that are real files."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from sklearn.metrics import roc_auc_score

from petlbench.cli.app import run_command
from petlbench.memory.measure import MemoryMeter
from petlbench.run import build, execute, inference_cost

METHODS = ("full", "linear", "lora", "vpt", "fpt", "fpt_plus")
TINY = ("--backbone", "petlbench_micro", "--image-size", "32", "--batch-size", "8", "--threads", "1")
Run = Callable[..., dict[str, Any]]


@pytest.fixture
def run(run_document: Run) -> Run:
    """Run petlbench so, and return its JSON document."""
    return partial(run_document, *TINY)


def softmax(logits: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def predictions(result: dict[str, Any]) -> pd.DataFrame:
    return pd.read_parquet(result["artifacts"]["predictions"])


@pytest.mark.parametrize("method", METHODS)
def test_the_reported_auc_is_that_of_the_stored_logits(run: Run, method: str) -> None:
    result = run("--method", method, "--epochs", "2")
    assert (result["exit_status"], result["status"], result["schema"]) == (0, "finished", 1)
    frame = predictions(result)
    for split in ("val", "test"):
        rows = frame[frame["split"] == split]
        logits = np.stack(rows["logits"].to_list()).astype(np.float64)
        expected = roc_auc_score(rows["label"], softmax(logits), multi_class="ovr", average="macro")
        assert result["metrics"][split]["auc"] == pytest.approx(expected, abs=1e-9)
    assert len(result["curve"]) == 2
    assert result["memory"]["source"] == "cpu"
    assert sum(result["memory"]["parts"].values()) == result["memory"]["allocated"] > 0


@pytest.mark.slow
def test_the_best_epoch_is_the_best_on_validation(run: Run) -> None:
    result = run("--method", "full", "--epochs", "4")
    aucs = [entry["val_auc"] for entry in result["curve"]]
    assert result["best_epoch"] == aucs.index(max(aucs)) + 1
    assert result["metrics"]["val"]["auc"] == max(aucs)


def test_the_same_seed_gives_the_same_bytes_and_another_seed_does_not(run: Run, tmp_path: Path) -> None:
    first, again = (run("--method", "fpt", "--epochs", "2", output=tmp_path / name) for name in ("a", "b"))
    other = run("--method", "fpt", "--epochs", "2", "--seed", "1", output=tmp_path / "a")
    files = [Path(result["artifacts"]["predictions"]).read_bytes() for result in (first, again, other)]
    assert files[0] == files[1] != files[2]
    assert first["run_id"] == again["run_id"] != other["run_id"]


@pytest.mark.parametrize(("precision", "apart"), [("fp32", 1e-4), pytest.param("int8", 0.02, marks=pytest.mark.slow)])
def test_preloading_and_no_preloading_agree(run: Run, precision: str, apart: float) -> None:
    options = ("--method", "fpt", "--epochs", "2")
    preloaded, live = run(*options, "--cache-precision", precision), run(*options, "--no-preload")
    logits = [np.stack(predictions(result)["logits"].to_list()) for result in (preloaded, live)]
    np.testing.assert_allclose(*logits, atol=apart)
    features = preloaded["data"]["features"]
    assert features["bytes"] == 60 * features["bytes_per_image"] > 0
    assert "features" not in live["data"]


def test_what_is_stored_is_what_was_learned_and_nothing_else(run: Run) -> None:
    result = run("--method", "lora", "--epochs", "1")
    learned, others = (Path(result["artifacts"][name]) for name in ("learned", "predictions"))
    assert learned.stat().st_mode == others.stat().st_mode
    tensors = load_file(learned)
    assert sum(tensor.numel() for tensor in tensors.values()) == result["parameters"]["learnable"]
    assert all("lora_" in name or name.startswith("head.") for name in tensors)


def test_a_finished_run_is_not_run_again(run: Run) -> None:
    options = ("--method", "linear", "--epochs", "1")
    first, second = run(*options), run(*options)
    assert first["timing"] == second["timing"]
    assert run(*options, "--rerun")["timing"] != first["timing"]


def test_a_result_whose_data_changed_is_said_to_be_stale(run: Run, images: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    subprocess.run(["cp", "-r", str(images), str(copy)], check=True)
    options = ("--method", "linear", "--epochs", "1")
    run(*options, dataset=copy)
    Image.new("RGB", (40, 40)).save(copy / "red" / "00.png")
    refused = run(*options, dataset=copy)
    assert (refused["exit_status"], refused["error"]["kind"]) == (2, "stale_result")
    assert "data differs" in refused["error"]["message"]
    assert run(*options, "--accept", dataset=copy)["status"] == "finished"
    assert run(*options, "--rerun", dataset=copy)["digests"]["data"]


def test_pme_takes_the_run_of_full_with_the_same_setting(run: Run) -> None:
    alone = run("--method", "linear", "--epochs", "1")
    assert alone["scores"]["pme"] is None
    full = run("--method", "full", "--epochs", "1")
    assert full["scores"]["pme"] == pytest.approx(full["scores"]["ppe"])
    beside = run("--method", "linear", "--epochs", "1", "--rerun")
    assert beside["scores"]["pme_reference"]["run_id"] == full["run_id"]
    ratio = beside["memory"]["allocated"] / full["memory"]["allocated"]
    assert beside["scores"]["pme"] == pytest.approx(beside["metrics"]["test"]["auc"] * np.exp(-np.log10(ratio + 1)))


@pytest.mark.parametrize(
    "method", [pytest.param(name, marks=[] if name in {"lora", "fpt"} else [pytest.mark.slow]) for name in METHODS]
)
def test_the_prediction_of_memory_is_what_a_run_measures(run: Run, method: str) -> None:
    predicted = run("--method", method, "--epochs", "1", "--dry-run")["memory"]
    measured = run("--method", method, "--epochs", "1")["memory"]
    assert (predicted["source"], measured["source"]) == ("predicted", "cpu")
    assert predicted["allocated"] == pytest.approx(measured["allocated"], rel=0.001)


def test_a_loss_that_is_not_finite_ends_the_run_and_the_result_says_so(run: Run, tmp_path: Path) -> None:
    result = run("--method", "full", "--epochs", "2", "--lr", "1e6", "--set", "training.clip_grad_norm=0")
    assert (result["exit_status"], result["status"]) == (1, "failed")
    assert result["error"]["kind"] == "nan_loss"
    stored = json.loads((tmp_path / "results" / result["run_id"] / "result.json").read_text())
    assert stored["status"] == "failed"
    assert not (tmp_path / "results" / result["run_id"] / "predictions.parquet").exists()


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB."), MemoryError("no room")]
)
def test_out_of_memory_is_recorded(run: Run, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr("petlbench.training.step.Step.__call__", fail)
    result = run("--method", "full", "--epochs", "1")
    assert (result["exit_status"], result["status"]) == (1, "oom")
    assert str(error) in result["error"]["message"]


GREEDY_METHOD = """
import torch

from petlbench import Adapted, Classifier, Method, MethodCard, MethodSettings, TrainingDefaults

CUDA = (
    "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 15.77 GiB of which 1.20 GiB is free."
    " Including non-PyTorch memory, this process has 14.57 GiB memory in use."
)


class Greedy(Classifier):
    passes, device, allowed = 0, "cpu", 1

    def forward(self, inputs):
        self.passes += 1
        if self.passes > self.allowed and len(inputs.views["fine"]) > 1:
            if self.device == "cuda":
                raise torch.OutOfMemoryError(CUDA)
            torch.empty(10**16)
        return super().forward(inputs)


class Settings(MethodSettings):
    device: str = "cpu"
    allowed: int = 1


class GreedyMethod(Method[Settings]):
    card = MethodCard(name="greedy", title="Greedy", family="own", year=2026, paper="none")
    Settings = Settings
    defaults = TrainingDefaults(lr=0.1)

    def adapt(self, backbone, num_classes):
        module = Greedy(backbone, num_classes)
        module.device, module.allowed = self.settings.device, self.settings.allowed
        return Adapted(module, frozenset({"head.bias"}))
"""


@pytest.fixture
def greedy(run: Run, tmp_path: Path) -> Run:
    """Run a method whose module wants more than there is after so many passes."""
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "greedy.py").write_text(GREEDY_METHOD)

    def call(*settings: str) -> dict[str, Any]:
        given = [word for setting in settings for word in ("--set", f"method.{setting}")]
        return run("--method", "greedy", "--catalog", str(tmp_path / "own"), "--epochs", "1", *given)

    return call


@pytest.mark.parametrize(("device", "asked", "free"), [("cuda", "2.00 GiB", "1.20 GiB"), ("cpu", "35.53 PiB", "iB")])
def test_out_of_memory_in_a_step_says_what_was_asked_and_what_was_there(
    greedy: Run, device: str, asked: str, free: str
) -> None:
    result = greedy(f"device={device}")
    assert (result["exit_status"], result["status"], result["error"]["kind"]) == (1, "oom", "oom")
    assert result["error"]["asked"] == asked
    assert result["error"]["free"].endswith(free)
    assert result["error"].get("total") == ("15.77 GiB" if device == "cuda" else None)
    assert "petlbench memory --method greedy" in result["error"]["hint"]
    # The first step went well, and its peak is kept.
    phases = result["memory"]["phases"]
    assert list(phases) == ["build", "train_step"]
    assert result["memory"]["allocated"] == phases["train_step"]["allocated"] > 0


def test_a_backbone_that_does_not_fit_is_said_in_an_error(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    monkeypatch.setattr(build, "assemble", fail)
    told = run("--method", "full", "--epochs", "1")
    assert (told["exit_status"], told["error"]["kind"]) == (1, "oom")
    assert "while building petlbench_micro" in told["error"]["message"]


def test_a_run_whose_prediction_cannot_be_measured_is_finished(greedy: Run) -> None:
    # 60 images: a look at what the module gives, 5 training steps, the validation split twice, the test split once.
    passes = greedy("allowed=1000")
    assert passes["inference"]["error"] is None
    splits = {name: -(-count // 8) for name, count in passes["data"]["images"].items()}
    allowed = 1 + passes["data"]["images"]["train"] // 8 + 2 * splits["val"] + splits["test"]
    result = greedy(f"allowed={allowed}", "device=cuda")
    assert (result["exit_status"], result["status"]) == (0, "finished")
    assert result["metrics"] == passes["metrics"]
    assert result["inference"]["error"].startswith("out of memory: CUDA out of memory")
    assert (result["inference"]["batch_size"], result["inference"]["latency"]) == (8, None)


@pytest.mark.parametrize("method", ["full", "linear", "fpt"])
def test_prediction_is_measured_as_it_would_be_deployed(run: Run, method: str) -> None:
    result = run("--method", method, "--epochs", "1", "--measure-inference", "full")
    inference, memory = result["inference"], result["inference"]["memory"]
    assert inference["batch_size"] == 8
    assert 0 < inference["latency"] < 10
    assert inference["images_per_second"] > 0
    assert memory["source"] == "cpu"
    assert sum(memory["parts"].values()) == memory["allocated"] > 0
    # The backbone is at work, also where training left it out; gradients and the optimiser are not.
    backbone = (result["parameters"]["total"] - result["parameters"]["learnable"]) * 4
    assert memory["parts"]["parameters"] >= (backbone if method != "full" else result["parameters"]["total"] * 4)
    assert (memory["parts"]["gradients"], memory["parts"]["optimizer"]) == (0, 0)
    assert result["memory"]["phases"]["predict"]["allocated"] == memory["allocated"]
    assert result["timing"]["inference"] > 0
    phases = {name: seconds for name, seconds in result["timing"].items() if name != "total"}
    assert sum(phases.values()) == pytest.approx(result["timing"]["total"])
    assert {"start", "data", "build", "preload", "tracking", "train", "evaluate", "inference", "other"} <= set(phases)


def test_seeds_share_what_prediction_costs(run: Run, tmp_path: Path) -> None:
    method = ("--method", "linear", "--epochs", "1", "--cache-dir", str(tmp_path / "cache"))
    first, second = run(*method), run(*method, "--seed", "1")
    assert first["inference"]["measured_by"] == ""
    assert second["inference"] == {**first["inference"], "measured_by": first["run_id"]}
    [kept] = (tmp_path / "cache" / "inference").iterdir()
    kept.write_text("{")
    anew = run(*method, "--seed", "2")["inference"]
    assert anew["measured_by"] == ""
    assert anew["latency"] > 0
    assert run(*method, "--seed", "3", "--measure-inference", "off")["inference"] is None


def test_a_dear_batch_is_predicted_and_not_passed(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inference_cost, "_LEAST", 0.0)
    cost = run("--method", "linear", "--epochs", "1", "--cache-dir", str(tmp_path / "cache"))["inference"]
    assert cost["latency"] > 0
    assert cost["images_per_second"] is None
    assert "--measure-inference full" in cost["error"]
    assert cost["memory"]["source"] == "predicted"
    assert cost["memory"]["allocated"] > 0


def test_the_facts_of_a_run_say_what_prediction_costs(
    images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["run", "--method", "linear", "--dataset", str(images), *TINY, "--epochs", "1", "--tracking-uri", "none"]
    assert run_command([*command, "--output", str(tmp_path / "results")]) == 0
    shown = " ".join(capsys.readouterr().out.split())  # a narrow terminal breaks the line
    assert re.search(r"prediction +[\d.]+ ms an image, [\d.]+ images/s and a peak of [\d.]+ MiB in batches of 8", shown)
    assert "other processes" not in shown


def test_what_others_held_on_the_device_is_shown_and_kept(
    images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def shared(device: torch.device) -> MemoryMeter:
        meter = MemoryMeter(device)
        meter.already_used = 700 << 20
        return meter

    monkeypatch.setattr(execute, "open_meter", shared)
    command = ["run", "--method", "linear", "--dataset", str(images), *TINY, "--epochs", "1", "--tracking-uri", "none"]
    command += ["--output", str(tmp_path / "results")]
    assert run_command(command) == 0
    assert "other processes held 700.0 MiB when the run began" in capsys.readouterr().out
    assert run_command([*command, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["memory"]["others"] == 700 << 20


# adalora has a state of its own besides, and gps chooses what it learns from the training images.
@pytest.mark.parametrize(
    "method", ["full", *(pytest.param(name, marks=pytest.mark.slow) for name in ("adalora", "gps"))]
)
def test_a_full_disk_costs_no_finished_epoch(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, method: str
) -> None:
    options, save, saved = ("--method", method, "--epochs", "3"), torch.save, []

    def save_until_full(state: Any, file: Path) -> None:
        if len(saved) == 2:
            file.write_bytes(b"half")
            raise OSError(28, "No space left on device", str(file))
        saved.append(file)
        save(state, file)

    unbroken = run(*options, output=tmp_path / "unbroken")
    monkeypatch.setattr(torch, "save", save_until_full)
    broken = run(*options, output=tmp_path / "broken")
    assert (broken["exit_status"], broken["status"], broken["error"]["kind"]) == (1, "failed", "io")
    assert "No space left" in broken["error"]["message"]
    assert not list((tmp_path / "broken").rglob("*.tmp"))
    monkeypatch.undo()
    resumed = run(*options, output=tmp_path / "broken")
    assert (resumed["status"], resumed["metrics"]) == ("finished", unbroken["metrics"])
    files = [Path(result["artifacts"]["learned"]).read_bytes() for result in (resumed, unbroken)]
    assert files[0] == files[1]


def test_a_run_stopped_behind_its_last_epoch_keeps_its_memory_figures(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    options = ("--method", "linear", "--epochs", "2")
    monkeypatch.setattr("petlbench.training.evaluation.TestSplit.read", stop)
    stopped = run(*options)
    assert (stopped["exit_status"], stopped["status"], len(stopped["curve"])) == (1, "interrupted", 2)
    monkeypatch.undo()
    resumed = run(*options)
    assert resumed["status"] == "finished"
    assert resumed["memory"]["allocated"] == stopped["memory"]["allocated"] > 0


def test_the_test_split_is_read_once_and_the_reading_is_logged(run: Run, tmp_path: Path) -> None:
    result = run("--method", "linear", "--epochs", "3")
    lines = (tmp_path / "results" / "test_reads.jsonl").read_text().splitlines()
    assert [json.loads(line)["run_id"] for line in lines] == [result["run_id"]]


@pytest.fixture(scope="session")
def divided(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same images in folders to train and to validate on, and in none to test on."""
    folder = tmp_path_factory.mktemp("divided")
    for file in images.rglob("*.png"):
        copy = folder / ("val" if int(file.stem) % 3 == 0 else "train") / file.parent.name / file.name
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(file.read_bytes())
    return folder


def test_parts_to_train_and_to_validate_on_are_used_and_nothing_is_tested(run: Run, divided: Path) -> None:
    result = run("--method", "linear", "--epochs", "1", dataset=divided)
    assert (result["exit_status"], result["status"]) == (0, "finished")
    assert result["data"]["images"] == {"train": 39, "val": 21, "test": 0}
    assert list(result["metrics"]) == ["val"]
    assert "no test scores are reported" in result["data"]["notes"][0]
    rows = predictions(result)
    assert set(rows["split"]) == {"val"}
    assert all(image.startswith("val/") for image in rows["image_id"])


def test_a_run_without_a_test_split_says_so(divided: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = ("--dataset", str(divided), "--output", str(tmp_path / "results"), "--tracking-uri", "none")
    assert run_command(["run", "--method", "linear", "--epochs", "1", *TINY, *place]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "test AUC none: the dataset has no test split" in shown
    assert "note its own split has parts to train and to validate on" in shown
    assert not (tmp_path / "results/test_reads.jsonl").exists()


@pytest.mark.parametrize("command", ["run", "bench"])
@pytest.mark.parametrize("place", [".", "red", "new", ".."])
def test_results_in_at_or_around_the_images_are_refused_before_anything_is_written(
    images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], place: str, command: str
) -> None:
    folder = tmp_path / "data" / "images"
    shutil.copytree(images, folder)
    before = sorted(tmp_path.rglob("*"))
    output = ("--output", str(folder / place), "--tracking-uri", "none", "--json")
    assert run_command([command, "--method", "linear", "--dataset", str(folder), *TINY, *output]) == 2
    assert json.loads(capsys.readouterr().out)["error"]["kind"] == "output_in_dataset"
    assert sorted(tmp_path.rglob("*")) == before


KILLED = """
import os, sys
from petlbench.cli.app import run_command
from petlbench.run import execute
execute.InferenceCost = lambda *_: os.kill(os.getpid(), 9)
run_command(sys.argv[1:])
"""


IN_READING = """
import os, sys
from petlbench.cli.app import run_command
from petlbench.training.evaluation import Predictor
predict = Predictor.__call__
def killed(self, loader, on_images):
    return predict(self, loader, lambda count: os.kill(os.getpid(), 9) if os.path.exists(sys.argv[1]) else None)
Predictor.__call__ = killed
run_command(sys.argv[2:])
"""


def test_a_reading_that_a_kill_broke_off_is_done_again_and_the_log_says_so(
    run: Run, images: Path, tmp_path: Path
) -> None:
    options, log = ("--method", "linear", "--epochs", "2"), tmp_path / "results" / "test_reads.jsonl"
    whole = run(*options, output=tmp_path / "whole")
    command = ["run", *options, *TINY, "--dataset", str(images), "--tracking-uri", "none"]
    command += ["--output", str(tmp_path / "results")]
    ended = subprocess.run([sys.executable, "-c", IN_READING, str(log), *command], check=False)
    assert ended.returncode == -signal.SIGKILL
    resumed = run(*options)
    assert (resumed["status"], resumed["metrics"]) == ("finished", whole["metrics"])
    assert run(*options, "--rerun")["status"] == "finished"
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert len({(line["run_id"], line["split"], line["dataset"]) for line in lines}) == 1
    assert [line.get("continued") for line in lines] == [None, "nothing was kept of the reading before", None]


def test_what_killed_processes_left_goes_with_the_next_run_and_a_run_leaves_no_lock(run: Run, tmp_path: Path) -> None:
    work = tmp_path / "results" / ".work"
    (work / "drivers").mkdir(parents=True)
    for name in ("fpt-digits-s0-0123.lock", "drivers/0123.lock", "worker-0-of-1.log"):
        (work / name).touch()
    (tmp_path / "results" / "poetry.lock").touch()
    run("--method", "linear", "--epochs", "1")
    assert [file for file in work.rglob("*") if file.is_file()] == []
    assert [file.name for file in (tmp_path / "results").glob("*.lock")] == ["poetry.lock"]


def test_a_run_killed_behind_its_reading_reads_the_test_split_no_second_time(
    run: Run, images: Path, tmp_path: Path
) -> None:
    options = ("--method", "linear", "--epochs", "2", "--test-on", str(images))
    whole = run(*options, output=tmp_path / "whole")
    command = ["run", *options, *TINY, "--dataset", str(images), "--tracking-uri", "none"]
    command += ["--output", str(tmp_path / "results")]
    for _ in range(2):
        assert subprocess.run([sys.executable, "-c", KILLED, *command], check=False).returncode == -signal.SIGKILL
    resumed = run(*options)
    assert (resumed["status"], resumed["metrics"]) == ("finished", whole["metrics"])
    assert predictions(resumed).equals(predictions(whole))
    lines = (tmp_path / "results" / "test_reads.jsonl").read_text().splitlines()
    assert [json.loads(line)["dataset"] for line in lines] == [resumed["config"]["dataset"], str(images)]
    assert not list((tmp_path / "results" / ".work").glob("*/*"))


def test_a_checkpoint_that_was_cut_off_is_said_and_the_training_starts_anew(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = ("--method", "linear", "--epochs", "2")
    whole = run(*options, output=tmp_path / "whole")
    monkeypatch.setattr("petlbench.training.evaluation.TestSplit.read", interrupt)
    assert run(*options)["status"] == "interrupted"
    monkeypatch.undo()
    [checkpoint] = (tmp_path / "results" / ".work").glob("*/checkpoint.pt")
    checkpoint.write_bytes(checkpoint.read_bytes()[:1000])
    said: list[str] = []
    monkeypatch.setattr("petlbench.core.progress_bars.ShownProgress.say", lambda self, text: said.append(text))
    resumed = run(*options)
    assert (resumed["status"], resumed["metrics"]) == ("finished", whole["metrics"])
    assert any(f"{checkpoint} is damaged" in text for text in said)


def interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def start(images: Path, output: Path, *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "petlbench", "run", "--dataset", str(images), *TINY, *arguments]
    command += ["--output", str(output), "--tracking-uri", "none", "--json"]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def stop_in_epoch(process: subprocess.Popen[str], epoch: int, sign: signal.Signals) -> str:
    """Send a signal once the epoch before is done; return what was printed on standard output."""
    guard = threading.Timer(120, process.kill)
    guard.start()
    assert process.stderr is not None
    for line in process.stderr:
        if re.match(rf"epoch {epoch - 1}:", line):
            os.kill(process.pid, sign)
            break
    out, _ = process.communicate(timeout=120)
    guard.cancel()
    return out


@pytest.mark.parametrize("sign", [signal.SIGKILL, pytest.param(signal.SIGINT, marks=pytest.mark.slow)])
def test_a_run_that_was_stopped_ends_with_the_same_numbers(
    images: Path, tmp_path: Path, run: Run, sign: signal.Signals
) -> None:
    options = ("--method", "lora", "--epochs", "6", "--set", "method.dropout=0.1")
    unbroken = run(*options, output=tmp_path / "unbroken")
    process = start(images, tmp_path / "broken", *options)
    printed = stop_in_epoch(process, 2, sign)
    assert process.returncode == (-signal.SIGKILL if sign == signal.SIGKILL else 1)
    if sign == signal.SIGINT:
        assert json.loads(printed)["status"] == "interrupted"
    assert list((tmp_path / "broken" / ".work").glob("*/checkpoint.pt"))
    resumed = run(*options, output=tmp_path / "broken")
    assert resumed["status"] == "finished"
    assert resumed["curve"] == unbroken["curve"]
    assert resumed["metrics"] == unbroken["metrics"]
    assert resumed["memory"]["allocated"] == unbroken["memory"]["allocated"]
    for name in ("predictions", "learned"):
        files = [Path(result["artifacts"][name]).read_bytes() for result in (resumed, unbroken)]
        assert files[0] == files[1], name
    assert not [path for path in (tmp_path / "broken" / ".work").iterdir() if path.suffix != ".lock"]


def test_predict_gives_the_probabilities_of_the_stored_logits(
    run: Run, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result = run("--method", "fpt", "--epochs", "1", "--cache-precision", "fp32")
    frame = predictions(result)
    row = frame[frame["split"] == "test"].iloc[0]
    capsys.readouterr()
    command = [
        "predict",
        result["run_id"],
        str(images / row["image_id"]),
        "--output",
        str(tmp_path / "results"),
        "--json",
    ]
    assert run_command(command) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["classes"] == ["blue", "green", "red"]
    expected = softmax(np.stack([row["logits"]]).astype(np.float64))[0]
    np.testing.assert_allclose(told["predictions"][0]["probabilities"], expected, atol=1e-5)


OWN_METHOD = """
from petlbench import Adapted, Classifier, Method, MethodCard, MethodSettings, TrainingDefaults


class BiasOfTheHead(Method[MethodSettings]):
    card = MethodCard(name="head_bias", title="Head bias", family="own", year=2026, paper="none")
    defaults = TrainingDefaults(lr=0.1)

    def adapt(self, backbone, num_classes):
        return Adapted(Classifier(backbone, num_classes), frozenset({"head.bias"}))
"""


def test_a_method_of_the_users_own_is_one_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "head_bias.py").write_text(OWN_METHOD)
    command = ["run", "--method", "head_bias", "--catalog", str(tmp_path / "own"), "--dataset", "digits", *TINY]
    command += ["--epochs", "1", "--output", str(tmp_path / "results"), "--tracking-uri", "none", "--json"]
    assert run_command(command) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["status"] == "finished"
    assert result["parameters"]["learnable"] == 10

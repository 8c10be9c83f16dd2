"""What a result tells a tracker, and how a failure becomes an ending."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from petlbench.core import environment
from petlbench.core.config import RunConfig, TrainingConfig
from petlbench.core.errors import RunError
from petlbench.data.manifest import manifest_digest, split_digest
from petlbench.features.maintenance import CacheConfig
from petlbench.memory.measure import MemoryMeter, PhaseMemory
from petlbench.results.result import FILE, Inference, InferenceMemory, Memory, Result
from petlbench.results.stored import Stored, final_metrics
from petlbench.results.tracking.tracker import content_of
from petlbench.run.failure import describe_failure, shortage_while_building
from petlbench.run.image_cache import _plan
from petlbench.run.readings import KeptReadings, Outputs
from petlbench.run.record import Stopwatch, describe_memory, differences


def result() -> Result:
    config = RunConfig(
        method="full",
        dataset="digits",
        split="random",
        backbone="vit_tiny_patch16_224.augreg_in21k_ft_in1k",
        image_size=32,
        training=TrainingConfig(lr=1e-3, weight_decay=0.0),
        preload=False,
        device="cpu",
        threads=1,
    )
    metrics = {"val": {"auc": 0.9, "kappa": None}, "test": {"auc": 0.8, "confusion_matrix": [[1]]}}
    curve = [{"epoch": 1, "train_loss": 1.0, "val_auc": 0.9}]
    return Result(run_id="r", status="finished", config=config, metrics=metrics, curve=curve, timing={"total": 2.0})


def test_final_figures_are_no_further_points_of_the_curve() -> None:
    told = final_metrics(result())
    assert told == {"best_val_auc": 0.9, "test_auc": 0.8, "seconds_total": 2.0, "seconds_run": 2.0}
    assert not set(told) & set(result().curve[0])


@pytest.mark.parametrize(
    ("error", "status", "kind", "resumable"),
    [
        (KeyboardInterrupt(), "interrupted", "interrupted", True),
        (MemoryError("no room"), "oom", "oom", False),
        (MemoryError(), "oom", "oom", False),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"), "oom", "oom", False),
        (OSError(28, "No space left on device", "x"), "failed", "io", True),
        (RunError("nan", kind="nan_loss"), "failed", "nan_loss", False),
        (ZeroDivisionError("by zero"), "failed", "exception", False),
    ],
)
def test_whatever_stops_a_run_has_its_ending(error: BaseException, status: str, kind: str, resumable: bool) -> None:
    ending = describe_failure(error, result().config)
    assert ending.error is not None
    assert (ending.status, ending.error["kind"], ending.resumable) == (status, kind, resumable)
    assert ending.error["message"]


CUDA_WORDS = (
    "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 15.77 GiB of which 1.20 GiB is free."
    " Including non-PyTorch memory, this process has 14.57 GiB memory in use."
)


def test_out_of_memory_says_what_was_asked_and_how_to_find_what_fits() -> None:
    error = describe_failure(torch.OutOfMemoryError(CUDA_WORDS), result().config).error
    assert error is not None
    assert (error["asked"], error["free"], error["total"]) == ("2.00 GiB", "1.20 GiB", "15.77 GiB")
    assert error["hint"].startswith(
        "petlbench memory --method full --dataset digits --backbone vit_tiny_patch16_224.augreg_in21k_ft_in1k "
        "--image-size 32 --precision fp32 --budget 15.77GiB names the largest --batch-size that fits"
    )
    assert "bf16" in error["hint"]


def test_the_hint_leaves_out_what_is_not_known_or_done_already() -> None:
    config = result().config.model_copy(update={"precision": "bf16", "dataset": "/data/my images"})
    error = describe_failure(torch.OutOfMemoryError("CUDA out of memory."), config).error
    assert error is not None
    assert set(error) == {"kind", "message", "hint"}
    assert "--dataset '/data/my images'" in error["hint"]
    assert "--precision bf16 --budget SIZE names" in error["hint"]
    assert error["hint"].count("bf16") == 1


def test_a_backbone_that_does_not_fit_is_an_error_of_the_same_kind() -> None:
    error = shortage_while_building(torch.OutOfMemoryError(CUDA_WORDS), result().config)
    assert (error.kind, error.exit_status) == ("oom", 1)
    assert error.message.startswith("out of memory while building vit_tiny_patch16_224.augreg_in21k_ft_in1k: CUDA out")
    assert "--budget 15.77GiB" in error.hint


def test_memory_carries_what_others_held() -> None:
    meter = MemoryMeter(torch.device("cpu"))
    meter.phases |= {"train_step": PhaseMemory(allocated=5), "predict": PhaseMemory(allocated=3)}
    assert describe_memory(meter).others is None
    meter.already_used = 700
    memory = describe_memory(meter)
    assert (memory.allocated, memory.others) == (5, 700)
    assert memory.phases["predict"]["allocated"] == 3


def test_a_tracker_is_told_what_prediction_costs() -> None:
    memory = InferenceMemory(allocated=300, source="cpu")
    inference = Inference(batch_size=8, latency=0.5, images_per_second=4.0, memory=memory)
    told = final_metrics(result().model_copy(update={"inference": inference}))
    assert {name: value for name, value in told.items() if name.startswith("inference_")} == {
        "inference_latency": 0.5,
        "inference_images_per_second": 4.0,
        "inference_memory_allocated": 300.0,
    }
    failed = final_metrics(result().model_copy(update={"inference": Inference(batch_size=8, error="no room")}))
    assert not any(name.startswith("inference_") for name in failed)


def test_results_of_before_the_new_figures_are_read() -> None:
    stored = result().document()
    del stored["inference"]
    stored["memory"] = Memory(allocated=1, reserved=None, process=None, source="cpu").model_dump()
    del stored["memory"]["others"]
    again = Result.model_validate(stored)
    assert again.inference is None
    assert again.memory is not None
    assert again.memory.others is None


DIGESTS = {name: name for name in ("data", "split", "weights", "method", "external", "petlbench")}


@given(st.sampled_from([*DIGESTS, "packages"]))
def test_each_digest_that_differs_is_said(name: str) -> None:
    before = {**DIGESTS, "packages": {"torch": "1", "timm": "2"}, "learned": "x"}
    assert differences(before, before) == []
    changed = {"torch": "1", "timm": "3"} if name == "packages" else "another"
    [sentence] = differences(before, {**before, name: changed})
    assert ("timm" if name == "packages" else name) in sentence


def manifest() -> pd.DataFrame:
    rows = [["b", "b.png", "1", "val", "g", "2"], ["a", "a.png", "0", "train", "", "1"]]
    return pd.DataFrame(rows, columns=["image_id", "path", "label", "split", "group", "sha256"])


@given(st.integers(0, 1), st.sampled_from(["image_id", "label", "split", "group", "sha256"]))
def test_each_cell_of_the_manifest_is_part_of_the_digest_of_the_data(row: int, column: str) -> None:
    frame = manifest()
    frame.loc[row, column] = "another"
    assert manifest_digest(frame) != manifest_digest(manifest())
    assert (split_digest(frame) != split_digest(manifest())) == (column in ("image_id", "split"))
    assert manifest_digest(manifest().iloc[::-1]) == manifest_digest(manifest())


@given(st.data())
def test_each_place_of_a_result_but_its_scores_is_part_of_its_records_digest(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("run")

    def digest(document: Any) -> str:
        (folder / FILE).write_text(json.dumps(document))
        return content_of(folder)

    document = result().document()
    name = data.draw(st.sampled_from(sorted(document)))
    changed = {**document, name: "another"}
    assert (digest(changed) == digest(document)) == (name == "scores")


def test_each_size_and_filter_of_stored_images_has_a_folder_of_its_own(tmp_path: Path) -> None:
    cache = CacheConfig(tmp_path)
    forms = [{(64, "bicubic")}, {(65, "bicubic")}, {(64, "bilinear")}, {(64, "bicubic"), (32, "bicubic")}]
    folders = {_plan(cache, frozenset(each)).folder for each in forms}
    assert len(folders) == len(forms)


def test_a_reading_is_kept_for_what_made_it_and_one_that_was_broken_off_is_known(tmp_path: Path) -> None:
    outputs = {
        "test": (np.array([0, 1]), np.ones((2, 3), np.float32)),
        "external": (np.array([2]), np.zeros((1, 3), "f4")),
    }
    file = tmp_path / "readings.safetensors"
    broken_off: list[tuple[str, bool]] = []

    def read(split: str, identity: str = "mine", *, breaks: bool = False) -> Outputs:
        def reading(was_broken_off: bool) -> Outputs:
            broken_off.append((split, was_broken_off))
            if breaks:
                raise KeyboardInterrupt
            return outputs[split]

        return KeptReadings(file, identity).once(split, reading)

    read("test")
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            read("external", breaks=True)
    for split in (*outputs, *outputs):
        for kept, made in zip(read(split), outputs[split], strict=True):
            assert kept.dtype == made.dtype
            assert np.array_equal(kept, made)
    assert broken_off == [("test", False), ("external", False), ("external", True), ("external", True)]
    read("test", "another")
    assert broken_off[4:] == [("test", False)]
    file.write_bytes(file.read_bytes()[:50])
    read("test", "another")
    assert broken_off[5:] == [("test", False)]


def test_the_phases_of_a_run_add_up_to_its_time() -> None:
    watch = Stopwatch()
    with watch.phase("data"):
        sum(range(1000))
    with watch.phase("train"):
        sum(range(1000))
    watch.seconds["train"] += 5  # an earlier attempt's
    timing = watch.timing(5.0)
    assert timing["total"] == pytest.approx(sum(timing.values()) - timing["total"])
    assert timing["total"] > 5
    figures = Stored({**result().document(), "timing": timing}).figures
    assert figures["seconds_run"] == pytest.approx(timing["train"])


def test_a_phase_has_the_seconds_of_all_its_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([1.0, 3.0, 10.0, 15.0])
    watch = Stopwatch(began=0.0)
    with monkeypatch.context() as patched:
        patched.setattr(time, "perf_counter", lambda: next(clock))
        for _ in range(2):
            with watch.phase("train"):
                pass
    assert watch.seconds == {"preload": 0.0, "train": 7.0}


def test_imports_are_a_phase_of_the_first_run_of_a_command() -> None:
    environment.begin_command()
    time.sleep(0.02)
    first, second = Stopwatch.of_command(), Stopwatch.of_command()
    assert first.seconds["start"] >= 0.02
    assert first.timing(0.0)["total"] >= first.seconds["start"]
    assert second.seconds["start"] == 0.0
    figures = Stored({**result().document(), "timing": {**first.timing(0.0), "train": 1.0, "read": 3.0}}).figures
    assert figures["seconds_run"] == pytest.approx(1.0)
    assert figures["seconds_data"] == 3.0

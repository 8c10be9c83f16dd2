"""petlbench from Python: the functions, what they import, and what they refuse."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import timm
import torch
from PIL import Image

import petlbench as pb
from petlbench.cli.app import run_command

SMALL: dict[str, Any] = {
    "backbone": "petlbench_micro",
    "image_size": 32,
    "epochs": 1,
    "threads": 1,
    "tracking_uri": "none",
    "progress": False,
}


@pytest.fixture(autouse=True)
def _nothing_stays_registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("petlbench.core.catalog._REGISTERED", {})


def test_importing_petlbench_imports_nothing_heavy() -> None:
    program = "import sys, petlbench; print([n for n in ('torch', 'numpy', 'pandas', 'pydantic') if n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_every_name_of_the_stub_can_be_had() -> None:
    for name in pb.__all__:
        assert getattr(pb, name) is not None


@pytest.mark.parametrize(
    ("options", "count"),
    [({"workers": 2}, 1), ({"workers": 0}, 0), ({}, 0), ({"workers": 2, "executor": "ray"}, 0)],
)
def test_a_process_is_begun_ahead_where_a_study_has_workers_here(
    options: dict[str, Any], count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    from petlbench.study.executors import worker

    begun: list[int] = []
    monkeypatch.setattr("petlbench.api.runs._carry_out", lambda *_, **__: begun.append(len(worker._begun_ahead)))
    monkeypatch.setattr("petlbench.study.recall.StudyRecall.of", lambda *_: None)
    pb.bench("linear", "digits", **options)
    assert begun == [count]
    assert not worker._begun_ahead


def test_a_room_never_takes_the_name_of_a_function() -> None:
    import petlbench.report.build
    import petlbench.run.execute
    import petlbench.sweep.sweep  # noqa: F401

    assert all(callable(function) for function in (pb.run, pb.sweep, pb.report))
    assert pb.run.__module__ == "petlbench.api.runs"


def test_a_run_is_the_command_lines_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = pb.run("linear", "digits", output=tmp_path, seed=3, **SMALL)
    command = ["run", "--method", "linear", "--dataset", "digits", "--seed", "3", "--output", str(tmp_path)]
    command += ["--backbone", "petlbench_micro", "--image-size", "32", "--epochs", "1", "--threads", "1"]
    assert run_command([*command, "--tracking-uri", "none", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["run_id"] == result.run_id
    assert document["metrics"] == json.loads(json.dumps(result.metrics))


def test_a_run_file_is_the_same_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "run.toml"
    file.write_text(
        'method = "lora"\ndataset = "digits"\nbackbone = "petlbench_micro"\nimage_size = 32\nepochs = 1\nthreads = 1\n'
        "[method_settings]\nrank = 2\n"
    )
    assert run_command(["run", "--config", str(file), "--dry-run", "--json", "--seed", "7"]) == 0
    document = json.loads(capsys.readouterr().out)
    plan = pb.dry_run(config=file, seed=7)
    assert document["run_id"] == plan.config.run_id
    assert plan.config.method_settings["rank"] == 2
    assert pb.dry_run(config=plan.config).config == plan.config
    assert run_command(["run", "--config", str(file), "--dry-run", "--json", "--epochs", "2"]) == 0
    assert json.loads(capsys.readouterr().out)["config"]["training"]["epochs"] == 2


@pytest.mark.parametrize(
    ("text", "kind"),
    [("method = 3 =", "bad_run_file"), ('method = "lora"\ncolour = 1\n', "unknown_setting"), ("", "unknown_method")],
)
def test_a_wrong_run_file_is_named(tmp_path: Path, text: str, kind: str) -> None:
    file = tmp_path / "run.toml"
    file.write_text(text)
    with pytest.raises(pb.InputError) as caught:
        pb.dry_run(config=file)
    assert caught.value.kind == kind


@pytest.fixture(scope="module")
def made() -> torch.nn.Module:
    """A model that somebody made."""
    torch.manual_seed(0)
    return timm.create_model("vit_tiny_patch16_224", img_size=64, depth=2)


@pytest.mark.parametrize("name", sorted(pb.list_methods()))
def test_every_method_adapts_a_model_that_somebody_made(name: str, made: torch.nn.Module, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = pb.adapt(copy.deepcopy(made), name, num_classes=7)
    images, labels = torch.randn(4, 3, 64, 64), torch.tensor([0, 1, 2, 6])
    model.prepare([(images, labels)])
    optimizer = torch.optim.AdamW(model.learnable_parameters(), lr=1e-2)
    for step in (1, 2):
        task_loss = partial(torch.nn.functional.cross_entropy, target=labels)
        loss = model.train().loss(images, task_loss) + model.penalty()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        model.after_step(step, 2)
    logits = model.eval()(images)
    assert logits.shape == (4, 7)
    model.save(tmp_path / "learned.safetensors")
    torch.manual_seed(0)
    again = pb.adapt(copy.deepcopy(made), name, num_classes=7).load(tmp_path / "learned.safetensors").eval()
    if name != "gps":  # what it learns, it chose from the images
        torch.testing.assert_close(again(images), logits)
    try:
        plain = model.merge().eval()
    except pb.InputError as error:
        assert error.kind == "cannot_merge"
    else:
        torch.testing.assert_close(plain(images), logits, rtol=1e-3, atol=1e-4)


def test_images_of_another_size_are_refused() -> None:
    model = pb.adapt(timm.create_model("vit_tiny_patch16_224", img_size=64, depth=1), "linear", num_classes=2)
    with pytest.raises(pb.InputError, match="64 x 64"):
        model(torch.zeros(1, 3, 32, 32))


def _pairs(count: int = 24) -> list[tuple[np.ndarray[Any, Any], int]]:
    rng = np.random.default_rng(0)
    return [(rng.integers(0, 100 + 150 * (i % 2), (40, 40, 3), dtype=np.uint8), i % 2) for i in range(count)]


def test_a_method_and_images_written_in_python(tmp_path: Path) -> None:
    class MyHead(pb.Method[pb.MethodSettings]):
        """Learns a head."""

        def adapt(self, backbone: pb.Backbone, num_classes: int) -> pb.Adapted:
            return pb.Adapted(pb.Classifier(backbone, num_classes), frozenset({"head.weight", "head.bias"}))

    result = pb.run(MyHead(), _pairs(), batch_size=4, output=tmp_path, **SMALL)
    assert (result.status, result.config.method) == ("finished", "my_head")
    assert pb.run(MyHead(), _pairs(), batch_size=4, output=tmp_path, **SMALL).run_id == result.run_id
    Image.fromarray(_pairs()[0][0]).save(tmp_path / "eye.png")
    table = pb.load(result.run_id, results=tmp_path).predict([tmp_path / "eye.png"])
    assert list(table.columns) == ["image", "class", "probability_0", "probability_1"]
    assert table[["probability_0", "probability_1"]].sum(axis=1).iloc[0] == pytest.approx(1)


def test_pairs_tensors_and_frames_are_one_dataset(tmp_path: Path) -> None:
    from petlbench.data.from_python import keep_dataset

    pairs = _pairs()
    tensors = [(torch.from_numpy(image).permute(2, 0, 1), torch.tensor(label)) for image, label in pairs]
    frame = pd.DataFrame(
        {"image": [Image.fromarray(image) for image, _ in pairs], "label": [each for _, each in pairs]}
    )
    files = {keep_dataset(data, tmp_path) for data in (pairs, tensors, frame)}
    assert len(files) == 1


def test_deep_greys_of_pillow_stay_deep(tmp_path: Path) -> None:
    from petlbench.data.from_python import keep_dataset

    greys = np.arange(0, 64000, 1000, dtype=np.uint16).reshape(8, 8)
    deep = [Image.fromarray(greys.astype(kind)) for kind in (np.uint16, np.int32)]
    table = pd.read_csv(keep_dataset([(image, "a") for image in deep], tmp_path))
    for name in table["image"]:
        assert np.array_equal(np.asarray(Image.open(tmp_path / name)), greys)


@pytest.mark.parametrize(
    "data",
    [
        [],
        [1, 2],
        [(np.zeros((4, 4, 3)) - 1.0, 0)],
        [(np.zeros((4, 4, 7)), 0)],
        [(np.zeros((4, 4)), float("nan"))],
        pd.DataFrame({"picture": []}),
    ],
    ids=["empty", "no pairs", "normalised", "channels", "label", "columns"],
)
def test_what_is_no_dataset_is_refused(data: Any, tmp_path: Path) -> None:
    with pytest.raises(pb.InputError):
        pb.run("linear", data, output=tmp_path, **SMALL)


def test_names_are_nearest_where_they_are_wrong(tmp_path: Path) -> None:
    with pytest.raises(pb.InputError) as caught:
        pb.run("loar", "digits", output=tmp_path, **SMALL)
    assert "lora" in caught.value.hint
    with pytest.raises(pb.InputError) as caught:
        pb.run("lora", "digits", output=tmp_path, epoch=1, **SMALL)
    assert "epochs" in caught.value.hint


def test_memory_has_a_row_a_method() -> None:
    table = pb.estimate_memory(["fpt", "lora"], image_size=224, batch_size=4)
    assert list(table["method"]) == ["fpt", "lora"]
    assert (table["allocated"] > 2**20).all()
    assert set(table["source"]) == {"predicted"}


def test_lists_are_names_with_cards() -> None:
    assert {"fpt", "lora"} <= set(pb.list_methods())
    for names in (pb.list_datasets(), pb.list_sweeps(), pb.list_reports(), pb.list_metrics()):
        assert list(names.to_dataframe()["name"]) == names
    assert "petlbench_micro" in pb.list_backbones("micro")

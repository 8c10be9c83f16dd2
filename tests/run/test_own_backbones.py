"""A run on a folder as transformers saves it, on a card of the user's own and on convolutions: trained and exported."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import transformers
from safetensors.torch import load_file

import petlbench as pb
from petlbench.cli.app import run_command
from petlbench.core.catalog import Catalog
from petlbench.core.progress import Progress
from petlbench.models.card import Architecture
from petlbench.run.export import export_run

SIZE = 32
MEAN, STD = [0.4, 0.4, 0.4], [0.3, 0.3, 0.3]
DINOV2 = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": SIZE, "patch_size": 8}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """DINOv2 with registers and a gated MLP, as ``save_pretrained`` writes it."""
    torch.manual_seed(0)
    config = transformers.Dinov2WithRegistersConfig(**DINOV2, mlp_ratio=2, use_swiglu_ffn=True)
    transformers.Dinov2WithRegistersModel(config).save_pretrained(tmp_path / "saved")
    preprocessor = {"image_mean": MEAN, "image_std": STD, "resample": 3}
    (tmp_path / "saved" / "preprocessor_config.json").write_text(json.dumps(preprocessor))
    return tmp_path / "saved"


def run(backbone: str | Path, output: Path, method: str = "lora", **more: Any) -> Any:
    fixed = {
        "dataset": "digits",
        "image_size": SIZE,
        "epochs": 1,
        "device": "cpu",
        "threads": 1,
        "tracking_uri": "none",
    }
    return pb.run(method=method, backbone=str(backbone), output=output, **{**fixed, **more})


def exported(result: Any, output: Path, which: str) -> Any:
    """An export, which compares what the files give with what the run gives, and fails where they differ."""
    return export_run(output / result.run_id, output / "exported", which, Catalog(), Progress())


def test_a_folder_is_run_and_exported_to_timm(folder: Path, tmp_path: Path) -> None:
    result = run(folder, tmp_path / "out")
    assert result.status == "finished"
    assert result.config.backbone == str(folder)
    assert list(result.data["normalization"]["mean"]) == MEAN
    export = exported(result, tmp_path / "out", "timm")
    assert export.max_difference < 1e-5
    made = json.loads((export.folder / "preprocessing.json").read_text())["timm_model"]
    model = timm.create_model(
        made["name"], img_size=SIZE, num_classes=10, **Architecture.model_validate(made["arguments"]).arguments()
    )
    model.load_state_dict(load_file(export.folder / "model.safetensors"))


@pytest.mark.slow
@pytest.mark.parametrize("method", ["lora", "fpt"])
def test_a_folder_is_exported_to_onnx(folder: Path, tmp_path: Path, method: str) -> None:
    result = run(folder, tmp_path / "out", method)
    assert exported(result, tmp_path / "out", "onnx").max_difference < 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("method", ["full", "ssf"])
def test_convolutions_are_run_and_exported(tmp_path: Path, method: str) -> None:
    result = run("resnet18", tmp_path / "out", method, weights="random")
    assert result.status == "finished"
    assert exported(result, tmp_path / "out", "all").max_difference < 1e-4


def test_a_card_in_the_users_catalogue_is_run_predicted_with_and_exported(
    folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "own" / "backbones").mkdir(parents=True)
    (folder / "model.safetensors").rename(tmp_path / "own" / "backbones" / "w.safetensors")
    (tmp_path / "own" / "backbones" / "mine.toml").write_text(
        'title = "Mine"\nsource = { file = "w.safetensors" }\n'
        f"preprocessing = {{ mean = {MEAN}, std = {STD} }}\n"
        '[architecture]\ntimm = "vit_base_patch16_224"\nimg_size = 32\npatch_size = 8\nembed_dim = 32\ndepth = 2\n'
        'num_heads = 2\nmlp_ratio = 3.0\nmlp_layer = "swiglu_packed"\nact_layer = "silu"\ninit_values = 1.0\n'
        "reg_tokens = 4\n"
    )
    words = ["--catalog", str(tmp_path / "own"), "--json"]
    run_words = ["run", "--method", "linear", "--dataset", "digits", "--backbone", "mine", "--image-size", str(SIZE)]
    run_words += ["--epochs", "1", "--device", "cpu", "--tracking-uri", "none", "--output", str(tmp_path / "out")]
    assert run_command([*run_words, *words]) == 0
    out, err = capfd.readouterr()
    result = json.loads(out)
    assert (result["status"], result["config"]["backbone"]) == ("finished", "mine")
    assert "layout of transformers' DINOv2 with registers" in err
    image = tmp_path / "image.png"
    pil_image(image)
    finished = str(tmp_path / "out" / result["run_id"])
    assert run_command(["predict", finished, str(image), *words]) == 0
    capfd.readouterr()
    assert run_command(["export", finished, "--format", "timm", *words]) == 0
    assert json.loads(capfd.readouterr().out)["max_difference"] < 1e-5


def pil_image(file: Path) -> None:
    from PIL import Image

    Image.new("RGB", (SIZE, SIZE), (90, 30, 200)).save(file)

"""``petlbench export``: other programs get the probabilities that ``predict`` gives, and half an export is none."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import timm
import torch
from PIL import Image
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from sklearn.datasets import load_digits
from sklearn.utils import Bunch
from timm.models import deit, register_model, swin_transformer
from timm.models import vision_transformer as vit

import petlbench as pb
from petlbench.cli.app import run_command
from petlbench.cli.commands.export import command
from petlbench.core.catalog import Catalog
from petlbench.core.config import RunConfig, TrainingConfig
from petlbench.core.files import write_tensors
from petlbench.models.build import assemble
from petlbench.models.method import configured_method
from petlbench.results.result import Result, Status, write_result
from petlbench.run import export
from petlbench.run.load import Restored

CLASSES = ["nevus", "naevus", "no, none"]
NORMALIZATION = {"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.3, 0.4], "origin": "card"}
SIZE = 32
# Others resize by Pillow, from which a pixel in a thousand differs by one level of 255.
CLOSE = 3e-4
ONNX = {"model.onnx", "preprocessing.json", "README.md"}
Export = Callable[..., Any]
Refused = Callable[..., dict[str, str]]


def register(name: str, make: Callable[..., Any], classifier: Any, **fixed: Any) -> None:
    """Give timm a backbone that is exported in seconds."""

    def build(pretrained: bool = False, **given: Any) -> Any:
        for key in ("pretrained_cfg", "pretrained_cfg_overlay", "cache_dir"):
            given.pop(key, None)
        model = make(**{**fixed, **given})
        model.pretrained_cfg = {"classifier": classifier}
        return model

    build.__name__ = name
    register_model(build)


SMALL = {"img_size": SIZE, "patch_size": 8, "embed_dim": 32, "depth": 1, "num_heads": 2}
register("export_vit", vit.VisionTransformer, "head", **SMALL)
register("export_deep", vit.VisionTransformer, "head", **{**SMALL, "embed_dim": 64, "depth": 2})
register("export_distilled", deit.VisionTransformerDistilled, ("head", "head_dist"), **SMALL)
register(
    "export_swin",
    swin_transformer.SwinTransformer,
    "head.fc",
    img_size=SIZE,
    patch_size=4,
    window_size=4,
    embed_dim=16,
    depths=(2, 1),
    num_heads=(2, 4),
)


def finished_run(
    output: Path, method: str, backbone: str = "export_vit", status: Status = "finished", **settings: Any
) -> Path:
    """A run's folder as training would leave it, with something learned in every tensor; takes no training."""
    config = RunConfig(
        method=method,
        method_settings=settings,
        dataset="digits",
        split="random",
        backbone=backbone,
        weights="none",
        image_size=SIZE,
        training=TrainingConfig(lr=1e-3, weight_decay=0.1),
        preload=False,
        device="cpu",
        threads=1,
    )
    assembled = assemble(config, configured_method(config, Catalog()), len(CLASSES), torch.device("cpu"))
    torch.manual_seed(7)
    learned = {name: tensor + 0.1 * torch.randn_like(tensor) for name, tensor in assembled.adapted.kept().items()}
    folder = output / config.run_id
    folder.mkdir(parents=True)
    write_tensors(folder / "learned.safetensors", learned, {"run_id": config.run_id})
    data = {"classes": CLASSES, "normalization": NORMALIZATION}
    digests = {"weights": assembled.weights_digest}
    write_result(folder, Result(run_id=config.run_id, status=status, config=config, data=data, digests=digests))
    return folder


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    return tmp_path


@pytest.fixture
def call(capfd: pytest.CaptureFixture[str]) -> Export:
    def run(*arguments: str | Path, status: int = 0) -> Any:
        capfd.readouterr()
        assert run_command([*map(str, arguments), "--json"]) == status
        return json.loads(capfd.readouterr().out)

    return run


@pytest.fixture
def refused(call: Export, here: Path) -> Refused:
    """An export that must fail: it says what to do and leaves nothing behind."""

    def run(*arguments: str | Path, status: int = 2) -> dict[str, str]:
        before = sorted(here.rglob("*"))
        error: dict[str, str] = call("export", *arguments, status=status)["error"]
        assert error["hint"]
        assert sorted(here.rglob("*")) == before
        return error

    return run


@pytest.fixture
def pictures(here: Path) -> Path:
    folder, rng = here / "pictures", np.random.default_rng(0)
    folder.mkdir()
    for number in range(4):
        Image.fromarray(rng.integers(0, 256, (30 + number, 45, 3), dtype=np.uint8)).save(folder / f"{number}.png")
    return folder


def prepared(pictures: Path, view: dict[str, Any]) -> np.ndarray[Any, Any]:
    """The images of a folder as ``preprocessing.json`` says, without petlbench: (B, 3, size, size) from 0 to 1."""
    size, kind = view["size"], getattr(Image.Resampling, view["interpolation"].upper())
    images = [np.asarray(Image.open(file).resize((size, size), kind)) for file in sorted(pictures.iterdir())]
    return np.stack(images).transpose(0, 3, 1, 2).astype(np.float32) / 255


def predicted(call: Export, run: Path, pictures: Path) -> np.ndarray[Any, Any]:
    rows = call("predict", run, pictures)["predictions"]
    probabilities = np.array([row["probabilities"] for row in rows])
    assert probabilities.std(axis=0).min() > 1e-5  # the images are told apart
    return probabilities


def by_onnx(
    folder: Path, pictures: Path, classes: Sequence[str] = CLASSES
) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Logits and probabilities, from the exported folder alone."""
    document = json.loads((folder / "preprocessing.json").read_text())
    session = onnxruntime.InferenceSession(str(folder / "model.onnx"))
    assert [entry.name for entry in session.get_inputs()] == list(document["views"])
    for entry in session.get_inputs():
        size = document["views"][entry.name]["size"]
        assert (entry.type, entry.shape[1:]) == ("tensor(float)", [3, size, size])
    kept = session.get_modelmeta().custom_metadata_map
    assert json.loads(kept["labels"]) == document["labels"] == list(classes)
    assert json.loads(kept["preprocessing"]) == document
    images = {name: prepared(pictures, view) for name, view in document["views"].items()}
    logits, probabilities = session.run(["logits", "probabilities"], images)
    alone = session.run(["logits"], {name: image[:1] for name, image in images.items()})[0]
    np.testing.assert_allclose(alone, logits[:1], atol=1e-5)
    return logits, probabilities


def by_timm(folder: Path, pictures: Path, architecture: str) -> np.ndarray[Any, Any]:
    """Probabilities from timm's own model, as the file's metadata and ``preprocessing.json`` say."""
    document = json.loads((folder / "preprocessing.json").read_text())
    with safe_open(folder / "model.safetensors", "pt") as file:
        about = file.metadata()
    assert about["architecture"] == document["backbone"] == architecture
    assert json.loads(about["labels"]) == CLASSES
    model = timm.create_model(architecture, num_classes=len(CLASSES), img_size=int(about["image_size"]))
    model.load_state_dict(load_file(folder / "model.safetensors"), strict=True)
    view = document["views"]["fine"]
    mean, std = (np.array(view[name], dtype=np.float32)[:, None, None] for name in ("mean", "std"))
    with torch.no_grad():
        logits = model.eval()(torch.from_numpy((prepared(pictures, view) - mean) / std))
    result: np.ndarray[Any, Any] = logits.softmax(dim=-1).numpy()
    return result


class TestSameProbabilities:
    def test_full_as_onnx_and_as_timms_own_model(self, call: Export, pictures: Path, here: Path) -> None:
        run = finished_run(here / "results", "full")
        told = call("export", run.name)
        assert set(told) == {"run_id", "folder", "files", "merged", "max_difference", "temperature"}
        assert (told["run_id"], told["merged"]) == (run.name, True)
        assert set(told["files"]) == {path.name for path in (run / "export").iterdir()} == ONNX | {"model.safetensors"}
        assert 0 <= told["max_difference"] < 1e-4
        expected = predicted(call, run, pictures)
        logits, probabilities = by_onnx(run / "export", pictures)
        np.testing.assert_allclose(probabilities, expected, atol=CLOSE)
        np.testing.assert_allclose(torch.from_numpy(logits).softmax(dim=-1).numpy(), probabilities, atol=1e-6)
        np.testing.assert_allclose(by_timm(run / "export", pictures, "export_vit"), expected, atol=CLOSE)

    @pytest.mark.parametrize(
        ("method", "backbone"),
        [
            ("linear", "export_vit"),
            ("lora", "export_vit"),
            ("full", "export_distilled"),
            ("lora", "export_distilled"),
            ("bitfit", "export_swin"),
            ("lora", "export_swin"),
        ],
    )
    def test_what_is_merged_as_timms_own_model(
        self, call: Export, pictures: Path, here: Path, method: str, backbone: str
    ) -> None:
        run = finished_run(here / "results", method, backbone)
        told = call("export", run, "--format", "timm", "--to", "deep/model")
        assert set(told["files"]) == {path.name for path in (here / "deep/model").iterdir()}
        assert set(told["files"]) == {"model.safetensors", "preprocessing.json", "README.md"}
        expected = predicted(call, run, pictures)
        np.testing.assert_allclose(by_timm(here / "deep/model", pictures, backbone), expected, atol=CLOSE)

    def test_both_heads_of_a_distilled_model_are_the_learned_one(self, call: Export, here: Path) -> None:
        run = finished_run(here / "results", "linear", "export_distilled")
        call("export", run, "--format", "timm")
        written = load_file(run / "export" / "model.safetensors")
        learned = load_file(run / "learned.safetensors")
        for part in ("weight", "bias"):
            for head in ("head", "head_dist"):
                assert torch.equal(written[f"{head}.{part}"], learned[f"head.{part}"])

    # lora is folded in, fpt has two inputs and a frozen backbone in the graph, and vpt asks for the batch's size.
    @pytest.mark.slow
    @pytest.mark.parametrize(
        ("method", "backbone", "views", "merged"),
        [
            ("lora", "export_vit", ["fine"], True),
            ("fpt", "export_vit", ["fine", "coarse"], False),
            ("vpt", "export_vit", ["fine"], False),
            ("linear", "export_swin", ["fine"], True),
            ("vpt", "export_distilled", ["fine"], False),
        ],
    )
    def test_onnx(
        self,
        call: Export,
        pictures: Path,
        here: Path,
        method: str,
        backbone: str,
        views: list[str],
        merged: bool,
    ) -> None:
        settings = {"coarse_size": 16} if method == "fpt" else {}
        run = finished_run(here / "results", method, backbone, **settings)
        told = call("export", run)
        assert told["merged"] == merged
        assert set(told["files"]) == ONNX | ({"model.safetensors"} if merged else set())
        document = json.loads((run / "export" / "preprocessing.json").read_text())
        assert {name: view["size"] for name, view in document["views"].items()} == dict(
            zip(views, (SIZE, 16), strict=False)
        )
        np.testing.assert_allclose(by_onnx(run / "export", pictures)[1], predicted(call, run, pictures), atol=CLOSE)


FAMILIES = {entry.card["family"]: name for name, entry in reversed(Catalog().entries("method").items())}


# Where MKL is slow, products of frozen features take another way, which no graph may hold.
@pytest.mark.parametrize(
    ("method", "slow_mkl", "backbone"),
    [
        ("fpt", True, "export_deep"),
        *(pytest.param("fpt", slow, "petlbench_micro", marks=pytest.mark.slow) for slow in (True, False)),
        *(pytest.param(name, True, "petlbench_micro", marks=pytest.mark.slow) for name in sorted(FAMILIES.values())),
    ],
)
def test_a_real_run_of_every_family_is_the_same_by_onnx(
    method: str, slow_mkl: bool, backbone: str, call: Export, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("petlbench.features.products.mkl_is_slow", lambda: slow_mkl)
    digits = load_digits()
    few = Bunch(images=digits.images[:200], target=digits.target[:200])
    monkeypatch.setattr("sklearn.datasets.load_digits", lambda: few)
    weights = "default" if backbone == "petlbench_micro" else "none"
    options = f"--dataset digits --backbone {backbone} --weights {weights} --image-size 32"
    options += " --epochs 1 --threads 1 --tracking-uri none"
    run = call("run", "--method", method, *options.split())["run_id"]
    beginning = run.partition("-s0")[0]
    exported = call("export", beginning, "--format", "onnx")
    logits = by_onnx(Path(exported["folder"]), pictures, [str(digit) for digit in range(10)])[0]
    document = json.loads((Path(exported["folder"]) / "preprocessing.json").read_text())
    views = {}
    for name, view in document["views"].items():
        mean, std = (torch.tensor(view[part])[:, None, None] for part in ("mean", "std"))
        views[name] = (torch.from_numpy(prepared(pictures, view)) - mean) / std
    np.testing.assert_allclose(logits, pb.load(beginning)(views).numpy(), atol=1e-4)


class TestWholeOrAbsent:
    def test_a_full_disk_is_named_and_nothing_stays(
        self, call: Export, here: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        run = finished_run(here / "results", "linear")
        before = sorted(here.rglob("*"))

        def full(*_: Any, **__: Any) -> None:
            raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

        monkeypatch.setattr("safetensors.torch.save_file", full)
        error = call("export", run, "--format", "timm", status=1)["error"]
        assert error["message"].startswith("No space left on device (")
        assert "model.safetensors" in error["message"]
        assert "epoch" not in error["hint"]
        assert sorted(here.rglob("*")) == before

    def test_an_older_export_is_replaced_as_a_whole(self, call: Export, here: Path) -> None:
        run = finished_run(here / "results", "linear")
        call("export", run, "--format", "timm")
        (run / "export" / "model.onnx").write_bytes(b"old")
        call("export", run, "--format", "timm")
        assert {path.name for path in (run / "export").iterdir()} == {
            "model.safetensors",
            "preprocessing.json",
            "README.md",
        }
        assert not [path for path in run.iterdir() if path.name.startswith(".")]

    @pytest.mark.parametrize(
        ("spoil", "said"),
        [
            (lambda module: module.backbone.norm.weight.data.mul_(2), "other probabilities"),
            (lambda module: module.backbone.register_buffer("left", torch.zeros(1)), "left"),
        ],
    )
    def test_a_wrong_merge_is_found(
        self, refused: Refused, here: Path, monkeypatch: pytest.MonkeyPatch, spoil: Callable[[Any], None], said: str
    ) -> None:
        run, merged = finished_run(here / "results", "full"), Restored.merged

        def wrong(restored: Restored, hint: str) -> Restored:
            done = merged(restored, hint)
            spoil(done.module)
            return done

        monkeypatch.setattr(Restored, "merged", wrong)
        error = refused(run, "--format", "timm", "--to", "new/place", status=1)
        assert error["kind"] == "export_mismatch"
        assert said in error["message"]

    def test_a_graph_that_computes_something_else_is_found(
        self, refused: Refused, here: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        run = finished_run(here / "results", "linear")

        def written(file: Path, *_: object) -> int:
            file.write_bytes(b"graph")
            return 20

        monkeypatch.setattr(export, "_write_onnx", written)
        for said in (torch.full((3, 3), 1 / 3), torch.full((3, 3), torch.nan)):
            monkeypatch.setattr(export, "_onnx_probabilities", lambda *_, said=said: said)
            error = refused(run, status=1)
            assert error["kind"] == "export_mismatch"
            assert "model.onnx" in error["message"]

    def test_a_module_that_cannot_be_a_graph_says_so(
        self, refused: Refused, here: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail(*_: object, **__: object) -> None:
            raise RuntimeError("\n\nno such operator\nmore")

        monkeypatch.setattr(torch.export, "export", fail)
        error = refused(finished_run(here / "results", "linear"), "--format", "onnx", status=1)
        assert error["kind"] == "export_failed"
        assert error["message"].endswith("RuntimeError: no such operator")


class TestBadInput:
    def test_what_cannot_be_merged_is_no_model_of_timms(self, refused: Refused, here: Path) -> None:
        error = refused(finished_run(here / "results", "fpt"), "--format", "timm")
        assert error["kind"] == "cannot_merge"
        assert "fpt" in error["message"]
        assert "--format onnx" in error["hint"]

    def test_a_run_that_is_not_finished(self, refused: Refused, here: Path) -> None:
        error = refused(finished_run(here / "results", "linear", status="failed"))
        assert error["kind"] == "unfinished_run"
        assert "failed" in error["message"]

    def test_an_unknown_run(self, refused: Refused) -> None:
        error = refused("linear-x-s0-000000000000")
        assert error["kind"] == "unknown_run"
        assert "linear-x-s0-000000000000" in error["message"]

    @pytest.mark.parametrize("wanted", ["all", "onnx"])
    def test_a_missing_package_names_the_extra(
        self,
        refused: Refused,
        here: Path,
        monkeypatch: pytest.MonkeyPatch,
        wanted: str,
    ) -> None:
        find = importlib.util.find_spec
        monkeypatch.setattr(
            importlib.util, "find_spec", lambda name, *rest: None if name == "onnxruntime" else find(name, *rest)
        )
        error = refused(finished_run(here / "results", "linear"), "--format", wanted)
        assert error["kind"] == "missing_package"
        assert "onnxruntime" in error["message"]
        assert "onnxscript" not in error["message"]
        assert "pip install 'petlbench[export]'" in error["hint"]

    def test_timms_file_needs_no_package_of_the_extra(
        self, call: Export, here: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(importlib.util, "find_spec", lambda *_: None)
        monkeypatch.setattr(export, "importlib", None)
        call("export", finished_run(here / "results", "linear"), "--format", "timm")

    def test_a_folder_that_holds_something_else_is_kept(self, refused: Refused, here: Path) -> None:
        run = finished_run(here / "results", "linear")
        for held in (["thesis.tex"], ["preprocessing.json", "thesis.tex"], ["model.onnx"]):
            folder = here / "-".join(held)
            folder.mkdir()
            for name in held:
                (folder / name).write_text("mine")
            error = refused(run, "--to", folder, "--format", "timm")
            assert error["kind"] == "folder_in_use"
            assert "--to" in error["hint"]

    def test_a_file_in_the_place_of_the_folder_or_above_it(self, refused: Refused, here: Path) -> None:
        run = finished_run(here / "results", "linear")
        (here / "taken").write_text("mine")
        for place in ("taken", "taken/model"):
            error = refused(run, "--to", place, "--format", "timm")
            assert error["kind"] == "not_writable"
            assert "--to" in error["hint"]


def test_an_empty_folder_is_taken_and_the_table_names_it(here: Path, capfd: pytest.CaptureFixture[str]) -> None:
    run = finished_run(here / "results", "linear")
    (here / "empty").mkdir()
    assert run_command(["export", run.name, "--format", "timm", "--to", "empty"]) == 0
    assert (here / "empty" / "model.safetensors").is_file()
    out = capfd.readouterr().out
    for said in ("model.safetensors", "preprocessing.json", "In empty.", "folded into the backbone"):
        assert said in out


def test_the_formats_of_the_command_are_those_there_are() -> None:
    (option,) = [option for option in command.params if option.name == "format"]
    assert tuple(option.type.choices) == export.FORMATS  # type: ignore[attr-defined]


def test_onnx_runtime_keeps_no_number_of_this_machine(here: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    home, temporary = tmp_path_factory.mktemp("home"), tmp_path_factory.mktemp("temporary")
    program = "import petlbench.run.export, onnxruntime"
    environment = {**os.environ, "HOME": str(home), "TMPDIR": str(temporary), "XDG_CACHE_HOME": str(home / "cache")}
    environment.pop("ORT_DISABLE_TELEMETRY", None)
    subprocess.run([sys.executable, "-c", program], env=environment, check=True)
    assert [file for file in (*home.rglob("*"), *temporary.rglob("*")) if file.is_file()] == []

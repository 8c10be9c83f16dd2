"""``petlbench predict``: what may be named, what comes out, and that a merged backbone says the same."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from petlbench.cli.app import run_command
from petlbench.cli.commands.predict import command
from petlbench.core.catalog import Catalog
from petlbench.core.config import RunConfig, TrainingConfig
from petlbench.core.files import write_tensors
from petlbench.data.images.decode import decode_image, read_image
from petlbench.data.readers.csv_file import CsvSettings
from petlbench.data.views import Normalization, View
from petlbench.models.build import assemble
from petlbench.models.method import configured_method
from petlbench.models.registry import resolve_backbone
from petlbench.results.result import Result, Status, write_result
from petlbench.run.load import restore
from petlbench.run.predict import decoding_of, find_images
from tests.report.stored import store

Refused = Callable[..., dict[str, str]]

CLASSES = ["nevus", "image", "no, none"]
NORMALIZATION = {"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.3, 0.4], "origin": "card"}


def finished_run(output: Path, method: str, *, status: Status = "finished") -> Path:
    """A run's folder as training would leave it, with something learned in every tensor; takes no training."""
    config = RunConfig(
        method=method,
        dataset="digits",
        split="random",
        backbone=resolve_backbone("test_vit"),
        weights="none",
        image_size=32,
        training=TrainingConfig(lr=1e-3, weight_decay=0.1),
        preload=False,
        device="cpu",
        threads=1,
    )
    assembled = assemble(config, configured_method(config, Catalog()), len(CLASSES), torch.device("cpu"))
    torch.manual_seed(7)
    learned = {
        name: tensor + 0.05 * torch.randn_like(tensor) for name, tensor in assembled.adapted.parameters().items()
    }
    learned = assembled.adapted.kept() | learned
    folder = output / config.run_id
    folder.mkdir(parents=True)
    write_tensors(folder / "learned.safetensors", learned, {"run_id": config.run_id})
    write_result(
        folder,
        Result(
            run_id=config.run_id,
            status=status,
            config=config,
            data={"classes": CLASSES, "normalization": NORMALIZATION},
            digests={"weights": assembled.weights_digest},
        ),
    )
    return folder


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    return tmp_path


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    output = tmp_path_factory.mktemp("results")
    return {method: finished_run(output, method) for method in ("full", "linear", "bitfit", "lora", "gps", "fpt")}


@pytest.fixture
def pictures(here: Path) -> Path:
    """Five images in two folders, one deeper and one hidden, and what is no image."""
    rng, folder = np.random.default_rng(0), here / "pictures"
    for name in ("b/2.png", "b/10.jpg", "a/x/1.PNG", "c.png", "a/z.bmp", ".hidden/9.png", "__MACOSX/c.png"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (40, 50, 3), dtype=np.uint8)).save(folder / name)
    (folder / "b" / "notes.txt").write_text("no image")
    return folder


NAMES = ["a/x/1.PNG", "a/z.bmp", "b/10.jpg", "b/2.png", "c.png"]


@pytest.fixture
def predict(capfd: pytest.CaptureFixture[str]) -> Callable[..., Any]:
    def call(*arguments: str | Path, status: int = 0) -> Any:
        capfd.readouterr()
        assert run_command(["predict", *map(str, arguments), "--json"]) == status
        return json.loads(capfd.readouterr().out)

    return call


@pytest.fixture
def refused(predict: Callable[..., Any], here: Path) -> Refused:
    """A command that must be refused: exit status 2, a next step, and nothing left behind."""

    def call(*arguments: str | Path) -> dict[str, str]:
        before = sorted(here.rglob("*"))
        error: dict[str, str] = predict(*arguments, status=2)["error"]
        assert error["hint"]
        assert sorted(here.rglob("*")) == before
        return error

    return call


def probabilities(document: Any) -> np.ndarray[Any, Any]:
    return np.array([row["probabilities"] for row in document["predictions"]])


class TestWhatMayBeNamed:
    def test_a_folder_stands_for_all_images_below_it_in_order(self, pictures: Path) -> None:
        assert [image.file for image in find_images([pictures])] == [pictures / name for name in NAMES]

    def test_a_link_to_a_folder_above_ends(self, pictures: Path) -> None:
        (pictures / "a" / "loop").symlink_to(pictures)
        assert len(find_images([pictures])) == len(NAMES)

    def test_a_table_names_images_relative_to_itself_in_its_own_order(self, pictures: Path) -> None:
        table = pictures / "b" / "list.csv"
        table.write_text("\ufeffid,picture\n1,2.png\n\n2,../c.png\n3,2.png\n")
        found = find_images([table], "picture")
        assert [image.file.resolve() for image in found] == [
            pictures / name for name in ("b/2.png", "c.png", "b/2.png")
        ]
        assert [image.origin for image in found] == [f"{table}, line {line}" for line in (2, 4, 5)]

    def test_the_columns_default_name_is_that_of_datasets(self) -> None:
        (option,) = [option for option in command.params if option.name == "image_column"]
        assert option.default == CsvSettings().image_column

    def test_files_folders_and_tables_go_together(
        self, runs: dict[str, Path], pictures: Path, predict: Callable[..., Any]
    ) -> None:
        (pictures / "list.csv").write_text("image\nc.png\n")
        told = predict(runs["linear"], pictures / "c.png", pictures / "b", pictures / "list.csv")
        assert [row["image"] for row in told["predictions"]] == [
            str(pictures / name) for name in ("c.png", "b/10.jpg", "b/2.png", "c.png")
        ]
        assert told["predictions"][0]["probabilities"] == pytest.approx(
            told["predictions"][-1]["probabilities"], abs=1e-6
        )


class TestProbabilities:
    def test_they_are_those_of_the_head_on_the_final_feature(
        self, runs: dict[str, Path], pictures: Path, predict: Callable[..., Any]
    ) -> None:
        told = predict(runs["linear"], pictures)
        restored = restore(runs["linear"], Catalog())
        view = View(32, "bicubic", Normalization((0.5, 0.4, 0.3), (0.2, 0.3, 0.4), "card"))
        image = view.batch([np.asarray(view.store(read_image(pictures / name))) for name in NAMES])
        learned = load_file(runs["linear"] / "learned.safetensors")
        with torch.no_grad():
            feature = restored.assembled.backbone.pooled(image)
        expected = (feature @ learned["head.weight"].T + learned["head.bias"]).softmax(dim=-1)
        assert expected.std(dim=0).min() > 1e-4  # the images are told apart
        np.testing.assert_allclose(probabilities(told), expected.numpy(), atol=1e-5)
        assert (told["run_id"], told["classes"]) == (runs["linear"].name, CLASSES)
        best = [CLASSES[position] for position in expected.argmax(dim=-1).tolist()]
        assert [row["class"] for row in told["predictions"]] == best

    @pytest.mark.parametrize("method", ["full", "fpt"])
    def test_the_batch_size_changes_nothing(
        self, runs: dict[str, Path], pictures: Path, predict: Callable[..., Any], method: str
    ) -> None:
        one, three = (predict(runs[method], pictures, "--batch-size", size) for size in ("1", "3"))
        np.testing.assert_allclose(probabilities(one), probabilities(three), atol=1e-6)
        assert [row["image"] for row in one["predictions"]] == [row["image"] for row in three["predictions"]]

    @pytest.mark.parametrize("method", ["full", "linear", "bitfit", "lora", "gps"])
    def test_a_merged_backbone_says_the_same(
        self, runs: dict[str, Path], pictures: Path, predict: Callable[..., Any], method: str
    ) -> None:
        plain, merged = predict(runs[method], pictures), predict(runs[method], pictures, "--merge")
        np.testing.assert_allclose(probabilities(merged), probabilities(plain), atol=1e-5)


class TestSave:
    @pytest.mark.parametrize("name", ["table.csv", "deep/er/table.parquet"])
    def test_a_table_holds_what_json_says(
        self, runs: dict[str, Path], pictures: Path, predict: Callable[..., Any], here: Path, name: str
    ) -> None:
        told = predict(runs["linear"], pictures, "--save", name)
        assert told["saved"] == name
        table = pd.read_csv(here / name) if name.endswith("csv") else pd.read_parquet(here / name)
        assert list(table.columns) == ["image", "class", *(f"probability_{label}" for label in CLASSES)]
        assert table["image"].tolist() == [row["image"] for row in told["predictions"]]
        assert table["class"].tolist() == [row["class"] for row in told["predictions"]]
        np.testing.assert_allclose(table.iloc[:, 2:].to_numpy(), probabilities(told), rtol=1e-12)
        assert {file.name for file in (here / name).parent.iterdir()} == {Path(name).name} | (
            {"pictures"} if name == "table.csv" else set()
        )

    def test_a_name_is_no_formula_of_a_spreadsheet(
        self, runs: dict[str, Path], pictures: Path, predict: Callable[..., Any], here: Path
    ) -> None:
        (pictures / "c.png").rename(here / "=1+1.png")
        told = predict(runs["linear"], "=1+1.png", "--save", "table.csv")
        assert told["predictions"][0]["image"] == "=1+1.png"
        assert pd.read_csv(here / "table.csv")["image"].tolist() == ["'=1+1.png"]

    def test_a_long_table_is_cut_for_people(
        self, runs: dict[str, Path], pictures: Path, capfd: pytest.CaptureFixture[str]
    ) -> None:
        many = [str(pictures / "c.png")] * 53
        assert run_command(["predict", str(runs["linear"]), *many]) == 0
        out = capfd.readouterr().out
        assert out.count("c.png") == 50
        assert "3 more images" in out
        assert "Not a diagnosis" in out


class TestBadInput:
    def test_a_missing_column_names_those_there_are(
        self, runs: dict[str, Path], pictures: Path, refused: Refused
    ) -> None:
        (pictures / "list.csv").write_text("file,label\nc.png,x\n")
        error = refused(runs["linear"], pictures / "list.csv")
        assert error["kind"] == "missing_column"
        assert "list.csv has no column 'image'; it has: file, label" in error["message"]
        assert "--image-column" in error["hint"]

    @pytest.mark.parametrize(
        ("content", "kind", "said"),
        [
            (b"image\n", "bad_csv", "no rows"),
            (b"", "missing_column", "no header"),
            (b"image\nc.png\nabsent.png\nb/gone.png\n", "missing_image", "list.csv, line 3: the row names"),
            (b"image,label\n,x\n", "empty_image", "line 2"),
            (b"label,image\nx\n", "empty_image", "line 2"),
            (b"image\n\xff.png\n", "bad_csv", "UTF-8"),
            (b'image\n"c.png\n', "bad_csv", "line 2"),
        ],
    )
    def test_a_wrong_table_names_the_line(
        self,
        runs: dict[str, Path],
        pictures: Path,
        refused: Refused,
        content: bytes,
        kind: str,
        said: str,
    ) -> None:
        (pictures / "list.csv").write_bytes(content)
        error = refused(runs["linear"], pictures / "list.csv", "--save", "out.csv")
        assert error["kind"] == kind
        assert said in error["message"]

    def test_an_unreadable_image_names_file_and_line_and_leaves_no_table(
        self, runs: dict[str, Path], pictures: Path, refused: Refused
    ) -> None:
        (pictures / "b" / "2.png").write_bytes(b"no image")
        (pictures / "list.csv").write_text("image\nc.png\nb/2.png\n")
        for given, said in ((pictures, "b/2.png cannot"), (pictures / "list.csv", "b/2.png (")):
            error = refused(runs["linear"], given, "--save", "out.parquet", "--batch-size", "1")
            assert error["kind"] == "corrupt_image"
            assert said in error["message"]
            assert "--skip-corrupt" not in error["hint"]  # an option of another command
        assert f"({pictures / 'list.csv'}, line 3)" in error["message"]

    def test_an_empty_folder_and_an_absent_file(self, runs: dict[str, Path], here: Path, refused: Refused) -> None:
        (here / "empty").mkdir()
        error = refused(runs["linear"], "empty")
        assert error["kind"] == "empty_folder"
        assert ".png" in error["hint"]
        assert "gone.png does not exist" in refused(runs["linear"], "gone.png")["message"]

    @pytest.mark.parametrize(("name", "kind"), [("out.xlsx", "bad_setting"), ("out", "bad_setting")])
    def test_a_table_of_another_kind_is_refused_at_once(
        self, pictures: Path, refused: Refused, name: str, kind: str
    ) -> None:
        error = refused("no-such-run", pictures, "--save", name)
        assert error["kind"] == kind
        assert f"--save {name}" in error["message"]
        assert ".csv" in error["hint"]
        assert ".parquet" in error["hint"]

    def test_a_table_below_a_file_is_refused_at_once(self, pictures: Path, refused: Refused) -> None:
        error = refused("no-such-run", pictures, "--save", pictures / "c.png" / "out.csv")
        assert error["kind"] == "not_writable"
        assert "--save" in error["hint"]

    def test_merging_what_cannot_be_merged(self, runs: dict[str, Path], pictures: Path, refused: Refused) -> None:
        error = refused(runs["fpt"], pictures, "--merge")
        assert error["kind"] == "cannot_merge"
        assert "fpt" in error["message"]
        assert "--merge" in error["hint"]

    def test_a_run_that_is_not_finished(self, tmp_path: Path, pictures: Path, refused: Refused) -> None:
        folder = finished_run(tmp_path / "results", "linear", status="interrupted")
        error = refused(folder.name, pictures)
        assert error["kind"] == "unfinished_run"
        assert "interrupted" in error["message"]

    def test_another_backbone_than_the_runs_own(self, tmp_path: Path, pictures: Path, refused: Refused) -> None:
        folder = finished_run(tmp_path / "results", "linear")
        document = json.loads((folder / "result.json").read_text())
        document["digests"]["weights"] = "0" * 64
        (folder / "result.json").write_text(json.dumps(document))
        error = refused(folder, pictures)
        assert error["kind"] == "stale_result"
        assert "weights" in error["message"]

    @pytest.mark.parametrize("content", [None, b"broken"])
    def test_learned_tensors_that_are_gone_or_broken(
        self, tmp_path: Path, pictures: Path, refused: Refused, content: bytes | None
    ) -> None:
        folder = finished_run(tmp_path / "results", "linear")
        (folder / "learned.safetensors").unlink()
        if content is not None:
            (folder / "learned.safetensors").write_bytes(content)
        error = refused(folder, pictures)
        assert error["kind"] == "bad_result"
        assert "learned.safetensors" in error["message"]

    @pytest.mark.parametrize(
        ("change", "kind", "words"),
        [
            (lambda tensors: {**tensors, "head.bias": torch.full((3,), float("nan"))}, "bad_weights", "not finite"),
            (
                lambda tensors: {name: each.to(torch.int8) for name, each in tensors.items()},
                "bad_weights",
                "torch.int8",
            ),
            (lambda tensors: {name: each[:1] for name, each in tensors.items()}, "bad_weights", "(1,"),
            (lambda tensors: {**tensors, "\x1b[31m": torch.zeros(1)}, "bad_weights", "\\x1b[31m"),
        ],
    )
    def test_learned_tensors_of_another_kind(
        self, tmp_path: Path, pictures: Path, refused: Refused, change: Callable[..., Any], kind: str, words: str
    ) -> None:
        folder = finished_run(tmp_path / "results", "linear")
        file = folder / "learned.safetensors"
        write_tensors(file, change(load_file(file)), {"run_id": folder.name})
        error = refused(folder, pictures)
        assert error["kind"] == kind
        assert words in error["message"]

    def test_learned_tensors_of_another_run_or_changed(self, tmp_path: Path, pictures: Path, refused: Refused) -> None:
        folder = finished_run(tmp_path / "results", "linear")
        file = folder / "learned.safetensors"
        tensors = load_file(file)
        for owner in ({"run_id": "linear-digits-s1-0123456789ab"}, {}):
            write_tensors(file, tensors, owner)
            error = refused(folder, pictures)
            assert error["kind"] == "bad_result"
            assert f"is not of run {folder.name}" in error["message"]
        write_tensors(file, tensors, {"run_id": folder.name})
        document = json.loads((folder / "result.json").read_text())
        document["digests"]["learned"] = "0" * 64
        (folder / "result.json").write_text(json.dumps(document))
        assert "has changed since" in refused(folder, pictures)["message"]

    def test_a_pipe_in_the_place_of_learned_tensors(self, tmp_path: Path, pictures: Path, refused: Refused) -> None:
        folder = finished_run(tmp_path / "results", "linear")
        (folder / "learned.safetensors").unlink()
        os.mkfifo(folder / "learned.safetensors")
        assert refused(folder, pictures)["kind"] == "bad_result"

    def test_a_received_result_asks_no_hub(
        self, tmp_path: Path, pictures: Path, refused: Refused, predict: Callable[..., Any], monkeypatch: Any
    ) -> None:
        asked = []
        monkeypatch.setattr("socket.socket.connect", lambda self, address: asked.append(address))
        folder = finished_run(tmp_path / "results", "linear")
        text = (folder / "result.json").read_text()
        (folder / "result.json").write_text(text.replace("test_vit.r160_in1k", "hf-hub:any/repo"))
        error = predict(folder, pictures, status=1)["error"]
        assert (error["kind"], "hf-hub:any/repo" in error["message"]) == ("weights_unavailable", True)
        (folder / "result.json").write_text(text.replace('"weights": "none"', '"weights": "default"'))
        error = predict(folder, pictures, status=1)["error"]
        assert error["kind"] == "weights_unavailable"
        assert "--download" in error["hint"]
        assert asked == []


@pytest.mark.parametrize(
    ("whites", "settings", "level"),
    [
        (None, {}, 4095 / 257),  # a run of before there was a choice: all bits of the numbers
        ({"whole": 4095.0}, {}, 255.0),
        ({}, {}, 255.0),  # it saw no deep greys: the images' own range
        ({"whole": 8190.0}, {"grey_maximum": 8190.0}, 127.5),
    ],
)
def test_images_are_decoded_with_the_white_of_the_run(
    whites: dict[str, float] | None, settings: dict[str, float], level: float, tmp_path: Path
) -> None:
    Image.fromarray(np.full((4, 4), 4095, dtype=np.uint16)).save(tmp_path / "x.png")
    data = {} if whites is None else {"greys": whites}
    result = store(tmp_path / "results", dataset_settings=settings).model_copy(update={"data": data})
    decoding = decoding_of(result, find_images([tmp_path / "x.png"]))
    pixels = np.asarray(decode_image((tmp_path / "x.png").read_bytes(), "x", decoding))
    assert pixels == pytest.approx(np.full((4, 4), level), abs=0.01)

"""Runs on few labels: what was drawn stands in the result, the rest is untouched, and features are computed once."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import petlbench as pb
from petlbench.core.errors import InputError
from petlbench.data.loader import Batch
from petlbench.features.source import CachedFeatures
from petlbench.results.result import Result
from petlbench.results.table import load_results

TINY: dict[str, Any] = {
    "backbone": "petlbench_micro",
    "image_size": 32,
    "epochs": 1,
    "batch_size": 8,
    "threads": 1,
    "tracking_uri": "none",
    "progress": False,
}
CLASSES = {"no": 40, "yes": 20}
Run = Callable[..., Result]
Load = Callable[[Sequence[int]], Iterable[Batch]]


@pytest.fixture(scope="session")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes of patients with two images each, as a CSV."""
    folder, rng = tmp_path_factory.mktemp("few"), np.random.default_rng(0)
    rows = ["image,label,group"]
    for name, count in CLASSES.items():
        for number in range(count):
            pixels = rng.integers(0, 200, (24, 24, 3)) + (40 if name == "yes" else 0)
            Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{name}{number}.png")
            rows.append(f"{name}{number}.png,{name},{name}-patient-{number // 2}")
    file = folder / "table.csv"
    file.write_text("\n".join(rows))
    return file


@pytest.fixture
def run(table: Path, tmp_path: Path) -> Run:
    def call(**given: Any) -> Result:
        return pb.run("linear", table, output=tmp_path / "results", cache_dir=tmp_path / "cache", **TINY, **given)

    return call


def manifest(result: Result, tmp_path: Path) -> pd.DataFrame:
    return pd.read_csv(tmp_path / "results" / result.run_id / "manifest.csv", keep_default_na=False)


def test_a_result_says_what_was_drawn_and_nothing_else_has_changed(run: Run, tmp_path: Path) -> None:
    whole, few = run(), run(shots=2, draw=1)
    assert "drawn" not in whole.data
    assert whole.data["groups"] == {side: count / 2 for side, count in whole.data["images"].items()}
    assert few.data["drawn"] == {
        "shots": 2,
        "train_fraction": 1.0,
        "draw": 1,
        "shots_val": False,
        "official": False,
        "images_by_class": {"no": 4, "yes": 4},
        "groups_by_class": {"no": 2, "yes": 2},
    }
    assert few.data["images"] == {**whole.data["images"], "train": 8}
    assert few.data["groups"]["train"] == 4
    assert few.digests.pop("draw")
    assert few.digests.pop("learned") != whole.digests.pop("learned")
    assert few.digests == whole.digests
    before, after = manifest(whole, tmp_path), manifest(few, tmp_path)
    assert before.equals(after.drop(columns="drawn"))
    assert (after["drawn"] == after["split"]).where(after["split"] != "train", other=True).all()
    assert sorted(set(after.loc[after["split"] == "train", "drawn"])) == ["", "train"]


def test_draws_are_runs_of_their_own_and_all_labels_are_one_run(run: Run, tmp_path: Path) -> None:
    first, second, validation = run(shots=1), run(shots=1, draw=1), run(shots=1, shots_val=True)
    frames = [manifest(each, tmp_path) for each in (first, second, validation)]
    assert not frames[0]["drawn"].equals(frames[1]["drawn"])
    assert frames[2].loc[frames[2]["drawn"] == "val", "label"].tolist() == [0, 0, 1, 1]
    assert len({each.digests["draw"] for each in (first, second, validation)}) == 3
    assert run(train_fraction=1, draw=4).run_id == run().run_id


def test_class_weights_are_those_of_what_is_drawn(run: Run) -> None:
    loss = [[entry["train_loss"] for entry in run(shots=2, class_weights=kind).curve] for kind in ("none", "balanced")]
    assert loss[0] == loss[1]
    assert run(class_weights="balanced").curve[0]["train_loss"] != run().curve[0]["train_loss"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"shots": 2, "train_fraction": 0.5}, "--shots 2 and --train-fraction 0.5 exclude each other"),
        ({"draw": 1}, "--draw 1: nothing is drawn"),
        ({"shots_val": True}, "--shots-val: nothing is drawn"),
        ({"shots": 100}, "--shots 100: the class 'no' has 14 groups to train on"),
        ({"shots": -1}, "shots = -1 is refused"),
        ({"train_fraction": 0}, "train_fraction = 0 is refused"),
        ({"train_fraction": "half"}, "train_fraction = 'half' is refused"),
    ],
)
def test_what_cannot_be_drawn_is_refused_and_leaves_nothing(
    run: Run, tmp_path: Path, given: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        run(**given)
    assert not list((tmp_path / "results").glob("linear-*"))


def test_a_study_has_a_part_for_each_number_of_labels_and_the_backbone_sees_no_image_twice(
    table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images: list[str] = []
    fill = CachedFeatures.fill

    def counted(source: CachedFeatures, load: Load, on_images: Callable[[int], None]) -> None:
        def seen(positions: Sequence[int]) -> Iterable[Batch]:
            images.extend(source.images[position] for position in positions)
            return load(positions)

        fill(source, seen, on_images)

    monkeypatch.setattr(CachedFeatures, "fill", counted)
    output = tmp_path / "results"
    asked = {**TINY, "output": output, "cache_dir": tmp_path / "cache", "study": "curves"}
    results = pb.bench("linear", table, shots=[1, 2], draw=[0, 1], **asked)
    few = len(images)
    assert [summary.name for summary in results.summaries] == ["curves.1-shot", "curves.2-shot"]
    pb.bench("linear", table, train_fraction=[0.5, 1], draw=range(2), **asked)
    assert few < len(images) == len(set(images)) == sum(CLASSES.values())
    runs = load_results(output, "curves").runs
    parts = sorted((run.part, run.draw, run.document["data"]["images"]["train"]) for run in runs)
    few_labels = [(part, draw, n) for part, n in (("1 shot", 4), ("2 shots", 8), ("50 %", 22)) for draw in (0, 1)]
    assert parts == [("", 0, 42), *few_labels]
    study = json.loads((output / "studies" / "curves.50-percent.json").read_text())
    assert [(entry["draw"], entry["status"]) for entry in study["runs"]] == [(0, "finished"), (1, "finished")]
    # Runs of several numbers of labels are never one cell, and draws of one number are.
    with pytest.raises(InputError, match="settings that no table may mix: shots="):
        pb.report("table1", output, study="curves")
    assert len(pb.load_results(output).to_dataframe("cell")) == 4
    document = pb.report("learning_curves", output, study="curves")
    assert [column.key for column in document.tables[0].columns] == ["1_shot", "2_shots", "50_percent", "all"]
    assert document.figures[0].series[0].values["groups"] == [2.0, 4.0, 11.0, 21.0]


def test_a_study_of_draws_of_nothing_is_refused(table: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--draw: nothing is drawn"):
        pb.bench("linear", table, draw=[0, 1], output=tmp_path, **TINY)

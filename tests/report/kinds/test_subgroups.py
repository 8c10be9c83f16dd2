"""The report on subgroups, from a run through the command line, and from stored predictions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sklearn.metrics import roc_auc_score

import petlbench as pb
from petlbench.cli.app import run_command
from petlbench.core.errors import InputError
from petlbench.results.result import Result, write_result
from petlbench.statistics.clinical import threshold_at
from tests.report.stored import store, store_predicted

Values = dict[str, list[str | None]]


def stored(output: Path, columns: Values, *, method: str = "lora", seed: int = 0, images: int = 600) -> Result:
    """Store a run on half as many test images, whose labels are noise in every third one: those of the site C."""
    result, rng = store_predicted(output, method, "digits", seed, 1.0), np.random.default_rng(seed)
    labels, site = rng.integers(0, 2, images), np.arange(images) % 3
    positive = np.where(site == 2, 0.0, 1.5) * labels + rng.normal(size=images)
    ids, half = [f"i{row}" for row in range(images)], images // 2
    table = {
        "image_id": ids,
        "group": pa.array([None] * images, pa.string()),
        "split": ["val"] * half + ["test"] * half,
        "label": labels,
        "logits": np.stack([np.zeros(images), positive], axis=1).astype(np.float32).tolist(),
    }
    folder = output / result.run_id
    pq.write_table(pa.table(table), folder / "predictions.parquet")
    values = {"site": [f"{'ABC'[number]}" for number in site], **columns}
    rows = [(ids[row], name, each[row]) for name, each in values.items() for row in range(images) if each[row]]
    names = ("image_id", "name", "value")
    pq.write_table(pa.table(dict(zip(names, zip(*rows, strict=True), strict=True))), folder / "attributes.parquet")
    document = result.document()
    document["artifacts"]["attributes"] = "attributes.parquet"
    write_result(folder, Result.model_validate(document))
    return result


def test_each_subgroup_has_its_scores_and_the_gap_is_found(tmp_path: Path) -> None:
    result = stored(tmp_path, {})
    scores, gaps = pb.report("subgroups", tmp_path, by=["site"]).tables
    frame = pq.read_table(tmp_path / result.run_id / "predictions.parquet").to_pandas()
    frame["site"], frame["p"] = [*"ABC"] * 200, 1 / (1 + np.exp(-np.stack(frame["logits"].to_list())[:, 1]))
    val, test = frame[frame["split"] == "val"], frame[frame["split"] == "test"]
    threshold = threshold_at(0.9, val["label"].to_numpy() == 1, val["p"].to_numpy())
    assert [row.title for row in scores.rows] == ["LoRA: A", "LoRA: B", "LoRA: C"]
    for row in scores.rows:
        own = test[test["site"] == row.title[-1]]
        positive = own["label"] == 1
        assert row.cells["count"].value == len(own) == 100
        assert row.cells["prevalence"].value == pytest.approx(100 * positive.mean())
        assert row.cells["auc"].value == pytest.approx(100 * roc_auc_score(own["label"], own["p"]))
        assert row.cells["sensitivity"].value == pytest.approx(100 * (own["p"][positive] >= threshold).mean())
        assert row.cells["specificity"].value == pytest.approx(100 * (own["p"][~positive] < threshold).mean())
        assert row.cells["auc"].low < row.cells["auc"].value < row.cells["auc"].high  # type: ignore[operator]
    gap = gaps.rows[0].cells
    assert (gap["worst"].text, gap["verdict"].text) == ("C", "gap")
    aucs = [row.cells["auc"].value or 0.0 for row in scores.rows]
    assert gap["gap"].value == pytest.approx(max(aucs) - min(aucs))
    assert 0 < gap["gap"].low < gap["gap"].value < gap["gap"].high  # type: ignore[operator]


def test_small_subgroups_are_too_few_and_what_is_not_stated_is_not_compared(tmp_path: Path) -> None:
    rare: Values = {"device": ["old" if row % 60 == 0 else None if row % 2 else "new" for row in range(600)]}
    stored(tmp_path, rare)
    scores, gaps = pb.report("subgroups", tmp_path, by=["device"]).tables
    by_title = {row.title.partition(": ")[2]: row.cells for row in scores.rows}
    assert list(by_title) == ["new", "old", "not stated"]
    assert by_title["old"]["auc"].text == "too few"
    assert by_title["old"]["count"].value == 5
    assert by_title["not stated"]["auc"].value is not None
    assert gaps.rows[0].cells["verdict"].text == "too few"
    assert "fewer than two subgroups" in gaps.rows[0].cells["verdict"].reason


def test_numbers_are_cut_and_every_format_is_written(tmp_path: Path) -> None:
    age: Values = {"age": [str(20 + row % 60) for row in range(600)]}
    for seed in (0, 1):
        stored(tmp_path / "results", age, seed=seed)
    document = pb.report("subgroups", tmp_path / "results", by=["site", "age:40:60"])
    titles = [row.title.partition(": ")[2] for row in document.tables[2].rows]
    assert titles == ["under 40", "40 to under 60", "60 and over"]
    keys = ["digits-site", "digits-site-gap", "digits-age", "digits-age-gap"]
    assert [table.key for table in document.tables] == keys
    written, formats = tmp_path / "out", "md,csv,latex,json,html,png"
    report = ["report", "subgroups", "--results", str(tmp_path / "results"), "--by", "site,age:40:60"]
    assert run_command([*report, "--format", formats, "--output", str(written)]) == 0
    assert {"subgroups.md", "subgroups.html", "subgroups.tex", "subgroups.json"} <= {f.name for f in written.iterdir()}
    assert "no gap shown" in (written / "subgroups.md").read_text()


def test_what_cannot_be_had_is_refused_with_the_next_step(tmp_path: Path) -> None:
    stored(tmp_path / "a", {})
    with pytest.raises(InputError, match="no column makes subgroups") as error:
        pb.report("subgroups", tmp_path / "a")
    assert error.value.hint == "--by names some of site"
    with pytest.raises(InputError, match="unknown column of --by 'sex'"):
        pb.report("subgroups", tmp_path / "a", by=["sex"])
    store(tmp_path / "b")
    with pytest.raises(InputError, match="no run keeps what its dataset's table says"):
        pb.report("subgroups", tmp_path / "b", by=["sex"])

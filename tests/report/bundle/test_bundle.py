"""Bundles: what goes in and what never does, what verifying finds, and what is refused."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import petlbench as pb
from petlbench.core.errors import InputError
from petlbench.data.manifest import split_digest
from petlbench.report.bundle.scrub import Scrubber
from petlbench.results.result import read_result, write_result
from tests.report.stored import store_predicted, store_study

Files = dict[str, bytes]
PRIVATE = "/home/alice smith/scans"


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study of two methods, two seeds; a path, a password and a person's name where results have room for them."""
    output = tmp_path_factory.mktemp("study") / "results"
    runs = []
    for method, strength in (("full", 2.0), ("lora", 1.5)):
        for seed in (0, 1):
            run = store_predicted(
                output, method, f"{PRIVATE}/eyes", seed, strength, weights="/home/alice/w.safetensors"
            )
            folder = output / run.run_id
            _complete(folder)
            runs.append({"method": method, "dataset": f"{PRIVATE}/eyes", "seed": seed, "run_id": run.run_id})
    store_study(output, "eyes", [{**run, "status": "finished"} for run in runs])
    reads = [
        {"run_id": run["run_id"], "dataset": f"{PRIVATE}/eyes", "split": "x", "pid": 7, "host": "h"} for run in runs
    ]
    (output / "test_reads.jsonl").write_text("".join(f"{json.dumps(read)}\n" for read in reads))
    return output


def _complete(folder: Path) -> None:
    """Give a result a manifest, notes with what is private, and what tables say of its images."""
    table = pq.read_table(folder / "predictions.parquet").to_pandas()
    ids = [name.rpartition("/")[2] for name in table["image_id"]]
    pq.write_table(
        pa.Table.from_pandas(table.assign(image_id=ids), preserve_index=False), folder / "predictions.parquet"
    )
    frame = table.assign(image_id=ids, path=[f"{PRIVATE}/{name}.png" for name in ids], group="", sha256="0" * 64)
    frame[["image_id", "path", "label", "split", "group", "sha256"]].to_csv(folder / "manifest.csv", index=False)
    (folder / "attributes.parquet").write_bytes(b"ages")
    result = read_result(folder)
    artifacts = {"predictions": "predictions.parquet", "manifest": "manifest.csv", "attributes": "attributes.parquet"}
    notes = ["read from postgresql://alice:hunter2@db/x", f"{PRIVATE}/a b.png is grey"]
    digests = {"data": hashlib.sha256(b"eyes").hexdigest(), "split": split_digest(frame)}
    data = {**result.data, "notes": notes}
    write_result(folder, result.model_copy(update={"artifacts": artifacts, "digests": digests, "data": data}))


@pytest.fixture(scope="module")
def bundle(results: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The study, packed."""
    return pb.pack("eyes", tmp_path_factory.mktemp("packed") / "eyes.zip", results=results).file


@pytest.fixture
def forged(bundle: Path, tmp_path: Path) -> Callable[[Callable[[Files], object]], Path]:
    """Make a bundle in which files were changed, and the checksums with them."""

    def forge(change: Callable[[Files], object], *, sums: bool = True) -> Path:
        with zipfile.ZipFile(bundle) as package:
            files = {name: package.read(name) for name in package.namelist()}
        change(files)
        if sums:
            lines = [f"{hashlib.sha256(files[name]).hexdigest()}  {name}\n" for name in files if name != "SHA256SUMS"]
            files["SHA256SUMS"] = "".join(lines).encode()
        target = tmp_path / "forged.zip"
        with zipfile.ZipFile(target, "w") as package:
            for name, content in files.items():
                package.writestr(name, content)
        return target

    return forge


def test_a_bundle_has_what_others_need_and_verifies(bundle: Path) -> None:
    with zipfile.ZipFile(bundle) as package:
        names = {name.rpartition("/")[2] for name in package.namelist()}
        assert package.namelist() == sorted(package.namelist())
    assert {"README.md", "SHA256SUMS", "commands.sh", "environment.json", "requirements.txt", "table1.json"} <= names
    done = pb.verify_pack(bundle)
    assert done.differences == []
    assert done.counts["runs"] == 4
    assert min(done.counts[name] for name in ("scores", "intervals", "cells", "splits")) > 3


def test_nothing_private_goes_in(bundle: Path) -> None:
    with zipfile.ZipFile(bundle) as package:
        for name in package.namelist():
            content = package.read(name)
            for secret in (b"alice", b"hunter2", b"scans", str(Path.home()).encode() + b"/", b'"pid"', b'"host"'):
                assert secret not in content, name
        assert not any("attributes" in name for name in package.namelist())
        [manifest] = [name for name in package.namelist() if name.startswith("manifests/")]
        assert package.read(manifest).startswith(b"image_id,label,split,group,sha256\n")


def test_equal_studies_make_equal_bundles(bundle: Path, results: Path, tmp_path: Path) -> None:
    assert pb.pack("eyes", tmp_path / "eyes.zip", results=results).file.read_bytes() == bundle.read_bytes()


def test_every_report_and_table_takes_a_bundle(bundle: Path, results: Path) -> None:
    ours, theirs = (pb.report("table1", place).to_dataframe() for place in (results, bundle))
    assert list(theirs.columns) == ["eyes" if name.endswith("eyes") else name for name in ours.columns]
    assert theirs["average"].tolist() == ours["average"].tolist()
    frames = [pb.load_results(place).to_dataframe("image") for place in (results, bundle)]
    assert len(frames[0]) == len(frames[1]) == 480
    same = [pb.compare("full", "lora", results=place) for place in (results, bundle)]
    assert same[0].effect == same[1].effect
    page = pb.report("tradeoff", bundle).to_html()
    assert "petlbench-bundle-" not in page


def test_a_prediction_that_was_changed_by_a_thousandth_is_found(forged: Callable[..., Path]) -> None:
    changed = []

    def change(files: Files) -> None:
        name = next(name for name in files if "lora" in name and name.endswith(".parquet"))
        frame = pq.read_table(io.BytesIO(files[name])).to_pandas()
        row = frame.index[frame["split"] == "test"][0]
        frame.at[row, "logits"] = frame.at[row, "logits"] + [0, 1e-3]
        stream = io.BytesIO()
        pq.write_table(pa.Table.from_pandas(frame, preserve_index=False), stream)
        files[name] = stream.getvalue()
        changed.append(name.rpartition("/")[0])

    places = {each.place for each in pb.verify_pack(forged(change)).differences}
    assert f"{changed[0]}/result.json: metrics.test.loss" in places
    assert all(place.startswith((changed[0], "tables/")) for place in places)


@pytest.mark.parametrize("suffix", [".json", ".md"])
def test_a_cell_that_was_edited_is_found(forged: Callable[..., Path], suffix: str) -> None:
    def change(files: Files) -> None:
        document = json.loads(files["tables/table1.json"])
        row = next(row for row in document["tables"][0]["rows"] if row["key"] == "lora")
        text = row["cells"]["average"]["text"]
        row["cells"]["average"]["text"] = "99.9"
        files[f"tables/table1{suffix}"] = (
            json.dumps(document).encode()
            if suffix == ".json"
            else files["tables/table1.md"].replace(text.encode(), b"99.9", 1)
        )

    [difference] = pb.verify_pack(forged(change)).differences
    assert difference.kind == "cell"
    assert "99.9" in difference.stored
    where = (
        "tables/table1.json: main: row lora, column average: text" if suffix == ".json" else "tables/table1.md: line"
    )
    assert difference.place.startswith(where)


@pytest.mark.parametrize("content", [b"[]", b'{"tables": [1]}', b'{"tables": [{"key": "main", "rows": 3}]}', b"\xff"])
def test_a_table_that_is_none_is_found(forged: Callable[..., Path], content: bytes) -> None:
    [difference] = pb.verify_pack(forged(lambda files: files.update({"tables/table1.json": content}))).differences
    assert (difference.kind, difference.place) == ("cell", "tables/table1")


def test_a_score_that_was_edited_with_all_tables_is_found(forged: Callable[..., Path]) -> None:
    def change(files: Files) -> None:
        name = next(name for name in files if "lora" in name and name.endswith("result.json"))
        document = json.loads(files[name])
        document["metrics"]["test"]["auc"] += 0.01
        document["intervals"]["test"]["auc"]["low"] += 0.01
        files[name] = json.dumps(document).encode()

    places = [each.place.rpartition(": ")[2] for each in pb.verify_pack(forged(change)).differences]
    assert {"metrics.test.auc", "intervals.test.auc.low"} <= set(places)


@pytest.mark.parametrize("sums", [True, False], ids=["unlisted", "listed"])
@pytest.mark.parametrize("ending", ["predictions.parquet", "result.json", ".csv", "table1.md"])
def test_a_file_that_is_missing_is_named(forged: Callable[..., Path], ending: str, sums: bool) -> None:
    gone = []

    def change(files: Files) -> None:
        name = next(name for name in files if name.endswith(ending))
        del files[name]
        gone.append(name)

    differences = pb.verify_pack(forged(change, sums=sums)).differences
    folder = gone[0].rpartition("/")[0]
    assert any(folder in each.place for each in differences), differences
    assert sums or any((each.place, each.recomputed) == (gone[0], "is missing") for each in differences)


def test_a_bundle_that_was_changed_makes_no_report(forged: Callable[..., Path]) -> None:
    file = forged(lambda files: files.update({"README.md": b"trust me"}), sums=False)
    with pytest.raises(InputError, match="README.md is not the file that was packed") as error:
        pb.report("table1", file)
    assert error.value.kind == "changed_bundle"
    assert "verify-pack" in error.value.hint


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        (lambda files: files.update({"../out.txt": b""}), "unsafe_archive"),
        (lambda files: files.update({"/etc/cron.d/x": b""}), "unsafe_archive"),
        (lambda files: files.update({"bundle.json": b"{}"}), "bad_bundle"),
        (lambda files: files.pop("bundle.json"), "bad_bundle"),
        (lambda files: files.update({"SHA256SUMS": b"x"}), "bad_bundle"),
        (lambda files: files.update({"SHA256SUMS": b"0" * 64 + b"  ../x\n"}), "path_outside"),
    ],
)
def test_what_is_no_bundle_is_refused(
    forged: Callable[..., Path], change: Callable[[Files], object], kind: str
) -> None:
    with pytest.raises(InputError) as error:
        pb.verify_pack(forged(change, sums=False))
    assert error.value.kind == kind
    assert error.value.hint


def test_a_bomb_is_not_unpacked(tmp_path: Path) -> None:
    file = tmp_path / "bomb.zip"
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as package:
        package.writestr("results/zeros", bytes(70 << 20))
    with pytest.raises(InputError) as error:
        pb.verify_pack(file)
    assert error.value.kind == "archive_too_large"


def test_names_of_images_that_are_paths_are_not_packed(results: Path, tmp_path: Path) -> None:
    copy = tmp_path / "results"
    shutil.copytree(results, copy)
    file = next(copy.glob("*/predictions.parquet"))
    frame = pq.read_table(file).to_pandas()
    frame.loc[0, "image_id"] = f"{PRIVATE}/0.png"
    pq.write_table(pa.Table.from_pandas(frame, preserve_index=False), file)
    with pytest.raises(pb.RunError, match="tells of this machine"):
        pb.pack(to=tmp_path / "b.zip", results=copy)
    assert not (tmp_path / "b.zip").exists()


@pytest.mark.parametrize(
    ("text", "scrubbed"),
    [
        ("/home/bob/eyes", "eyes"),
        ("see /data/x/y.png, row 3", "see y.png, row 3"),
        ("file:///home/bob/mlruns", "mlruns"),
        (r"C:\Users\bob\eyes\a.png is damaged", "a.png is damaged"),
        (r"\\server\share\bob", "bob"),
        ("~/eyes and ~bob/eyes", "eyes and eyes"),
        ("kfold:0/5, and/or, 3 / 4, https://arxiv.org/abs/1", "kfold:0/5, and/or, 3 / 4, https://arxiv.org/abs/1"),
        ("vtab1k/cifar", "vtab1k/cifar"),
        ("http://u:pw@host/x?token=abc", "http://host/x?token=***"),
    ],
)
def test_texts_are_scrubbed(text: str, scrubbed: str) -> None:
    assert Scrubber({}).text(text) == scrubbed

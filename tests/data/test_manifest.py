"""The manifest: complete, ordered, and digests that change with what they name."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

from petlbench.core.catalog import Catalog
from petlbench.core.errors import InputError
from petlbench.data.dataset import Dataset, open_dataset
from petlbench.data.manifest import (
    COLUMNS,
    Manifest,
    draw_digest,
    manifest_digest,
    manifest_of,
    read_manifest,
    split_digest,
    with_draw,
)

SIDES = ["train", "val", "test", "train"]


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    rows = ["image,label,group"]
    for number in range(4):
        Image.new("RGB", (4, 4), (number, 0, 0)).save(tmp_path / f"é,{number}.png")
        rows.append(f'"é,{number}.png",{"xy"[number % 2]},{"" if number else "p"}')
    file = tmp_path / "table.csv"
    file.write_text("\n".join(rows), encoding="utf-8")
    return open_dataset(str(file), catalog=Catalog(), data_root=tmp_path, settings={})


def built(dataset: Dataset, sides: Sequence[str] = SIDES) -> pd.DataFrame:
    return manifest_of(dataset, sides, [dataset.content_hash(record) for record in dataset.records])


def test_columns_and_rows(dataset: Dataset) -> None:
    frame = built(dataset)
    assert tuple(frame.columns) == COLUMNS
    assert frame["split"].tolist() == SIDES
    assert frame["group"].tolist() == ["p", "", "", ""]
    assert frame["sha256"].tolist() == [dataset.content_hash(record) for record in dataset.records]


def test_the_file_reads_back_and_is_the_digest(dataset: Dataset, tmp_path: Path) -> None:
    frame = built(dataset)
    file = tmp_path / "new" / "folder" / "manifest.csv"
    Manifest(frame).write(file)
    assert b"\r" not in file.read_bytes()
    back = pd.read_csv(file, keep_default_na=False)
    assert manifest_digest(back) == manifest_digest(frame)
    assert [path.name for path in file.parent.iterdir()] == ["manifest.csv"]


@pytest.mark.parametrize("id_", ["=1+1", "NA", "a\nb", '"x'])
def test_what_was_written_is_read_and_what_was_changed_is_refused(dataset: Dataset, tmp_path: Path, id_: str) -> None:
    frame, file = built(dataset), tmp_path / "manifest.csv"
    frame.loc[0, "image_id"] = id_
    Manifest(frame).write(file)
    assert (
        read_manifest(file, manifest_digest(frame))["sha256"].tolist()
        == frame.sort_values("image_id")["sha256"].tolist()
    )
    content = file.read_text(encoding="utf-8")
    rows = content.splitlines(keepends=True)
    for changed in ("", "\0", content.replace("train", "test"), "".join(rows[:-1]), content.replace("sha256", "sha")):
        file.write_text(changed, encoding="utf-8")
        with pytest.raises(InputError, match="has changed since its run wrote it"):
            read_manifest(file, manifest_digest(frame))


def test_no_cell_is_a_formula_of_a_spreadsheet(dataset: Dataset, tmp_path: Path) -> None:
    frame = built(dataset)
    frame.loc[0, ["image_id", "group"]] = ['=HYPERLINK("http://evil")', "@p"]
    Manifest(frame).write(tmp_path / "manifest.csv")
    back = pd.read_csv(tmp_path / "manifest.csv", keep_default_na=False)
    assert '\'=HYPERLINK("http://evil")' in back["image_id"].tolist()
    assert "'@p" in back["group"].tolist()
    assert manifest_digest(frame) == hashlib.sha256((tmp_path / "manifest.csv").read_bytes()).hexdigest()


def test_digests_of_equal_rows_are_the_same_in_every_version() -> None:
    rows = [["b", "b.png", "x", "test", "", "1"], ["a", "=a.png", "y", "train", "p", "0"]]
    frame = pd.DataFrame(rows, columns=list(COLUMNS))
    text = "image_id,path,label,split,group,sha256\na,'=a.png,y,train,p,0\nb,b.png,x,test,,1\n"
    assert manifest_digest(frame) == hashlib.sha256(text.encode()).hexdigest()
    assert split_digest(frame) == hashlib.sha256(b"image_id,split\na,train\nb,test\n").hexdigest()


def test_a_kept_manifest_says_what_the_functions_do(dataset: Dataset, tmp_path: Path) -> None:
    whole = built(dataset)
    for frame in (whole, with_draw(whole, dataset, ["train", None, "test", "val"])):
        kept = Manifest(frame)
        assert kept.digest == manifest_digest(whole)
        assert (kept.split_digest, kept.draw_digest) == (split_digest(frame), draw_digest(frame))
        kept.write(tmp_path / "a.csv")
        Manifest(frame).write(tmp_path / "b.csv")
        assert (tmp_path / "a.csv").read_bytes() == (tmp_path / "b.csv").read_bytes()


def test_digests_do_not_depend_on_the_order(dataset: Dataset) -> None:
    frame = built(dataset)
    assert manifest_digest(frame.iloc[::-1]) == manifest_digest(frame)
    assert split_digest(frame.iloc[::-1]) == split_digest(frame)


def test_digests_change_with_what_they_name(dataset: Dataset) -> None:
    frame = built(dataset)
    other_bytes = frame.assign(sha256=frame["sha256"].iloc[::-1].tolist())
    assert manifest_digest(other_bytes) != manifest_digest(frame)
    assert split_digest(other_bytes) == split_digest(frame)
    other_split = built(dataset, ["val", "train", "test", "train"])
    assert split_digest(other_split) != split_digest(frame)


def test_an_image_that_vanished_is_named(dataset: Dataset, tmp_path: Path) -> None:
    (tmp_path / "é,2.png").unlink()
    with pytest.raises(InputError, match="é,2.png"):
        built(dataset)


def test_the_number_of_splits_is_checked(dataset: Dataset) -> None:
    for count in (1, 5):
        with pytest.raises(InputError, match=f"4 images, but {count} splits"):
            manifest_of(dataset, ["train"] * count, ["0"] * 4)

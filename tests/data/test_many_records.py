"""Records of very many files read as others do, and take less."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from petlbench.core.catalog import Catalog
from petlbench.data import many_records
from petlbench.data.dataset import open_dataset
from petlbench.data.many_records import DenseRecords, kept_records
from petlbench.data.record import SPLITS, Record

SIDES = st.sampled_from([None, *SPLITS])
LABELS = st.one_of(st.integers(0, 9), st.tuples(st.integers(0, 1), st.none()))
PATHS = st.lists(st.text(st.characters(exclude_categories=["Cs"]), min_size=1), max_size=8, unique=True)


@given(PATHS, st.data())
def test_they_are_the_records_that_were_put_in(paths: list[str], data: st.DataObject) -> None:
    records = [Record(path, path, data.draw(LABELS), split=data.draw(SIDES)) for path in paths]
    dense = DenseRecords()
    dense.add(records[:3])
    dense.add(records[3:])
    assert list(dense) == records
    assert [dense[place] for place in range(-len(records), len(records))] == records * 2
    assert list(dense[1:-1]) == records[1:-1]
    assert list(dense[::-2]) == records[::-2]
    for place in (len(records), -len(records) - 1):
        with pytest.raises(IndexError):
            dense[place]


def test_few_are_a_tuple_and_many_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(many_records, "_FEW", 3)
    for count in range(9):
        records = [Record(f"é{number}", f"é{number}", number % 2) for number in range(count)]
        kept = kept_records(iter(records))
        assert isinstance(kept, tuple) == (count <= 3)
        assert list(kept) == records


def test_an_image_takes_its_path_and_little_more() -> None:
    dense = DenseRecords()
    paths = (f"class{number % 10}/{number:07}.png" for number in range(50_000))
    dense.add(Record(path, path, number % 10) for number, path in enumerate(paths))
    held = sum(part.__sizeof__() for part in (dense._paths, dense._ends, dense._numbers))
    assert held / len(dense) < 18 + 8 + 4 + 10


def test_a_folder_reads_alike_either_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Among others a class whose name another begins with, and a folder inside a class."""
    for name in ("red/b.png", "red/inside.png", "red/inside/01.png", "red-ish/a.png", "red-ish/c.png", "red.2/0.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (2, 2)).save(tmp_path / name)
    few = open_dataset(str(tmp_path), catalog=Catalog(), data_root=tmp_path, settings={})
    monkeypatch.setattr(many_records, "_FEW", 2)
    many = open_dataset(str(tmp_path), catalog=Catalog(), data_root=tmp_path, settings={})
    assert isinstance(many.records, DenseRecords)
    assert list(many.records) == list(few.records)
    paths = [record.path for record in few.records]
    assert paths == sorted(file.relative_to(tmp_path).as_posix() for file in tmp_path.rglob("*.png"))
    assert [few.classes[record.label] for record in few.records] == [path.split("/")[0] for path in paths]

"""A reader of the user's own, in one file: found by a card that names it, and by the paths that it recognises."""

from __future__ import annotations

from pathlib import Path

import pytest

from petlbench.core.catalog import Catalog
from petlbench.core.errors import InputError
from petlbench.data.dataset import open_dataset

READER = '''
from PIL import Image
from pydantic import Field

from petlbench.data.readers.base import Reader, ReaderCard, ReaderSettings
from petlbench.data.record import Record


class Settings(ReaderSettings):
    brightest: int = Field(default=200, ge=1, le=255, description="Level of the brightest image.")


class Mine(Reader):
    """One image a line: a level of grey and a class."""

    card = ReaderCard(name="mine", title="Lines of grey")
    Settings = Settings

    def __init__(self, source):
        file = source.path if source.card is None else source.folder() / "greys.txt"
        self.levels = {}
        lines = [line.split() for line in file.read_text().splitlines()]
        self.classes = source.classes or tuple(sorted({name for _, name in lines}))
        records = []
        for number, (level, name) in enumerate(lines):
            self.levels[f"line/{number}"] = min(int(level), source.settings.brightest)
            records.append(Record(f"line/{number}", f"line/{number}", source.labels.parse(name, self.classes)))
        self.records = tuple(records)

    @classmethod
    def recognises(cls, path):
        return path.suffix == ".greys"

    def open(self, record):
        return Image.new("RGB", (4, 4), (self.levels[record.path],) * 3)
'''

CARD = """
title = "Greys"
modality = "none"
task = "binary"
classes = ["light", "dark"]
licence = "CC0"
version = 1
split = "random"
grouping = "none"
[reader]
kind = "mine"
settings = { brightest = 100 }
"""

GREYS = "\n".join(f"{level} {'dark' if level < 100 else 'light'}" for level in range(0, 250, 10))


@pytest.fixture(params=["mine.py", "readers/mine.py"])
def catalog(request: pytest.FixtureRequest, tmp_path: Path) -> Catalog:
    folder = tmp_path / "catalog"
    for name, text in ((request.param, READER), ("datasets/greys.toml", CARD)):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    return Catalog([folder])


def test_a_card_names_it_and_sets_its_settings(catalog: Catalog, tmp_path: Path) -> None:
    (tmp_path / "data/greys").mkdir(parents=True)
    (tmp_path / "data/greys/greys.txt").write_text(GREYS)
    dataset = open_dataset("greys", catalog=catalog, data_root=tmp_path / "data", settings={})
    assert (dataset.classes, dataset.settings) == (("light", "dark"), {"brightest": 100})
    assert dataset.by_class() == {"light": 15, "dark": 10}
    assert dataset.open(dataset.records[-1]).getpixel((0, 0)) == (100, 100, 100)
    assert dataset.file(dataset.records[0]) is None
    assert len({dataset.content_hash(record) for record in dataset.records}) == 11
    brighter = open_dataset("greys", catalog=catalog, data_root=tmp_path / "data", settings={"brightest": "240"})
    assert brighter.open(brighter.records[-1]).getpixel((0, 0)) == (240, 240, 240)
    with pytest.raises(InputError, match="brightest = '256' is refused"):
        open_dataset("greys", catalog=catalog, data_root=tmp_path / "data", settings={"brightest": "256"})


def test_it_reads_the_paths_that_it_recognises(catalog: Catalog, tmp_path: Path) -> None:
    (tmp_path / "own.greys").write_text(GREYS)
    dataset = open_dataset(str(tmp_path / "own.greys"), catalog=catalog, data_root=tmp_path, settings={})
    assert (dataset.name, dataset.card.reader.kind, dataset.classes) == ("own", "mine", ("dark", "light"))
    (tmp_path / "folder.greys").mkdir()
    with pytest.raises(IsADirectoryError):
        open_dataset(str(tmp_path / "folder.greys"), catalog=catalog, data_root=tmp_path, settings={})


def test_without_its_catalog_the_card_is_refused(catalog: Catalog, tmp_path: Path) -> None:
    file = catalog.find("dataset", "greys").file
    file.write_text(file.read_text().replace('"mine"', '"fodler"'))
    with pytest.raises(InputError) as caught:
        open_dataset("greys", catalog=catalog, data_root=tmp_path, settings={})
    assert (caught.value.kind, caught.value.hint) == ("bad_card", "did you mean folder?")
    assert f"{file}: reader.kind: unknown reader 'fodler'" in caught.value.message


def test_two_readers_that_claim_one_path_are_named(catalog: Catalog, tmp_path: Path) -> None:
    (catalog.folders[0] / "other.py").write_text(READER.replace('"mine"', '"other"'))
    (tmp_path / "own.greys").write_text(GREYS)
    with pytest.raises(InputError, match="mine and other both claim"):
        open_dataset(str(tmp_path / "own.greys"), catalog=Catalog(catalog.folders), data_root=tmp_path, settings={})

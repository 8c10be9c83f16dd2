"""Reading made-up official releases by their cards, and changing their files."""

from __future__ import annotations

from pathlib import Path

import pytest

from petlbench.core.catalog import Catalog
from petlbench.core.errors import InputError
from petlbench.data.card import DatasetCard, load_card
from petlbench.data.official.read import OfficialImages, read_official
from petlbench.data.tasks.base import task_of

CATALOG = Catalog()


def card(name: str) -> DatasetCard:
    return load_card(CATALOG.find("dataset", name).file, CATALOG)


def read(name: str, root: Path) -> OfficialImages:
    return read_official(card(name), root, name, task_of(card(name), CATALOG).labels)


def refused(name: str, root: Path) -> InputError:
    with pytest.raises(InputError) as caught:
        read(name, root)
    return caught.value


def change(file: Path, old: str, new: str) -> Path:
    text = file.read_text(encoding="utf-8")
    assert old in text
    file.write_text(text.replace(old, new, 1), encoding="utf-8")
    return file

"""The sweep file: what it may say, and what is refused by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from petlbench.core.catalog import Catalog
from petlbench.core.entry import Entry
from petlbench.core.errors import InputError
from petlbench.sweep.spec import SweepCard, load_sweep

SPACE = {"training": {"lr": {"range": "method"}}}


def load(**card: Any) -> SweepCard:
    full = {"title": "Mine", "trials": 4, "space": SPACE, **card}
    return load_sweep(Entry("sweep", "mine", Path("/somewhere/mine.toml"), "Mine", card=full))


def test_shipped_sweeps_are_valid() -> None:
    entries = Catalog().entries("sweep")
    assert set(entries) == {"fair", "lr_wd", "published", "quick", "recommend"}
    cards = {name: load_sweep(entry) for name, entry in entries.items()}
    fair = cards["fair"]
    assert (fair.trials, fair.published_first, fair.finalists, fair.finalist_seeds) == (20, True, 3, (0, 1, 2))
    assert (fair.seeds, fair.track, fair.pruner, fair.objective) == ((0, 1, 2, 3, 4), "matched", "none", "val.auc")
    assert fair.space.training["weight_decay"] == (0, 1e-4, 1e-2, 1e-1)
    assert cards["lr_wd"].sampler == "grid"
    for name, card in cards.items():
        assert card.description, name


@pytest.mark.parametrize(
    ("card", "named"),
    [
        ({"pruned": "none"}, "pruned"),
        ({"sampler": "hyperopt"}, "sampler"),
        ({"objective": "test.auc"}, "objective"),
        ({"objective": "auc"}, "objective"),
        ({"trials": 0}, "trials"),
        ({"trials": None}, "trials"),
        ({"seeds": []}, "seeds"),
        ({"seeds": [1, 1]}, "seeds"),
        ({"space": {"training": {"rate": [1, 2]}}}, "rate"),
        ({"space": {"training": {"epochs": {"range": "method"}}}}, "epochs"),
        ({"space": {"training": {"lr": {"low": 1.0, "high": 0.1}}}}, "high"),
        ({"space": {"training": {"lr": {"low": 0, "high": 0.1, "log": True}}}}, "log"),
        ({"space": {"training": {"lr": {"range": "method", "low": 1}}}}, "range"),
        ({"space": {"training": {"lr": {"log": True}}}}, "range"),
        ({"space": {"training": {"lr": []}}}, "lr"),
        ({"space": {"model": {}}}, "model"),
        ({"sampler": "grid", "published_first": True}, "published"),
        ({"sampler": "grid", "track": "tuned", "trials": None}, "trials"),
    ],
)
def test_a_wrong_file_is_named_with_its_key(card: dict[str, Any], named: str) -> None:
    with pytest.raises(InputError) as caught:
        load(**card)
    assert "/somewhere/mine.toml" in caught.value.message
    assert named in caught.value.message


def test_options_take_the_place_of_the_file() -> None:
    entry = Catalog().find("sweep", "fair")
    assert load_sweep(entry, trials=3, track="tuned").trials == 3
    assert load_sweep(entry, trials=3, track="tuned").track == "tuned"


def test_numbers_keep_their_kind() -> None:
    card = load(space={"training": {"weight_decay": [0, 0.1], "epochs": 5}, "methods": {"lora": {"rank": [4, 8]}}})
    assert card.space.training == {"weight_decay": (0, 0.1), "epochs": 5}
    assert all(isinstance(rank, int) for rank in card.space.methods["lora"]["rank"])  # type: ignore[union-attr]

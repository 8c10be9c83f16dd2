"""Whose winner is taken: what a search is names it, and nothing else does."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from petlbench.core.config import RunConfig
from petlbench.core.entry import Entry
from petlbench.core.errors import InputError
from petlbench.core.request import Request
from petlbench.run.options import RunOptions
from petlbench.sweep.search import Search
from petlbench.sweep.space import Choice, Space, Span
from petlbench.sweep.spec import load_sweep
from petlbench.sweep.sweep import SweepResult, plan_searches
from petlbench.sweep.winner import iter_winners, read_winner, write_winner
from tests.sweep.conftest import GRID, TPE

MakeSearch = Callable[..., Search]

# Another value of each field of a run.
OTHER: dict[str, Any] = {
    "aggregate": "max",
    "calibrate": "temperature",
    "test_every_epoch": True,
    "method": "bitfit",
    "method_settings": {"rank": 3},
    "dataset": "/b/images",
    "dataset_settings": {"group": "patient"},
    "split": "kfold:5/1",
    "split_seed": 1,
    "shots": 5,
    "train_fraction": 0.5,
    "draw": 1,
    "shots_val": True,
    "train_on": "train+val",
    "skip_corrupt": True,
    "test_on": "/c/images",
    "backbone": "vit_tiny_patch16_224",
    "weights": "random",
    "image_size": 64,
    "normalize": "card",
    "preload": False,
    "cache_precision": "fp16",
    "cache_form": "tokens",
    "extract_precision": "bf16",
    "seed": 1,
    "device": "cuda",
    "threads": 2,
    "precision": "bf16",
    "attention_kernel": "fused",
    "checkpointing": True,
    "compile": True,
}
# What the images are and how a run sees them: settings that won are good for that alone.
SEEN = {"dataset", "dataset_settings", "split", "split_seed", "skip_corrupt", "backbone", "weights", "image_size"}
SEEN |= {"normalize", "shots", "train_fraction", "shots_val"}
TRAINING: dict[str, Any] = {
    "epochs": 2,
    "select": "worst-group:sex",
    "batch_size": 8,
    "accumulate": 2,
    "optimizer": "sgd",
    "loss": "focal",
    "lr": 0.5,
    "weight_decay": 0.5,
    "decay": "matrices",
    "schedule": "constant",
    "min_lr": 0.1,
    "layer_decay": 0.5,
    "drop_path": 0.1,
    "ema_decay": 0.9,
    "warmup_epochs": 1.5,
    "warmup_lr": 0.1,
    "drop_last": True,
    "label_smoothing": 0.1,
    "class_weights": "balanced",
    "clip_grad_norm": 0.5,
    "augment": "none",
}


def with_config(search: Search, **changes: Any) -> Search:
    return replace(search, config=search.config.model_copy(update=changes))


def written(search: Search, **best: Any) -> Path:
    settings = {"training": {"lr": 0.1, **best}, "method": {}}
    config = search.config.model_dump(mode="json")
    document = {"method": search.config.method, "dataset": "images", "search": search.key, "best": settings}
    return write_winner(search, {**document, "config": config, "images": search.images})


def test_every_field_of_a_run_has_another_value_here() -> None:
    assert {*OTHER, "training"} == set(RunConfig.model_fields)
    assert set(TRAINING) == set(RunConfig.model_fields["training"].annotation.model_fields)  # type: ignore[union-attr]


def test_each_field_of_a_run_and_of_how_is_searched_is_another_search(make_search: MakeSearch) -> None:
    search = make_search(GRID)
    others = {name: with_config(search, **{name: value}) for name, value in OTHER.items()}
    for name, value in TRAINING.items():
        training = search.config.training.model_copy(update={name: value})
        others[f"training.{name}"] = with_config(search, training=training)
    how = {"sampler": "random", "pruner": "median", "objective": "val.loss", "track": "tuned", "seed": 1}
    for name, value in how.items():
        others[f"card.{name}"] = replace(search, card=search.card.model_copy(update={name: value}))
    assert [name for name, other in others.items() if (other.config, other.card) == (search.config, search.card)] == []
    digests = {name: other.digest for name, other in others.items()}
    assert len({search.digest, *digests.values()}) == len(digests) + 1


numbers = st.floats(1e-6, 1.0)
choices = st.builds(Choice, st.lists(st.integers(0, 9), min_size=2, max_size=4, unique=True).map(tuple))
spans = st.builds(Span, numbers, st.floats(2.0, 9.0), st.booleans(), st.integers(0, 9))
spaces = st.builds(
    Space,
    st.dictionaries(st.sampled_from(["training.lr", "training.weight_decay", "method.rank"]), choices | spans),
    st.dictionaries(st.sampled_from(["training.epochs", "method.depth"]), st.integers(1, 9)),
    st.dictionaries(st.sampled_from(["training.lr"]), numbers),
)


@pytest.fixture
def search(make_search: MakeSearch) -> Search:
    return make_search(TPE)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(first=spaces, second=spaces)
def test_what_is_searched_is_the_same_search_where_it_is_equal(search: Search, first: Space, second: Space) -> None:
    digests = {replace(search, space=space).digest for space in (first, second)}
    assert (len(digests) == 1) == (first == second)


def test_the_images_are_part_of_the_search(make_search: MakeSearch) -> None:
    search = make_search(GRID)
    assert search.images is not None
    assert replace(search, images="others").digest != search.digest


def test_a_longer_search_is_the_same_one_and_so_is_one_whose_runs_stand_elsewhere(make_search: MakeSearch) -> None:
    search = make_search(TPE)
    more = {"trials": 20, "finalists": 2, "finalist_seeds": (3, 4), "seeds": (7,), "title": "other", "description": "x"}
    options = replace(search.options, output=Path("elsewhere"), cache_dir=Path("there"), workers=7)
    others = [
        replace(search, card=search.card.model_copy(update=more)),
        replace(search, study_name="other", timeout=9.0, label="other", points=[]),
        replace(search, context=replace(search.context, options=options)),
    ]
    assert {other.digest for other in others} == {search.digest}


def test_a_winner_is_taken_for_what_it_was_found_on_and_for_nothing_else(make_search: MakeSearch) -> None:
    search = make_search(GRID)
    written(search, lr=0.25)
    for name, value in OTHER.items():
        config = search.config.model_copy(update={name: value})
        if name in {*SEEN, "method"}:
            with pytest.raises(InputError) as caught:
                read_winner(search.options.output, search.name, config, None)
            assert caught.value.kind == "unknown_winner"
            assert name == "method" or name.replace("_", " ") in caught.value.message
        else:
            assert read_winner(search.options.output, search.name, config, None).training == {"lr": 0.25}


def test_other_images_in_the_same_place_are_told(make_search: MakeSearch) -> None:
    search = make_search(GRID)
    written(replace(search, images="others"))
    info = None
    assert read_winner(search.options.output, search.name, search.config, info).training == {"lr": 0.1}
    from petlbench.run.resolve import resolve_config

    catalog, data_root = search.context.catalog, search.options.data_root
    info = resolve_config(search.config, catalog, data_root).dataset
    with pytest.raises(InputError, match="state of the images"):
        read_winner(search.options.output, search.name, search.config, info)


def test_each_search_keeps_its_winner_and_the_run_says_which_is_meant(make_search: MakeSearch) -> None:
    search = make_search(GRID)
    longer = make_search(GRID, training={"epochs": 3})
    sized = with_config(search, image_size=64)
    files = {written(search, lr=0.25), written(longer, lr=0.5), written(sized, lr=0.75)}
    assert len(files) == 3
    for one, lr in ((search, 0.25), (longer, 0.5), (sized, 0.75)):
        assert read_winner(one.options.output, one.name, one.config, None).training == {"lr": lr}
    refit = search.config.training.model_copy(update={"select": "last"})
    config = search.config.model_copy(update={"train_on": "train+val", "training": refit})
    assert read_winner(search.options.output, search.name, config, None).training == {"lr": 0.25}
    third = make_search(GRID, training={"epochs": 5})
    with pytest.raises(InputError, match="2 winners") as caught:
        read_winner(third.options.output, third.name, third.config, None)
    assert caught.value.kind == "ambiguous_winner"
    assert all(str(file) in caught.value.hint for file in files - {written(sized)})


def test_an_old_file_is_said_to_be_old(make_search: MakeSearch) -> None:
    search = make_search(GRID)
    folder = search.options.output / "sweeps" / search.name
    folder.mkdir(parents=True)
    best = {"training": {"lr": 0.1}, "method": {}}
    (folder / "linear-digits.json").write_text(json.dumps({"method": "linear", "dataset": "digits", "best": best}))
    with pytest.raises(InputError, match=r"linear-digits\.json is of an older petlbench"):
        read_winner(search.options.output, search.name, search.config, None)


def test_a_damaged_neighbour_is_named_and_harms_nobody(make_search: MakeSearch) -> None:
    search = make_search(GRID)
    written(search, lr=0.25)
    damaged = search.options.output / "sweeps" / search.name / "a.json"
    (damaged.parent / "b.json").mkdir()
    other = with_config(search, image_size=64).config
    texts = ("", "{", "[]", "null", "{}", '{"method": 1}', '{"method": "linear", "dataset": "x", "best": []}', "\xff")
    for text in texts:
        damaged.write_text(text, encoding="latin-1")
        assert read_winner(search.options.output, search.name, search.config, None).training == {"lr": 0.25}
        winners = [winner for _, winner in iter_winners(search.options.output, search.name)]
        errors = [winner for winner in winners if isinstance(winner, InputError)]
        assert [file in error.message for file, error in zip(("a.json", "b.json"), errors, strict=True)] == [True, True]
        with pytest.raises(InputError, match=r"a\.json"):
            read_winner(search.options.output, search.name, other, None)


def test_datasets_of_one_name_have_searches_that_are_told_apart(tmp_path: Path) -> None:
    requests = []
    for folder in ("a", "b"):
        for label in ("cat", "dog"):
            (tmp_path / folder / "images" / label).mkdir(parents=True)
            for number in range(4):
                image = Image.new("RGB", (8, 8), (number, ord(folder), len(label)))
                image.save(tmp_path / folder / "images" / label / f"{number}.png")
        dataset = str(tmp_path / folder / "images")
        requests.append(Request("linear", dataset, "petlbench_micro", image_size=32, threads=1, device="cpu"))
    card = load_sweep(Entry("sweep", "test", tmp_path / "test.toml", "Test", card=GRID))
    options = RunOptions(tmp_path / "results", tmp_path / "data", tmp_path / "cache", tracking_uri="none")
    outcomes = plan_searches("test", card, requests, options)
    assert [outcome.dataset for outcome in outcomes] == ["a/images", "b/images"]
    assert list(SweepResult(outcomes).best or {}) == ["linear on a/images", "linear on b/images"]
    first, second = (outcome.search for outcome in outcomes)
    assert first is not None
    assert second is not None
    assert first.images == second.images, "in names and labels they are alike"
    assert first.digest != second.digest
    assert first.digest == plan_searches("test", card, requests[:1], options)[0].search.digest  # type: ignore[union-attr]
    written(first, lr=0.25)
    with pytest.raises(InputError, match="dataset"):
        read_winner(options.output, "test", second.config, None)

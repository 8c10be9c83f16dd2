"""Where features are kept: one folder for all that have the same origin, and another one for others."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from petlbench.features.locks import in_use
from petlbench.features.shard import images_in
from petlbench.features.store import ABOUT, plan_store, read_about
from petlbench.models.method import FeatureSpec, TensorSpec

SPEC = FeatureSpec("fine", {"feature": "final"}, {"final": TensorSpec((8,))})
ORIGIN = {"backbone": "tiny", "weights": "w", "mean": (0.5, 0.5, 0.5)}


def test_a_plan_touches_nothing(tmp_path: Path) -> None:
    plan = plan_store(tmp_path / "cache", SPEC, "int8", ORIGIN)
    assert plan.missing_bytes(["image"]) > 0
    assert plan.alike() == (None, 0)
    assert not (tmp_path / "cache").exists()


def test_an_open_store_says_what_it_holds_and_is_in_use(tmp_path: Path) -> None:
    store = plan_store(tmp_path, SPEC, "int8", ORIGIN).open()
    about = read_about(store.folder)
    assert {name: about[name] for name in ("backbone", "weights", "features", "cache_precision")} == {
        "backbone": "tiny",
        "weights": "w",
        "features": {"feature": "final"},
        "cache_precision": "int8",
    }
    assert in_use(store.folder)
    folder = store.folder
    del store
    assert not in_use(folder)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the system has no named pipes")
def test_a_pipe_in_a_store_keeps_nobody_waiting(tmp_path: Path) -> None:
    for name in (ABOUT, "shard.safetensors"):
        os.mkfifo(tmp_path / name)
    assert read_about(tmp_path) == {}
    assert images_in(tmp_path) == set()


def test_whatever_changes_the_features_changes_the_folder(tmp_path: Path) -> None:
    plans = [
        plan_store(tmp_path, SPEC, "int8", ORIGIN),
        plan_store(tmp_path, SPEC, "fp16", ORIGIN),
        plan_store(tmp_path, replace(SPEC, key={"feature": "other"}), "int8", ORIGIN),
        *(plan_store(tmp_path, SPEC, "int8", {**ORIGIN, name: "other"}) for name in ORIGIN),
    ]
    assert len({plan.folder for plan in plans}) == len(plans)
    assert plan_store(tmp_path, SPEC, "int8", ORIGIN).folder == plans[0].folder


def test_the_same_features_have_the_same_folder_in_every_version(tmp_path: Path) -> None:
    assert plan_store(tmp_path, SPEC, "int8", ORIGIN).folder == tmp_path / "features" / "9fa1fd8bad9a36e6b782"


def test_without_the_weights_the_fullest_store_that_is_alike_is_meant(
    tmp_path: Path, make_set: Callable[..., Path]
) -> None:
    make_set("tiny", images=5)
    cache = tmp_path / "cache"
    plan = plan_store(cache, SPEC, "fp32", {"backbone": "tiny", "weights": "", "image_size": 32})
    assert plan.alike()[1] == 5
    assert plan.alike()[0] != plan.folder
    assert plan_store(cache, SPEC, "fp32", {"backbone": "small", "weights": "", "image_size": 32}).alike()[1] == 0

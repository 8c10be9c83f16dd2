"""What decides where features are kept: everything that can change one of their numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from petlbench.core.catalog import Catalog
from petlbench.core.config import RunConfig
from petlbench.core.request import Request
from petlbench.data.views import Augmentation
from petlbench.models.build import Assembled, assemble
from petlbench.models.method import configured_method
from petlbench.run.preload import plan_features
from petlbench.run.resolve import build_views, resolve, resolve_config

CATALOG = Catalog()
TINY: dict[str, Any] = {"backbone": "vit_tiny_patch16_224", "weights": "none", "image_size": 32, "device": "cpu"}


def config(method: str = "linear", **given: Any) -> RunConfig:
    return resolve(Request(method, "digits", **{**TINY, **given}), CATALOG, Path("data")).config


def assembled(run: RunConfig) -> Assembled:
    return assemble(run, configured_method(run, CATALOG), 10, torch.device("meta"))


def key(run: RunConfig, weights: str = "w", view: Mapping[str, Any] | None = None, **normalization: Any) -> str:
    parts = assembled(run)
    own = replace(resolve_config(run, CATALOG, Path("data")).normalization, **normalization)
    views = build_views(run, parts.method, parts.backbone.info, own, Augmentation())
    views = {name: replace(each, **(view or {})) for name, each in views.items()}
    plan = plan_features(run, parts.frozen, parts.backbone.info, views, Path("cache"), weights=weights)
    assert plan is not None
    return plan.folder.name


def test_every_choice_that_can_change_a_feature_has_a_folder_of_its_own() -> None:
    keys = [
        key(config()),
        key(config(image_size=48)),
        key(config(backbone="vit_small_patch16_224")),
        key(config(precision="bf16")),
        key(config(attention_kernel="eager")),
        key(config(cache_precision="fp16")),
        key(config("fpt")),
        key(config("fpt", method_settings={"token_ratio": 0.5})),
        key(config("fpt", method_settings={"token_score": "class_token"})),
        key(config("fpt", method_settings={"token_score": "all_heads"})),
        key(config("fpt", cache_form="tokens")),
        key(config(), mean=(0.1, 0.2, 0.3)),
        key(config(), std=(0.1, 0.2, 0.3)),
        key(config(), view={"interpolation": "bilinear"}),
        key(config(), view={"size": 40}),
        key(config().model_copy(update={"device": "cuda"})),
        key(config(), weights="others"),
    ]
    assert len(set(keys)) == len(keys)


def other(value: Any) -> Any:
    """Another value of a field of a frozen feature."""
    if isinstance(value, str):
        return {"global": "class_token", "class_token": "global"}[value]
    return value / 2 if isinstance(value, float) else tuple(value)[1:]


@pytest.mark.parametrize("method", sorted(CATALOG.entries("method")))
def test_every_field_of_a_frozen_feature_is_part_of_its_key(method: str) -> None:
    parts = assembled(config(method, backbone="vit_tiny_patch16_224"))
    if parts.frozen is None or not is_dataclass(parts.frozen):
        return
    info = parts.backbone.info
    own = dict(parts.frozen.spec(info).key)
    for each in fields(parts.frozen):
        value = getattr(parts.frozen, each.name)
        changed = replace(parts.frozen, **{each.name: other(value)})
        assert dict(changed.spec(info).key) != own, each.name


def test_what_cannot_change_a_feature_shares_the_folder() -> None:
    others = [
        config(seed=3),
        config(split_seed=4),
        config(training={"epochs": 2, "batch_size": 3, "lr": 0.5}),
        config("mlp_head"),
    ]
    assert {key(other) for other in others} == {key(config())}


def test_fpt_shares_its_features_whatever_it_learns_from_them() -> None:
    settings = {"num_prompts": 4, "reduction": 4, "coarse_size": 16}
    assert key(config("fpt", method_settings=settings)) == key(config("fpt"))


def test_nothing_is_kept_where_nothing_is_preloaded() -> None:
    for run in (config("full"), config(preload=False)):
        parts = assembled(run)
        assert plan_features(run, parts.frozen, parts.backbone.info, {}, Path("cache")) is None


# What decides a feature, by another value each. What comes from elsewhere is in the key by its content.
DECIDING: dict[str, Any] = {
    "backbone": "vit_small_patch16_224",
    "image_size": 48,
    "precision": "bf16",
    "attention_kernel": "eager",
    "cache_precision": "fp16",
}
FROM_ELSEWHERE = {
    "extract_precision",  # in the place of precision; see below
    "weights",  # by the digest of what was loaded
    "normalize",  # by mean and deviation
    "device",  # by its name; see below
    "method",  # by what the method declares
    "method_settings",
    "dataset",  # by the content of each image
    "dataset_settings",
    "test_on",
}
# Which images there are, what is learned from the features and in what order, and how it is carried out.
BESIDE = {"split", "split_seed", "skip_corrupt", "training", "preload", "seed", "threads", "checkpointing", "compile"}
BESIDE |= {"shots", "train_fraction", "draw", "shots_val", "train_on", "aggregate", "calibrate", "test_every_epoch"}


def test_every_field_of_a_config_decides_features_or_has_a_reason_not_to() -> None:
    assert {*DECIDING, *FROM_ELSEWHERE, *BESIDE, "cache_form"} == set(RunConfig.model_fields)  # of fpt alone, above
    plain = config()
    keys = {key(plain), *(key(config(**{name: value})) for name, value in DECIDING.items())}
    assert len(keys) == len(DECIDING) + 1
    assert key(plain.model_copy(update={"device": "cuda"})) != key(plain)
    bf16, fp16 = config(precision="bf16"), config(precision="fp16")
    assert (
        key(config(extract_precision="bf16")) == key(bf16) == key(fp16.model_copy(update={"extract_precision": "bf16"}))
    )
    assert key(config(precision="bf16", extract_precision="fp32")) == key(plain)
    shared = {"split_seed": 5, "seed": 7, "threads": 3, "skip_corrupt": True, "checkpointing": True, "compile": True}
    shared |= {"shots": 5, "train_fraction": 0.5, "draw": 2, "aggregate": "max", "train_on": "train+val"}
    shared |= {"calibrate": "temperature", "test_every_epoch": True}
    assert {key(plain.model_copy(update={name: value})) for name, value in shared.items()} == {key(plain)}

"""The folder of a feature set: whatever changes a number of the features changes it, setting by setting."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from itertools import combinations
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from petlbench.core.catalog import Catalog
from petlbench.core.errors import InputError
from petlbench.features import frozen as declared
from petlbench.features.store import plan_store
from petlbench.models.backbone import Backbone
from petlbench.models.method import FrozenFeatures, Method, load_method
from petlbench.models.registry import build_backbone, resolve_backbone

SIZE = 32
METHODS = {name: load_method(entry) for name, entry in Catalog().entries("method").items()}
# Settings of text, which have no bounds to take other values from.
TEXTS = {"layers": ("all", "later_half", "0,1", "0")}


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    torch.manual_seed(0)
    made = build_backbone(resolve_backbone("test_vit"), SIZE, "none", torch.device("cpu"))
    for tensor in made.module.parameters():
        torch.nn.init.normal_(tensor, std=0.3)
    made.module.eval()
    return made


def key(features: FrozenFeatures, backbone: Backbone) -> str:
    return plan_store(Path("cache"), features.spec(backbone.info), "fp32", {}).folder.name


def numbers(features: FrozenFeatures, backbone: Backbone) -> dict[str, Tensor]:
    image = torch.randn(2, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        return features.extract(backbone, image)


def differ(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    return one.keys() != other.keys() or any(
        one[name].shape != other[name].shape or not torch.equal(one[name], other[name]) for name in one
    )


def others(method: type[Method[Any]]) -> Iterator[dict[str, Any]]:
    """Every setting of a method at some values beside its default, one at a time."""
    for name, field in method.Settings.model_fields.items():
        extra = field.json_schema_extra if isinstance(field.json_schema_extra, dict) else {}
        values = [*TEXTS.get(name, ()), *extra.get("search", ())]  # type: ignore[misc]
        if get_origin(field.annotation) is Literal:
            values += get_args(field.annotation)
        elif isinstance(field.default, bool):
            values.append(not field.default)
        elif isinstance(field.default, int | float):
            values += [type(field.default)(field.default * factor) for factor in (0.5, 2)]
        yield from ({name: value} for value in values if value != field.default)


@pytest.mark.parametrize("name", METHODS)
def test_settings_that_change_a_feature_change_the_key(name: str, backbone: Backbone) -> None:
    method = METHODS[name]
    features = method.from_settings({}).features(backbone.info)
    if features is None:
        return
    plain, plain_key = numbers(features, backbone), key(features, backbone)
    for settings in others(method):
        try:
            changed = method.from_settings(settings)
        except (InputError, ValidationError):
            continue
        other = changed.features(backbone.info)
        if changed.refuse(backbone.info) is None and other is not None and differ(plain, numbers(other, backbone)):
            assert key(other, backbone) != plain_key, settings


def test_the_score_of_fpt_is_one_of_them(backbone: Backbone) -> None:
    features = [METHODS["fpt"].from_settings({"token_score": score}).features(backbone.info) for score in SCORES]
    assert all(each is not None for each in features)
    numbers_of = [numbers(each, backbone) for each in features]  # type: ignore[arg-type]
    assert all(differ(one, other) for one, other in combinations(numbers_of, 2))
    assert len({key(each, backbone) for each in features}) == len(SCORES)  # type: ignore[arg-type]


SCORES = ("global", "class_token", "all_heads")
# Of each kind of frozen features its fields, at two values.
FIELDS: dict[str, dict[str, tuple[Any, Any]]] = {
    "FinalFeature": {},
    "LayerStates": {"layers": ((0, 2), (0, 1))},
    "ImportantTokens": {"layers": ((0, 2), (0, 1)), "ratio": (0.4, 0.8), "score": SCORES},
    "NormedTokens": {"layers": ((0, 2), (0, 1)), "ratio": (0.4, 0.8), "score": SCORES},
}


@pytest.mark.parametrize("name", declared.__all__)
def test_every_field_of_a_declaration_is_in_the_key(name: str, backbone: Backbone) -> None:
    kind = getattr(declared, name)
    fields = [field.name for field in dataclasses.fields(kind)] if dataclasses.is_dataclass(kind) else []
    assert fields == list(FIELDS[name])
    first = {field: values[0] for field, values in FIELDS[name].items()}
    keys = [key(kind(**first), backbone)]
    keys += [key(kind(**{**first, field: values[1]}), backbone) for field, values in FIELDS[name].items()]
    assert len(set(keys)) == len(keys)

"""Corruptions of the package ``medmnistc``: which go with a dataset, and that they repeat."""

from __future__ import annotations

import random
import sys
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from petlbench.core.catalog import Catalog
from petlbench.core.errors import InputError, RunError
from petlbench.data.corruptions import SEVERITIES, SIDE, Corruptions, load_corruptions


def dataset(name: str, modality: str = "unknown") -> Any:
    return SimpleNamespace(name=name, card=SimpleNamespace(modality=modality))


@pytest.mark.needs("medmnistc")
def test_those_of_the_name_then_those_of_the_modality_then_those_that_are_named() -> None:
    own = load_corruptions("medmnistc", dataset("breastmnist"), Catalog())
    assert (own.dataset, own.colour, set(own.reference)) == ("breastmnist", False, {"clean_score", "raw_scores"})
    alike = load_corruptions("medmnistc", dataset("isic2018", "dermoscopy"), Catalog())
    assert (alike.dataset, alike.colour, alike.reference) == ("dermamnist", True, {})
    named = load_corruptions("medmnistc:retinamnist", dataset("mine"), Catalog())
    assert (named.dataset, named.reference) == ("retinamnist", {})


@pytest.mark.needs("medmnistc")
@pytest.mark.parametrize(
    ("text", "name", "modality", "words"),
    [
        ("medmnistc", "mine", "unknown", "has none of mine"),
        ("medmnistc", "chncxr", "chest X-ray", "chestmnist, pneumoniamnist"),
        ("medmnistc:mine", "breastmnist", "breast ultrasound", "has none of mine"),
        ("weather", "breastmnist", "breast ultrasound", "none of that name"),
    ],
)
def test_what_is_no_choice_is_refused(text: str, name: str, modality: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        load_corruptions(text, dataset(name, modality), Catalog())


@pytest.mark.needs("medmnistc")
@pytest.mark.parametrize("name", ["octmnist", "pathmnist"])
def test_every_corruption_changes_an_image_and_repeats_to_the_bit(name: str) -> None:
    corruptions = load_corruptions(f"medmnistc:{name}", dataset("mine"), Catalog())
    image = np.random.default_rng(0).integers(60, 200, (SIDE, SIDE, 3)).astype(np.uint8)
    state = random.getstate(), np.random.get_state()[1].tolist()
    for member in corruptions.members:
        once, again = (corruptions.apply(image, member, SEVERITIES, "a") for _ in range(2))
        assert (once.shape, once.dtype) == (image.shape, np.uint8)
        assert (once == again).all()
        assert (once != image).any()
        assert corruptions.colour or (once[..., 0] == once[..., 2]).all()
    assert (random.getstate(), np.random.get_state()[1].tolist()) == state


def test_an_image_that_the_package_fails_on_is_named() -> None:
    def fail(image: Any, severity: int) -> None:
        raise ValueError("no room for ink")

    corruptions = Corruptions("pathmnist", {"ink": SimpleNamespace(apply=fail)}, True, {})
    with pytest.raises(RunError, match="ink of eyes/7: ValueError: no room for ink"):
        corruptions.apply(np.zeros((SIDE, SIDE, 3), np.uint8), "ink", 1, "eyes/7")


def test_without_the_package_the_error_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "medmnistc.corruptions.filter", None)
    with pytest.raises(InputError, match="ImageMagick") as error:
        load_corruptions("medmnistc", dataset("breastmnist"), Catalog())
    assert "petlbench[corruptions]" in error.value.hint

"""The backbone that travels with the package: it is there without a network, and is what its card says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import load_file

import petlbench.models
from petlbench.models.micro import petlbench_micro
from petlbench.models.registry import build_backbone, probe_backbone, resolve_backbone

FOLDER = Path(petlbench.models.__file__).parent
WEIGHTS, CARD = FOLDER / "petlbench_micro.safetensors", FOLDER / "petlbench_micro.md"
NAME = "petlbench_micro.distilled"
CPU = torch.device("cpu")


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("the hub was asked")

    monkeypatch.setattr("timm.models.load_state_dict_from_hf", refuse)


def test_the_bare_name_means_the_weights_of_the_package() -> None:
    assert resolve_backbone("petlbench_micro") == NAME


@pytest.mark.usefixtures("no_network")
def test_default_weights_are_those_of_the_package_to_the_last_bit() -> None:
    backbone, stored = build_backbone(NAME, 128, "default", CPU), load_file(WEIGHTS)
    built = backbone.module.state_dict()
    assert set(built) == set(stored)
    assert all(torch.equal(built[name], tensor.float()) for name, tensor in stored.items())


@pytest.mark.usefixtures("no_network")
def test_random_weights_stay_random() -> None:
    random, stored = build_backbone(NAME, 128, "none", CPU).module.state_dict(), load_file(WEIGHTS)
    assert not torch.equal(random["patch_embed.proj.weight"], stored["patch_embed.proj.weight"].float())


def test_timm_builds_it_by_itself() -> None:
    image = torch.randn(1, 3, 128, 128, generator=torch.Generator().manual_seed(0))
    theirs, ours = (
        timm.create_model("petlbench_micro", pretrained=True).eval(),
        build_backbone(NAME, 128, "default", CPU),
    )
    ours.module.eval()
    with torch.inference_mode():
        assert torch.equal(theirs(image), ours.pooled(image))


def test_the_file_is_small() -> None:
    assert WEIGHTS.stat().st_size < 8_000_000
    assert {tensor.dtype for tensor in load_file(WEIGHTS).values()} == {torch.float16}


def test_what_the_card_says_of_the_architecture_holds() -> None:
    card, info = CARD.read_text(encoding="utf-8"), probe_backbone(NAME)
    counted = re.search(r"\| parameters \| ([\d,]+) \|", card)
    assert counted is not None
    assert int(counted.group(1).replace(",", "")) == info.parameters
    assert (info.blocks, info.width, info.heads, info.patch, info.image_size) == (6, 192, 3, 16, 128)
    assert info.capabilities >= {"blocks", "isotropic", "qkv", "keys_values", "plain_mlp", "class_token"}
    assert petlbench_micro(num_classes=0).num_features == 192

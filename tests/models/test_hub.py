"""Backbones from a hub: one on the loopback that serves them, refuses, or is not there."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from huggingface_hub import constants

from petlbench.core.environment import file_digest
from petlbench.core.errors import InputError, RunError
from petlbench.models.hub import card_of_repository
from petlbench.models.registry import build_backbone, probe_backbone, resolve_backbone
from petlbench.models.weights import without_network
from tests.models.hub_server import Hub, serve

CPU = torch.device("cpu")
REPOSITORY, NAME, TOKEN = "clinic/eyes", "hf-hub:clinic/eyes", "hf_notForPrinting0123456789"
MEAN, STD = [0.53, 0.53, 0.53], [0.26, 0.26, 0.26]


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    folder = tmp_path / "hub" / REPOSITORY
    config = transformers.Dinov2Config(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=2, mlp_ratio=2, image_size=32, patch_size=8
    )
    torch.manual_seed(0)
    transformers.Dinov2Model(config).save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps({"image_mean": MEAN, "image_std": STD, "resample": 2}))
    with serve(Hub(tmp_path / "hub")) as served:
        monkeypatch.setattr(constants, "ENDPOINT", served.endpoint)
        template = served.endpoint + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        card_of_repository.cache_clear()
        yield served
        card_of_repository.cache_clear()


def test_a_repository_is_a_backbone(hub: Hub) -> None:
    assert resolve_backbone(f"hf_hub:{REPOSITORY}") == NAME
    assert hub.requests == []  # a name alone asks for nothing
    info = probe_backbone(NAME, 64)
    assert (info.blocks, info.width, info.heads, info.patch) == (2, 32, 2, 8)
    assert (info.mean, info.std, info.interpolation) == (tuple(MEAN), tuple(STD), "bilinear")
    assert "position table resized from 4 x 4 to 8 x 8" in build_backbone(NAME, 64, "default", CPU).weights


def test_what_was_fetched_serves_without_a_network(hub: Hub) -> None:
    (hub.folder / REPOSITORY / "preprocessor_config.json").unlink()
    first = build_backbone(NAME, 32, "default", CPU).digest()
    card_of_repository.cache_clear()
    asked = len(hub.requests)
    with without_network():
        assert build_backbone(NAME, 32, "default", CPU).digest() == first
    assert len(hub.requests) == asked


def test_a_card_is_asked_for_at_its_revision_and_checked(hub: Hub, tmp_path: Path) -> None:
    digest = file_digest(hub.folder / REPOSITORY / "model.safetensors")
    card = f'''
title = "Eyes"
source = {{ hub = "{REPOSITORY}", revision = "v2", file = "model.safetensors", sha256 = "{digest}" }}
preprocessing = {{ mean = {MEAN}, std = {STD} }}
[architecture]
timm = "vit_base_patch16_224"
img_size = 32
patch_size = 8
embed_dim = 32
depth = 2
num_heads = 2
mlp_ratio = 2.0
init_values = 1.0
'''
    (tmp_path / "eyes.toml").write_text(card)
    name = resolve_backbone(str(tmp_path / "eyes.toml"))
    assert "2 blocks" in build_backbone(name, 32, "default", CPU).weights
    assert {path.partition("/resolve/")[2] for path in hub.requests} == {"v2/model.safetensors"}
    (tmp_path / "eyes.toml").write_text(card.replace(digest, "0" * 64))
    with pytest.raises(InputError, match="SHA-256") as caught:
        build_backbone(name, 32, "default", CPU)
    assert caught.value.kind == "bad_weights"


@pytest.mark.parametrize("gated", [True, False])
def test_a_gate_is_answered_with_the_way_in(hub: Hub, gated: bool) -> None:
    name = REPOSITORY if gated else "clinic/nothing"
    hub.gated |= {REPOSITORY}
    with pytest.raises(InputError) as caught:
        probe_backbone(f"hf-hub:{name}")
    error = caught.value
    assert error.kind == "access_refused"
    assert "401" in error.message
    for words in (f"{hub.endpoint}/{name}", "hf auth login", "HF_TOKEN", str(constants.HF_TOKEN_PATH)):
        assert words in error.hint
    assert f"Bearer {TOKEN}" in hub.tokens  # it is sent to the hub, and shown nowhere
    assert TOKEN not in error.message + error.hint


def test_a_repository_of_another_kind_is_refused(hub: Hub) -> None:
    (hub.folder / REPOSITORY / "config.json").write_text(json.dumps({"model_type": "bert"}))
    with pytest.raises(InputError, match="'bert' model") as caught:
        probe_backbone(NAME)
    assert caught.value.kind == "unsupported_backbone"


def test_a_repository_without_weights_is_refused(hub: Hub) -> None:
    (hub.folder / REPOSITORY / "model.safetensors").unlink()
    with pytest.raises(InputError, match=r"no model\.safetensors") as caught:
        build_backbone(NAME, 32, "default", CPU)
    assert caught.value.kind == "no_weights"


def test_a_list_of_shards_cannot_lead_out_of_its_folder(hub: Hub) -> None:
    folder = hub.folder / REPOSITORY
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": "../../secret"}}))
    with pytest.raises(InputError) as caught:
        build_backbone(NAME, 32, "default", CPU)
    assert caught.value.kind == "path_outside"


@pytest.mark.slow  # the client tries again and again
def test_a_hub_that_is_not_there_is_no_fault_of_the_input(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", "http://127.0.0.1:9/{repo_id}/{revision}/{filename}")
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(RunError) as caught:
        probe_backbone(NAME)
    assert caught.value.kind == "weights_unavailable"
    assert "--weights FILE" in caught.value.hint


@pytest.mark.slow
def test_a_run_by_the_command_line(hub: Hub, tmp_path: Path) -> None:
    environment = {**os.environ, "HF_ENDPOINT": hub.endpoint, "HF_HOME": str(tmp_path / "home"), "HF_TOKEN": TOKEN}
    words = ["run", "--method", "linear", "--dataset", "digits", "--backbone", NAME, "--epochs", "1", "--device", "cpu"]
    words += ["--image-size", "32", "--tracking-uri", "none", "--output", str(tmp_path / "out"), "--json"]

    def call(*more: str) -> tuple[int, dict[str, Any], str]:
        line = [sys.executable, "-m", "petlbench", *words, *more]
        done = subprocess.run(line, env=environment, capture_output=True, text=True, check=False)
        return done.returncode, json.loads(done.stdout), done.stdout + done.stderr

    status, result, text = call()
    assert (status, result["status"], result["config"]["backbone"]) == (0, "finished", NAME)
    assert "layout of transformers' DINOv2" in text
    stored = b"".join(file.read_bytes() for file in (tmp_path / "out").rglob("*") if file.is_file())
    assert TOKEN not in text
    assert TOKEN.encode() not in stored
    hub.gated |= {REPOSITORY}
    environment["HF_HOME"] = str(tmp_path / "other")
    status, answer, text = call("--seed", "1")  # the first run is finished, and asks for nothing
    assert (status, answer["error"]["kind"]) == (2, "access_refused")
    assert TOKEN not in text

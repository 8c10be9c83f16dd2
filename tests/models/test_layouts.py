"""Every named layout: a model made by its own library, saved as that saves it, gives the same features when loaded."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor

from petlbench.cli.app import run_command
from petlbench.core.errors import InputError
from petlbench.models.backbone import Backbone
from petlbench.models.build import assemble
from petlbench.models.layouts import LAYOUTS
from petlbench.models.registry import build_backbone, resolve_backbone
from petlbench.run import build
from tests.models.layout_sources import SIZE, SMALL, SOURCES, Source, card, jax, model_of, source_of, stirred

CPU = torch.device("cpu")
Run = Callable[[Source], Backbone]


def images(size: int = SIZE) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(2, 3, size, size, generator=generator, dtype=torch.float64)


def loaded(name: Path | str, size: int = SIZE, weights: Path | str = "default") -> Backbone:
    backbone = build_backbone(resolve_backbone(str(name)), size, str(weights), CPU)
    backbone.module.eval().double()
    return backbone


def same(left: Tensor, right: Tensor) -> None:
    assert right.std() > 0.1
    torch.testing.assert_close(left, right, rtol=0, atol=1e-12)


def gives_the_same(backbone: Backbone, source: Source) -> None:
    """Whether the final feature and the last hidden state are the source's."""
    module: Any = backbone.module.eval().double()
    with torch.no_grad():
        pooled, last = source.features(images())
        same(backbone.pooled(images()), pooled)
        tokens = module.forward_features(images())
        if not source.is_normed:
            (*_, tokens) = backbone.states(images())
        same(tokens[:, 1:] if source.patches_only else tokens, last)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes of a few pictures."""
    folder, draw = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    for number in range(24):
        (folder / "ab"[number % 2]).mkdir(exist_ok=True)
        pixels = draw.integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / "ab"[number % 2] / f"{number}.png")
    return folder


@pytest.fixture
def run(pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """The command on a source: gives the backbone that the run built and learned on."""

    def call(source: Source) -> Backbone:
        backbones = []

        def watched(*arguments: Any, **named: Any) -> Any:
            assembled = assemble(*arguments, **named)
            backbones.append(assembled.backbone)
            return assembled

        monkeypatch.setattr(build, "assemble", watched)
        words = ["run", "--method", "linear", "--dataset", str(pictures), "--epochs", "1", "--normalize", "half"]
        words += ["--backbone", str(source.backbone), "--weights", str(source.weights), "--image-size", str(SIZE)]
        words += ["--device", "cpu", "--threads", "1", "--tracking-uri", "none"]
        assert run_command([*words, "--output", str(tmp_path / "out"), "--cache-dir", str(tmp_path / "cache")]) == 0
        (backbone,) = backbones
        return backbone

    return call


@pytest.mark.parametrize(("layout", "variant"), SOURCES)
def test_a_run_is_on_the_features_of_the_source(
    layout: str, variant: str, run: Run, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "source").mkdir()
    source = SOURCES[layout, variant](tmp_path / "source")
    backbone = run(source)
    gives_the_same(backbone, source)
    assert LAYOUTS[layout].title in backbone.weights
    assert source.said in backbone.weights
    assert backbone.weights in capfd.readouterr().err


def test_every_layout_has_a_source() -> None:
    assert {layout for layout, _ in SOURCES} == set(LAYOUTS)


@pytest.mark.parametrize("kind", ["siglip", "clip"])
def test_of_two_towers_the_images_one_is_taken(kind: str, tmp_path: Path) -> None:
    text = {**SMALL, "vocab_size": 16, "max_position_embeddings": 8, "projection_dim": 16}
    both = {"vision_config": SMALL, "text_config": {**text, "bos_token_id": 1, "eos_token_id": 2}}
    models = {"siglip": transformers.SiglipModel, "clip": transformers.CLIPModel}
    configs = {"siglip": transformers.SiglipConfig, "clip": transformers.CLIPConfig}
    source = stirred(models[kind](configs[kind](**both)))
    source.save_pretrained(tmp_path)
    backbone = loaded(tmp_path)
    with torch.no_grad():
        same(backbone.pooled(images()), source.double().vision_model(images()).pooler_output)
    assert "prefix vision_model." in backbone.weights
    assert "text_model" in backbone.weights


def test_a_recipe_of_a_card_does_what_no_layout_does(tmp_path: Path) -> None:
    file = card(tmp_path)
    model = model_of(file)
    state: dict[str, Tensor] = {}
    for key, tensor in model.state_dict().items():
        if ".attn.qkv." in key:
            for part, name in zip(tensor.chunk(3), ("wq", "wk", "wv"), strict=True):
                state[f"enc.{key.replace('qkv', name)}"] = part.contiguous()
        else:
            state[f"enc.{key.replace('blocks.', 'layers.')}"] = tensor
    torch.save({"weights": {**state, "enc.extra.w": torch.ones(1), "dec.w": torch.ones(1)}}, tmp_path / "w.pth")
    file.write_text(
        file.read_text()
        + '[keys]\ntake = "weights"\nstrip = ["enc."]\ndrop = ["extra."]\nlayout = "timm"\n'
        + 'rename = { "layers." = "blocks." }\nsplit_qkv = ["wq", "wk", "wv"]\n'
    )
    backbone = loaded(file, weights=tmp_path / "w.pth")
    gives_the_same(backbone, source_of(file, tmp_path / "w.pth", model))
    assert "left out: dec, extra" in backbone.weights


def test_shards_are_read_as_one_file(tmp_path: Path) -> None:
    source = stirred(transformers.ViTModel(transformers.ViTConfig(**SMALL)))
    source.save_pretrained(tmp_path, max_shard_size="20KB")
    assert len(list(tmp_path.glob("model-*.safetensors"))) > 1
    with torch.no_grad():
        same(loaded(tmp_path).pooled(images()), source.double()(images()).last_hidden_state[:, 0])


class TestWhatNoTensorShows:
    """Heads, activation, and what norms add to the variance, of a file under a name of timm's."""

    NAME = "test_vit"  # 2 heads, gelu, 1e-6

    def saved(self, folder: Path, heads: int = 2, **settings: Any) -> Any:
        """A model of transformers that has the tensors of timm's; its file and configuration lie in the folder."""
        small = {"hidden_size": 64, "intermediate_size": 192, "num_hidden_layers": 6, "num_attention_heads": heads}
        config = transformers.ViTConfig(**small, image_size=160, patch_size=16, **settings)
        model = stirred(transformers.ViTModel(config))
        model.save_pretrained(folder)
        return model

    def loaded_as(self, model: Any, file: Path) -> str:
        backbone = loaded(self.NAME, 160, file)
        with torch.no_grad():
            same(backbone.pooled(images(160)), model.double()(images(160)).last_hidden_state[:, 0])
        return backbone.weights

    def test_a_bare_files_layout_brings_its_norms_and_the_rest_is_said(self, tmp_path: Path) -> None:
        model = self.saved(tmp_path / "saved")
        save_file(load_file(tmp_path / "saved" / "model.safetensors"), tmp_path / "bare.safetensors")
        words = self.loaded_as(model, tmp_path / "bare.safetensors")
        assert "norm_eps is 1e-12, as transformers' ViT has it" in words
        assert "heads (2) and activation (gelu) as test_vit.r160_in1k has them: no tensor shows that" in words

    def test_a_configuration_beside_the_file_says_it(self, tmp_path: Path) -> None:
        words = self.loaded_as(self.saved(tmp_path, layer_norm_eps=1e-3), tmp_path / "model.safetensors")
        assert "norm_eps is 0.001, as the configuration beside it has it" in words
        assert "heads and activation as the configuration beside it says" in words

    @pytest.mark.parametrize(
        ("settings", "fault"),
        [
            ({"heads": 4}, "num_heads 4, for 2"),
            ({"hidden_act": "quick_gelu"}, "act_layer quick_gelu, for gelu"),
        ],
    )
    def test_one_that_says_something_else_is_refused(
        self, tmp_path: Path, settings: dict[str, Any], fault: str
    ) -> None:
        self.saved(tmp_path, **settings)
        with pytest.raises(InputError, match=fault) as caught:
            loaded(self.NAME, 160, tmp_path / "model.safetensors")
        assert f"--backbone {tmp_path}" in caught.value.hint

    def test_a_card_is_held_against_it(self, tmp_path: Path) -> None:
        self.saved(tmp_path, layer_norm_eps=1e-3)
        small = {"img_size": 160, "patch_size": 16, "embed_dim": 64, "depth": 6, "mlp_ratio": 3.0}
        assert "norm_eps is 0.001" in loaded(card(tmp_path, **small), 160, tmp_path / "model.safetensors").weights
        with pytest.raises(InputError, match="says norm_eps 0.001, for 1e-05"):
            loaded(card(tmp_path, **small, norm_eps=1e-5), 160, tmp_path / "model.safetensors")

    @pytest.mark.parametrize("text", ['{"lr": 0.1}', '{"model_type": "bert"}', '{"architecture": "none"}'])
    def test_a_configuration_of_something_else_says_nothing(self, tmp_path: Path, text: str) -> None:
        model = self.saved(tmp_path)
        (tmp_path / "config.json").write_text(text)
        assert "no tensor shows that" in self.loaded_as(model, tmp_path / "model.safetensors")

    def test_timms_own_configuration_is_read(self, tmp_path: Path) -> None:
        """Its weights of CLIP have an activation that the name without it does not."""
        self.saved(tmp_path)
        (tmp_path / "config.json").write_text('{"architecture": "vit_base_patch16_clip_quickgelu_224"}')
        with pytest.raises(InputError, match="act_layer quick_gelu, for gelu"):
            loaded(self.NAME, 160, tmp_path / "model.safetensors")

    def test_the_heads_that_arrays_of_jax_show_are_checked(self, tmp_path: Path) -> None:
        source = jax(tmp_path)
        with pytest.raises(InputError, match="2 attention heads, for 4"):
            loaded(card(tmp_path, num_heads=4), weights=source.weights)

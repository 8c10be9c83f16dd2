"""Backbone cards: what they may say, how a backbone is named, and the traps that published files hold."""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import pytest
import timm
import torch
import transformers
from torch import Tensor, nn

from petlbench.core.catalog import Catalog
from petlbench.core.environment import file_digest
from petlbench.core.errors import InputError
from petlbench.core.request import Request
from petlbench.models.card import Architecture, checked_card
from petlbench.models.registry import (
    build_backbone,
    create_module,
    find_backbone_card,
    probe_backbone,
    resolve_backbone,
)
from petlbench.run.resolve import resolve

CPU, META = torch.device("cpu"), torch.device("meta")
CATALOG = Catalog()
TINY = "vit_tiny_patch16_224"
CARD = """
title = "Small"
preprocessing = { mean = [0.1, 0.2, 0.3], std = [0.4, 0.5, 0.6], interpolation = "lanczos" }
[architecture]
timm = "vit_base_patch16_224"
img_size = 32
patch_size = 8
embed_dim = 32
depth = 2
num_heads = 2
"""


def refused(name: str | Path, weights: str | Path = "default", size: int = 224, **kind: str) -> InputError:
    with pytest.raises(InputError) as caught:
        build_backbone(resolve_backbone(str(name)), size, str(weights), CPU)
    assert caught.value.hint
    assert not kind or caught.value.kind == kind["kind"]
    return caught.value


def saved(folder: Path, content: object, name: str = "w.pth") -> Path:
    torch.save(content, folder / name)
    return folder / name


@pytest.fixture(scope="module")
def encoder() -> dict[str, Tensor]:
    torch.manual_seed(2)
    return timm.create_model(TINY, num_classes=0).state_dict()


class TestShipped:
    @pytest.mark.parametrize("name", CATALOG.entries("backbone"))
    def test_a_card_is_checked_and_says_what_a_reader_needs(self, name: str) -> None:
        entry = CATALOG.entries("backbone")[name]
        card = checked_card({"name": name, **entry.card}, entry.file)
        assert all((card.family, card.domain, card.licence, card.parameters))
        assert timm.is_model(card.timm.partition(".")[0])
        if timm.is_model(name.partition(".")[0]):  # timm's own: a line in a list, and no other model of that name
            assert resolve_backbone(name) == name
            assert (card.architecture, card.source.hub, card.preprocessing) == (Architecture(), "", None)
            cfg = timm.get_pretrained_cfg(name)
            assert cfg is not None
            assert cfg.license in (None, card.licence.lower().replace(" licence", "-license"))
        else:
            assert card.source.hub or card.home
            assert card.citation

    def test_there_are_the_ones_that_the_field_adapts(self) -> None:
        names = set(CATALOG.entries("backbone"))
        assert len(names) >= 60
        assert {"uni", "virchow2", "gigapath", "rad_dino", "biomedclip", "medsiglip_448", "panderm_large"} <= names

    @pytest.mark.slow
    @pytest.mark.parametrize("name", CATALOG.entries("backbone"))
    def test_it_has_the_parameters_that_it_says(self, name: str) -> None:
        info = probe_backbone(resolve_backbone(name, CATALOG), None, CATALOG)
        assert info.parameters == CATALOG.entries("backbone")[name].card["parameters"]

    def test_class_token_and_patches_make_a_wider_feature(self) -> None:
        info = probe_backbone("virchow2", 56)
        assert (info.width, info.feature_width, info.prefix_tokens) == (1280, 2560, 5)

    def test_that_feature_is_what_its_publisher_makes(self, tmp_path: Path) -> None:
        (tmp_path / "small.toml").write_text(CARD + 'global_pool = "token_and_avg"\nreg_tokens = 4\n')
        backbone = build_backbone(resolve_backbone(str(tmp_path / "small.toml")), 32, "none", CPU)
        backbone.module.eval()
        image = torch.randn(2, 3, 32, 32)
        with torch.no_grad():
            tokens = cast("Any", backbone.module).forward_features(image)
            expected = torch.cat([tokens[:, 0], tokens[:, 5:].mean(1)], dim=-1)
            torch.testing.assert_close(backbone.pooled(image), expected)
        assert backbone.info.feature_width == 64


class TestNames:
    @pytest.mark.parametrize(
        "name", [f"hf-hub:timm/{TINY}.augreg_in21k", f"hf_hub:timm/{TINY}.augreg_in21k", f"timm/{TINY}.augreg_in21k"]
    )
    def test_a_hub_name_of_timms_is_timms_own(self, name: str) -> None:
        assert resolve_backbone(name) == f"{TINY}.augreg_in21k"

    def test_a_repository_with_a_card_is_that_card(self) -> None:
        assert resolve_backbone("hf-hub:MahmoodLab/uni") == "uni"
        assert resolve_backbone("hf-hub:someone/else@v1") == "hf-hub:someone/else@v1"

    def test_a_bare_repository_is_answered_with_how_to_write_it(self) -> None:
        assert "hf-hub:someone/else" in refused("someone/else", kind="unknown_backbone").hint

    def test_a_path_is_made_absolute(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "small.toml").write_text(CARD)
        monkeypatch.chdir(tmp_path)
        assert resolve_backbone("small.toml") == str(tmp_path / "small.toml")
        assert resolve_backbone(f"local-dir:{tmp_path}") == str(tmp_path)

    @pytest.mark.parametrize("name", ["local-dir:nowhere", "nowhere.toml", "some/nowhere.toml"])
    def test_a_path_where_nothing_is_is_said(self, name: str) -> None:
        assert "no such folder or card" in refused(name, kind="unknown_backbone").hint

    def test_a_near_name_is_offered(self) -> None:
        assert "uni2_h" in refused("uni2h", kind="unknown_backbone").hint

    def test_a_users_card_is_found_in_the_catalogue(self, tmp_path: Path) -> None:
        (tmp_path / "backbones").mkdir()
        (tmp_path / "backbones" / "small.toml").write_text(CARD)
        catalog = Catalog([tmp_path])
        assert resolve_backbone("small", catalog) == "small"
        info = probe_backbone("small", 64, catalog)
        assert (info.blocks, info.width, info.patch, info.image_size, info.native_size) == (2, 32, 8, 64, 32)
        assert (info.mean, info.std, info.interpolation) == ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6), "lanczos")
        built = build_backbone("small", 32, "none", META, catalog)
        assert {tensor.device.type for tensor in built.module.parameters()} == {"meta"}

    def test_a_users_card_takes_no_name_of_timms(self, tmp_path: Path) -> None:
        (tmp_path / "backbones").mkdir()
        (tmp_path / "backbones" / f"{TINY}.toml").write_text(CARD)
        with pytest.raises(InputError) as caught:
            resolve_backbone(TINY, Catalog([tmp_path]))
        assert caught.value.kind == "duplicate_name"


class TestCard:
    @pytest.mark.parametrize(
        ("line", "fault"),
        [
            ("depths = 3", "unknown key 'architecture.depths'"),
            ('act_layer = "os.system"', "architecture.act_layer"),
            ("depth = 100000", "architecture.depth"),
            ("norm_eps = nan", "architecture.norm_eps"),
            ('[source]\nfile = "../../etc/passwd"', "source.file"),
            ('[source]\nhub = "https://a.b/c"', "source.hub"),
            ('[keys]\nlayout = "mine"', "keys.layout"),
        ],
    )
    def test_what_it_may_not_say_is_named(self, tmp_path: Path, line: str, fault: str) -> None:
        text = CARD.replace("depth = 2\n", "") if "depth =" in line else CARD
        (tmp_path / "small.toml").write_text(f"{text}\n{line}\n")
        error = refused(tmp_path / "small.toml", kind="bad_card")
        assert fault in error.message
        assert str(tmp_path / "small.toml") in error.message

    def test_an_architecture_that_timm_does_not_know_is_answered_with_the_nearest(self, tmp_path: Path) -> None:
        (tmp_path / "small.toml").write_text(CARD.replace("vit_base_patch16_224", "vit_bass_patch16_224"))
        assert "vit_base_patch16_224" in refused(tmp_path / "small.toml", kind="unknown_backbone").hint

    def test_weights_beside_it_are_read_and_checked(self, tmp_path: Path) -> None:
        file = tmp_path / "small.toml"
        file.write_text(CARD + '[source]\nfile = "w.pth"\n')
        name = resolve_backbone(str(file))
        torch.manual_seed(0)
        weights = saved(tmp_path, create_module(probe_backbone(name)).state_dict())
        assert "2 blocks" in build_backbone(name, 32, "default", CPU).weights
        file.write_text(CARD + f'[source]\nfile = "w.pth"\nsha256 = "{file_digest(weights)}"\n')
        assert "2 blocks" in build_backbone(name, 32, "default", CPU).weights
        file.write_text(CARD + f'[source]\nfile = "w.pth"\nsha256 = "{"0" * 64}"\n')
        assert "SHA-256" in refused(file, size=32, kind="bad_weights").message

    def test_without_a_place_of_the_weights_it_says_where_to_get_them(self) -> None:
        error = refused("gpfm", size=14, kind="no_weights")
        assert "https://github.com/birkhoffkiki/GPFM" in error.hint

    def test_what_no_tensor_shows_is_part_of_the_digest(self, tmp_path: Path) -> None:
        digests = set()
        for activation in ("gelu", "quick_gelu"):
            (tmp_path / "small.toml").write_text(f'{CARD}act_layer = "{activation}"\n')
            torch.manual_seed(0)
            digests.add(build_backbone(resolve_backbone(str(tmp_path / "small.toml")), 32, "none", CPU).digest())
        assert len(digests) == 2


class TestPreprocessing:
    def test_a_file_under_a_name_is_refused_with_the_choice(self, tmp_path: Path, encoder: dict[str, Tensor]) -> None:
        """As BiomedCLIP's, which fits a plain ViT and expects other images."""
        file = saved(tmp_path, {f"visual.trunk.{key}": tensor for key, tensor in encoder.items()})
        request = Request("linear", backbone=TINY, weights=str(file), image_size=32, device="cpu")
        with pytest.raises(InputError) as caught:
            resolve(request, CATALOG, tmp_path)
        assert caught.value.kind == "unknown_preprocessing"
        for word in ("backbone", "imagenet", "half", "clip", "none", "M,S", "card"):
            assert word in caught.value.hint

    @pytest.mark.parametrize(
        ("name", "mean", "std"),
        [
            ("backbone", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
            ("imagenet", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
            ("clip", (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)),
            ("none", (0, 0, 0), (1, 1, 1)),
            ("0.2,0.4", (0.2, 0.2, 0.2), (0.4, 0.4, 0.4)),
            ("0.1,0.2,0.3,0.4,0.5,0.6", (0.1, 0.2, 0.3), (0.4, 0.5, 0.6)),
        ],
    )
    def test_what_is_said_is_used(
        self, tmp_path: Path, encoder: dict[str, Tensor], name: str, mean: tuple[float, ...], std: tuple[float, ...]
    ) -> None:
        request = Request("linear", backbone=TINY, weights=str(saved(tmp_path, encoder)), image_size=32, normalize=name)
        used = resolve(request, CATALOG, tmp_path).normalization
        assert (used.mean, used.std) == (mean, std)

    @pytest.mark.parametrize("name", ["0.5", "0.5,0", "a,b", "0.1,0.2,0.3", "imagnet", "-1,1", "nan,1"])
    def test_what_is_no_mean_and_deviation_is_refused(self, tmp_path: Path, name: str) -> None:
        with pytest.raises(InputError) as caught:
            resolve(Request("linear", backbone=TINY, image_size=32, normalize=name), CATALOG, tmp_path)
        assert caught.value.kind == "bad_setting"

    def test_that_of_a_card_is_used(self, tmp_path: Path) -> None:
        used = resolve(Request("linear", backbone="biomedclip", image_size=32), CATALOG, tmp_path).normalization
        assert used.mean == (0.48145466, 0.4578275, 0.40821073)

    def test_a_card_that_does_not_say_it_is_refused_but_for_random_weights(self, tmp_path: Path) -> None:
        request = Request("linear", backbone="conch", image_size=32)
        with pytest.raises(InputError) as caught:
            resolve(request, CATALOG, tmp_path)
        assert caught.value.kind == "unknown_preprocessing"
        random = Request("linear", backbone="conch", image_size=32, weights="random")
        assert resolve(random, CATALOG, tmp_path).config.normalize == "half"

    def test_a_plain_names_run_is_called_as_before(self, tmp_path: Path) -> None:
        plain = {"backbone": TINY, "image_size": 32, "device": "cpu", "threads": 1}
        default, said = Request("linear", **plain), Request("linear", **plain, normalize="backbone")
        names = [resolve(request, CATALOG, tmp_path).config.run_id for request in (default, said)]
        assert names[0] == names[1]


@dataclass
class _Unknown:
    """A class of a training script."""

    rate: float = 0.1


class TestTraps:
    def test_another_patch_is_refused_and_never_resampled(self, tmp_path: Path) -> None:
        """As Prov-GigaPath's, whose patch is of 16 pixels, under the name of patches of 14."""
        (tmp_path / "sixteen.toml").write_text(CARD.replace("patch_size = 8", "patch_size = 16"))
        (tmp_path / "fourteen.toml").write_text(CARD.replace("patch_size = 8", "patch_size = 14"))
        torch.manual_seed(0)
        source = create_module(probe_backbone(resolve_backbone(str(tmp_path / "sixteen.toml"))))
        error = refused(tmp_path / "fourteen.toml", saved(tmp_path, source.state_dict()), 28, kind="bad_weights")
        assert "a patch of 16 x 16 pixels, for 14 x 14" in error.message

    def test_another_width_and_more_blocks_are_named(self, tmp_path: Path) -> None:
        torch.manual_seed(0)
        state = timm.create_model("vit_small_patch16_224", num_classes=0).state_dict()
        assert "tokens of 384 channels, for 192" in refused(TINY, saved(tmp_path, state), 32).message
        (tmp_path / "small.toml").write_text(CARD)
        deep = create_module(probe_backbone(resolve_backbone(str(tmp_path / "small.toml")))).state_dict()
        (tmp_path / "small.toml").write_text(CARD.replace("depth = 2", "depth = 1"))
        assert "2 blocks, for 1" in refused(tmp_path / "small.toml", saved(tmp_path, deep), 32).message

    def test_layer_scale_loads_where_the_card_says_so_and_is_refused_elsewhere(self, tmp_path: Path) -> None:
        """As UNI's."""
        (tmp_path / "scaled.toml").write_text(CARD + "init_values = 1e-5\n")
        (tmp_path / "plain.toml").write_text(CARD)
        source = create_module(probe_backbone(resolve_backbone(str(tmp_path / "scaled.toml"))))
        nn.init.normal_(source.get_parameter("blocks.0.ls1.gamma"))
        file = saved(tmp_path, source.state_dict())
        loaded = build_backbone(resolve_backbone(str(tmp_path / "scaled.toml")), 32, str(file), CPU)
        assert torch.equal(loaded.module.state_dict()["blocks.0.ls1.gamma"], source.state_dict()["blocks.0.ls1.gamma"])
        assert "unexpected blocks.0.ls1.gamma" in refused(tmp_path / "plain.toml", file, 32).message

    def test_a_whole_checkpoint_of_a_mae_says_what_is_left_out(
        self, tmp_path: Path, encoder: dict[str, Tensor]
    ) -> None:
        """As RETFound's: decoder, mask token, optimiser and a Namespace."""
        decoder = {"mask_token": torch.zeros(1, 1, 8), "decoder_blocks.0.norm1.weight": torch.ones(8)}
        args = argparse.Namespace(model="mae_vit", lr=1e-3, nested={"a": [1, 2]})
        content = {"model": {**encoder, **decoder}, "optimizer": {"state": {}}, "epoch": 9, "args": args}
        backbone = build_backbone(resolve_backbone(TINY), 224, str(saved(tmp_path, content)), CPU)
        assert all(torch.equal(backbone.module.state_dict()[key], tensor) for key, tensor in encoder.items())
        assert backbone.weights == (
            "w.pth: weights in the layout of MAE, 12 blocks; "
            "left out: optimizer, epoch, args, mask_token, decoder_blocks; "
            f"heads (3) and activation (gelu) as {resolve_backbone(TINY)} has them: no tensor shows that"
        )

    def test_another_class_in_a_file_is_refused_with_the_line_that_saves_it_again(
        self, tmp_path: Path, encoder: dict[str, Tensor]
    ) -> None:
        error = refused(TINY, saved(tmp_path, {"model": encoder, "args": _Unknown()}), 32, kind="bad_weights")
        assert "torch.save(" in error.hint
        assert "runs no code" in error.hint

    def test_norms_behind_the_pooling_bring_their_pooling(self, tmp_path: Path, encoder: dict[str, Tensor]) -> None:
        """As a fine-tuned RETFound's."""
        torch.manual_seed(1)
        source: Any = timm.create_model(TINY, num_classes=5, global_pool="avg").eval()
        file = saved(tmp_path, {"model": source.state_dict()})
        backbone = build_backbone(resolve_backbone(TINY), 224, str(file), CPU)
        backbone.module.eval()
        image = torch.randn(1, 3, 224, 224)
        with torch.no_grad():
            expected = source.forward_head(source.forward_features(image), pre_logits=True)
            torch.testing.assert_close(backbone.pooled(image), expected)
        assert "global_pool is avg, as the file has it" in backbone.weights
        again = create_module(backbone.info)
        assert set(again.state_dict()) == set(backbone.module.state_dict())

    def test_of_two_equal_encoders_none_is_guessed(self, tmp_path: Path, encoder: dict[str, Tensor]) -> None:
        state = {f"{side}.{key}": tensor for side in ("left", "right") for key, tensor in encoder.items()}
        error = refused(TINY, saved(tmp_path, state), kind="bad_weights")
        assert "left. and right." in error.message
        assert "keys.strip" in error.hint

    def test_a_folder_of_another_kind_is_refused_by_name(self, tmp_path: Path) -> None:
        (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}))
        assert "'bert'" in refused(tmp_path, kind="unsupported_backbone").message

    @pytest.mark.parametrize("text", ["{", "[]", '{"model_type": "vit"}', '{"model_type": "vit", "hidden_size": "x"}'])
    def test_a_damaged_configuration_is_named(self, tmp_path: Path, text: str) -> None:
        (tmp_path / "config.json").write_text(text)
        assert refused(tmp_path).kind in ("damaged_file", "bad_card")

    def test_a_timm_configuration_cannot_ask_for_any_argument(self, tmp_path: Path) -> None:
        arguments = {"weight_init": "", "block_fn": "os.system"}
        (tmp_path / "config.json").write_text(json.dumps({"architecture": TINY, "model_args": arguments}))
        assert "architecture.block_fn" in refused(tmp_path, kind="bad_card").message

    def test_a_folder_that_timm_saved_is_a_backbone(self, tmp_path: Path, encoder: dict[str, Tensor]) -> None:
        cfg = {"mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6], "input_size": [3, 224, 224], "num_classes": 0}
        (tmp_path / "config.json").write_text(json.dumps({"architecture": TINY, "pretrained_cfg": cfg}))
        saved(tmp_path, encoder, "pytorch_model.bin")
        name = resolve_backbone(str(tmp_path))
        assert probe_backbone(name).mean == (0.1, 0.2, 0.3)
        assert "12 blocks" in build_backbone(name, 224, "default", CPU).weights

    def test_a_list_of_shards_that_lacks_one_is_refused(self, tmp_path: Path) -> None:
        small = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
        config = transformers.ViTConfig(**small, image_size=32)
        transformers.ViTModel(config).save_pretrained(tmp_path, max_shard_size="20KB")
        next(iter(sorted(tmp_path.glob("model-*.safetensors")))).unlink()
        assert refused(tmp_path, size=32, kind="no_weights")

    def test_the_card_of_a_repository_is_its_own(self) -> None:
        card = find_backbone_card("gigapath")
        assert card is not None
        assert card.architecture.patch_size == 16
        assert card.source.gated

"""Every named layout: a model made by its own library, saved as that saves it, gives the same features when loaded."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import petlbench as pb
from petlbench.cli.app import run_command
from petlbench.models.backbone import Backbone
from petlbench.models.layouts import LAYOUTS, recognise
from petlbench.models.registry import build_backbone, create_module, probe_backbone, resolve_backbone
from petlbench.results.result import iter_results

CPU = torch.device("cpu")
SIZE = 32
SMALL: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 80,
    "image_size": SIZE,
    "patch_size": 8,
}
DINO = {**SMALL, "mlp_ratio": 2, "layerscale_value": 0.3}
Case = tuple[str, Callable[[], Any]]
TRANSFORMERS: dict[str, Case] = {
    "vit": ("hf_vit", lambda: transformers.ViTModel(transformers.ViTConfig(**SMALL))),
    "vit_without_biases": (
        "hf_vit",
        lambda: transformers.ViTModel(transformers.ViTConfig(**SMALL, qkv_bias=False, hidden_act="gelu_new")),
    ),
    "dinov2": ("hf_dinov2", lambda: transformers.Dinov2Model(transformers.Dinov2Config(**DINO))),
    "dinov2_swiglu": (
        "hf_dinov2",
        lambda: transformers.Dinov2Model(transformers.Dinov2Config(**DINO, use_swiglu_ffn=True)),
    ),
    "dinov2_with_registers": (
        "hf_dinov2_with_registers",
        lambda: transformers.Dinov2WithRegistersModel(transformers.Dinov2WithRegistersConfig(**DINO)),
    ),
    "siglip": (
        "hf_siglip_vision",
        lambda: transformers.SiglipVisionModel(transformers.SiglipVisionConfig(**SMALL)),
    ),
    "clip": ("hf_clip_vision", lambda: transformers.CLIPVisionModel(transformers.CLIPVisionConfig(**SMALL))),
}


def stirred(model: Any) -> Any:
    """The model in evaluation mode, no tensor of it trivial."""
    torch.manual_seed(5)
    with torch.no_grad():
        for tensor in model.parameters():
            tensor.add_(torch.randn_like(tensor) * 0.1)
    return model.eval()


def images(size: int = SIZE) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(2, 3, size, size, generator=generator, dtype=torch.float64)


def loaded(name: Path | str, size: int = SIZE, weights: str = "default") -> Backbone:
    backbone = build_backbone(resolve_backbone(str(name)), size, weights, CPU)
    backbone.module.eval().double()
    return backbone


def same(left: Tensor, right: Tensor) -> None:
    assert right.std() > 0.1
    torch.testing.assert_close(left, right, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", TRANSFORMERS)
def test_a_folder_of_transformers_gives_its_features(name: str, tmp_path: Path) -> None:
    layout, make = TRANSFORMERS[name]
    source = stirred(make())
    source.save_pretrained(tmp_path)
    assert recognise(load_file(tmp_path / "model.safetensors")) == layout
    backbone = loaded(tmp_path)
    with torch.no_grad():
        output = source.double()(images())
        pooled = output.last_hidden_state[:, 0] if layout == "hf_vit" else output.pooler_output
        same(backbone.pooled(images()), pooled)
        (*_, last) = backbone.states(images())
        # CLIP's last state is not normed, that of the others is.
        same(last if layout == "hf_clip_vision" else backbone.module.norm(last), output.last_hidden_state)
    assert LAYOUTS[layout].title in backbone.weights


@pytest.mark.slow
@pytest.mark.parametrize("name", TRANSFORMERS)
def test_a_run_of_the_command_line_is_on_those_features(name: str, tmp_path: Path) -> None:
    layout, make = TRANSFORMERS[name]
    source = stirred(make())
    source.save_pretrained(tmp_path / "backbone")
    results = tmp_path / "results"
    run = ["run", "--method", "linear", "--dataset", "digits", "--shots", "1", "--epochs", "1", "--normalize", "half"]
    run += ["--backbone", str(tmp_path / "backbone"), "--image-size", str(SIZE), "--tracking-uri", "none"]
    run += ["--output", str(results), "--cache-dir", str(tmp_path / "cache")]
    assert run_command(run) == 0
    (result,) = iter_results(results)
    backbone = pb.load(result.run_id, results=results).assembled.backbone
    backbone.module.double()
    with torch.no_grad():
        output = source.double()(images())
        same(backbone.pooled(images()), output.last_hidden_state[:, 0] if layout == "hf_vit" else output.pooler_output)
    assert result.metrics["test"]["auc"] is not None


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


@pytest.mark.parametrize("quick", [False, True])
def test_a_model_of_open_clip_gives_its_features(quick: bool, tmp_path: Path) -> None:
    vision = {"image_size": SIZE, "layers": 2, "width": 64, "head_width": 32, "patch_size": 8}
    text = {"context_length": 8, "vocab_size": 16, "width": 32, "heads": 2, "layers": 1}
    config = {"embed_dim": 16, "vision_cfg": vision, "text_cfg": text, "quick_gelu": quick}
    source = stirred(open_clip.CLIP(**config))
    torch.save(source.state_dict(), tmp_path / "open_clip_pytorch_model.bin")
    (tmp_path / "open_clip_config.json").write_text(json.dumps({"model_cfg": config}))
    backbone = loaded(tmp_path)
    tower = source.double().visual
    tower.proj, tower.output_tokens = None, True
    with torch.no_grad():
        pooled, tokens = tower(images())
        same(backbone.pooled(images()), pooled)
        (*_, last) = backbone.states(images())
        same(backbone.module.norm(last)[:, 1:], tokens)
    assert "layout of open_clip, prefix visual., 2 blocks" in backbone.weights


def card(folder: Path, **architecture: Any) -> Path:
    """A card of a small vision transformer."""
    small = {"timm": "vit_base_patch16_224", "img_size": SIZE, "patch_size": 8, "embed_dim": 32, "depth": 2}
    small |= {"num_heads": 2, **architecture}
    words = {True: "true", False: "false"}
    lines = [
        f"{name} = {words[value] if isinstance(value, bool) else json.dumps(value)}" for name, value in small.items()
    ]
    file = folder / "small.toml"
    file.write_text('title = "Small"\n[architecture]\n' + "\n".join(lines) + "\n")
    return file


def source_of(file: Path) -> nn.Module:
    module = create_module(probe_backbone(resolve_backbone(str(file))))
    return stirred(module)


def features(module: Any) -> tuple[Tensor, Tensor]:
    with torch.no_grad():
        tokens = module.double().forward_features(images())
        return module.forward_head(tokens, pre_logits=True), tokens


def gives_the_same(file: Path, weights: Path, source: nn.Module) -> Backbone:
    backbone = loaded(file, weights=str(weights))
    for ours, theirs in zip(features(backbone.module), features(source), strict=True):
        same(ours, theirs)
    return backbone


def test_the_teacher_of_dino_is_taken(tmp_path: Path) -> None:
    file = card(tmp_path)
    source = source_of(file)
    head = {"head.mlp.0.weight": torch.ones(8, 32), "head.last_layer.weight_g": torch.ones(4, 1)}
    student = {f"module.backbone.{key}": torch.zeros_like(value) for key, value in source.state_dict().items()}
    teacher = {f"backbone.{key}": value for key, value in source.state_dict().items()}
    torch.save({"student": student, "teacher": {**teacher, **head}, "epoch": 9}, tmp_path / "w.pth")
    backbone = gives_the_same(file, tmp_path / "w.pth", source)
    assert backbone.weights == (
        "w.pth: teacher of a DINO training, prefix backbone., 2 blocks; left out: student, epoch, head"
    )


@pytest.mark.parametrize("mlp", ["mlp", "swiglu_packed"])
@pytest.mark.parametrize("registers", [0, 4])
def test_a_training_of_dinov2_is_read(tmp_path: Path, mlp: str, registers: int) -> None:
    file = card(tmp_path, init_values=0.5, mlp_layer=mlp, reg_tokens=registers, mlp_ratio=4.0)
    source: Any = source_of(file)
    with torch.no_grad():
        source.pos_embed[:, 1 : 1 + registers] = 0  # its authors give registers no position
    state = source.state_dict()
    if registers:
        state["register_tokens"] = state.pop("reg_token")
        state["pos_embed"] = torch.cat([state["pos_embed"][:, :1], state["pos_embed"][:, 1 + registers :]], dim=1)
    if mlp == "swiglu_packed":
        state = {
            key.replace("mlp.fc1", "mlp.w12").replace("mlp.fc2", "mlp.w3"): tensor for key, tensor in state.items()
        }
    state = {re.sub(r"^blocks\.(\d)", r"blocks.0.\1", key): tensor for key, tensor in state.items()}
    teacher = {f"backbone.{key}": tensor for key, tensor in state.items()}
    heads = {f"{name}.mlp.0.weight": torch.ones(2, 32) for name in ("dino_head", "ibot_head")}
    torch.save({"teacher": {**teacher, "backbone.mask_token": torch.zeros(1, 32), **heads}}, tmp_path / "w.pth")
    backbone = gives_the_same(file, tmp_path / "w.pth", source)
    assert (
        "teacher of a DINOv2 training, prefix backbone., 2 blocks; left out: dino_head, ibot_head" in backbone.weights
    )


def test_the_encoder_of_a_mae_is_taken(tmp_path: Path) -> None:
    file = card(tmp_path)
    source = source_of(file)
    decoder = {"mask_token": torch.zeros(1, 1, 8), "decoder_pos_embed": torch.zeros(1, 17, 8)}
    decoder |= {"decoder_blocks.0.norm1.weight": torch.ones(8), "decoder_pred.weight": torch.ones(4, 8)}
    torch.save({"model": {**source.state_dict(), **decoder}}, tmp_path / "w.pth")
    backbone = gives_the_same(file, tmp_path / "w.pth", source)
    assert "layout of MAE, 2 blocks" in backbone.weights
    assert all(name in backbone.weights for name in ("mask_token", "decoder_blocks", "decoder_pred"))


@pytest.mark.parametrize("absolute", [False, True])
def test_beit_is_read_with_its_biases_and_positions(tmp_path: Path, absolute: bool) -> None:
    file = card(
        tmp_path,
        timm="beit_base_patch16_224",
        use_abs_pos_emb=absolute,
        use_rel_pos_bias=not absolute,
        init_values=0.1,
        global_pool="token",
    )
    source = source_of(file)
    state = {f"encoder.{key}": tensor for key, tensor in source.state_dict().items()}
    state |= {"encoder.mask_token": torch.zeros(1, 1, 32), "encoder.lm_head.weight": torch.zeros(4, 32)}
    state["encoder.blocks.0.attn.relative_position_index"] = torch.zeros(17, 17, dtype=torch.int64)
    torch.save({"state_dict": state}, tmp_path / "w.pth")
    backbone = gives_the_same(file, tmp_path / "w.pth", source)
    assert "layout of BEiT, prefix encoder." in backbone.weights


def test_arrays_of_jax_are_read(tmp_path: Path) -> None:
    file = card(tmp_path)
    source = source_of(file)
    state = {key: tensor.numpy() for key, tensor in source.state_dict().items()}
    arrays = {"cls": state["cls_token"], "Transformer/posembed_input/pos_embedding": state["pos_embed"]}
    arrays |= {"embedding/kernel": state["patch_embed.proj.weight"].transpose(2, 3, 1, 0)}
    arrays |= {"embedding/bias": state["patch_embed.proj.bias"], "head/kernel": np.zeros((32, 3), "f4")}
    arrays |= {f"Transformer/encoder_norm/{ours}": state[f"norm.{theirs}"] for ours, theirs in NORM.items()}
    for block in range(2):
        arrays |= _jax_block(
            f"Transformer/encoderblock_{block}/",
            {key.removeprefix(f"blocks.{block}."): value for key, value in state.items() if f"blocks.{block}." in key},
        )
    np.savez(tmp_path / "w.npz", **arrays)
    backbone = gives_the_same(file, tmp_path / "w.npz", source)
    assert "layout of JAX, 2 blocks; left out: head" in backbone.weights


NORM = {"scale": "weight", "bias": "bias"}


def _jax_block(place: str, state: dict[str, Any]) -> dict[str, Any]:
    arrays = {}
    for number, name in ((0, "norm1"), (2, "norm2")):
        arrays |= {f"{place}LayerNorm_{number}/{ours}": state[f"{name}.{theirs}"] for ours, theirs in NORM.items()}
    attention = f"{place}MultiHeadDotProductAttention_1/"
    weights, biases = state["attn.qkv.weight"].reshape(3, 32, 32), state["attn.qkv.bias"].reshape(3, 32)
    for part, name in enumerate(("query", "key", "value")):
        arrays[f"{attention}{name}/kernel"] = weights[part].T.reshape(32, 2, 16)
        arrays[f"{attention}{name}/bias"] = biases[part].reshape(2, 16)
    arrays[f"{attention}out/kernel"] = state["attn.proj.weight"].T.reshape(2, 16, 32)
    arrays[f"{attention}out/bias"] = state["attn.proj.bias"]
    for number, name in ((0, "fc1"), (1, "fc2")):
        arrays[f"{place}MlpBlock_3/Dense_{number}/kernel"] = state[f"mlp.{name}.weight"].T
        arrays[f"{place}MlpBlock_3/Dense_{number}/bias"] = state[f"mlp.{name}.bias"]
    return arrays


def test_a_recipe_of_a_card_does_what_no_layout_does(tmp_path: Path) -> None:
    file = card(tmp_path)
    source = source_of(file)
    state: dict[str, Tensor] = {}
    for key, tensor in source.state_dict().items():
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
    backbone = gives_the_same(file, tmp_path / "w.pth", source)
    assert "left out: dec, extra" in backbone.weights


def test_shards_are_read_as_one_file(tmp_path: Path) -> None:
    source = stirred(transformers.ViTModel(transformers.ViTConfig(**SMALL)))
    source.save_pretrained(tmp_path, max_shard_size="20KB")
    assert len(list(tmp_path.glob("model-*.safetensors"))) > 1
    with torch.no_grad():
        same(loaded(tmp_path).pooled(images()), source.double()(images()).last_hidden_state[:, 0])


def test_a_bare_file_of_transformers_brings_its_norms(tmp_path: Path) -> None:
    """What their norms add to the variance is another number than timm's, and stands in no tensor."""
    config = transformers.ViTConfig(**{**SMALL, "hidden_size": 64, "intermediate_size": 192, "num_hidden_layers": 6})
    config.image_size, config.patch_size, config.num_attention_heads = 160, 16, 2
    source = stirred(transformers.ViTModel(config))
    source.save_pretrained(tmp_path / "saved")
    save_file(load_file(tmp_path / "saved" / "model.safetensors"), tmp_path / "bare.safetensors")
    backbone = loaded("test_vit", 160, str(tmp_path / "bare.safetensors"))
    assert "norm_eps is 1e-12, as the file has it" in backbone.weights
    with torch.no_grad():
        same(backbone.pooled(images(160)), source.double()(images(160)).last_hidden_state[:, 0])

"""A small model for every named layout, made by its own library, saved as that saves it, with the features it gives."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch
import transformers
from torch import Tensor, nn

from petlbench.models.registry import create_module, probe_backbone, resolve_backbone

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
Features = Callable[[Tensor], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Source:
    """A saved model.

    Args:
        backbone: What ``--backbone`` is given.
        weights: What ``--weights`` is given.
        features: The final feature (B, D) and the last hidden state (B, N, D) of images, in float64.
        said: What a run has to say of the file.
        is_normed: Whether the last hidden state comes behind the final norm.
        patches_only: Whether the last hidden state is without the class token.
    """

    backbone: Path
    weights: Path
    features: Features
    said: str
    is_normed: bool = True
    patches_only: bool = False


def stirred(model: Any) -> Any:
    """The model in evaluation mode, no tensor of it trivial."""
    torch.manual_seed(5)
    with torch.no_grad():
        for tensor in model.parameters():
            tensor.add_(torch.randn_like(tensor) * 0.1)
    return model.eval()


def _transformers(kind: str, title: str, folder: Path, **settings: Any) -> Source:
    """A model of transformers; those of two towers have the image's alone."""
    config = getattr(transformers, f"{kind}Config")(**settings)
    model = stirred(getattr(transformers, f"{kind}Model")(config))
    model.save_pretrained(folder)

    def features(images: Tensor) -> tuple[Tensor, Tensor]:
        output = model.double()(images)
        last = output.last_hidden_state
        return (last[:, 0] if kind == "ViT" else output.pooler_output), last  # ViT's pooler is no part of its encoder

    said = f"model.safetensors: weights in the layout of transformers' {title}, 2 blocks"
    return Source(folder, folder / "model.safetensors", features, said)


def _clip(folder: Path) -> Source:
    return replace(_transformers("CLIPVision", "CLIP", folder, **SMALL), is_normed=False)


def _open_clip(folder: Path, quick_gelu: bool) -> Source:
    vision = {"image_size": SIZE, "layers": 2, "width": 64, "head_width": 32, "patch_size": 8}
    text = {"context_length": 8, "vocab_size": 16, "width": 32, "heads": 2, "layers": 1}
    config = {"embed_dim": 16, "vision_cfg": vision, "text_cfg": text, "quick_gelu": quick_gelu}
    model = stirred(open_clip.CLIP(**config))
    file = folder / "open_clip_pytorch_model.bin"
    torch.save(model.state_dict(), file)
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config}))

    def features(images: Tensor) -> tuple[Tensor, Tensor]:
        tower = model.double().visual
        tower.proj, tower.output_tokens = None, True
        pooled, tokens = tower(images)
        return pooled, tokens

    return Source(folder, file, features, "layout of open_clip, prefix visual., 2 blocks", patches_only=True)


def card(folder: Path, **architecture: Any) -> Path:
    """A card of a small vision transformer."""
    small = {"timm": "vit_base_patch16_224", "img_size": SIZE, "patch_size": 8, "embed_dim": 32, "depth": 2}
    lines = [f"{name} = {json.dumps(value)}" for name, value in {**small, "num_heads": 2, **architecture}.items()]
    file = folder / "small.toml"
    file.write_text('title = "Small"\n[architecture]\n' + "\n".join(lines) + "\n")
    return file


def model_of(file: Path) -> nn.Module:
    """timm's model of a card."""
    return stirred(create_module(probe_backbone(resolve_backbone(str(file)))))


def source_of(file: Path, weights: Path, model: Any, said: str = "") -> Source:
    """A model of timm's, of which a card and a file of weights tell."""

    def features(images: Tensor) -> tuple[Tensor, Tensor]:
        tokens = model.double().forward_features(images)
        return model.forward_head(tokens, pre_logits=True), tokens

    return Source(file, weights, features, said)


def _saved(file: Path, content: object, model: nn.Module, said: str) -> Source:
    weights = file.with_name("w.pth")
    torch.save(content, weights)
    return source_of(file, weights, model, f"w.pth: {said}")


def _timm(folder: Path) -> Source:
    file = card(folder)
    model = model_of(file)
    state = {f"model.{key}": tensor for key, tensor in model.state_dict().items()}
    return _saved(file, {"state_dict": state}, model, "weights in the layout of timm, prefix model., 2 blocks")


def _dino(folder: Path) -> Source:
    file = card(folder)
    model = model_of(file)
    head = {"head.mlp.0.weight": torch.ones(8, 32), "head.last_layer.weight_g": torch.ones(4, 1)}
    student = {f"module.backbone.{key}": torch.zeros_like(value) for key, value in model.state_dict().items()}
    teacher = {f"backbone.{key}": value for key, value in model.state_dict().items()}
    said = "teacher of a DINO training, prefix backbone., 2 blocks; left out: student, epoch, head"
    return _saved(file, {"student": student, "teacher": {**teacher, **head}, "epoch": 9}, model, said)


def _dinov2(folder: Path, mlp: str, registers: int) -> Source:
    file = card(folder, init_values=0.5, mlp_layer=mlp, reg_tokens=registers, mlp_ratio=4.0)
    model: Any = model_of(file)
    with torch.no_grad():
        model.pos_embed[:, 1 : 1 + registers] = 0  # its authors give registers no position
    state = model.state_dict()
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
    said = "teacher of a DINOv2 training, prefix backbone., 2 blocks; left out: dino_head, ibot_head"
    return _saved(file, {"teacher": {**teacher, "backbone.mask_token": torch.zeros(1, 32), **heads}}, model, said)


def _mae(folder: Path) -> Source:
    file = card(folder)
    model = model_of(file)
    decoder = {"mask_token": torch.zeros(1, 1, 8), "decoder_pos_embed": torch.zeros(1, 17, 8)}
    decoder |= {"decoder_blocks.0.norm1.weight": torch.ones(8), "decoder_pred.weight": torch.ones(4, 8)}
    said = "weights in the layout of MAE, 2 blocks; "
    said += "left out: mask_token, decoder_pos_embed, decoder_blocks, decoder_pred"
    return _saved(file, {"model": {**model.state_dict(), **decoder}}, model, said)


def _beit(folder: Path, absolute: bool) -> Source:
    positions = {"use_abs_pos_emb": absolute, "use_rel_pos_bias": not absolute}
    file = card(folder, timm="beit_base_patch16_224", init_values=0.1, global_pool="token", **positions)
    model = model_of(file)
    state = {f"encoder.{key}": tensor for key, tensor in model.state_dict().items()}
    state |= {"encoder.mask_token": torch.zeros(1, 1, 32), "encoder.lm_head.weight": torch.zeros(4, 32)}
    state["encoder.blocks.0.attn.relative_position_index"] = torch.zeros(17, 17, dtype=torch.int64)
    return _saved(file, {"state_dict": state}, model, "weights in the layout of BEiT, prefix encoder., 2 blocks")


def jax(folder: Path) -> Source:
    """Arrays as the ViT authors' JAX writes them."""
    file = card(folder)
    model = model_of(file)
    state = {key: tensor.numpy() for key, tensor in model.state_dict().items()}
    arrays = {"cls": state["cls_token"], "Transformer/posembed_input/pos_embedding": state["pos_embed"]}
    arrays |= {"embedding/kernel": state["patch_embed.proj.weight"].transpose(2, 3, 1, 0)}
    arrays |= {"embedding/bias": state["patch_embed.proj.bias"], "head/kernel": np.zeros((32, 3), "f4")}
    arrays |= {f"Transformer/encoder_norm/{ours}": state[f"norm.{theirs}"] for ours, theirs in _NORM.items()}
    for block in range(2):
        arrays |= _jax_block(
            f"Transformer/encoderblock_{block}/",
            {key.removeprefix(f"blocks.{block}."): value for key, value in state.items() if f"blocks.{block}." in key},
        )
    np.savez(folder / "w.npz", **arrays)
    said = "w.npz: weights in the layout of JAX, 2 blocks; left out: head"
    return source_of(file, folder / "w.npz", model, said)


_NORM = {"scale": "weight", "bias": "bias"}


def _jax_block(place: str, state: dict[str, Any]) -> dict[str, Any]:
    arrays = {}
    for number, name in ((0, "norm1"), (2, "norm2")):
        arrays |= {f"{place}LayerNorm_{number}/{ours}": state[f"{name}.{theirs}"] for ours, theirs in _NORM.items()}
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


SOURCES: dict[tuple[str, str], Callable[[Path], Source]] = {
    ("hf_vit", "plain"): partial(_transformers, "ViT", "ViT", **SMALL),
    ("hf_vit", "without_biases"): partial(
        _transformers, "ViT", "ViT", **SMALL, qkv_bias=False, hidden_act="gelu_new", layer_norm_eps=1e-3
    ),
    ("hf_dinov2", "plain"): partial(_transformers, "Dinov2", "DINOv2", **DINO),
    ("hf_dinov2", "swiglu"): partial(_transformers, "Dinov2", "DINOv2", **DINO, use_swiglu_ffn=True),
    ("hf_dinov2_with_registers", "plain"): partial(
        _transformers, "Dinov2WithRegisters", "DINOv2 with registers", **DINO
    ),
    ("hf_siglip_vision", "plain"): partial(_transformers, "SiglipVision", "SigLIP", **SMALL),
    ("hf_clip_vision", "plain"): _clip,
    ("open_clip", "plain"): partial(_open_clip, quick_gelu=False),
    ("open_clip", "quick_gelu"): partial(_open_clip, quick_gelu=True),
    ("timm", "plain"): _timm,
    ("dino", "plain"): _dino,
    ("dinov2", "plain"): partial(_dinov2, mlp="mlp", registers=0),
    ("dinov2", "swiglu_and_registers"): partial(_dinov2, mlp="swiglu_packed", registers=4),
    ("mae", "plain"): _mae,
    ("beit", "relative"): partial(_beit, absolute=False),
    ("beit", "absolute"): partial(_beit, absolute=True),
    ("jax_npz", "plain"): jax,
}
"""How to make and save one, by layout and what is special of it."""

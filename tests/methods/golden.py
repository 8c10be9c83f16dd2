"""The golden data of FPT and FPT+: reading them, and putting their tensors into timm's and the project's modules."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import safe_open
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from petlbench.methods.fpt import FPT, FPTPlus, FPTPlusSettings, FPTSettings
from petlbench.models.backbone import Backbone
from petlbench.models.info import BackboneInfo

FOLDER = Path(os.environ.get("PETLBENCH_GOLDEN", Path(__file__).parents[1] / "golden"))
FILES = ("fpt_golden.safetensors", "fptplus_golden.safetensors")
# The golden encoders' norms use 1e-12 where timm's use 1e-6; the golden position table is resized in a way of its own.
EPSILON = 1e-12


@dataclass
class Golden:
    config: dict[str, Any]
    tensors: dict[str, Tensor]

    def under(self, prefix: str) -> dict[str, Tensor]:
        return {name[len(prefix) :]: value for name, value in self.tensors.items() if name.startswith(prefix)}


def read_golden(file: str) -> Golden:
    with safe_open(FOLDER / file, framework="pt") as opened:
        metadata = opened.metadata()
        return Golden(json.loads(metadata["config"]), {name: opened.get_tensor(name) for name in list(opened.keys())})


def resize_table(table: Tensor, size: int) -> Tensor:
    """Resize a position table (1, 1 + T T, D) the golden way: bicubic, sampled at scale (size + 0.1) / T."""
    old = math.isqrt(table.shape[1] - 1)
    if old == size:
        return table
    weights = torch.zeros(size, old, dtype=table.dtype)
    scale, a = (size + 0.1) / old, -0.75
    for row in range(size):
        u = (row + 0.5) / scale - 0.5
        base = math.floor(u)
        for tap in range(base - 1, base + 3):
            x = abs(u - tap)
            near = (a + 2) * x**3 - (a + 3) * x**2 + 1
            far = a * x**3 - 5 * a * x**2 + 8 * a * x - 4 * a
            weights[row, min(max(tap, 0), old - 1)] += near if x <= 1 else far
    grid = table[:, 1:].reshape(old, old, -1)
    resized = torch.einsum("ih,jw,hwd->ijd", weights, weights, grid)
    return torch.cat([table[:, :1], resized.reshape(1, size * size, -1)], dim=1)


def to_timm(state: Mapping[str, Tensor], size: int) -> dict[str, Tensor]:
    """Rename a golden encoder's tensors to timm's."""
    renamed = {
        "cls_token": state["vit.embeddings.cls_token"],
        "pos_embed": resize_table(state["vit.embeddings.position_embeddings"], size),
    }
    for kind in ("weight", "bias"):
        renamed[f"patch_embed.proj.{kind}"] = state[f"vit.embeddings.patch_embeddings.projection.{kind}"]
        renamed[f"norm.{kind}"] = state[f"vit.layernorm.{kind}"]
        renamed[f"head.{kind}"] = state[f"classifier.{kind}"]
        layer = 0
        while f"vit.encoder.layer.{layer}.layernorm_before.{kind}" in state:
            old, new = f"vit.encoder.layer.{layer}.", f"blocks.{layer}."
            renamed[f"{new}norm1.{kind}"] = state[f"{old}layernorm_before.{kind}"]
            renamed[f"{new}norm2.{kind}"] = state[f"{old}layernorm_after.{kind}"]
            parts = [state[f"{old}attention.attention.{part}.{kind}"] for part in ("query", "key", "value")]
            renamed[f"{new}attn.qkv.{kind}"] = torch.cat(parts)
            renamed[f"{new}attn.proj.{kind}"] = state[f"{old}attention.output.dense.{kind}"]
            renamed[f"{new}mlp.fc1.{kind}"] = state[f"{old}intermediate.dense.{kind}"]
            renamed[f"{new}mlp.fc2.{kind}"] = state[f"{old}output.dense.{kind}"]
            layer += 1
    return renamed


def set_epsilon(module: nn.Module) -> None:
    for layer in module.modules():
        if isinstance(layer, nn.LayerNorm):
            layer.eps = EPSILON


def golden_backbone(golden: Golden) -> Backbone:
    cfg = golden.config
    module: Any = VisionTransformer(
        img_size=cfg["lpm_image"],
        patch_size=cfg["patch"],
        embed_dim=cfg["hidden"],
        depth=cfg["layers"],
        num_heads=cfg["heads"],
        num_classes=cfg["lpm_classes"],
    ).double()
    set_epsilon(module)
    module.load_state_dict(to_timm(golden.under("frozen."), cfg["lpm_image"] // cfg["patch"]))
    return Backbone(golden_info(cfg), module.eval())


def golden_info(cfg: Mapping[str, Any]) -> BackboneInfo:
    return BackboneInfo(
        name="golden",
        image_size=cfg["lpm_image"],
        native_size=cfg["lpm_table_image"],
        blocks=cfg["layers"],
        width=cfg["hidden"],
        widths=(cfg["hidden"],) * cfg["layers"],
        heads=cfg["heads"],
        patch=cfg["patch"],
        prefix_tokens=1,
        classes=cfg["lpm_classes"],
        parameters=0,
        mean=(0.5, 0.5, 0.5),
        std=(0.5, 0.5, 0.5),
        interpolation="bicubic",
        capabilities=frozenset({"blocks", "isotropic", "keys_values", "class_token"}),
    )


def golden_method(cfg: Mapping[str, Any], implementation: Literal["lean", "published"] = "lean") -> FPT:
    plus = cfg["variant"] == "fpt+"
    settings = FPTPlusSettings if plus else FPTSettings
    values = settings(
        num_prompts=cfg["num_prompts"],
        reduction=cfg["reduction"],
        token_ratio=cfg["token_ratio"],
        layers=",".join(map(str, cfg["extract"])),
        coarse_size=cfg["side_image"],
        implementation=implementation,
    )
    return FPTPlus(values) if plus else FPT(values)


def side_state(state: Mapping[str, Tensor], size: int) -> dict[str, Tensor]:
    """Rename the golden model's tensors, or their gradients, to the project's parameter names."""
    prefix = "side_encoder."
    side = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
    renamed = {f"side.{name}": value for name, value in to_timm(side, size).items()}
    renamed["fusion.prompts"] = state["fusion_module.prompts"].squeeze(1)
    query = "layer_norm" if "fusion_module.layer_norm.weight" in state else "prompt_proj"
    for kind in ("weight", "bias"):
        renamed[f"fusion.to_query.{kind}"] = state[f"fusion_module.{query}.{kind}"]
        renamed[f"fusion.to_side.{kind}"] = state[f"fusion_module.out_proj.{kind}"]
    return renamed

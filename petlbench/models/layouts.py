"""Named layouts of weights files: how each is recognised, and how its keys become timm's."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

State = dict[str, Tensor]
Renames = tuple[tuple[str, str], ...]
_NEVER = r"$^"


@dataclass(frozen=True)
class KeyLayout:
    """One way to call the tensors of a vision transformer.

    Args:
        title: What it is called in a sentence.
        anchor: The key that every file of the layout has, behind its prefix.
        marks: Patterns of keys; a file of the layout has one for each.
        renames: Patterns of keys and what takes their place, in this order.
        drops: Pattern of keys that belong to the training, and not to the encoder.
        qkv: Names of the layers of queries, keys and values, where each has its own.
        finish: What is left to do with the tensors once they are renamed.
        norm_eps: What the norms of such models add to the variance, which no tensor shows; None for timm's own.
        with_heads: Pattern of a key whose tensor has an axis for the heads, the second of three.
    """

    title: str
    anchor: str
    marks: tuple[str, ...] = ()
    renames: Renames = ()
    drops: str = _NEVER
    qkv: tuple[str, str, str] | None = None
    finish: Callable[[State], State] | None = None
    norm_eps: float | None = None
    with_heads: str = _NEVER

    def holds(self, keys: Mapping[str, object]) -> bool:
        """Whether keys, without their prefix, are of this layout."""
        return self.anchor in keys and all(any(re.match(mark, key) for key in keys) for mark in self.marks)

    def to_timm(self, state: State) -> tuple[State, list[str]]:
        """The tensors under timm's keys, and the keys that are left out."""
        dropped = [key for key in state if re.match(self.drops, key)]
        renamed = {self._renamed(key): tensor for key, tensor in state.items() if key not in set(dropped)}
        if self.qkv is not None:
            renamed = fuse_qkv(renamed, self.qkv)
        return (self.finish(renamed) if self.finish is not None else renamed), dropped

    def heads(self, state: State) -> int:
        """Attention heads that a tensor shows; 0 where none does."""
        tensors = (tensor for key, tensor in state.items() if re.search(self.with_heads, key))
        return next((tensor.shape[1] for tensor in tensors if tensor.dim() == 3), 0)

    def _renamed(self, key: str) -> str:
        for pattern, replacement in self.renames:
            key = re.sub(pattern, replacement, key)
        return key


def recognise(keys: Mapping[str, object]) -> str | None:
    """The name of the layout that keys without a prefix are of; None where it is none of `LAYOUTS`."""
    return next((name for name, layout in LAYOUTS.items() if layout.holds(keys)), None)


def fuse_qkv(state: State, names: tuple[str, str, str]) -> State:
    """The tensors with timm's fused layer ``qkv`` in the place of layers of queries, keys and values, named so.

    Where some of the three have a bias and others none, as BEiT's keys, the ones without get zeros.
    """
    fused: State = {}
    for key, tensor in state.items():
        parent, _, last = key.rpartition(".")
        before, _, name = parent.rpartition(".")
        if name not in names:
            fused[key] = tensor
            continue
        target, where = f"{before}.qkv.{last}", [f"{before}.{part}.{last}" for part in names]
        if target not in fused:
            like = next(state[part] for part in where if part in state)
            fused[target] = torch.cat([state.get(part, torch.zeros_like(like)) for part in where])
    return fused


def _table_of_rows(state: State) -> State:
    """Positions (N, D) and a class token (D,) as timm has them, (1, N, D) and (1, 1, D)."""
    for key in ("cls_token", "pos_embed"):
        if key in state:
            state[key] = state[key].reshape(1, -1, state[key].shape[-1])
    return state


def _pooling_head(state: State) -> State:
    """SigLIP's attention pooling: torch's layer has queries, keys and values in one, timm's has two."""
    for last in ("weight", "bias"):
        if (whole := state.pop(f"attn_pool.in_proj_{last}", None)) is not None:
            width = len(whole) // 3
            state[f"attn_pool.q.{last}"], state[f"attn_pool.kv.{last}"] = whole[:width], whole[width:]
    return _table_of_rows(state)


def _from_jax(state: State) -> State:
    """Kernels of JAX have their outputs last, and attention has an axis for the heads."""
    done: State = {}
    for key, tensor in state.items():
        if key == "patch_embed.proj.weight":
            done[key] = tensor.permute(3, 2, 0, 1)
        elif re.search(r"\.(query|key|value)\.bias$", key):
            done[key] = tensor.flatten()
        elif key.endswith("attn.proj.weight"):
            done[key] = tensor.flatten(0, 1).T
        elif key.endswith("weight") and tensor.dim() > 1:
            done[key] = tensor.flatten(1).T
        else:
            done[key] = tensor
    return fuse_qkv({key: tensor.contiguous() for key, tensor in done.items()}, ("query", "key", "value"))


_HF_EMBEDDINGS: Renames = (
    (r"^embeddings\.cls_token$", "cls_token"),
    (r"^embeddings\.register_tokens$", "reg_token"),
    (r"^embeddings\.position_embeddings$", "pos_embed"),
    (r"^embeddings\.patch_embeddings\.projection\.", "patch_embed.proj."),
    (r"^layernorm\.", "norm."),
    (r"^encoder\.layer\.", "blocks."),
    (r"\.attention\.attention\.", ".attn."),
    (r"\.attention\.output\.dense\.", ".attn.proj."),
)
_HF_DINOV2: Renames = (
    *_HF_EMBEDDINGS,
    (r"\.layer_scale(\d)\.lambda1$", r".ls\1.gamma"),
    (r"\.mlp\.weights_in\.", ".mlp.fc1."),
    (r"\.mlp\.weights_out\.", ".mlp.fc2."),
)
_HF_TOWER: Renames = (
    (r"^embeddings\.class_embedding$", "cls_token"),
    (r"^embeddings\.position_embedding\.weight$", "pos_embed"),
    (r"^embeddings\.patch_embedding\.", "patch_embed.proj."),
    (r"^pre_layrnorm\.", "norm_pre."),
    (r"^post_layernorm\.", "norm."),
    (r"^encoder\.layers\.", "blocks."),
    (r"\.layer_norm(\d)\.", r".norm\1."),
    (r"\.self_attn\.out_proj\.", ".attn.proj."),
    (r"\.self_attn\.", ".attn."),
    (r"^head\.probe$", "attn_pool.latent"),
    (r"^head\.attention\.out_proj\.", "attn_pool.proj."),
    (r"^head\.attention\.", "attn_pool."),
    (r"^head\.layernorm\.", "attn_pool.norm."),
    (r"^head\.mlp\.", "attn_pool.mlp."),
)
_OPEN_CLIP: Renames = (
    (r"^conv1\.", "patch_embed.proj."),
    (r"^class_embedding$", "cls_token"),
    (r"^positional_embedding$", "pos_embed"),
    (r"^ln_pre\.", "norm_pre."),
    (r"^ln_post\.", "norm."),
    (r"^transformer\.resblocks\.", "blocks."),
    (r"\.ln_(\d)\.", r".norm\1."),
    (r"\.attn\.in_proj_", ".attn.qkv."),
    (r"\.attn\.out_proj\.", ".attn.proj."),
    (r"\.mlp\.c_fc\.", ".mlp.fc1."),
    (r"\.mlp\.c_proj\.", ".mlp.fc2."),
    (r"\.ls_(\d)\.gamma$", r".ls\1.gamma"),
)
# Its authors' training cuts the blocks into chunks, which a key may show: blocks.CHUNK.BLOCK.
_DINOV2: Renames = (
    (r"^blocks\.\d+\.(\d+)\.", r"blocks.\1."),
    (r"^register_tokens$", "reg_token"),
    (r"\.mlp\.w12\.", ".mlp.fc1."),
    (r"\.mlp\.w3\.", ".mlp.fc2."),
)
_JAX: Renames = (
    (r"/", "."),
    (r"^cls$", "cls_token"),
    (r"^embedding\.", "patch_embed.proj."),
    (r"^Transformer\.posembed_input\.pos_embedding$", "pos_embed"),
    (r"^Transformer\.encoder_norm\.", "norm."),
    (r"^Transformer\.encoderblock_", "blocks."),
    (r"\.LayerNorm_0\.", ".norm1."),
    (r"\.LayerNorm_[12]\.", ".norm2."),
    (r"\.MultiHeadDotProductAttention_\d\.out\.", ".attn.proj."),
    (r"\.MultiHeadDotProductAttention_\d\.", ".attn."),
    (r"\.MlpBlock_\d\.Dense_0\.", ".mlp.fc1."),
    (r"\.MlpBlock_\d\.Dense_1\.", ".mlp.fc2."),
    (r"\.(kernel|scale)$", ".weight"),
)
_HF_PATCHES, _HF_TOWER_PATCHES = "embeddings.patch_embeddings.projection.weight", "embeddings.patch_embedding.weight"
_QKV, _QKV_PROJ, _PATCHES = ("query", "key", "value"), ("q_proj", "k_proj", "v_proj"), "patch_embed.proj.weight"
_HF_DROPS = r"(pooler|classifier|decoder)\.|embeddings\.mask_token$"

LAYOUTS: Mapping[str, KeyLayout] = {
    "hf_dinov2_with_registers": KeyLayout(
        "transformers' DINOv2 with registers",
        _HF_PATCHES,
        (r"embeddings\.register_tokens$", r"encoder\.layer\.0\.layer_scale1"),
        _HF_DINOV2,
        _HF_DROPS,
        _QKV,
    ),
    "hf_dinov2": KeyLayout(
        "transformers' DINOv2", _HF_PATCHES, (r"encoder\.layer\.0\.layer_scale1",), _HF_DINOV2, _HF_DROPS, _QKV
    ),
    "hf_vit": KeyLayout(
        "transformers' ViT",
        _HF_PATCHES,
        (r"encoder\.layer\.0\.layernorm_before",),
        (
            *_HF_EMBEDDINGS,
            (r"\.layernorm_before\.", ".norm1."),
            (r"\.layernorm_after\.", ".norm2."),
            (r"\.intermediate\.dense\.", ".mlp.fc1."),
            (r"(?<!attn)\.output\.dense\.", ".mlp.fc2."),
        ),
        _HF_DROPS,
        _QKV,
        norm_eps=1e-12,
    ),
    "hf_clip_vision": KeyLayout(
        "transformers' CLIP",
        _HF_TOWER_PATCHES,
        (r"embeddings\.class_embedding$",),
        _HF_TOWER,
        r"embeddings\.position_ids$",
        _QKV_PROJ,
        _table_of_rows,
        1e-5,
    ),
    "hf_siglip_vision": KeyLayout(
        "transformers' SigLIP",
        _HF_TOWER_PATCHES,
        (r"embeddings\.patch_embedding\.bias$",),
        _HF_TOWER,
        r"embeddings\.position_ids$",
        _QKV_PROJ,
        _pooling_head,
    ),
    "open_clip": KeyLayout(
        "open_clip",
        "conv1.weight",
        (r"class_embedding$", r"transformer\.resblocks\.0\."),
        _OPEN_CLIP,
        r"proj$",
        finish=_table_of_rows,
        norm_eps=1e-5,
    ),
    "jax_npz": KeyLayout(
        "JAX",
        "embedding/kernel",
        (r"Transformer/encoderblock_0/",),
        _JAX,
        r"(head|pre_logits)/",
        finish=_from_jax,
        with_heads=r"/query/kernel$",
    ),
    "mae": KeyLayout("MAE", _PATCHES, (r"decoder_blocks\.",), drops=r"decoder_|mask_token$|(head|fc|projector)\."),
    "beit": KeyLayout(
        "BEiT",
        _PATCHES,
        (r"blocks\.0\.attn\.q_bias$", r"blocks\.0\.gamma_1$"),
        drops=r"mask_token$|(lm_head|head|projector)\.|.*relative_position_index$",
    ),
    "dinov2": KeyLayout(
        "DINOv2",
        _PATCHES,
        (r"mask_token$|register_tokens$|blocks\.\d+\.\d+\.|blocks\.0\.mlp\.w12\.", r"blocks\.0\.(\d+\.)?ls1\.gamma$"),
        _DINOV2,
        r"mask_token$|(dino_head|ibot_head|head)\.",
    ),
    "timm": KeyLayout("timm", _PATCHES, drops=r"mask_token$|decoder_|(pre_logits|head_dist)\."),
    # Told from timm's by the wrapper alone, see weights.
    "dino": KeyLayout("DINO", _PATCHES, (_NEVER,), drops=r"mask_token$|head\."),
}
"""The layouts by name; of two that keys may be of, the first is taken."""

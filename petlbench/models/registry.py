"""timm's vision transformers by name: probed for their structure, built and given their weights."""

from __future__ import annotations

from contextlib import suppress
from functools import cache
from typing import Any, cast

import timm
import torch
from timm.models import PretrainedCfg, eva, swin_transformer
from timm.models import vision_transformer as vit
from torch import nn

from petlbench.core.errors import InputError, unknown_name
from petlbench.core.request import DEFAULT_BACKBONE
from petlbench.models import micro  # noqa: F401 - tells timm of it
from petlbench.models.backbone import Backbone, named_blocks
from petlbench.models.info import BackboneInfo, LinearShape

__all__ = ["build_backbone", "describe_module", "list_vision_transformers", "probe_backbone", "resolve_backbone"]


# timm's modules whose models are, for the most part, vision transformers that can be adapted.
_MODULES = ("vision_transformer", "deit", "beit", "eva", "swin_transformer", "micro")


def resolve_backbone(name: str) -> str:
    """``architecture.tag`` of ``architecture`` or ``architecture.tag``, so that a config says which weights it means.

    It is the bare architecture where timm has no tag for it.

    Raises:
        InputError: When timm does not know it; the nearest names are given.
    """
    architecture, _, tag = name.partition(".")
    if not timm.is_model(architecture):
        raise unknown_name("backbone", name, timm.list_models(), hint="any timm vision transformer can be named")
    if tag and name not in _tagged(architecture):
        raise unknown_name("backbone", name, _tagged(architecture))
    if name == DEFAULT_BACKBONE.partition(".")[0]:
        return DEFAULT_BACKBONE
    default = timm.get_pretrained_cfg(architecture) if not tag else None
    return f"{architecture}.{default.tag}" if default is not None and default.tag else name


@cache
def probe_backbone(name: str, image_size: int | None = None) -> BackboneInfo:
    """A backbone's structure, without loading or allocating it.

    Args:
        name: A name from `resolve_backbone`.
        image_size: Height and width in pixels; None for the size that the weights were trained at.

    Raises:
        InputError: When it is no vision transformer that can be adapted, or the image size is no multiple of its
            patch.
    """
    cfg = timm.get_pretrained_cfg(name) or PretrainedCfg()
    with torch.device("meta"):
        info = describe_module(_create(name, cfg.input_size[-1]), name, cfg)
        if image_size in (None, info.native_size):
            return info
        _check_image_size(name, image_size, info.patch)
        return describe_module(_create(name, image_size), name, cfg)


def build_backbone(
    name: str, image_size: int, weights: str, device: torch.device, *, drop_path: float = 0.0
) -> Backbone:
    """A backbone with its weights.

    Args:
        name: A name from `resolve_backbone`.
        image_size: Height and width in pixels; the position table is resized to it.
        weights: ``default`` (the hub), ``none`` (random, from torch's global generator), or a file.
        device: Where to put it; on ``meta`` no weight is read.
        drop_path: Rate of stochastic depth in the last block; it grows from 0 in the first one.

    Raises:
        InputError: When the weights cannot be had or belong to another model.
    """
    from petlbench.models.weights import load_weights

    info = probe_backbone(name, image_size)
    if device.type == "meta":
        with device:
            return Backbone(info, _create(name, image_size, drop_path))
    module = _create(name, image_size, drop_path)
    load_weights(module, name, weights)
    return Backbone(info, module.to(device))


def list_vision_transformers(pattern: str = "") -> list[str]:
    """The names of timm's vision transformers with weights that hold a text, or match a pattern with ``*``."""
    pattern = pattern if "*" in pattern else f"*{pattern}*"
    return sorted({name for module in _MODULES for name in timm.list_models(pattern, module=module)})


@cache
def _tagged(architecture: str) -> list[str]:
    return [name for name in timm.list_pretrained() if name.partition(".")[0] == architecture]


def _create(name: str, image_size: int, drop_path: float = 0.0) -> nn.Module:
    try:
        more: dict[str, Any] = {"drop_path_rate": drop_path} if drop_path else {}
        return timm.create_model(name, pretrained=False, img_size=image_size, num_classes=0, **more)
    except TypeError as error:
        raise _not_a_vit(name) from error


def _check_image_size(name: str, size: int, patch: int) -> None:
    if size < patch or size % patch:
        near = sorted({max(patch, below) for below in (size // patch * patch, (size // patch + 1) * patch)})
        raise InputError(
            f"image size {size} is not a multiple of the patch of {name}, which is {patch} pixels",
            hint=f"use --image-size {' or '.join(map(str, near))}",
            kind="bad_image_size",
        )


def describe_module(module: nn.Module, name: str, cfg: PretrainedCfg) -> BackboneInfo:
    """The structure of a timm model.

    Args:
        module: The model without a classifier; on ``meta``, since its fused layers are taken apart to be looked at.
        name: What it is called.
        cfg: What timm knows of its weights.

    Raises:
        InputError: When it is no vision transformer that can be adapted.
    """
    model, capabilities = cast("Any", module), _capabilities(module)
    blocks = [block for _, block in named_blocks(module)]
    if "blocks" not in capabilities:
        raise _not_a_vit(name)
    layers = [next(layer for layer in block.modules() if isinstance(layer, nn.Linear)) for block in blocks]
    return BackboneInfo(
        name=name,
        image_size=model.patch_embed.img_size[0],
        native_size=cfg.input_size[-1],
        blocks=len(blocks),
        width=model.num_features,
        widths=tuple(layer.in_features for layer in layers),
        heads=blocks[0].attn.num_heads,
        patch=model.patch_embed.patch_size[0],
        prefix_tokens=getattr(model, "num_prefix_tokens", 0),
        classes=cfg.num_classes,
        parameters=sum(tensor.numel() for tensor in module.parameters()),
        mean=cast("tuple[float, float, float]", tuple(cfg.mean)),
        std=cast("tuple[float, float, float]", tuple(cfg.std)),
        interpolation=cfg.interpolation,
        capabilities=capabilities,
        linears=_linears(module, name) if "qkv" in capabilities else {},
    )


def _linears(module: nn.Module, name: str) -> dict[str, tuple[LinearShape, ...]]:
    """The linear layers by part; fused queries, keys and values are taken apart for it."""
    backbone = Backbone(cast("Any", None), module)
    backbone.split_qkv()
    linears = {}
    for part in ("q", "k", "v", "proj", "fc1", "fc2"):
        with suppress(KeyError):
            names = [name for block in backbone.linears(part) for name in block]
            layers = [cast("nn.Linear", module.get_submodule(name)) for name in names]
            linears[part] = tuple(LinearShape(e.in_features, e.out_features, e.bias is not None) for e in layers)
    return linears


def _capabilities(model: Any) -> frozenset[str]:
    blocks = [block for _, block in named_blocks(model)]
    usable = blocks and all(hasattr(block, "attn") and hasattr(block, "mlp") for block in blocks)
    if not usable or not _cuts_patches(model):
        return frozenset()
    capabilities = {"blocks"}
    if all(hasattr(model, name) for name in ("num_prefix_tokens", "_pos_embed", "norm", "norm_pre")):
        capabilities.add("isotropic")
    # timm's other blocks and attentions place their norms elsewhere, turn queries and keys by position, or read the
    # fused weight past its layer. Those of EVA-02 and DINOv3 have three layers or can be made to have them.
    types = {(type(block), type(block.attn)) for block in blocks}
    fused = all(isinstance(getattr(block.attn, "qkv", None), nn.Linear) for block in blocks)
    plain: Any = (vit.Block, vit.Attention)  # type: ignore[attr-defined, unused-ignore]
    if fused and types == {plain} and isinstance(model, vit.VisionTransformer):
        capabilities |= {"qkv", "keys_values"}
    swin = {(swin_transformer.SwinTransformerBlock, swin_transformer.WindowAttention)}
    if types == {(eva.EvaBlock, eva.EvaAttention)} or (fused and types == swin):
        capabilities.add("qkv")
    if all(_has_plain_mlp(block) for block in blocks):
        capabilities.add("plain_mlp")
    for token, word in (("cls_token", "class_token"), ("reg_token", "register_tokens")):
        if getattr(model, token, None) is not None:
            capabilities.add(word)
    return frozenset(capabilities)


def _has_plain_mlp(block: Any) -> bool:
    fc1, fc2 = getattr(block.mlp, "fc1", None), getattr(block.mlp, "fc2", None)
    if not (isinstance(fc1, nn.Linear) and isinstance(fc2, nn.Linear)):
        return False
    return fc1.out_features == fc2.in_features and fc1.out_features % fc1.in_features == 0


def _cuts_patches(model: Any) -> bool:
    """Whether the image is cut into patches directly, rather than read by a convolutional network first."""
    embedding: Any = getattr(model, "patch_embed", None)
    patch = getattr(embedding, "patch_size", None)
    if not (isinstance(patch, tuple) and hasattr(embedding, "num_patches") and hasattr(embedding, "img_size")):
        return False
    return bool(embedding.num_patches == (embedding.img_size[0] // patch[0]) ** 2)


def _not_a_vit(name: str) -> InputError:
    return InputError(
        f"backbone '{name}' is not a vision transformer that petlbench can adapt",
        hint="name one of timm's ViTs, for example vit_base_patch16_384 or vit_tiny_patch16_224",
        kind="unsupported_backbone",
    )

"""The structure of a timm model: what it is made of, and what a method may rely on."""

from __future__ import annotations

from contextlib import suppress
from typing import Any, cast

from timm.layers.norm_act import BatchNormAct2d
from timm.models import PretrainedCfg, eva, swin_transformer
from timm.models import vision_transformer as vit
from timm.models.convnext import ConvNeXt
from timm.models.efficientnet import EfficientNet
from timm.models.resnet import ResNet
from torch import nn

from petlbench.core.errors import InputError
from petlbench.models.backbone import Backbone, named_blocks
from petlbench.models.info import BackboneInfo, LinearShape


def describe_module(module: nn.Module, name: str, cfg: PretrainedCfg, image_size: int | None = None) -> BackboneInfo:
    """The structure of a timm model.

    Args:
        module: The model without a classifier; on ``meta``, since its fused layers are taken apart to be looked at.
        name: What it is called.
        cfg: What timm knows of its weights.
        image_size: Height and width in pixels, where the module itself is made for none; None for the weights'.

    Raises:
        InputError: When it is nothing that can be adapted.
    """
    model, capabilities = cast("Any", module), _capabilities(module)
    blocks = [block for _, block in named_blocks(module)]
    is_vit = "blocks" in capabilities
    if not is_vit and "stages" not in capabilities:
        raise not_adaptable(name)
    layers = [next(layer for layer in block.modules() if isinstance(layer, nn.Linear)) for block in blocks if is_vit]
    return BackboneInfo(
        name=name,
        image_size=model.patch_embed.img_size[0] if is_vit else image_size or cfg.input_size[-1],
        native_size=cfg.input_size[-1],
        blocks=len(blocks),
        width=model.num_features,
        widths=tuple(layer.in_features for layer in layers),
        heads=blocks[0].attn.num_heads if is_vit else 0,
        patch=model.patch_embed.patch_size[0] if is_vit else model.feature_info[-1]["reduction"],
        prefix_tokens=getattr(model, "num_prefix_tokens", 0),
        classes=cfg.num_classes,
        parameters=sum(tensor.numel() for tensor in module.parameters()),
        mean=cast("tuple[float, float, float]", tuple(cfg.mean)),
        std=cast("tuple[float, float, float]", tuple(cfg.std)),
        interpolation=cfg.interpolation,
        capabilities=capabilities,
        timm=name,
        linears=_linears(module, name) if capabilities & {"qkv", "stages"} else {},
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
            if all(isinstance(layer, nn.Linear) for layer in layers):  # small ConvNeXts have convolutions there
                linears[part] = tuple(LinearShape(e.in_features, e.out_features, e.bias is not None) for e in layers)
    return linears


def _capabilities(model: Any) -> frozenset[str]:
    blocks = [block for _, block in named_blocks(model)]
    if isinstance(model, ConvNeXt | ResNet | EfficientNet):
        fused = any(isinstance(layer, BatchNormAct2d) for layer in model.modules())
        return frozenset({"stages"} if fused else {"stages", "norms_apart"})
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
        if all(isinstance(block.attn.k_norm, nn.Identity) for block in blocks):
            capabilities.add("linear_keys")
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


def not_adaptable(name: str) -> InputError:
    """The error for a model that petlbench has no way to adapt."""
    return InputError(
        f"backbone '{name}' is not a model that petlbench can adapt",
        hint="name one of timm's ViTs, Swins, ConvNeXts, ResNets or EfficientNets, for example vit_base_patch16_384",
        kind="unsupported_backbone",
    )

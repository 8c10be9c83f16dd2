"""Tiny backbones of every structure that petlbench knows, registered with timm under names of their own."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from timm.layers import SwiGLUPacked
from timm.models import beit, convnext, deit, efficientnet, eva, register_model, resnet, swin_transformer
from timm.models import vision_transformer as vit

# Models this small gain nothing from a second thread, and the tests beside these want the other core.
torch.set_num_threads(1)


# Convolutions are made for no size of image.
_efficientnet: Any = partial(efficientnet._gen_efficientnet, "efficientnet_b0")
_ANY_SIZE = (resnet.ResNet, convnext.ConvNeXt, _efficientnet)


def _register(name: str, make: Callable[..., Any], **fixed: Any) -> None:
    def build(pretrained: bool = False, **given: Any) -> Any:
        for name in ("pretrained_cfg", "pretrained_cfg_overlay", "cache_dir"):
            given.pop(name, None)
        if make in _ANY_SIZE:
            given.pop("img_size", None)
        model = make(**{**fixed, **given})
        model.pretrained_cfg = {}
        return model

    build.__name__ = name
    register_model(build)


_SMALL = {"embed_dim": 64, "depth": 4, "num_heads": 2}

_register("tiny_vit", vit.VisionTransformer, img_size=32, patch_size=8, **_SMALL)
_register("tiny_distilled", deit.VisionTransformerDistilled, img_size=32, patch_size=8, **_SMALL)
_register(
    "tiny_registers",
    vit.VisionTransformer,
    img_size=28,
    patch_size=14,
    init_values=0.5,
    reg_tokens=4,
    no_embed_class=True,
    **_SMALL,
)
_register(
    "tiny_eva",
    eva.Eva,
    img_size=28,
    patch_size=14,
    qkv_fused=False,
    mlp_ratio=4 * 2 / 3,
    swiglu_mlp=True,
    scale_mlp=True,
    use_rot_pos_emb=True,
    ref_feat_shape=(2, 2),
    **_SMALL,
)
_register(
    "tiny_swin",
    swin_transformer.SwinTransformer,
    img_size=32,
    patch_size=4,
    window_size=4,
    embed_dim=32,
    depths=(2, 2),
    num_heads=(2, 4),
)
_register(
    "tiny_swiglu",
    vit.VisionTransformer,
    img_size=28,
    patch_size=14,
    init_values=0.5,
    reg_tokens=4,
    mlp_ratio=4.0,
    mlp_layer=SwiGLUPacked,
    act_layer=torch.nn.SiLU,
    **_SMALL,
)
_register(
    "tiny_siglip", vit.VisionTransformer, img_size=32, patch_size=8, class_token=False, global_pool="map", **_SMALL
)
_register(
    "tiny_subnorm", vit.VisionTransformer, img_size=32, patch_size=8, scale_attn_norm=True, qk_norm=True, **_SMALL
)
_register("tiny_beit", beit.Beit, img_size=32, patch_size=8, init_values=0.1, use_rel_pos_bias=True, **_SMALL)
_register("tiny_resnet", resnet.ResNet, block=resnet.BasicBlock, layers=(1, 1, 1, 1), channels=(8, 16, 16, 32))
_register("tiny_convnext", convnext.ConvNeXt, depths=(1, 1, 1, 1), dims=(8, 16, 16, 32))
_register("tiny_efficientnet", _efficientnet, channel_multiplier=0.25, depth_multiplier=0.25)

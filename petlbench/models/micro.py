"""``petlbench_micro``: a small vision transformer whose weights travel with the package.

It makes first looks, tutorials and tests possible where no hub can be reached. ``petlbench_micro.md`` beside this file
says how it was trained and what it can do.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from timm.models.vision_transformer import VisionTransformer

# timm looks for this name in the module of a model.
default_cfgs = generate_default_cfgs(
    {
        "petlbench_micro.distilled": {
            "file": str(Path(__file__).with_name("petlbench_micro.safetensors")),
            "input_size": (3, 128, 128),
            "num_classes": 0,
            "interpolation": "bicubic",
            "mean": (0.5, 0.5, 0.5),
            "std": (0.5, 0.5, 0.5),
            "first_conv": "patch_embed.proj",
            "classifier": "head",
            "license": "apache-2.0",
        }
    }
)


@register_model
def petlbench_micro(pretrained: bool = False, **settings: Any) -> VisionTransformer:
    """The backbone: 6 blocks of width 192 with 3 heads, patches of 16 pixels; settings are those of timm's ViT."""
    own = {"img_size": 128, "patch_size": 16, "embed_dim": 192, "depth": 6, "num_heads": 3}
    model: VisionTransformer = build_model_with_cfg(
        VisionTransformer, "petlbench_micro", pretrained, **(own | settings)
    )
    return model

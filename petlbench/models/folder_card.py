"""The card of a folder as ``save_pretrained`` or the hub has it: its configuration, read as one of timm's models."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from petlbench.core.errors import InputError
from petlbench.core.text import printable
from petlbench.core.user_files import read_json
from petlbench.models.card import BackboneCard, Source, checked_card

CONFIGS = ("config.json", "open_clip_config.json")
"""Names of the file that says what a model is made of; the first that is there is read."""
PREPROCESSOR = "preprocessor_config.json"

Config = Mapping[str, Any]

_LIMIT = 4 << 20
_BASE = "vit_base_patch16_224"
_MENDED = "fetch the folder again, or describe the backbone by a card (docs/backbones.md)"
_ACTIVATIONS = {"gelu": "gelu", "quick_gelu": "quick_gelu", "silu": "silu", "swish": "silu", "relu": "relu"}
_ACTIVATIONS |= {"gelu_pytorch_tanh": "gelu_tanh", "gelu_new": "gelu_tanh", "gelu_fast": "gelu_tanh"}
# The numbers that Pillow gives its filters.
_FILTERS = {1: "lanczos", 2: "bilinear", 3: "bicubic"}
# What timm's own configurations say that makes no other model here: the classifier, and the size, which is asked for.
_TIMM_SPARE = ("num_classes", "img_size", "dynamic_img_size", "dynamic_img_pad", "weight_init")
_CLIP_MEAN, _CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


def card_of_folder(folder: Path, name: str, source: Source | None = None) -> BackboneCard:
    """The card of a model in a folder.

    Args:
        folder: It holds one of `CONFIGS`, and `PREPROCESSOR` where that says what images the model expects.
        name: What the backbone is called.
        source: Where the weights are; None for the folder itself.

    Raises:
        InputError: When there is no configuration, or it is of a model that timm cannot stand for.
    """
    file = next((folder / config for config in CONFIGS if (folder / config).is_file()), None)
    if file is None:
        raise InputError(
            f"backbone {name}: there is no {' and no '.join(CONFIGS)}",
            hint="name a folder as save_pretrained writes it, or a backbone card (docs/backbones.md)",
            kind="unknown_backbone",
        )
    config = _read(file, "model configuration")
    try:
        values = _values(config, file.name)
        if (folder / PREPROCESSOR).is_file():
            stated = _preprocessing(_read(folder / PREPROCESSOR, "preprocessor configuration"))
            values["preprocessing"] = stated or values.get("preprocessing")
        card = checked_card({"name": name, "title": name, **values}, file)
    except (KeyError, TypeError, ValueError, ZeroDivisionError) as error:
        fault = printable(f"{type(error).__name__}: {error}")
        message = f"the model configuration {file} is damaged: {fault}"
        raise InputError(message, hint=_MENDED, kind="damaged_file") from error
    return card.model_copy(update={"source": source or Source(), "folder": folder})


def _read(file: Path, what: str) -> dict[str, Any]:
    try:
        return read_json(file, what=what, limit=_LIMIT)
    except InputError as error:
        raise InputError(error.message, hint=_MENDED, kind=error.kind) from error


def _values(config: Config, name: str) -> dict[str, Any]:
    if name == "open_clip_config.json":
        return _open_clip(config)
    if "architecture" in config:
        return _timm(config)
    kind = str(config.get("model_type"))
    if kind not in _TRANSFORMERS:
        raise InputError(
            f"the configuration is of a '{printable(kind)}' model, which petlbench cannot read as one of timm's",
            hint=f"it reads {', '.join(_TRANSFORMERS)}; see docs/backbones.md for a card of your own",
            kind="unsupported_backbone",
        )
    layout, describe = _TRANSFORMERS[kind]
    return {"family": kind, "architecture": describe(config), "keys": {"layout": layout}}


def _timm(config: Config) -> dict[str, Any]:
    """What timm's own says: an architecture and arguments, of which those are taken that a card may have."""
    cfg = config.get("pretrained_cfg") or {}
    arguments = {name: value for name, value in (config.get("model_args") or {}).items() if name not in _TIMM_SPARE}
    if arguments.get("global_pool") == "":
        del arguments["global_pool"]
    size = cfg.get("input_size")
    architecture = {"timm": config["architecture"], "img_size": size[-1] if size else None, **arguments}
    values: dict[str, Any] = {"architecture": architecture, "licence": str(cfg.get("license") or "unknown")}
    if cfg.get("mean") and cfg.get("std"):
        values["preprocessing"] = {"mean": cfg["mean"], "std": cfg["std"], **_filter(cfg.get("interpolation"))}
    return values


def _open_clip(config: Config) -> dict[str, Any]:
    vision = config["model_cfg"]["vision_cfg"]
    wanted, size = config.get("preprocess_cfg") or {}, vision.get("image_size", 224)
    preprocessing = {
        "mean": wanted.get("mean", _CLIP_MEAN),
        "std": wanted.get("std", _CLIP_STD),
        **_filter(wanted.get("interpolation")),
    }
    if "timm_model_name" in vision:
        pools = {"map": "map", "avg": "avg", "token": "token"}
        pool = pools.get(vision.get("timm_pool", ""))
        architecture = {"timm": vision["timm_model_name"], "img_size": size, "global_pool": pool}
        return {"family": "CLIP", "architecture": architecture, "preprocessing": preprocessing}
    width = vision["width"]
    architecture = {
        **_sizes(width, vision["layers"], width // vision.get("head_width", 64), size, vision["patch_size"]),
        "mlp_ratio": vision.get("mlp_ratio", 4.0),
        "act_layer": "quick_gelu" if config["model_cfg"].get("quick_gelu") else "gelu",
        "pre_norm": not vision.get("no_ln_pre", False),
        "norm_eps": 1e-5,
        "init_values": vision.get("ls_init_value"),
        "global_pool": "token",
    }
    keys = {"layout": "open_clip"}
    return {"family": "CLIP", "architecture": architecture, "keys": keys, "preprocessing": preprocessing}


def _sizes(width: int, depth: int, heads: int, size: int, patch: int) -> dict[str, Any]:
    sizes = {"embed_dim": width, "depth": depth, "num_heads": heads, "img_size": size, "patch_size": patch}
    return {"timm": _BASE, **sizes}


def _common(config: Config) -> dict[str, Any]:
    """What the configurations of transformers' vision models have in common."""
    width = config["hidden_size"]
    activation = config.get("hidden_act", "gelu")
    if activation not in _ACTIVATIONS:
        raise ValueError(f"hidden_act '{activation}' is none of {', '.join(_ACTIVATIONS)}")
    sizes = (config["num_hidden_layers"], config["num_attention_heads"], config["image_size"], config["patch_size"])
    return {**_sizes(width, *sizes), "act_layer": _ACTIVATIONS[activation], "norm_eps": config["layer_norm_eps"]}


def _ratio(inside: int, width: int) -> float:
    """The ratio of which timm's rounding down makes the channels inside an MLP."""
    ratio = inside / width
    return ratio if int(width * ratio) == inside else (inside + 0.5) / width


def _vit(config: Config) -> dict[str, Any]:
    ratio = _ratio(config["intermediate_size"], config["hidden_size"])
    return {**_common(config), "mlp_ratio": ratio, "qkv_bias": config.get("qkv_bias", True), "global_pool": "token"}


def _dinov2(config: Config) -> dict[str, Any]:
    width, ratio = config["hidden_size"], config.get("mlp_ratio", 4)
    values = {**_common(config), "mlp_ratio": float(ratio), "qkv_bias": config.get("qkv_bias", True)}
    values |= {"init_values": config.get("layerscale_value", 1.0), "global_pool": "token"}
    if config.get("use_swiglu_ffn"):
        # As its authors round: two thirds, up to a multiple of eight.
        inside = (int(int(width * ratio) * 2 / 3) + 7) // 8 * 8
        values |= {"mlp_layer": "swiglu_packed", "act_layer": "silu", "mlp_ratio": _ratio(2 * inside, width)}
    if config["model_type"] == "dinov2_with_registers":
        values |= {"reg_tokens": config.get("num_register_tokens", 4), "no_embed_class": False}
    return values


def _siglip(config: Config) -> dict[str, Any]:
    vision = {**_SIGLIP_DEFAULTS, **config.get("vision_config", config)}
    pool = "map" if vision.get("vision_use_head", True) else "avg"
    values = {**_common(vision), "mlp_ratio": _ratio(vision["intermediate_size"], vision["hidden_size"])}
    return {**values, "class_token": False, "global_pool": pool, "fc_norm": False}


def _clip(config: Config) -> dict[str, Any]:
    vision = {**_CLIP_DEFAULTS, **config.get("vision_config", config)}
    values = {**_common(vision), "mlp_ratio": _ratio(vision["intermediate_size"], vision["hidden_size"])}
    return {**values, "pre_norm": True, "global_pool": "token"}


# A configuration of two towers leaves out what has transformers' default.
_SIZES = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12}
_SIZES |= {"image_size": 224}
_SIGLIP_DEFAULTS = {**_SIZES, "patch_size": 16, "hidden_act": "gelu_pytorch_tanh", "layer_norm_eps": 1e-6}
_CLIP_DEFAULTS = {**_SIZES, "patch_size": 32, "hidden_act": "quick_gelu", "layer_norm_eps": 1e-5}

_TRANSFORMERS: Mapping[str, tuple[str, Callable[[Config], dict[str, Any]]]] = {
    "vit": ("hf_vit", _vit),
    "vit_mae": ("hf_vit", _vit),
    "dinov2": ("hf_dinov2", _dinov2),
    "dinov2_with_registers": ("hf_dinov2_with_registers", _dinov2),
    "siglip": ("hf_siglip_vision", _siglip),
    "siglip_vision_model": ("hf_siglip_vision", _siglip),
    "clip": ("hf_clip_vision", _clip),
    "clip_vision_model": ("hf_clip_vision", _clip),
}


def _preprocessing(config: Config) -> dict[str, Any] | None:
    """What images a model of transformers' expects; None where it does not say."""
    if config.get("do_normalize") is False:
        values: dict[str, Any] = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}
    elif config.get("image_mean") and config.get("image_std"):
        values = {"mean": config["image_mean"], "std": config["image_std"]}
    else:
        return None
    return {**values, **_filter(_FILTERS.get(config.get("resample", -1)))}


def _filter(name: Any) -> dict[str, Any]:
    return {"interpolation": name} if name in _FILTERS.values() else {}

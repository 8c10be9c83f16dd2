"""The backbone card: what a backbone is made of, where its weights are, how they are read, what images they expect."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from petlbench.core.errors import InputError
from petlbench.core.text import printable
from petlbench.core.user_files import inside, read_toml

_LIMIT = 1 << 20
"""Bytes of a card."""

Activation = Literal["gelu", "gelu_tanh", "quick_gelu", "silu", "relu"]
Colour = tuple[float, float, float]
Layout = Literal[
    "timm",
    "hf_vit",
    "hf_dinov2",
    "hf_dinov2_with_registers",
    "hf_siglip_vision",
    "hf_clip_vision",
    "open_clip",
    "dino",
    "dinov2",
    "mae",
    "beit",
    "jax_npz",
]


def _stays_inside(part: str) -> str:
    try:
        inside(Path(), part, what="it")
    except InputError as error:
        raise ValueError(error.message) from error
    return part


Part = Annotated[str, Field(min_length=1), AfterValidator(_stays_inside)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, str_strip_whitespace=True, allow_inf_nan=False)


class Architecture(_Part):
    """One of timm's architectures, and the arguments in which the backbone differs from it, under timm's names."""

    timm: str = Field(default="", description="The architecture in timm; the card's name where it is left out.")
    img_size: int | None = Field(default=None, ge=8, le=4096, description="Pixels that the weights were trained at.")
    patch_size: int | None = Field(default=None, ge=1, le=256, description="Height and width of a patch in pixels.")
    embed_dim: int | None = Field(default=None, ge=1, le=16384, description="Channels of a token.")
    depth: int | None = Field(default=None, ge=1, le=512, description="Number of blocks.")
    num_heads: int | None = Field(default=None, ge=1, le=1024, description="Attention heads.")
    mlp_ratio: float | None = Field(default=None, gt=0, le=64, description="Channels inside an MLP over a token's.")
    mlp_layer: Literal["mlp", "swiglu", "swiglu_packed"] | None = Field(default=None, description="Kind of MLP.")
    act_layer: Activation | None = Field(default=None, description="Activation in the MLPs.")
    init_values: float | None = Field(default=None, ge=0, description="Initial layer scale; none where there is none.")
    reg_tokens: int | None = Field(default=None, ge=0, le=1024, description="Register tokens.")
    class_token: bool | None = Field(default=None, description="Whether there is a class token.")
    no_embed_class: bool | None = Field(default=None, description="Whether class and registers have no position.")
    pos_embed: Literal["learn", "none"] | None = Field(default=None, description="Position table.")
    use_abs_pos_emb: bool | None = Field(default=None, description="Of BEiT: whether there is a position table.")
    use_rel_pos_bias: bool | None = Field(default=None, description="Of BEiT: whether each block has relative ones.")
    pre_norm: bool | None = Field(default=None, description="Whether tokens are normed in front of the first block.")
    final_norm: bool | None = Field(default=None, description="Whether tokens are normed behind the last block.")
    fc_norm: bool | None = Field(default=None, description="Whether the norm comes behind the pooling.")
    norm_eps: float | None = Field(default=None, gt=0, le=0.1, description="What norms add to the variance.")
    qkv_bias: bool | None = Field(default=None, description="Whether queries, keys and values have a bias.")
    qk_norm: bool | None = Field(default=None, description="Whether queries and keys are normed.")
    global_pool: Literal["token", "avg", "map", "token_and_avg"] | None = Field(
        default=None, description="The final feature: class token, mean of the patches, attention pooling, or two."
    )

    @property
    def differences(self) -> dict[str, Any]:
        """What the card says beside the architecture, as plain values."""
        return self.model_dump(exclude={"timm", "img_size"}, exclude_none=True)

    def arguments(self) -> dict[str, Any]:
        """The arguments for ``timm.create_model``."""
        layers: Any = importlib.import_module("timm.layers")
        values = self.differences
        if kind := values.get("mlp_layer"):
            classes = {"mlp": layers.Mlp, "swiglu": layers.SwiGLU, "swiglu_packed": layers.SwiGLUPacked}
            values["mlp_layer"] = classes[kind]
        if (eps := values.pop("norm_eps", None)) is not None:
            values["norm_layer"] = partial(layers.LayerNorm, eps=eps)
        if values.get("global_pool") == "token_and_avg":  # registry puts timm's pooling aside
            values["global_pool"] = "token"
        return values


class Source(_Part):
    """Where the weights are."""

    hub: str = Field(default="", pattern=r"^([\w.-]+/[\w.-]+)?$", description="Repository on the Hugging Face hub.")
    revision: str = Field(default="", pattern=r"^[\w./-]*$", description="Commit or branch; the newest where empty.")
    file: Part | None = Field(default=None, description="The file in the repository, or beside the card.")
    sha256: str | None = Field(default=None, pattern=r"^[0-9a-f]{64}$", description="Its checksum, where it is known.")
    gated: bool = Field(default=False, description="Whether the publisher has to grant access.")
    terms: str = Field(default="", description="What access or use is bound to.")


class KeyRecipe(_Part):
    """How the file's keys become timm's, in this order."""

    take: str = Field(default="", description="The entry of the file that holds the tensors.")
    strip: tuple[str, ...] = Field(
        default=(), description="Beginnings of keys: what bears the first that is there is taken, without it."
    )
    drop: tuple[str, ...] = Field(default=(), description="Beginnings of keys that are left out.")
    layout: Layout | None = Field(default=None, description="The named layout; recognised where it is left out.")
    rename: dict[str, str] = Field(default_factory=dict, description="Parts of keys and what takes their place.")
    split_qkv: tuple[str, str, str] | None = Field(
        default=None, description="Names of queries', keys' and values' own layers, which become timm's fused one."
    )


class Preprocessing(_Part):
    """What images the weights expect."""

    mean: Colour = Field(description="Mean per colour channel, images in 0 to 1.")
    std: Colour = Field(description="Standard deviation per colour channel.")
    interpolation: Literal["bilinear", "bicubic", "lanczos"] = Field(default="bicubic", description="Resizing filter.")
    size: int | None = Field(default=None, ge=8, le=4096, description="Pixels that images were resized to.")
    crop: float | None = Field(default=None, gt=0, le=1, description="Share of the side that was kept; petlbench: all.")

    @model_validator(mode="after")
    def _divides(self) -> Preprocessing:
        if min(self.std) <= 0:
            raise ValueError("std must be greater than 0")
        return self


class BackboneCard(_Part):
    """What is known of a backbone without a byte of its weights."""

    name: str = Field(default="", description="The name; the file's own for a card in a file of its own.")
    title: str = Field(min_length=1, description="The name used in tables.")
    family: str = Field(default="", description="How it was trained, for example 'DINOv2'.")
    domain: str = Field(default="", description="What images it was trained on.")
    parameters: int | None = Field(default=None, ge=1, description="Parameters without a classifier.")
    licence: str = Field(default="unknown", description="Licence of the weights.")
    home: str = Field(default="", description="Address of the publisher's page.")
    citation: str = Field(default="", description="How to cite it.")
    unverified: tuple[str, ...] = Field(
        default=(), description="Facts of this card that were not seen in the publisher's files."
    )
    architecture: Architecture = Field(default=Architecture(), description="What it is made of.")
    source: Source = Field(default=Source(), description="Where the weights are.")
    keys: KeyRecipe = Field(default=KeyRecipe(), description="How the weights' keys are read.")
    preprocessing: Preprocessing | None = Field(default=None, description="What images it expects; none if unknown.")
    folder: Path | None = Field(default=None, exclude=True, description="Set by petlbench: where a local one lies.")

    @property
    def timm(self) -> str:
        """The architecture in timm."""
        return self.architecture.timm or self.name.partition(".")[0]


def load_backbone_card(file: Path) -> BackboneCard:
    """The card that a TOML file holds, checked.

    Raises:
        InputError: When the file cannot be read, or a key is unknown, missing or has a wrong value.
    """
    values = read_toml(file, what="backbone card", limit=_LIMIT)
    return checked_card({"name": file.stem, **values}, file).model_copy(update={"folder": file.parent})


def checked_card(values: Mapping[str, Any], origin: object) -> BackboneCard:
    """The card of plain values.

    Args:
        values: The values by key.
        origin: Where they stand, for the error.

    Raises:
        InputError: When a key is unknown, missing or has a wrong value.
    """
    try:
        return BackboneCard.model_validate(dict(values))
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        texts = {"extra_forbidden": f"unknown key '{printable(key)}'", "missing": f"the key '{key}' is missing"}
        text = texts.get(first["type"], f"{printable(key)}: {first['msg'].removeprefix('Value error, ')}")
        raise InputError(
            f"the backbone card {printable(str(origin))}: {text}",
            hint="docs/backbones.md describes every key of a card",
            kind="bad_card",
        ) from error

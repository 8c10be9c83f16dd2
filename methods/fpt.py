"""Fine-grained prompt tuning: FPT (MICCAI 2024) and FPT+ (TNNLS 2025).

A frozen backbone reads the image at high resolution, a light side network at low resolution; learnable prompts fetch
what the backbone saw by cross-attention. Only the most attended tokens of the backbone are kept, and because nothing
in front of them is learned they are computed once per image.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal, cast

import torch
from pydantic import Field
from timm.models.vision_transformer import Block, VisionTransformer
from torch import Tensor, nn

from petlbench import (
    Adapted,
    Backbone,
    BackboneInfo,
    FrozenFeatures,
    ImportantTokens,
    Inputs,
    Method,
    MethodCard,
    MethodSettings,
    TrainingDefaults,
    ViewSpec,
    attend_in_narrow_heads,
    fast_learned_linear,
    has_narrow_heads,
)
from petlbench.methods._fusion import FusionModule, UnfusedPrompts

__all__ = [
    "FPT",
    "FPTPlus",
    "FPTPlusSettings",
    "FPTSettings",
    "FusionModule",
    "ImportantTokens",
    "SideNetwork",
    "UnfusedPrompts",
]


def _layers_field(default: str) -> Any:
    return Field(
        default,
        pattern=r"^(all|later_half|\d+(,\d+)*)$",
        description="backbone layers that are read; numbers count from 0",
        json_schema_extra={"bounds": "all | later_half | numbers as in 3,7,11"},
    )


class FPTSettings(MethodSettings):
    """Settings of FPT; the defaults are the authors'.

    The four switches turn FPT's parts off one by one, as the paper's Table 2 does; preloading is a choice of the run.
    """

    num_prompts: int = Field(
        16, ge=1, le=1024, description="fine-grained prompts a layer, P", json_schema_extra={"search": [8, 16, 32]}
    )
    reduction: int = Field(8, ge=1, le=64, description="backbone width over side network width")
    token_ratio: float = Field(0.2, gt=0, le=1, description="share of the backbone's tokens that is kept, r")
    token_score: Literal["global", "class_token", "all_heads"] = Field(
        "global",
        description="importance of a token: attention from all tokens, from the class token alone, or from all tokens "
        "in all heads, which then keep the same ones and take half the disk with --cache-form tokens",
    )
    layers: str = _layers_field("all")
    coarse_size: int = Field(224, ge=1, description="largest side of the side network's image, in pixels")
    dropout: float = Field(0.5, ge=0, lt=1, description="dropout on the fused prompts")
    side_only: bool = Field(False, description="the side network alone: no prompts, and no backbone")
    fusion: bool = Field(
        True, description="prompts ask the backbone by cross-attention; off, they enter the side network as they are"
    )
    asymmetric_input: bool = Field(
        True, description="the side network reads the coarse view; off, it reads an image as large as the backbone's"
    )
    token_selection: bool = Field(True, description="only the important tokens are kept; off, all of them are")
    implementation: Literal["lean", "published"] = Field(
        "lean",
        description="published: as the authors' code computes it; lean: without what it computes and throws away (the "
        "prompts' own outputs, and all but the class token's behind the last block) and without copies of keys and "
        "values for the backward pass; the results are the same",
    )

    @property
    def reads_backbone(self) -> bool:
        """Whether anything is taken from the frozen backbone."""
        return self.fusion and not self.side_only


class FPTPlusSettings(FPTSettings):
    """Settings of FPT+; the defaults are the authors'."""

    layers: str = _layers_field("later_half")
    coarse_size: int = Field(128, ge=1, description="largest side of the side network's image, in pixels")


class FPT(Method[FPTSettings]):
    """FPT: prompts of the side network's width, projected to the backbone's to ask its keys and values."""

    card = MethodCard(
        name="fpt",
        title="FPT",
        family="side network",
        year=2024,
        paper="https://arxiv.org/abs/2403.07576",
        summary="Learns a low-resolution side network that asks the frozen high-resolution backbone by prompts.",
    )
    Settings: ClassVar[type[MethodSettings]] = FPTSettings
    # The learning rate of the authors' first release, one for all datasets; later ones give each dataset its own.
    defaults = TrainingDefaults(
        lr=2e-3,
        weight_decay=0.1,
        lr_range=(5e-5, 5e-3),
        published_lr={
            "cmmd": 5e-5,
            "covid": 1e-4,
            "isic2018": 1e-4,
            "messidor2": 2e-4,
            "ddr": 5e-4,
            "chncxr": 5e-4,
            "ddsm": 1e-3,
            "isic2016": 5e-3,
        },
    )

    def refuse(self, backbone: BackboneInfo) -> str | None:
        """Needs keys and values to read and a side network whose width its heads can share."""
        if lacking := backbone.lacks("blocks", "keys_values", "class_token"):
            return lacking
        layers = self._layers(backbone)
        if list(layers) != sorted(set(layers)) or layers[-1] >= backbone.blocks:
            return f"layers {self.settings.layers} are not numbers below {backbone.blocks} in rising order"
        return backbone.cannot_be_narrowed(self.settings.reduction)

    def views(self, backbone: BackboneInfo, image_size: int) -> dict[str, ViewSpec]:
        """The fine view is for the frozen backbone and never augmented; the coarse one is the side network's."""
        side = min(self.settings.coarse_size, image_size) if self.settings.asymmetric_input else image_size
        coarse = {"coarse": ViewSpec(max(side // backbone.patch, 1) * backbone.patch)}
        return {"fine": ViewSpec(image_size, augment=False), **coarse} if self.settings.reads_backbone else coarse

    def features(self, backbone: BackboneInfo) -> FrozenFeatures | None:
        """Keys and values of the important tokens; none where nothing is taken from the backbone."""
        if not self.settings.reads_backbone:
            return None
        ratio = self.settings.token_ratio if self.settings.token_selection else 1.0
        return ImportantTokens(self._layers(backbone), ratio, self.settings.token_score)

    def adapt(self, backbone: Backbone, num_classes: int) -> Adapted:
        """Build the side network with its fusion module; the backbone stays outside the trained module."""
        info = backbone.info
        module = SideNetwork(
            self._prompts(info),
            info,
            depth=len(self._layers(info)),
            image_size=self.views(info, info.image_size)["coarse"].size,
            width=info.width // self.settings.reduction,
            num_classes=num_classes,
            block=PromptedBlock if self.settings.implementation == "lean" else PublishedBlock,
        )
        learnable = frozenset(name for name, _ in module.named_parameters())
        # The authors count the frozen model with the classifier that came with its weights.
        return Adapted(module, learnable, published_extra_total=info.classes * (info.width + 1))

    def _layers(self, info: BackboneInfo) -> tuple[int, ...]:
        named = {"all": range(info.blocks), "later_half": range(info.blocks // 2, info.blocks)}
        layers = self.settings.layers
        return tuple(named[layers]) if layers in named else tuple(map(int, layers.split(",")))

    def _prompts(self, info: BackboneInfo) -> FusionModule | UnfusedPrompts | None:
        """Make what gives each block of the side network its prompts; none for the side network alone."""
        if self.settings.side_only:
            return None
        layers, count, side = len(self._layers(info)), self.settings.num_prompts, info.width // self.settings.reduction
        if not self.settings.fusion:
            return UnfusedPrompts(layers, count, self._prompt_width(info), side, self.settings.dropout)
        return FusionModule(
            layers=layers,
            num_prompts=count,
            prompt_width=self._prompt_width(info),
            backbone_width=info.width,
            side_width=side,
            heads=info.heads,
            dropout=self.settings.dropout,
            lean=self.settings.implementation == "lean",
        )

    def _prompt_width(self, info: BackboneInfo) -> int:
        return info.width // self.settings.reduction


class FPTPlus(FPT):
    """FPT+: prompts of the backbone's width, normed instead of projected, on the later half of the layers."""

    card = MethodCard(
        name="fpt_plus",
        title="FPT+",
        family="side network",
        year=2025,
        paper="https://arxiv.org/abs/2408.02426",
        summary="FPT with full-width prompts, the later half of the layers and a smaller side input.",
    )
    Settings = FPTPlusSettings

    def _prompt_width(self, info: BackboneInfo) -> int:
        return info.width


class SideNetwork(nn.Module):
    """A light vision transformer on the coarse view, with prompts beside its tokens in every block.

    Args:
        prompts: Makes them, or None for none.
        info: The frozen backbone; heads and patch are shared with it.
        depth: Number of blocks, L'.
        image_size: Height and width of the coarse view in pixels.
        width: Channels of a token, S.
        num_classes: Number of classes C.
        block: Kind of its blocks.
    """

    def __init__(
        self,
        prompts: FusionModule | UnfusedPrompts | None,
        info: BackboneInfo,
        *,
        depth: int,
        image_size: int,
        width: int,
        num_classes: int,
        block: type[PromptedBlock | PublishedBlock],
    ) -> None:
        super().__init__()
        self.fusion = prompts
        self.side: Any = VisionTransformer(
            img_size=image_size,
            patch_size=info.patch,
            embed_dim=width,
            depth=depth,
            num_heads=info.heads,
            num_classes=num_classes,
            block_fn=block,
        )

    def forward(self, inputs: Inputs) -> Tensor:
        """Map the coarse view (B, 3, h, w) and keys and values (B, L', H, K, D / H) to logits (B, C)."""
        tokens = self.side._pos_embed(self.side.patch_embed(inputs.views["coarse"]))
        last = len(self.side.blocks) - 1
        for layer, block in enumerate(self.side.blocks):
            # Only the class token is classified.
            count = tokens.shape[1] if layer < last else 1
            tokens = block(tokens, self._prompts(layer, inputs, tokens), count)
        return cast("Tensor", self.side.head(self.side.norm(tokens)[:, 0]))

    def _prompts(self, layer: int, inputs: Inputs, tokens: Tensor) -> Tensor:
        """Fresh prompts of one block, (B, P, S), beside its tokens (B, M, S); no prompts at all where none are made."""
        if self.fusion is None:
            return tokens[:, :0]
        # len() would be a plain number, which an exported graph could not vary.
        return cast("Tensor", self.fusion(layer, inputs, tokens.shape[0]).to(tokens.dtype))


class PromptedBlock(Block):
    """A transformer block in which tokens see prompts behind them.

    What would become of the prompts themselves is thrown away in any case, and not computed: they ask nothing. Nor do
    tokens that nobody reads behind the block.
    """

    def forward(self, tokens: Tensor, prompts: Tensor, count: int) -> Tensor:  # type: ignore[override]  # see above
        """Run tokens (B, M, S), with prompts (B, P, S) as keys and values beside them, and return the first ones."""
        with fast_learned_linear(tokens):
            seen = self.norm1(torch.cat([tokens, prompts], dim=1))
            tokens = tokens[:, :count] + self._read(seen, count)
            return cast("Tensor", tokens + self.mlp(self.norm2(tokens)))

    def _read(self, seen: Tensor, count: int) -> Tensor:
        """Let the first tokens attend to all that is seen, (B, M + P, S)."""
        attention: Any = self.attn
        packed = attention.qkv(seen).unflatten(-1, (3, attention.num_heads, -1))
        if attention.fused_attn and has_narrow_heads(packed, count):
            return cast("Tensor", attention.proj(attend_in_narrow_heads(packed, count)))
        query, key, value = packed.permute(2, 0, 3, 1, 4).unbind(0)
        query = query[:, :, :count]
        if attention.fused_attn:
            read = nn.functional.scaled_dot_product_attention(query, key, value)
        else:
            read = ((query * attention.scale) @ key.transpose(-2, -1)).softmax(dim=-1) @ value
        return cast("Tensor", attention.proj(read.transpose(1, 2).flatten(2)))


class PublishedBlock(Block):
    """The same as the authors compute it: prompts go through the whole block and are cut off behind it."""

    def forward(self, tokens: Tensor, prompts: Tensor, count: int) -> Tensor:  # type: ignore[override]  # as above
        """Run tokens (B, M, S), with prompts (B, P, S) beside them, and return the first ones."""
        return super().forward(torch.cat([tokens, prompts], dim=1))[:, :count]

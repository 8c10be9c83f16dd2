"""What a backbone is: a timm vision transformer, probed for its structure; the only file that knows timm's names."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, cast

import timm
import torch
from timm.models import PretrainedCfg
from timm.models import vision_transformer as vit
from torch import Tensor, nn

from petlbench.errors import InputError, unknown_name

__all__ = [
    "DEFAULT_BACKBONE",
    "Backbone",
    "BackboneInfo",
    "FusedAttentionSwitch",
    "SplitQKV",
    "build_backbone",
    "probe_backbone",
    "resolve_backbone",
    "set_attention_kernel",
]

# ViT-B/16 of ImageNet-21k, fine-tuned at 384: the checkpoint that the FPT papers adapt. timm's own default for the
# bare name is the AugReg recipe, which is another model.
DEFAULT_BACKBONE = "vit_base_patch16_384.orig_in21k_ft_in1k"


@dataclass(frozen=True)
class BackboneInfo:
    """The structure of a backbone at one image size.

    Args:
        name: timm's name with its weight tag, ``architecture.tag``.
        image_size: Height and width that the position table is made for, in pixels.
        native_size: Height and width that the weights were trained at, in pixels.
        blocks: Number of transformer blocks.
        width: Channels of a token, D.
        heads: Attention heads, H.
        patch: Height and width of a patch in pixels.
        prefix_tokens: Class, distillation and register tokens in front of the patches.
        classes: Outputs of the classifier that came with the weights and is left out.
        parameters: Number of parameters without that classifier.
        mean: Mean per colour channel that the weights expect, images in 0 to 1.
        std: Standard deviation per colour channel.
        interpolation: How the weights' images were resized.
        capabilities: What a method may rely on: ``blocks`` (a column of
            them), ``fused_qkv`` (pre-norm blocks whose attention has one layer for queries, keys and values),
            ``class_token``, ``register_tokens``.
    """

    name: str
    image_size: int
    native_size: int
    blocks: int
    width: int
    heads: int
    patch: int
    prefix_tokens: int
    classes: int
    parameters: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    interpolation: str
    capabilities: frozenset[str]

    @property
    def tokens(self) -> int:
        """Number of tokens N, prefix tokens included."""
        return (self.image_size // self.patch) ** 2 + self.prefix_tokens

    def lacks(self, *needed: str) -> str | None:
        """Say which of the needed capabilities are missing, or return None when all are there."""
        missing = [name for name in needed if name not in self.capabilities]
        return f"{self.name} has no {' and no '.join(missing)}" if missing else None


class SplitQKV(nn.Module):
    """A fused query-key-value layer taken apart, so that each part can be adapted alone.

    Args:
        fused: timm's fused layer, D -> 3 D; its parameters are copied.
    """

    def __init__(self, fused: nn.Linear) -> None:
        super().__init__()
        self.q, self.k, self.v = (_part_of(fused, index) for index in range(3))

    def forward(self, x: Tensor) -> Tensor:
        """Map tokens (B, N, D) to queries, keys and values side by side, (B, N, 3 D)."""
        return torch.cat([self.q(x), self.k(x), self.v(x)], dim=-1)


class FusedAttentionSwitch(nn.Module):
    """Base of attention layers that can run eager or fused; timm's attention layers carry the same attribute."""

    fused_attn: bool = True


class Backbone:
    """A pre-trained vision transformer without its classifier.

    Args:
        info: Its structure.
        module: The timm model.
    """

    def __init__(self, info: BackboneInfo, module: nn.Module) -> None:
        self.info = info
        self.module = module

    @property
    def device(self) -> torch.device:
        """Where the backbone lives."""
        return next(self.module.parameters()).device

    def pooled(self, image: Tensor) -> Tensor:
        """Compute the final feature, as the weights' own classifier would read it.

        Args:
            image: Normalised images, (B, 3, image_size, image_size).

        Returns:
            Features, (B, D).
        """
        model = cast("Any", self.module)
        return cast("Tensor", model.forward_head(model.forward_features(image), pre_logits=True))

    def queries_keys_values(self, image: Tensor, layers: Sequence[int]) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Run the blocks and yield what the attention of the wanted layers sees.

        Nothing is computed after the last wanted layer's queries, keys and values.

        Args:
            image: Normalised images, (B, 3, image_size, image_size).
            layers: Layers (0-based, ascending).

        Yields:
            Queries, keys and values of each wanted layer in turn, each (B, H, N, D / H), not scaled.
        """
        tokens = self._embedded(image)
        wanted, last = set(layers), max(layers)
        for index, block in enumerate(self.blocks()):
            if index == last:
                yield _heads(block.attn, block.attn.qkv(block.norm1(tokens)))
                return
            if index in wanted:
                captured: list[Tensor] = []
                # The block runs as timm wrote it; the hook only looks on.
                hook = block.attn.qkv.register_forward_hook(lambda _m, _i, out, seen=captured: seen.append(out))
                try:
                    tokens = block(tokens)
                finally:
                    hook.remove()
                yield _heads(block.attn, captured[0])
            else:
                tokens = block(tokens)

    def pooled_through(
        self, image: Tensor, enter: Callable[[int, Tensor], Tensor], leave: Callable[[Tensor], Tensor]
    ) -> Tensor:
        """Compute the final feature while something is done to the tokens on the way.

        Args:
            image: Normalised images, (B, 3, image_size, image_size).
            enter: Given a block's number and the tokens (B, N, D) in front of it, returns what the block reads.
            leave: Given the tokens behind the last block, returns those that the final feature is made of.

        Returns:
            Features, (B, D).
        """
        model = cast("Any", self.module)
        tokens = self._embedded(image)
        for layer, block in enumerate(self.blocks()):
            tokens = block(enter(layer, tokens))
        return cast("Tensor", model.forward_head(model.norm(leave(tokens)), pre_logits=True))

    def _embedded(self, image: Tensor) -> Tensor:
        """Turn images into what the first block reads, (B, N, D)."""
        model = cast("Any", self.module)
        return cast("Tensor", model.norm_pre(model.patch_drop(model._pos_embed(model.patch_embed(image)))))

    def blocks(self) -> Sequence[Any]:
        """The transformer blocks, each with an ``attn`` and an ``mlp`` that can be replaced in place."""
        return list(cast("Any", self.module).blocks)

    def split_qkv(self) -> None:
        """Take every fused query-key-value layer apart, in place; the outputs stay the same."""
        for block in self.blocks():
            block.attn.qkv = SplitQKV(block.attn.qkv)

    def digest(self) -> str:
        """Hash the weights: SHA-256 over names, shapes, types and bytes of all parameters and buffers."""
        digest = hashlib.sha256()
        for name, tensor in sorted(self.module.state_dict().items()):
            digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}\n".encode())
            digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()


def resolve_backbone(name: str) -> str:
    """Complete a timm name with its weight tag, so that a config says which weights it means.

    Args:
        name: ``architecture`` or ``architecture.tag``.

    Returns:
        ``architecture.tag``, or the bare architecture when timm knows no tag for it.

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
    known = timm.get_pretrained_cfg(architecture) if not tag else None
    return f"{architecture}.{known.tag}" if known is not None and known.tag else name


@cache
def probe_backbone(name: str, image_size: int | None = None) -> BackboneInfo:
    """Read a backbone's structure without loading or allocating it.

    Args:
        name: A name from `resolve_backbone`.
        image_size: Height and width in pixels; None for the size that the weights were trained at.

    Raises:
        InputError: When it is no plain vision transformer, or the image size is no multiple of its patch.
    """
    native = _pretrained_cfg(name).input_size[-1]
    size = native if image_size is None else image_size
    _check_image_size(name, size)
    with torch.device("meta"):
        return _info(name, size, native, _create(name, size))


def build_backbone(name: str, image_size: int, weights: str, device: torch.device) -> Backbone:
    """Build a backbone and give it its weights.

    Args:
        name: A name from `resolve_backbone`.
        image_size: Height and width in pixels; the position table is resized to it.
        weights: ``default`` (the hub), ``none`` (random, from torch's global generator), or a file.
        device: Where to put it; on ``meta`` no weight is read.

    Raises:
        InputError: When the weights cannot be had or belong to another model.
    """
    from petlbench.weights import load_weights

    info = probe_backbone(name, image_size)
    if device.type == "meta":
        with device:
            return Backbone(info, _create(name, image_size))
    module = _create(name, image_size)
    load_weights(module, name, weights)
    return Backbone(info, module.to(device))


def set_attention_kernel(module: nn.Module, kernel: str) -> None:
    """Choose between explicit attention and torch's fused kernels in every attention layer.

    Args:
        module: Anything that holds timm attention layers or `FusedAttentionSwitch`.
        kernel: ``eager``, ``fused``, or ``auto`` (fused where the layer offers it).
    """
    for layer in module.modules():
        if hasattr(layer, "fused_attn"):
            cast("Any", layer).fused_attn = kernel != "eager"


def _tagged(architecture: str) -> list[str]:
    return [name for name in timm.list_pretrained() if name.partition(".")[0] == architecture]


def _pretrained_cfg(name: str) -> PretrainedCfg:
    return timm.get_pretrained_cfg(name) or PretrainedCfg()


def _create(name: str, image_size: int) -> nn.Module:
    try:
        return timm.create_model(name, pretrained=False, img_size=image_size, num_classes=0)
    except TypeError as error:
        raise _not_a_vit(name) from error


def _check_image_size(name: str, size: int) -> None:
    with torch.device("meta"):
        model: Any = _create(name, _pretrained_cfg(name).input_size[-1])
    if "blocks" not in _capabilities(model):
        raise _not_a_vit(name)
    patch = model.patch_embed.patch_size[0]
    if size < patch or size % patch:
        near = sorted({max(patch, below) for below in (size // patch * patch, (size // patch + 1) * patch)})
        raise InputError(
            f"image size {size} is not a multiple of the patch of {name}, which is {patch} pixels",
            hint=f"use --image-size {' or '.join(map(str, near))}",
            kind="bad_image_size",
        )


def _info(name: str, size: int, native: int, module: nn.Module) -> BackboneInfo:
    model = cast("Any", module)
    cfg = _pretrained_cfg(name)
    return BackboneInfo(
        name=name,
        image_size=size,
        native_size=native,
        blocks=len(model.blocks),
        width=model.embed_dim,
        heads=model.blocks[0].attn.num_heads,
        patch=model.patch_embed.patch_size[0],
        prefix_tokens=model.num_prefix_tokens,
        classes=cfg.num_classes,
        parameters=sum(tensor.numel() for tensor in module.parameters()),
        mean=cast("tuple[float, float, float]", tuple(cfg.mean)),
        std=cast("tuple[float, float, float]", tuple(cfg.std)),
        interpolation=cfg.interpolation,
        capabilities=_capabilities(model),
    )


def _capabilities(model: Any) -> frozenset[str]:
    found = set()
    blocks = getattr(model, "blocks", None)
    if isinstance(blocks, nn.ModuleList | nn.Sequential) and all(hasattr(block, "attn") for block in blocks):
        if all(hasattr(model, name) for name in ("num_prefix_tokens", "_pos_embed", "embed_dim")) and _cuts_patches(
            model
        ):
            found.add("blocks")
        if isinstance(model, vit.VisionTransformer) and all(_is_plain(block) for block in blocks):
            found.add("fused_qkv")
    if getattr(model, "cls_token", None) is not None:
        found.add("class_token")
    if getattr(model, "reg_token", None) is not None:
        found.add("register_tokens")
    return frozenset(found)


def _is_plain(block: Any) -> bool:
    # timm's other blocks and attentions place their norms elsewhere, turn queries and keys by position, or read the
    # fused weight past its layer.
    attention: Any = vit.Attention  # type: ignore[attr-defined, unused-ignore]
    return type(block) is vit.Block and type(block.attn) is attention and isinstance(block.attn.qkv, nn.Linear)


def _cuts_patches(model: Any) -> bool:
    """Whether the image is cut into patches directly, rather than read by a convolutional network first."""
    embedding: Any = getattr(model, "patch_embed", None)
    patch = getattr(embedding, "patch_size", None)
    if not (isinstance(patch, tuple) and hasattr(embedding, "num_patches") and hasattr(embedding, "img_size")):
        return False
    return bool(embedding.num_patches == (embedding.img_size[0] // patch[0]) ** 2)


def _not_a_vit(name: str) -> InputError:
    return InputError(
        f"backbone '{name}' is not a plain vision transformer that petlbench can adapt",
        hint="name one of timm's ViTs, for example vit_base_patch16_384 or vit_tiny_patch16_224",
        kind="unsupported_backbone",
    )


def _heads(attention: Any, qkv: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Split (B, N, 3 D) into queries, keys and values per head, each (B, H, N, D / H)."""
    batch, tokens, _ = qkv.shape
    parts = qkv.reshape(batch, tokens, 3, attention.num_heads, -1).permute(2, 0, 3, 1, 4)
    query, key, value = parts.unbind(0)
    return attention.q_norm(query), attention.k_norm(key), value


def _part_of(fused: nn.Linear, index: int) -> nn.Linear:
    """Copy one third of a fused layer's rows into a layer of its own."""
    rows = fused.out_features // 3
    here = slice(index * rows, (index + 1) * rows)
    with torch.device("meta"):
        part = nn.Linear(fused.in_features, rows, bias=fused.bias is not None)
    part.weight = nn.Parameter(fused.weight.detach()[here].clone(), requires_grad=fused.weight.requires_grad)
    if fused.bias is not None:
        part.bias = nn.Parameter(fused.bias.detach()[here].clone(), requires_grad=fused.bias.requires_grad)
    return part

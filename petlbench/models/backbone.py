"""A backbone at work: its final feature, its blocks, and what goes on between them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from functools import cache, partial
from typing import Any, cast

import torch
from timm.models.convnext import ConvNeXt
from timm.models.efficientnet import EfficientNet
from timm.models.resnet import ResNet
from timm.models.swin_transformer import SwinTransformer
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from petlbench.models.info import BackboneInfo

# Where timm keeps the linear layer that plays a part, from the block on; the first that is there is taken. A gated MLP
# has two layers in the place of the first one.
_PATHS: Mapping[str, tuple[tuple[str, ...], ...]] = {
    "q": (("attn.qkv.q",), ("attn.q_proj",)),
    "k": (("attn.qkv.k",), ("attn.k_proj",)),
    "v": (("attn.qkv.v",), ("attn.v_proj",)),
    "proj": (("attn.proj",),),
    "fc1": (("mlp.fc1",), ("mlp.fc1_g", "mlp.fc1_x")),
    "fc2": (("mlp.fc2",),),
}


Attend = Callable[[Tensor, Tensor, Tensor], Tensor]


class AttentionKernel(TorchFunctionMode):
    """Puts a function with the arguments of ``scaled_dot_product_attention`` in the place of torch's."""

    def __init__(self, attend: Callable[..., Tensor]) -> None:
        super().__init__()
        self._attend = attend

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """The result of one function; attention by the one in its place."""
        replaced = func is nn.functional.scaled_dot_product_attention
        return (self._attend if replaced else func)(*args, **(kwargs or {}))


def plain_attention(attend: Attend) -> AttentionKernel:
    """Puts a function in the place of torch's fused attention where all tokens are attended to alike."""
    return AttentionKernel(partial(_where_plain, attend))


class FusedAttentionSwitch(nn.Module):
    """Base of attention layers that can run eager or fused; timm's attention layers carry the same attribute."""

    fused_attn: bool = True


class Backbone:
    """A pre-trained vision transformer without its classifier: its structure, timm's module, the weights in words."""

    def __init__(self, info: BackboneInfo, module: nn.Module, weights: str = "") -> None:
        self.info, self.module, self.weights = info, module, weights

    @property
    def device(self) -> torch.device:
        """Where the backbone lives."""
        return next(self.module.parameters()).device

    def pooled(self, image: Tensor) -> Tensor:
        """The final feature (B, D) of normalised images (B, 3, H, W), as the weights' own classifier would read it."""
        model = cast("Any", self.module)
        return cast("Tensor", model.forward_head(model.forward_features(image), pre_logits=True))

    def pooled_from(self, tokens: Tensor) -> Tensor:
        """The final feature (B, D) of tokens (B, N, D) behind the last block, not yet normed (needs ``isotropic``)."""
        model = cast("Any", self.module)
        return cast("Tensor", model.forward_head(model.norm(tokens), pre_logits=True))

    def pooled_through(
        self, image: Tensor, enter: Callable[[int, Tensor], Tensor], leave: Callable[[Tensor], Tensor]
    ) -> Tensor:
        """The final feature (B, D) where something is done to the tokens on the way (needs ``isotropic``).

        Args:
            image: Normalised images, (B, 3, image_size, image_size).
            enter: Given a block's number and the tokens (B, N, D) in front of it, returns what the block reads.
            leave: Given the tokens behind the last block, returns those that the final feature is made of.
        """
        tokens, positions = self._embedded(image)
        for layer, block in enumerate(self.blocks()):
            tokens = block(enter(layer, tokens), **positions[layer])
        return self.pooled_from(leave(tokens))

    def states(self, image: Tensor) -> Iterator[Tensor]:
        """The L + 1 states of the tokens, each (B, N, D): before each block, behind the last (needs ``isotropic``)."""
        tokens, positions = self._embedded(image)
        for layer, block in enumerate(self.blocks()):
            yield tokens
            tokens = block(tokens, **positions[layer])
        yield tokens

    def queries_keys_values(
        self, image: Tensor, layers: Sequence[int], attend: Attend | None = None
    ) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """The queries, keys and values of some layers' attention (needs ``keys_values``).

        Nothing is computed behind the last of these layers' queries, keys and values.

        Args:
            image: Normalised images, (B, 3, image_size, image_size).
            layers: Layers (0-based, ascending).
            attend: Called in the place of the fused attention kernel in these layers but the last, with queries, keys
                and values, each (B, H, N, D / H); returns what the queries read, of the same shape. Layers that
                compute attention explicitly do not call it.

        Yields:
            Queries, keys and values of each of the layers in turn, each (B, H, N, D / H), not scaled.
        """
        for block, _, qkv in self._products(image, layers, attend, tokens_too=False):
            yield _heads(block.attn, qkv)

    def attention_inputs(
        self, image: Tensor, layers: Sequence[int], attend: Attend | None = None
    ) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor]]:
        """The same with the normed tokens, (B, N, D), that queries, keys and values are made of, in front of them."""
        for block, normed, qkv in self._products(image, layers, attend, tokens_too=True):
            if normed is not None:
                yield normed, *_heads(block.attn, qkv)

    def _products(
        self, image: Tensor, layers: Sequence[int], attend: Attend | None, *, tokens_too: bool
    ) -> Iterator[tuple[Any, Tensor | None, Tensor]]:
        """Each layer's block and the product of its normed tokens, which are held where they are wanted, too."""
        tokens, _ = self._embedded(image)
        last = max(layers)
        for index, block in enumerate(self.blocks()):
            if index == last:
                normed = block.norm1(tokens)
                qkv = block.attn.qkv(normed)
                normed = normed if tokens_too else None
                yield block, normed, qkv
                return
            if index in layers:
                captured: list[tuple[Tensor | None, Tensor]] = []
                # The block runs as timm wrote it; the hook only looks on.
                hook = block.attn.qkv.register_forward_hook(
                    lambda _m, given, out, into=captured: into.append((given[0] if tokens_too else None, out))
                )
                try:
                    with nullcontext() if attend is None else plain_attention(attend):
                        tokens = block(tokens)
                finally:
                    hook.remove()
                yield block, *captured[0]
            else:
                tokens = block(tokens)

    def key_value_maps(self, layer: int) -> tuple[Tensor, Tensor | None]:
        """The weight (2 D, D) and bias (2 D) that give a layer's keys and values of its normed tokens.

        The bias is None where there is none (needs ``linear_keys``).
        """
        qkv = self.blocks()[layer].attn.qkv
        width = qkv.in_features
        return qkv.weight[width:], None if qkv.bias is None else qkv.bias[width:]

    def answers(self, layer: int, queries: Tensor, tokens: Tensor) -> Tensor:
        """What a block makes of queries (B, T, D) that attend to its tokens (B, N, D) alone (needs ``keys_values``).

        The tokens do not see the queries, and no gradient reaches them.
        """
        block = self.blocks()[layer]
        attention = block.attn
        with torch.no_grad():
            _, key, value = _heads(attention, attention.qkv(block.norm1(tokens)))
        normed = block.norm1(queries)
        query, _, _ = _heads(attention, attention.qkv(normed))
        if attention.fused_attn:
            read = nn.functional.scaled_dot_product_attention(query, key, value)
        else:
            read = ((query * attention.scale) @ key.transpose(-2, -1)).softmax(dim=-1) @ value
        # Older versions of timm have neither of the two.
        read = getattr(attention, "norm", nn.Identity())(read.transpose(1, 2).flatten(2))
        if getattr(attention, "gate", None) is not None:
            read = read * attention.gate(normed).sigmoid()
        queries = queries + block.drop_path1(block.ls1(attention.proj_drop(attention.proj(read))))
        return cast("Tensor", queries + block.drop_path2(block.ls2(block.mlp(block.norm2(queries)))))

    def _embedded(self, image: Tensor) -> tuple[Tensor, list[dict[str, Any]]]:
        """What the first block reads of images, (B, N, D), and each block's rotary positions, if it has any."""
        model = cast("Any", self.module)
        embedded = model._pos_embed(model.patch_embed(image))
        if isinstance(embedded, Tensor):
            return cast("Tensor", model.norm_pre(embedded)), [{} for _ in self.blocks()]
        tokens, rope = embedded
        by_layer = rope is not None and getattr(model, "rope_mixed", False)
        positions = [{"rope": rope[layer] if by_layer else rope} for layer in range(self.info.blocks)]
        return cast("Tensor", model.norm_pre(tokens)), positions

    def blocks(self) -> list[Any]:
        """The transformer blocks in order, each with an ``attn`` and an ``mlp`` that can be replaced in place."""
        return [block for _, block in named_blocks(self.module)]

    def block_names(self) -> list[str]:
        """Names of the blocks inside the module, in order."""
        return [name for name, _ in named_blocks(self.module)]

    def linears(self, *parts: str) -> list[list[str]]:
        """Full names inside the module of the linear layers that play some parts, block by block.

        Parts are ``q``, ``k``, ``v`` (once `split_qkv` was called), ``proj`` (behind the attention), ``fc1``, ``fc2``.

        Raises:
            KeyError: When a block has no such layer.
        """
        return [
            [f"{name}.{path}" for part in parts for path in _paths(block, part)]
            for name, block in named_blocks(self.module)
        ]

    def replace(self, name: str, layer: nn.Module) -> None:
        """Put a layer in the place of the one that bears a name inside the module."""
        parent, _, last = name.rpartition(".")
        setattr(self.module.get_submodule(parent), last, layer)

    def split_qkv(self) -> None:
        """Take every fused query-key-value layer apart, in place; the outputs stay the same (needs ``qkv``)."""
        for block in self.blocks():
            _split(getattr(block, "attn", None))

    def fuse_qkv(self) -> None:
        """Put every layer that `split_qkv` took apart together again, in place; the outputs stay the same."""
        for block in self.blocks():
            _fuse(getattr(block, "attn", None))

    def expect_prefix_tokens(self, more: int) -> None:
        """Tell rotary attention of tokens behind the prefix tokens that have no position either."""
        for block in self.blocks():
            if hasattr(block.attn, "num_prefix_tokens"):
                block.attn.num_prefix_tokens += more

    def digest(self) -> str:
        """SHA-256 over names, shapes, types and bytes of all parameters and buffers, and what a card says beside."""
        digest = hashlib.sha256()
        if self.info.arguments:  # an activation, say, shows in no tensor
            digest.update(f"{self.info.timm} {sorted(self.info.arguments.items())}\n".encode())
        for name, tensor in sorted(self.module.state_dict().items()):
            digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}\n".encode())
            digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()


class SplitQKV(nn.Module):
    """timm's fused query-key-value layer, D -> 3 D, copied in three parts, so that each can be adapted alone."""

    def __init__(self, fused: nn.Linear) -> None:
        super().__init__()
        self.q, self.k, self.v = (_part_of(fused, index) for index in range(3))

    def forward(self, x: Tensor) -> Tensor:
        """Map tokens (B, N, D) to queries, keys and values side by side, (B, N, 3 D)."""
        return torch.cat([self.q(x), self.k(x), self.v(x)], dim=-1)


def named_blocks(model: Any) -> list[tuple[str, Any]]:
    """The blocks of a column of them, or of stages, by name; none where they are arranged in another way."""
    stages = {}
    if isinstance(model, EfficientNet):
        stages = {f"blocks.{index}": stage for index, stage in enumerate(cast("Any", model).blocks)}
    elif isinstance(model, ConvNeXt):
        stages = {f"stages.{index}.blocks": cast("Any", stage).blocks for index, stage in enumerate(model.stages)}
    elif isinstance(model, ResNet):
        stages = {name: getattr(model, name) for name in ("layer1", "layer2", "layer3", "layer4")}
    elif isinstance(getattr(model, "blocks", None), nn.ModuleList | nn.Sequential):
        stages = {"blocks": model.blocks}
    elif isinstance(model, SwinTransformer):
        stages = {f"layers.{index}.blocks": cast("Any", stage).blocks for index, stage in enumerate(model.layers)}
    return [(f"{name}.{index}", block) for name, blocks in stages.items() for index, block in enumerate(blocks)]


def freeze_statistics(module: nn.Module) -> None:
    """Let batch norms use the statistics that came with their weights, in training too, in place.

    Those of a batch would change the frozen backbone with every image that it sees, and a batch in parts would give
    other numbers than a whole one. Scale and shift stay what a method makes of them.
    """
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            kind: Any = type(layer)
            layer.__class__ = _with_frozen_statistics(kind)
            layer.eval()


class _FrozenStatistics(nn.Module):
    """Comes in front of a batch norm's own class."""

    def train(self, mode: bool = True) -> Any:
        """Stay in evaluation mode."""
        return super().train(False)


@cache
def _with_frozen_statistics(kind: Any) -> Any:
    return type(kind.__name__, (_FrozenStatistics, kind), {"__module__": kind.__module__})


def set_attention_kernel(module: nn.Module, kernel: str) -> None:
    """Set all attention layers to ``eager`` attention or torch's ``fused`` kernels; ``auto`` is fused."""
    for layer in module.modules():
        if hasattr(layer, "fused_attn"):
            cast("Any", layer).fused_attn = kernel != "eager"


def _where_plain(attend: Attend, *args: Any, **options: Any) -> Tensor:
    """Attention by a function, where all tokens are attended to alike; torch's own elsewhere."""
    plain = len(args) == 3 and not any(options.get(name) for name in ("dropout_p", "is_causal", "scale"))
    if plain and options.get("attn_mask") is None:
        return attend(*args)
    return nn.functional.scaled_dot_product_attention(*args, **options)


def _paths(block: nn.Module, part: str) -> tuple[str, ...]:
    """The layers of a block that play a part, as they stand in a plain block."""
    names = {name for name, _ in block.named_modules()}
    for paths in _PATHS[part]:
        if names.issuperset(paths):
            return paths
    raise KeyError(f"a {type(block).__name__} has no layer for '{part}'")


def _heads(attention: Any, qkv: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values per head, each (B, H, N, D / H), from (B, N, 3 D)."""
    batch, tokens, _ = qkv.shape
    parts = qkv.reshape(batch, tokens, 3, attention.num_heads, -1).permute(2, 0, 3, 1, 4)
    query, key, value = parts.unbind(0)
    return attention.q_norm(query), attention.k_norm(key), value


def _split(attention: Any) -> None:
    """Give the queries, keys and values of a timm attention layer a linear layer each, in place.

    One that has such layers already is left as it is.
    """
    if not isinstance(getattr(attention, "qkv", None), nn.Linear):
        return
    if not hasattr(attention, "q_proj"):
        attention.qkv = SplitQKV(attention.qkv)
        return
    # EVA keeps the biases beside its fused layer, none for the keys, and knows a form with three layers itself.
    parts = [_part_of(attention.qkv, index) for index in range(3)]
    for part, bias in zip(parts, (attention.q_bias, None, attention.v_bias), strict=True):
        part.bias = bias
    attention.q_proj, attention.k_proj, attention.v_proj = parts
    attention.qkv = attention.q_bias = attention.v_bias = None
    attention.was_fused = True


def _fuse(attention: Any) -> None:
    """Put back together what `_split` took apart, in place; a TypeError where a part is not merged yet."""
    qkv = getattr(attention, "qkv", None)
    if isinstance(qkv, SplitQKV):
        attention.qkv = _whole((qkv.q, qkv.k, qkv.v))
    elif getattr(attention, "was_fused", False):
        parts = (attention.q_proj, attention.k_proj, attention.v_proj)
        attention.qkv = _whole(parts)
        attention.q_bias, attention.v_bias = parts[0].bias, parts[2].bias
        attention.q_proj = attention.k_proj = attention.v_proj = None
        del attention.was_fused


def _whole(parts: tuple[nn.Linear, ...]) -> nn.Linear:
    """One layer of several side by side, with a bias where each of them has one."""
    for part in parts:
        if type(part) is not nn.Linear:
            raise TypeError(f"a {type(part).__name__} cannot be put back into a fused layer")
    with_bias = all(part.bias is not None for part in parts)
    with torch.device("meta"):
        whole = nn.Linear(parts[0].in_features, sum(part.out_features for part in parts), bias=with_bias)
    whole.weight = _joined([part.weight for part in parts])
    if with_bias:
        whole.bias = _joined([part.bias for part in parts])
    return whole


def _joined(parts: Sequence[Tensor]) -> nn.Parameter:
    return nn.Parameter(torch.cat([part.detach() for part in parts]), requires_grad=parts[0].requires_grad)


def _part_of(fused: nn.Linear, index: int) -> nn.Linear:
    """A layer of its own with a copy of one third of a fused layer's rows."""
    rows = fused.out_features // 3
    third = slice(index * rows, (index + 1) * rows)
    with torch.device("meta"):
        part = nn.Linear(fused.in_features, rows, bias=fused.bias is not None)
    part.weight = nn.Parameter(fused.weight.detach()[third].clone(), requires_grad=fused.weight.requires_grad)
    if fused.bias is not None:
        part.bias = nn.Parameter(fused.bias.detach()[third].clone(), requires_grad=fused.bias.requires_grad)
    return part

"""FPT and FPT+ in the plainest way that is not slow on purpose, as the reference of the benchmarks.

Everything is fp32 with explicit attention, as the papers' text has it: the attention matrix of every block is made as a
whole, the features of an image are one safetensors file, and the fusion module keeps whatever autograd keeps.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

__all__ = ["NaiveFPT", "extract", "load_features", "save_features"]


def extract(vit: Any, images: Tensor, layers: Sequence[int], ratio: float) -> tuple[Tensor, Tensor]:
    """Keys and values of the important tokens, each (B, layers, H, K, d), from the whole backbone."""
    tokens = embed(vit, images)
    keys, values = [], []
    for index, block in enumerate(vit.blocks):
        tokens, key, value, attention = run_block(block, tokens)
        if index in layers:
            kept = int(key.shape[2] * ratio)
            chosen = attention.mean(dim=2).topk(kept, dim=-1).indices.unsqueeze(-1).expand(-1, -1, -1, key.shape[-1])
            keys.append(key.gather(2, chosen))
            values.append(value.gather(2, chosen))
    return torch.stack(keys, dim=1), torch.stack(values, dim=1)


def save_features(folder: Path, first: int, keys: Tensor, values: Tensor) -> None:
    """Write one file an image, numbered from `first`."""
    for number, (key, value) in enumerate(zip(keys, values, strict=True), first):
        save_file(
            {"key_states": key.contiguous(), "value_states": value.contiguous()}, folder / f"{number}.safetensors"
        )


def load_features(folder: Path, numbers: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Read the files of a batch and stack them."""
    files = [load_file(folder / f"{number}.safetensors") for number in numbers]
    return torch.stack([file["key_states"] for file in files]), torch.stack([file["value_states"] for file in files])


class NaiveFPT(nn.Module):
    """The learned part; its parameters are called as petlbench calls them.

    Args:
        side: The side network.
        layers: Number of layers that are read.
        prompts: Prompts a layer.
        prompt_width: Width of a prompt: the side network's (FPT) or the backbone's (FPT+).
        width: Width of the backbone.
        heads: Attention heads of the backbone.
        dropout: Dropout on the fused prompts.
    """

    def __init__(
        self,
        side: VisionTransformer,
        *,
        layers: int,
        prompts: int,
        prompt_width: int,
        width: int,
        heads: int,
        dropout: float,
    ) -> None:
        super().__init__()
        self.plus = prompt_width == width
        self.heads = heads
        self.fusion = nn.Module()
        self.fusion.prompts = nn.Parameter(torch.randn(layers, prompts, prompt_width) * 1e-6)
        self.fusion.to_query = nn.LayerNorm(width) if self.plus else nn.Linear(prompt_width, width)
        self.fusion.to_side = nn.Linear(width, side.embed_dim)
        self.dropout = nn.Dropout(dropout)
        self.side: Any = side

    def fuse(self, layer: int, key: Tensor, value: Tensor) -> Tensor:
        """One layer's prompts (B, P, S), from its keys and values, each (B, H, K, d)."""
        fusion: Any = self.fusion
        prompts = fusion.prompts[layer].expand(len(key), -1, -1)
        query = fusion.to_query(prompts).unflatten(-1, (self.heads, -1)).transpose(1, 2)
        probabilities = (query @ key.transpose(-2, -1) / key.shape[-1] ** 0.5).softmax(dim=-1)
        read = (probabilities @ value).transpose(1, 2).flatten(2)
        fused = fusion.to_side(read + prompts) if self.plus else fusion.to_side(read) + prompts
        out: Tensor = self.dropout(fused)
        return out

    def forward(self, images: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """Logits (B, C) from coarse images and keys and values, each (B, layers, H, K, d)."""
        tokens = embed(self.side, images)
        count = tokens.shape[1]
        for layer, block in enumerate(self.side.blocks):
            prompts = self.fuse(layer, keys[:, layer], values[:, layer])
            tokens = run_block(block, torch.cat([tokens, prompts], dim=1))[0][:, :count]
        logits: Tensor = self.side.head(self.side.norm(tokens)[:, 0])
        return logits


def embed(vit: Any, images: Tensor) -> Tensor:
    tokens: Tensor = vit._pos_embed(vit.patch_embed(images))
    return tokens


def run_block(block: Any, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """A block's output, its keys and values (B, H, N, d), and its attention matrix (B, H, N, N)."""
    attention = block.attn
    batch, count, width = tokens.shape
    projected = attention.qkv(block.norm1(tokens)).reshape(batch, count, 3, attention.num_heads, -1)
    query, key, value = projected.permute(2, 0, 3, 1, 4).unbind(0)
    matrix = ((query * key.shape[-1] ** -0.5) @ key.transpose(-2, -1)).softmax(dim=-1)
    tokens = tokens + attention.proj((matrix @ value).transpose(1, 2).reshape(batch, count, width))
    return tokens + block.mlp(block.norm2(tokens)), key, value, matrix

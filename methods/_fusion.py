"""What gives the blocks of FPT's side network their prompts: by asking a frozen backbone, or as they are."""

from __future__ import annotations

from contextlib import nullcontext
from typing import cast

import torch
from torch import Tensor, nn

from petlbench import (
    FusedAttentionSwitch,
    Inputs,
    attend_to_stored,
    attend_to_tokens,
    dequantize,
    fast_learned_linear,
    new_head,
    restore_keys_values,
    stored_parts,
)

__all__ = ["FusionModule", "UnfusedPrompts"]


class FusionModule(FusedAttentionSwitch):
    """Lets learnable prompts read the backbone's keys and values (FPT, section 2.2).

    One set of maps serves all layers; each layer has prompts of its own. The prompt is added to what it read where
    the widths agree: behind the output map in FPT, in front of it in FPT+.

    Args:
        layers: Number of layers that are read, L'.
        num_prompts: Prompts a layer, P.
        prompt_width: Width of a prompt: the side network's (FPT) or the backbone's (FPT+).
        backbone_width: Width of the backbone, D.
        side_width: Width of the side network, S.
        heads: Attention heads of the backbone, H.
        dropout: Dropout on the fused prompts.
        lean: Whether keys and values are read in the precision that they are stored in, rather than kept for the
            backward pass in the order and precision that attention needs.
    """

    def __init__(
        self,
        *,
        layers: int,
        num_prompts: int,
        prompt_width: int,
        backbone_width: int,
        side_width: int,
        heads: int,
        dropout: float,
        lean: bool,
    ) -> None:
        super().__init__()
        self.heads, self.lean = heads, lean
        self.add_in_backbone_width = prompt_width == backbone_width
        self.prompts = nn.Parameter(torch.empty(layers, num_prompts, prompt_width))
        nn.init.normal_(self.prompts, std=1e-6)
        self.to_query: nn.Module = (
            nn.LayerNorm(backbone_width) if self.add_in_backbone_width else new_head(prompt_width, backbone_width)
        )
        self.to_side = new_head(backbone_width, side_width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, layer: int, inputs: Inputs, batch: int) -> Tensor:
        """Fuse one layer's prompts with what the backbone saw there.

        Args:
            layer: Which of the L' layers.
            inputs: Kept keys and values of all layers, each (B, L', H, K, D / H), or tokens that they are linear in.
            batch: Number of images B.

        Returns:
            Fused prompts, (B, P, S).
        """
        with fast_learned_linear(self.prompts) if self.lean else nullcontext():
            fused = self._fused(layer, inputs)
        return cast("Tensor", self.dropout(fused))

    def _fused(self, layer: int, inputs: Inputs) -> Tensor:
        prompts = self.prompts[layer]
        query = self.to_query(prompts).unflatten(-1, (self.heads, -1)).transpose(0, 1)
        attend = self._attend_to_tokens if "tokens" in inputs.features else self._attend_to_keys_values
        read = attend(layer, query, inputs).transpose(1, 2).flatten(2)
        fused = self.to_side(read + prompts) if self.add_in_backbone_width else self.to_side(read) + prompts
        return cast("Tensor", fused)

    def _attend_to_keys_values(self, layer: int, query: Tensor, inputs: Inputs) -> Tensor:
        key, value = (_layer_of(inputs, name, layer) for name in ("keys", "values"))
        if self.lean:
            return attend_to_stored(query, key, value)
        return self._attend_to_restored(query, dequantize(*key), dequantize(*value))

    def _attend_to_tokens(self, layer: int, query: Tensor, inputs: Inputs) -> Tensor:
        tokens, maps = _layer_of(inputs, "tokens", layer), inputs.shared
        rows = _layer_of(inputs, "rows", layer)[0] if "rows" in inputs.features else None
        stored = (tokens, maps[f"weight.{layer}"], maps.get(f"bias.{layer}"), rows)
        if self.lean:
            return attend_to_tokens(query, *stored)
        return self._attend_to_restored(query, *restore_keys_values(self.heads, *stored))

    def _attend_to_restored(self, query: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        query = query.expand(keys.shape[0], -1, -1, -1)
        if self.fused_attn:
            # Under autocast the queries come in half precision; the kernels want one type.
            keys, values = keys.to(query.dtype), values.to(query.dtype)
            return nn.functional.scaled_dot_product_attention(query, keys, values)
        scores: Tensor = (query * keys.shape[-1] ** -0.5) @ keys.transpose(-2, -1)
        return scores.softmax(dim=-1) @ values


def _layer_of(inputs: Inputs, name: str, layer: int) -> list[Tensor]:
    """One layer of a feature as it is stored, and of its scale where it has one."""
    return [part[:, layer] for part in stored_parts(inputs.features, name)]


class UnfusedPrompts(nn.Module):
    """Prompts that ask nothing of the backbone: what is left of the fusion module when its attention is taken out.

    Args:
        layers: Number of blocks that get prompts, L'.
        num_prompts: Prompts a block, P.
        prompt_width: Width of a prompt.
        side_width: Width of the side network, S; prompts of another width go through the output map.
        dropout: Dropout on the prompts.
    """

    def __init__(self, layers: int, num_prompts: int, prompt_width: int, side_width: int, dropout: float) -> None:
        super().__init__()
        self.prompts = nn.Parameter(torch.empty(layers, num_prompts, prompt_width))
        nn.init.normal_(self.prompts, std=1e-6)
        self.to_side: nn.Module = nn.Identity() if prompt_width == side_width else new_head(prompt_width, side_width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, layer: int, inputs: Inputs, batch: int) -> Tensor:
        """One block's prompts, (B, P, S)."""
        return cast("Tensor", self.dropout(self.to_side(self.prompts[layer]).expand(batch, -1, -1)))

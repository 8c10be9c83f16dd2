"""NOAH: prompts, LoRA and adapters in every block at once, each of a size of its own there."""

from __future__ import annotations

from typing import Any

import peft
from pydantic import Field
from torch import nn

from petlbench import (
    Adapted,
    Backbone,
    BackboneInfo,
    Method,
    MethodCard,
    MethodSettings,
    TrainingDefaults,
    new_head,
)
from petlbench.methods._branches import Behind, Bottleneck, learned_names
from petlbench.methods._peft import PeftMethod
from petlbench.methods._prompts import Prompted, drawn_prompts

__all__ = ["NOAH", "NOAHSettings"]


def _sizes(default: str, what: str) -> Any:
    return Field(
        default,
        pattern=r"^\d{1,3}(,\d{1,3})*$",
        max_length=400,
        description=f"{what}, block by block; more or fewer numbers than blocks are spread evenly; 0 for none",
        json_schema_extra={"search": [default, "1", "5", "10"], "bounds": "numbers to 999, as in 5 or 1,5,10"},
    )


class NOAHSettings(MethodSettings):
    """Sizes by block: what the authors' search found for the grading of diabetic retinopathy, of VTAB-1k's 19 tasks.

    Their search chooses among 1, 5 and 10.
    """

    prompts: str = _sizes("10,1,5,10,1,5,5,10,5,10,5,5", "prompts")
    lora: str = _sizes("1,1,10,5,5,10,1,10,10,5,10,1", "rank of the update of queries, keys and values")
    adapter: str = _sizes("1,1,5,5,10,10,10,5,1,10,10,1", "width of an adapter's middle")
    dropout: float = Field(
        0.1, ge=0, lt=1, description="dropout on prompts, on an update's input and in an adapter's middle"
    )


class NOAH(Method[NOAHSettings]):
    """Trains an architecture that NOAH's search found, not the search (NOAH, section 3).

    A block reads prompts of its own (VPT), adds one low-rank update to its queries, keys and values (LoRA) and has an
    adapter with the quick GELU behind its MLP. Prompts of a block with none of its own are those of the block before.
    The authors go on from the search's weights; here each module starts as in the method that it comes from.
    """

    card = MethodCard(
        name="noah",
        title="NOAH",
        family="mixed",
        year=2022,
        paper="https://arxiv.org/abs/2206.04673",
        summary="Learns prompts, a low-rank update and an adapter in every block, of sizes by block.",
    )
    Settings = NOAHSettings
    defaults = TrainingDefaults(lr=1e-3, weight_decay=1e-4, published_rates=(1e-3,))

    def refuse(self, backbone: BackboneInfo) -> str | None:
        """Needs any number of tokens, one layer for queries, keys and values, and something to learn."""
        if not any(sum(self._by_block(name, backbone.blocks)) for name in ("prompts", "lora", "adapter")):
            return f"prompts, lora and adapter are 0 in all of the {backbone.blocks} blocks"
        # Keys and values that can be read come from one layer that is called.
        return backbone.lacks("isotropic", "keys_values")

    def adapt(self, backbone: Backbone, num_classes: int) -> Adapted:
        """Put everything into the blocks, and make a head."""
        info, dropout = backbone.info, self.settings.dropout
        adapters, ranks = self._by_block("adapter", info.blocks), self._by_block("lora", info.blocks)
        prompts = nn.ParameterList(drawn_prompts(info, size) for size in self._by_block("prompts", info.blocks))
        for block, size in zip(backbone.blocks(), adapters, strict=True):
            if size:
                block.mlp = Behind(block.mlp, Bottleneck(info.width, size, 1.0, "quick_gelu", dropout))
        _update(backbone, ranks, dropout)
        module = Prompted(backbone, prompts, new_head(info.feature_width, num_classes), dropout)
        return Adapted(module, learned_names(module, ".adapter.", ".lora_A.", ".lora_B.") | _filled(prompts))

    def _by_block(self, name: str, blocks: int) -> list[int]:
        numbers = [int(number) for number in getattr(self.settings, name).split(",")]
        return [numbers[block * len(numbers) // blocks] for block in range(blocks)]


def _update(backbone: Backbone, ranks: list[int], dropout: float) -> None:
    """Put low-rank updates, scaled by one, on the blocks' layers of queries, keys and values."""
    names = {f"{name}.attn.qkv": rank for name, rank in zip(backbone.block_names(), ranks, strict=True) if rank}
    if names:
        config = peft.LoraConfig(
            target_modules=list(names), rank_pattern=names, alpha_pattern=names, lora_dropout=dropout
        )
        PeftMethod.inject(backbone.module, config)


def _filled(prompts: nn.ParameterList) -> set[str]:
    return {f"prompts.{index}" for index, tensor in enumerate(prompts) if tensor.numel()}

"""The reference of the benchmarks computes FPT and FPT+, too: it is checked by the same golden data."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from tests.bench.naive import NaiveFPT, extract
from tests.methods.golden import FILES, golden_backbone, read_golden, set_epsilon, side_state


@pytest.mark.parametrize("file", FILES)
def test_golden_data_hold_for_the_reference(file: str) -> None:
    golden = read_golden(file)
    config = golden.config
    vit: Any = golden_backbone(golden).module
    with torch.no_grad():
        keys, values = extract(vit, golden.tensors["in.lpm_image"], config["extract"], config["token_ratio"])
    for j in range(len(config["extract"])):
        torch.testing.assert_close(keys[:, j], golden.tensors[f"mid.key_states.{j}"], rtol=0, atol=1e-9)
        torch.testing.assert_close(values[:, j], golden.tensors[f"mid.value_states.{j}"], rtol=0, atol=1e-9)
    module = _naive(config)
    module.load_state_dict(side_state(golden.under("model."), module.side.patch_embed.grid_size[0]))
    logits = module(golden.tensors["in.side_image"], keys, values)
    torch.testing.assert_close(logits, golden.tensors["out.logits"], rtol=0, atol=1e-9)
    nn.functional.cross_entropy(logits, golden.tensors["in.labels"]).backward()
    expected = side_state(golden.under("grad."), module.side.patch_embed.grid_size[0])
    for name, tensor in module.named_parameters():
        torch.testing.assert_close(tensor.grad, expected[name], rtol=0, atol=1e-7)


def _naive(config: dict[str, Any]) -> NaiveFPT:
    width = config["hidden"] // config["reduction"]
    layers = len(config["extract"])
    side: Any = VisionTransformer(
        img_size=config["side_image"],
        patch_size=config["patch"],
        embed_dim=width,
        depth=layers,
        num_heads=config["heads"],
        num_classes=config["classes"],
    )
    module = NaiveFPT(
        side,
        layers=layers,
        prompts=config["num_prompts"],
        prompt_width=config["prompt_dim"],
        width=config["hidden"],
        heads=config["heads"],
        dropout=0.5,
    )
    set_epsilon(module.side)
    return module.double().eval()

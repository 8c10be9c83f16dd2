"""Golden data on a device: FPT's and FPT+'s logits and gradients there, against the independent run in float64."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from petlbench.models.method import Inputs
from tests.methods.golden import FILES, golden_backbone, golden_method, read_golden, set_epsilon, side_state

__all__ = ["GoldenRow", "compare_golden"]

# Sums run in another order there than on the CPU, in whose tests they are 1e-9 and 1e-7.
_LOGITS, _GRADIENTS = 1e-8, 1e-6


@dataclass(frozen=True)
class GoldenRow:
    """The largest differences of one golden file."""

    file: str
    logits: float
    gradients: float

    @property
    def agrees(self) -> bool:
        """Whether both are within what another order of sums explains."""
        return self.logits <= _LOGITS and self.gradients <= _GRADIENTS


def compare_golden(device: str) -> list[GoldenRow]:
    """A row for each golden file, computed on a device in float64."""
    return [_row(file, torch.device(device)) for file in FILES]


def _row(file: str, device: torch.device) -> GoldenRow:
    golden = read_golden(file)
    backbone, method = golden_backbone(golden), golden_method(golden.config)
    module = method.adapt(backbone, golden.config["classes"]).module.double().eval()
    side = module.get_submodule("side")
    set_epsilon(side)
    size: int = side.patch_embed.grid_size[0]  # type: ignore[index, union-attr, assignment]  # timm's
    module.load_state_dict(side_state(golden.under("model."), size))
    backbone.module.to(device), module.to(device)
    tensors = {name: tensor.to(device) for name, tensor in golden.tensors.items()}
    with torch.no_grad():
        features = method.features(backbone.info).extract(backbone, tensors["in.lpm_image"])
    logits = module(Inputs({"coarse": tensors["in.side_image"]}, features))
    nn.functional.cross_entropy(logits, tensors["in.labels"]).backward()
    expected = side_state(golden.under("grad."), size)
    apart = [
        float((tensor.grad.cpu() - expected[name]).abs().max())
        for name, tensor in module.named_parameters()
        if tensor.grad is not None
    ]
    assert len(apart) == len(expected), "a parameter has no gradient"
    return GoldenRow(file, float((logits - tensors["out.logits"]).detach().abs().max()), max(apart))

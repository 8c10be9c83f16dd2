"""How methods start and what decays: by their authors' rules, seen in the first steps."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from petlbench.core.catalog import Catalog
from petlbench.methods.lora import DoRA
from petlbench.methods.lycoris import LoHa
from petlbench.methods.vpt import VPT
from petlbench.models.backbone import Backbone
from petlbench.models.method import Adapted, Inputs, load_method
from petlbench.models.registry import build_backbone
from petlbench.testing.subject import Subject

METHODS = {name: load_method(entry) for name, entry in Catalog().entries("method").items()}
# peft takes the decomposition that these two start from in the usual types alone, and says so.
SINGLE_ONLY = {"pissa", "psoft"}


def backbone(device: str = "cpu", dtype: torch.dtype = torch.float32) -> Backbone:
    torch.manual_seed(0)
    made = build_backbone("tiny_vit", 32, "none", torch.device(device))
    made.module.to(dtype)
    return made


def image(count: int = 4) -> Inputs:
    return Inputs({"fine": torch.randn(count, 3, 32, 32, generator=torch.Generator().manual_seed(1))})


@pytest.mark.parametrize("method", METHODS)
def test_the_same_is_learned_in_float64_and_on_meta(method: str) -> None:
    plain = METHODS[method].from_settings({}).adapt(backbone(), 3)
    places = [("meta", torch.float32), *([] if method in SINGLE_ONLY else [("cpu", torch.float64)])]
    for device, dtype in places:
        with torch.device(device):
            adapted = METHODS[method].from_settings({}).adapt(backbone(device, dtype), 3)
        assert adapted.learnable == plain.learnable
        adapted.module.to(dtype)
        adapted.freeze_the_rest()
        learning = {name for name, tensor in adapted.module.named_parameters() if tensor.requires_grad}
        assert learning == adapted.learnable
        shapes = {name: tensor.shape for name, tensor in adapted.parameters().items()}
        assert shapes == {name: tensor.shape for name, tensor in plain.parameters().items()}


def test_the_head_of_vpt_has_the_authors_deviation() -> None:
    for classes in (2, 10, 50):
        weight = VPT.from_settings({}).adapt(backbone(), classes).module.get_parameter("head.weight")
        assert float(weight.detach().std()) == pytest.approx(math.sqrt(2 / classes), rel=0.2)


def prompts_gradient(draw: Callable[[Tensor], object]) -> float:
    """The mean over some draws of the head of the norm of the prompts' first gradient."""
    adapted = VPT.from_settings({}).adapt(backbone(), 3)
    adapted.freeze_the_rest()
    prompts, norms = adapted.module.get_parameter("prompts"), []
    for _ in range(8):
        draw(adapted.module.get_parameter("head.weight").detach())
        loss = nn.functional.cross_entropy(adapted.module(image()), torch.tensor([0, 1, 2, 0]))
        norms.append(float(torch.autograd.grad(loss, prompts)[0].norm()))
    return sum(norms) / len(norms)


def draw_as_built(weight: Tensor) -> None:
    with torch.random.fork_rng():
        plain = backbone()
    weight.copy_(VPT.from_settings({}).adapt(plain, 3).module.get_parameter("head.weight").detach())


def test_the_prompts_first_gradient_is_that_of_the_authors_head() -> None:
    gradient = prompts_gradient(draw_as_built)
    assert gradient == pytest.approx(prompts_gradient(partial(nn.init.kaiming_normal_, mode="fan_out")), rel=0.4)
    assert gradient > 10 * prompts_gradient(partial(nn.init.trunc_normal_, std=0.02))


def test_each_image_loses_prompts_of_its_own() -> None:
    module: Any = VPT.from_settings({"dropout": 0.5, "depth": "shallow"}).adapt(backbone(), 3).module.train()
    torch.manual_seed(0)
    tokens = module._prompted(0, torch.zeros(8, 17, 64))
    dropped = tokens[:, 1:17] == 0
    assert dropped.float().mean() == pytest.approx(0.5, abs=0.05)
    assert not torch.equal(dropped[0], dropped[1])


def test_loha_grows_as_in_lycoris() -> None:
    adapted = LoHa.from_settings({}).adapt(backbone(), 3)
    adapted.freeze_the_rest()
    layer: Any = adapted.module.get_submodule("backbone.blocks.0.attn.qkv.q")
    assert not layer.get_delta_weight("default").any()
    assert float(layer.get_parameter("hada_w1_b.default").detach().std()) == pytest.approx(1, rel=0.2)
    assert float(layer.get_parameter("hada_w1_a.default").detach().std()) == pytest.approx(0.1, rel=0.2)
    optimizer = torch.optim.AdamW(adapted.parameters().values(), lr=1e-3)
    for _ in range(5):
        optimizer.zero_grad()
        nn.functional.cross_entropy(adapted.module(image()), torch.tensor([0, 1, 2, 0])).backward()
        optimizer.step()
    assert 1e-3 < float(layer.get_delta_weight("default").detach().square().mean().sqrt()) < 1e-2


class TestRowsOfZeros:
    """Weights of a pruned head, which have no direction that DoRA could keep."""

    def adapted(self) -> tuple[Adapted, Backbone, Tensor]:
        pruned = backbone()
        with torch.no_grad():
            for block in pruned.blocks():
                block.attn.qkv.weight[:20] = 0
                block.attn.qkv.weight[128:148] = 0
            feature = pruned.pooled(image().views["fine"])
        adapted = DoRA.from_settings({}).adapt(pruned, 3)
        adapted.freeze_the_rest()
        return adapted, pruned, feature

    def test_dora_starts_at_the_backbone_learns_and_merges(self) -> None:
        adapted, pruned, feature = self.adapted()
        with torch.no_grad():
            torch.testing.assert_close(pruned.pooled(image().views["fine"]), feature, rtol=1e-5, atol=1e-5)
        optimizer = torch.optim.AdamW(adapted.parameters().values(), lr=1e-2)
        for _ in range(3):
            optimizer.zero_grad()
            nn.functional.cross_entropy(adapted.module(image()), torch.tensor([0, 1, 2, 0])).backward()
            assert all(t.grad is not None and t.grad.isfinite().all() for t in adapted.parameters().values())
            optimizer.step()
        with torch.no_grad():
            logits = adapted.module.eval()(image())
            assert logits.isfinite().all()
            assert adapted.merge is not None
            adapted.merge()
            torch.testing.assert_close(adapted.module(image()), logits, rtol=1e-4, atol=1e-4)


# Methods that learn scales, of outputs or of singular values, which do not start at zero.
SCALING = ("ssf", "norm", "ia3", "dora", "boft", "road", "psoft", "delora", "vera", "pvera")


@pytest.mark.parametrize("method", SCALING)
def test_scales_are_not_pulled_to_zero(method: str) -> None:
    model = Subject(METHODS[method], "tiny_vit", 32).build()
    defaults = METHODS[method].defaults
    step = model.step(weight_decay=0.1, decay=defaults.decay)
    decayed = {id(t): group["weight_decay"] for group in step.optimizer.param_groups for t in group["params"]}
    vectors = {n: t for n, t in model.adapted.parameters().items() if sum(side > 1 for side in t.shape) <= 1}
    assert any(float(tensor.abs().mean()) > 0.05 for name, tensor in vectors.items() if not name.startswith("head."))
    assert all(decayed[id(tensor)] == 0 for tensor in vectors.values())
    assert decayed[id(model.adapted.parameters()["head.weight"])] == 0.1


@pytest.mark.parametrize("method", METHODS)
def test_published_rates_lie_in_the_searched_range(method: str) -> None:
    defaults = METHODS[method].defaults
    low, high = defaults.lr_range
    assert all(
        low <= rate <= high for rate in (defaults.lr, *defaults.published_rates, *defaults.published_lr.values())
    )
    if defaults.published_rates:
        assert min(defaults.published_rates) <= defaults.lr <= max(defaults.published_rates)


@pytest.mark.parametrize("kernel", [3, 4, 5])
def test_dtl_plus_keeps_the_grid_with_every_kernel_of_its_authors(kernel: int) -> None:
    adapted = METHODS["dtl_plus"].from_settings({"kernel": kernel}).adapt(backbone(), 3)
    assert adapted.module.get_parameter("side.convolution.weight").shape == (64, 1, kernel, kernel)
    with torch.no_grad():
        assert adapted.module(image()).shape == (4, 3)


class TestBatchNorm:
    """AdaptFormer's statistics are chosen by the data, and kept with what is learned."""

    def adapted(self) -> Adapted:
        return METHODS["adaptformer"].from_settings({"batch_norm": True}).adapt(backbone(), 3)

    def test_its_statistics_are_kept(self) -> None:
        adapted = self.adapted()
        before = {name: tensor.clone() for name, tensor in adapted.kept().items()}
        adapted.module.train()(image())
        changes = {name for name, tensor in adapted.kept().items() if not torch.equal(tensor, before[name])}
        assert changes == {f"batch_norm.{name}" for name in ("running_mean", "running_var")}

    def test_an_image_alone_is_normed_as_in_evaluation(self) -> None:
        module = self.adapted().module
        for part in module.modules():
            if isinstance(part, nn.Dropout):
                part.p = 0.0
        module.train()(image())
        with torch.no_grad():
            alone = module.train()(image(1))
            torch.testing.assert_close(alone, module.eval()(image(1)))

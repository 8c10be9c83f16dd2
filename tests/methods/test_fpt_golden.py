"""FPT and FPT+ against an independent run in float64: tokens, keys, values, prompts, logits and gradients."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from petlbench.features.attention import importance
from petlbench.features.frozen import in_form, shared_tensors
from petlbench.methods.fpt import SideNetwork
from petlbench.models.backbone import Backbone, set_attention_kernel
from petlbench.models.method import Inputs
from tests.methods.golden import FILES, Golden, golden_backbone, golden_method, read_golden, set_epsilon, side_state


@pytest.fixture(scope="module", params=FILES)
def golden(request: pytest.FixtureRequest) -> Golden:
    return read_golden(request.param)


@pytest.fixture(params=[("eager", "lean"), ("fused", "lean"), ("eager", "published"), ("fused", "published")])
def run(request: pytest.FixtureRequest, golden: Golden) -> tuple[Golden, SideNetwork, dict[str, Tensor], Backbone]:
    kernel, implementation = request.param
    backbone, method = golden_backbone(golden), golden_method(golden.config, implementation)
    module = method.adapt(backbone, golden.config["classes"]).module.double().eval()
    assert isinstance(module, SideNetwork)
    set_epsilon(module.side)
    module.load_state_dict(side_state(golden.under("model."), module.side.patch_embed.grid_size[0]))
    for part in (backbone.module, module):
        set_attention_kernel(part, kernel)
    with torch.no_grad():
        features = method.features(backbone.info).extract(backbone, golden.tensors["in.lpm_image"])
    return golden, module, features, backbone


Run = tuple[Golden, SideNetwork, dict[str, Tensor], Backbone]


def close(actual: Tensor, expected: Tensor, tolerance: float) -> None:
    torch.testing.assert_close(actual, expected, rtol=0, atol=tolerance)


def test_golden_importance_and_selected_tokens(run: Run) -> None:
    golden, _, _, backbone = run
    tokens = golden_method(golden.config).features(backbone.info)
    layers = golden.config["extract"]
    states = backbone.queries_keys_values(golden.tensors["in.lpm_image"], layers)
    for j, (query, key, _) in enumerate(states):
        close(importance(query, key), golden.tensors[f"mid.importance.{j}"], 1e-9)
        assert torch.equal(tokens.select(tokens.weigh(query, key)), golden.tensors[f"mid.selected_index.{j}"])  # type: ignore[attr-defined]


def test_golden_keys_and_values(run: Run) -> None:
    golden, _, features, _ = run
    for j in range(len(golden.config["extract"])):
        close(features["keys"][:, j], golden.tensors[f"mid.key_states.{j}"], 1e-9)
        close(features["values"][:, j], golden.tensors[f"mid.value_states.{j}"], 1e-9)


def test_golden_fused_prompts(run: Run) -> None:
    golden, module, features, _ = run
    for j in range(len(golden.config["extract"])):
        fused = module.fusion(j, Inputs({}, features), len(features["keys"]))  # type: ignore[misc]
        close(fused, golden.tensors[f"mid.fused_prompts.{j}"], 1e-9)


def test_golden_logits_and_gradients(run: Run) -> None:
    golden, module, features, _ = run
    logits = module(Inputs({"coarse": golden.tensors["in.side_image"]}, features))
    close(logits, golden.tensors["out.logits"], 1e-9)
    loss = nn.functional.cross_entropy(logits, golden.tensors["in.labels"])
    close(loss, golden.tensors["out.loss"], 1e-9)
    loss.backward()
    expected = side_state(golden.under("grad."), module.side.patch_embed.grid_size[0])
    assert set(expected) == {name for name, _ in module.named_parameters()}
    for name, tensor in module.named_parameters():
        assert tensor.grad is not None, name
        close(tensor.grad, expected[name], 1e-7)


def test_tokens_give_what_keys_and_values_give(run: Run) -> None:
    golden, module, features, backbone = run
    kept = in_form(golden_method(golden.config).features(backbone.info), "tokens")
    coarse = {"coarse": golden.tensors["in.side_image"]}
    with torch.no_grad():
        tokens = kept.extract(backbone, golden.tensors["in.lpm_image"])
    assert set(tokens) == set(kept.spec(backbone.info).tensors) == {"tokens", "rows"}
    inputs = Inputs(coarse, tokens, shared_tensors(kept, backbone, torch.device("cpu")))
    logits, gradients = [], []
    for each in (Inputs(coarse, features), inputs):
        module.zero_grad()
        logits.append(module(each))
        nn.functional.cross_entropy(logits[-1], golden.tensors["in.labels"]).backward()
        gradients.append({name: tensor.grad.clone() for name, tensor in module.named_parameters()})  # type: ignore[union-attr]
    close(logits[1], golden.tensors["out.logits"], 1e-9)
    close(*logits, 1e-12)  # type: ignore[arg-type]
    for name, gradient in gradients[0].items():
        close(gradients[1][name], gradient, 1e-12)

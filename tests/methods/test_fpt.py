"""FPT's parts, switched off one by one as the paper's Table 2 does."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from petlbench.core.catalog import Catalog
from petlbench.models.backbone import Backbone
from petlbench.models.method import Adapted, Inputs, Method, load_method
from petlbench.models.registry import build_backbone

SIZE, CLASSES = 64, 5
VARIANTS = ("fpt", "fpt_plus")


def method(name: str, **settings: Any) -> Method[Any]:
    # A side view smaller than the backbone's: two by two patches instead of eight by eight.
    return load_method(Catalog().find("method", name)).from_settings({"coarse_size": 16, "dropout": 0.0, **settings})


@pytest.fixture
def backbone() -> Backbone:
    torch.manual_seed(0)
    built = build_backbone("tiny_vit", SIZE, "none", torch.device("cpu"))
    built.module.eval()
    return built


def adapt(chosen: Method[Any], backbone: Backbone) -> Adapted:
    torch.manual_seed(1)
    adapted = chosen.adapt(backbone, CLASSES)
    with torch.no_grad():
        for tensor in adapted.module.parameters():
            tensor.normal_(std=0.3)
    return adapted


def logits(chosen: Method[Any], backbone: Backbone, adapted: Adapted, *, seed: int = 2) -> torch.Tensor:
    """Logits of one batch; the seed draws what the frozen backbone sees, the coarse view stays the same."""
    views = {
        name: torch.randn(2, 3, view.size, view.size, generator=torch.Generator().manual_seed(9))
        for name, view in chosen.views(backbone.info, SIZE).items()
    }
    frozen, features = chosen.features(backbone.info), {}
    with torch.no_grad():
        if frozen is not None:
            fine = torch.randn(2, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(seed))
            features = frozen.extract(backbone, fine)
        output: torch.Tensor = adapted.module.eval()(Inputs(views, features))
    return output


@pytest.mark.parametrize("name", VARIANTS)
def test_the_logits_hang_on_what_the_backbone_sees_unless_it_is_cut_off(name: str, backbone: Backbone) -> None:
    for settings, reads in (({}, True), ({"fusion": False}, False), ({"side_only": True}, False)):
        chosen = method(name, **settings)
        adapted = adapt(chosen, backbone)
        one, other = (logits(chosen, backbone, adapted, seed=seed) for seed in (2, 3))
        assert torch.equal(one, other) != reads, settings
        assert (chosen.features(backbone.info) is not None) == reads
        assert ("fine" in chosen.views(backbone.info, SIZE)) == reads


@pytest.mark.parametrize("name", VARIANTS)
def test_the_side_network_alone_has_no_prompts(name: str, backbone: Backbone) -> None:
    alone, unfused = (adapt(method(name, **{part: value}), backbone) for part, value in CUTS)
    assert all(learned.startswith("side.") for learned in alone.learnable)
    assert "fusion.prompts" in unfused.learnable
    assert not any("to_query" in learned for learned in unfused.learnable)


CUTS: tuple[tuple[str, bool], ...] = (("side_only", True), ("fusion", False))


def test_unfused_prompts_still_reach_the_logits(backbone: Backbone) -> None:
    for name in VARIANTS:
        chosen = method(name, fusion=False)
        adapted = adapt(chosen, backbone)
        before = logits(chosen, backbone, adapted)
        with torch.no_grad():
            adapted.module.get_parameter("fusion.prompts").normal_()
        assert not torch.allclose(before, logits(chosen, backbone, adapted))


def test_without_asymmetric_input_the_side_network_reads_an_image_as_large_as_the_backbones(backbone: Backbone) -> None:
    assert method("fpt").views(backbone.info, SIZE)["coarse"].size == 16
    whole = method("fpt", asymmetric_input=False)
    assert {name: view.size for name, view in whole.views(backbone.info, SIZE).items()} == {"fine": 64, "coarse": 64}
    assert logits(whole, backbone, adapt(whole, backbone)).shape == (2, CLASSES)


def test_without_token_selection_every_token_is_kept_and_the_ratio_has_no_say(backbone: Backbone) -> None:
    everything = method("fpt", token_selection=False, token_ratio=0.1)
    frozen = everything.features(backbone.info)
    assert frozen is not None
    assert frozen.spec(backbone.info).tensors["keys"].shape == (4, 2, backbone.info.tokens, 32)
    kept = method("fpt", token_ratio=0.2).features(backbone.info)
    assert kept is not None
    assert kept.spec(backbone.info).tensors["keys"].shape == (4, 2, int(backbone.info.tokens * 0.2), 32)
    # With every token kept, in whatever order, the prompts read what plain cross-attention over all tokens reads.
    adapted = adapt(everything, backbone)
    full_ratio = method("fpt", token_ratio=1.0)
    torch.testing.assert_close(logits(everything, backbone, adapted), logits(full_ratio, backbone, adapted))


@pytest.mark.parametrize(
    ("layers", "expected"), [("all", (0, 1, 2, 3)), ("later_half", (2, 3)), ("1,3", (1, 3))], ids=str
)
def test_the_layers_that_are_read_can_be_named(layers: str, expected: tuple[int, ...], backbone: Backbone) -> None:
    chosen = method("fpt", layers=layers)
    frozen: Any = chosen.features(backbone.info)
    assert tuple(frozen.layers) == expected
    assert len(adapt(chosen, backbone).module.get_parameter("fusion.prompts")) == len(expected)


@pytest.mark.parametrize("layers", ["0,4", "2,1", "1,1"])
def test_layers_that_are_not_there_are_refused(layers: str, backbone: Backbone) -> None:
    reason = method("fpt", layers=layers).refuse(backbone.info)
    assert reason is not None
    assert layers in reason


def test_a_token_can_be_scored_by_the_class_token_alone(backbone: Backbone) -> None:
    fine = torch.randn(2, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(2))
    frozen: Any = method("fpt", token_score="class_token", token_ratio=0.1).features(backbone.info)
    query, key, _ = next(iter(backbone.queries_keys_values(fine, [0])))
    scores = torch.einsum("bhd,bhnd->bhn", query[:, :, 0], key) * 32**-0.5
    assert torch.equal(frozen.select(frozen.weigh(query, key)), scores.topk(int(65 * 0.1), dim=-1).indices)

"""Methods against independent public implementations: the same weights in, the same feature out.

The tensors come from ``adapters`` and ``adapter-plus``; tests/golden/cross_check/make.py made them and says how.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from petlbench.core.catalog import Catalog
from petlbench.models.backbone import Backbone
from petlbench.models.info import BackboneInfo
from petlbench.models.method import Inputs, load_method

FOLDER = Path(__file__).parents[1] / "golden" / "cross_check"
WIDTH, DEPTH = 48, 3
INFO = BackboneInfo(
    name="cross_check",
    image_size=32,
    native_size=32,
    blocks=DEPTH,
    width=WIDTH,
    widths=(WIDTH,) * DEPTH,
    heads=4,
    patch=8,
    prefix_tokens=1,
    classes=0,
    parameters=0,
    mean=(0.5, 0.5, 0.5),
    std=(0.5, 0.5, 0.5),
    interpolation="bicubic",
    capabilities=frozenset({"blocks", "isotropic", "qkv", "keys_values", "plain_mlp", "class_token"}),
)

Tensors = dict[str, Tensor]


def read(name: str) -> tuple[Tensors, dict[str, Any]]:
    with safe_open(FOLDER / f"{name}.safetensors", framework="pt") as file:
        return {key: file.get_tensor(key) for key in file.keys()}, json.loads(file.metadata()["about"])  # noqa: SIM118


def backbone() -> Backbone:
    tensors, _ = read("backbone")
    module: Any = VisionTransformer(
        img_size=32, patch_size=8, embed_dim=WIDTH, depth=DEPTH, num_heads=4, num_classes=0
    ).double()
    module.load_state_dict({name: value for name, value in tensors.items() if name not in {"image", "feature"}})
    return Backbone(INFO, module.eval())


def behind(part: str) -> Callable[[Tensors], Tensors]:
    """Adapters around a block's attention or MLP."""

    def rename(tensors: Tensors) -> Tensors:
        return {
            f"backbone.blocks.{layer}.{part}.adapter.{half}.{kind}": tensors[f"blocks.{layer}.{part}.{half}.{kind}"]
            for layer in range(DEPTH)
            for half in ("down", "up")
            for kind in ("weight", "bias")
        }

    return rename


def around_both(tensors: Tensors) -> Tensors:
    return behind("attn")(tensors) | behind("mlp")(tensors)


def low_rank(tensors: Tensors) -> Tensors:
    return {
        f"backbone.blocks.{layer}.attn.qkv.{part}.{half}.default.weight": tensors[
            f"blocks.{layer}.attn.{part}.{half}.weight"
        ]
        for layer in range(DEPTH)
        for part in ("q", "k", "v")
        for half in ("lora_A", "lora_B")
        if f"blocks.{layer}.attn.{part}.lora_A.weight" in tensors
    }


def prompts(tensors: Tensors) -> Tensors:
    return {"prompts": torch.stack([value for name, value in sorted(tensors.items()) if name.endswith(".prompts")])}


Rename = Callable[[Tensors], Tensors]
# The case, the method, its settings, and how its learned tensors are called here.
CASES: list[tuple[str, str, Mapping[str, Any], Rename]] = [
    ("adapters_houlsby", "adapter", {"placement": "houlsby", "scale": 0.5, "bottleneck": 6}, around_both),
    ("adapter_plus_houlsby", "adapter", {"placement": "houlsby", "scale": 0.5, "bottleneck": 6}, around_both),
    ("adapters_pfeiffer", "adapter", {"placement": "pfeiffer", "scale": 2.0, "bottleneck": 6}, behind("mlp")),
    ("adapter_plus_intermediate", "adapter", {"placement": "pfeiffer", "scale": 2.0, "bottleneck": 6}, behind("mlp")),
    ("adapter_plus_parallel_norm2", "adapter", {"placement": "parallel", "scale": 4.0, "bottleneck": 6}, behind("mlp")),
    ("adapters_lora_qv", "lora", {"rank": 4, "alpha": 8}, low_rank),
    ("adapters_lora_qkv", "lora", {"rank": 4, "alpha": 2, "targets": "q,k,v"}, low_rank),
    ("adapter_plus_lora_qv", "lora", {"rank": 4, "alpha": 8}, low_rank),
    ("adapters_prompts_shallow", "vpt", {"depth": "shallow", "num_tokens": 5}, prompts),
    ("adapter_plus_prompts_deep", "vpt", {"num_tokens": 5}, prompts),
]


@pytest.mark.parametrize(("case", "method", "settings", "rename"), CASES, ids=[case[0] for case in CASES])
def test_the_same_weights_give_the_same_feature(
    case: str, method: str, settings: Mapping[str, Any], rename: Rename
) -> None:
    tensors, _ = read(case)
    # A head that hands the feature on as it is.
    adapted = load_method(Catalog().find("method", method)).from_settings(settings).adapt(backbone(), WIDTH)
    module = adapted.module.double().eval()
    learned = rename(tensors) | {"head.weight": torch.eye(WIDTH).double(), "head.bias": torch.zeros(WIDTH).double()}
    assert learned.keys() == adapted.learnable
    with torch.no_grad():
        for name, value in learned.items():
            module.get_parameter(name).copy_(value)
        feature = module(Inputs({"fine": tensors["image"]}))
    torch.testing.assert_close(feature, tensors["feature"], rtol=0, atol=1e-10)


@pytest.mark.parametrize(("case", "scale"), [("adapters_parallel", 4.0), ("adapter_plus_parallel", 0.1)])
def test_adaptformer_reads_and_adds_where_others_do(case: str, scale: float, monkeypatch: pytest.MonkeyPatch) -> None:
    # Theirs were made with GELU; the place is what is compared.
    monkeypatch.setattr(torch.nn.functional, "relu", torch.nn.functional.gelu)
    settings = {"scale": scale, "bottleneck": 6, "dropout": 0.0}
    test_the_same_weights_give_the_same_feature(case, "adaptformer", settings, behind("mlp"))


def test_the_backbone_alone_says_the_same() -> None:
    tensors, _ = read("backbone")
    with torch.no_grad():
        torch.testing.assert_close(backbone().pooled(tensors["image"]), tensors["feature"], rtol=0, atol=1e-12)


@pytest.mark.parametrize("case", [case[0] for case in CASES])
def test_where_the_tensors_come_from_is_written_in_them(case: str) -> None:
    _, about = read(case)
    assert about["formula"]
    assert {"adapters", "adapter-plus"} & set(about["versions"])

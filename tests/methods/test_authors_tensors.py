"""Methods against what their authors' own code computed: logits, loss and gradients in float64.

A file holds a tiny backbone, what was learned on it, and the results; its metadata says whose code made it and how. The
folder is ``tests/golden/authors``, or ``PETLBENCH_AUTHORS``. Every file in it is compared, or listed as one to which
nothing here corresponds.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from timm.models import PretrainedCfg
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from petlbench.core.catalog import Catalog
from petlbench.methods.gps import contrastive_loss
from petlbench.models.backbone import Backbone
from petlbench.models.method import Adapted, Inputs, Method, load_method
from petlbench.models.registry import describe_module

FOLDER = Path(os.environ.get("PETLBENCH_AUTHORS", Path(__file__).parents[1] / "golden" / "authors"))
FILES = sorted(file.stem for file in FOLDER.glob("*.safetensors"))
LOGITS, GRADIENTS = 1e-9, 1e-7

Tensors = dict[str, Tensor]
Rename = Callable[[Tensors], Tensors]

NO_COUNTERPART = {
    "vpt_mlp3": "its head has batch norms, which Mlp-k here leaves out",
    "noah_adapter": "its adapter is derived again in test_formulas.py, as a part of noah",
}


@dataclasses.dataclass(frozen=True)
class Golden:
    """A file: what its metadata say, and its tensors."""

    about: dict[str, Any]
    tensors: Tensors

    def under(self, prefix: str) -> Tensors:
        return {name.removeprefix(prefix): value for name, value in self.tensors.items() if name.startswith(prefix)}


@dataclasses.dataclass(frozen=True)
class Case:
    """How a file's method is called here, its settings from the authors', and the names of what is learned."""

    method: str
    settings: Callable[[dict[str, Any]], dict[str, Any]]
    rename: Rename
    frozen: Rename = dict


def read(name: str) -> Golden:
    with safe_open(FOLDER / f"{name}.safetensors", framework="pt") as file:
        return Golden(json.loads(file.metadata()["about"]), {key: file.get_tensor(key) for key in list(file.keys())})


def by_pattern(*patterns: tuple[str, str]) -> Rename:
    """Rename by the first regular expression that matches the whole name; names without one must not be there."""

    def rename(tensors: Tensors) -> Tensors:
        renamed = {}
        for name, tensor in tensors.items():
            pattern, new = next((pair for pair in patterns if re.fullmatch(pair[0], name)), (None, None))
            assert pattern is not None, name
            renamed[re.sub(pattern, str(new), name)] = tensor
        return renamed

    return rename


HEAD = (r"head\.(weight|bias)", r"head.\1")
VPT_HEAD = (r"head\.last_layer\.(weight|bias)", r"head.\1")


def stacked(tensors: Tensors, pattern: str) -> Tensor:
    """The tensors whose names match, in the order of the number in them, one below the other."""
    numbered = sorted((int(match[1]), name) for name in tensors if (match := re.fullmatch(pattern, name)))
    return torch.stack([tensors[name] for _, name in numbered])


def side_path(tensors: Tensors) -> Tensors:
    renamed = {f"head.{kind}": tensors[f"head.{kind}"] for kind in ("weight", "bias")}
    renamed["side.down"] = stacked(tensors, r"lora_dict\.(\d+)\.lora_A")
    renamed["side.up"] = stacked(tensors, r"lora_dict\.(\d+)\.lora_B")
    fusion = tensors.get("lora_fusion.weight")
    return renamed if fusion is None else renamed | {"side.convolution.weight": fusion}


def tensor_train(tensors: Tensors) -> Tensors:
    renamed = {f"head.{kind}": tensors[f"head.{kind}"] for kind in ("weight", "bias")}
    renamed |= {"factors.u": tensors["FacTu.weight"], "factors.v": tensors["FacTv.weight"]}
    parts = ("attn.q", "attn.k", "attn.v", "attn.proj", "mlp.fc1", "mlp.fc2")
    for name, tensor in tensors.items():
        if match := re.fullmatch(r"blocks\.(\d+)\.(.+)_FacTs\.weight", name):
            renamed[f"factors.sigmas.{6 * int(match[1]) + parts.index(match[2])}"] = tensor
    return renamed


def tucker(tensors: Tensors) -> Tensors:
    renamed = {f"head.{kind}": tensors[f"head.{kind}"] for kind in ("weight", "bias")}
    renamed |= {"factors.u": tensors["FacTu.weight"], "factors.v": tensors["FacTv.weight"]}
    # core[t, i, j] is theirs at [j, i, t].
    return renamed | {"factors.p": tensors["FacTp"], "factors.core": tensors["FacTc"].permute(2, 1, 0)}


def grouped(tensors: Tensors) -> Tensors:
    """RepAdapter's convolutions of one pixel as matrices."""
    renamed = {}
    for name, tensor in tensors.items():
        place = name.replace(".adapter_attn.", ".attn.adapter.").replace(".adapter_mlp.", ".mlp.adapter.")
        value = tensor
        if name.endswith("conv_A.weight"):
            value = tensor[:, :, 0]
        elif name.endswith("conv_B.weight"):
            groups = len(tensors[name.replace("conv_B", "conv_A")]) // tensor.shape[1]
            value = tensor[:, :, 0].unflatten(0, (groups, -1))
        place = place.replace("conv_A", "down").replace("conv_B.weight", "up").replace("conv_B.bias", "bias")
        renamed[name if name.startswith("head.") else f"backbone.{place}"] = value
    return renamed


def prompts(tensors: Tensors) -> Tensors:
    names = ("enc.transformer.prompt_embeddings", "enc.transformer.deep_prompt_embeddings")
    head = {f"head.{kind}": tensors[f"head.last_layer.{kind}"] for kind in ("weight", "bias")}
    return head | {"prompts": torch.cat([tensors[name] for name in names if name in tensors])}


def ladder(tensors: Tensors) -> Tensors:
    gates = torch.cat([tensors[name] for name in sorted(tensors) if ".side_gate_params." in name])
    rest = {name: value for name, value in tensors.items() if ".side_gate_params." not in name}
    rename = by_pattern(
        HEAD,
        (r"stack\.side_first_downsample\.(.+)", r"downs.0.\1"),
        (r"stack\.side_block\.(\d+)\.inner\.(.+)", r"blocks.\1.\2"),
        (r"stack\.final_side_layer_norm\.(.+)", r"norm.\1"),
        (r"side_final_upsample\.(.+)", r"up.\1"),
        (r"stack\.(side_downsamples\..+)", r"\1"),
    )
    renamed = {"gates": gates}
    for name, tensor in rename(rest).items():
        match = re.fullmatch(r"side_downsamples\.(\d+)\.(.+)", name)
        renamed[f"downs.{int(match[1]) + 1}.{match[2]}" if match else name] = tensor
    return renamed


def behind_mlp(tensors: Tensors) -> Tensors:
    """VPT's adapters, which stand behind the MLP."""
    return {
        re.sub(r"(blocks\.\d+)\.(?:ffn\.|mlp\.)?adapter_(down|up)sample\.", r"\1.mlp.adapter.\2.", name): tensor
        for name, tensor in encoder(tensors).items()
    }


def joined_qkv(tensors: Tensors) -> Tensors:
    """Queries, keys and values of their own in timm's one layer."""
    joined = {name: value for name, value in tensors.items() if not re.search(r"\.[qkv]_proj\.", name)}
    for name in tensors:
        if ".q_proj." in name:
            parts = [tensors[name.replace(".q_proj.", f".{part}_proj.")] for part in "qkv"]
            joined[name.replace(".q_proj.", ".qkv.")] = torch.cat(parts)
    return joined


def encoder(tensors: Tensors) -> Tensors:
    """VPT's names of its encoder as timm's, queries, keys and values joined."""
    renames = (
        ("enc.transformer.", ""),
        ("embeddings.patch_embeddings.", "patch_embed.proj."),
        ("encoder.encoder_norm.", "norm."),
        ("encoder.layer.", "blocks."),
        (".attention_norm.", ".norm1."),
        (".ffn_norm.", ".norm2."),
        (".attn.query.", ".attn.q_proj."),
        (".attn.key.", ".attn.k_proj."),
        (".attn.value.", ".attn.v_proj."),
        (".attn.out.", ".attn.proj."),
        (".ffn.", ".mlp."),
    )
    renamed = {}
    for name, tensor in tensors.items():
        new = name.replace("head.last_layer.", "head.")
        for old, ours in renames:
            new = new.replace(old, ours)
        renamed[new] = tensor
    return {name if name.startswith("head.") else f"backbone.{name}": t for name, t in joined_qkv(renamed).items()}


def recomposed(tensors: Tensors) -> Tensors:
    """ARC's projections and coefficients."""
    renamed = {f"head.{kind}": tensors[f"head_mlp.head.{kind}"] for kind in ("weight", "bias")}
    parts = {"att": ("attn", "norm1"), "mlp": ("mlp", "norm2")}
    renamed |= {f"projections.{ours}": tensors[f"transformer.left_u_{part}"] for part, (ours, _) in parts.items()}
    for name, tensor in tensors.items():
        if match := re.fullmatch(r"transformer\.layer\.(\d+)\.(att|mlp)_scale(_bias)?", name):
            place = f"backbone.blocks.{match[1]}.{parts[match[2]][1]}.recomposed"
            renamed[f"{place}.{'bias' if match[3] else 'coefficients'}"] = tensor
    return renamed


def arc_encoder(tensors: Tensors) -> Tensors:
    """ARC's names of its encoder as timm's."""
    renames = (
        ("embedding.projective.", "patch_embed.proj."),
        ("embedding.cls", "cls_token"),
        ("embedding.position_embedding", "pos_embed"),
        ("transformer.layer_norm.", "norm."),
        ("transformer.layer.", "blocks."),
        (".att_layer_norm.", ".norm1."),
        (".fnn_layer_norm.", ".norm2."),
        (".attention.query.", ".attn.q_proj."),
        (".attention.key.", ".attn.k_proj."),
        (".attention.value.", ".attn.v_proj."),
        (".attention.projective.", ".attn.proj."),
    )
    renamed = {}
    for name, tensor in tensors.items():
        new = name
        for old, ours in renames:
            new = new.replace(old, ours)
        renamed[new] = tensor
    return joined_qkv(renamed)


def biases_too(tensors: Tensors) -> Tensors:
    """The biases that AdaptFormer here has and the file's adapters have not."""
    renamed = by_pattern(
        HEAD,
        (r"blocks\.(\d+)\.adapter_mlp\.adapter_(down|up)\.weight", r"backbone.blocks.\1.mlp.adapter.\2.weight"),
    )(tensors)
    weights = [name for name in renamed if ".adapter." in name]
    return renamed | {name.replace(".weight", ".bias"): renamed[name].new_zeros(len(renamed[name])) for name in weights}


SCALED = by_pattern(
    HEAD,
    (r"patch_embed\.ssf_(scale|shift)_1", r"backbone.patch_embed.proj.\1"),
    (r"ssf_(scale|shift)_1", r"backbone.norm.\1"),
    (r"blocks\.(\d+)\.ssf_(scale|shift)_(\d)", r"backbone.blocks.\1.norm\3.\2"),
    (r"blocks\.(\d+)\.attn\.ssf_(scale|shift)_1", r"backbone.blocks.\1.attn.qkv.\2"),
    (r"blocks\.(\d+)\.attn\.ssf_(scale|shift)_2", r"backbone.blocks.\1.attn.proj.\2"),
    (r"blocks\.(\d+)\.mlp\.ssf_(scale|shift)_(\d)", r"backbone.blocks.\1.mlp.fc\3.\2"),
)
BYPASSES = by_pattern(
    HEAD, (r"blocks\.(\d+)\.adapter_(attn|mlp)\.adapter_(\w+)\.(.+)", r"backbone.blocks.\1.\2.bypass.\3.\4")
)
BOTTLENECKS = by_pattern(
    (r"head(?:\.1)?\.(weight|bias)", r"head.\1"),
    (r"blocks\.(\d+)\.adaptmlp\.(down|up)_proj\.(.+)", r"backbone.blocks.\1.mlp.adapter.\2.\3"),
    (r"blocks\.(\d+)\.adaptmlp\.adapter_layer_norm_before\.(.+)", r"backbone.blocks.\1.mlp.adapter.norm.\2"),
)
LOW_RANK = by_pattern(
    HEAD,
    (
        r"blocks\.(\d+)\.attn\.lora_([qv])\.adapter_down\.weight",
        r"backbone.blocks.\1.attn.qkv.\2.lora_A.default.weight",
    ),
    (r"blocks\.(\d+)\.attn\.lora_([qv])\.adapter_up\.weight", r"backbone.blocks.\1.attn.qkv.\2.lora_B.default.weight"),
)
ONE_BIT_UPDATES = by_pattern(
    HEAD, (r"blocks\.(\d+)\.attn\.lora_([qv])\.adapter_(down|up)\.weight", r"backbone.blocks.\1.attn.qkv.\2.\3.weight")
)
ONE_BIT_ADAPTERS = by_pattern(
    HEAD, (r"blocks\.(\d+)\.adapter_mlp\.adapter_(down|up)\.weight", r"backbone.blocks.\1.mlp.adapter.\2.weight")
)
CHANNELS = by_pattern(HEAD, (r"blocks\.(\d+)\.sct_attn\.adapt_linear\.(.+)", r"backbone.blocks.\1.norm2.linear.\2"))


def fixed(**settings: Any) -> Callable[[dict[str, Any]], dict[str, Any]]:
    return lambda authors: settings


def convpass(authors: dict[str, Any]) -> dict[str, Any]:
    placement = "attention" if authors["placement"].endswith("attn") else "attention_mlp"
    return {"bottleneck": authors["dim"], "scale": authors["s"], "placement": placement, "dropout": 0}


def repadapter(authors: dict[str, Any]) -> dict[str, Any]:
    placement = "attention" if authors["method"] == "repattn" else "attention_mlp"
    settings = {"bottleneck": authors["dim"], "groups": authors["groups"], "scale": authors["s"]}
    return {**settings, "placement": placement, "dropout": 0}


def adaptformer(authors: dict[str, Any]) -> dict[str, Any]:
    settings = {name: authors[name] for name in ("bottleneck", "scale", "layer_norm")}
    return {**settings, "batch_norm": authors["batch_norm_in_front_of_head"], "dropout": 0}


def ranked(authors: dict[str, Any]) -> dict[str, Any]:
    return {"rank": authors["rank"], "scale": authors["s"], "dropout": 0}


def dtl(authors: dict[str, Any]) -> dict[str, Any]:
    settings = {"rank": authors["r"], "beta": authors["beta"], "first_block": authors["first_block"]}
    kernel = {"kernel": authors["fusion_size"]} if authors["fusion_size"] else {}
    return {**settings, **kernel, "pooling": "patch_mean"}


def prompted(authors: dict[str, Any]) -> dict[str, Any]:
    return {"depth": "deep" if authors["DEEP"] else "shallow", "num_tokens": authors["NUM_TOKENS"]}


CASES = {
    "ssf": Case("ssf", fixed(), SCALED),
    "convpass": Case("convpass", convpass, BYPASSES),
    "convpass_attn": Case("convpass", convpass, BYPASSES),
    "fact_tt": Case("fact_tt", ranked, tensor_train),
    "fact_tk": Case("fact_tk", lambda authors: {**ranked(authors), "layout": "authors"}, tucker),
    "repadapter": Case("repadapter", repadapter, grouped),
    "repadapter_attn": Case("repadapter", repadapter, grouped),
    "adaptformer": Case("adaptformer", adaptformer, BOTTLENECKS, joined_qkv),
    "adaptformer_norm": Case("adaptformer", adaptformer, BOTTLENECKS, joined_qkv),
    "adaptformer_batchnorm": Case("adaptformer", adaptformer, BOTTLENECKS, joined_qkv),
    "jie_adaptformer": Case(
        "adaptformer", lambda a: {"bottleneck": a["dim"], "scale": a["s"], "dropout": 0}, biases_too
    ),
    "jie_lora": Case("lora", lambda a: {"rank": a["dim"], "alpha": a["dim"] * a["s"]}, LOW_RANK),
    "bi_adaptformer": Case(
        "bi_adaptformer", lambda a: {"bottleneck": a["dim"], "scale": a["s"], "dropout": 0}, ONE_BIT_ADAPTERS
    ),
    "bi_lora": Case("bi_lora", lambda a: {"rank": a["dim"], "scale": a["s"], "dropout": 0}, ONE_BIT_UPDATES),
    "arc": Case("arc", lambda a: {"bottleneck": a["adapter_dim"], "dropout": 0}, recomposed, arc_encoder),
    "vpt_deep": Case("vpt", prompted, prompts),
    "vpt_shallow": Case("vpt", prompted, prompts),
    "vpt_bias": Case("bitfit", fixed(), encoder),
    "vpt_partial1": Case("partial", fixed(num_blocks=1), encoder),
    "vpt_adapter": Case("adapter", fixed(placement="pfeiffer", bottleneck=6), behind_mlp),
    "dtl": Case("dtl", dtl, side_path),
    "dtl_plus": Case("dtl_plus", dtl, side_path),
    "lst": Case("lst", lambda a: {"reduction": a["reduction"], "temperature": a["gate_T"]}, ladder),
}
# Files with tests of their own below.
OWN = {"gps", "sct", "vpt_side"}


def backbone_of(golden: Golden, rename: Rename = dict) -> Backbone:
    """The authors' frozen backbone as timm's."""
    shape = golden.about["shape"]

    def make() -> Any:
        return VisionTransformer(
            img_size=shape["size"],
            patch_size=shape["patch"],
            embed_dim=shape["width"],
            depth=shape["depth"],
            num_heads=shape["heads"],
            num_classes=0,
        )

    with torch.device("meta"):
        hollow = make()
    module = make().double()
    own = module.state_dict()
    state = {name: value for name, value in rename(golden.under("frozen.")).items() if name in own}
    module.load_state_dict(state)
    info = describe_module(hollow, "authors", PretrainedCfg(input_size=(3, shape["size"], shape["size"])))
    return Backbone(info, module.eval())


def method_of(name: str, settings: Mapping[str, Any]) -> Method[Any]:
    return load_method(Catalog().find("method", name)).from_settings(settings)


def put(adapted: Adapted, learned: Tensors) -> None:
    """Give a module in float64 what the authors' has learned; nothing more and nothing less."""
    adapted.module.double()
    adapted.freeze_the_rest()
    assert learned.keys() == adapted.learnable
    with torch.no_grad():
        for name, value in learned.items():
            parameter = adapted.module.get_parameter(name)
            assert parameter.shape == value.shape, name
            parameter.copy_(value)


def inputs_of(method: Method[Any], backbone: Backbone, image: Tensor) -> Inputs:
    frozen = method.features(backbone.info)
    views = dict.fromkeys(method.views(backbone.info, image.shape[-1]), image)
    if frozen is None:
        return Inputs(views)
    with torch.no_grad():
        return Inputs(views, frozen.extract(backbone, image))


def close(ours: Tensor, theirs: Tensor, bound: float) -> None:
    torch.testing.assert_close(ours, theirs, rtol=0, atol=bound)


def check(adapted: Adapted, inputs: Inputs, golden: Golden) -> Tensors:
    """Compare logits and loss; the gradients by our names."""
    module = adapted.module
    with torch.no_grad():
        close(module.eval()(inputs), golden.tensors["logits_eval"], LOGITS)
    logits = module.train()(inputs)
    close(logits.detach(), golden.tensors["logits_train"], LOGITS)
    loss = nn.functional.cross_entropy(logits, golden.tensors["label"])
    close(loss.detach(), golden.tensors["loss"], LOGITS)
    parameters = adapted.parameters()
    gradients = torch.autograd.grad(loss, list(parameters.values()))
    return dict(zip(parameters, gradients, strict=True))


@pytest.mark.parametrize("name", [name for name in FILES if name in CASES])
def test_logits_and_gradients_are_the_authors(name: str) -> None:
    golden, case = read(name), CASES[name]
    method = method_of(case.method, case.settings(golden.about.get("method", {})))
    backbone = backbone_of(golden, case.frozen)
    adapted = method.adapt(backbone, golden.about["shape"]["classes"])
    put(adapted, case.rename(golden.under("learned.")))
    gradients = check(adapted, inputs_of(method, backbone, golden.tensors["image"]), golden)
    for parameter, theirs in case.rename(golden.under("grad.")).items():
        if not (name == "jie_adaptformer" and parameter.endswith(("down.bias", "up.bias"))):
            close(gradients[parameter], theirs, GRADIENTS)


def test_fact_tk_departs_from_the_authors_by_the_layout_alone() -> None:
    golden = read("fact_tk")
    adapted = method_of("fact_tk", ranked(golden.about["method"])).adapt(
        backbone_of(golden), golden.about["shape"]["classes"]
    )
    put(adapted, tucker(golden.under("learned.")))
    with torch.no_grad():
        logits = adapted.module.eval()(Inputs({"fine": golden.tensors["image"]}))
    assert not torch.allclose(logits, golden.tensors["logits_eval"], rtol=0, atol=1e-3)


def test_sct_chooses_and_computes_as_the_authors() -> None:
    golden = read("sct")
    authors, shape = golden.about["method"], golden.about["shape"]
    method = method_of("sct", {"share": authors["topN"] / shape["width"], "scale": 1.0})
    backbone = backbone_of(golden)
    adapted = method.adapt(backbone, shape["classes"])
    put(adapted, CHANNELS(golden.under("learned.")))
    images, labels = golden.tensors["choose.images"].double(), golden.tensors["choose.labels"]
    assert adapted.prepare is not None
    adapted.prepare((Inputs({"fine": i}), k) for i, k in zip(images.split(5), labels.split(5), strict=True))
    for block, index in zip(backbone.blocks(), golden.tensors["index"], strict=True):
        assert torch.equal(block.norm2.index, index.sort().values)
        # The map is of channels in the authors' order.
        block.norm2.index.copy_(index)
    gradients = check(adapted, Inputs({"fine": golden.tensors["image"]}), golden)
    for name, theirs in CHANNELS(golden.under("grad.")).items():
        close(gradients[name], theirs, GRADIENTS)


class TestGPS:
    """What is learned are places that the authors' code chose, and numbers there."""

    golden = read("gps") if "gps" in FILES else Golden({}, {})

    def images(self) -> list[tuple[Tensor, Tensor]]:
        tensors = self.golden.tensors
        return list(zip(tensors["choose.images"].split(6), tensors["choose.labels"].split(6), strict=True))

    def adapted(self) -> tuple[Adapted, Backbone]:
        authors = self.golden.about["method"]
        settings = {"connections": authors["times_para"], "temperature": authors["temperature"]}
        backbone = backbone_of(self.golden)
        adapted = method_of("gps", settings).adapt(backbone, self.golden.about["shape"]["classes"])
        adapted.module.double()
        return adapted, backbone

    def test_the_loss_is_theirs_on_one_view_and_on_two(self) -> None:
        backbone = backbone_of(self.golden)
        for number, (images, labels) in enumerate(self.images()):
            with torch.no_grad():
                views = [backbone.pooled(images), backbone.pooled(images.flip(-1))]
            for name, count in (("loss_one_view", 1), ("loss_two_views", 2)):
                loss = contrastive_loss(torch.cat(views[:count]), labels.repeat(count), 0.07)
                close(loss, self.golden.tensors[name][number], LOGITS)

    def test_it_learns_the_same_places_and_computes_the_same(self) -> None:
        adapted, backbone = self.adapted()
        assert adapted.prepare is not None
        adapted.prepare((Inputs({"fine": images}), labels) for images, labels in self.images())
        places, delta = self.golden.under("learned_places."), self.golden.under("delta.")
        frozen, order = self.golden.under("frozen."), {}
        adapted.freeze_the_rest()
        with torch.no_grad():
            for name, numbers in delta.items():
                layer, _, kind = name.rpartition(".")
                if name.startswith("head."):
                    adapted.module.get_parameter(name).copy_(frozen[name] + numbers.view_as(frozen[name]))
                elif kind == "bias":
                    assert places[name].all()
                    adapted.module.get_parameter(f"backbone.{name}").add_(numbers)
                else:
                    update: Any = backbone.module.get_submodule(f"{layer}.parametrizations.weight.0")
                    mask = torch.zeros_like(places[name].flatten(1), dtype=torch.bool).scatter_(1, update.index, True)
                    assert torch.equal(mask, places[name].flatten(1).bool())
                    order[name] = update.index.argsort(dim=1)
                    update.index.copy_(update.index.sort(dim=1).values)
                    update.delta.copy_(numbers.view_as(update.delta))
        gradients = check(adapted, Inputs({"fine": self.golden.tensors["image"]}), self.golden)
        for name, theirs in self.golden.under("grad.").items():
            layer, _, kind = name.rpartition(".")
            ours = f"backbone.{layer}.parametrizations.weight.0.delta" if name in order else f"backbone.{name}"
            ours = name if name.startswith("head.") else ours
            close(gradients.pop(ours).flatten(), theirs.flatten(), GRADIENTS)
        assert not gradients


def test_side_tuning_computes_as_the_authors() -> None:
    golden = read("vpt_side")
    method, backbone = method_of("side_tuning", {"side_size": golden.about["shape"]["size"]}), backbone_of(golden)
    adapted = method.adapt(backbone, golden.about["shape"]["classes"])
    adapted.module.double()
    ours = by_pattern(VPT_HEAD, (r"side_alpha", "alpha"))
    learned = ours(golden.under("learned."))
    rename = by_pattern((r"side\.features\.(.+)", r"side.\1"), (r"side_projection\.weight", "project.weight"))
    names = sorted(golden.under("grad_norm."))
    for number, (name, theirs) in enumerate(zip(names, rename(dict.fromkeys(names, torch.empty(0))), strict=True)):
        parameter = adapted.module.get_parameter(theirs)
        factor = 0.1 if name.endswith("bias") else 1 / math.sqrt(parameter[0].numel())
        flat = factor * torch.sin(0.37 * torch.arange(parameter.numel(), dtype=torch.float64) + number)
        learned[theirs] = flat.view_as(parameter)
    put(adapted, learned)
    gradients = check(adapted, inputs_of(method, backbone, golden.tensors["image"]), golden)
    for name, theirs in ours(golden.under("grad.")).items():
        close(gradients[name], theirs, GRADIENTS)
    for name, norm in rename(golden.under("grad_norm.")).items():
        close(gradients[name].norm(), norm, GRADIENTS)
    for name, sample in rename(golden.under("grad_sample.")).items():
        flat = gradients[name].flatten()
        close(flat[:: max(1, flat.numel() // 64)][: len(sample)], sample, GRADIENTS)


# One linear layer: the method, its settings, and how its tensors are called.
LAYERS: dict[str, tuple[str, Callable[[dict[str, Any]], dict[str, Any]], dict[str, str]]] = {
    "layer_adalora": (
        "adalora",
        lambda a: {"initial_rank": a["r"], "target_rank": 2, "alpha": a["lora_alpha"]},
        {name: f"{name}.default" for name in ("lora_A", "lora_B", "lora_E")},
    ),
    "layer_hra": ("hra", lambda a: {"rank": a["r"]}, {"hra_u": "hra_u.default"}),
    "layer_hra_gs": ("hra", lambda a: {"rank": a["r"], "orthogonalise": True}, {"hra_u": "hra_u.default"}),
    "layer_loha": (
        "loha",
        lambda a: {"rank": a["rank"], "alpha": a["alpha"]},
        {
            "w1u": "hada_w1_a.default",
            "w1d": "hada_w1_b.default",
            "w2u": "hada_w2_a.default",
            "w2d": "hada_w2_b.default",
        },
    ),
    "layer_lokr": (
        "lokr",
        lambda a: {"rank": a["rank"], "alpha": a["alpha"]},
        {"w1": "lokr_w1.default", "w2a": "lokr_w2_a.default", "w2b": "lokr_w2_b.default"},
    ),
    "layer_ia3_out": ("ia3", fixed(), {"multi_lora_b": "ia3_l.default"}),
    "layer_ia3_in": ("ia3", fixed(), {"multi_lora_a": "ia3_l.default"}),
}


@pytest.mark.parametrize("name", [name for name in FILES if name in LAYERS])
def test_a_layer_is_the_authors(name: str) -> None:
    golden, (method_name, settings, names) = read(name), LAYERS[name]
    tensors, method = golden.tensors, method_of(method_name, settings(golden.about["method"]))
    # (IA)3 scales the inputs of what is called fc2, and the outputs of the rest.
    place = "mlp.fc2" if name == "layer_ia3_in" else "attn.k"
    linear = nn.Linear(*reversed(tensors["weight"].shape)).double()
    linear.load_state_dict({"weight": tensors["weight"], "bias": tensors["bias"]})
    part, _, last = place.partition(".")
    module = nn.ModuleDict({part: nn.ModuleDict({last: linear})})
    peft_method: Any = method
    peft_method.inject(module, peft_method.config([place]))
    layer: Any = module.get_submodule(place).eval()
    learned = {ours: layer.get_parameter(ours) for ours in names.values()}
    with torch.no_grad():
        for theirs, ours in names.items():
            learned[ours].copy_(tensors[f"learned.{theirs}"])
    output = layer(tensors["x"])
    close(output.detach(), tensors["y"], LOGITS)
    gradients = torch.autograd.grad((output * tensors["g"]).sum(), list(learned.values()))
    for theirs, gradient in zip(names, gradients, strict=True):
        close(gradient, tensors[f"grad.{theirs}"], GRADIENTS)


def test_every_file_is_compared_or_has_no_counterpart() -> None:
    assert FILES
    assert set(FILES) <= {*CASES, *LAYERS, *OWN, *NO_COUNTERPART}
    assert not set(NO_COUNTERPART) & {*CASES, *LAYERS, *OWN}

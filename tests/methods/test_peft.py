"""Methods by peft, and BOFT: their weights against plain tensor operations, their outputs against stock peft."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, cast

import peft
import pytest
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torch.nn import functional as F

from petlbench.core.catalog import Catalog
from petlbench.models.backbone import Backbone
from petlbench.models.method import Adapted, Inputs, load_method
from petlbench.models.registry import probe_backbone, resolve_backbone

SIZE, D = 32, 64
FIRST = "blocks.0.attn.qkv."
Tensors = Mapping[str, Tensor]
Weights = tuple[Tensor, Tensor]

# Settings that suit a width of 64 and tell the parts of a formula apart.
SETTINGS: dict[str, dict[str, Any]] = {
    "lokr": {"rank": 2, "alpha": 3},
    "loha": {"alpha": 3},
    "fourierft": {"coefficients": 500},
    "c3a": {"block_size": 16},
    "gralora": {"rank": 8, "blocks": 4},
    "miss": {"rank": 16},
    "oft": {"block_size": 16},
    "boft": {"targets": "q,v", "factors": 3},
    "peanut": {"scale": 0.5},
    "road": {"group_size": 32},
}
ADDED = ("lora", "rslora", "dora", "pissa", "adalora", "ia3", "vera", "pvera", "oft", "boft", "loha", "lokr")
ADDED += ("fourierft", "hra", "randlora", "c3a", "delora", "road", "miss", "gralora", "hira", "psoft", "peanut", "beft")


@cache
def tiny() -> Backbone:
    """Two blocks of width 64, with biases that are not zero."""
    torch.manual_seed(0)
    module = VisionTransformer(img_size=32, patch_size=16, embed_dim=D, depth=2, num_heads=2, num_classes=0)
    for name, tensor in module.named_parameters():
        if name.endswith("bias"):
            nn.init.normal_(tensor, std=0.1)
    return Backbone(dataclasses.replace(probe_backbone(resolve_backbone("test_vit"), 32), blocks=2), module.eval())


@cache
def method_class(method: str) -> Any:
    return load_method(Catalog().find("method", method))


def build(method: str, settings: Mapping[str, Any] | None = None) -> tuple[Adapted, Backbone, nn.Module]:
    """A method on the tiny backbone, and the backbone as it was before."""
    backbone = Backbone(tiny().info, copy.deepcopy(tiny().module))
    torch.manual_seed(0)
    adapted = method_class(method).from_settings(settings or SETTINGS.get(method, {})).adapt(backbone, 3)
    adapted.freeze_the_rest()
    adapted.module.eval()
    return adapted, backbone, copy.deepcopy(tiny().module)


def redraw(tensors: Any) -> None:
    generator = torch.Generator().manual_seed(7)
    for tensor in tensors:
        tensor.data = torch.randn(tensor.shape, generator=generator).to(tensor) * 0.1 + tensor.data


def logits(adapted: Adapted, dtype: torch.dtype = torch.float32) -> Tensor:
    image = torch.randn(2, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1), dtype=dtype)
    with torch.no_grad():
        return cast("Tensor", adapted.module(Inputs({"fine": image})))


def circulant(kernel: Tensor) -> Tensor:
    rows, columns, size = kernel.shape
    place = (torch.arange(size)[None] - torch.arange(size)[:, None]) % size
    return kernel[:, :, place].permute(0, 2, 1, 3).reshape(rows * size, columns * size)


def uniform(shape: tuple[int, ...], fan: int, generator: torch.Generator) -> Tensor:
    return torch.empty(shape).uniform_(-((6 / fan) ** 0.5), (6 / fan) ** 0.5, generator=generator)


def cayley(skew: Tensor) -> Tensor:
    identity = torch.eye(len(skew), dtype=skew.dtype)
    return (identity - skew) @ torch.linalg.inv(identity + skew)


def skew(entries: Tensor, size: int) -> Tensor:
    upper = torch.zeros(size, size, dtype=entries.dtype)
    upper[torch.triu(torch.ones(size, size), 1).bool()] = entries
    return upper - upper.T


def added(update: Callable[[Tensor, Tensors], Tensor]) -> Callable[[Weights, Tensors], Weights]:
    return lambda base, t: (base[0] + update(base[0], t), base[1])


def _dora(base: Weights, t: Tensors) -> Weights:
    direction = base[0] + t["lora_B"] @ t["lora_A"]
    return t["lora_magnitude_vector"][:, None] * direction / direction.norm(dim=1, keepdim=True), base[1]


def _pissa(weight: Tensor, t: Tensors) -> Tensor:
    left, values, right = torch.linalg.svd(weight)
    return t["lora_B"] @ t["lora_A"] - left[:, :16] @ torch.diag(values[:16]) @ right[:16]


def _vera(weight: Tensor, t: Tensors, prefix: str = "vera", rows: int = 256) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    first = uniform((rows, D), D, generator).to(weight)[:256]
    second = uniform((D, 256), 256, generator).to(weight)
    b, d = t[f"{prefix}_lambda_b"], t[f"{prefix}_lambda_d"][:256]
    return torch.diag(b) @ second @ torch.diag(d) @ first


def _randlora(weight: Tensor, t: Tensors) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    a, b = uniform((32, 1, D), 6, generator), uniform((D, 2, 32), 6, generator)
    a, b = (a / a.std()).to(weight), (b / b.std()).to(weight)
    scaled = torch.einsum("rn,rd,nd->rnd", t["randlora_lambda"], a[:, 0], t["randlora_gamma"])
    # The rows of B_n are random, so it does not matter that peft counts its columns in another order than A's rows.
    return 20 * b.flatten(1) @ scaled.flatten(0, 1)


def _hra(base: Weights, t: Tensors) -> Weights:
    weight = base[0]
    for u in F.normalize(t["hra_u"], dim=0).T:
        weight = weight @ (torch.eye(D, dtype=u.dtype) - 2 * torch.outer(u, u))
    return weight, base[1]


def _oft(base: Weights, t: Tensors) -> Weights:
    turn = torch.block_diag(*[cayley(skew(entries, 16)) for entries in t["oft_R"]])
    return base[0] @ turn.T, base[1]


def _boft(base: Weights, t: Tensors) -> Weights:
    """Each factor as a dense matrix: half blocks j and j + 2ⁱ of a group are one block."""
    turned = torch.eye(D, dtype=base[0].dtype)
    for factor, entries in enumerate(t["angles"]):
        halves = range(D // 2)
        starts = [j for j in halves if not (j >> factor) & 1]
        dense = torch.zeros(D, D, dtype=base[0].dtype)
        for start, angles in zip(starts, entries, strict=True):
            channels = [2 * half + k for half in (start, start + 2**factor) for k in range(2)]
            dense[torch.tensor(channels)[:, None], torch.tensor(channels)[None]] = cayley(skew(angles, 4))
        turned = dense @ turned
    return t["scale"][:, None] * (base[0] @ turned.T), t["base.bias"]


def _fourierft(weight: Tensor, t: Tensors) -> Tensor:
    places = torch.randperm(D * D, generator=torch.Generator().manual_seed(2024))[:500]
    spectrum = torch.zeros(D * D, dtype=weight.dtype)
    spectrum[places] = t["fourierft_spectrum"]
    return 300 * torch.fft.ifft2(spectrum.view(D, D)).real


def _delora(weight: Tensor, t: Tensors) -> Tensor:
    pairs = [torch.outer(b / b.norm(), a / a.norm()) for a, b in zip(t["delora_A"], t["delora_B"].T, strict=True)]
    return t["delora_lambda"] / 8 * torch.stack(pairs).sum(0) * weight.norm(dim=0)


def _road(base: Weights, t: Tensors) -> Weights:
    turn = torch.zeros(D, D, dtype=base[0].dtype)
    for pair, (angle, length) in enumerate(zip(t["road_theta"], t["road_alpha"], strict=True)):
        one = pair // 16 * 32 + pair % 16
        other = one + 16
        turn[one, one] = turn[other, other] = length * angle.cos()
        turn[one, other], turn[other, one] = -length * angle.sin(), length * angle.sin()
    return turn @ base[0], turn @ base[1]


def _gralora(weight: Tensor, t: Tensors) -> Tensor:
    update = torch.zeros_like(weight)
    for row in range(4):
        for column in range(4):
            down = t["gralora_A"][column][:, 2 * row : 2 * row + 2]
            up = t["gralora_B"][row][2 * column : 2 * column + 2]
            update[16 * row : 16 * row + 16, 16 * column : 16 * column + 16] = 2 * (down @ up).T
    return update


def _psoft(weight: Tensor, t: Tensors) -> Tensor:
    left, values, right = torch.linalg.svd(weight)
    turn = torch.diag(t["psoft_R.vector_b"]) @ cayley(-skew(t["psoft_R"], 32)) @ torch.diag(t["psoft_R.vector_a"])
    return left[:, :32] @ torch.diag(values[:32]) @ (turn - torch.eye(32, dtype=turn.dtype)) @ right[:32]


WEIGHTS: dict[str, Callable[[Weights, Tensors], Weights]] = {
    "lora": added(lambda _w, t: t["lora_B"] @ t["lora_A"]),
    "rslora": added(lambda _w, t: 16 / 16**0.5 * t["lora_B"] @ t["lora_A"]),
    "dora": _dora,
    "pissa": added(_pissa),
    "adalora": added(lambda _w, t: t["lora_B"] @ torch.diag(t["lora_E"][:, 0]) @ t["lora_A"] * 8 / (12 + 1e-5)),
    "ia3": lambda base, t: (t["ia3_l"] * base[0], t["ia3_l"][:, 0] * base[1]),
    "vera": added(_vera),
    "pvera": added(lambda w, t: _vera(w, t, "pvera", 512)),
    "oft": _oft,
    "boft": _boft,
    "loha": added(lambda _w, t: 3 / 8 * (t["hada_w1_a"] @ t["hada_w1_b"]) * (t["hada_w2_a"] @ t["hada_w2_b"])),
    "lokr": added(lambda _w, t: 3 / 2 * torch.kron(t["lokr_w1"], t["lokr_w2_a"] @ t["lokr_w2_b"])),
    "fourierft": added(_fourierft),
    "hra": _hra,
    "randlora": added(_randlora),
    "c3a": added(lambda _w, t: circulant(t["c3a_kernel"]) / D),
    "delora": added(_delora),
    "road": _road,
    "miss": added(lambda _w, t: t["miss_block"].T.repeat(1, D // 16)),
    "gralora": added(_gralora),
    "hira": added(lambda w, t: w * (t["hira_B"] @ t["hira_A"])),
    "psoft": added(_psoft),
    "peanut": added(lambda w, t: 0.5 * (t["peanut_B"] @ (t["peanut_A"] @ w).relu())),
    "beft": lambda base, t: (base[0], base[1] + t["beft_bias"][0]),
}
# Where peft computes in single precision whatever it is given.
SINGLE = {"hra", "fourierft", "c3a", "vera", "pvera", "randlora", "pissa", "psoft", "delora", "oft"}


@pytest.mark.parametrize("method", ADDED)
def test_weights_are_those_of_the_formula_and_can_be_merged(method: str) -> None:
    adapted, backbone, plain = build(method)
    redraw(tensor for name, tensor in adapted.parameters().items() if not name.startswith("head."))
    dtype = torch.float32 if method in SINGLE else torch.float64
    close = {"rtol": 0, "atol": 3e-5 if method in SINGLE else 1e-10}
    adapted.module.to(dtype)
    plain.to(dtype)
    qkv = cast("nn.Linear", plain.get_submodule("blocks.0.attn.qkv"))
    layer = backbone.module.get_submodule(FIRST + "v")
    got = {name.replace(".default", "").removesuffix(".weight"): t for name, t in layer.named_parameters()}
    weight, bias = WEIGHTS[method]((qkv.weight[2 * D :].detach(), qkv.bias[2 * D :].detach()), got)
    x = torch.randn(2, 5, D, dtype=dtype)
    torch.testing.assert_close(layer(x), F.linear(x, weight, bias), **close)
    before = logits(adapted, dtype)
    assert adapted.merge is not None
    adapted.merge()
    torch.testing.assert_close(logits(adapted, dtype), before, **close)
    assert set(backbone.module.state_dict()) == set(plain.state_dict())
    merged = cast("nn.Linear", backbone.module.get_submodule("blocks.0.attn.qkv"))
    torch.testing.assert_close(merged.weight[2 * D :], weight, **close)
    torch.testing.assert_close(merged.bias[2 * D :], bias, **close)
    if method != "ia3":
        assert torch.equal(merged.weight[D : 2 * D], qkv.weight[D : 2 * D])


@pytest.mark.parametrize("method", sorted(set(ADDED) - {"c3a"}))
def test_the_start_is_the_frozen_backbone(method: str) -> None:
    adapted, _, plain = build(method)
    image = torch.randn(2, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = adapted.module.get_submodule("head")(cast("Any", plain)(image))
    torch.testing.assert_close(logits(adapted), expected, rtol=0, atol=1e-5)


def test_normal_fourier_coefficients_and_circulant_kernels_do_not_start_at_the_backbone() -> None:
    for method, settings in (("fourierft", {"coefficients": 500, "initial": "normal"}), ("c3a", {"block_size": 16})):
        assert not method_class(method).starts_at_backbone
        plain = build("lora")
        adapted, _, _ = build(method, settings)
        assert not torch.allclose(logits(adapted), logits(plain[0]), atol=1e-4), method


class Separate(nn.Module):
    """A vision transformer with queries, keys and values in layers of their own, on tokens made elsewhere."""

    def __init__(self, plain: nn.Module) -> None:
        super().__init__()
        self.blocks = nn.ModuleList()
        for block in cast("Any", plain).blocks:
            made = nn.Module()
            made.norm1, made.norm2 = block.norm1, block.norm2
            made.proj, made.fc1, made.fc2 = block.attn.proj, block.mlp.fc1, block.mlp.fc2
            for index, name in enumerate("qkv"):
                linear, rows = nn.Linear(D, D), slice(index * D, (index + 1) * D)
                linear.load_state_dict({"weight": block.attn.qkv.weight[rows], "bias": block.attn.qkv.bias[rows]})
                setattr(made, name, linear)
            self.blocks.append(made)

    def forward(self, x: Tensor) -> Tensor:
        for block in cast("Any", self.blocks):
            y = block.norm1(x)
            q, k, v = (part(y).unflatten(-1, (2, -1)).transpose(1, 2) for part in (block.q, block.k, block.v))
            attention = torch.softmax(q @ k.transpose(-1, -2) / 32**0.5, dim=-1)
            x = x + block.proj((attention @ v).transpose(1, 2).flatten(2))
            x = x + block.fc2(F.gelu(block.fc1(block.norm2(x))))
        return x


STOCK: dict[str, peft.PeftConfig] = {
    "lora": peft.LoraConfig(r=16, lora_alpha=16),
    "rslora": peft.LoraConfig(r=16, lora_alpha=16, use_rslora=True),
    "dora": peft.LoraConfig(r=16, lora_alpha=16, use_dora=True),
    "pissa": peft.LoraConfig(r=16, lora_alpha=16, init_lora_weights="pissa"),
    "adalora": peft.AdaLoraConfig(total_step=10),
    "ia3": peft.IA3Config(target_modules=["k", "v", "fc2"], feedforward_modules=["fc2"]),
    "vera": peft.VeraConfig(),
    "pvera": peft.PveraConfig(),
    "oft": peft.OFTConfig(oft_block_size=16, use_cayley_neumann=False),
    "loha": peft.LoHaConfig(r=8, alpha=3),
    "lokr": peft.LoKrConfig(r=2, alpha=3),
    "fourierft": peft.FourierFTConfig(n_frequency=500, scaling=300, random_loc_seed=2024),
    "hra": peft.HRAConfig(r=8),
    "randlora": peft.RandLoraConfig(),
    "c3a": peft.C3AConfig(block_size=16),
    "delora": peft.DeloraConfig(),
    "road": peft.RoadConfig(group_size=32),
    "miss": peft.MissConfig(r=16),
    "gralora": peft.GraloraConfig(r=8, alpha=16, gralora_k=4),
    "hira": peft.HiraConfig(),
    "psoft": peft.PsoftConfig(),
    "peanut": peft.PeanutConfig(scaling=0.5),
    "beft": peft.BeftConfig(target_modules=["v"]),
}


@pytest.mark.parametrize("method", STOCK)
def test_outputs_are_those_of_stock_peft_on_separate_layers(method: str) -> None:
    adapted, backbone, plain = build(method)
    redraw(tensor for name, tensor in adapted.parameters().items() if not name.startswith("head."))
    config = copy.deepcopy(STOCK[method])
    config.target_modules = config.target_modules or {"q", "v"}
    stock = peft.get_peft_model(Separate(copy.deepcopy(plain)), config).eval()
    theirs = dict(stock.named_parameters())
    ours = {name.removeprefix("backbone."): tensor for name, tensor in adapted.parameters().items()}
    renamed = {name.replace(".attn.qkv.", ".").replace(".mlp.", "."): tensor for name, tensor in ours.items()}
    learned = {f"base_model.model.{name}": tensor for name, tensor in renamed.items() if not name.startswith("head.")}
    assert set(learned) == {name for name, tensor in theirs.items() if tensor.requires_grad}
    if method == "randlora":
        # Its projections are drawn again in single precision.
        layer: Any = backbone.module.get_submodule(FIRST + "v")
        model: Any = stock.base_model
        for mine, shared in ((layer.randlora_A, model.randlora_A), (layer.randlora_B, model.randlora_B)):
            shared["default"].copy_(mine["default"])
    model = plain
    image = torch.randn(2, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        for name, tensor in learned.items():
            theirs[name].copy_(tensor)
        tokens = stock(model.norm_pre(model._pos_embed(model.patch_embed(image))))
        expected = adapted.module.get_submodule("head")(model.forward_head(model.norm(tokens), pre_logits=True))
    torch.testing.assert_close(logits(adapted), expected, rtol=0, atol=1e-6)

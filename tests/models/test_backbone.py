"""Backbones: facts probed without memory, what attention really sees, and layers taken apart without a change."""

from __future__ import annotations

import copy
import inspect
from typing import Any, cast

import pytest
import timm
import torch
from timm.models.vision_transformer import Attention, Block
from torch import Tensor, nn

from petlbench.core.errors import InputError
from petlbench.core.request import DEFAULT_BACKBONE
from petlbench.models import registry
from petlbench.models.backbone import Backbone, FusedAttentionSwitch, SplitQKV, set_attention_kernel
from petlbench.models.info import BackboneInfo
from petlbench.models.registry import build_backbone, probe_backbone, resolve_backbone

# With a class token, with registers instead, and with normed queries and keys or scaled layers besides; and a published
# one. The first three are of width 64 to 96 and made for tests.
SMALL = [("test_vit", 64), ("test_vit2", 64), ("test_vit3", 64), ("test_vit4", 64), ("vit_tiny_patch16_224", 48)]

CPU, META = torch.device("cpu"), torch.device("meta")


def probe(name: str, image_size: int | None = None) -> BackboneInfo:
    return probe_backbone(resolve_backbone(name), image_size)


def build(name: str, image_size: int, device: torch.device = CPU) -> Backbone:
    torch.manual_seed(0)
    backbone = build_backbone(resolve_backbone(name), image_size, "none", device)
    if device.type != "meta":
        _stir(backbone.module)
    backbone.module.eval()
    return backbone


def _stir(module: nn.Module) -> None:
    """Give every parameter a value of its own: timm starts biases at zero, which hides mistakes."""
    with torch.no_grad():
        for tensor in module.parameters():
            tensor.add_(torch.randn_like(tensor) * 0.05)


def images(size: int, count: int = 2) -> Tensor:
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(1))


class TestNames:
    def test_the_default_is_the_checkpoint_that_the_papers_adapt(self) -> None:
        assert DEFAULT_BACKBONE == "vit_base_patch16_384.orig_in21k_ft_in1k"
        assert resolve_backbone("vit_base_patch16_384") == DEFAULT_BACKBONE
        assert resolve_backbone(DEFAULT_BACKBONE) == DEFAULT_BACKBONE

    def test_another_tag_of_the_default_is_kept(self) -> None:
        tagged = "vit_base_patch16_384.augreg_in21k_ft_in1k"
        assert resolve_backbone(tagged) == tagged

    def test_a_bare_name_gets_timms_own_tag(self) -> None:
        assert resolve_backbone("vit_tiny_patch16_224") == "vit_tiny_patch16_224.augreg_in21k_ft_in1k"

    @pytest.mark.parametrize(
        ("name", "near"),
        [
            ("vit_tiny_patch16_242", "vit_tiny_patch16_224"),
            ("vit_base_patch16_384.orig_in21k_ft_in", DEFAULT_BACKBONE),
            ("vit_tiny_patch16_224.x", ""),
            ("", ""),
        ],
    )
    def test_an_unknown_name_is_answered_with_the_nearest(self, name: str, near: str) -> None:
        with pytest.raises(InputError) as caught:
            resolve_backbone(name)
        assert caught.value.kind == "unknown_backbone"
        assert f"'{name}'" in caught.value.message
        assert near in caught.value.hint
        assert caught.value.hint


PLAIN = {"blocks", "isotropic", "qkv", "keys_values", "linear_keys", "plain_mlp"}


class TestProbe:
    def test_the_papers_backbone_at_384(self) -> None:
        info = probe("vit_base_patch16_384", 384)
        assert (info.blocks, info.width, info.heads, info.patch, info.tokens) == (12, 768, 12, 16, 577)
        assert (info.native_size, info.prefix_tokens, info.classes) == (384, 1, 1000)
        assert info.parameters == 86_095_879 - 7 * 769
        assert info.mean == info.std == (0.5, 0.5, 0.5)
        assert info.interpolation == "bicubic"
        assert info.capabilities == PLAIN | {"class_token"}

    def test_tokens_grow_with_the_image(self) -> None:
        assert probe("vit_base_patch16_384", 512).tokens == 1025
        assert probe("vit_base_patch16_384", 512).native_size == 384

    def test_without_a_size_it_is_the_weights_own(self) -> None:
        assert probe("vit_base_patch16_384").image_size == 384
        assert probe("vit_tiny_patch16_224").image_size == 224

    def test_registers_and_class_token_stand_in_front(self) -> None:
        info = probe("vit_small_patch14_reg4_dinov2", 56)
        assert (info.prefix_tokens, info.tokens, info.patch) == (5, 21, 14)
        assert info.capabilities == PLAIN | {"class_token", "register_tokens"}

    def test_rotary_positions_hide_the_keys_and_a_gated_mlp_is_not_plain(self) -> None:
        info = probe("eva02_base_patch14_224", 28)
        assert info.capabilities == {"blocks", "isotropic", "qkv", "class_token"}

    def test_stages_change_the_width(self) -> None:
        info = probe("swin_tiny_patch4_window7_224", 32)
        assert info.capabilities == {"blocks", "qkv", "plain_mlp"}
        assert (info.blocks, info.width, info.prefix_tokens) == (12, 768, 0)
        assert info.widths == (96,) * 2 + (192,) * 2 + (384,) * 6 + (768,) * 2

    def test_a_distilled_backbone_has_two_tokens_in_front(self) -> None:
        assert probe("deit_tiny_distilled_patch16_224", 32).prefix_tokens == 2

    def test_nothing_is_allocated(self, monkeypatch: pytest.MonkeyPatch) -> None:
        made: list[nn.Module] = []
        create = timm.create_model

        def watched(*arguments: Any, **options: Any) -> nn.Module:
            made.append(create(*arguments, **options))
            return made[-1]

        monkeypatch.setattr(timm, "create_model", watched)
        registry._probe.cache_clear()
        # 1.1 billion parameters, 4.5 GB: more than a minute of initialisation if it were real.
        assert probe("vit_giant_patch14_dinov2", 518).parameters > 1_000_000_000
        assert made
        for module in made:
            assert {tensor.device.type for tensor in module.parameters()} == {"meta"}

    @pytest.mark.parametrize(
        ("size", "hint"), [(50, "48 or 64"), (383, "368 or 384"), (15, "16"), (-16, "16"), (0, "16")]
    )
    def test_a_size_off_the_patch_is_answered_with_its_neighbours(self, size: int, hint: str) -> None:
        with pytest.raises(InputError) as caught:
            probe("vit_tiny_patch16_224", size)
        assert caught.value.kind == "bad_image_size"
        assert str(size) in caught.value.message
        assert caught.value.hint == f"use --image-size {hint}"

    @pytest.mark.parametrize("name", ["densenet121", "pvt_v2_b0", "swinv2_tiny_window8_256", "mixer_b16_224"])
    def test_another_architecture_is_refused(self, name: str) -> None:
        with pytest.raises(InputError) as caught:
            probe(name)
        assert caught.value.kind == "unsupported_backbone"
        assert name in caught.value.message

    @pytest.mark.parametrize("name", ["xcit_nano_12_p16_224", "hiera_tiny_224", "crossvit_9_240", "volo_d1_224"])
    def test_an_architecture_with_patches_of_another_kind_is_refused(self, name: str) -> None:
        with pytest.raises(InputError) as caught:
            probe(name)
        assert caught.value.kind == "unsupported_backbone"

    def test_what_is_lacking_is_said(self) -> None:
        info = probe("vit_base_patch16_siglip_224", 32)
        assert info.lacks("blocks", "keys_values") is None
        assert info.lacks("class_token", "blocks", "register_tokens") == (
            f"{info.name} has no class token and no register tokens"
        )
        with pytest.raises(KeyError):
            info.lacks("fused_qkv")


# Plain ones, and ones that differ: distillation and register tokens, a position table without the class token, a
# convolutional stem, rotary positions, no class token, normed queries and keys.
MANY = [
    ("vit_tiny_patch16_224", 32),
    ("deit_tiny_distilled_patch16_224", 32),
    ("vit_small_patch14_reg4_dinov2", 56),
    ("vit_tiny_r_s16_p8_224", 32),
    ("vit_small_r26_s32_224", 224),
    ("vit_small_patch16_dinov3", 64),
    ("vit_base_patch16_rope_reg1_gap_256", 64),
    ("eva02_tiny_patch14_224", 56),
    ("vit_base_patch16_siglip_224", 32),
    ("test_vit3", 64),
    ("eva02_base_patch14_224", 56),
    ("swin_tiny_patch4_window7_224", 64),
    ("beit_base_patch16_224", 64),
]


@pytest.fixture(scope="module", params=MANY, ids=lambda pair: str(pair[0]))
def promised(request: pytest.FixtureRequest) -> Backbone:
    """A backbone on meta, if it is taken at all."""
    try:
        return build(*request.param, META)
    except InputError as error:
        assert error.kind in {"unsupported_backbone", "bad_image_size"}
        pytest.skip("refused")


@pytest.mark.slow
class TestEveryBackboneIsRefusedOrAsPromised:
    """What is probed must hold, or the backbone must lack the capability: methods trust it without looking."""

    @staticmethod
    def image(backbone: Backbone) -> Tensor:
        return torch.empty(2, 3, backbone.info.image_size, backbone.info.image_size, device="meta")

    def test_its_tokens_are_counted_right(self, promised: Backbone) -> None:
        if promised.info.lacks("isotropic"):
            pytest.skip("its tokens change on the way")
        tokens = cast("Any", promised.module).forward_features(self.image(promised))
        assert tokens.shape == (2, promised.info.tokens, promised.info.width)

    def test_its_final_feature_has_the_width(self, promised: Backbone) -> None:
        assert promised.pooled(self.image(promised)).shape == (2, promised.info.width)

    def test_its_keys_and_values_can_be_read(self, promised: Backbone) -> None:
        info = promised.info
        if info.lacks("keys_values"):
            pytest.skip("it says that it cannot")
        read = list(promised.queries_keys_values(self.image(promised), [0, info.blocks - 1]))
        shape = (2, info.heads, info.tokens, info.width // info.heads)
        assert [tuple(part.shape) for three in read for part in three] == [shape] * 6

    def test_its_layers_can_be_taken_apart(self, promised: Backbone) -> None:
        if promised.info.lacks("qkv"):
            pytest.skip("it says that it cannot")
        apart = Backbone(promised.info, copy.deepcopy(promised.module))
        apart.split_qkv()
        assert apart.pooled(self.image(promised)).shape == (2, promised.info.width)


# Of every structure: distilled, with registers and scaled layers, rotary with a gated MLP, and in stages.
STRUCTURES = [
    ("deit_tiny_distilled_patch16_224", 32),
    ("vit_small_patch14_reg4_dinov2", 28),
    ("eva02_tiny_patch14_224", 28),
    ("eva02_base_patch14_224", 28),
    ("vit_small_patch16_dinov3", 32),
    ("swin_tiny_patch4_window7_224", 32),
]


class TestOnTheWay:
    @pytest.mark.parametrize(("name", "size"), [*SMALL, *STRUCTURES])
    def test_block_by_block_it_says_the_same(self, name: str, size: int) -> None:
        backbone = build(name, size)
        if backbone.info.lacks("isotropic"):
            pytest.skip("its tokens change on the way")
        with torch.no_grad():
            expected = backbone.pooled(images(size))
            states = list(backbone.states(images(size)))
            stepwise = backbone.pooled_through(images(size), lambda _layer, tokens: tokens, lambda tokens: tokens)
        assert len(states) == backbone.info.blocks + 1
        assert states[0].shape == (2, backbone.info.tokens, backbone.info.width)
        torch.testing.assert_close(backbone.pooled_from(states[-1]), expected)
        torch.testing.assert_close(stepwise, expected)

    @pytest.mark.parametrize(("name", "size"), STRUCTURES)
    def test_layers_are_named_by_the_part_they_play(self, name: str, size: int) -> None:
        backbone = build(name, size, META)
        backbone.split_qkv()
        for block, (query, value, *inner) in zip(backbone.blocks(), backbone.linears("q", "v", "fc1"), strict=True):
            for layer in (query, value, *inner):
                assert isinstance(backbone.module.get_submodule(layer), nn.Linear)
            assert backbone.module.get_submodule(query) is not backbone.module.get_submodule(value)
            assert len(inner) == (2 if hasattr(block.mlp, "fc1_g") else 1)

    def test_queries_have_no_layer_of_their_own_before_the_split(self) -> None:
        with pytest.raises(KeyError, match="no layer for 'q'"):
            build("test_vit", 32, META).linears("q")


class TestQueriesKeysValues:
    @pytest.mark.parametrize(
        ("name", "size"),
        SMALL,
    )
    @pytest.mark.parametrize("position", [0, 0.5, 1])
    def test_they_are_what_eager_attention_used(self, name: str, size: int, position: float) -> None:
        backbone = build(name, size)
        layer = int(position * (backbone.info.blocks - 1))
        set_attention_kernel(backbone.module, "eager")
        attention = cast("Any", backbone.module).blocks[layer].attn
        outputs: list[Tensor] = []
        hook = attention.register_forward_hook(lambda _module, _inputs, output: outputs.append(output))
        with torch.no_grad():
            backbone.pooled(images(size))
            hook.remove()
            ((query, key, value),) = backbone.queries_keys_values(images(size), [layer])
            weights = (query @ key.transpose(-2, -1) * query.shape[-1] ** -0.5).softmax(dim=-1)
            again = attention.proj(attention.norm((weights @ value).transpose(1, 2).flatten(2)))
        torch.testing.assert_close(again, outputs[0], rtol=1e-4, atol=1e-5)

    def test_each_layer_is_read_as_if_alone(self) -> None:
        backbone = build("test_vit", 32)
        with torch.no_grad():
            together = list(backbone.queries_keys_values(images(32), [1, 2, 5]))
            for (query, key, value), layer in zip(together, [1, 2, 5], strict=True):
                ((query_alone, key_alone, value_alone),) = backbone.queries_keys_values(images(32), [layer])
                for rest, right in ((query, query_alone), (key, key_alone), (value, value_alone)):
                    assert torch.equal(rest, right)

    def test_nothing_is_computed_behind_the_last_wanted_layer(self) -> None:
        backbone = build("test_vit", 32)
        ran: list[int] = []
        for index, block in enumerate(cast("Any", backbone.module).blocks):
            block.register_forward_hook(lambda *_, index=index: ran.append(index))
        list(backbone.queries_keys_values(images(32), [1, 3]))
        assert ran == [0, 1, 2]

    def test_no_hook_stays_behind(self) -> None:
        backbone = build("test_vit", 32)
        list(backbone.queries_keys_values(images(32), [0, 5]))
        next(iter(backbone.queries_keys_values(images(32), [0, 5])))
        assert not any(module._forward_hooks for module in backbone.module.modules())


class TestSplit:
    @pytest.mark.parametrize(
        ("name", "size"),
        SMALL,
    )
    def test_taking_layers_apart_leaves_the_outputs(self, name: str, size: int) -> None:
        backbone = build(name, size)
        with torch.no_grad():
            before = backbone.pooled(images(size))
            total = sum(tensor.numel() for tensor in backbone.module.parameters())
            backbone.split_qkv()
            after = backbone.pooled(images(size))
        torch.testing.assert_close(after, before, rtol=1e-5, atol=1e-6)
        assert sum(tensor.numel() for tensor in backbone.module.parameters()) == total
        assert all(isinstance(block.attn.qkv, SplitQKV) for block in cast("Any", backbone.module).blocks)

    @pytest.mark.parametrize(("name", "size"), STRUCTURES)
    def test_what_was_taken_apart_is_put_together_again(self, name: str, size: int) -> None:
        backbone = build(name, size)
        before = {key: value.clone() for key, value in backbone.module.state_dict().items()}
        with torch.no_grad():
            expected = backbone.pooled(images(size))
            backbone.split_qkv()
            torch.testing.assert_close(backbone.pooled(images(size)), expected, rtol=1e-5, atol=1e-5)
            backbone.fuse_qkv()
        after = backbone.module.state_dict()
        assert before.keys() == after.keys()
        assert all(torch.equal(before[key], after[key]) for key in before)

    def test_a_part_that_holds_more_than_a_linear_layer_is_not_fused(self) -> None:
        backbone = build("test_vit", 32)
        backbone.split_qkv()
        backbone.blocks()[0].attn.qkv.q = nn.Sequential(backbone.blocks()[0].attn.qkv.q)
        with pytest.raises(TypeError, match="Sequential"):
            backbone.fuse_qkv()

    @pytest.mark.parametrize("bias", [True, False])
    def test_the_parts_are_queries_keys_and_values_in_this_order(self, bias: bool) -> None:
        fused = nn.Linear(4, 12, bias=bias)
        parts = SplitQKV(fused)
        for index, part in enumerate((parts.q, parts.k, parts.v)):
            rows = slice(4 * index, 4 * index + 4)
            assert torch.equal(part.weight, fused.weight[rows])
            assert (part.bias is None) == (not bias)
            if bias:
                assert torch.equal(part.bias, fused.bias[rows])

    def test_the_parts_share_no_memory_with_the_whole(self) -> None:
        fused = nn.Linear(4, 12)
        parts = SplitQKV(fused)
        with torch.no_grad():
            parts.k.weight.fill_(3)
            parts.k.bias.fill_(3)
        assert not (fused.weight == 3).any()
        assert not (fused.bias == 3).any()

    def test_it_works_on_meta_and_in_half_precision(self) -> None:
        assert {tensor.device.type for tensor in SplitQKV(nn.Linear(4, 12, device="meta")).parameters()} == {"meta"}
        half = SplitQKV(nn.Linear(4, 12, dtype=torch.bfloat16))
        assert {tensor.dtype for tensor in half.parameters()} == {torch.bfloat16}


class TestKernel:
    def test_the_kernel_is_chosen_in_every_attention_layer(self) -> None:
        class Both(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.vit = build("test_vit", 32).module
                self.ours = FusedAttentionSwitch()

        module = Both()
        for kernel, fused in (("eager", False), ("fused", True), ("eager", False), ("auto", True)):
            set_attention_kernel(module, kernel)
            layers = [layer.fused_attn for layer in module.modules() if hasattr(layer, "fused_attn")]
            assert len(layers) == 7
            assert set(layers) == {fused}

    def test_both_kernels_say_the_same(self) -> None:
        backbone = build("test_vit", 64)
        result = []
        for kernel in ("eager", "fused"):
            set_attention_kernel(backbone.module, kernel)
            with torch.no_grad():
                result.append(backbone.pooled(images(64)))
        torch.testing.assert_close(*result, rtol=1e-4, atol=1e-5)


class TestBuild:
    def test_on_meta_no_weight_is_read_or_fetched(self) -> None:
        backbone = build_backbone(DEFAULT_BACKBONE, 384, "/no/such/file.pth", META)
        assert {tensor.device.type for tensor in backbone.module.state_dict().values()} == {"meta"}
        assert sum(tensor.numel() for tensor in backbone.module.parameters()) == backbone.info.parameters

    def test_the_final_feature_is_what_the_classifier_would_read(self) -> None:
        name = "vit_tiny_patch16_224"
        whole = timm.create_model(name, img_size=32, num_classes=10).eval()
        backbone = build(name, 32)
        backbone.module.load_state_dict({k: v for k, v in whole.state_dict().items() if not k.startswith("head.")})
        with torch.no_grad():
            torch.testing.assert_close(whole.head(backbone.pooled(images(32))), whole(images(32)))

    def test_the_digest_names_the_weights(self) -> None:
        first, same = build("test_vit", 32), build("test_vit", 32)
        assert first.digest() == same.digest()
        assert len(first.digest()) == 64
        with torch.no_grad():
            cast("Any", same.module).norm.bias[7] += 1e-6
        assert first.digest() != same.digest()
        assert build("test_vit", 48).digest() != first.digest()


@pytest.mark.parametrize("kernel", ["eager", "fused"])
@torch.no_grad()
def test_queries_ask_an_attention_with_all_that_it_may_have(kernel: str) -> None:
    block: Any = Block(64, 2, init_values=0.5, norm_layer=nn.LayerNorm)
    takes = inspect.signature(Attention).parameters
    parts = {name: True for name in ("qkv_bias", "qk_norm", "scale_norm", "gated") if name in takes}
    block.attn = Attention(64, 2, norm_layer=nn.LayerNorm, **parts)
    module = nn.Module()
    module.blocks = nn.ModuleList([nn.Identity(), block])
    for tensor in module.parameters():
        tensor.normal_()
    set_attention_kernel(module.double(), kernel)
    queries, tokens = (torch.randn(2, count, 64, dtype=torch.float64) for count in (3, 5))
    # Nobody may read the queries.
    seen = torch.arange(8) >= 3
    expected = block(torch.cat([queries, tokens], dim=1), attn_mask=seen.expand(8, -1))[:, :3]
    torch.testing.assert_close(Backbone(cast("Any", None), module).answers(1, queries, tokens), expected)

"""Mixed precision on device ``meta``: torch's own rules, from the type of a result to the bytes of a training step."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from petlbench.memory.live_tensors import LiveTensors
from petlbench.memory.predict import fused_kernel
from petlbench.models.backbone import set_attention_kernel
from petlbench.models.precision import LOWER, PROMOTED, SET_TYPE, autocast, autocast_type, meta_stands_for

CPU, META = torch.device("cpu"), torch.device("meta")
BF16, FP16, FP32 = torch.bfloat16, torch.float16, torch.float32
Function = Callable[[Tensor, Tensor], Any]

# Models this small gain nothing from a second thread.
torch.set_num_threads(1)

# Functions of an input (2, 3, 8, 8) in some type and of a learnable weight (8, 8) in float32.
FUNCTIONS: dict[str, Function] = {
    "linear": F.linear,
    "matmul": torch.matmul,
    "operator @": lambda x, w: x @ w.T,
    "bmm": lambda x, w: torch.bmm(x[0], w.expand(3, 8, 8)),
    "baddbmm": lambda x, w: torch.baddbmm(x[0], x[1], w.expand(3, 8, 8)),
    "addmm": lambda x, w: torch.addmm(w, x[0, 0], w),
    "einsum": lambda x, w: torch.einsum("bcij,jk->bcik", x, w),
    "mv": lambda x, w: torch.mv(x[0, 0], x[0, 0, 0]),
    "conv2d": lambda x, w: F.conv2d(x, w.reshape(2, 32)[:, :3, None, None]),
    "conv1d": lambda x, w: F.conv1d(x[0], w[..., None]),
    "layer_norm": lambda x, w: F.layer_norm(x, (8,), w[0], w[1]),
    "group_norm": lambda x, w: F.group_norm(x, 3),
    "softmax": lambda x, w: x.softmax(-1),
    "softmax, type named": lambda x, w: x.softmax(-1, dtype=torch.bfloat16),
    "log_softmax": lambda x, w: F.log_softmax(x, -1),
    "gelu": lambda x, w: F.gelu(x),
    "relu": lambda x, w: F.relu(x),
    "silu": lambda x, w: F.silu(x),
    "sigmoid": lambda x, w: torch.sigmoid(x),
    "exp": lambda x, w: x.exp(),
    "pow": lambda x, w: x**2,
    "rsqrt": lambda x, w: x.abs().rsqrt(),
    "cross_entropy": lambda x, w: F.cross_entropy(x[:, 0, 0], torch.zeros(2, dtype=torch.long, device=x.device)),
    "mse_loss": lambda x, w: F.mse_loss(x[0, 0], w),
    "sum": lambda x, w: x.sum(),
    "sum of rows": lambda x, w: x.sum(-1),
    "mean": lambda x, w: x.mean(-1),
    "cumsum": lambda x, w: x.cumsum(-1),
    "norm": lambda x, w: x.norm(),
    "linalg.norm": lambda x, w: torch.linalg.norm(x, dim=-1),
    "cosine_similarity": lambda x, w: F.cosine_similarity(x, w[0], dim=-1),
    "add": lambda x, w: x + w,
    "mul": lambda x, w: x * w,
    "cat": lambda x, w: torch.cat([x[0, 0], w]),
    "cat of one type": lambda x, w: torch.cat([x, x]),
    "stack": lambda x, w: torch.stack([x[0, 0], w]),
    "where": lambda x, w: torch.where(x > 0, x, 0.0),
    "dropout": lambda x, w: F.dropout(x, 0.5),
    "interpolate": lambda x, w: F.interpolate(x, scale_factor=2, mode="bilinear"),
    "avg_pool2d": lambda x, w: F.avg_pool2d(x, 2),
    "fft": lambda x, w: torch.fft.rfft(x),
    "attention": lambda x, w: F.scaled_dot_product_attention(x, x, w.expand(2, 3, 8, 8)),
    "inverse": lambda x, w: torch.linalg.inv(w),
    "solve": lambda x, w: torch.linalg.solve(w, x[0, 0]),
    "svd": lambda x, w: torch.linalg.svd(w),
    "two layers": lambda x, w: F.linear(F.gelu(F.linear(x, w)), w),
}


@pytest.fixture(autouse=True)
def as_torch_is_at_its_start() -> Iterator[None]:
    """A run of another test may have asked torch for repeatable sums, for which it resizes by other operators."""
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(False)
    yield
    torch.use_deterministic_algorithms(before)


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    """No test, whatever it tries, leaves a rule in force."""
    yield
    assert autocast_type() is None
    weight = torch.ones(2, 2, device=META)
    assert F.linear(weight, weight).dtype == FP32


@pytest.fixture
def as_cpu() -> Iterator[None]:
    token = meta_stands_for.set("cpu")
    yield
    meta_stands_for.reset(token)


def types(function: Function, device: torch.device, inputs: torch.dtype, precision: str = "bf16") -> list[Any]:
    """The types of a function's results and of the gradients of its arguments."""
    x = (torch.rand(2, 3, 8, 8) + 0.1).to(device, inputs).requires_grad_()
    w = (torch.eye(8) + 0.1 * torch.rand(8, 8)).to(device).requires_grad_()
    with autocast(device, precision):
        result = function(x, w)
    results = result if isinstance(result, tuple) else (result,)
    sum(part.abs().float().sum() for part in results).backward()
    return [*(part.dtype for part in results), *(None if leaf.grad is None else leaf.grad.dtype for leaf in (x, w))]


@pytest.mark.usefixtures("as_cpu")
@pytest.mark.parametrize("inputs", [FP32, BF16], ids=["fp32", "bf16"])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_types_are_those_of_autocast_on_the_cpu(name: str, inputs: torch.dtype) -> None:
    function = FUNCTIONS[name]
    assert types(function, META, inputs) == types(function, CPU, inputs)


def lowered(*names: str) -> list[Any]:
    return [pytest.param(name, None, id=name) for name in names]


def in_float32(*names: str) -> list[Any]:
    return [pytest.param(name, FP32, id=name) for name in names]


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
@pytest.mark.parametrize(
    ("name", "expected"),
    [
        *lowered("linear", "matmul", "operator @", "bmm", "baddbmm", "addmm", "einsum", "mv", "conv2d", "conv1d"),
        *lowered("attention", "two layers"),
        *in_float32("layer_norm", "group_norm", "softmax", "log_softmax", "exp", "pow", "rsqrt", "cross_entropy"),
        *in_float32("mse_loss", "sum", "sum of rows", "cumsum", "norm", "linalg.norm", "cosine_similarity"),
        *in_float32("interpolate", "add", "mul", "cat", "stack"),
        # What has no rule keeps the type of what it is given.
        *lowered("gelu", "relu", "silu", "sigmoid", "mean", "where", "dropout", "avg_pool2d", "cat of one type"),
    ],
)
def test_types_on_cuda_are_those_of_torchs_documentation(
    name: str, expected: torch.dtype | None, precision: str
) -> None:
    lower = {"bf16": BF16, "fp16": FP16}[precision]
    result, of_input, of_weight = types(FUNCTIONS[name], META, lower, precision)
    assert result == (expected or lower)
    assert of_input in {lower, None}
    assert of_weight in {FP32, None}


def test_float64_and_integers_are_left_alone() -> None:
    wide, whole = torch.ones(2, 2, dtype=torch.float64, device=META), torch.ones(2, 2, dtype=torch.long, device=META)
    with autocast(META, "fp16"):
        assert F.linear(wide, wide).dtype == torch.float64
        assert wide.softmax(-1).dtype == wide.sum().dtype == torch.float64
        assert whole.sum().dtype == torch.long


class Casts(TorchDispatchMode):
    """Counts the casts between types, by the shape of what is cast."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call, unused-ignore]
        self.counts: Counter[tuple[int, ...]] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten._to_copy.default:
            self.counts[tuple(args[0].shape)] += 1
        return func(*args, **(kwargs or {}))


@pytest.mark.usefixtures("as_cpu")
@pytest.mark.parametrize("device", [META, CPU], ids=str)
@pytest.mark.parametrize(("learnable", "casts"), [(True, [1, 2]), (False, [3, 6])], ids=["learnable", "frozen"])
def test_a_learnable_weight_is_cast_once_in_a_context(device: torch.device, learnable: bool, casts: list[int]) -> None:
    weight = torch.zeros(5, 5, device=device, requires_grad=learnable)
    x = torch.zeros(2, 5, device=device, dtype=BF16)
    found = []
    with Casts() as counter:
        for _ in range(2):
            with autocast(device, "bf16"):
                for _ in range(3):
                    F.linear(x, weight)
            found.append(counter.counts[5, 5])
    assert found == casts


@pytest.mark.usefixtures("as_cpu")
@pytest.mark.parametrize("device", [META, CPU], ids=str)
def test_a_view_and_a_result_are_cast_each_time(device: torch.device) -> None:
    weight = torch.zeros(5, 5, device=device, requires_grad=True)
    x, view, result = torch.zeros(2, 5, device=device, dtype=BF16), weight[:4], 2 * weight
    with Casts() as counter, autocast(device, "bf16"):
        for _ in range(3):
            F.linear(x, view)
            F.linear(x, result)
    assert counter.counts == {(4, 5): 3, (5, 5): 3}


@pytest.mark.usefixtures("as_cpu")
def test_casts_of_weights_live_until_the_context_ends() -> None:
    weight = torch.zeros(64, 64, device=META, requires_grad=True)
    x = torch.zeros(1, 64, device=META, dtype=BF16)
    with LiveTensors(META, block=1) as live:
        with torch.no_grad(), autocast(META, "bf16"):
            F.linear(x, weight)
            assert live.current == 2 * 64 * 64
        assert live.current == 0


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_norms_of_vectors_are_computed_in_float32_without_a_copy(precision: str) -> None:
    x = torch.zeros(32, 32, device=META, dtype={"fp16": FP16, "bf16": BF16}[precision])
    with LiveTensors(META, block=1) as live, autocast(META, precision):
        assert torch.linalg.vector_norm(x, dim=-1).dtype == FP32
    assert live.peak == 32 * 4


@pytest.mark.parametrize(("precision", "copies"), [("fp16", 0), ("bf16", 1)])
@pytest.mark.parametrize("function", [torch.softmax, torch.log_softmax])
def test_softmax_copies_its_input_to_float32_only_from_bfloat16(
    function: Callable[..., Tensor], precision: str, copies: int
) -> None:
    x = torch.zeros(32, 32, device=META, dtype={"fp16": FP16, "bf16": BF16}[precision])
    with LiveTensors(META, block=1) as live, autocast(META, precision):
        assert function(x, -1).dtype == FP32
    assert live.peak == (1 + copies) * 32 * 32 * 4


class TestContext:
    def test_it_ends_with_an_exception(self) -> None:
        with pytest.raises(ValueError, match="stop"), autocast(META, "bf16"):
            raise ValueError("stop")
        assert autocast_type() is None

    def test_it_ends_when_an_operation_fails(self) -> None:
        wrong = torch.zeros(2, 3, device=META)
        with pytest.raises(RuntimeError), autocast(META, "bf16"):
            F.linear(wrong, wrong.T)
        assert autocast_type() is None

    def test_the_inner_of_two_holds(self) -> None:
        weight = torch.zeros(2, 2, device=META, requires_grad=True)
        with autocast(META, "bf16"):
            assert F.linear(weight, weight).dtype == BF16
            with autocast(META, "fp16"):
                assert F.linear(weight, weight).dtype == autocast_type() == FP16
            assert F.linear(weight, weight).dtype == autocast_type() == BF16

    def test_full_precision_has_no_rules(self) -> None:
        with autocast(META, "fp32"):
            assert autocast_type() is None

    def test_the_rules_of_the_other_device_are_not_applied(self) -> None:
        x = torch.zeros(2, 2, device=META, dtype=BF16)
        found = []
        for device in ("cuda", "cpu"):
            token = meta_stands_for.set(device)
            with autocast(META, "bf16"):
                found.append(F.layer_norm(x, (2,)).dtype)
            meta_stands_for.reset(token)
        assert found == [FP32, BF16]

    def test_tensors_on_the_host_are_left_alone(self) -> None:
        real = torch.zeros(2, 2)
        with autocast(META, "bf16"):
            assert F.linear(real, real).dtype == FP32
            assert real.to(BF16).sum().dtype == BF16


# Operations that autocast computes in float32 on CUDA, by the torch versions that were looked at.
FLOAT32 = frozenset(
    """
    _upsample_bicubic2d_aa _upsample_bilinear2d_aa _upsample_nearest_exact1d _upsample_nearest_exact2d
    _upsample_nearest_exact3d acos asin binary_cross_entropy_with_logits cdist cosh cosine_embedding_loss
    cosine_similarity dist erfinv exp expm1 frobenius_norm.dim group_norm hinge_embedding_loss huber_loss kl_div l1_loss
    layer_norm linalg_matrix_sqrth log log10 log1p log2 logsumexp margin_ranking_loss mse_loss multi_margin_loss
    multilabel_margin_loss native_layer_norm nll_loss nll_loss2d norm.Scalar norm.ScalarOpt_dim nuclear_norm
    nuclear_norm.dim pdist poisson_nll_loss pow.Scalar pow.Tensor_Scalar pow.Tensor_Tensor reciprocal renorm rms_norm
    rsqrt sinh smooth_l1_loss soft_margin_loss softplus tan triplet_margin_loss upsample_bicubic2d upsample_bilinear2d
    upsample_linear1d upsample_nearest1d upsample_nearest2d upsample_nearest3d upsample_trilinear3d
    """.split()  # noqa: SIM905
)
# Autocast refuses this one: it has no rule, but an error.
REFUSED = frozenset({"binary_cross_entropy"})


def test_every_rule_of_the_installed_torch_is_known() -> None:
    names = torch._C._dispatch_get_all_op_names()
    listed = {
        name.removeprefix("aten::")
        for name in names
        if name.startswith("aten::") and torch._C._dispatch_has_kernel_for_dispatch_key(name, "AutocastCUDA")
    }
    assert listed - LOWER - PROMOTED - SET_TYPE - FLOAT32 - REFUSED == set()
    sets = (LOWER, PROMOTED, SET_TYPE, FLOAT32, REFUSED)
    assert sum(map(len, sets)) == len(frozenset[str]().union(*sets)), "an operation has two rules"


def train(device: torch.device, kernel: str, precision: str) -> LiveTensors:
    """Two steps of a small ViT, of which the attention of every second block is learned."""
    with device:
        vit = VisionTransformer(img_size=64, patch_size=8, embed_dim=64, depth=4, num_heads=2, num_classes=3)
        image, labels = torch.zeros(4, 3, 64, 64), torch.zeros(4, dtype=torch.long)
    set_attention_kernel(vit, kernel)
    for name, tensor in vit.named_parameters():
        tensor.requires_grad_("blocks.1.attn" in name or "blocks.3.attn" in name or "head" in name)
    optimizer = torch.optim.AdamW([tensor for tensor in vit.parameters() if tensor.requires_grad], foreach=True)
    live = LiveTensors(device, CPU, block=1)
    live.add(vit, optimizer, image, labels)
    with live:
        for _ in range(2):
            optimizer.zero_grad()
            with autocast(device, precision):
                loss = nn.functional.cross_entropy(vit(image), labels)
            loss.backward()  # type: ignore[no-untyped-call, unused-ignore]
            optimizer.step()
    return live


@contextmanager
def standing_for(device: str) -> Iterator[None]:
    token = meta_stands_for.set(device)
    try:
        with fused_kernel(device):
            yield
    finally:
        meta_stands_for.reset(token)


@pytest.mark.parametrize("kernel", ["eager", "fused"])
@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_a_training_step_takes_what_it_takes_on_the_cpu(precision: str, kernel: str) -> None:
    real = train(CPU, kernel, precision)
    with standing_for("cpu"):
        predicted = train(META, kernel, precision)
    assert predicted.peak == pytest.approx(real.peak, rel=1e-3)
    assert predicted.parts == pytest.approx(real.parts, rel=1e-2)
    assert predicted.peak != train(CPU, kernel, "fp32").peak


def test_half_precision_saves_activations_on_cuda() -> None:
    peaks = {}
    for precision in ("fp32", "bf16", "fp16"):
        with standing_for("cuda"):
            peaks[precision] = train(META, "fused", precision).parts["activations"]
    assert peaks["bf16"] == peaks["fp16"] < 0.8 * peaks["fp32"]

"""Fused attention on device ``meta``: the CPU's bytes are those of real tensors, CUDA's kernel as torch chooses it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from petlbench.memory.live_tensors import LiveTensors
from petlbench.memory.predict import fused_kernel
from petlbench.models.backbone import AttentionKernel
from petlbench.models.precision import autocast, meta_stands_for

CPU, META = torch.device("cpu"), torch.device("meta")
IMAGES, HEADS, TOKENS, WIDTH = 2, 4, 64, 16
FLASH, EFFICIENT = "aten::_scaled_dot_product_flash_attention", "aten::_scaled_dot_product_efficient_attention"


def inputs(device: torch.device, dtype: torch.dtype = torch.float32, tokens: int = TOKENS) -> list[Tensor]:
    """Query, key and value, (B, H, N, D)."""
    make = [torch.rand(IMAGES, HEADS, tokens, WIDTH) for _ in range(3)]
    return [tensor.to(device, dtype).requires_grad_() for tensor in make]


class Operations(TorchDispatchMode):
    """Notes the operations that were carried out, and the last one's arguments by its name."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call, unused-ignore]
        self.arguments: dict[str, tuple[Any, ...]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.arguments[func._schema.name] = args
        return func(*args, **(kwargs or {}))


def counted(device: torch.device, kernel: AttentionKernel | None, **chosen: Any) -> tuple[int, int]:
    """Bytes that live behind the forward pass, and the peak of forward and backward together."""
    mask = chosen.pop("mask", None)
    given = inputs(device, chosen.pop("dtype", torch.float32))
    if mask is not None:
        mask = mask.detach().clone().to(device).requires_grad_(mask.requires_grad)
    live = LiveTensors(device, block=1)
    live.add(given, mask)
    with live:
        if kernel is not None:
            with kernel:
                output = F.scaled_dot_product_attention(*given, attn_mask=mask, **chosen)
        else:
            output = F.scaled_dot_product_attention(*given, attn_mask=mask, **chosen)
        kept = live.current
        output.sum().backward()
    return kept, live.peak


@pytest.mark.parametrize(
    "chosen",
    [
        {},
        {"dtype": torch.bfloat16},
        {"is_causal": True},
        {"scale": 0.5},
        {"mask": torch.zeros(TOKENS, TOKENS)},
        {"mask": torch.zeros(1, HEADS, TOKENS, TOKENS)},
        {"mask": torch.ones(IMAGES, 1, TOKENS, TOKENS, dtype=torch.bool)},
        {"mask": torch.ones(TOKENS, TOKENS, dtype=torch.bool), "dtype": torch.bfloat16},
        {"mask": torch.zeros(1, HEADS, TOKENS, TOKENS, requires_grad=True)},
    ],
    ids=["plain", "bf16", "causal", "scale", "mask", "mask of heads", "boolean mask", "boolean, bf16", "learned mask"],
)
def test_on_the_cpu_it_takes_what_the_cpu_takes(chosen: dict[str, Any]) -> None:
    assert counted(META, fused_kernel("cpu"), **chosen) == counted(CPU, None, **chosen)


def test_the_attention_matrix_is_kept_without_it_and_not_with_it() -> None:
    matrix = 4 * IMAGES * HEADS * TOKENS**2
    fused, explicit = counted(META, fused_kernel("cuda"))[0], counted(META, None)[0]
    assert explicit - fused >= matrix


@pytest.mark.parametrize(
    ("dtype", "masked", "expected"),
    [
        (torch.float32, False, EFFICIENT),
        (torch.float32, True, EFFICIENT),
        (torch.float16, False, FLASH),
        (torch.bfloat16, False, FLASH),
        (torch.bfloat16, True, EFFICIENT),
    ],
)
def test_cudas_kernel_follows_from_type_and_mask(dtype: torch.dtype, masked: bool, expected: str) -> None:
    mask = torch.zeros(TOKENS, TOKENS, device=META) if masked else None
    with Operations() as done, fused_kernel("cuda"):
        output = F.scaled_dot_product_attention(*inputs(META, dtype), attn_mask=mask)
    assert {FLASH, EFFICIENT} & set(done.arguments) == {expected}
    assert (output.shape, output.dtype) == ((IMAGES, HEADS, TOKENS, WIDTH), dtype)
    output.sum().backward()


@pytest.mark.parametrize(("device", "kernel"), [("cuda", FLASH), ("cpu", f"{FLASH}_for_cpu")])
def test_under_autocast_it_computes_in_the_lower_type(device: str, kernel: str) -> None:
    token = meta_stands_for.set(device)
    given = inputs(META)
    with Operations() as done, fused_kernel(device), autocast(META, "bf16"):
        output = F.scaled_dot_product_attention(*given)
    meta_stands_for.reset(token)
    assert output.dtype == torch.bfloat16
    assert {tensor.dtype for tensor in done.arguments[kernel][:3]} == {torch.bfloat16}
    output.sum().backward()
    assert given[0].grad is not None
    assert given[0].grad.dtype == torch.float32


@pytest.mark.parametrize(("tokens", "stride"), [(49, 56), (64, 64), (50, 56)])
def test_the_memory_efficient_kernel_gets_masks_with_aligned_rows(tokens: int, stride: int) -> None:
    mask = torch.zeros(1, HEADS, tokens, tokens, device=META, requires_grad=True)
    with Operations() as done, fused_kernel("cuda"):
        output = F.scaled_dot_product_attention(*inputs(META, tokens=tokens), attn_mask=mask)
    given = done.arguments[EFFICIENT][3]
    assert given.shape == (IMAGES, HEADS, tokens, tokens)
    assert given.stride()[2:] == (stride, 1)
    output.sum().backward()
    assert mask.grad is not None
    assert mask.grad.shape == mask.shape


@pytest.mark.parametrize(("learning", "expected"), [(True, True), (False, False)])
def test_what_backward_needs_is_kept_only_where_gradients_are_wanted(learning: bool, expected: bool) -> None:
    with Operations() as done, fused_kernel("cuda"), torch.set_grad_enabled(learning):
        F.scaled_dot_product_attention(*inputs(META))
    assert done.arguments[EFFICIENT][4] is expected


@pytest.mark.parametrize("device", ["cuda", "cpu"])
def test_tensors_of_other_shapes_are_attended_to_explicitly(device: str) -> None:
    query, key, value = (tensor[:, 0] for tensor in inputs(META))
    with Operations() as done, fused_kernel(device):
        assert F.scaled_dot_product_attention(query, key, value).shape == (IMAGES, TOKENS, WIDTH)
    assert {FLASH, EFFICIENT, f"{FLASH}_for_cpu"} & set(done.arguments) == set()


def test_other_functions_are_left_alone() -> None:
    x = torch.zeros(3, 4)
    with fused_kernel("cuda"):
        assert torch.equal(F.softmax(x, dim=-1), torch.full((3, 4), 0.25))

"""The account of live tensors: its rules one by one, and a real training step against PyTorch's own profiler."""

from __future__ import annotations

import dataclasses
import gc
from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn

from petlbench.memory.live_tensors import ACTIVATIONS, GRADIENTS, OPTIMIZER, OTHER, PARAMETERS, LiveTensors

BOTH = pytest.mark.parametrize("device", ["cpu", "meta"])
KIB = 1024


@BOTH
def test_a_tensor_counts_from_its_making_to_its_release(device: str) -> None:
    with LiveTensors(device) as live:
        first = torch.empty(KIB, device=device)
        assert live.current == 4 * KIB
        second = torch.empty(KIB, dtype=torch.float16, device=device)
        assert live.current == 6 * KIB
        del first
        assert live.current == 2 * KIB
        assert live.peak == 6 * KIB
        del second
    assert (live.current, live.peak) == (0, 6 * KIB)


@BOTH
def test_sizes_are_rounded_up_to_a_block(device: str) -> None:
    with LiveTensors(device) as live, LiveTensors(device, block=1) as exact:
        kept = [torch.empty(count, dtype=torch.uint8, device=device) for count in (0, 1, 512, 513)]
    assert live.current == 0 + 512 + 512 + 1024
    assert exact.current == 0 + 1 + 512 + 513
    del kept


@BOTH
def test_views_and_work_in_place_cost_nothing(device: str) -> None:
    with LiveTensors(device) as live:
        tensor = torch.zeros(16, 64, device=device)
        views = [tensor.view(-1), tensor[3:5], tensor.t(), tensor.detach(), tensor.expand(2, 16, 64)]
        tensor.add_(1).mul_(2)
        torch._foreach_add_([tensor], 1)
        assert live.peak == 4 * KIB
        del tensor
        assert live.current == 4 * KIB  # the views hold the storage
        del views
        assert live.current == 0


@BOTH
def test_several_outputs_and_outputs_that_are_no_tensors(device: str) -> None:
    with LiveTensors(device) as live:
        tensor = torch.zeros(4, 128, device=device)
        values, order = tensor.sort(dim=1)
        assert live.current == 2 * KIB + 2 * KIB + 4 * KIB
        pieces = tensor.unbind()
        assert live.peak == 8 * KIB
        assert torch.is_same_size(values, order)
        del pieces


def test_a_storage_that_is_resized_counts_at_its_new_size() -> None:
    with LiveTensors() as live:
        tensor = torch.empty(128)
        tensor.resize_(1024)
        assert live.current == 4 * KIB
        out = torch.empty(0)
        torch.add(tensor, 1, out=out)
        assert live.current == 8 * KIB
        del tensor
        assert live.current == 4 * KIB


def test_tensors_that_only_autograd_holds_count() -> None:
    weight = torch.ones(256, requires_grad=True)
    with LiveTensors() as live:
        loss = (weight.exp() * 2).exp().sum()  # each exp keeps its result for backward
        assert live.current == 2 * KIB + 512
        loss.backward()  # type: ignore[no-untyped-call, unused-ignore]
        assert live.current == KIB + 512
    assert weight.grad is not None


def test_only_the_chosen_type_of_device_counts() -> None:
    with LiveTensors("meta") as live:
        host = torch.zeros(1024)
        assert live.current == 0
        other = torch.zeros(1024, device="meta")
        assert live.current == 4 * KIB
    del host, other


def test_what_lives_already_is_added_once() -> None:
    @dataclasses.dataclass
    class Batch:
        views: dict[str, Tensor]
        labels: Tensor

    layer = nn.Linear(128, 128, bias=False)
    tied = nn.ModuleList([layer, layer])
    batch = Batch({"coarse": torch.zeros(256)}, torch.zeros(64, dtype=torch.int64))
    live = LiveTensors()
    live.add(tied, layer, [batch, (layer.weight, None, "text")])
    assert live.current == live.peak == 64 * KIB + KIB + 512
    assert live.parts[PARAMETERS] == 64 * KIB
    assert live.parts[OTHER] == KIB + 512


def test_a_role_given_late_changes_the_peak_that_the_tensor_was_part_of() -> None:
    with LiveTensors() as live:
        early = torch.zeros(128)
        torch.zeros(1024)
        late = torch.zeros(256)
        live.tag("mine", [early, late])
    assert live.parts["mine"] == 512
    assert live.parts[ACTIVATIONS] == 4 * KIB
    assert sum(live.parts.values()) == live.peak == 4 * KIB + 512


def test_the_parts_of_a_training_step_are_those_of_arithmetic() -> None:
    layer = nn.Linear(128, 128, bias=False)
    frozen = nn.Linear(128, 128, bias=False).requires_grad_(requires_grad=False)
    module = nn.Sequential(frozen, layer)
    optimizer = torch.optim.AdamW([layer.weight], foreach=True)
    image = torch.zeros(2, 128)
    live = LiveTensors()
    live.add(module, optimizer, image)
    with live:
        for _ in range(2):
            optimizer.zero_grad()
            module(image).sum().backward()
            optimizer.step()
    assert live.parts[PARAMETERS] == 2 * 64 * KIB
    assert live.parts[GRADIENTS] == 64 * KIB
    assert live.parts[OPTIMIZER] == 2 * 64 * KIB + 512  # two moments, and the step count
    assert live.parts[OTHER] == KIB
    assert live.parts[ACTIVATIONS] >= 64 * KIB  # temporaries of the optimiser
    assert sum(live.parts.values()) == live.peak


def test_the_account_holds_nothing_alive_and_leaves_no_hook() -> None:
    layer = nn.Linear(4, 4)
    optimizer = torch.optim.AdamW(layer.parameters())
    live = LiveTensors()
    live.add(layer, optimizer)
    with pytest.raises(RuntimeError, match="out of memory"), live:
        raise RuntimeError("out of memory")
    assert not layer.weight._post_accumulate_grad_hooks
    assert not optimizer._optimizer_step_post_hooks
    del layer, optimizer
    gc.collect()
    assert live.current == 0


Setting = tuple[nn.Module, torch.optim.Optimizer, Tensor, Tensor]


def small_vit(device: str) -> Setting:
    """A small real setting: ViT-Ti/16 with eager attention, AdamW, a batch of 4."""
    with torch.device(device):
        model = timm.create_model("vit_tiny_patch16_224", num_classes=5)
        image, label = torch.zeros(4, 3, 224, 224), torch.zeros(4, dtype=torch.long)
    for module in model.modules():
        if hasattr(module, "fused_attn"):
            setattr(module, "fused_attn", False)  # noqa: B010
    return model, torch.optim.AdamW(model.parameters(), foreach=True), image, label


def train(setting: Setting) -> None:
    model, optimizer, image, label = setting
    for _ in range(2):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(image), label)
        loss.backward()  # type: ignore[no-untyped-call, unused-ignore]
        optimizer.step()


def account(device: str) -> LiveTensors:
    setting = small_vit(device)
    live = LiveTensors(device, block=1)
    live.add(*setting)
    with live:
        train(setting)
    return live


def profiled_peak() -> int:
    """The peak of the same steps from the allocations and releases that the CPU allocator reported."""
    setting = small_vit("cpu")
    model, _, *batch = setting
    base = sum(tensor.untyped_storage().nbytes() for tensor in (*model.parameters(), *model.buffers(), *batch))
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profiler:
        train(setting)
    kineto: Any = profiler.profiler
    events = [event for event in kineto.kineto_results.events() if event.name() == "[memory]"]
    current = peak = base
    for event in sorted(events, key=lambda event: event.start_ns()):
        current += event.nbytes()
        peak = max(peak, current)
    assert len(events) > 1000
    return peak


def test_a_real_training_step_peaks_where_the_profiler_says() -> None:
    on_cpu, on_meta = account("cpu"), account("meta")
    assert on_cpu.peak == pytest.approx(profiled_peak(), rel=1e-5)
    # AdamW keeps its step counts, four bytes per parameter tensor, on the host: not on the device meta.
    model = small_vit("meta")[0]
    step_counts = 4 * len(list(model.parameters()))
    assert on_cpu.peak - on_meta.peak == step_counts
    assert {**on_cpu.parts, OPTIMIZER: 0} == {**on_meta.parts, OPTIMIZER: 0}
    assert on_cpu.parts[OPTIMIZER] - on_meta.parts[OPTIMIZER] == step_counts

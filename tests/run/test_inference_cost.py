"""What prediction costs: times that are bounded, a peak that is prediction's own, and nothing changed by looking."""

from __future__ import annotations

import time
from collections.abc import Mapping

import pytest
import timm
import torch
from torch import Tensor, nn

from petlbench.data.loader import Batch
from petlbench.features.source import LiveFeatures, NoFeatures
from petlbench.memory.live_tensors import LiveTensors
from petlbench.memory.measure import MemoryMeter
from petlbench.models.backbone import Backbone, set_attention_kernel
from petlbench.models.method import BackboneInfo, FeatureSpec, Inputs, TensorSpec
from petlbench.models.registry import build_backbone
from petlbench.run.inference_cost import measure_inference
from petlbench.run.resolve import resolve_backbone
from petlbench.training.evaluation import Predictor

CPU, META = torch.device("cpu"), torch.device("meta")
BLOCK = 512


class Deep(nn.Module):
    """Two layers and a head with dropout, on the means of an image's pixels; notes the mode that it ran in."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(3 * 16 * 16, 256), nn.Linear(256, 5)
        self.dropout = nn.Dropout(0.5)
        self.seen: list[tuple[bool, int]] = []

    def forward(self, inputs: Inputs) -> Tensor:
        image = inputs.views["fine"]
        self.seen.append((self.training, len(image)))
        return self.two(self.dropout(self.one(image.flatten(1))).relu())


def predictor(module: nn.Module) -> Predictor:
    return Predictor(module, NoFeatures(), CPU, "fp32")


def test_the_figures_are_those_of_prediction() -> None:
    module, meter = Deep(), MemoryMeter(CPU)
    found = measure_inference(predictor(module), {"fine": 16}, 64, meter)
    assert found.error is None
    assert found.batch_size == 64
    assert 0 < (found.latency or 0) < 0.1
    assert (found.images_per_second or 0) > 64
    sizes = {size for _, size in module.seen}
    assert sizes == {1, 64}
    assert found.memory is not None
    assert found.memory.source == "cpu"
    weights = sum(-(-tensor.nbytes // BLOCK) * BLOCK for tensor in module.parameters())
    images, hidden = 64 * 3 * 16 * 16 * 4, 64 * 256 * 4
    # The peak is where relu's input and output live side by side.
    assert found.memory.allocated == weights + images + 2 * hidden
    assert found.memory.parts == {
        "parameters": weights,
        "gradients": 0,
        "optimizer": 0,
        "activations": 2 * hidden,
        "other": images,
    }
    assert found.memory.allocated == meter.phases["predict"].allocated


def test_looking_changes_nothing_but_drops_gradients() -> None:
    module = Deep().train()
    module.one.eval()
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    module(Inputs({"fine": torch.ones(2, 3, 16, 16)})).sum().backward()
    module.seen.clear()
    state = torch.get_rng_state()
    measure_inference(predictor(module), {"fine": 16}, 4, MemoryMeter(CPU))
    assert torch.equal(torch.get_rng_state(), state)
    assert {mode for mode, _ in module.seen} == {False}
    assert (module.training, module.one.training, module.dropout.training) == (True, False, True)
    assert all(torch.equal(tensor, before[name]) for name, tensor in module.state_dict().items())
    assert all(parameter.grad is None for parameter in module.parameters())
    assert all(parameter.requires_grad for parameter in module.parameters())


@pytest.mark.parametrize(("seconds", "most"), [(0.0, 20), (0.05, 8), (0.8, 4)])
def test_a_slow_model_is_passed_through_a_few_times_only(
    seconds: float, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Slow(Deep):
        def forward(self, inputs: Inputs) -> Tensor:
            clock[0] += seconds
            return super().forward(inputs)

    clock = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: clock[0])
    module = Slow()
    found = measure_inference(predictor(module), {"fine": 16}, 4, MemoryMeter(CPU))
    passes = {size: sum(seen == size for _, seen in module.seen) for size in (1, 4)}
    assert 3 <= passes[1] - 1 <= most
    assert 3 <= passes[4] - 2 <= most
    if seconds:
        assert found.latency == pytest.approx(seconds)
        assert found.images_per_second == pytest.approx(4 / seconds)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (
            torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
            "out of memory: CUDA out of memory",
        ),
        (MemoryError(), "out of memory: MemoryError"),
        (ValueError("two\nlines"), "two"),
    ],
)
def test_what_does_not_fit_is_said_and_raises_nothing(error: Exception, said: str) -> None:
    class Large(Deep):
        def forward(self, inputs: Inputs) -> Tensor:
            if len(inputs.views["fine"]) > 1:
                raise error
            return super().forward(inputs)

    module = Large().train()
    found = measure_inference(predictor(module), {"fine": 16}, 4, MemoryMeter(CPU))
    assert found.error is not None
    assert found.error.startswith(said)
    assert (found.latency, found.images_per_second, found.memory) == (None, None, None)
    assert module.training


class FinalFeature:
    """Frozen features for the tests: what the backbone's own classifier would read."""

    def spec(self, backbone: BackboneInfo) -> FeatureSpec:
        return FeatureSpec("fine", {}, {"final": TensorSpec((backbone.width,), torch.float32)})

    def extract(self, backbone: Backbone, image: Tensor) -> dict[str, Tensor]:
        return {"final": backbone.pooled(image)}


class Head(nn.Module):
    """A linear classifier of the frozen feature."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, 5)

    def forward(self, inputs: Inputs) -> Tensor:
        assert not inputs.views
        return self.linear(inputs.features["final"])


def test_live_features_and_their_backbone_count_and_the_same_pass_on_meta_agrees() -> None:
    def parts(device: torch.device) -> Predictor:
        backbone = build_backbone(resolve_backbone("test_vit"), 32, "none", device)
        set_attention_kernel(backbone.module, "eager")  # left to itself, device meta chooses another kernel
        head = Head(backbone.info.width).to(device)
        return Predictor(head, LiveFeatures(backbone, FinalFeature(), "fp32"), device, "fp32")

    measured = measure_inference(parts(CPU), {"fine": 32}, 8, MemoryMeter(CPU)).memory
    assert measured is not None
    assert measured.parts is not None
    on_meta = parts(META)
    assert isinstance(on_meta.source, LiveFeatures)
    views: Mapping[str, Tensor] = {"fine": torch.empty(8, 3, 32, 32, device=META)}
    live = LiveTensors(META)
    live.add(on_meta.module.eval(), views, on_meta.source.backbone.module)
    nothing = torch.empty(0, dtype=torch.int64)
    with live:
        assert on_meta.logits(Batch(nothing, views, nothing)).shape == (8, 5)
    whole = timm.create_model("test_vit", img_size=32, num_classes=0)
    assert measured.parts["parameters"] > sum(parameter.nbytes for parameter in whole.parameters())
    assert measured.parts["parameters"] == live.parts["parameters"]
    assert measured.allocated == live.peak


class Clocked(Deep):
    """Takes a set time for each image, by a clock that the test turns."""

    def __init__(self, clock: list[float], seconds: float) -> None:
        super().__init__()
        self.clock, self.seconds = clock, seconds

    def forward(self, inputs: Inputs) -> Tensor:
        self.clock[0] += self.seconds * len(inputs.views["fine"])
        return super().forward(inputs)


@pytest.mark.parametrize(("seconds", "passes"), [(0.01, {1, 16}), (0.1, {1}), (1.5, {1})])
def test_no_batch_passes_that_would_take_longer_than_is_allowed(
    seconds: float, passes: set[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: clock[0])
    module = Clocked(clock, seconds)
    cost = measure_inference(predictor(module), {"fine": 16}, 16, MemoryMeter(CPU), seconds=2)
    assert {size for _, size in module.seen} == passes
    assert cost.latency == pytest.approx(seconds)
    assert clock[0] <= 2.0 + seconds
    assert (cost.images_per_second is None) == (passes == {1})
    if passes == {1}:
        assert cost.memory is None
        assert f"{16 * seconds:.2g} s; --measure-inference full" in (cost.error or "")

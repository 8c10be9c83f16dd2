"""The prediction against real steps on the CPU: torch's profiler is the judge, and every method is tried."""

from __future__ import annotations

import gc
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from petlbench.core.catalog import Catalog
from petlbench.core.config import RunConfig
from petlbench.core.errors import InputError
from petlbench.core.request import Request
from petlbench.data.loader import Batch
from petlbench.features.frozen import in_form, shared_tensors
from petlbench.features.quantization import CachePrecision, StoredFeatures, stored_tensors
from petlbench.features.source import FeatureSource, LiveFeatures, NoFeatures
from petlbench.memory.live_tensors import LiveTensors
from petlbench.memory.predict import CONTEXT, WORKSPACE, predict_inference, predict_training
from petlbench.models.build import Assembled, assemble
from petlbench.models.method import FeatureSpec, Inputs, configured_method
from petlbench.results.result import Memory
from petlbench.run.resolve import resolve
from petlbench.training.evaluation import Predictor
from petlbench.training.step import Step, new_step

CATALOG = Catalog()
METHODS = tuple(CATALOG.entries("method"))
KERNELS = ("eager", "auto")
# What is tried in the fast suite: each kernel with several methods.
FAST = {
    "full": KERNELS,
    "fpt": ("auto",),
    "fpt_plus": ("eager",),
    "linear": ("auto",),
    "lora": ("auto",),
    "vpt": ("eager",),
}
# At 160 pixels activations outweigh the parameters of this backbone: what is wrong with them shows.
BACKBONE, SIZE, CLASSES, BATCH = "test_vit", 160, 7, 4
CPU, META = torch.device("cpu"), torch.device("meta")
MIB = 2**20

# Bytes of scalars that a kernel makes for itself, or that one side keeps a moment longer.
SLACK = 256
WITHIN = 1e-3


def config(method: str, **chosen: Any) -> RunConfig:
    """Resolve a small run as the command line would."""
    asked: dict[str, Any] = {
        "method": method,
        "dataset": "digits",
        "backbone": BACKBONE,
        "weights": "none",
        "image_size": SIZE,
        "device": "cpu",
        "threads": 1,
        **chosen,
        "training": {"batch_size": BATCH, **chosen.get("training", {})},
    }
    return resolve(Request(**asked), CATALOG, Path("data")).config


def predicted(run: RunConfig, block: int = 1) -> Memory:
    return predict_training(run, assemble(run, configured_method(run, CATALOG), CLASSES, META), block=block)


@dataclass
class Setting:
    """A real run on the CPU in front of its first step."""

    assembled: Assembled
    source: FeatureSource
    step: Step
    batch: Batch

    def held(self) -> list[object]:
        """What lives at the start: modules, optimiser, loss and batch."""
        beside = self.source.beside
        return [self.assembled.adapted.module, *beside, self.step.optimizer, self.step.objective, self.batch]

    def train(self) -> None:
        for _ in range(2):
            self.step(self.batch)


@dataclass(frozen=True)
class Preloaded:
    """Features of the right shapes, made anew for each step as they are fetched from the cache."""

    spec: FeatureSpec
    precision: CachePrecision
    shared: dict[str, Tensor]

    @property
    def beside(self) -> Sequence[object]:
        return (self.shared,)

    @property
    def spared_view(self) -> str:
        return self.spec.view

    def __call__(self, batch: Batch) -> Inputs:
        count = len(batch.labels)
        stored = stored_tensors(self.spec, self.precision)
        rows = {name: torch.ones(count, *spec.shape, dtype=spec.dtype) for name, spec in stored.items()}
        return Inputs(batch.views, StoredFeatures(rows), self.shared)


def real(run: RunConfig) -> Setting:
    assembled = assemble(run, configured_method(run, CATALOG), CLASSES, CPU)
    source = _feature_source(run, assembled)
    weights = torch.ones(CLASSES) if run.training.class_weights == "balanced" else None
    views = assembled.method.views(assembled.backbone.info, run.image_size)
    count = run.training.batch_size
    images = {
        name: torch.randn(count, 3, view.size, view.size) for name, view in views.items() if name != source.spared_view
    }
    batch = Batch(torch.arange(count), images, torch.arange(count) % CLASSES)
    if assembled.adapted.prepare is not None:
        assembled.adapted.prepare([(source(batch), batch.labels)])
    assembled.adapted.module.train()
    step = new_step(run, assembled.adapted, source, weights)
    # Scaled by the usual factor, the gradients of random weights overflow, and the optimiser would skip its steps.
    step.scaler = torch.amp.GradScaler("cpu", init_scale=1.0, enabled=run.precision == "fp16")
    return Setting(assembled, source, step, batch)


def _feature_source(run: RunConfig, assembled: Assembled) -> FeatureSource:
    if assembled.frozen is None:
        return NoFeatures()
    if run.cache_precision is not None:
        kept, backbone = in_form(assembled.frozen, run.cache_form), assembled.backbone
        return Preloaded(kept.spec(backbone.info), run.cache_precision, shared_tensors(kept, backbone, CPU))
    return LiveFeatures(assembled.backbone, assembled.frozen, run.precision)


def profiled(run: RunConfig) -> int:
    """The peak of two real steps from what torch's CPU allocator reported, on top of what lived before."""
    setting = real(run)
    gc.collect()
    current = peak = standing(setting)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profiler:
        setting.train()
    kineto: Any = profiler.profiler
    events = [event for event in kineto.kineto_results.events() if event.name() == "[memory]"]
    for event in sorted(events, key=lambda event: event.start_ns()):
        current += event.nbytes()
        peak = max(peak, current)
    assert len(events) > 50
    return peak


def standing(setting: Setting) -> int:
    """Exact bytes of what lives before the first step.

    Modules are searched for tensors in plain attributes too (FourierFT keeps its indices so): they are neither
    parameters nor buffers, but once a step touches them they count.
    """
    modules = [thing for thing in setting.held() if isinstance(thing, nn.Module)]
    tensors = [tensor for module in modules for part in module.modules() for tensor in _attributes(vars(part))]
    tensors += [*setting.batch.views.values(), setting.batch.labels, *_attributes(vars(setting.step.objective))]
    tensors += _attributes(list(setting.source.beside))
    storages = [tensor.untyped_storage() for tensor in tensors]
    return sum({storage.data_ptr(): storage.nbytes() for storage in storages}.values())


def _attributes(value: object) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from _attributes(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _attributes(item)


def counted(run: RunConfig) -> LiveTensors:
    """The same steps by the count that a run on the CPU reports."""
    setting = real(run)
    live = LiveTensors(CPU, block=1)
    live.add(*setting.held())
    with live:
        setting.train()
    return live


def apart(found: int | None, truth: int) -> float:
    """By how much a prediction is off, as a fraction; what is within the slack is not off."""
    assert found is not None
    return max(abs(found - truth) - SLACK, 0) / truth


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Models this small gain nothing from a second thread, and each thread would take workspace of its own."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def slow_unless(fast: bool) -> list[pytest.MarkDecorator]:
    return [] if fast else [pytest.mark.slow]


class TestAgainstTheProfiler:
    @pytest.mark.parametrize(
        ("method", "kernel"),
        [
            pytest.param(method, kernel, marks=slow_unless(kernel in FAST.get(method, ())))
            for method in METHODS
            for kernel in KERNELS
        ],
    )
    def test_every_method(self, method: str, kernel: str) -> None:
        run = config(method, attention_kernel=kernel)
        assert apart(predicted(run).allocated, profiled(run)) <= WITHIN

    @pytest.mark.parametrize(
        ("method", "chosen"),
        [
            ("linear", {"training": {"accumulate": 3, "class_weights": "balanced"}}),
            ("fpt_plus", {"preload": False}),
            ("fpt", {"cache_form": "tokens"}),
            ("fpt_plus", {"cache_form": "tokens", "method_settings": {"token_score": "all_heads"}}),
            ("linear", {"preload": False}),
            ("linear", {"training": {"label_smoothing": 0.1}}),
            pytest.param("fpt", {"preload": False}, marks=pytest.mark.slow),
            pytest.param("lora", {"training": {"accumulate": 2}}, marks=pytest.mark.slow),
            pytest.param("full", {"training": {"optimizer": "sgd"}}, marks=pytest.mark.slow),
            pytest.param("full", {"training": {"clip_grad_norm": 0}}, marks=pytest.mark.slow),
        ],
        ids=str,
    )
    def test_choices_of_a_run(self, method: str, chosen: dict[str, Any]) -> None:
        run = config(method, **chosen)
        assert apart(predicted(run).allocated, profiled(run)) <= WITHIN

    def test_a_tensor_too_much_would_be_noticed(self) -> None:
        # One activation of one block is far more than what is let through.
        tokens = (SIZE // 16) ** 2 + 1
        run = config("full")
        assert 4 * BATCH * tokens * 64 > 3 * (WITHIN * profiled(run) + SLACK)


class TestAgainstTheCount:
    """Where the profiler sees more than tensors do, the count of a run is the judge, and agrees to the byte.

    With checkpointing torch keeps the random state of every block, about 5 KB each, which the profiler shows and no
    operation returns; in half precision the CPU's kernels take workspace, a few percent here, and give it back. So does
    the gradient of a convolution, for each thread: in a step as small as a micro-batch of FPT+ here, that is 7 %.
    """

    @pytest.mark.parametrize("method", [pytest.param(name, marks=slow_unless(name == "lora")) for name in METHODS])
    def test_every_method(self, method: str) -> None:
        run = config(method, precision="bf16", checkpointing=True)
        found, live = predicted(run), counted(run)
        assert apart(found.allocated, live.peak) <= WITHIN
        assert found.parts == pytest.approx(live.parts, rel=WITHIN, abs=SLACK)

    @pytest.mark.parametrize(
        "chosen",
        [
            pytest.param({"precision": "fp16"}, marks=pytest.mark.slow),
            pytest.param({"precision": "bf16"}, marks=pytest.mark.slow),
            pytest.param({"checkpointing": True}, marks=pytest.mark.slow),
            pytest.param({"precision": "bf16", "training": {"accumulate": 2}}, marks=pytest.mark.slow),
            pytest.param({"checkpointing": True, "training": {"accumulate": 2}}, marks=pytest.mark.slow),
        ],
        ids=str,
    )
    @pytest.mark.parametrize("kernel", KERNELS)
    def test_choices_of_a_run(self, chosen: dict[str, Any], kernel: str) -> None:
        run = config("lora", attention_kernel=kernel, **chosen)
        assert predicted(run).allocated == pytest.approx(counted(run).peak, rel=WITHIN)

    def test_a_batch_in_micro_batches(self) -> None:
        run = config("fpt_plus", training={"accumulate": 3, "class_weights": "balanced"})
        assert apart(predicted(run).allocated, counted(run).peak) <= WITHIN

    @pytest.mark.parametrize(("method", "preload"), [("lora", None), ("fpt", False)])
    def test_prediction_of_a_batch(self, method: str, preload: bool | None) -> None:
        run = config(method, preload=preload)
        setting = real(run)
        modules = [thing.eval() for thing in setting.held() if isinstance(thing, nn.Module)]
        live = LiveTensors(CPU)
        live.add(*modules, setting.batch)
        with live:
            Predictor(modules[0], setting.source, CPU, run.precision).logits(setting.batch)
        found = predict_inference(run, assemble(run, configured_method(run, CATALOG), CLASSES, META))
        assert found.allocated == pytest.approx(live.peak, rel=WITHIN)


class TestWhatIsSaid:
    @pytest.mark.parametrize("block", [1, 512])
    def test_the_parts_make_the_whole_and_only_cuda_reserves(self, block: int) -> None:
        found = predicted(config("fpt_plus"), block)
        assert found.parts is not None
        assert sum(found.parts.values()) == found.allocated
        assert found.source == "predicted"
        assert (found.reserved, found.process) == (None, None)

    def test_a_process_on_cuda_holds_what_is_reserved_and_the_context(self) -> None:
        run = config("linear", device="cuda")
        assembled = assemble(run, configured_method(run, CATALOG), CLASSES, META)
        found, other = predict_training(run, assembled), predict_training(run, assembled, context=0)
        assert found.allocated is not None
        assert found.reserved is not None
        assert found.process == found.reserved + CONTEXT
        assert other.process == other.reserved == found.reserved
        assert WORKSPACE < found.allocated < found.reserved

    def test_nothing_is_kept_of_a_decomposition_but_its_piece(self) -> None:
        run = config("psoft")
        module = assemble(run, configured_method(run, CATALOG), CLASSES, META).adapted.module
        tensors = (*module.parameters(), *module.buffers())
        held = {id(tensor.untyped_storage()): tensor.untyped_storage().nbytes() for tensor in tensors}
        assert sum(held.values()) == sum(tensor.nbytes for tensor in tensors)


# Each has something that no other has: register tokens and layer scale; rotary positions and gated layers; windows
# and masks. Sizes in pixels.
STRUCTURES = {
    "vit_small_patch16_224": 224,
    "vit_small_patch14_reg4_dinov2": 224,
    "eva02_tiny_patch14_224": 224,
    "swin_tiny_patch4_window7_224": 224,
}
RULES = (("fp32", "eager"), ("bf16", "auto"), ("fp16", "eager"), ("fp16", "auto"))


def every_method_everywhere() -> Iterator[Any]:
    """All methods on all structures, each pair with one of the rules in turn; a few pairs are fast."""
    fast = {("full", "swin_tiny_patch4_window7_224"), ("bitfit", "eva02_tiny_patch14_224")}
    for first, method in enumerate(METHODS):
        for second, backbone in enumerate(STRUCTURES):
            marks = slow_unless((method, backbone) in fast)
            yield pytest.param(method, backbone, *RULES[(first + second) % len(RULES)], marks=marks)


class TestBackbones:
    @pytest.mark.parametrize(("method", "backbone", "precision", "kernel"), every_method_everywhere())
    def test_every_method_is_predicted_or_refused(
        self, method: str, backbone: str, precision: str, kernel: str
    ) -> None:
        chosen = {"precision": precision, "attention_kernel": kernel, "device": "cuda"}
        try:
            run = config(method, backbone=backbone, image_size=STRUCTURES[backbone], **chosen)
        except InputError as refusal:
            assert refusal.kind == "unsupported"
            assert str(refusal).partition(": ")[2], "no reason is given"
            return
        self.check(run)

    @pytest.mark.slow
    @pytest.mark.parametrize("backbone", ["vit_base_patch16_224", "vit_large_patch16_224"])
    @pytest.mark.parametrize("method", FAST)
    def test_larger_ones(self, method: str, backbone: str) -> None:
        self.check(config(method, backbone=backbone, image_size=224, device="cuda", precision="bf16"))

    @staticmethod
    def check(run: RunConfig) -> None:
        assembled = assemble(run, configured_method(run, CATALOG), CLASSES, META)
        inference, training = predict_inference(run, assembled), predict_training(run, assembled)
        for found in (inference, training):
            assert found.allocated is not None
            assert found.reserved is not None
            assert found.parts is not None
            assert WORKSPACE < sum(found.parts.values()) == found.allocated <= found.reserved
        assert training.parts is not None
        # Gradients need not be part of a peak: it may come before the first of them.
        assert training.parts["optimizer"] > 0


def table() -> None:
    """Print by how many percent the prediction of every method is off the profiler's peak."""
    print(f"{'method':14} {'MiB':>9} {'eager %':>9} {'MiB':>9} {'fused %':>9}")
    for method in METHODS:
        cells = []
        for kernel in KERNELS:
            run = config(method, attention_kernel=kernel)
            found, truth = predicted(run).allocated, profiled(run)
            assert found is not None
            cells.append(f"{truth / MIB:9.3f} {100 * (found / truth - 1):+9.4f}")
        print(f"{method:14}", *cells, flush=True)


if __name__ == "__main__":
    torch.set_num_threads(1)
    table()

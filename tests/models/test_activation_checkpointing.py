"""Blocks that are computed again: the same bits in less memory, and only while something is trained."""

from __future__ import annotations

import copy
import gc
import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from timm.models.eva import EvaBlock
from timm.models.vision_transformer import Block, VisionTransformer
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from petlbench.core.config import RunConfig, TrainingConfig
from petlbench.data.loader import Batch
from petlbench.features.source import NoFeatures
from petlbench.memory.live_tensors import ACTIVATIONS, LiveTensors
from petlbench.memory.predict import fused_kernel
from petlbench.models.activation_checkpointing import checkpoint_blocks, recompute_under
from petlbench.models.backbone import set_attention_kernel
from petlbench.models.method import Adapted, Inputs
from petlbench.training.step import Step, new_step

IMAGES, SIZE, DEPTH = 8, 64, 4

# Models this small gain nothing from a second thread.
torch.set_num_threads(1)


class Model(nn.Module):
    """A small vision transformer with dropout, all of which is learned."""

    def __init__(self, dropout: float = 0.2) -> None:
        super().__init__()
        self.vit = VisionTransformer(
            img_size=SIZE,
            patch_size=8,
            embed_dim=32,
            depth=DEPTH,
            num_heads=2,
            num_classes=3,
            proj_drop_rate=dropout,
            drop_path_rate=dropout,
        )

    def forward(self, inputs: Inputs) -> Tensor:
        logits: Tensor = self.vit(inputs.views["fine"])
        return logits


def model(*, checkpointed: bool, device: str = "cpu", dropout: float = 0.2, kernel: str = "fused") -> Model:
    torch.manual_seed(0)
    with torch.device(device):
        made = Model(dropout).train()
    set_attention_kernel(made, kernel)
    if checkpointed:
        checkpoint_blocks(made)
    return made


def step_of(made: nn.Module, precision: str = "fp32", **chosen: Any) -> Step:
    adapted = Adapted(made, frozenset(name for name, _ in made.named_parameters()))
    training = TrainingConfig(**{"lr": 1e-3, "weight_decay": 0.0, "batch_size": IMAGES, **chosen})
    config = RunConfig.model_construct(training=training, precision=precision, device="cpu")
    return new_step(config, adapted, NoFeatures(), None)


def images(device: str = "cpu") -> Batch:
    pixels = torch.randn(IMAGES, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1))
    return Batch(torch.arange(IMAGES), {"fine": pixels.to(device)}, (torch.arange(IMAGES) % 3).to(device))


def peak(made: Model, device: str = "cpu", **chosen: Any) -> LiveTensors:
    """Count two steps of a model."""
    step, batch = step_of(made, **chosen), images(device)
    # The random state that each block keeps lies on the host in any case.
    live = LiveTensors(device, "cpu")
    live.add(made, step.optimizer, batch)
    with live:
        for _ in range(2):
            step(batch)
    return live


@contextmanager
def no_collection() -> Iterator[None]:
    """Keep the garbage collector out, which would tidy up behind a leak."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


class TestResults:
    @pytest.mark.parametrize("precision", ["fp32", "bf16"])
    @pytest.mark.parametrize("kernel", ["eager", "fused"])
    def test_steps_with_dropout_are_the_same_to_the_last_bit(self, kernel: str, precision: str) -> None:
        ends = []
        for checkpointed in (False, True):
            made = model(checkpointed=checkpointed, kernel=kernel)
            step, batch = step_of(made, precision), images()
            torch.manual_seed(4)
            losses = [step(batch) for _ in range(3)]
            # What is drawn behind the steps is the same as well.
            ends.append((torch.stack(losses), torch.rand(3), *(tensor.grad for tensor in made.parameters())))
        for plain, again in zip(*ends, strict=True):
            assert torch.equal(plain, again)  # type: ignore[arg-type]

    def test_it_goes_along_with_micro_batches(self) -> None:
        ends = []
        for checkpointed in (False, True):
            made = model(checkpointed=checkpointed)
            torch.manual_seed(4)
            step_of(made, accumulate=3)(images())
            ends.append([tensor.grad for tensor in made.parameters()])
        assert all(torch.equal(plain, again) for plain, again in zip(*ends, strict=True))  # type: ignore[arg-type]

    def test_keyword_arguments_reach_a_block(self) -> None:
        gradients = []
        for checkpointed in (False, True):
            torch.manual_seed(0)
            block = EvaBlock(dim=16, num_heads=2, mlp_ratio=2)
            if checkpointed:
                checkpoint_blocks(block)
            rope = torch.randn(4, 16, generator=torch.Generator().manual_seed(2))
            tokens = torch.randn(2, 5, 16, generator=torch.Generator().manual_seed(3))
            block(tokens, rope=rope).square().sum().backward()
            gradients.append([tensor.grad for tensor in block.parameters()])
        assert all(torch.equal(plain, again) for plain, again in zip(*gradients, strict=True))


class TestMemory:
    @pytest.mark.parametrize("kernel", ["eager", "fused"])
    def test_activations_shrink_to_one_block_and_the_inputs_of_all(self, kernel: str) -> None:
        plain, again = (peak(model(checkpointed=is_on, kernel=kernel)).parts for is_on in (False, True))
        assert again[ACTIVATIONS] < 0.4 * plain[ACTIVATIONS]
        # Nothing else gets larger.
        assert {role: size for role, size in again.items() if role != ACTIVATIONS and size > plain[role]} == {}

    @pytest.mark.parametrize(("kernel", "chosen"), [("eager", {}), ("fused", {}), ("fused", {"accumulate": 2})])
    def test_meta_tensors_predict_it(self, kernel: str, chosen: Any) -> None:
        # Dropout is left out: on meta it keeps more than on a device.
        counted = peak(model(checkpointed=True, dropout=0.0, kernel=kernel), **chosen).peak
        made = model(checkpointed=True, device="meta", dropout=0.0, kernel=kernel)
        with fused_kernel("cpu"), recompute_under(lambda: fused_kernel("cpu")):
            predicted = peak(made, "meta", **chosen).peak
        assert predicted == pytest.approx(counted, rel=1e-3)

    def test_without_its_context_the_computation_in_backward_would_be_another_one(self) -> None:
        made = model(checkpointed=True, device="meta", dropout=0.0)
        with fused_kernel("cpu"), pytest.raises(torch.utils.checkpoint.CheckpointError):
            peak(made, "meta")

    def test_what_one_layer_keeps_for_a_later_one_does_not_outlive_the_step(self) -> None:
        left = []
        for checkpointed in (False, True):
            block = Keeping()
            if checkpointed:
                checkpoint_blocks(block)
            tokens = torch.randn(2, 5, 16, generator=torch.Generator().manual_seed(3))
            live = LiveTensors("cpu", block=1)
            live.add(block)
            before = live.current
            with no_collection(), live:
                block(tokens).square().sum().backward()
                block.zero_grad()
            left.append(live.current - before)
            assert block.norm2.kept is None
        assert left == [0, 0]


class Keeping(Block):
    """A block whose second norm keeps something that its last layer fetches."""

    def __init__(self) -> None:
        super().__init__(dim=16, num_heads=2)
        self.norm2: Any = _Norm()
        self.drop_path2: Any = _Fetch(self.norm2)


class _Norm(nn.LayerNorm):
    def __init__(self) -> None:
        super().__init__(16)
        self.kept: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        self.kept = 2 * x
        return super().forward(x)


class _Fetch(nn.Module):
    def __init__(self, norm: _Norm) -> None:
        super().__init__()
        self._norms = (norm,)

    def forward(self, x: Tensor) -> Tensor:
        (norm,) = self._norms
        kept, norm.kept = norm.kept, None
        assert kept is not None
        return x + kept


class _Counter(TorchFunctionMode):
    """Counts the layer norms that torch is asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.norms = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.norms += func is nn.functional.layer_norm
        return func(*args, **(kwargs or {}))


class TestRecomputeUnder:
    def counts(self, made: Model, step: Step) -> tuple[int, int]:
        forward, backward = _Counter(), _Counter()
        with forward, recompute_under(lambda: backward):
            step(images())
        return forward.norms, backward.norms

    def test_the_context_holds_while_a_block_is_computed_again_and_there_alone(self) -> None:
        made = model(checkpointed=True)
        forward, backward = self.counts(made, step_of(made))
        assert forward == 2 * DEPTH + 1
        assert backward == 2 * DEPTH

    def test_a_plain_model_computes_nothing_again(self) -> None:
        made = model(checkpointed=False)
        assert self.counts(made, step_of(made)) == (2 * DEPTH + 1, 0)

    def test_it_is_forgotten_behind_its_with(self) -> None:
        made, late = model(checkpointed=True), _Counter()
        with recompute_under(lambda: late):
            pass
        step_of(made)(images())
        assert late.norms == 0


class TestBlocks:
    def test_every_block_is_found_and_keeps_its_name_and_parameters(self) -> None:
        plain, again = model(checkpointed=False), model(checkpointed=True)
        assert list(again.state_dict()) == list(plain.state_dict())
        assert [repr(block) for block in again.vit.blocks] == [repr(block) for block in plain.vit.blocks]
        assert all(isinstance(block, Block) for block in again.vit.blocks)
        assert (
            sum(type(one) is not type(other) for one, other in zip(again.modules(), plain.modules(), strict=True))
            == DEPTH
        )

    def test_without_blocks_nothing_happens(self) -> None:
        head = nn.Sequential(nn.Linear(4, 4), nn.ReLU())
        kinds = [type(layer) for layer in head.modules()]
        checkpoint_blocks(head)
        assert [type(layer) for layer in head.modules()] == kinds

    @pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
    def test_without_gradients_a_block_runs_as_before(self, context: Any) -> None:
        plain, again = model(checkpointed=False).eval(), model(checkpointed=True).eval()
        inputs = Inputs(images().views)
        with context():
            assert torch.equal(plain(inputs), again(inputs))

    def test_in_evaluation_nothing_is_computed_again(self) -> None:
        made, norms = model(checkpointed=True).eval(), _Counter()
        with recompute_under(lambda: norms):
            made(Inputs(images().views)).sum().backward()
        assert norms.norms == 0

    @pytest.mark.parametrize("copied", [copy.deepcopy, lambda made: pickle.loads(pickle.dumps(made))])
    def test_a_copy_is_a_model_of_its_own(self, copied: Any) -> None:
        made = model(checkpointed=True, dropout=0.0)
        other = copied(made)
        assert [type(layer) for layer in other.modules()] == [type(layer) for layer in made.modules()]
        with torch.no_grad():
            for tensor in made.parameters():
                tensor.zero_()
        step_of(other)(images())
        assert all(tensor.grad is None for tensor in made.parameters())
        assert float(other.vit.blocks[0].attn.qkv.weight.grad.abs().max()) > 0

    def test_a_model_that_is_let_go_is_gone_at_once(self) -> None:
        with no_collection(), LiveTensors("cpu", block=1) as live:
            made = model(checkpointed=True)
            assert live.current > 0
            del made
            assert live.current == 0

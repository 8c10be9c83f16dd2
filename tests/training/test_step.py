"""One optimiser step: the same bits twice, in every precision, within its norm, and on meta tensors."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from petlbench.core.config import RunConfig, TrainingConfig
from petlbench.data.loader import Batch
from petlbench.features.source import NoFeatures
from petlbench.memory.live_tensors import LiveTensors
from petlbench.models.method import Adapted, Companion, Inputs, TaskLoss
from petlbench.training.loss import Objective
from petlbench.training.losses.cross_entropy import CROSS_ENTROPY
from petlbench.training.step import Step, new_step


class Network(nn.Module):
    """A frozen layer, a learned one, and dropout, which draws random numbers in every step."""

    def __init__(self) -> None:
        super().__init__()
        self.frozen = nn.Linear(12, 16)
        self.dropout = nn.Dropout(0.2)
        self.head = nn.Linear(16, 3)

    def forward(self, inputs: Inputs) -> Tensor:
        return self.head(self.dropout(self.frozen(inputs.views["fine"].flatten(1)).relu()))


def adapted(device: str = "cpu") -> Adapted:
    torch.manual_seed(0)
    with torch.device(device):
        made = Adapted(Network(), frozenset({"head.weight", "head.bias"}))
    made.freeze_the_rest()
    made.module.train()
    return made


def step_of(
    made: Adapted,
    *,
    clip: float = 1.0,
    precision: str = "fp32",
    lr: float = 0.1,
    decay: float = 0.0,
    objective: Objective | None = None,
    **chosen: Any,
) -> Step:
    training = TrainingConfig(lr=lr, weight_decay=decay, clip_grad_norm=clip, **{"batch_size": 8, **chosen})
    config = RunConfig.model_construct(training=training, precision=precision, device="cpu")
    step = new_step(config, made, NoFeatures(), None)
    return dataclasses.replace(step, objective=objective or step.objective)


def batch(scale: float = 1.0, device: str = "cpu", images: int = 8) -> Batch:
    views = torch.randn(images, 3, 2, 2, generator=torch.Generator().manual_seed(1)) * scale
    return Batch(torch.arange(images), {"fine": views.to(device)}, (torch.arange(images) % 3).to(device))


def gradient_norm(made: Adapted) -> float:
    return math.sqrt(sum(float(tensor.grad.square().sum()) for tensor in made.parameters().values()))  # type: ignore[union-attr]


class TestStep:
    @pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
    def test_two_seeded_steps_are_the_same_to_the_last_bit(self, precision: str) -> None:
        ends = []
        for _ in range(2):
            made = adapted()
            step = step_of(made, precision=precision)
            torch.manual_seed(5)
            losses = [step(batch()) for _ in range(3)]
            ends.append((torch.stack(losses), *made.parameters().values()))
        for left, right in zip(*ends, strict=True):
            assert torch.equal(left, right)

    def test_another_seed_takes_another_step(self) -> None:
        ends = []
        for seed in (5, 6):
            made = adapted()
            torch.manual_seed(seed)
            step_of(made)(batch())
            ends.append(made.parameters()["head.weight"].detach().clone())
        assert not torch.equal(*ends)

    @pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
    def test_the_loss_falls_in_every_precision(self, precision: str) -> None:
        made = adapted()
        step = step_of(made, precision=precision)
        losses = [float(step(batch())) for _ in range(60)]
        assert losses[-1] < 0.5 * losses[0]
        assert {tensor.dtype for tensor in made.parameters().values()} == {torch.float32}

    def test_precisions_agree_on_the_first_loss(self) -> None:
        losses = {}
        for precision in ("fp32", "bf16", "fp16"):
            made = adapted()
            made.module.eval()
            losses[precision] = float(step_of(made, precision=precision)(batch()))
        assert losses["bf16"] == pytest.approx(losses["fp32"], rel=0.02)
        assert losses["fp16"] == pytest.approx(losses["fp32"], rel=0.005)
        assert losses["bf16"] != losses["fp32"]

    def test_only_what_is_learnable_moves(self) -> None:
        made = adapted()
        before = {name: tensor.detach().clone() for name, tensor in made.module.named_parameters()}
        step_of(made, decay=0.1)(batch())
        moved = {name for name, tensor in made.module.named_parameters() if not torch.equal(tensor, before[name])}
        assert moved == {"head.weight", "head.bias"}
        assert all(tensor.grad is None for name, tensor in made.module.named_parameters() if name.startswith("frozen"))

    def test_the_returned_loss_is_that_before_the_step_and_is_detached(self) -> None:
        made = adapted()
        made.module.eval()
        whole = batch()
        expected = nn.functional.cross_entropy(made.module(Inputs(whole.views)), whole.labels)
        loss = step_of(made)(whole)
        assert torch.equal(loss, expected.detach())
        assert not loss.requires_grad

    @pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
    @pytest.mark.parametrize("clip", [0.01, 1.0])
    def test_clipping_holds_the_gradients_norm(self, clip: float, precision: str) -> None:
        made = adapted()
        step = step_of(made, clip=clip, precision=precision)
        step(batch(scale=30.0))
        for _ in range(20):  # until the scale of fp16 has come down to what these gradients allow
            if math.isfinite(gradient_norm(made)):
                break
            step(batch(scale=30.0))
        assert gradient_norm(made) == pytest.approx(clip, rel=1e-3)

    @pytest.mark.parametrize("precision", ["fp32", "fp16"])
    def test_zero_is_no_clipping(self, precision: str) -> None:
        made = adapted()
        step_of(made, clip=0, precision=precision)(batch(scale=30.0))
        assert gradient_norm(made) > 5

    @pytest.mark.parametrize(("device", "foreach"), [("cpu", None), ("meta", False)])
    def test_only_on_meta_the_form_of_clipping_is_not_torchs_choice(
        self, device: str, foreach: bool | None, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        forms: list[bool | None] = []
        monkeypatch.setattr(nn.utils, "clip_grad_norm_", lambda *given, foreach: forms.append(foreach))
        step_of(adapted(device))(batch(device=device))
        assert forms == [foreach]

    def test_a_small_gradient_is_left_as_it_is(self) -> None:
        norms = []
        for clip in (0.0, 1e6):
            made = adapted()
            torch.manual_seed(0)
            step_of(made, clip=clip)(batch())
            norms.append(gradient_norm(made))
        assert norms[0] == pytest.approx(norms[1], rel=1e-5)

    def test_gradients_do_not_add_up_over_steps(self) -> None:
        made = adapted()
        made.module.eval()
        step = step_of(made, clip=0, lr=1e-12)
        step(batch())
        first = gradient_norm(made)
        step(batch())
        assert gradient_norm(made) == pytest.approx(first, rel=1e-4)

    def test_the_first_step_of_adamw_is_the_learning_rate(self) -> None:
        made = adapted()
        before = made.parameters()["head.bias"].detach().clone()
        step_of(made, lr=0.01)(batch())
        change = (made.parameters()["head.bias"] - before).abs()
        torch.testing.assert_close(change, torch.full_like(change, 0.01), rtol=1e-3, atol=0)

    def test_weight_decay_is_decoupled_from_the_gradient(self) -> None:
        ends = []
        for decay in (0.0, 0.5):
            made = adapted()
            start = made.parameters()["head.weight"].detach().clone()
            torch.manual_seed(0)
            step_of(made, lr=0.01, decay=decay)(batch())
            ends.append(made.parameters()["head.weight"].detach())
        torch.testing.assert_close(ends[0] - ends[1], 0.01 * 0.5 * start, rtol=1e-3, atol=1e-7)

    def test_an_overflow_in_fp16_skips_the_step(self) -> None:
        made = adapted()
        step = step_of(made, precision="fp16")
        before, scale = made.parameters()["head.weight"].detach().clone(), step.scaler.get_scale()
        step(batch(scale=1e5))
        assert torch.equal(made.parameters()["head.weight"], before)
        assert step.scaler.get_scale() == scale / 2


class TestMeta:
    @pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
    @pytest.mark.parametrize("clip", [0.0, 1.0])
    def test_a_step_needs_no_values(self, precision: str, clip: float) -> None:
        made = adapted("meta")
        step = step_of(made, clip=clip, precision=precision)
        for _ in range(2):
            loss = step(batch(device="meta"))
        assert loss.device.type == "meta"
        assert loss.shape == ()
        state = step.optimizer.state_dict()["state"]
        assert [tuple(state[index]["exp_avg"].shape) for index in range(2)] == [(3, 16), (3,)]
        assert {state[index]["exp_avg_sq"].device.type for index in range(2)} == {"meta"}

    def test_class_weights_and_smoothing_work_on_meta(self) -> None:
        made = adapted("meta")
        step = step_of(made, objective=Objective(CROSS_ENTROPY, 0.1, torch.ones(3, device="meta")), accumulate=3)
        assert step(batch(device="meta")).device.type == "meta"


class TestPieces:
    """A batch that goes through in pieces: the same step, in less memory."""

    WEIGHTS = torch.tensor([0.5, 1.0, 4.0], dtype=torch.float64)

    def gradients(self, accumulate: int, objective: Objective, images: int = 8) -> tuple[Tensor, dict[str, Tensor]]:
        made = adapted()
        made.module.double().eval()  # without dropout, which draws for each piece anew
        whole = batch(images=images)
        whole = Batch(whole.index, {"fine": whole.views["fine"].double()}, whole.labels)
        loss = step_of(made, accumulate=accumulate, clip=0, objective=objective)(whole)
        return loss, {name: tensor.grad for name, tensor in made.parameters().items() if tensor.grad is not None}

    @pytest.mark.parametrize("weights", [None, WEIGHTS])
    @pytest.mark.parametrize("smoothing", [0.0, 0.2])
    @pytest.mark.parametrize("images", [8, 5])
    @pytest.mark.parametrize("accumulate", [2, 3, 5, 8])
    def test_their_gradients_add_up_to_the_batchs(
        self, accumulate: int, images: int, smoothing: float, weights: Tensor | None
    ) -> None:
        objective = _Exact(CROSS_ENTROPY, smoothing, weights)
        expected, found = self.gradients(1, objective, images), self.gradients(accumulate, objective, images)
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-15)

    def test_a_batch_in_one_piece_is_what_it_always_was(self) -> None:
        loss, gradients = self.gradients(1, Objective(CROSS_ENTROPY))
        made = adapted()
        made.module.double().eval()
        whole = batch()
        logits = made.module(Inputs({"fine": whole.views["fine"].double()}))
        expected = nn.functional.cross_entropy(logits.float(), whole.labels)
        expected.backward()
        assert torch.equal(loss, expected.detach())
        for name, tensor in made.parameters().items():
            assert torch.equal(gradients[name], tensor.grad)  # type: ignore[arg-type]

    @pytest.mark.parametrize(
        ("images", "accumulate", "sizes"),
        [
            (8, 1, [8]),
            (8, 2, [4, 4]),
            (8, 3, [3, 3, 2]),
            (8, 5, [2, 2, 2, 2]),
            (8, 8, [1] * 8),
            (3, 2, [3]),
            (5, 2, [4, 1]),
        ],
    )
    def test_pieces_have_equal_sizes_and_none_is_empty(self, images: int, accumulate: int, sizes: list[int]) -> None:
        seen: list[Batch] = []

        def look(piece: Batch) -> Inputs:
            seen.append(piece)
            return Inputs(piece.views)

        step, whole = step_of(adapted(), accumulate=accumulate), batch(images=images)
        step.source = look
        step(whole)
        assert [len(piece.labels) for piece in seen] == sizes
        assert torch.equal(torch.cat([piece.index for piece in seen]), whole.index)
        assert torch.equal(torch.cat([piece.views["fine"] for piece in seen]), whole.views["fine"])
        assert torch.equal(torch.cat([piece.labels for piece in seen]), whole.labels)

    @pytest.mark.parametrize("accumulate", [1, 2, 4])
    def test_a_penalty_counts_once(self, accumulate: int) -> None:
        made = adapted()
        made.module.eval()
        penalised = dataclasses.replace(made, companion=Penalty(made.parameters()["head.bias"]))
        plain, loss = (step_of(one, accumulate=accumulate, clip=0, lr=1e-12) for one in (made, penalised))
        difference = float(loss(batch())) - float(plain(batch()))
        bias = made.parameters()["head.bias"]
        assert difference == pytest.approx(float(bias.detach().square().sum()), rel=1e-4)
        without = bias.grad.clone()  # type: ignore[union-attr]
        loss(batch())
        torch.testing.assert_close(bias.grad - without, 2 * bias.detach(), rtol=1e-4, atol=1e-6)

    @pytest.mark.parametrize("weights", [None, WEIGHTS])
    @pytest.mark.parametrize("accumulate", [1, 3])
    def test_a_methods_own_loss_is_the_batchs_in_pieces_too(self, accumulate: int, weights: Tensor | None) -> None:
        made, whole = adapted(), batch()
        made.module.double().eval()
        whole = Batch(whole.index, {"fine": whole.views["fine"].double()}, whole.labels)

        def loss(inputs: Inputs, task_loss: TaskLoss) -> Tensor:
            logits = made.module(inputs)
            return task_loss(logits) + 0.5 * task_loss(-logits) + logits.square().sum(dim=1).mean()

        logits = made.module(Inputs(whole.views))
        first, second = (nn.functional.cross_entropy(each, whole.labels, weight=weights) for each in (logits, -logits))
        expected = first + 0.5 * second + logits.square().sum() / len(logits)
        by_hand = torch.autograd.grad(expected, list(made.parameters().values()))
        objective, own = _Exact(CROSS_ENTROPY, 0.0, weights), dataclasses.replace(made, loss=loss)
        found = step_of(own, accumulate=accumulate, clip=0, objective=objective)(whole)
        torch.testing.assert_close(found, expected.detach(), rtol=1e-12, atol=1e-15)
        gradients = [tensor.grad for tensor in made.parameters().values()]
        torch.testing.assert_close(gradients, list(by_hand), rtol=1e-12, atol=1e-15)

    @pytest.mark.parametrize("device", ["cpu", "meta"])
    def test_one_piece_is_in_memory_at_a_time(self, device: str) -> None:
        peaks = {}
        for accumulate in (1, 2, 8):
            made = adapted(device)
            step = step_of(made, accumulate=accumulate)
            step.source = _features_of_a_mebibyte
            with LiveTensors(device) as live:
                for _ in range(2):
                    step(batch(device=device))
            peaks[accumulate] = live.peak / 2**20
        assert 8 < peaks[1] < 8.2
        assert 4 < peaks[2] < 4.2
        assert 1 < peaks[8] < 1.2

    def test_an_overflow_in_one_piece_skips_the_step(self) -> None:
        made, whole = adapted(), batch()
        step = step_of(made, precision="fp16", accumulate=4)
        before, scale = made.parameters()["head.weight"].detach().clone(), step.scaler.get_scale()
        whole.views["fine"][3] *= 1e5
        step(whole)
        assert torch.equal(made.parameters()["head.weight"], before)
        assert step.scaler.get_scale() == scale / 2


@dataclasses.dataclass(frozen=True)
class _Exact(Objective):
    """The loss without its cast to 32 bits, which would hide what the pieces do behind rounding."""

    def __call__(self, logits: Tensor, labels: Tensor) -> Tensor:
        return nn.functional.cross_entropy(
            logits, labels, weight=self.class_weights, label_smoothing=self.label_smoothing
        )


class Penalty(Companion):
    """Adds the sum of squares of a tensor to the loss."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor

    def penalty(self) -> Tensor:
        return self.tensor.square().sum()


def _features_of_a_mebibyte(piece: Batch) -> Inputs:
    """As much as a large feature cache would hand over for each image."""
    features = torch.empty(len(piece.labels), 2**18, device=piece.labels.device)
    return Inputs(piece.views, {"features": features})


class TestOptimizer:
    def test_the_papers_is_adamw(self) -> None:
        assert type(step_of(adapted()).optimizer) is torch.optim.AdamW

    def test_sgd_follows_its_formula(self) -> None:
        made = adapted()
        made.module.eval()
        step = step_of(made, clip=0, lr=0.1, decay=0.01, optimizer="sgd")
        weight = made.parameters()["head.weight"]
        by_hand, velocity = weight.detach().clone(), torch.zeros_like(weight)
        for _ in range(3):
            step(batch())
            velocity = 0.9 * velocity + weight.grad + 0.01 * by_hand  # type: ignore[operator]
            by_hand = by_hand - 0.1 * velocity
            torch.testing.assert_close(weight.detach(), by_hand, rtol=1e-5, atol=1e-7)

    @pytest.mark.parametrize("clip", [0.0, 1.0])
    def test_sgd_keeps_one_tensor_a_parameter_on_meta_too(self, clip: float) -> None:
        made = adapted("meta")
        step = step_of(made, clip=clip, optimizer="sgd")
        for _ in range(2):
            step(batch(device="meta"))
        kept = step.optimizer.state_dict()["state"]
        assert [list(state) for state in kept.values()] == [["momentum_buffer"]] * 2
        assert [tuple(state["momentum_buffer"].shape) for state in kept.values()] == [(3, 16), (3,)]


class TestObjective:
    def test_it_is_the_mean_cross_entropy_in_nats(self) -> None:
        logits, labels = torch.tensor([[2.0, 0.0, -1.0], [0.5, 0.5, 0.5]]), torch.tensor([0, 2])
        by_hand = -(math.log(math.e**2 / (math.e**2 + 1 + math.e**-1)) + math.log(1 / 3)) / 2
        assert float(Objective(CROSS_ENTROPY)(logits, labels)) == pytest.approx(by_hand)

    def test_smoothing_spreads_a_share_over_all_classes(self) -> None:
        logits, labels = torch.randn(6, 3, generator=torch.Generator().manual_seed(0)), torch.arange(6) % 3
        target = 0.7 * nn.functional.one_hot(labels, 3) + 0.1
        by_hand = -(target * logits.log_softmax(dim=1)).sum(dim=1).mean()
        assert float(Objective(CROSS_ENTROPY, 0.3)(logits, labels)) == pytest.approx(float(by_hand))

    def test_class_weights_weigh_each_image(self) -> None:
        logits, labels = torch.randn(6, 3, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 0, 0, 1, 1, 2])
        weights = torch.tensor([0.5, 1.0, 2.0])
        each = nn.functional.cross_entropy(logits, labels, reduction="none")
        by_hand = (weights[labels] * each).sum() / weights[labels].sum()
        assert float(Objective(CROSS_ENTROPY, 0.0, weights)(logits, labels)) == pytest.approx(float(by_hand))

    def test_logits_of_half_precision_are_summed_in_full(self) -> None:
        logits = torch.tensor([[60_000.0, 0.0], [60_000.0, 0.0]], dtype=torch.float16)
        assert float(Objective(CROSS_ENTROPY)(logits, torch.tensor([1, 1]))) == pytest.approx(60_000, rel=1e-3)

"""Optimisers, schedules and losses by name: timm's, and a user's own from one file."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import nn

import petlbench as pb
from petlbench.core.config import TrainingConfig
from petlbench.training.optim import learning_rate, new_optimizer
from petlbench.training.trainer import MovingAverage

LOSS = """
import torch
from petlbench import Loss

def focal(logits, labels, label_smoothing, class_weights):
    log = torch.log_softmax(logits, dim=-1).gather(1, labels[:, None])[:, 0]
    return (-((1 - log.exp()) ** 2) * log).mean()

FOCAL = Loss(name="focal", title="Focal loss", compute=focal)
"""


def training(**changes: object) -> TrainingConfig:
    return TrainingConfig.model_validate({"lr": 0.1, "weight_decay": 0.0, **changes})


def test_a_loss_of_ones_own_is_one_file(tmp_path: Path) -> None:
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "focal.py").write_text(LOSS)
    small = {"backbone": "petlbench_micro", "image_size": 32, "epochs": 1, "threads": 1, "tracking_uri": "none"}
    losses = [
        pb.run("linear", "digits", loss=loss, catalog=tmp_path / "own", output=tmp_path, progress=False, **small)
        for loss in ("cross_entropy", "focal")
    ]
    assert losses[0].curve[0]["train_loss"] > losses[1].curve[0]["train_loss"]
    with pytest.raises(pb.InputError) as caught:
        pb.dry_run("linear", "digits", loss="focl", catalog=tmp_path / "own", **small)
    assert "focal" in caught.value.hint


@pytest.mark.parametrize("name", ["adamw", "sgd", "lamb", "lion", "nadamw", "adan", "rmsprop"])
def test_an_optimiser_of_timms_steps_by_its_name(name: str) -> None:
    weight = nn.Parameter(torch.ones(3))
    optimizer = new_optimizer({"weight": weight}, training(optimizer=name))
    weight.sum().backward()
    optimizer.step()
    assert (weight < 1).all()


@pytest.mark.parametrize("name", ["adamw", "sgd"])
def test_on_a_cpu_large_tensors_change_one_after_the_other_to_the_same_bits(name: str) -> None:
    ways = {}
    for device in ("cpu", "cuda"):
        generator = torch.Generator().manual_seed(0)
        shapes = ((600, 600), (7,))
        tensors = {str(shape): nn.Parameter(torch.randn(shape, generator=generator)) for shape in shapes}
        optimizer = new_optimizer(tensors, training(optimizer=name, weight_decay=0.1), device)
        for _ in range(3):
            for tensor in tensors.values():
                tensor.grad = torch.randn(tensor.shape, generator=generator)
            optimizer.step()
        ways[device] = (optimizer.defaults["foreach"], list(tensors.values()))
    assert [foreach for foreach, _ in ways.values()] == [False, True]
    assert all(torch.equal(one, other) for one, other in zip(ways["cpu"][1], ways["cuda"][1], strict=True))


def test_on_meta_fused_adamw_makes_the_state_that_it_makes_on_a_device() -> None:
    states = []
    for place in ("meta", "cpu"):
        weight = nn.Parameter(torch.ones(3, 2, device=place))
        unused = nn.Parameter(torch.ones(1, device=place))
        optimizer: torch.optim.Optimizer = new_optimizer({"weight": weight, "unused": unused}, training(), "cuda")
        if place == "cpu":
            optimizer = torch.optim.AdamW([weight, unused], fused=True)
        weight.grad = torch.ones_like(weight)
        optimizer.step()
        assert optimizer.defaults["fused"] is True
        assert unused not in optimizer.state
        states.append({name: (tuple(tensor.shape), tensor.dtype) for name, tensor in optimizer.state[weight].items()})
        assert {tensor.device.type for tensor in optimizer.state[weight].values()} == {place}
    assert states[0] == states[1]


@pytest.mark.parametrize(("name", "device"), [("adamw", "cpu"), ("sgd", "cuda"), ("lamb", "cuda")])
def test_nothing_else_is_fused(name: str, device: str) -> None:
    weight = nn.Parameter(torch.ones(3, 2, device="meta"))
    assert not new_optimizer({"weight": weight}, training(optimizer=name), device).defaults.get("fused")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_fused_adamw_takes_the_steps_of_the_plain_one() -> None:
    ends = []
    for place, device in (("cuda", "cuda"), ("cpu", "cpu")):
        generator = torch.Generator().manual_seed(0)
        weight = nn.Parameter(torch.randn(600, 600, generator=generator).to(place))
        optimizer = new_optimizer({"weight": weight}, training(weight_decay=0.1), device)
        for _ in range(3):
            weight.grad = torch.randn(weight.shape, generator=generator).to(place)
            optimizer.step()
        ends.append(weight.detach().cpu())
    assert torch.allclose(*ends, rtol=0, atol=1e-6)


def test_an_unknown_optimiser_is_named_with_near_ones() -> None:
    with pytest.raises(pb.InputError) as caught:
        pb.dry_run("linear", "digits", backbone="petlbench_micro", image_size=32, optimizer="adamww")
    assert "adamw" in caught.value.hint


def test_plain_names_mean_what_they_meant() -> None:
    parameters = {"weight": nn.Parameter(torch.ones(3))}
    sgd = new_optimizer(parameters, training(optimizer="sgd"))
    assert type(sgd) is torch.optim.SGD
    assert (sgd.defaults["momentum"], sgd.defaults["nesterov"]) == (0.9, False)
    adamw = new_optimizer(parameters, training())
    assert type(adamw) is torch.optim.AdamW
    assert (adamw.defaults["betas"], adamw.defaults["eps"]) == ((0.9, 0.999), 1e-8)


@pytest.mark.parametrize("schedule", ["cosine", "step", "multistep", "poly", "tanh"])
def test_a_schedule_falls_and_never_below_its_end(schedule: str) -> None:
    config = training(epochs=9, schedule=schedule, min_lr=0.001)
    rates = [learning_rate(config, number / 4, 0.25) for number in range(36)]
    assert rates[0] == pytest.approx(0.1, rel=1e-3)
    assert rates == sorted(rates, reverse=True)
    assert 0.0009 < rates[-1] < 0.02


def test_the_rate_falls_with_every_block_towards_the_image() -> None:
    names = ["backbone.patch_embed.proj.weight", "backbone.blocks.0.x", "backbone.blocks.1.x", "head.weight"]
    parameters = {name: nn.Parameter(torch.ones(1)) for name in names}
    groups = new_optimizer(parameters, training(layer_decay=0.5)).param_groups
    assert [group["lr_scale"] for group in groups] == [0.125, 0.25, 0.5, 1.0]


class TestDecay:
    parameters: ClassVar = {
        "head.weight": nn.Parameter(torch.ones(3, 4)),
        "head.bias": nn.Parameter(torch.ones(3)),
        "backbone.blocks.0.row": nn.Parameter(torch.ones(1, 4)),
        "backbone.blocks.0.weight": nn.Parameter(torch.ones(4, 4)),
    }

    def decays(self, **changes: Any) -> dict[str, float]:
        groups = new_optimizer(self.parameters, training(weight_decay=0.1, **changes)).param_groups
        return {
            name: group["weight_decay"]
            for group in groups
            for name, tensor in self.parameters.items()
            if any(tensor is each for each in group["params"])
        }

    @pytest.mark.parametrize("layer_decay", [1.0, 0.5])
    def test_matrices_alone_are_decayed(self, layer_decay: float) -> None:
        assert self.decays(layer_decay=layer_decay) == dict.fromkeys(self.parameters, 0.1)
        spared = self.decays(layer_decay=layer_decay, decay="matrices")
        assert {name for name, decay in spared.items() if decay} == {"head.weight", "backbone.blocks.0.weight"}

    def test_a_scale_of_one_stays_where_nothing_else_moves_it(self) -> None:
        for decay, value in (("matrices", 1.0), ("all", 0.99)):
            scale, matrix = nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(3, 3))
            optimizer = new_optimizer({"scale": scale, "matrix": matrix}, training(weight_decay=0.1, decay=decay))
            (0 * scale.sum() + 0 * matrix.sum()).backward()
            optimizer.step()
            assert scale.tolist() == pytest.approx([value] * 3)
            assert matrix.detach().flatten().tolist() == pytest.approx([0.99] * 9)

    def test_the_last_group_has_the_rate_of_the_curve(self) -> None:
        for changes in ({"decay": "matrices"}, {"decay": "matrices", "layer_decay": 0.5}):
            assert new_optimizer(self.parameters, training(**changes)).param_groups[-1]["lr_scale"] == 1


def test_the_average_lags_and_is_put_back() -> None:
    weight = nn.Parameter(torch.zeros(2))
    average = MovingAverage({"weight": weight}, 0.5)
    weight.data.fill_(1.0)
    average.update()
    with average.applied():
        assert weight.tolist() == [0.5, 0.5]
    assert weight.tolist() == [1.0, 1.0]
    assert average.tensors["weight"].tolist() == [0.5, 0.5]


def test_what_is_kept_with_an_average_is_the_average(tmp_path: Path) -> None:
    small = {"backbone": "petlbench_micro", "image_size": 32, "epochs": 1, "threads": 1, "tracking_uri": "none"}
    plain, slow = (
        pb.run("linear", "digits", ema_decay=decay, output=tmp_path, progress=False, **small) for decay in (0.0, 0.99)
    )
    assert plain.curve[0]["train_loss"] == slow.curve[0]["train_loss"]
    assert plain.metrics["test"]["auc"] != slow.metrics["test"]["auc"]

"""The loop: the learning rate of each step, the epoch that validation chooses, and going on from a checkpoint."""

from __future__ import annotations

import math
import time
import weakref
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from petlbench.core.config import RunConfig, TrainingConfig
from petlbench.core.errors import RunError
from petlbench.data.loader import Batch
from petlbench.features.source import NoFeatures
from petlbench.metrics.classification import AUC, LOSS
from petlbench.models.method import Adapted, Companion, Inputs
from petlbench.training.optim import learning_rate
from petlbench.training.selection import Selection
from petlbench.training.step import new_step
from petlbench.training.trainer import Checkpoint, MovingAverage, Selected, Trainer

STEPS = 4
LABELS = np.array([0, 0, 1, 1])
RIGHT = np.array([[2.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 2.0]], dtype=np.float32)  # AUC 1
HALF = np.array([[2.0, 0.0], [0.0, 2.0], [1.0, 0.0], [0.0, 1.0]], dtype=np.float32)  # AUC 1/2
WRONG = -RIGHT  # AUC 0


def config(**changed: Any) -> TrainingConfig:
    return TrainingConfig.model_validate({"lr": 0.1, "weight_decay": 0.0, "epochs": 4, "batch_size": 2, **changed})


class TestLearningRate:
    def test_the_cosine_begins_at_the_peak_and_ends_at_zero(self) -> None:
        rates = [learning_rate(config(epochs=10), position, 0.1) for position in (0, 2.5, 5, 7.5, 10)]
        by_hand = [0.1, 0.1 * (1 + math.sqrt(0.5)) / 2, 0.05, 0.1 * (1 - math.sqrt(0.5)) / 2, 0.0]
        assert rates == pytest.approx(by_hand)

    def test_a_constant_is_constant(self) -> None:
        assert {learning_rate(config(schedule="constant"), position, 0.25) for position in (0, 1.5, 3.75)} == {0.1}

    @pytest.mark.parametrize("schedule", ["cosine", "constant"])
    def test_the_warm_up_rises_in_equal_steps_to_the_peak(self, schedule: str) -> None:
        made = config(schedule=schedule, warmup_epochs=1, epochs=4)
        rates = [learning_rate(made, number / STEPS, 1 / STEPS) for number in range(STEPS + 1)]
        assert rates == pytest.approx([0.025, 0.05, 0.075, 0.1, 0.1])

    def test_the_warm_up_starts_from_its_own_rate(self) -> None:
        made = config(warmup_epochs=1, warmup_lr=0.02)
        rates = [learning_rate(made, number / STEPS, 1 / STEPS) for number in range(STEPS + 1)]
        assert rates[:STEPS] == pytest.approx([0.04, 0.06, 0.08, 0.1])
        assert rates[STEPS] == 0.1

    def test_the_cosine_begins_behind_the_warm_up(self) -> None:
        assert learning_rate(config(warmup_epochs=2, epochs=4), 3, 0.25) == pytest.approx(0.05)

    def test_a_warm_up_of_less_than_a_step_does_nothing(self) -> None:
        assert learning_rate(config(warmup_epochs=0.01), 0, 0.25) == 0.1

    @given(
        st.integers(1, 50),
        st.floats(0, 60),
        st.integers(1, 30),
        st.sampled_from(["cosine", "constant"]),
        st.data(),
    )
    def test_a_rate_is_never_negative_nor_above_the_peak(
        self, epochs: int, warmup: float, steps: int, schedule: str, data: st.DataObject
    ) -> None:
        made = config(epochs=epochs, warmup_epochs=warmup, schedule=schedule)
        number = data.draw(st.integers(0, epochs * steps - 1))
        rate = learning_rate(made, number / steps, 1 / steps)
        assert 0 <= rate <= 0.1 * (1 + 1e-12)
        assert rate > 0

    @given(st.integers(1, 20), st.integers(1, 20))
    def test_behind_the_warm_up_the_cosine_only_falls(self, epochs: int, steps: int) -> None:
        made = config(epochs=epochs)
        rates = [learning_rate(made, number / steps, 1 / steps) for number in range(epochs * steps)]
        assert rates == sorted(rates, reverse=True)
        assert rates[0] == 0.1


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Linear(3, 4)
        self.dropout = nn.Dropout(0.3)
        self.head = nn.Linear(4, 2)

    def forward(self, inputs: Inputs) -> Tensor:
        return self.head(self.dropout(self.body(inputs.views["fine"])))


class NormedNetwork(Network):
    """Has statistics of its batches beside what it learns."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(3, affine=False)

    def forward(self, inputs: Inputs) -> Tensor:
        return super().forward(Inputs({"fine": self.norm(inputs.views["fine"])}))


@dataclass
class Images:
    """Stands for an image loader: batches that the seed alone decides."""

    scale: float = 1.0
    seeds: list[int] = field(default_factory=list)
    indices: Sequence[int] = range(8)

    def steps(self) -> int:
        return STEPS

    def shuffled(self, seed: int) -> Iterator[Batch]:
        self.seeds.append(seed)
        generator = torch.Generator().manual_seed(seed)
        for _ in range(STEPS):
            views = {"fine": torch.randn(2, 3, generator=generator) * self.scale}
            yield Batch(torch.arange(2), views, torch.tensor([0, 1]))


@dataclass
class Spoiling(Images):
    """Batches of which the fifth is not a number."""

    count: int = 25

    def steps(self) -> int:
        return self.count

    def shuffled(self, seed: int) -> Iterator[Batch]:
        for number in range(self.steps()):
            fine = torch.full((2, 3), math.nan if number == 4 else 1.0)
            yield Batch(torch.arange(2), {"fine": fine}, torch.tensor([0, 1]))


@dataclass
class Passing(Images):
    """Looks, before it makes a batch, for images of earlier ones that are still in memory."""

    given: list[weakref.ref[Tensor]] = field(default_factory=list)
    left: list[int] = field(default_factory=list)

    def shuffled(self, seed: int) -> Iterator[Batch]:
        for number in range(STEPS):
            self.left.append(sum(reference() is not None for reference in self.given))
            yield self._made(number)

    def _made(self, number: int) -> Batch:
        fine = torch.full((2, 3), float(number))
        self.given.append(weakref.ref(fine))
        return Batch(torch.arange(2), {"fine": fine}, torch.tensor([0, 1]))


@dataclass
class Verdicts:
    """Stands for the predictor: says what validation saw in each epoch, and remembers what was learned by then."""

    adapted: Adapted
    logits: list[Any]
    labels: Any = field(default_factory=lambda: LABELS)
    seen: list[Tensor] = field(default_factory=list)
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    source: NoFeatures = field(default_factory=NoFeatures)

    def __call__(self, loader: object, on_images: object) -> tuple[Any, Any]:
        self.adapted.module.eval()
        self.seen.append(self.adapted.parameters()["head.weight"].detach().clone())
        return self.labels, self.logits.pop(0)


def trainer(
    logits: Sequence[Any],
    images: Images | None = None,
    labels: Any = LABELS,
    network: type[Network] = Network,
    **changed: Any,
) -> Trainer:
    torch.manual_seed(0)
    module = network()
    statistics = frozenset(name for name, _ in module.named_buffers())
    adapted = Adapted(module, frozenset({"head.weight", "head.bias"}), chosen=statistics)
    adapted.freeze_the_rest()
    made = config(epochs=len(logits), **changed)
    run = RunConfig.model_construct(training=made, precision="fp32", device="cpu")
    step = new_step(run, adapted, NoFeatures(), None)
    loader: Any = images or Images()
    predictor: Any = Verdicts(adapted, list(logits), labels)
    return Trainer(adapted=adapted, step=step, predictor=predictor, train=loader, val=loader, config=made, seed=3)


def fit(made: Trainer, file: Path, identity: str = "same") -> Selected:
    selected = Selected()
    made.fit(Checkpoint(file, identity), selected)
    return selected


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "checkpoint.pt"


class TestSelection:
    @pytest.mark.parametrize(
        ("logits", "best"),
        [
            ([WRONG, RIGHT, HALF], 2),
            ([RIGHT, WRONG, HALF], 1),
            ([WRONG, HALF, RIGHT], 3),
            ([WRONG, WRONG, WRONG], 1),
            ([HALF, RIGHT, RIGHT], 2),
        ],
    )
    def test_the_first_epoch_of_the_best_validation_auc_is_kept(self, logits: Any, best: int, file: Path) -> None:
        made = trainer(logits)
        selected = fit(made, file)
        assert selected.epoch == best
        assert [entry["epoch"] for entry in selected.curve] == [1, 2, 3]
        assert selected.curve[best - 1]["val_auc"] == max(entry["val_auc"] for entry in selected.curve)

    def test_what_was_learned_by_then_is_kept_and_not_what_came_later(self, file: Path) -> None:
        made = trainer([WRONG, RIGHT, HALF, HALF])
        selected = fit(made, file)
        seen: list[Tensor] = made.predictor.seen  # type: ignore[attr-defined]
        assert set(selected.learned) == {"head.weight", "head.bias"}
        assert torch.equal(selected.learned["head.weight"], seen[1])
        assert not torch.equal(selected.learned["head.weight"], made.adapted.parameters()["head.weight"])

    def test_without_an_auc_the_loss_decides(self, file: Path) -> None:
        one_class = np.zeros(4, dtype=np.int64)
        selected = fit(trainer([WRONG, RIGHT + np.float32([3, 0]), HALF], labels=one_class), file)
        assert selected.epoch == 2
        assert "val_auc" not in selected.curve[0]

    def test_the_task_type_names_the_score_that_is_selected_by(self, file: Path) -> None:
        made = trainer([RIGHT, WRONG, 3 * RIGHT])
        made.selection = Selection(LOSS)
        assert fit(made, file).epoch == 3, "of two epochs with an AUC of 1, that of the smaller loss"

    def test_the_epoch_is_that_of_the_best_worst_subgroup(self, file: Path) -> None:
        uneven = np.array([[2.0, 0.0], [1.0, 0.0], [1.5, 0.0], [0.0, 2.0]], dtype=np.float32)  # AUC 3/4; of F 0, of M 1
        made = trainer([uneven, np.zeros((4, 2), dtype=np.float32)])
        made.selection = Selection(AUC, "sex", {"F": np.array([1, 2]), "M": np.array([0, 3])})
        selected = fit(made, file)
        assert selected.epoch == 2
        assert [entry["val_auc_worst_group"] for entry in selected.curve] == [0.0, 0.5]

    def test_the_last_epoch_is_kept_whatever_validation_says_where_nothing_chooses(self, file: Path) -> None:
        made = trainer([RIGHT, HALF, WRONG])
        made.selection = Selection(None)
        selected = fit(made, file)
        assert selected.epoch == 3
        assert torch.equal(selected.learned["head.weight"], made.predictor.seen[2])  # type: ignore[attr-defined]

    def test_without_validation_images_nothing_is_asked_of_them(self, file: Path) -> None:
        made = trainer([RIGHT, RIGHT])
        made.selection, made.val = Selection(None), Images(indices=())  # type: ignore[assignment]
        selected = fit(made, file)
        assert (selected.epoch, made.predictor.seen) == (2, [])  # type: ignore[attr-defined]
        assert [set(entry) for entry in selected.curve] == [{"epoch", "train_loss", "lr"}] * 2

    def test_the_curve_tells_loss_rate_and_every_score(self, file: Path) -> None:
        made = trainer([RIGHT, HALF])
        told: list[Any] = []
        made.on_epoch = told.append
        selected = fit(made, file)
        assert told == selected.curve
        for entry in selected.curve:
            assert {"epoch", "train_loss", "lr", "val_auc", "val_accuracy", "val_loss"} <= set(entry)
            assert math.isfinite(entry["train_loss"])
        last = learning_rate(made.config, 1 + (STEPS - 1) / STEPS, 1 / STEPS)
        assert selected.curve[-1]["lr"] == last

    def test_a_batch_is_gone_before_the_next_one_is_made(self, file: Path) -> None:
        images = Passing()
        fit(trainer([RIGHT], images), file)
        assert len(images.given) == STEPS
        assert images.left == [0] * STEPS

    def test_every_epoch_has_an_order_of_its_own(self, file: Path) -> None:
        images = Images()
        fit(trainer([RIGHT] * 3, images), file)
        assert len(set(images.seeds)) == 3

    def test_the_first_steps_of_the_first_epoch_are_watched(self, file: Path) -> None:
        made, phases = trainer([RIGHT, RIGHT]), []
        watch = made.watch

        def watched(phase: str, live: Sequence[object]) -> Any:
            phases.append(phase)
            return watch(phase, live)

        made.watch = watched
        fit(made, file)
        assert phases == ["train_step", "train_step", "evaluate"]


class TestBadNumbers:
    @pytest.mark.parametrize("bad", [math.nan, math.inf])
    def test_a_loss_that_is_not_finite_ends_the_training(self, bad: float, file: Path) -> None:
        with pytest.raises(RunError) as caught:
            fit(trainer([RIGHT], Images(scale=bad)), file)
        assert caught.value.kind == "nan_loss"
        assert "epoch 1, step 1" in caught.value.message
        assert "--lr" in caught.value.hint
        assert not file.exists()

    @pytest.mark.parametrize(("steps", "found"), [(25, 11), (8, 8)])
    def test_a_loss_that_spoils_is_found_ten_steps_on_or_at_the_end(self, steps: int, found: int, file: Path) -> None:
        with pytest.raises(RunError, match=f"epoch 1, step {found} or shortly before"):
            fit(trainer([RIGHT], Spoiling(count=steps)), file)

    def test_logits_that_are_not_finite_end_the_training(self, file: Path) -> None:
        made, selected = trainer([RIGHT, RIGHT * np.float32("nan"), RIGHT]), Selected()
        with pytest.raises(RunError) as caught:
            made.fit(Checkpoint(file, "same"), selected)
        assert caught.value.kind == "nan_loss"
        assert len(selected.curve) == 1
        assert selected.epoch == 1


def test_a_training_that_has_not_begun_has_taken_no_time() -> None:
    made = trainer([RIGHT])
    assert made.earlier == sum(made.seconds.values()) == 0


class Counting(Companion):
    """Notes which step it is told of, and of how many."""

    def __init__(self) -> None:
        self.told: list[tuple[int, int]] = []

    def after_step(self, step: int, steps: int) -> None:
        self.told.append((step, steps))

    def penalty(self) -> Tensor:
        return torch.zeros(())


def test_a_companion_is_told_of_each_step_of_all_epochs(file: Path) -> None:
    made, companion = trainer([RIGHT] * 3), Counting()
    made.adapted = replace(made.adapted, companion=companion)
    fit(made, file)
    assert companion.told == [(number, 3 * STEPS) for number in range(1, 3 * STEPS + 1)]


def test_the_average_takes_in_what_its_decay_leaves() -> None:
    learned = nn.Parameter(torch.tensor([4.0, -8.0]))
    average = MovingAverage({"learned": learned}, decay=0.75)
    with torch.no_grad():
        learned.copy_(torch.tensor([8.0, 0.0]))
    average.update()
    assert average.tensors["learned"].tolist() == [5.0, -6.0]
    average.update()
    assert average.tensors["learned"].tolist() == [5.75, -4.5]


class TestCheckpoint:
    @pytest.mark.parametrize(
        "chosen", [{}, {"network": NormedNetwork}, {"optimizer": "sgd"}, {"optimizer": "sgd", "accumulate": 2}]
    )
    def test_a_training_that_was_stopped_ends_like_one_that_was_not(self, chosen: Any, tmp_path: Path) -> None:
        logits = [WRONG, RIGHT, HALF, WRONG]
        whole = trainer(logits, **chosen)
        expected = fit(whole, tmp_path / "whole.pt")

        stopped = trainer(logits, **chosen)

        def stop(entry: Any) -> None:
            if entry["epoch"] == 2:
                raise KeyboardInterrupt

        stopped.on_epoch = stop
        with pytest.raises(KeyboardInterrupt):
            fit(stopped, tmp_path / "stopped.pt")
        resumed = trainer(logits, **chosen)
        resumed.predictor.logits = logits[2:]  # type: ignore[attr-defined]
        found = fit(resumed, tmp_path / "stopped.pt")

        assert found.curve == expected.curve
        assert (found.epoch, found.key) == (expected.epoch, expected.key) == (2, found.key)
        for name, tensor in expected.learned.items():
            assert torch.equal(found.learned[name], tensor)
        for name, tensor in whole.adapted.kept().items():
            assert torch.equal(resumed.adapted.kept()[name], tensor)

    def test_the_time_of_the_first_attempt_is_counted_once(self, file: Path) -> None:
        first, began = trainer([RIGHT, RIGHT]), time.perf_counter()
        fit(first, file)
        assert min(first.seconds.values()) > 0
        assert sum(first.seconds.values()) < time.perf_counter() - began
        again = trainer([RIGHT, RIGHT])
        fit(again, file)
        assert again.seconds == first.seconds
        assert again.earlier == pytest.approx(sum(first.seconds.values()))

    def test_a_finished_training_is_not_trained_again(self, file: Path) -> None:
        expected = fit(trainer([WRONG, RIGHT]), file)
        images = Images()
        found = fit(trainer([WRONG, RIGHT], images), file)
        assert images.seeds == []
        assert (found.curve, found.epoch) == (expected.curve, expected.epoch)

    def test_the_checkpoint_of_another_identity_is_passed_over(self, file: Path) -> None:
        fit(trainer([WRONG, RIGHT]), file, identity="other data")
        images = Images()
        fit(trainer([WRONG, RIGHT], images), file)
        assert len(images.seeds) == 2

    def test_nothing_but_the_checkpoint_lies_beside_it(self, file: Path) -> None:
        fit(trainer([RIGHT, RIGHT]), file)
        assert list(file.parent.iterdir()) == [file]

    def test_only_what_is_learned_is_kept(self, file: Path) -> None:
        fit(trainer([RIGHT]), file)
        state = torch.load(file, weights_only=True)
        assert set(state["learned"]) == set(state["best"]["learned"]) == {"head.weight", "head.bias"}

    def test_a_checkpoint_that_cannot_be_written_leaves_the_old_one(
        self, file: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        fit(trainer([RIGHT]), file)
        before = file.read_bytes()

        def full(state: object, target: Path) -> None:
            target.write_bytes(b"half")
            raise OSError("No space left on device")

        monkeypatch.setattr(torch, "save", full)
        with pytest.raises(OSError, match="No space left"):
            fit(trainer([RIGHT, RIGHT]), file)
        assert file.read_bytes() == before
        assert list(file.parent.iterdir()) == [file]

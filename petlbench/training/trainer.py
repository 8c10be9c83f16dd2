"""The training loop: epochs, selection on validation, checkpoint and resume."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from petlbench.core.config import TrainingConfig, derive_seed
from petlbench.core.environment import keep_freed_memory
from petlbench.core.errors import RunError
from petlbench.core.files import write_atomically
from petlbench.core.interrupt import check_interrupt
from petlbench.core.progress import Progress
from petlbench.data.loader import Batch, ImageLoader
from petlbench.features.source import fetched_ahead
from petlbench.metrics.classification import AUC, METRICS, count_classes, evaluate
from petlbench.metrics.metric import Labels, Logits, Metric
from petlbench.models.method import Adapted, Solve
from petlbench.results.result import PhaseMemory
from petlbench.training.evaluation import Predictor
from petlbench.training.optim import learning_rate
from petlbench.training.selection import Selection
from petlbench.training.solve import solve
from petlbench.training.step import Step

# The loss is read back to the host once in so many steps: each read makes a GPU wait.
_READ_EVERY = 10
# Steps, or values of the loss that is solved for, that are watched for peak memory; the second step is the first that
# holds the optimiser's state.
_WATCHED = 2

Curve = list[dict[str, Any]]
Watch = Callable[[str, Sequence[object]], AbstractContextManager[object]]


def _unwatched(phase: str, live: Sequence[object]) -> AbstractContextManager[object]:
    return nullcontext()


@dataclass
class Selected:
    """The state of a training after some epochs: all that a checkpoint holds beside the optimiser.

    Args:
        curve: One entry an epoch.
        epoch: The epoch that is kept so far (from 1), 0 before the first.
        key: What it was chosen by; larger is better.
        learned: The learned tensors of that epoch, on the CPU.
    """

    curve: Curve = field(default_factory=list)
    epoch: int = 0
    key: tuple[float, float] = (-math.inf, -math.inf)
    learned: dict[str, Tensor] = field(default_factory=dict)


@dataclass
class Trainer:
    """Trains an adapted backbone and keeps the best epoch by a score on validation, or the last one.

    Every epoch starts from a seed of its own, so that a training that was stopped between two epochs ends with the
    same numbers as one that was not.

    Args:
        adapted: The module and what it learns.
        step: The optimiser step.
        predictor: Runs the module for evaluation.
        train: The training images.
        val: The validation images; none where they are trained on, and nothing is validated.
        config: How to train.
        seed: The run's seed.
        metrics: The scores of an epoch.
        selection: What the best epoch is chosen by.
        count: What is said of an epoch beside the scores.
        progress: Told what goes on.
        watch: Makes the context in which the first steps and the first evaluation run, from the phase's name and what
            lives already, to read their peak memory.
        read_test: Reads the test split, where it is scored after every epoch, given the number of the epoch; nothing is
            chosen by that. None where it is not.
        measured: Memory figures by phase, shared with what ``watch`` fills; a checkpoint keeps them, so that a run that
            was stopped behind its last epoch still has them.
        on_start: Told how many epochs earlier attempts have done.
        on_epoch: Told each new point of the curve, once the checkpoint is written.
        seconds: Time spent so far in training and in evaluation, earlier attempts included.
        earlier: The part of it that was spent before this process.
    """

    adapted: Adapted
    step: Step
    predictor: Predictor
    train: ImageLoader
    val: ImageLoader
    config: TrainingConfig
    seed: int
    metrics: Sequence[Metric] = METRICS
    selection: Selection = field(default_factory=lambda: Selection(AUC))
    count: Callable[[Labels, Logits], dict[str, Any]] = count_classes
    progress: Progress = field(default_factory=Progress)
    watch: Watch = _unwatched
    read_test: Callable[[int], tuple[Labels, Logits]] | None = None
    measured: dict[str, PhaseMemory] = field(default_factory=dict)
    on_start: Callable[[int], None] = lambda epochs: None
    on_epoch: Callable[[Mapping[str, Any]], None] = lambda entry: None
    seconds: dict[str, float] = field(default_factory=lambda: {"train": 0.0, "evaluate": 0.0})
    earlier: float = 0.0

    def __post_init__(self) -> None:
        """Start the average of what is learned, where one is kept."""
        self.average = MovingAverage(self.adapted.parameters(), self.config.ema_decay)

    def fit(self, checkpoint: Checkpoint, selected: Selected) -> None:
        """Train to the last epoch, going on from a checkpoint where there is one.

        Args:
            checkpoint: Where the state is kept.
            selected: Filled with the curve and the best epoch, also when the training fails on the way.

        Raises:
            RunError: When the loss is not finite (kind ``nan_loss``).
        """
        if self.predictor.device.type == "cpu":
            keep_freed_memory()
        checkpoint.load(self, selected)
        self.earlier = sum(self.seconds.values())
        self.on_start(len(selected.curve))
        first = len(selected.curve) + 1
        train = self._train_epoch if self.adapted.solve is None else partial(self._solve, self.adapted.solve)
        for epoch in range(first, self.config.epochs + 1):
            watch = self.watch if epoch == first else _unwatched
            started = time.perf_counter()
            loss = train(epoch, watch)
            trained = time.perf_counter()
            metrics = self._validate(watch)
            self._select(selected, epoch, loss, metrics, self._test(epoch))
            self.seconds["train"] += trained - started
            self.seconds["evaluate"] += time.perf_counter() - trained
            checkpoint.save(self, selected)
            self.on_epoch(selected.curve[-1])

    def _train_epoch(self, epoch: int, watch: Watch) -> float:
        seed = derive_seed(self.seed, "epoch", epoch)
        torch.manual_seed(seed)
        self.adapted.module.train()
        steps = self.train.steps()
        self.progress.phase(f"epoch {epoch}/{self.config.epochs}", steps)
        losses: list[Tensor] = []
        for batch in fetched_ahead(self.train.shuffled(seed), self.step.source):
            number = len(losses)
            self._set_rate(epoch - 1 + number / steps, steps)
            moved = batch.to(self.predictor.device)
            live = (self.adapted.module, self.step.optimizer, moved)
            with watch("train_step", live) if number < _WATCHED else nullcontext():
                losses.append(self.step(moved))
                self.average.update()
            if self.adapted.companion is not None:
                done = (epoch - 1) * steps + number + 1
                self.adapted.companion.after_step(done, self.config.epochs * steps)
            if number % _READ_EVERY == 0:
                self._check(losses[-1], epoch, number)
            self.progress.advance()
            check_interrupt()
            # Else these images would stay where they are while the next ones are moved there beside them.
            del batch, moved, live
        mean = torch.stack(losses).mean()
        self._check(mean, epoch, steps - 1)
        return float(mean)

    def _solve(self, find: Solve, epoch: int, watch: Watch) -> float:
        """Find what is learned in one go, and return the mean loss of the training images with it."""
        self.progress.phase("solving", math.ceil(len(self.train.indices) / self.train.batch_size))
        with ExitStack() as watched:

            def look(number: int) -> None:
                check_interrupt()
                if number > _WATCHED:
                    watched.close()

            watched.enter_context(watch("train_step", (self.adapted.module,)))
            return float(solve(self.adapted.module, find, self.step, self._shown_once(), look))

    def _shown_once(self) -> Iterator[Batch]:
        for batch in self.train.in_order():
            yield batch.to(self.predictor.device)
            self.progress.advance()

    def _set_rate(self, position: float, steps: int) -> None:
        rate = learning_rate(self.config, position, 1 / steps)
        for group in self.step.optimizer.param_groups:
            group["lr"] = rate * group.get("lr_scale", 1)

    def _check(self, loss: Tensor, epoch: int, number: int) -> None:
        if not math.isfinite(float(loss)):
            raise _not_finite(
                f"the training loss became {float(loss)} in epoch {epoch}, step {number + 1} or shortly before"
            )

    def _validate(self, watch: Watch) -> dict[str, Any]:
        if not self.val.indices:
            return {}
        self.progress.phase("validation", len(self.val.indices))
        with watch("evaluate", (self.adapted.module, self.step.optimizer)), self.average.applied():
            labels, logits = self.predictor(self.val, self.progress.advance)
        if not np.isfinite(logits).all():
            raise _not_finite("the logits of the validation images are not finite")
        scores = evaluate(labels, logits, self.metrics, self.count)
        return {**scores, **self.selection.scores(labels, logits)}

    def _test(self, epoch: int) -> dict[str, Any]:
        """Scores of the test split after an epoch, where they are to be seen; they have no part in the training."""
        if self.read_test is None:
            return {}
        with self.average.applied():
            labels, logits = self.read_test(epoch)
        return evaluate(labels, logits, self.metrics, self.count)

    def _select(
        self, selected: Selected, epoch: int, loss: float, metrics: Mapping[str, Any], test: Mapping[str, Any]
    ) -> None:
        scalars = {
            f"{side}_{name}": value
            for side, scores in (("val", metrics), ("test", test))
            for name, value in scores.items()
            if isinstance(value, float)
        }
        is_stepped = self.adapted.solve is None
        rate = {"lr": float(self.step.optimizer.param_groups[-1]["lr"])} if is_stepped else {}
        selected.curve.append({"epoch": epoch, "train_loss": loss, **rate, **scalars})
        key = self.selection.key(epoch, metrics)
        if key > selected.key:
            kept = {**self.adapted.kept(), **self.average.tensors}
            learned = {name: tensor.detach().cpu().clone() for name, tensor in kept.items()}
            selected.epoch, selected.key, selected.learned = epoch, key, learned


def _not_finite(message: str) -> RunError:
    return RunError(message, hint="lower --lr, or use --precision fp32", kind="nan_loss")


@dataclass(frozen=True)
class Checkpoint:
    """The state of a training on disk, replaced as a whole after every epoch.

    Args:
        file: Where it lies.
        identity: What the training depends on beside its config (data, weights, code); another identity is no
            continuation, and the checkpoint is ignored.
    """

    file: Path
    identity: str

    def save(self, trainer: Trainer, selected: Selected) -> None:
        """Write the state after an epoch."""
        companion = trainer.adapted.companion
        state = {
            "identity": self.identity,
            "learned": {name: tensor.detach() for name, tensor in trainer.adapted.kept().items()},
            "optimizer": trainer.step.optimizer.state_dict(),
            "scaler": trainer.step.scaler.state_dict(),
            "average": trainer.average.tensors,
            "companion": companion.state_dict() if companion is not None else {},
            "curve": selected.curve,
            "best": {"epoch": selected.epoch, "key": list(selected.key), "learned": selected.learned},
            "seconds": trainer.seconds,
            "measured": {name: asdict(figures) for name, figures in trainer.measured.items()},
        }
        with write_atomically(self.file) as temporary:
            torch.save(state, temporary)

    def load(self, trainer: Trainer, selected: Selected) -> None:
        """Put the state back, or leave everything as it is where there is none, or a damaged one."""
        if not self.file.is_file():
            return
        try:
            state = torch.load(self.file, map_location="cpu", weights_only=True)
            is_same = state["identity"] == self.identity
        except Exception as error:  # a file that was cut off makes torch's reader raise almost anything
            reason = str(error).partition("\n")[0] or type(error).__name__
            trainer.progress.say(f"{self.file} is damaged ({reason}), so the training starts anew")
            return
        if not is_same:
            return
        with torch.no_grad():
            for name, tensor in trainer.adapted.kept().items():
                tensor.copy_(state["learned"][name])
        trainer.step.optimizer.load_state_dict(state["optimizer"])
        trainer.step.scaler.load_state_dict(state["scaler"])
        trainer.average.load(state.get("average", {}))
        if trainer.adapted.companion is not None:
            trainer.adapted.companion.load_state_dict(state["companion"])
        trainer.seconds.update(state["seconds"])
        trainer.measured |= {name: PhaseMemory(**figures) for name, figures in state["measured"].items()}
        best = state["best"]
        selected.curve, selected.epoch = state["curve"], best["epoch"]
        selected.key, selected.learned = tuple(best["key"]), best["learned"]


class MovingAverage:
    """Keeps ``average = decay * average + (1 - decay) * parameter`` of every parameter; nothing where decay is 0."""

    def __init__(self, parameters: Mapping[str, nn.Parameter], decay: float) -> None:
        self.decay = decay
        self._parameters = dict(parameters)
        self.tensors = {name: tensor.detach().clone() for name, tensor in parameters.items()} if decay else {}

    def update(self) -> None:
        """Take in the parameters after a step."""
        if self.tensors:
            parameters = [self._parameters[name].detach() for name in self.tensors]
            torch._foreach_lerp_([*self.tensors.values()], parameters, 1 - self.decay)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Put the average in the parameters' place while the block runs."""
        with torch.no_grad():
            self._swap()
            try:
                yield
            finally:
                self._swap()

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Put back what ``tensors`` held."""
        for name, tensor in tensors.items():
            self.tensors[name].copy_(tensor)

    def _swap(self) -> None:
        for name, average in self.tensors.items():
            parameter = self._parameters[name]
            average.data, parameter.data = parameter.data, average.data

"""The search space of one method: what the sweep asks of all methods, and what the method declares of itself."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from petlbench.core.config import TrainingConfig
from petlbench.core.errors import InputError
from petlbench.core.validation import validate_settings
from petlbench.models.method import Method, TrainingDefaults
from petlbench.sweep.spec import Range, SweepCard, Wanted

if TYPE_CHECKING:
    import optuna

__all__ = ["Choice", "Knob", "Settings", "Space", "Span", "build_space"]

Params = Mapping[str, Any]

# How near to an end of its range, as a share of the range, a winner is on the edge.
_EDGE = 0.05
_SGD_LR = "training.lr_sgd"
_SGD_BATCH = 256


@dataclass(frozen=True)
class Settings:
    """What a trial sets: settings of the training and of the method, by name."""

    training: Mapping[str, Any] = field(default_factory=dict)
    method: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Choice:
    """One of several values.

    Args:
        values: The values, in the order of the file.
        only_if: Name and value of another choice with which alone this one is made.
    """

    values: tuple[Any, ...]
    only_if: tuple[str, Any] | None = None

    def suggest(self, trial: optuna.Trial, name: str) -> Any:
        """Let a trial choose."""
        return trial.suggest_categorical(name, self.values)

    def points(self) -> tuple[Any, ...]:
        """The values that a grid takes."""
        return self.values

    def widened(self, value: Any) -> Choice:
        """The same with a value in it."""
        return self if value in self.values else Choice((*self.values, value), self.only_if)

    def edge(self, value: Any) -> str | None:
        """Which end of three or more numbers a value is; a zero is no end, since nothing lies below it."""
        if len(self.values) < 3 or not all(_is_number(each) for each in self.values) or value == 0:
            return None
        return {min(self.values): "lowest", max(self.values): "highest"}.get(value)


@dataclass(frozen=True)
class Span:
    """A number between two others.

    Args:
        low: The lowest.
        high: The highest.
        log: Whether equal steps are equal factors.
        count: How many values a grid takes; 0 where it was not said.
        only_if: Name and value of a choice with which alone this one is made.
    """

    low: float
    high: float
    log: bool = False
    count: int = 0
    only_if: tuple[str, Any] | None = None

    def suggest(self, trial: optuna.Trial, name: str) -> float:
        """Let a trial choose."""
        return trial.suggest_float(name, self.low, self.high, log=self.log)

    def points(self) -> tuple[float, ...]:
        """The values that a grid takes, the ends among them."""
        return tuple(self._at(index / (self.count - 1)) for index in range(self.count))

    def widened(self, value: float) -> Span:
        """The same with a value in it."""
        return Span(min(self.low, value), max(self.high, value), self.log, self.count, self.only_if)

    def edge(self, value: float) -> str | None:
        """Which end of the range a value is near."""
        share = (self._scaled(value) - self._scaled(self.low)) / (self._scaled(self.high) - self._scaled(self.low))
        return "lowest" if share < _EDGE else "highest" if share > 1 - _EDGE else None

    def _scaled(self, value: float) -> float:
        return math.log(value) if self.log else value

    def _at(self, share: float) -> float:
        if share in (0, 1):
            return self.high if share else self.low
        place = self._scaled(self.low) * (1 - share) + self._scaled(self.high) * share
        # Six digits: a grid's values stand in file names and tables.
        return float(f"{math.exp(place) if self.log else place:.6g}")


Knob = Choice | Span


@dataclass(frozen=True)
class Space:
    """What a search varies and what it holds.

    Args:
        knobs: What is varied, by dotted name: ``training.lr``, ``method.rank``.
        fixed: What the sweep holds, by dotted name.
        published: The first trial's values by dotted name; empty where it is free.
    """

    knobs: Mapping[str, Knob]
    fixed: Mapping[str, Any]
    published: Mapping[str, Any] = field(default_factory=dict)

    def ask(self, trial: optuna.Trial) -> Settings:
        """Let a trial choose a value for everything that is varied."""
        chosen: dict[str, Any] = {}
        for name, knob in self.knobs.items():
            if knob.only_if is None or chosen.get(knob.only_if[0]) == knob.only_if[1]:
                chosen[name] = knob.suggest(trial, name)
        return self.settings(chosen)

    def settings(self, params: Params) -> Settings:
        """Sort values by dotted name into settings, with what is held beside them."""
        groups: dict[str, dict[str, Any]] = {"training": {}, "method": {}}
        for name, value in {**self.fixed, **params}.items():
            group, _, key = ("training.lr" if name == _SGD_LR else name).partition(".")
            groups[group][key] = value
        return Settings(**groups)

    def grid(self) -> list[dict[str, Any]]:
        """Every combination of every knob's points.

        Raises:
            InputError: When a range does not say how many points it has.
        """
        for name, knob in self.knobs.items():
            if isinstance(knob, Span) and not knob.count:
                raise InputError(
                    f"a grid over {name}: the range {knob.low:g} to {knob.high:g} does not say how many values",
                    hint="add points = 6 to the range, or write a list",
                    kind="bad_setting",
                )
        combinations = itertools.product(*(knob.points() for knob in self.knobs.values()))
        return [dict(zip(self.knobs, combination, strict=True)) for combination in combinations]

    def edges(self, params: Params) -> list[dict[str, Any]]:
        """Say which values lie on the edge of what was searched."""
        ends = {name: self.knobs[name].edge(value) for name, value in params.items() if name in self.knobs}
        return [{"name": name, "value": params[name], "end": end} for name, end in ends.items() if end is not None]

    def document(self) -> dict[str, Any]:
        """The space as plain values."""
        knobs = {
            name: list(knob.values)
            if isinstance(knob, Choice)
            else {"low": knob.low, "high": knob.high, "log": knob.log}
            for name, knob in self.knobs.items()
        }
        return {"searched": knobs, "fixed": dict(self.fixed)}


def build_space(
    sweep: SweepCard,
    method: type[Method[Any]],
    dataset: str,
    *,
    training: Mapping[str, Any],
    method_settings: Mapping[str, Any],
) -> Space:
    """Put a method's search space together.

    The sweep's common space comes first, then what it says of this method, then, on the track ``tuned``, the sizes that
    the method's settings declare (``search``). What the user fixed by name is not searched.

    Args:
        sweep: The sweep.
        method: The method's class.
        dataset: Name of the dataset; authors may have printed a learning rate for it.
        training: Training settings that the user fixed.
        method_settings: Settings of the method that the user fixed.

    Raises:
        InputError: When a setting of the sweep is none of the method's.
    """
    wanted = {f"training.{name}": value for name, value in sweep.space.training.items()}
    if sweep.track == "tuned":
        wanted |= _sizes(method)
    wanted |= {f"method.{name}": value for name, value in sweep.space.methods.get(method.card.name, {}).items()}
    _check_method(wanted, method)
    given = {f"training.{name}" for name in training} | {f"method.{name}" for name in method_settings}
    wanted = {name: value for name, value in wanted.items() if name not in given}
    searched = {name: knob for name, value in wanted.items() if (knob := _knob(value, method.defaults)) is not None}
    fixed = {name: _single(value) for name, value in wanted.items() if name not in searched}
    if sweep.track == "tuned" and sweep.sampler != "grid":
        batch = training.get(
            "batch_size", fixed.get("training.batch_size", TrainingConfig.model_fields["batch_size"].default)
        )
        searched = _with_sgd(searched, method.defaults, int(batch), {*given, *fixed})
    published = _published(searched, method, dataset) if sweep.published_first else {}
    searched = {name: knob.widened(published[name]) if name in published else knob for name, knob in searched.items()}
    return Space(searched, fixed, published)


def _sizes(method: type[Method[Any]]) -> dict[str, Wanted]:
    """The settings of a method that declare what a search tries."""
    found: dict[str, Wanted] = {}
    for name, spec in method.Settings.model_fields.items():
        extra = spec.json_schema_extra
        if isinstance(extra, dict) and isinstance(values := extra.get("search"), list):
            found[f"method.{name}"] = tuple(values)  # type: ignore[arg-type]  # plain values, as the contract test sees to
    return found


def _check_method(wanted: Mapping[str, Wanted], method: type[Method[Any]]) -> None:
    """Refuse names and values that are none of the method's, before anything is trained."""
    for name, value in wanted.items():
        group, _, key = name.partition(".")
        if group == "method":
            for single in value if isinstance(value, tuple) else (() if isinstance(value, Range) else (value,)):
                validate_settings(method.Settings, {key: single}, f"method {method.card.name}")


def _knob(wanted: Wanted, defaults: TrainingDefaults) -> Knob | None:
    """A knob for what is searched, None for what is held."""
    if isinstance(wanted, Range):
        if wanted.range == "method":
            low, high = defaults.lr_range
            return Span(min(low, defaults.lr), max(high, defaults.lr), log=True, count=wanted.points or 0)
        return Span(wanted.low or 0.0, wanted.high or 0.0, wanted.log, wanted.points or 0)
    if isinstance(wanted, tuple) and len(wanted) > 1:
        return Choice(wanted)
    return None


def _single(wanted: Wanted) -> Any:
    return wanted[0] if isinstance(wanted, tuple) else wanted


def _with_sgd(knobs: Mapping[str, Knob], defaults: TrainingDefaults, batch: int, held: set[str]) -> dict[str, Knob]:
    """Let a method that is published with SGD choose the optimiser too; either has learning rates of its own."""
    rate = knobs.get("training.lr")
    if defaults.sgd_lr_range is None or not isinstance(rate, Span) or "training.optimizer" in {*held, *knobs}:
        return dict(knobs)
    low, high = (end * batch / _SGD_BATCH for end in defaults.sgd_lr_range)
    optimizer: dict[str, Knob] = {"training.optimizer": Choice(("adamw", "sgd"))}
    rates: dict[str, Knob] = {
        "training.lr": Span(rate.low, rate.high, rate.log, rate.count, ("training.optimizer", "adamw")),
        _SGD_LR: Span(low, high, log=True, only_if=("training.optimizer", "sgd")),
    }
    return {**optimizer, **knobs, **rates}


def _published(knobs: Mapping[str, Knob], method: type[Method[Any]], dataset: str) -> dict[str, Any]:
    defaults = method.defaults
    known = {
        "training.lr": defaults.published_lr.get(dataset, defaults.lr),
        "training.weight_decay": defaults.weight_decay,
        **dict(_defaults_of(TrainingConfig, "training")),
        **dict(_defaults_of(method.Settings, "method")),
    }
    return {name: known[name] for name in knobs if name in known}


def _defaults_of(model: Any, group: str) -> Iterator[tuple[str, Any]]:
    for name, spec in model.model_fields.items():
        if not spec.is_required():
            yield f"{group}.{name}", spec.default


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)

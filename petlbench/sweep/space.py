"""The search space of one method: what the sweep asks of all methods, and what the method declares of itself."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from petlbench.core.config import TrainingConfig, validate_settings
from petlbench.core.errors import InputError
from petlbench.core.request import Tuned
from petlbench.models.method import Method, TrainingDefaults
from petlbench.sweep.spec import Range, SpaceValue, SweepCard
from petlbench.training.solve import OF_STEPS

if TYPE_CHECKING:
    import optuna

Params = Mapping[str, Any]

# How near to an end of its range, as a share of the range, a winner is on the edge.
_EDGE = 0.05
_SGD_LR = "training.lr_sgd"
_SGD_BATCH = 256


@dataclass(frozen=True)
class Choice:
    """One of several values, in the order of the file; made only with a value of another choice, by its name."""

    values: tuple[Any, ...]
    only_if: tuple[str, Any] | None = None

    def suggest(self, trial: optuna.Trial, name: str) -> Any:
        """Let a trial choose."""
        return trial.suggest_categorical(name, self.values)

    def points(self) -> tuple[Any, ...]:
        """The values that a grid takes."""
        return self.values

    def at(self, share: float) -> Any:
        """The value at a share of the way from the first to the last, from 0 to below 1."""
        return self.values[int(share * len(self.values))]

    def widened(self, value: Any) -> Choice:
        """The same with a value in it."""
        return self if value in self.values else replace(self, values=(*self.values, value))

    def edge(self, value: Any) -> str | None:
        """Which end of three or more numbers a value is; a zero is no end, since nothing lies below it."""
        are_numbers = all(isinstance(each, int | float) and not isinstance(each, bool) for each in self.values)
        if len(self.values) < 3 or not are_numbers or value == 0:
            return None
        return {min(self.values): "lowest", max(self.values): "highest"}.get(value)


@dataclass(frozen=True)
class Span:
    """A number between two others.

    Args:
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
        # Six digits: a grid's values stand in file names and tables.
        inner = (self.at(index / (self.count - 1), digits=6) for index in range(1, self.count - 1))
        return (self.low, *inner, self.high)

    def at(self, share: float, digits: int = 3) -> float:
        """The value at a share of the way from low to high, rounded to so many digits."""
        value = self._scaled(self.low) * (1 - share) + self._scaled(self.high) * share
        return float(f"{math.exp(value) if self.log else value:.{digits}g}")

    def widened(self, value: float) -> Span:
        """The same with a value in it."""
        return replace(self, low=min(self.low, value), high=max(self.high, value))

    def edge(self, value: float) -> str | None:
        """Which end of the range a value is near."""
        share = (self._scaled(value) - self._scaled(self.low)) / (self._scaled(self.high) - self._scaled(self.low))
        return "lowest" if share < _EDGE else "highest" if share > 1 - _EDGE else None

    def _scaled(self, value: float) -> float:
        return math.log(value) if self.log else value


Dimension = Choice | Span


@dataclass(frozen=True)
class Space:
    """What a search varies and what it holds.

    Args:
        dimensions: What is varied, by dotted name: ``training.lr``, ``method.rank``.
        fixed: What the sweep holds, by dotted name.
        published: The first trial's values by dotted name; empty where it is free.
    """

    dimensions: Mapping[str, Dimension]
    fixed: Mapping[str, Any]
    published: Mapping[str, Any] = field(default_factory=dict)

    def ask(self, trial: optuna.Trial) -> Tuned:
        """Let a trial choose a value for everything that is varied."""
        params: dict[str, Any] = {}
        for name, dimension in self.dimensions.items():
            if dimension.only_if is None or params.get(dimension.only_if[0]) == dimension.only_if[1]:
                params[name] = dimension.suggest(trial, name)
        return self.settings(params)

    def settings(self, params: Params) -> Tuned:
        """Sort values by dotted name into settings, with what is held beside them."""
        groups: dict[str, dict[str, Any]] = {"training": {}, "method": {}}
        for name, value in {**self.fixed, **params}.items():
            group, _, key = ("training.lr" if name == _SGD_LR else name).partition(".")
            groups[group][key] = value
        return Tuned(groups["training"], groups["method"])

    def grid(self) -> list[dict[str, Any]]:
        """Every combination of every dimension's points.

        Raises:
            InputError: When a range does not say how many points it has.
        """
        for name, dimension in self.dimensions.items():
            if isinstance(dimension, Span) and not dimension.count:
                ends = f"{dimension.low:g} to {dimension.high:g}"
                message = f"a grid over {name}: the range {ends} does not say how many values"
                raise InputError(message, hint="add points = 6 to the range, or write a list", kind="bad_setting")
        combinations = itertools.product(*(dimension.points() for dimension in self.dimensions.values()))
        return [dict(zip(self.dimensions, combination, strict=True)) for combination in combinations]

    def edges(self, params: Params) -> list[dict[str, Any]]:
        """Say which values lie on the edge of what was searched."""
        ends = {name: self.dimensions[name].edge(value) for name, value in params.items() if name in self.dimensions}
        return [{"name": name, "value": params[name], "end": end} for name, end in ends.items() if end is not None]

    def document(self) -> dict[str, Any]:
        """The space as plain values."""
        dimensions = {
            name: list(dimension.values)
            if isinstance(dimension, Choice)
            else {"low": dimension.low, "high": dimension.high, "log": dimension.log}
            for name, dimension in self.dimensions.items()
        }
        return {"searched": dimensions, "fixed": dict(self.fixed)}


def build_space(
    sweep: SweepCard,
    method: type[Method[Any]],
    dataset: str,
    *,
    training: Mapping[str, Any],
    method_settings: Mapping[str, Any],
) -> Space:
    """Return a method's search space.

    The sweep's common space comes first, then what it says of this method, then, on the track ``tuned``, the sizes that
    the method's settings declare (``search``). What the user fixed by name is not searched. Of a method that is solved
    the common space has no part, but for what is no matter of steps; it declares what takes its place
    (``search_solved``).

    Args:
        sweep: The sweep.
        method: The method's class.
        dataset: Name of the dataset; authors may have printed a learning rate for it.
        training: Training settings that the user fixed.
        method_settings: Settings of the method that the user fixed.

    Raises:
        InputError: When a setting of the sweep is none of the method's, or it searches settings with which the method
            takes steps and others with which it takes none.
    """
    own = {f"method.{name}": value for name, value in sweep.space.methods.get(method.card.name, {}).items()}
    is_solved = _is_solved(method, {**own, **{f"method.{name}": value for name, value in method_settings.items()}})
    unused = OF_STEPS if is_solved else frozenset[str]()
    training_space = sweep.space.training.items()
    values: dict[str, SpaceValue] = {f"training.{name}": value for name, value in training_space if name not in unused}
    if sweep.track == "tuned":
        values |= _sizes(method)
    if is_solved:
        values |= _strengths(method)
    values |= own
    _check_settings(values, method)
    names = {f"training.{name}" for name in training} | {f"method.{name}" for name in method_settings}
    dimensions = {name: _dimension(value, method.defaults) for name, value in values.items() if name not in names}
    searched = {name: dimension for name, dimension in dimensions.items() if dimension is not None}
    held = {name: values[name] for name, dimension in dimensions.items() if dimension is None}
    fixed = {name: value[0] if isinstance(value, tuple) else value for name, value in held.items()}
    if sweep.track == "tuned" and sweep.sampler != "grid":
        usual = TrainingConfig.model_fields["batch_size"].default
        batch = int(training.get("batch_size", fixed.get("training.batch_size", usual)))
        searched = _with_sgd(searched, method.defaults, batch, {*names, *fixed})
    published = _published(searched, method, dataset) if sweep.published_first else {}
    searched |= {name: searched[name].widened(value) for name, value in published.items()}
    return Space(searched, fixed, published)


def _check_settings(values: Mapping[str, SpaceValue], method: type[Method[Any]]) -> None:
    """Refuse what is no setting of the method before anything is trained."""
    for name, value in values.items():
        group, _, key = name.partition(".")
        if group == "method" and not isinstance(value, Range):
            for single in value if isinstance(value, tuple) else (value,):
                validate_settings(method.Settings, {key: single}, f"method {method.card.name}")


def _sizes(method: type[Method[Any]]) -> dict[str, SpaceValue]:
    """The settings of a method that declare what a search tries."""
    sizes: dict[str, SpaceValue] = {}
    for name, spec in method.Settings.model_fields.items():
        extra = spec.json_schema_extra
        if isinstance(extra, dict) and isinstance(values := extra.get("search"), list):
            sizes[f"method.{name}"] = tuple(values)  # type: ignore[arg-type]  # plain values, as the contract test sees to
    return sizes


def _is_solved(method: type[Method[Any]], settings: Mapping[str, SpaceValue]) -> bool:
    """Whether a method takes no steps with what is held of its settings, by dotted name.

    Raises:
        InputError: When a search would try settings with steps and settings without, which have no setting in common.
    """
    held = {name.partition(".")[2]: value for name, value in settings.items() if not isinstance(value, Range | tuple)}
    is_solved = method.from_settings(held).is_solved
    for name, value in settings.items():
        for single in value if isinstance(value, tuple) else ():
            if method.from_settings({**held, name.partition(".")[2]: single}).is_solved != is_solved:
                raise InputError(
                    f"a search over {name}: {method.card.name} takes steps with some of these, and none with others",
                    hint=f"search each of them alone: --set {name}={single}",
                    kind="bad_setting",
                )
    return is_solved


def _strengths(method: type[Method[Any]]) -> dict[str, SpaceValue]:
    """What a search varies of a method that is solved, in the place of learning rate and weight decay."""
    ranges: dict[str, SpaceValue] = {}
    for name, spec in method.Settings.model_fields.items():
        extra = spec.json_schema_extra
        if isinstance(extra, dict) and isinstance(ends := extra.get("search_solved"), list):
            low, high = (float(end) for end in ends)  # type: ignore[arg-type]  # numbers
            points = round(math.log10(high / low)) + 1  # a grid takes one of every power of ten
            ranges[f"method.{name}"] = Range(range=None, low=low, high=high, log=True, points=points)
    return ranges


def _dimension(value: SpaceValue, defaults: TrainingDefaults) -> Dimension | None:
    """A dimension for what is searched, None for what is held."""
    if isinstance(value, Range):
        if value.range == "method":
            low, high = defaults.lr_range
            return Span(min(low, defaults.lr), max(high, defaults.lr), log=True, count=value.points or 0)
        return Span(value.low or 0.0, value.high or 0.0, value.log, value.points or 0)
    if isinstance(value, tuple) and len(value) > 1:
        return Choice(value)
    return None


def _with_sgd(
    dimensions: Mapping[str, Dimension], defaults: TrainingDefaults, batch: int, held: set[str]
) -> dict[str, Dimension]:
    """Let a method that is published with SGD choose the optimiser too; either has learning rates of its own."""
    rate = dimensions.get("training.lr")
    if defaults.sgd_lr_range is None or not isinstance(rate, Span) or "training.optimizer" in {*held, *dimensions}:
        return dict(dimensions)
    low, high = (end * batch / _SGD_BATCH for end in defaults.sgd_lr_range)
    return {
        "training.optimizer": Choice(("adamw", "sgd")),
        **dimensions,
        "training.lr": replace(rate, only_if=("training.optimizer", "adamw")),
        _SGD_LR: Span(low, high, log=True, only_if=("training.optimizer", "sgd")),
    }


def _published(dimensions: Mapping[str, Dimension], method: type[Method[Any]], dataset: str) -> dict[str, Any]:
    defaults = method.defaults
    values = {
        "training.lr": defaults.published_lr.get(dataset, defaults.lr),
        "training.weight_decay": defaults.weight_decay,
        **_defaults_of(TrainingConfig, "training"),
        **_defaults_of(method.Settings, "method"),
    }
    return {name: values[name] for name in dimensions if name in values}


def _defaults_of(model: type[BaseModel], group: str) -> dict[str, Any]:
    return {f"{group}.{name}": spec.default for name, spec in model.model_fields.items() if not spec.is_required()}

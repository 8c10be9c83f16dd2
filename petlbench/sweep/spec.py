"""The sweep file: what a search varies, how it looks and how long, as a user writes it down in TOML."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    StrictBool,
    StrictFloat,
    StrictInt,
    StrictStr,
    field_validator,
    model_validator,
)

from petlbench.core.config import TrainingConfig, validate_settings
from petlbench.core.entry import Entry

Track = Literal["matched", "tuned"]
Objective = Literal[
    "val.auc", "val.auc_logits", "val.accuracy", "val.balanced_accuracy", "val.f1", "val.kappa", "val.loss"
]
Seed = Annotated[int, Field(ge=0, lt=2**32)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Range(_Part):
    """An interval that is searched: with two ends, or the one that the method declares for its learning rate."""

    range: Literal["method"] | None = Field(None, description="'method': the method's own learning rates")
    low: float | None = Field(None, description="lowest value")
    high: float | None = Field(None, description="highest value")
    log: bool = Field(False, description="whether equal steps are equal factors")
    points: int | None = Field(None, ge=2, description="how many values a grid takes, the ends among them")

    @model_validator(mode="after")
    def _has_ends(self) -> Range:
        if self.range is not None:
            if self.low is not None or self.high is not None:
                raise ValueError("a range is the method's, or it has low and high")
        elif self.low is None or self.high is None:
            raise ValueError("a range has low and high, or range = 'method'")
        elif not self.low < self.high:
            raise ValueError(f"low = {self.low:g} is not below high = {self.high:g}")
        elif self.log and self.low <= 0:
            raise ValueError(f"with log = true low is above 0, not {self.low:g}")
        return self


Scalar = StrictBool | StrictInt | StrictFloat | StrictStr
SpaceValue = Range | Annotated[tuple[Scalar, ...], Field(min_length=1)] | Scalar


class SpaceCard(_Part):
    """The common space: a list or a range is searched, a single value is fixed."""

    training: dict[str, SpaceValue] = Field(default_factory=dict, description="settings of the training")
    methods: dict[str, dict[str, SpaceValue]] = Field(
        default_factory=dict, description="settings of single methods, by the method's name"
    )

    @field_validator("training")
    @classmethod
    def _is_known(cls, training: dict[str, SpaceValue]) -> dict[str, SpaceValue]:
        if unknown := sorted(set(training) - set(TrainingConfig.model_fields)):
            raise ValueError(f"no setting of the training: {', '.join(unknown)}")
        for name, value in training.items():
            if isinstance(value, Range) and value.range is not None and name != "lr":
                raise ValueError(f"{name}: a method declares a range for lr alone")
        return training


class SweepCard(_Part):
    """One search, as its file has it."""

    title: str = Field(min_length=1, description="the name used in tables")
    description: str = Field("", description="what it is for, and what its result may be compared with")
    sampler: Literal["grid", "random", "tpe", "gp", "qmc"] = Field("tpe", description="who chooses the next trial")
    pruner: Literal["none", "median", "hyperband"] = Field("none", description="who stops a hopeless trial early")
    trials: int | None = Field(None, ge=1, le=100_000, description="trials of every method; of a grid all, if left out")
    track: Track = Field("matched", description="'matched': sizes at their defaults; 'tuned': sizes are searched too")
    published_first: bool = Field(False, description="whether the first trial is at the published defaults")
    objective: Objective = Field("val.auc", description="what is made best: the loss least, all else greatest")
    ties: Literal["first", "smaller_lr"] = Field(
        "first", description="which of equally good trials is best: the first, or that with the smaller learning rate"
    )
    seed: Seed = Field(0, description="seed of every trial")
    finalists: int = Field(1, ge=1, description="best trials run on finalist_seeds; with 1 there is no contest")
    finalist_seeds: tuple[Seed, ...] = Field((0,), min_length=1, description="seeds of the finalists")
    seeds: tuple[Seed, ...] = Field((0, 1, 2, 3, 4), min_length=1, description="seeds of the winner, tested once each")
    space: SpaceCard = Field(description="what is searched")

    @model_validator(mode="after")
    def _fits_together(self) -> SweepCard:
        if self.sampler == "grid":
            if self.published_first:
                raise ValueError("a grid has no first trial at the published defaults")
            if self.track == "tuned" and self.trials is None:
                raise ValueError("with the methods' sizes grids differ in length; trials is missing, the same for all")
        elif self.trials is None:
            raise ValueError("trials is missing; only a grid knows its own number")
        for name, seeds in (("finalist_seeds", self.finalist_seeds), ("seeds", self.seeds)):
            if len(set(seeds)) < len(seeds):
                raise ValueError(f"{name} names a seed twice")
        return self

    @property
    def metric(self) -> str:
        """The objective's name among the metrics of the validation split."""
        return self.objective.removeprefix("val.")

    @property
    def minimises(self) -> bool:
        """Whether less is better."""
        return self.metric == "loss"

    def cost(self, value: float | None) -> float:
        """The objective as a figure of which less is better, infinite where there is none."""
        return math.inf if value is None else value if self.minimises else -value

    def rank(self, value: float | None, params: Mapping[str, Any]) -> tuple[float, float]:
        """What orders trials by their objective and what they set: the best has the least."""
        rates = [float(rate) for name, rate in params.items() if name.startswith("training.lr")]
        return self.cost(value), (rates[0] if rates and self.ties == "smaller_lr" else 0.0)


def load_sweep(entry: Entry, **changes: Any) -> SweepCard:
    """Return the sweep of a catalogue's file, with values that take the place of the file's own.

    Raises:
        InputError: When a key is unknown or missing or a value is refused; the file is named.
    """
    return validate_settings(SweepCard, {**entry.card, **changes}, f"the sweep file {entry.file}")

"""What other tasks say of a method and its settings before a task's first trial."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from petlbench.core.errors import InputError
from petlbench.core.text import printable
from petlbench.core.user_files import read_json
from petlbench.recommend.trials import Candidate, Recorded

SHIPPED = Path(__file__).with_name("prior.json")
"""The prior that comes with petlbench."""

Array = NDArray[np.float64]

_FLOOR = -2.0
"""Lowest relative score that counts: how far a hopeless candidate is below the others says nothing of good ones."""
_BEST = 150
"""Candidates, the best on average, whose mean is a task's level."""
_METHOD, _SETTINGS, _OWN = 0.15, 0.2, 0.05
"""Deviations, as logits, of what other tasks do not tell: of a method, of near settings of it, of a candidate alone."""
_LEVEL, _BACKBONE = 1.0, 0.3
"""Deviation of a task's level, as logits: nothing is known of how hard a task is; and the part of it that is each
backbone's own."""
_REACH = {"lr": 0.7, "weight_decay": 0.2}
"""How fast candidates become unlike with the decimal logarithm of a setting; 0.5 for a method's own."""


def logit(percent: Array) -> Array:
    """Return log odds of scores in percent, with a quarter of a point added on both sides as no score is certain."""
    return np.asarray(np.log((percent + 0.25) / (100.25 - percent)))


@dataclass(frozen=True, eq=False)
class Belief:
    """What is believed of some candidates' scores on a task, as logits relative to its level.

    Args:
        mean: (N,).
        covariance: (N, N).
        likeness: How alike candidates of one method are, from 1 for equal settings to 0, (N, N); 0 between methods.
    """

    mean: Array
    covariance: Array
    likeness: Array

    def of(self, rows: Sequence[int]) -> Belief:
        """What is believed of some of the candidates."""
        both = np.ix_(rows, rows)
        return Belief(self.mean[rows], self.covariance[both], self.likeness[both])

    def widened(self, method: float, settings: float) -> Belief:
        """The same where methods, and settings of a method, lie apart by further deviations, as logits."""
        further = method**2 * (self.likeness > 0) + settings**2 * self.likeness
        return Belief(self.mean, self.covariance + further, self.likeness)


@dataclass(frozen=True, eq=False)
class Prior:
    """Scores of candidates on other tasks, relative to each task's level, as logits.

    Args:
        candidates: The candidates, N.
        mean: Mean over the tasks, (N,).
        axes: Main ways in which tasks depart from it, (K, N); the sum of their outer products over the number of tasks
            is the covariance between candidates that tasks share.
        tasks: The tasks that it was made from.
    """

    candidates: tuple[Candidate, ...]
    mean: Array
    axes: Array
    tasks: tuple[str, ...]

    @classmethod
    def of(cls, tasks: Recorded) -> Prior:
        """Make the prior of recorded trials; a candidate that a task lacks has its mean over the others there."""
        if not tasks:
            return cls((), np.zeros(0), np.zeros((0, 0)), ())
        candidates = tuple(dict.fromkeys(c for task in tasks.values() for c in task.candidates))
        place = {candidate: index for index, candidate in enumerate(candidates)}
        scores = np.full((len(tasks), len(candidates)), np.nan)
        for row, task in zip(scores, tasks.values(), strict=True):
            row[[place[c] for c in task.candidates]] = logit(task.scores)
        best = np.argsort(-np.nanmean(scores, axis=0), kind="stable")[:_BEST]
        relative = np.maximum(scores - np.nanmean(scores[:, best], axis=1, keepdims=True), _FLOOR)
        mean = np.nanmean(relative, axis=0)
        return cls(candidates, mean, np.where(np.isnan(relative), 0, relative - mean), tuple(tasks))

    def joined(self, other: Prior) -> Prior:
        """The prior of both priors' tasks, for the candidates of the other one that this one knows, or its own."""
        if not self.tasks or not other.tasks:
            return self if self.tasks else other
        place = {candidate: index for index, candidate in enumerate(self.candidates)}
        known = np.array([candidate in place for candidate in other.candidates])
        at = [place[candidate] for candidate in other.candidates if candidate in place]
        mean, axes = other.mean.copy(), np.zeros((len(self.axes), len(other.mean)))
        mean[known], axes[:, known] = self.mean[at], self.axes[:, at]
        both, mine = len(self.tasks) + len(other.tasks), len(self.tasks)
        joint = (mine * mean + len(other.tasks) * other.mean) / both
        # What the two means differ by is one more way in which tasks differ.
        between = math.sqrt(mine * len(other.tasks) / both) * (mean - other.mean)
        return Prior(other.candidates, joint, np.vstack([axes, other.axes, between]), self.tasks + other.tasks)

    def united(self, other: Prior) -> Prior:
        """The prior of both priors' tasks, for the candidates of both; each says of the other's what it believes."""
        if not self.tasks or not other.tasks:
            return self if self.tasks else other
        candidates = tuple(dict.fromkeys((*self.candidates, *other.candidates)))
        (mean, axes), (others_mean, others_axes) = (prior._said(candidates) for prior in (self, other))
        mine = Prior(candidates, mean, axes, self.tasks)
        return mine.joined(Prior(candidates, others_mean, others_axes, other.tasks))

    def without(self, task: str) -> Prior:
        """This prior where it has not seen a task, none where it has: a mean does not forget one of its parts."""
        return self if task not in self.tasks else Prior.of({})

    def belief(self, candidates: Sequence[Candidate]) -> Belief:
        """What it says of some candidates."""
        mean, axes = self._said(candidates)
        shared = axes.T @ axes / max(1, len(self.tasks))
        likeness = _likeness(candidates)
        kinship = _METHOD**2 * (likeness > 0) + _SETTINGS**2 * likeness + _OWN**2 * np.eye(len(candidates))
        return Belief(mean, shared + kinship + _level(candidates), likeness)

    def _said(self, candidates: Sequence[Candidate]) -> tuple[Array, Array]:
        """Mean (N,) and axes (K, N) of some candidates.

        Of one that it does not know it says what it says of the better third of its method's, or of all methods':
        whoever offers a candidate has not chosen hopeless settings.
        """
        by_method: dict[str, list[int]] = {}
        for index in np.argsort(-self.mean, kind="stable").tolist():
            by_method.setdefault(self.candidates[index].method, []).append(index)
        by_method = {method: rows[: math.ceil(len(rows) / 3)] for method, rows in by_method.items()}
        place = {candidate: [index] for index, candidate in enumerate(self.candidates)}
        every = [row for rows in by_method.values() for row in rows]
        mean, axes = np.zeros(len(candidates)), np.zeros((len(self.axes), len(candidates)))
        for column, candidate in enumerate(candidates):
            if like := place.get(candidate.anywhere) or by_method.get(candidate.method) or every:
                mean[column], axes[:, column] = self.mean[like].mean(), self.axes[:, like].mean(axis=1)
        return mean, axes

    def compressed(self, axes: int) -> Prior:
        """The same with its main axes alone."""
        _, values, directions = np.linalg.svd(self.axes, full_matrices=False)
        return Prior(self.candidates, self.mean, (values[:, None] * directions)[:axes], self.tasks)

    def document(self, source: str) -> dict[str, Any]:
        """The prior as a file has it."""
        return {
            "schema": 1,
            "source": source,
            "tasks": list(self.tasks),
            "candidates": [{"method": c.method, "values": dict(c.values)} for c in self.candidates],
            "mean": [round(float(value), 4) for value in self.mean],
            "axes": [[round(float(value), 4) for value in axis] for axis in self.axes],
        }


class _Candidate(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    method: str
    values: dict[str, float | bool | str]


_LogOdds = Annotated[float, Field(ge=-1000, le=1000)]
"""Farther than any score, and near enough to be squared and summed."""


class _Document(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, populate_by_name=True)

    version: int = Field(1, alias="schema", ge=1, le=1)
    source: str
    tasks: list[str]
    candidates: list[_Candidate]
    mean: list[_LogOdds]
    axes: list[list[_LogOdds]]


def load_prior(file: Path) -> Prior:
    """Return the prior that a file holds.

    Raises:
        InputError: When it is damaged.
    """
    try:
        document = _Document.model_validate(read_json(file, what="prior"))
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        place = printable(".".join(map(str, fault["loc"])))
        raise _damaged(file, f"{place}: {printable(fault['msg'])}") from error
    candidates = tuple(Candidate(c.method, tuple(sorted(c.values.items()))) for c in document.candidates)
    widths = {len(candidates), len(document.mean), *map(len, document.axes)}
    if len(widths) > 1 or len(set(candidates)) < len(candidates) or not document.tasks:
        raise _damaged(file, "candidates, mean and axes do not fit together")
    axes = np.array(document.axes, dtype=np.float64).reshape(-1, len(candidates))
    return Prior(candidates, np.array(document.mean, dtype=np.float64), axes, tuple(document.tasks))


def _damaged(file: Path, reason: str) -> InputError:
    return InputError(f"{file} is no prior: {reason}", hint="make it anew with tools/make_prior.py", kind="bad_prior")


def _level(candidates: Sequence[Candidate]) -> Array:
    """The covariance of a task's level: candidates share it, and more of it on one backbone."""
    backbones = np.array([candidate.backbone for candidate in candidates])
    return np.where(backbones[:, None] == backbones[None, :], _LEVEL**2, _LEVEL**2 - _BACKBONE**2)


def _likeness(candidates: Sequence[Candidate]) -> Array:
    """How alike candidates are, by what lies between their settings; those of other methods are not.

    Another backbone makes settings as unlike as a factor of ten in one of them.
    """
    likeness = np.zeros((len(candidates), len(candidates)))
    by_method: dict[str, list[int]] = {}
    for index, candidate in enumerate(candidates):
        by_method.setdefault(candidate.method, []).append(index)
    for rows in by_method.values():
        distance = _distance([{**dict(candidates[row].values), "backbone": candidates[row].backbone} for row in rows])
        likeness[np.ix_(rows, rows)] = np.exp(-distance)
    return likeness


def _distance(values: Sequence[Mapping[str, Any]]) -> Array:
    """How unlike some settings of one method are, (n, n)."""
    total = np.zeros((len(values), len(values)))
    for name in sorted({name for settings in values for name in settings}):
        column = [settings.get(name) for settings in values]
        numeric = all(isinstance(v, int | float) and not isinstance(v, bool) and v > 0 for v in column)
        # Words and switches are alike or not; another one counts as a factor of ten.
        if numeric:
            codes = np.log10(np.array(column, dtype=float))
            unlike = np.abs(codes[:, None] - codes[None, :])
        else:
            words = np.array([str(value) for value in column])
            unlike = (words[:, None] != words[None, :]).astype(float)
        total += _REACH.get(name, 0.5) * unlike
    return total

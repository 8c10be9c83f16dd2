"""Which candidate to train next, and which method is best by what was seen."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from petlbench.recommend.prior import Belief, logit
from petlbench.recommend.trials import Candidate
from petlbench.recommend.tuned import Difference, Observation, differences_to, tuned_scores

Array = NDArray[np.float64]

_LOSS_POINT = 1.0
"""Points of validation score that a validation loss smaller by the factor e is worth: it breaks ties of few images."""
_LOSS_FLOOR = 0.02


class Verdict(NamedTuple):
    """The decision of a race.

    Args:
        method: The best method, on its backbone where there are several.
        candidate: Its best candidate.
        runner_up: The next method; the best one where there is no other.
        trials: Trials that were used.
    """

    method: str
    candidate: Candidate
    runner_up: str
    trials: int


@dataclass
class Race:
    """A search over methods and their settings that begins with a belief and updates it trial by trial.

    A Gaussian process over the candidates: scores are logits of the validation score, with the binomial noise of the
    validation images (Mockus 1978 for the expected improvement; Swersky et al., 2013, for tasks that share what they
    teach). First every method has its most promising candidate tried, then the candidate of the greatest expected
    improvement over the best one seen.

    Args:
        candidates: What can be trained, N.
        belief: What is believed of their scores.
        images: Number of validation images that a score is made of.
    """

    candidates: Sequence[Candidate]
    belief: Belief
    images: int

    def __post_init__(self) -> None:
        """Begin without trials."""
        self._mean, self._covariance = self.belief.mean.copy(), self.belief.covariance.copy()
        self._scores: dict[int, float] = {}
        self._losses: dict[int, float] = {}
        self._skipped: set[int] = set()
        first: dict[str, int] = {}
        for index in np.argsort(-self._mean, kind="stable"):
            first.setdefault(self.candidates[index].arm, int(index))
        # Methods that promise most come first, where there are fewer trials than methods.
        self.opening = list(first.values())

    @property
    def trials(self) -> int:
        """Number of trials seen."""
        return len(self._scores)

    def next(self, without: Container[str] = ()) -> int | None:
        """The candidate to train next by its index, of no method that is out; None where all were trained."""
        taken = self._skipped.union(self._scores)
        is_open = [i not in taken and candidate.arm not in without for i, candidate in enumerate(self.candidates)]
        if not any(is_open):
            return None
        if opening := [index for index in self.opening if is_open[index]]:
            return opening[0]
        return int(np.where(is_open, self._improvement(), -np.inf).argmax())

    def skip(self, index: int) -> None:
        """Leave out a candidate that gave no score, or does not yet."""
        self._skipped.add(index)

    def observe(self, index: int, score: float, loss: float = float("nan"), variance: float | None = None) -> None:
        """Take in a trial.

        Args:
            index: Its candidate.
            score: Its validation score, percent.
            loss: Its validation loss in nats; NaN where that is not known.
            variance: Of the score over draws of validation images, points squared; a share's where it is not given.
        """
        share = np.clip(score / 100, 0.02, 0.98)
        spread = share * (1 - share)
        noise = (spread / self.images if variance is None else variance / 100**2) / spread**2
        gain = self._covariance[:, index] / (self._covariance[index, index] + noise)
        self._mean = self._mean + gain * (logit(np.array(score)) - self._mean[index])
        self._covariance = self._covariance - np.outer(gain, self._covariance[index])
        self._scores[index], self._losses[index] = score, loss

    def verdict(self) -> Verdict:
        """The method of the best trial: the highest score of the method's trials, plus what the loss says.

        Raises:
            ValueError: When there is no trial.
        """
        if not self._scores:
            raise ValueError("a race needs a trial")
        ranking = ranked(self.candidates, self._scores, self._losses)
        method, rows = ranking[0]
        best = max(rows, key=lambda row: (self._scores[row], self._mean[row]))
        runner_up = ranking[1] if len(ranking) > 1 else ranking[0]
        return Verdict(method, self.candidates[best], runner_up[0], self.trials)

    def differences(self, arm: str) -> dict[str, Difference]:
        """What every other method that was tried scores, tuned, minus what one does."""
        trials = [Observation(index, 0, score / 100, None) for index, score in self._scores.items()]
        return differences_to(arm, tuned_scores(self.candidates, self.belief, trials, self.images))

    def _improvement(self) -> Array:
        """The expected improvement of every candidate over the best of those tried, as logits, (N,)."""
        from scipy.special import ndtr

        deviation = np.sqrt(np.maximum(np.diag(self._covariance), 1e-9))
        best = max(self._mean[list(self._scores)], default=self._mean.max())
        steps = (self._mean - best) / deviation
        density = np.exp(-(steps**2) / 2) / np.sqrt(2 * np.pi)
        return np.asarray(deviation * (steps * ndtr(steps) + density))


def ranked(
    candidates: Sequence[Candidate], scores: Mapping[int, float], losses: Mapping[int, float]
) -> list[tuple[str, list[int]]]:
    """Return every method with its trials, the one to take first: that of the highest score plus what the loss says.

    Args:
        candidates: What can be trained.
        scores: Validation scores, percent, by candidate.
        losses: Validation losses in nats likewise; NaN where that is not known.
    """
    rows: dict[str, list[int]] = {}
    for index in scores:
        rows.setdefault(candidates[index].arm, []).append(index)

    def merit(indices: Sequence[int]) -> float:
        known = [losses[index] for index in indices if np.isfinite(losses[index])]
        tie = -_LOSS_POINT * float(np.log(min(known) + _LOSS_FLOOR)) if known else 0.0
        return max(scores[index] for index in indices) + tie

    return sorted(rows.items(), key=lambda item: -merit(item[1]))

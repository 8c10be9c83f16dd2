"""What methods reach with the best of their settings, by all trials: over images, seeds and settings not tried yet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve
from scipy.special import expit

from petlbench.recommend.prior import Belief, logit
from petlbench.recommend.trials import Candidate

Array = NDArray[np.float64]

_DRAWS = 4000
_METHODS = (0.0, 0.2, 0.5, 1.0)
_SETTINGS = (0.0, 0.2, 0.5, 1.0, 2.0)
"""Deviations, as logits, by which methods, and settings of a method, may lie apart on this task beside the belief."""
_SEEDS = (0.1, 0.2, 0.4)
"""Deviations, as logits, that another seed may make: once for all runs of a method on it, which begin with the same
weights and see the same batches, and once more for each. One seed does not tell how large the first is."""
_JITTER = 1e-8
_TAILS = (0.025, 0.975)


class Observation(NamedTuple):
    """A finished run of a candidate.

    Args:
        candidate: Its number.
        seed: The run's seed.
        score: Its validation score, a fraction.
        images: What each validation image, or group, adds to the error of the score, fractions, (U,): runs are paired
            by them. None where no predictions are kept.
    """

    candidate: int
    seed: int
    score: float
    images: Array | None


class Difference(NamedTuple):
    """The difference of two methods' scores, fractions.

    Args:
        effect: The difference.
        low: Lower bound of its interval of 95 %.
        high: Upper bound.
        error: Its standard deviation.
    """

    effect: float
    low: float
    high: float
    error: float

    @classmethod
    def of(cls, draws: NDArray[np.float64]) -> Difference:
        """Sum up draws of it, (S,)."""
        low, high = np.quantile(draws, _TAILS).tolist()
        return cls(float(draws.mean()), low, high, float(draws.std()))


class _Model(NamedTuple):
    """A Gaussian process before the observations, and their noise.

    Args:
        prior: What is believed of the candidates, N.
        noise: Covariance of the observations' errors, (n, n).
        seed: Deviation of another seed, of its two parts each.
    """

    prior: Belief
    noise: Array
    seed: float

    def evidence(self, at: NDArray[np.int64], scores: Array) -> float:
        """Logarithm of the density of some candidates' scores, but for a constant."""
        factor, rest = self._factor(at), scores - self.prior.mean[at]
        return -0.5 * float(rest @ cho_solve(factor, rest)) - float(np.log(np.diag(factor[0])).sum())

    def after(self, at: NDArray[np.int64], scores: Array) -> tuple[Array, Array]:
        """Mean (N,) and covariance (N, N) of the candidates' scores over seeds and images, as logits."""
        factor, shared = self._factor(at), self.prior.covariance[:, at]
        mean = self.prior.mean + shared @ cho_solve(factor, scores - self.prior.mean[at])
        return mean, self.prior.covariance - shared @ cho_solve(factor, shared.T)

    def _factor(self, at: NDArray[np.int64]) -> tuple[Array, bool]:
        factor: tuple[Array, bool] = cho_factor(self.prior.covariance[np.ix_(at, at)] + self.noise, lower=True)
        return factor


def tuned_scores(
    candidates: Sequence[Candidate], belief: Belief, observations: Sequence[Observation], images: int
) -> dict[str, Array]:
    """Return draws of what each method that was tried reaches, with settings chosen as here; fractions, (S,) each.

    A Gaussian process over the candidates' scores as logits, as in the race, with three things that another search
    would find otherwise. The images: errors of the runs' scores are correlated, for runs are judged on the same ones
    (the covariance of their influences). The seed: runs of equal settings differ. The settings: those not tried may be
    better, and the one that is chosen is the best on the validation images and not the best. How far settings and seeds
    lie apart is this task's own: both are averaged over a grid by the observations' density (empirical Bayes is too
    sure of few trials).

    Args:
        candidates: All candidates, N.
        belief: What was believed of them before the first run.
        observations: Finished runs; several of one candidate differ by seed.
        images: Number of validation images.
    """
    tried = {candidates[each.candidate].arm for each in observations}
    rows = [row for row, candidate in enumerate(candidates) if candidate.arm in tried]
    arms: dict[str, list[int]] = {}
    for place, row in enumerate(rows):
        arms.setdefault(candidates[row].arm, []).append(place)
    at = np.searchsorted(rows, [each.candidate for each in observations])
    scores = logit(100 * np.array([each.score for each in observations]))
    errors = _image_covariance(observations, images)
    starts = [(candidates[each.candidate].arm, each.seed) for each in observations]
    alike = np.array([[one == other for other in starts] for one in starts]) + np.eye(len(starts))
    priors = [belief.of(rows).widened(*further) for further in product(_METHODS, _SETTINGS)]
    models = [_Model(prior, errors + seed**2 * alike, seed) for prior, seed in product(priors, _SEEDS)]
    counts = _draws_of(np.array([model.evidence(at, scores) for model in models]))
    rng, own, draws = np.random.Generator(np.random.PCG64(0)), _own_variance(errors), []
    for model, count in zip(models, counts, strict=True):
        if count:
            error = np.sqrt(own + model.seed**2)
            draws.append(_chosen(model.after(at, scores), error, list(arms.values()), rng, count))
    return dict(zip(arms, np.concatenate(draws).T, strict=True))


def differences_to(arm: str, scores: Mapping[str, Array]) -> dict[str, Difference]:
    """Return the difference of every other method to one.

    Args:
        arm: The one.
        scores: Draws of every method's score, as `tuned_scores` gives them.
    """
    return {other: Difference.of(each - scores[arm]) for other, each in scores.items() if other != arm}


def _draws_of(evidence: Array) -> list[int]:
    """Number of draws from each model, by the logarithm of the observations' density."""
    weights = np.exp(evidence - evidence.max())
    ends = np.round(np.cumsum(weights) / weights.sum() * _DRAWS).astype(int)
    return [int(count) for count in np.diff(ends, prepend=0)]


def _image_covariance(observations: Sequence[Observation], images: int) -> Array:
    """Covariance of the scores' errors over draws of images, as logits squared."""
    shares = np.clip([each.score for each in observations], 0.02, 0.98)
    slopes = 1 / (shares * (1 - shares))
    units = max((len(each.images) for each in observations if each.images is not None), default=0)
    influences = np.zeros((len(observations), units))
    alone = np.zeros(len(observations))
    for row, each in enumerate(observations):
        if each.images is None:
            alone[row] = slopes[row] / images
        else:
            influences[row, : len(each.images)] = each.images * slopes[row]
    return np.asarray(influences @ influences.T + np.diag(alone))


def _own_variance(errors: Array) -> float:
    """The variance, of the mean run, that others do not share with it."""
    count = len(errors)
    shared = (errors.sum() - np.trace(errors)) / (count * (count - 1)) if count > 1 else 0.0
    return max(0.0, float(np.diag(errors).mean() - shared))


def _chosen(
    after: tuple[Array, Array], error: float, arms: Sequence[Sequence[int]], rng: np.random.Generator, count: int
) -> Array:
    """Draws of the score of the candidate that is chosen of each method, fractions, (count, A).

    The one is chosen that is best on some images and one seed, whose errors have the deviation ``error``.
    """
    mean, covariance = after
    root = np.linalg.cholesky(covariance + _JITTER * np.eye(len(mean)))
    scores = mean + rng.standard_normal((count, len(mean))) @ root.T
    seen = scores + rng.standard_normal(scores.shape) * error
    chosen = [np.take(rows, seen[:, rows].argmax(axis=1)) for rows in arms]
    return np.asarray(expit(np.stack([scores[np.arange(count), each] for each in chosen], axis=1)))

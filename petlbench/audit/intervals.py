"""The area under the ROC curve of many resamples at once, and the interval that they give."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["auc_interval", "weighted_auc"]

_RESAMPLES = 1000
_AT_ONCE = 50


def weighted_auc(
    labels: NDArray[np.int64], scores: NDArray[np.float64], weights: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Compute the AUC under several weightings of the images.

    Args:
        labels: Labels, (N,).
        scores: Probabilities, (N, C).
        weights: How often each image counts, (R, N).

    Returns:
        The AUC of class 1 where there are two classes, else the mean over the classes of one against the rest, (R,);
        NaN where a class has no weight. A class without an image is left out.
    """
    import numpy as np

    classes = [1] if scores.shape[1] == 2 else np.unique(labels).tolist()
    return np.asarray(np.mean([_one_auc(labels == one, scores[:, one], weights) for one in classes], axis=0))


def auc_interval(
    labels: NDArray[np.int64], scores: NDArray[np.float64], units: NDArray[np.int64], seed: int
) -> tuple[float, float]:
    """Give the 95 % interval of an AUC by the bootstrap's percentiles.

    Args:
        labels: Labels, (N,).
        scores: Probabilities, (N, C).
        units: What is drawn, (N,): the number of each image's group, or of the image; from 0, without gaps.
        seed: Seed of the resamples.

    Returns:
        The lower and the upper bound.
    """
    import numpy as np

    rng, count = np.random.default_rng(seed), int(units.max()) + 1
    found = []
    for _ in range(0, _RESAMPLES, _AT_ONCE):
        drawn = rng.integers(0, count, (_AT_ONCE, count))
        times = np.stack([np.bincount(row, minlength=count) for row in drawn]).astype(np.float64)
        found.append(weighted_auc(labels, scores, times[:, units]))
    low, high = np.nanquantile(np.concatenate(found), [0.025, 0.975])
    return float(low), float(high)


def _one_auc(
    positive: NDArray[np.bool_], scores: NDArray[np.float64], weights: NDArray[np.float64]
) -> NDArray[np.float64]:
    """The weight of pairs in which the positive image has the greater score; a tie is half a pair."""
    import numpy as np

    order = np.argsort(scores, kind="stable")
    starts = np.unique(scores[order], return_index=True)[1]
    sorted_weights, is_positive = weights[:, order], positive[order]
    above = np.add.reduceat(sorted_weights * is_positive, starts, axis=1)
    below = np.add.reduceat(sorted_weights * ~is_positive, starts, axis=1)
    passed = np.cumsum(below, axis=1) - below / 2
    with np.errstate(invalid="ignore"):
        return np.asarray((above * passed).sum(axis=1) / (above.sum(axis=1) * below.sum(axis=1)))

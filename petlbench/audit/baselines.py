"""Trivial classifiers: how far the class can be told without learning to see."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from petlbench.audit.confounders import FILE_SIZE, Column, most_common
from petlbench.audit.scan import Scan
from petlbench.core.progress import Progress
from petlbench.data.splits import group_numbers
from petlbench.data.tasks.base import Question
from petlbench.metrics.classification import macro_auc
from petlbench.metrics.influence import auc_influences
from petlbench.metrics.intervals import auc_interval, mean_auc_interval

FOLDS = 5
_TREES = 300
_PIXEL_COMPONENTS = 80
_MOST_NAMES = 50
"""Names of a column that get a feature of their own; the others share one."""


@dataclass(frozen=True)
class Baseline:
    """One trivial classifier, cross-validated.

    Args:
        name: Its name.
        features: What it is given, in words.
        uses_pixels: Whether what it is given depends on the pixels by intent; it does not for ``metadata``.
        auc: Of all images, each scored by the model that did not see its fold; None where it could not be computed.
        low: Lower bound of the AUC's 95 % interval, over images, or groups where they are known.
        high: Upper bound.
        accuracy: Share of images whose most probable class is theirs.
        refused: Why there are no figures; empty where there are.
        parts: Where images have several classes: the same for each of them; the figures here are then their mean.
    """

    name: str
    features: str
    uses_pixels: bool
    auc: float | None = None
    low: float | None = None
    high: float | None = None
    accuracy: float | None = None
    refused: str = ""
    parts: tuple[Baseline, ...] = ()

    def document(self) -> dict[str, Any]:
        """Everything as JSON, where ``uses_pixels`` is called ``looks``."""
        values = {"looks" if name == "uses_pixels" else name: value for name, value in asdict(self).items()}
        parts = {name: [part.document() for part in self.parts] for name in ("parts",) if values.pop(name)}
        return values | parts


@dataclass(frozen=True)
class _Plan:
    """A baseline without figures yet, its features, (N, F), and what makes its model for some training images."""

    baseline: Baseline
    matrix: NDArray[np.float64]
    model: Callable[[int], Any]


def run_baselines(scan: Scan, columns: Sequence[Column], seed: int, workers: int, progress: Progress) -> list[Baseline]:
    """Cross-validate every baseline: five shuffled folds, stratified by class, with groups kept together.

    Args:
        scan: The images, (N,).
        columns: What is known of them without a look at the pixels.
        seed: Seed of folds and models.
        workers: Processor cores that the forests use.
        progress: Told of every fold.
    """
    plans = list(_plans(scan, columns, seed, workers))
    units, grouped = group_numbers(scan.records), any(record.group is not None for record in scan.records)
    questions = scan.questions
    progress.phase("baselines", len(plans) * sum(max(_folds_possible(q, units), 1) for q in questions))
    results = []
    for plan in plans:
        if not questions:
            results.append(replace(plan.baseline, refused="the labels are numbers, and no classes"))
            continue
        parts = [_on_question(plan, question, units, grouped, seed, progress) for question in questions]
        results.append(parts[0].baseline if len(parts) == 1 else _mean(plan.baseline, parts, units))
    return results


@dataclass(frozen=True)
class _Part:
    """A baseline on one question: its figures, and where it has an AUC what that rests on, all of (K, N)."""

    baseline: Baseline
    influences: NDArray[np.float64]
    positive: NDArray[np.bool_]
    negative: NDArray[np.bool_]


def _on_question(  # noqa: PLR0917 - what all questions share stands behind
    plan: _Plan, question: Question, units: NDArray[np.int64], grouped: bool, seed: int, progress: Progress
) -> _Part:
    """Cross-validate a baseline on the images whose answer is known."""
    rows, labels = question.rows, question.answers
    own, folds = np.unique(units[rows], return_inverse=True)[1], _folds_possible(question, units)
    baseline = replace(plan.baseline, name=question.name or plan.baseline.name)
    nothing = np.zeros((0, len(units)))
    if not folds or not plan.matrix.shape[1]:
        few = "fewer than two classes have two images or groups each, so nothing can be cross-validated"
        why = "nothing that it is given differs between images" if folds else few
        progress.advance(max(folds, 1))
        return _Part(replace(baseline, refused=why), nothing, nothing.astype(bool), nothing.astype(bool))
    splits = _splits(labels, own, grouped, folds, seed)
    scores = _cross_validated(replace(plan, matrix=plan.matrix[rows]), labels, len(question.outputs), splits, progress)
    auc, interval = macro_auc(labels, scores), auc_interval(labels, scores, own)
    low, high = (None, None) if interval is None else (interval["low"], interval["high"])
    accuracy = float((scores.argmax(axis=1) == labels).mean())
    influences, sides = np.zeros((1, len(units))), np.zeros((2, 1, len(units)), dtype=bool)
    influences[0, rows] = auc_influences(labels, scores)[1].mean(axis=0)
    sides[:, 0, rows] = labels > 0, labels == 0
    return _Part(replace(baseline, auc=auc, low=low, high=high, accuracy=accuracy), influences, *sides)


def _mean(baseline: Baseline, parts: Sequence[_Part], units: NDArray[np.int64]) -> Baseline:
    """The mean over the questions that have an AUC, with the interval of a mean."""
    known = [part for part in parts if part.baseline.auc is not None]
    if not known:
        return replace(baseline, refused=parts[0].baseline.refused)
    aucs = np.array([part.baseline.auc for part in known])
    influences, positive, negative = (
        np.concatenate([getattr(part, name) for part in known]) for name in ("influences", "positive", "negative")
    )
    interval = mean_auc_interval((aucs, influences), positive, negative, units)
    accuracy = float(np.mean([part.baseline.accuracy for part in known]))
    figures = {"auc": float(aucs.mean()), "low": interval["low"], "high": interval["high"], "accuracy": accuracy}
    return replace(baseline, **figures, parts=tuple(part.baseline for part in parts))


def _plans(scan: Scan, columns: Sequence[Column], seed: int, workers: int) -> Iterator[_Plan]:
    def forest(_train: int) -> Any:
        from sklearn.ensemble import RandomForestClassifier

        return RandomForestClassifier(_TREES, random_state=seed, n_jobs=workers)

    def linear(train: int) -> Any:
        from sklearn.decomposition import PCA
        from sklearn.linear_model import LogisticRegression
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler

        components = PCA(min(_PIXEL_COMPONENTS, train - 1), random_state=seed)
        return make_pipeline(StandardScaler(), components, LogisticRegression(C=0.1, max_iter=2000))

    images = scan.images
    greys = np.array([image.levels for image in images], dtype=np.float64)
    sizes = [column.numbers for column in columns if column.name == FILE_SIZE and column.numbers is not None]
    if sizes:
        both = np.column_stack([sizes[0], greys])
        words = "file size, mean, deviation, share of black and of white"
        yield _Plan(Baseline("file", words, True), both, forest)
    yield _Plan(Baseline("grey levels", "mean, deviation, share of black and of white", True), greys, forest)
    thumbnails = np.stack([image.fingerprint.thumbnail for image in images])
    small = thumbnails.reshape(len(images), 32, 2, 32, 2).mean(axis=(2, 4)).reshape(len(images), -1)
    yield _Plan(Baseline("pixels", "32x32 greys, standardised, 80 principal components", True), small, linear)
    useful = [column for column in columns if not column.constant and not column.identifies]
    yield _Plan(Baseline("metadata", _named(useful), False), _encoded(useful, len(images)), forest)
    if sizes:
        rest = [column for column in useful if column.name != FILE_SIZE]
        yield _Plan(Baseline("metadata but file size", _named(rest), False), _encoded(rest, len(images)), forest)


def _named(columns: Sequence[Column]) -> str:
    return ", ".join(column.name for column in columns)


def _encoded(columns: Sequence[Column], count: int) -> NDArray[np.float64]:
    """Numbers as they are, and for every frequent name whether it is that, (N, F)."""
    parts: list[NDArray[np.float64]] = []
    for column in columns:
        if column.numbers is not None:
            parts.append(column.numbers[:, None])
        else:
            names, values = most_common(column.values, _MOST_NAMES), np.array(column.values)
            parts.append((values[:, None] == np.array(names)[None]).astype(np.float64))
    return np.concatenate(parts, axis=1) if parts else np.empty((count, 0))


def _folds_possible(question: Question, units: NDArray[np.int64]) -> int:
    """Five, or fewer where a class has fewer images or groups; 0 where nothing can be cross-validated."""
    labels, units = question.answers, units[question.rows]
    present = np.unique(labels)
    least = min((len(np.unique(units[labels == label])) for label in present), default=0)
    return min(FOLDS, least) if len(present) > 1 and least > 1 else 0


def _splits(
    labels: NDArray[np.int64], units: NDArray[np.int64], grouped: bool, folds: int, seed: int
) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

    splitter = StratifiedGroupKFold if grouped else StratifiedKFold
    return list(splitter(folds, shuffle=True, random_state=seed).split(labels, labels, units if grouped else None))


def _cross_validated(
    plan: _Plan,
    labels: NDArray[np.int64],
    classes: int,
    splits: Sequence[tuple[NDArray[np.int64], NDArray[np.int64]]],
    progress: Progress,
) -> NDArray[np.float64]:
    """Probabilities of every image by the model that did not see its fold, (N, C)."""
    scores = np.full((len(labels), classes), 1 / classes)
    for train, test in splits:
        # Groups can leave a fold's training part, or its test part, without a choice.
        if len(test) and len(np.unique(labels[train])) > 1:
            model = plan.model(len(train)).fit(plan.matrix[train], labels[train])
            scores[test] = 0
            scores[np.ix_(test, model.classes_)] = model.predict_proba(plan.matrix[test])
        progress.advance()
    return scores

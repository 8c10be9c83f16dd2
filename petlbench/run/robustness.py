"""How a run's balanced error grows when the images of a test set are corrupted."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from statistics import fmean
from typing import Any

from petlbench.core.bounded_cache import BoundedCache
from petlbench.core.progress import Progress
from petlbench.data.corruptions import PACKAGE, SEVERITIES, SIDE, CorruptedImages, Corruptions
from petlbench.data.loader import ImageLoader, ImageStore, KeptImages
from petlbench.data.tasks.base import TaskType
from petlbench.metrics.classification import BALANCED_ACCURACY
from petlbench.metrics.influence import number_groups
from petlbench.metrics.intervals import Units, balanced_accuracy_interval
from petlbench.results.evaluation import CorruptionScores, Robustness
from petlbench.training.evaluation import Labels, Logits, Predictor

# Most bytes of images of 224 pixels that are kept, to be corrupted again: those of about 1,700.
_KEPT = 256 << 20
_LEVEL = 0.95

_Errors = dict[str, float | None]


def measure_robustness(
    predictor: Predictor,
    loader: ImageLoader,
    task: TaskType,
    corruptions: Corruptions,
    progress: Progress,
) -> Robustness:
    """Balanced errors by corruption and severity, and the relative ones of MedMNIST-C where it has a reference.

    F. Di Salvo, S. Doerrich and C. Ledig, arXiv:2406.17536, as their evaluator computes them: of a corruption, BE is
    the mean balanced error over its severities, divided by that of the reference, an AlexNet; rBE is the same with what
    errors are on clean images taken off both. Both are then averaged over the corruptions. What is clean here is
    resized to 224 pixels, too, so that this counts for no corruption.

    Args:
        predictor: The run's module.
        loader: The test images.
        task: What a label is; several labels an image have the mean of their errors.
        corruptions: What is done to them.
        progress: Told of every image.
    """
    images = ImageStore(loader.images.dataset, kept=KeptImages(BoundedCache(_KEPT)))
    units = number_groups([images.dataset.records[index].group for index in loader.indices], len(loader.indices))

    def errors(name: str = "", severity: int = 0) -> _Errors:
        progress.phase(f"{name.replace('_', ' ')}, severity {severity}" if name else "clean", len(loader.indices))
        corrupted = CorruptedImages(images, corruptions, name, severity)
        return _balanced_error(*predictor(replace(loader, images=corrupted), progress.advance), task, units)

    clean = errors()
    scores = [_scores(name, errors, clean["balanced_error"], corruptions.reference) for name in corruptions.members]
    return Robustness(
        package=PACKAGE,
        dataset=corruptions.dataset,
        image_size=SIDE,
        clean=clean,
        reference=f"AlexNet of {PACKAGE}" if corruptions.reference else "",
        corruptions=scores,
        **{key: _mean(getattr(each, key) for each in scores) for key in ("balanced_error", "be", "rbe")},
        versions=corruptions.versions(),
    )


def _scores(
    name: str, errors: Callable[[str, int], _Errors], clean: float | None, reference: Mapping[str, Any]
) -> CorruptionScores:
    rows = [errors(name, severity) for severity in range(1, SEVERITIES + 1)]
    for row in rows:
        row["increase"] = _less(row["balanced_error"], clean)
    mean = _mean(row["balanced_error"] for row in rows)
    theirs, clean_of_theirs = reference.get("raw_scores", {}).get(name), reference.get("clean_score")
    increase, of_theirs = _less(mean, clean), _less(theirs, clean_of_theirs)
    return CorruptionScores(
        name=name,
        by_severity=rows,
        balanced_error=mean,
        increase=increase,
        be=_over(mean, theirs),
        rbe=_over(increase, of_theirs),
    )


def _balanced_error(labels: Labels, logits: Logits, task: TaskType, units: Units) -> _Errors:
    """1 less the balanced accuracy; with its interval where one thing is asked of an image."""
    questions = task.questions(labels, range(logits.shape[1]), task.probabilities(logits))
    of_each = [(each.answers, each.chances, units[each.rows]) for each in questions if each.chances is not None]
    errors = [_less(1.0, BALANCED_ACCURACY.score(answers, chances)) for answers, chances, _ in of_each if len(answers)]
    low, high = None, None
    if len(of_each) == 1:
        bounds = balanced_accuracy_interval(*of_each[0], _LEVEL)
        low, high = 1 - bounds["high"], 1 - bounds["low"]
    return {"balanced_error": _mean(errors), "low": low, "high": high}


def _mean(values: Iterable[float | None]) -> float | None:
    """The mean; None where one of them is none, or there are none."""
    numbers = list(values)
    return fmean(number for number in numbers if number is not None) if numbers and None not in numbers else None


def _less(value: float | None, other: float | None) -> float | None:
    return None if value is None or other is None else value - other


def _over(value: float | None, other: float | None) -> float | None:
    return None if value is None or not other else value / other

"""Runs as a report sees them that is about groups (patients, lesions) instead of images."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from petlbench.core.catalog import Catalog
from petlbench.core.errors import InputError
from petlbench.data.tasks.base import TaskType
from petlbench.metrics.classification import compute_intervals
from petlbench.metrics.groups import GroupRule
from petlbench.metrics.metric import Metric
from petlbench.report.context import score_form
from petlbench.report.spec import Unit
from petlbench.results.documents import changed
from petlbench.results.predictions import Predictions
from petlbench.results.stored import Stored


@dataclass(frozen=True, kw_only=True)
class _ByGroup(Stored):
    """A run whose scores, intervals and predictions are those of groups."""

    rule: GroupRule

    def predictions(self, split: str) -> Predictions | None:
        """One prediction a group of the split; None where it kept none, or knows no groups."""
        images = super().predictions(split)
        return None if images is None else images.by_group(self.rule, self.config["aggregate"])


def titled(metric: Metric, unit: Unit) -> Metric:
    """A score with a title that says what it counts."""
    return metric if unit == "image" else replace(metric, title=f"{metric.title} by group")


def runs_by(unit: Unit, runs: Iterable[Stored], metric: Metric, catalog: Catalog) -> list[Stored]:
    """The runs as they stand, by image; or by group: their scores, intervals and predictions are those of groups.

    Raises:
        InputError: When the groups of a finished run are not known, or runs put images together by several rules.
    """
    if unit == "image":
        return list(runs)
    seen = [_by_group(run, metric, catalog) for run in runs]
    rules = sorted({str(run.config["aggregate"]) for run in seen if run.finished})
    if len(rules) > 1:
        raise InputError(
            f"the results put the images of a group together by several rules: {', '.join(rules)}",
            hint=f"choose one, for example --where aggregate={rules[0]}",
            kind="mixed_settings",
        )
    return seen


def _by_group(run: Stored, metric: Metric, catalog: Catalog) -> Stored:
    rule = catalog.load("task", run.document["data"].get("task", "multiclass"), TaskType).groups
    seen = _ByGroup(run.document, run.folder, run.name, rule=rule)
    metrics, intervals = run.document.get("metrics_by_group"), run.document.get("intervals_by_group")
    if run.finished and run.document["metrics"] and not metrics:
        metrics, intervals = _computed(seen, metric)
    return replace(seen, document=changed(run.document, metrics=metrics or {}, intervals=intervals or {}))


def _computed(run: _ByGroup, metric: Metric) -> tuple[dict[str, Any], dict[str, Any]]:
    """The score of a run that was made before runs stored those of groups, and its interval, by split."""
    read = {split: run.predictions(split) for split in run.document["metrics"]}
    groups = {split: predictions for split, predictions in read.items() if predictions is not None}
    if not groups:
        raise InputError(
            f"--unit group: {run.run_id} knows no groups of its images on {run.dataset}",
            hint="leave such runs out with --where, for example --where dataset=NAME, or use --unit image",
            kind="no_groups",
        )
    form = metric.in_form(score_form(run, metric))
    metrics = {split: {metric.name: form.score(each.labels, each.logits)} for split, each in groups.items()}
    intervals = {split: compute_intervals(each.labels, each.logits, metrics=[form]) for split, each in groups.items()}
    return metrics, intervals

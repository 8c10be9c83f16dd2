"""Verifying a bundle: every score, interval and cell computed again from the predictions, and what differs."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path
from typing import Any, Literal

from petlbench.core.catalog import Catalog
from petlbench.core.errors import InputError
from petlbench.core.progress import Progress
from petlbench.core.text import printable
from petlbench.core.user_files import read_json, read_text
from petlbench.data.manifest import read_sides
from petlbench.data.tasks.base import TaskType, metrics_of
from petlbench.metrics.classification import compute_intervals, evaluate
from petlbench.metrics.groups import by_group
from petlbench.metrics.metric import Metric
from petlbench.report.bundle.opened import MANIFESTS, TABLES, Bundle, open_bundle
from petlbench.report.bundle.tables import make_report
from petlbench.report.render.markdown import MARKDOWN
from petlbench.report.share import without_places
from petlbench.results.evaluation import FOLDER as EVALUATIONS
from petlbench.results.evaluation import Evaluation, read_evaluations
from petlbench.results.predictions import Predictions, read_predictions
from petlbench.results.result import FILE
from petlbench.results.stored import Stored, flat
from petlbench.results.table import Results, load_results, read_studies
from petlbench.run.calibration import before_and_after
from petlbench.training.loss import Loss

Kind = Literal["file", "run", "split", "score", "interval", "calibration", "cell"]

# Another machine may add up in another order, and nothing more. Bounds of intervals are searched for.
_SUMMED, _SEARCHED, _ABSOLUTE = 1e-12, 1e-9, 1e-15
_NOTHING = "nothing"
_SCORES = ("metrics", "intervals", "metrics_by_group", "intervals_by_group")
# What labels and logits bring about that fit nothing of what a result says.
_MISFITS = (ValueError, TypeError, ArithmeticError, LookupError)


@dataclass(frozen=True)
class Difference:
    """Something that is not as the predictions, or the sums, say.

    Args:
        kind: What it is.
        place: The file, and what in it.
        stored: What the bundle says.
        recomputed: What was computed or seen.
    """

    kind: Kind
    place: str
    stored: str
    recomputed: str


@dataclass(frozen=True)
class Verification:
    """What came of verifying a bundle.

    Args:
        file: The bundle.
        differences: What differs.
        counts: How much was looked at: ``files``, ``runs``, ``scores``, ``intervals``, ``cells``, ….
    """

    file: Path
    differences: Sequence[Difference]
    counts: Mapping[str, int] = field(default_factory=dict)

    @property
    def is_whole(self) -> bool:
        """Whether nothing differs."""
        return not self.differences


def verify_bundle(file: Path, catalog: Catalog, progress: Progress) -> Verification:
    """Compute a bundle's figures again.

    Raises:
        InputError: When it is no bundle, or cannot be unpacked.
    """
    bundle = open_bundle(file)
    verifier = _Verifier(bundle, catalog, bundle.description.study)
    differences = [Difference("file", path, "as listed", fault) for path, fault in bundle.faults()]
    results = load_results(bundle.results)
    differences += [Difference("run", verifier.reason(message), "a result", "damaged") for message in results.damaged]
    differences += verifier.absent(results)
    progress.phase("verifying", len(results.runs))
    for run in results.runs:
        differences += verifier.run(run)
        progress.advance()
    for name, reason in bundle.description.reports.items():
        differences += [] if reason else verifier.tables(name)
    return Verification(file, differences, {"files": len(bundle.sums), **verifier.counts})


@dataclass(frozen=True)
class _Verifier:
    """What looks at the parts of a bundle, and counts them."""

    bundle: Bundle
    catalog: Catalog
    study: str | None
    counts: Counter[str] = field(default_factory=Counter)

    def absent(self, results: Results) -> Iterator[Difference]:
        """Runs that studies say are finished, and that are not there."""
        ids = {run.run_id for run in results.runs}
        for name, study in read_studies(self.bundle.results, None).items():
            for run in study.get("runs", ()):
                if run.get("status") == "finished" and run.get("run_id") not in ids:
                    yield Difference("run", f"results/{printable(str(run['run_id']))}", f"in study {name}", "missing")

    def reason(self, error: object) -> str:
        """What is wrong, with paths as the bundle has them."""
        return printable(str(error).replace(f"{self.bundle.folder}/", ""))

    def run(self, run: Stored) -> Iterator[Difference]:
        """What of a run is not as its predictions say."""
        self.counts["runs"] += 1
        place, document = f"results/{run.run_id}/{FILE}", run.document
        if not document["metrics"]:
            return
        try:
            predictions = {split: run.predictions(split) for split in document["metrics"]}
            present = {split: each for split, each in predictions.items() if each is not None}
            for split in (name for name in predictions if name not in present):
                yield Difference("score", f"{place}: {split}", "scores", "no predictions of that split")
            stored = {name: _of(document.get(name), present) for name in _SCORES}
            yield from self._compare(place, stored, self._recomputed(run, present))
            yield from self._calibration(place, document, run, present)
            yield from self._split(run, present)
        except (InputError, *_MISFITS) as error:
            yield Difference("run", place, "scores", f"cannot be computed: {self.reason(error)}")
        for evaluation in read_evaluations(run.folder or Path()):
            yield from self._evaluation(run, evaluation)

    def tables(self, name: str) -> Iterator[Difference]:
        """What of the tables of a report is not as the results say."""
        place = f"{TABLES}/{name}"
        try:
            stored = read_json(self.bundle.folder / f"{place}.json", what="table")
            document = without_places(make_report(self.bundle, name, self.catalog))
            text = read_text(self.bundle.folder / f"{place}.md", what="table")
            old, new = _cells(stored), _cells(json.loads(json.dumps(document.plain())))
        except (InputError, AttributeError, *_MISFITS) as error:
            yield Difference("cell", place, "a table", f"cannot be read or made: {self.reason(error)}")
            return
        self.counts["cells"] += sum(": row " in key for key in new)
        differing = [key for key in dict.fromkeys([*new, *old]) if not _is_close(old.get(key), new.get(key))]
        for key in differing:
            yield Difference("cell", f"{place}.json: {key}", _shown(old.get(key)), _shown(new.get(key)))
        # What differs as numbers differs as text, too, and is not said twice.
        lines = [] if differing else zip_longest(text.splitlines(), MARKDOWN.text(document).splitlines(), fillvalue="")
        for number, (line, other) in enumerate(lines, 1):
            if line != other:
                yield Difference("cell", f"{place}.md: line {number}", _shown(line), _shown(other))

    def _task(self, run: Stored) -> tuple[TaskType, tuple[Metric, ...]]:
        task = self.catalog.load("task", run.document["data"].get("task", "multiclass"), TaskType)
        return task, metrics_of(task, self.catalog)

    def _recomputed(self, run: Stored, predictions: Mapping[str, Predictions]) -> dict[str, dict[str, Any]]:
        """What a result has under the names of `_SCORES`, of the splits that there are predictions of."""
        task, metrics = self._task(run)
        values: dict[str, dict[str, Any]] = {name: {} for name in _SCORES}
        for split, each in predictions.items():
            values["metrics"][split] = evaluate(each.labels, each.logits, metrics, task.count)
            values["intervals"][split] = compute_intervals(each.labels, each.logits, each.groups, metrics=metrics)
            aggregate = run.config.get("aggregate", "mean")
            groups = by_group(each.labels, each.logits, each.groups, task.groups, aggregate)
            if groups is not None:
                scores = evaluate(groups.labels, groups.logits, metrics, task.count)
                values["metrics_by_group"][split] = {**scores, "ambiguous": groups.ambiguous}
                values["intervals_by_group"][split] = compute_intervals(groups.labels, groups.logits, metrics=metrics)
        return values

    def _compare(
        self, place: str, stored: Mapping[str, Any], recomputed: Mapping[str, Any], kind: Kind | None = None
    ) -> Iterator[Difference]:
        """What a part of a result has otherwise than the predictions; what it does not have is no difference."""
        new = flat(recomputed)
        for key, value in flat(stored).items():
            of = kind or ("interval" if key.startswith("intervals") else "score")
            self.counts[f"{of}s"] += 1
            if not _is_close(value, new.get(key), _SUMMED if of == "score" else _SEARCHED):
                yield Difference(of, f"{place}: {key}", _shown(value), _shown(new.get(key)))

    def _calibration(
        self, place: str, document: Mapping[str, Any], run: Stored, predictions: Mapping[str, Predictions]
    ) -> Iterator[Difference]:
        fit = document.get("calibration")
        if fit is None:
            return
        task, _ = self._task(run)
        loss = self.catalog.load("loss", fit["loss"], Loss)
        figures = {
            split: before_and_after(each.labels.copy(), each.logits, fit["temperature"], loss, task)
            for split, each in predictions.items()
        }
        stored = {"calibration": _of(fit["figures"], predictions)}
        yield from self._compare(place, stored, {"calibration": figures}, "calibration")

    def _split(self, run: Stored, predictions: Mapping[str, Predictions]) -> Iterator[Difference]:
        """What of a run's split is not as its digest and its manifest say."""
        file = self.bundle.manifest(run.document["digests"])
        if file is None:
            return
        self.counts["splits"] += 1
        place = f"{MANIFESTS}/{file.name}"
        if not file.is_file():
            yield Difference("split", place, f"the manifest of {run.run_id}", "missing")
            return
        digest, sides = read_sides(file)
        if digest != run.document["digests"].get("split"):
            yield Difference("split", place, "the split of the result", "another split")
        for split in ("val", "test"):
            images = predictions[split].image_ids if split in predictions else ()
            others = [image for image in images if sides.get(image) != split]
            if others:
                where = f"{sides.get(others[0], _NOTHING) or _NOTHING}"
                yield Difference("split", f"{place}: {printable(others[0])}", split, where)

    def _evaluation(self, run: Stored, evaluation: Evaluation) -> Iterator[Difference]:
        place = f"results/{run.run_id}/{EVALUATIONS}/{evaluation.name}.json"
        folder = (run.folder or Path()) / EVALUATIONS
        try:
            predictions = read_predictions(folder / f"{evaluation.name}.parquet")
            if predictions is None:
                yield Difference("score", place, "scores", "no predictions")
                return
            task, metrics = self._task(run)
            labels, logits = predictions.labels, predictions.logits
            recomputed = {
                "metrics": evaluate(labels, logits, metrics, task.count),
                "intervals": compute_intervals(labels, logits, predictions.groups, metrics=metrics),
            }
        except (InputError, *_MISFITS) as error:
            yield Difference("run", place, "scores", f"cannot be computed: {self.reason(error)}")
            return
        stored = {"metrics": evaluation.metrics, "intervals": evaluation.intervals}
        yield from self._compare(place, stored, recomputed)


def _of(values: Mapping[str, Any] | None, splits: Mapping[str, Any]) -> dict[str, Any]:
    return {split: value for split, value in (values or {}).items() if split in splits}


def _cells(document: Mapping[str, Any]) -> dict[str, Any]:
    """Everything that a report says, by where it says it."""
    values: dict[str, Any] = {"title": document.get("title"), "notes": document.get("notes")}
    for table in document.get("tables", ()):
        name = table["key"]
        values |= {f"{name}: {part}": table.get(part) for part in ("title", "caption", "notes", "row_title")}
        values[f"{name}: columns"] = [column["key"] for column in table["columns"]]
        for row in table["rows"]:
            values[f"{name}: row {row['key']}: runs"] = row["runs"]
            for column, cell in row["cells"].items():
                for part, value in cell.items():
                    values[f"{name}: row {row['key']}, column {column}: {part}"] = value
    return values


def _is_close(stored: Any, recomputed: Any, share: float = _SEARCHED) -> bool:
    """Whether two values say the same: numbers up to a share of themselves, all else as it stands."""
    if isinstance(stored, Mapping) and isinstance(recomputed, Mapping):
        return stored.keys() == recomputed.keys() and all(
            _is_close(stored[key], recomputed[key], share) for key in stored
        )
    if isinstance(stored, list | tuple) and isinstance(recomputed, list | tuple):
        pairs = zip(stored, recomputed, strict=False)
        return len(stored) == len(recomputed) and all(_is_close(*pair, share) for pair in pairs)
    if isinstance(stored, float) and isinstance(recomputed, int | float) and not isinstance(recomputed, bool):
        return math.isclose(stored, recomputed, rel_tol=share, abs_tol=_ABSOLUTE)
    return bool(stored == recomputed)


def _shown(value: Any) -> str:
    if value is None:
        return _NOTHING
    text = f"{value:.12g}" if isinstance(value, float) else printable(str(value))
    return text if len(text) <= 80 else f"{text[:77]}..."

"""From what happened in a run to the parts of its result: figures, digests and files."""

from __future__ import annotations

import hashlib
import json
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet

import petlbench
from petlbench.core.catalog import Catalog
from petlbench.core.config import RunConfig
from petlbench.core.environment import package_versions, seconds_of_start
from petlbench.core.errors import InputError
from petlbench.data.record import SPLITS, Record
from petlbench.data.splits import group_numbers
from petlbench.data.tasks.base import Scale
from petlbench.data.views import Normalization
from petlbench.features.source import CachedFeatures, FeatureSource
from petlbench.memory.measure import MemoryMeter
from petlbench.metrics.classification import compute_intervals, evaluate
from petlbench.metrics.groups import Aggregate, by_group
from petlbench.metrics.metric import Metric
from petlbench.models.build import Assembled
from petlbench.results.folder import RunFolder
from petlbench.results.result import Memory, PhaseMemory, Result
from petlbench.results.stored import ATTRIBUTE_COLUMNS
from petlbench.run.data import RunData, shared_images
from petlbench.run.options import RunOptions
from petlbench.training.evaluation import Labels, Logits
from petlbench.training.selection import chooses_by_column

ARTIFACTS: Mapping[str, str] = {
    "predictions": "predictions.parquet",
    "learned": "learned.safetensors",
    "manifest": "manifest.csv",
}
ATTRIBUTES = "attributes.parquet"

# pyarrow builds its names at run time, out of sight of type checkers.
_arrow: Any = pyarrow

_NO_VALIDATION = "The validation images are trained on: there are no scores on them, and the epoch is the last."
_TEXTS = ("image_id", "group", "split")


@dataclass
class Stopwatch:
    """The seconds of a run by phase, from when this is made."""

    seconds: dict[str, float] = field(default_factory=lambda: {"preload": 0.0})
    began: float = field(default_factory=time.perf_counter)

    @classmethod
    def of_command(cls) -> Stopwatch:
        """One that has run since the command began, whose imports are the phase ``start``: those of its first run."""
        start = seconds_of_start()
        return cls({"start": start, "preload": 0.0}, time.perf_counter() - start)

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Add the seconds of a block that ends well to a phase."""
        began = time.perf_counter()
        yield
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - began

    @property
    def spent(self) -> float:
        """Seconds since this was made."""
        return time.perf_counter() - self.began

    def timing(self, earlier: float) -> dict[str, float]:
        """Seconds of each phase, and ``other``: what they leave of ``total``.

        Args:
            earlier: Seconds that earlier attempts have added to the phases.
        """
        total = self.spent + earlier
        return {"total": total, **self.seconds, "other": max(total - sum(self.seconds.values()), 0.0)}


def identify(
    config: RunConfig, catalog: Catalog, data: RunData, assembled: Assembled, external: RunData | None = None
) -> dict[str, Any]:
    """Take the digests that decide whether a stored result still stands for its config."""
    manifest = data.manifest
    return {
        "data": manifest.digest,
        "split": manifest.split_digest,
        **({"draw": manifest.draw_digest} if manifest.draw_digest else {}),
        "weights": assembled.weights_digest,
        **code_digests(config.method, catalog),
        "external": "" if external is None else external.manifest.digest,
        "greys": "; ".join(each.dataset.greys.tag() for each in (data, external) if each is not None).strip("; "),
        **(
            {"attributes": _attributes_digest(data.records("val"))} if chooses_by_column(config.training.select) else {}
        ),
    }


def _attributes_digest(records: Sequence[Record]) -> str:
    """The SHA-256 of what tables say of images beside their labels, which chooses the epoch where subgroups do."""
    rows = sorted((record.image_id, sorted(record.extra)) for record in records)
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()


def code_digests(method: str, catalog: Catalog) -> dict[str, Any]:
    """Take the part of the digests that needs no data and no weights: method code and package versions."""
    return {
        "method": catalog.find("method", method).digest(),
        "petlbench": petlbench.__version__,
        "packages": package_versions(),
    }


def differences(stored: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Say in words what differs between two sets of digests."""
    changes = [
        f"{name} differs"
        for name in ("data", "split", "draw", "weights", "method", "external", "greys", "attributes")
        if stored.get(name, "") != now.get(name, "")
    ]
    if stored.get("petlbench") != now["petlbench"]:
        changes.append(f"petlbench was {stored.get('petlbench')} and is {now['petlbench']}")
    old, new = stored.get("packages", {}), now["packages"]
    changes += [f"{name} was {old.get(name)} and is {new[name]}" for name in new if old.get(name) != new[name]]
    return changes


def standing_result(folder: RunFolder, digests: Mapping[str, Any], options: RunOptions) -> Result | None:
    """Return the finished result of a run, if it still stands for what these digests are of.

    Raises:
        InputError: When it depends on something else, and is neither to be replaced nor to be accepted.
    """
    result = None if options.rerun else folder.result()
    if result is None or result.status != "finished":
        return None
    changed = differences(result.digests, digests)
    if changed and not options.accept:
        raise InputError(
            f"{folder.final} is a finished result of this config, but it depends on something else: "
            f"{'; '.join(changed)}",
            hint="--rerun runs it again, --accept takes the result as it is",
            kind="stale_result",
        )
    return result


def write_predictions(
    file: Path, data: RunData, external: RunData | None, outputs: Mapping[str, tuple[Labels, Logits]]
) -> None:
    """Write labels and logits (N, C) by split, in the order of its indices, as a parquet file.

    A label is a whole number where an image has one class; else a list, null where a label is unknown, or a float.
    """
    records = _records(data, external)
    rows: list[tuple[Any, ...]] = []
    for split, (_, logits) in outputs.items():
        for record, values in zip(records[split], logits.tolist(), strict=True):
            rows.append((record.image_id, record.group, split, record.label, values))
    *texts, labels, lists = ([row[column] for row in rows] for column in range(5))
    columns = {name: _arrow.array(values, _arrow.string()) for name, values in zip(_TEXTS, texts, strict=True)}
    columns |= {"label": _arrow.array(labels), "logits": _arrow.array(lists, _arrow.list_(_arrow.float32()))}
    _arrow.parquet.write_table(_arrow.table(columns), file)


def write_attributes(folder: Path, data: RunData) -> dict[str, str]:
    """Write what tables say of validation and test images beside label and group: a row a value, as a parquet file.

    Returns:
        The file among the run's artifacts; nothing, and no file, where tables say nothing.
    """
    records = [*data.records("val"), *data.records("test")]
    rows = [(record.image_id, name, value) for record in records for name, value in record.extra]
    if not rows:
        return {}
    columns = zip(ATTRIBUTE_COLUMNS, zip(*rows, strict=True), strict=True)
    table = _arrow.table({name: _arrow.array(values, _arrow.string()) for name, values in columns})
    _arrow.parquet.write_table(table, folder / ATTRIBUTES)
    return {"attributes": ATTRIBUTES}


def describe_intervals(
    data: RunData,
    external: RunData | None,
    outputs: Mapping[str, tuple[Labels, Logits]],
    metrics: Sequence[Metric],
) -> dict[str, Any]:
    """The intervals of the scores, patients or lesions counted once, of labels (N,) and logits (N, C) by split."""
    records = _records(data, external)
    return {
        split: compute_intervals(labels, logits, [record.group for record in records[split]], metrics=metrics)
        for split, (labels, logits) in outputs.items()
    }


def score_groups(
    data: RunData,
    external: RunData | None,
    outputs: Mapping[str, tuple[Labels, Logits]],
    metrics: Sequence[Metric],
    aggregate: Aggregate,
) -> dict[str, tuple[dict[str, Any], dict[str, Any]]]:
    """The scores of groups (patients, lesions) and their intervals by split, where the groups of its images are known.

    The scores count the groups that are left out beside them, as ``ambiguous``.
    """
    records, task = _records(data, external), data.dataset.task
    scores = {}
    for split, (labels, logits) in outputs.items():
        groups = by_group(labels, logits, [record.group for record in records[split]], task.groups, aggregate)
        if groups is not None:
            values = {**evaluate(groups.labels, groups.logits, metrics, task.count), "ambiguous": groups.ambiguous}
            scores[split] = values, compute_intervals(groups.labels, groups.logits, metrics=metrics)
    return scores


def describe_memory(meter: MemoryMeter) -> Memory:
    """Take the training step's peak from a meter, and every phase beside it."""
    step = meter.phases.get("train_step", PhaseMemory())
    return Memory(
        allocated=step.allocated,
        reserved=step.reserved,
        process=step.process,
        resident=step.resident,
        source=meter.source,
        phases={name: asdict(figures) for name, figures in meter.phases.items()},
        parts=step.parts,
        others=meter.already_used,
    )


def describe_data(
    data: RunData,
    normalization: Normalization,
    external: RunData | None,
    source: FeatureSource,
    *,
    metrics: Sequence[Metric],
    scale: Scale | None,
) -> dict[str, Any]:
    """Count the images by split and class, name what was skipped, and say what was made of the images."""
    forms = {metric.name: metric.form for metric in metrics if metric.form}
    description = {**describe_images(data), "normalization": asdict(normalization), "score_forms": forms}
    description |= {"selection": data.dataset.task.selection, "scale": None if scale is None else asdict(scale)}
    if not data.indices["val"]:
        description["notes"] = [*description["notes"], _NO_VALIDATION]
    if data.drawn:
        description["drawn"] = _describe_draw(data)
    if isinstance(source, CachedFeatures):
        each = source.store.bytes_an_image
        description["features"] = {"bytes_per_image": each, "bytes": each * len(data.dataset.records)}
    if external is not None:
        description["external"] = {**describe_images(external), "shared_images": shared_images(external, data)}
    return description


def _describe_draw(data: RunData) -> dict[str, Any]:
    """Which draw of few labels the training split is, and how many images, and groups, of each class it has."""
    records, classes = data.records("train"), data.dataset.classes
    description = {**data.drawn, "images_by_class": data.dataset.by_class(records)}
    if any(record.group is not None for record in records):
        positions = data.dataset.task.labels.positions
        units = zip(records, group_numbers(records).tolist(), strict=True)
        pairs = {(place, unit) for record, unit in units for place in positions(record.label)}
        counts = Counter(place for place, _ in pairs)
        description["groups_by_class"] = {name: counts[place] for place, name in enumerate(classes)}
    return description


def describe_images(data: RunData) -> dict[str, Any]:
    """Count the images of one dataset by split and class, and say what it is."""
    card, classes = data.dataset.card, data.dataset.classes
    counts = {side: data.dataset.by_class(data.records(side)) for side in SPLITS}
    return {
        "title": card.title,
        "card_version": card.version,
        "synthetic": card.synthetic,
        "task": data.dataset.task.name,
        "classes": list(classes),
        "images": {side: len(data.indices[side]) for side in SPLITS},
        "images_by_class": {side: {name: n for name, n in counts[side].items() if n} for side in SPLITS},
        "groups": {side: _groups(data.records(side)) for side in SPLITS},
        "grouping": card.grouping,
        "greys": data.dataset.greys.whites(),
        "skipped": list(data.skipped),
        "notes": list(data.dataset.notes),
    }


def _groups(records: Sequence[Record]) -> int | None:
    """The number of groups, an image without one among them; None where none is known."""
    return len(set(group_numbers(records).tolist())) if any(record.group is not None for record in records) else None


def _records(data: RunData, external: RunData | None) -> dict[str, list[Record]]:
    """The images of each split, the external test set's as ``external``."""
    return {**{side: data.records(side) for side in SPLITS}, "external": external.records("test") if external else []}

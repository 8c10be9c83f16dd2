"""An audit of a dataset as a report: what is wrong, baselines, duplicates side by side, what goes with the class."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from petlbench.audit.audit import TOO_EASY, Audit
from petlbench.audit.confounders import WEAK, Confound
from petlbench.audit.leaks import DuplicatePair, Leaks
from petlbench.core.text import as_sentence
from petlbench.data.dataset import Dataset
from petlbench.report.cells import number_cell
from petlbench.report.document import Axis, Cell, Column, Figure, Series, Table, table_of
from petlbench.report.formats import Document
from petlbench.report.kinds.audit_verdict import checks, next_steps, verdict_of

_MOST_PAIRS = 24
_MOST_CONFOUNDS = 8
_MOST_NAMES = 20
_SIDE = 192  # pixels of a shown image
_EACH, _MOST_CLASSES = 4, 20  # images that are shown of a class, and classes
_WAYS = ("bytes", "pixels", "near", "mirrored")

_Rows = list[list[Cell | str]]


def audit_document(audit: Audit, dataset: Dataset | None = None) -> Document:
    """The report of an audit, with pictures of pairs where their dataset is given."""
    return Document(
        f"audit-{audit.dataset}",
        f"Audit of {audit.dataset}",
        [replace(table, title=as_sentence(table.title)) for table in _tables(audit, dataset)],
        list(_figures(audit)),
        audit.notes,
        settings={
            "date": audit.date,
            "marked": ", ".join(audit.verdicts) or "neither shortcut nor easy",
            "split": audit.split,
        },
        verdict=verdict_of(audit),
    )


def _tables(audit: Audit, dataset: Dataset | None) -> Iterator[Table]:
    unreadable = [f"{name}: {why}" for name, why in audit.unreadable.items()]
    yield _findings(audit)
    if (steps := next_steps(audit)) is not None:
        yield steps
    yield checks(audit)
    yield _images(audit)
    yield from _samples(audit, dataset)
    yield from _together(audit)
    yield _baselines(audit)
    yield from _duplicates(audit.leaks, dataset)
    yield from _confounds(audit)
    yield from _names("constant", "columns that are the same for all images", audit.constant)
    yield from _names("identifying", "columns that are names of single images", audit.identifying)
    yield from _names("unreadable", "images that cannot be read", unreadable)
    yield from _names("groups", "groups on two sides of the split", audit.leaks.groups)


def _findings(audit: Audit) -> Table:
    columns = [Column("kind", "finding"), *_texts("grave", "what")]
    rows = [[finding.kind, "grave" if finding.grave else "", finding.text] for finding in audit.findings]
    caption = "Grave: a table on this dataset and split should be rejected for it."
    nothing = [["none", "", "nothing that would speak against a table on this dataset and split"]]
    return table_of("findings", "findings", columns, rows or nothing, caption)


def _images(audit: Audit) -> Table:
    columns = [Column("side", "side"), *_of_classes(audit.classes)]
    rows: _Rows = [[side, *map(_count, counts)] for side, counts in audit.images.items()]
    return table_of("images", "images", columns, rows)


def _samples(audit: Audit, dataset: Dataset | None) -> Iterator[Table]:
    """The first images of every class, which show more than figures do."""
    if dataset is None:
        return
    picture, labels = _pictures(dataset), dataset.task.labels
    by_class: dict[str, list[str]] = {name: [] for name in dataset.classes[:_MOST_CLASSES]}
    for record in dataset.records:
        names = by_class.get(labels.text(record.label, dataset.classes), [])
        if len(names) < _EACH and record.image_id not in audit.unreadable:
            names.append(record.image_id)
    columns = [Column("class", "class"), *(_texts(*(f"image {number}" for number in range(1, _EACH + 1))))]
    rows: _Rows = [
        [name, *(Cell(picture=picture(each)) for each in names)] for name, names in by_class.items() if names
    ]
    whole: _Rows = [[*row, *(Cell() for _ in range(len(columns) - len(row)))] for row in rows]
    if rows:
        yield table_of("samples", "images of each class", columns, whole, "The first ones of each class.")


def _together(audit: Audit) -> Iterator[Table]:
    """Which classes stand together, where images may have several."""
    if audit.together:
        columns = [Column("class", "class"), *_of_classes(audit.classes)]
        rows: _Rows = [[name, *map(_count, row)] for name, row in zip(audit.classes, audit.together, strict=True)]
        caption = "Images that have both classes; of one class on the diagonal."
        yield table_of("together", "classes that stand together", columns, rows, caption)


def _baselines(audit: Audit) -> Table:
    columns = [
        Column("baseline", "baseline"),
        Column("auc", "AUC", "%"),
        Column("interval", "95 % interval", "%"),
        Column("accuracy", "accuracy", "%"),
        *_texts("given"),
    ]
    rows: _Rows = [
        [
            each.name,
            replace(number_cell(_percent(each.auc), 1, each.refused), low=_percent(each.low), high=_percent(each.high)),
            "" if each.auc is None else f"{_percent(each.low):.1f} to {_percent(each.high):.1f}",
            number_cell(_percent(each.accuracy), 1, each.refused),
            each.refused or each.features,
        ]
        for baseline in audit.baselines
        for each in (baseline, *(replace(part, name=f"{baseline.name}, {part.name}") for part in baseline.parts))
    ]
    caption = "Interval: bootstrap over images, or groups where they are known; metadata: no look at the picture."
    return table_of("baselines", "trivial baselines, cross-validated", columns, rows, caption)


def _duplicates(leaks: Leaks, dataset: Dataset | None) -> Iterator[Table]:
    columns = [Column("where", "where"), *(Column(way, way) for way in _WAYS)]
    rows: _Rows = [
        [f"within {first}" if first == second else f"{first} and {second}", *(_count(counts[way]) for way in _WAYS)]
        for (first, second), counts in leaks.counts().items()
    ]
    none: _Rows = [["anywhere", *(_count(0) for _ in _WAYS)]]
    yield table_of("duplicates", "pairs of duplicates", columns, rows or none, f"In {len(leaks.sets):,} sets.")
    if leaks.pairs:
        columns = [
            Column("image", "image"),
            *_texts("shown", "and", "kind"),
            Column("bits", "bits"),
            Column("correlation", "correlation"),
            *_texts("class", "side"),
        ]
        picture = _pictures(dataset)
        more = len(leaks.pairs) - _MOST_PAIRS
        caption = f"And {more:,} more." if more > 0 else ""
        pairs = [_pair(pair, picture) for pair in leaks.pairs[:_MOST_PAIRS]]
        yield table_of("pairs", "duplicates side by side", columns, pairs, caption)


def _pair(pair: DuplicatePair, picture: Callable[[str], str]) -> list[Cell | str]:
    first, second = pair.images
    return [
        first,
        Cell(picture=picture(first)),
        Cell(text=second, picture=picture(second)),
        pair.kind,
        _count(pair.bits),
        number_cell(pair.correlation, 3),
        _both(*pair.classes),
        _both(*pair.sides),
    ]


def _both(first: str | None, second: str | None) -> str:
    return first or "none" if first == second else f"{first or 'none'}, {second or 'none'}"


def _pictures(dataset: Dataset | None) -> Callable[[str], str]:
    """What gives an image by its id as a JPEG in base64, small enough for a page; nothing without a dataset."""
    records = {} if dataset is None else {record.image_id: record for record in dataset.records}

    def picture(name: str) -> str:
        if dataset is None:
            return ""
        image = dataset.open(records[name])
        image.thumbnail((_SIDE, _SIDE))
        file = io.BytesIO()
        image.save(file, "JPEG", quality=80)
        return base64.b64encode(file.getvalue()).decode("ascii")

    return picture


def _confounds(audit: Audit) -> Iterator[Table]:
    if audit.confounds:
        columns = [Column("column", "column"), Column("cramers_v", "Cramér's V"), Column("p", "p (chi-squared)")]
        rows: _Rows = [
            [f"{c.column}: {c.label}" if c.label else c.column, number_cell(c.cramers_v), Cell(c.p, f"{c.p:.1g}")]
            for c in audit.confounds
        ]
        caption = "V: 0 unrelated, 1 one tells the other; p takes the images for independent."
        yield table_of("confounds", "what goes with the class", columns, rows, caption)
    for number, confound in enumerate(_telling(audit)):
        columns = [Column("value", confound.column), *_of_classes(audit.classes)]
        counts: _Rows = [
            [row, *map(_count, of_row)] for row, of_row in zip(confound.rows, confound.counts, strict=True)
        ]
        yield table_of(f"column-{number}", f"images by {confound.column} and class", columns, counts)


def _telling(audit: Audit) -> Sequence[Confound]:
    return [confound for confound in audit.confounds if confound.cramers_v >= WEAK][:_MOST_CONFOUNDS]


def _figures(audit: Audit) -> Iterator[Figure]:
    measured = [baseline for baseline in audit.baselines if baseline.auc is not None]
    if measured:
        auc = Axis("auc", "cross-validated AUC with its 95 % interval", "%")
        ends = {"auc": "auc", "auc_low": "low", "auc_high": "high"}
        series = [
            Series(b.name, b.name, {key: [_percent(getattr(b, name))] for key, name in ends.items()}) for b in measured
        ]
        title = "How far the class can be told without learning to see"
        caption = f"Dashed: {100 * TOO_EASY:.0f} %. The baselines of metadata do not look at the picture."
        axes = (auc, Axis("row", "baseline"))
        yield Figure.of("baselines", "intervals", title, axes, series, caption=caption, marks={"line": 100 * TOO_EASY})
    if audit.confounds:
        axes = (Axis("column", "column"), Axis("cramers_v", "Cramér's V of the column with the class"))
        values = {"cramers_v": [confound.cramers_v for confound in audit.confounds]}
        bars = [Series("columns", "columns", values, [confound.column for confound in audit.confounds])]
        yield Figure.of("strengths", "bars", "What goes with the class", axes, bars)
    for number, confound in enumerate(_telling(audit)):
        yield _shares(f"column-{number}", confound, audit.classes)


def _shares(key: str, confound: Confound, classes: Sequence[str]) -> Figure:
    """Which share of the images of each class has which value of a column."""
    totals = [max(1, sum(counts)) for counts in zip(*confound.counts, strict=True)]
    series = [
        Series(
            name, name, {"share": [100 * count / total for count, total in zip(counts, totals, strict=True)]}, classes
        )
        for name, counts in zip(confound.rows, confound.counts, strict=True)
    ]
    axes = (Axis("class", "class"), Axis("share", "share of the class", "%"))
    title = f"{as_sentence(confound.column)}: V = {confound.cramers_v:.2f}, p = {confound.p:.2g}"
    return Figure.of(key, "bars", title, axes, series, marks={"stacked": True})


def _names(key: str, title: str, names: Sequence[str]) -> Iterator[Table]:
    if names:
        more = len(names) - _MOST_NAMES
        rows = [[name] for name in names[:_MOST_NAMES]]
        yield table_of(key, title, [Column("name", "name")], rows, f"And {more:,} more." if more > 0 else "")


def _texts(*names: str) -> list[Column]:
    return [Column(name, name, numeric=False) for name in names]


def _of_classes(classes: Sequence[str]) -> list[Column]:
    return [Column(f"class_{number}", name) for number, name in enumerate(classes)]


def _percent(fraction: float | None) -> float | None:
    return None if fraction is None else 100 * fraction


def _count(count: int) -> Cell:
    return number_cell(count, 0)

"""An audit as one HTML page that needs no other file: tables, figures, and the pairs side by side."""

from __future__ import annotations

import base64
import html
import io
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from petlbench.audit.audit import Audit
from petlbench.audit.confounders import WEAK
from petlbench.audit.figures import draw_baselines, draw_confound, draw_strengths
from petlbench.audit.leaks import Twins
from petlbench.core.errors import InputError
from petlbench.core.files import write_atomically
from petlbench.data.dataset import Dataset
from petlbench.data.record import Record

__all__ = ["check_page_file", "write_page"]

_MOST_PAIRS = 24
_MOST_CONFOUNDS = 8
_MOST_NAMES = 20
_SIDE = 192  # pixels of a shown image

_STYLE = """
:root { color-scheme: light dark; --ink: #1b1b1b; --paper: #ffffff; --soft: #5f5f5f; --line: #d5d5d5; --bad: #a32400; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e8e8e8; --paper: #16181b; --soft: #a8a8a8; --line: #3c3f44; --bad: #ff9a70; } }
body { color: var(--ink); background: var(--paper); font: 16px/1.5 system-ui, sans-serif; max-width: 60rem;
  margin: 2rem auto; padding: 0 1rem; }
h1, h2 { line-height: 1.2; } .soft, figcaption { color: var(--soft); } .grave { color: var(--bad); font-weight: 600; }
table { border-collapse: collapse; display: block; overflow-x: auto; }
th, td { border-bottom: 1px solid var(--line); padding: .25rem .75rem .25rem 0; text-align: left; }
td.number, th.number { text-align: right; } svg { max-width: 100%; height: auto; }
.pairs { display: grid; grid-template-columns: repeat(auto-fill, minmax(25rem, 1fr)); gap: 1.5rem; }
figure { margin: 0; overflow-wrap: anywhere; } figure img { width: 12rem; max-width: 49%; }
"""


def check_page_file(file: Path) -> None:
    """Check that a page can be written to a file, before anything is computed.

    Raises:
        InputError: When its name does not end in ``.html`` or its folder cannot be written to.
    """
    if file.suffix.lower() not in {".html", ".htm"}:
        raise InputError(f"--output {file}: the report is a page", hint="end the name in .html", kind="bad_setting")
    if file.is_dir() or not file.parent.is_dir() or not os.access(file.parent, os.W_OK | os.X_OK):
        raise InputError(
            f"--output {file}: no file can be written there", hint="give a folder that exists", kind="not_writable"
        )


def write_page(file: Path, audit: Audit, dataset: Dataset) -> None:
    """Write the page, whole or not at all.

    Args:
        file: Where to; `check_page_file` has passed it.
        audit: What came out.
        dataset: Where the images of the pairs are read from.
    """
    name = html.escape(audit.dataset)
    parts = [
        f"<!doctype html><html lang=en><meta charset=utf-8><title>Audit of {name}</title>",
        '<meta name=viewport content="width=device-width, initial-scale=1">',
        f"<style>{_STYLE}</style><h1>Audit of {name}</h1>",
        *_findings(audit),
        *_images(audit),
        *_baselines(audit),
        *_duplicates(audit, dataset),
        *_confounds(audit),
        *_list("Images that cannot be read", [f"{one}: {why}" for one, why in audit.unreadable.items()]),
        *_list("Groups on two sides of the split", audit.leaks.groups),
        *_list("Notes", audit.notes),
    ]
    with write_atomically(file) as temporary:
        temporary.write_text("\n".join(parts) + "\n", encoding="utf-8")


def _findings(audit: Audit) -> Iterator[str]:
    verdict = ", ".join(audit.verdicts) or "neither shortcut nor easy"
    yield f"<p>Marked: <strong>{html.escape(verdict)}</strong>. Split: {html.escape(audit.split)}.</p>"
    if not audit.findings:
        yield "<p>Nothing was found that would speak against a table on this dataset and split.</p>"
        return
    items = "".join(
        f'<li class="{"grave" if finding.grave else ""}">{html.escape(finding.text)}</li>' for finding in audit.findings
    )
    yield f"<ul>{items}</ul>"
    yield "<p class=soft>Coloured: grave, a table on this dataset and split should be rejected for it.</p>"


def _images(audit: Audit) -> Iterator[str]:
    rows = [[side, *(f"{count:,}" for count in counts)] for side, counts in audit.images.items()]
    yield "<h2>Images</h2>" + _table(["side", *audit.classes], rows)


def _baselines(audit: Audit) -> Iterator[str]:
    yield "<h2>How far the class can be told without learning to see</h2>"
    if any(one.auc is not None for one in audit.baselines):
        yield draw_baselines(audit.baselines)
        yield "<p class=soft>Squares: baselines that do not look at the picture. Dashed: 0.9.</p>"
    rows = [
        [one.name, "–", "–", "–", one.refused]
        if one.auc is None
        else [one.name, f"{one.auc:.3f}", f"{one.low:.3f} to {one.high:.3f}", f"{one.accuracy:.1%}", one.features]
        for one in audit.baselines
    ]
    yield _table(["baseline", "AUC", "95 % interval", "accuracy", "given"], rows, numbers=(1, 2, 3))


def _duplicates(audit: Audit, dataset: Dataset) -> Iterator[str]:
    twins = audit.leaks.twins
    if not twins:
        yield "<h2>Duplicates</h2><p>None were found.</p>"
        return
    shown = f"; the first {_MOST_PAIRS} are shown" if len(twins) > _MOST_PAIRS else ""
    yield f"<h2>Duplicates</h2><p>{len(twins):,} pairs in {len(audit.leaks.sets):,} sets{shown}.</p><div class=pairs>"
    records = {record.image_id: record for record in dataset.records}
    for pair in twins[:_MOST_PAIRS]:
        yield _pair(pair, [records[name] for name in pair.images], dataset)
    yield "</div>"


def _pair(pair: Twins, records: Sequence[Record], dataset: Dataset) -> str:
    pictures = "".join(
        f'<img alt="{html.escape(record.image_id)}" src="data:image/jpeg;base64,{_thumbnail(record, dataset)}"> '
        for record in records
    )
    sides = " · ".join(
        html.escape(f"{name} ({kind}, {side or 'no side'})")
        for name, kind, side in zip(pair.images, pair.classes, pair.sides, strict=True)
    )
    how = html.escape(f"{pair.kind}, {pair.bits} bits, correlation {pair.correlation:.3f}")
    style = ' class="grave"' if pair.across or pair.two_labels else ""
    return f"<figure>{pictures}<figcaption><span{style}>{how}</span><br>{sides}</figcaption></figure>"


def _thumbnail(record: Record, dataset: Dataset) -> str:
    image = dataset.open(record)
    image.thumbnail((_SIDE, _SIDE))
    file = io.BytesIO()
    image.save(file, "JPEG", quality=80)
    return base64.b64encode(file.getvalue()).decode("ascii")


def _confounds(audit: Audit) -> Iterator[str]:
    yield "<h2>What goes with the class</h2>"
    if audit.confounds:
        yield draw_strengths(audit.confounds)
    for confound in [one for one in audit.confounds if one.cramers_v >= WEAK][:_MOST_CONFOUNDS]:
        yield f"<h3>{html.escape(confound.column)}: V = {confound.cramers_v:.2f}, p = {confound.p:.2g}</h3>"
        yield draw_confound(confound, audit.classes)
        rows = [
            [row, *(f"{count:,}" for count in counts)]
            for row, counts in zip(confound.rows, confound.counts, strict=True)
        ]
        yield _table([confound.column, *audit.classes], rows)
    for what, names in (("the same for all images", audit.constant), ("names of single images", audit.identifying)):
        if names:
            yield f"<p class=soft>Columns that are {what}: {html.escape(', '.join(names))}.</p>"


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]], numbers: Sequence[int] | None = None) -> str:
    right = range(1, len(columns)) if numbers is None else numbers

    def cells(kind: str, texts: Sequence[str]) -> str:
        return "".join(
            f"<{kind}{' class=number' if place in right else ''}>{html.escape(text)}</{kind}>"
            for place, text in enumerate(texts)
        )

    body = "".join(f"<tr>{cells('td', row)}</tr>" for row in rows)
    return f"<table><tr>{cells('th', columns)}</tr>{body}</table>"


def _list(heading: str, lines: Sequence[str]) -> Iterator[str]:
    if lines:
        items = "".join(f"<li>{html.escape(line)}</li>" for line in lines[:_MOST_NAMES])
        more = f"<li>and {len(lines) - _MOST_NAMES:,} more</li>" if len(lines) > _MOST_NAMES else ""
        yield f"<h2>{heading}</h2><ul>{items}{more}</ul>"

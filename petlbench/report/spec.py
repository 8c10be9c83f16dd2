"""Reports as files: which study a report needs, and what it shows; the kinds they are of; what a user asks of one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from petlbench.core.catalog import Catalog
from petlbench.core.entry import Card, Entry, Kind
from petlbench.core.errors import InputError, unknown_name

if TYPE_CHECKING:
    from petlbench.report.document import Figure
    from petlbench.report.formats import Document
    from petlbench.report.inputs import ReportInputs
    from petlbench.report.kinds.papers import PaperTable

__all__ = [
    "PRESETS",
    "Preset",
    "ReportCard",
    "ReportKind",
    "ReportRequest",
    "StudyCard",
    "Variant",
    "load_report",
    "required_study",
]

Preset = Literal["as-published", "best-practice", "any"]

PRESETS: Mapping[str, Mapping[str, str]] = {
    "as-published": {"precision": "fp16", "attention_kernel": "eager"},
    "best-practice": {"precision": "bf16", "attention_kernel": "fused"},
}
"""What the two standard settings fix; no table mixes them."""


@dataclass(frozen=True)
class ReportKind(Card):
    """A kind of report: what ``kind`` in a report's file names.

    Args:
        build: Makes the report of its inputs.
        needs: Fields of the report's file that must not be empty.
        printed_figure: Draws a paper's printed table, with the names of tables by name; None where nothing is drawn.
    """

    kind: ClassVar[Kind] = "report_kind"

    build: Callable[[ReportInputs], Document]
    needs: tuple[str, ...] = ()
    printed_figure: Callable[[PaperTable, Mapping[str, str]], Figure] | None = None


@dataclass(frozen=True)
class Variant:
    """A row of a report that compares settings of methods.

    Args:
        title: What stands in front of the row.
        method: Name of the method.
        settings: Settings of the method that tell the rows apart; every row of a method names all of them.
        preload: Whether frozen features are preloaded; None where it does not matter.
        published: The row's label in the papers' table; empty for the title.
    """

    title: str
    method: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    preload: bool | None = None
    published: str = ""


@dataclass(frozen=True)
class StudyCard:
    """The study that a report needs.

    Args:
        methods: Names of methods, in the order of the rows.
        datasets: Names of datasets, in the order of the columns.
        seeds: Seeds.
        request: What holds for all runs, by the names of `petlbench.run.resolve.Request`.
        settings: Further settings of one method or dataset, by its name.
    """

    methods: tuple[str, ...] = ()
    datasets: tuple[str, ...] = ()
    seeds: tuple[int, ...] = (0, 1, 2)
    request: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


@dataclass(frozen=True)
class ReportCard:
    """A report as its file describes it.

    Args:
        name: Its name in the catalogue.
        title: What stands above it.
        kind: Name of the `ReportKind` that makes it.
        summary: What it shows, in a sentence.
        columns: Keys of the columns, in their order.
        against: The method that the others are compared with; empty for none.
        study: What it needs.
        variants: Its rows, where they are settings of methods.
        sizes: Image sizes in pixels, where these are what is varied.
        specificity: At which thresholds are chosen, where they are.
    """

    name: str
    title: str
    kind: str
    summary: str = ""
    columns: tuple[str, ...] = ()
    against: str = ""
    study: StudyCard = field(default_factory=StudyCard)
    variants: tuple[Variant, ...] = ()
    sizes: tuple[int, ...] = ()
    specificity: float = 0.9


@dataclass(frozen=True)
class ReportRequest:
    """What a user asks of a report.

    Args:
        results: A folder, ``mlflow:URI`` or ``papers:NAME``.
        study: Name of a study; None for all results.
        preset: The standard setting.
        where: Values of the runs' configs by key.
        compare: Whether the papers' figures stand beside.
        columns: Keys of further columns.
        metric: The score.
        figure: The figure of memory.
        against: The method that the others are compared with; None for the report's own.
        audits: Folder of stored audits; None for ``audits`` in the folder of the results.
        x: The cost that a figure shows to the right: memory, parameters or time; None for the report's own.
        measured: Whether memory is that of the results rather than predicted.
    """

    results: str = "results"
    study: str | None = None
    preset: Preset = "any"
    where: Mapping[str, str] = field(default_factory=dict)
    compare: bool = False
    columns: Sequence[str] = ()
    metric: str = "auc"
    figure: str = "allocated"
    against: str | None = None
    audits: Path | None = None
    x: str | None = None
    measured: bool = False

    @property
    def output(self) -> Path | None:
        """The folder of the results; None where they are elsewhere."""
        return None if self.results.startswith(("mlflow:", "papers:")) else Path(self.results)

    @property
    def paper(self) -> str | None:
        """The paper that ``papers:NAME`` names; None for other sources."""
        return self.results.removeprefix("papers:") if self.results.startswith("papers:") else None


def load_report(catalog: Catalog, name: str) -> ReportCard:
    """Read a report's file.

    Raises:
        InputError: When nothing has that name, or the file is wrong.
    """
    entry = catalog.find("report", name)
    fields_ = dict(entry.card)
    study = _build(StudyCard, fields_.pop("study", {}), entry, "study.")
    variants = tuple(_build(Variant, variant, entry, "variants.") for variant in fields_.pop("variants", ()))
    card: ReportCard = _build(ReportCard, {**fields_, "name": name}, entry, "", study=study, variants=variants)
    kinds = catalog.entries("report_kind")
    if card.kind not in kinds:
        raise _broken(entry, f"kind = '{card.kind}' is none of {', '.join(kinds)}")
    for need in catalog.load("report_kind", card.kind, ReportKind).needs:
        if not getattr(card, need):
            raise _broken(entry, f"a report of the kind '{card.kind}' needs [[{need}]]")
    return card


def required_study(card: ReportCard, preset: Preset = "any") -> dict[str, Any]:
    """Say what a report needs, for `petlbench bench --report`.

    Args:
        card: The report.
        preset: The standard setting of its runs; ``any`` leaves precision and attention as they are.

    Returns:
        ``name``, ``title``; ``matrices``: one or more of ``methods``, ``datasets``, ``seeds``, ``settings`` (of one
        method or dataset, by its name) and ``request`` (fields of `petlbench.run.resolve.Request` that hold
        for all runs).
        None at all where the report needs no run.
    """
    study = card.study
    request = {**study.request, **PRESETS.get(preset, {})}
    base = {"datasets": list(study.datasets), "seeds": list(study.seeds)}
    by_name = {name: dict(values) for name, values in study.settings.items()}
    if not study.datasets:
        return {"name": card.name, "title": card.title, "matrices": []}
    matrices: list[dict[str, Any]] = []
    if study.methods:
        matrices.append({**base, "methods": list(study.methods), "settings": by_name, "request": request})
    for variant in card.variants:
        settings = {**by_name, variant.method: {**by_name.get(variant.method, {}), **variant.settings}}
        own = request if variant.preload is None else {**request, "preload": variant.preload}
        matrices.append({**base, "methods": [variant.method], "settings": settings, "request": own})
    if card.sizes:
        matrices = [{**m, "request": {**m["request"], "image_size": size}} for m in matrices for size in card.sizes]
    return {"name": card.name, "title": card.title, "matrices": matrices}


def _build(cls: type[Any], values: Any, entry: Entry, where: str, **parts: Any) -> Any:
    if not isinstance(values, Mapping):
        raise _broken(entry, f"'{where.rstrip('.')}' is no table")
    names = {field_.name for field_ in fields(cls)}
    for name in values:
        if name not in names:
            error = unknown_name("field", f"{where}{name}", [f"{where}{field_name}" for field_name in names])
            raise _broken(entry, f"{error.message}; {error.hint}")
    try:
        return cls(
            **{name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}, **parts
        )
    except TypeError as error:
        raise _broken(entry, str(error)) from error


def _broken(entry: Entry, why: str) -> InputError:
    return InputError(
        f"the report file {entry.file} is broken: {why}",
        hint="correct the file; docs/reports.md describes it",
        kind="broken_catalog",
    )
